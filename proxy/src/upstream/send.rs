//! One request to one endpoint: pick, connect, send, and watch both bodies to their ends.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use meshgate_config::{Address, ClusterProtocol};
use meshgate_wasm::{Address as Seen, Tls};

use super::attempt::{Attempt, Queued};
use super::cluster::Cluster;
use super::connect::{self, Connection};
use super::endpoint::Endpoint;
use super::error::{UpstreamError, UpstreamErrorKind};
use super::http2;
use super::interim::TooManyInterim;
use super::outlier::Outcome;
use super::pool::{Found, InVain};
use super::upload::{Progress, RequestBody};
use crate::message::body::describe;
use crate::message::fields::clean_trailers;
use crate::message::proxy_protocol::Addresses;
use crate::message::{Body, BodyError, BodyFault, BodyReason};

/// Sends requests to clusters. One per worker.
#[derive(Debug, Default)]
pub struct Upstream {
    calls: Rc<Cell<usize>>,
}

impl Upstream {
    /// How many calls of filters are under way.
    pub(super) fn calls(&self) -> &Rc<Cell<usize>> {
        &self.calls
    }

    /// Sends `request`, whose target is in origin form and which has a `host`, to an endpoint of `cluster`, and waits for
    /// the head of the response.
    ///
    /// Dropping the future, or the body of the response before its end, closes the connection.
    pub async fn send(
        &self,
        cluster: &Cluster,
        request: Request<Body>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        self.send_over(cluster.protocol(), cluster, request, &Attempt::default()).await
    }

    /// As [`send`](Self::send), over this protocol. `attempt` is for whoever gives it up because it takes too long.
    pub(super) async fn send_over(
        &self,
        protocol: ClusterProtocol,
        cluster: &Cluster,
        request: Request<Body>,
        attempt: &Attempt,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let endpoint = self.pick(cluster, None)?;
        let sent = Instant::now();
        attempt.begin(&endpoint, sent);
        let response = match protocol {
            ClusterProtocol::Http1 => self.send_http1(cluster, &endpoint, request, &attempt.queued).await,
            ClusterProtocol::Http2 => self.send_http2(&endpoint, request, false, &attempt.queued).await,
        };
        attempt.end();
        // Nobody asked for another protocol.
        let response = response.and_then(|response| match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => Err(switched_unasked(response.body().endpoint())),
            _ => Ok(response),
        });
        let outcome = match &response {
            Ok(response) => Some(Outcome::of(response.status().as_u16())),
            Err(error) => Outcome::of_failure(error),
        };
        if let Some(outcome) = outcome {
            cluster.report(&endpoint, outcome, sent.elapsed());
        }
        response
    }

    /// The endpoint that the cluster's load balancer chooses now, for a request with this [`Cluster::key`].
    ///
    /// # Errors
    /// There is none that may be used.
    pub fn pick(&self, cluster: &Cluster, key: Option<u64>) -> Result<Rc<Endpoint>, UpstreamError> {
        let none = || UpstreamError::new(UpstreamErrorKind::NoEndpoint, None, "");
        cluster.pick(key).ok_or_else(none)
    }

    /// As [`send`](Self::send), to an endpoint chosen before. The response may have the status 101: what follows it is an
    /// [`UpstreamTunnel`](super::UpstreamTunnel)'s. `queued` tells whoever gives it up what it waited for.
    pub async fn send_to(
        &self,
        cluster: &Cluster,
        endpoint: &Rc<Endpoint>,
        request: Request<Body>,
        queued: &Queued,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        match cluster.protocol() {
            ClusterProtocol::Http1 => self.send_http1(cluster, endpoint, request, queued).await,
            ClusterProtocol::Http2 => self.send_http2(endpoint, request, true, queued).await,
        }
    }

    async fn send_http2(
        &self,
        endpoint: &Rc<Endpoint>,
        request: Request<Body>,
        may_change: bool,
        queued: &Queued,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let mut turn = Turn::new(endpoint);
        let sending = http2::send(endpoint.http2(), request, may_change, queued, || turn.activate());
        let (response, lease) = sending.await?;
        let lease = Lease { held: Held::Http2(lease), turn };
        Ok(accept(response.map(Source::Http2), lease))
    }

    async fn send_http1(
        &self,
        cluster: &Cluster,
        endpoint: &Rc<Endpoint>,
        request: Request<Body>,
        queued: &Queued,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let (head, body) = request.into_parts();
        let greeting = cluster.greeting(head.extensions.get::<Addresses>().copied());
        let (body, progress) = RequestBody::new(body, &head.headers);
        let mut request = Request::from_parts(head, body);
        let mut turn = Turn::new(endpoint);
        loop {
            let mut connection = http1_connection(&mut turn, greeting.as_deref(), queued).await?;
            connection.requests.begin();
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = Lease { held: Held::Http1 { connection, progress }, turn };
                    return Ok(accept(response.map(Source::Http1), lease));
                }
                Err(mut error) => match error.take_message() {
                    // The connection was gone before a byte of the request was written to it.
                    Some(unsent) if connection.reused => request = unsent,
                    unsent => {
                        let error = error.into_error();
                        let kind = if unsent.is_some() {
                            UpstreamErrorKind::Unsent
                        } else {
                            classify(&error, connection.reused, progress.as_deref())
                        };
                        return Err(UpstreamError::new(kind, Some(endpoint.address()), describe(&error)));
                    }
                },
            }
        }
    }
}

/// A connection for a request that counts as active from here on: one that was used before, or a new one.
async fn http1_connection(
    turn: &mut Turn,
    greeting: Option<&[u8]>,
    queued: &Queued,
) -> Result<Connection, UpstreamError> {
    turn.activate()?;
    match turn.endpoint.pool().take() {
        Some(connection) => Ok(connection),
        // Boxed: few requests need it, and none should carry the room for it.
        None => Box::pin(further_connection(turn, greeting, queued)).await,
    }
}

/// A new connection. With as many open as there may be, the request waits, and does not count as active meanwhile.
async fn further_connection(
    turn: &mut Turn,
    greeting: Option<&[u8]>,
    queued: &Queued,
) -> Result<Connection, UpstreamError> {
    let endpoint = Rc::clone(&turn.endpoint);
    let slot = match endpoint.limits().connection() {
        Some(slot) => slot,
        None => {
            turn.wait();
            queued.begin();
            let found = endpoint.pool().wait().await.map_err(|in_vain| {
                overflow(
                    &endpoint,
                    match in_vain {
                        InVain::TooMany => "too many requests wait for a connection",
                        InVain::TooLong => "no connection was free in time",
                    },
                )
            })?;
            queued.end();
            match (turn.activate(), found) {
                (Ok(()), Found::Idle(connection)) => return Ok(connection),
                (Ok(()), Found::Room(slot)) => slot,
                (Err(error), Found::Idle(connection)) => {
                    endpoint.pool().put(connection);
                    return Err(error);
                }
                (Err(error), Found::Room(_)) => return Err(error),
            }
        }
    };
    connect::connect(endpoint.address(), endpoint.dialer(), slot, greeting).await
}

fn overflow(endpoint: &Endpoint, details: &str) -> UpstreamError {
    UpstreamError::new(UpstreamErrorKind::Overflow, Some(endpoint.address()), details)
}

/// Says what happened to a request that was sent over HTTP/1.1, at least in part, and got no response head.
fn classify(error: &hyper::Error, reused: bool, progress: Option<&Progress>) -> UpstreamErrorKind {
    if let Some(broken) = progress.and_then(Progress::failure) {
        UpstreamErrorKind::RequestBody(broken)
    } else if error.is_body_write_aborted() {
        // Its length was announced and is not what came: a filter changed the one and not the other.
        UpstreamErrorKind::RequestBody(BodyError::new(
            BodyFault::Internal,
            BodyReason::Aborted,
            describe(error),
        ))
    } else if error.is_parse() || TooManyInterim::is(error) {
        UpstreamErrorKind::Protocol
    } else {
        UpstreamErrorKind::Reset { reused }
    }
}

/// Takes a response head in.
fn accept(response: Response<Source>, lease: Lease) -> Response<UpstreamBody> {
    let endpoint = lease.turn.endpoint.address();
    let (local_address, ready_after, tls) = (lease.local_address(), lease.ready_after(), lease.tls());
    let last_head = response.status() != StatusCode::SWITCHING_PROTOCOLS;
    response.map(|source| {
        let mut body = UpstreamBody { source, endpoint, local_address, ready_after, tls, lease: Some(lease) };
        if last_head && body.is_end_stream() {
            body.release();
        }
        body
    })
}

/// An endpoint changed the protocol, and nobody had offered it to.
pub fn switched_unasked(endpoint: Address) -> UpstreamError {
    UpstreamError::new(UpstreamErrorKind::Protocol, Some(endpoint), "switched protocols unasked")
}

/// Counts an exchange on its endpoint for as long as it lasts, and among the cluster's active requests while it has a
/// connection.
pub(super) struct Turn {
    endpoint: Rc<Endpoint>,
    active: bool,
}

impl Turn {
    pub(super) fn new(endpoint: &Rc<Endpoint>) -> Turn {
        endpoint.begin();
        Turn { endpoint: endpoint.clone(), active: false }
    }

    /// The request has, or is about to have, a connection.
    fn activate(&mut self) -> Result<(), UpstreamError> {
        self.active = self.active || self.endpoint.limits().begin_request();
        if self.active { Ok(()) } else { Err(overflow(&self.endpoint, "too many active requests")) }
    }

    /// The request waits for a connection.
    fn wait(&mut self) {
        if std::mem::take(&mut self.active) {
            self.endpoint.limits().end_request();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.wait();
        self.endpoint.end();
    }
}

/// What one exchange holds of an endpoint. Dropping it closes the connection, or resets the stream.
pub struct Lease {
    held: Held,
    turn: Turn,
}

enum Held {
    /// A connection on loan.
    Http1 { connection: Connection, progress: Option<Rc<Progress>> },
    /// A stream.
    Http2(http2::Lease),
}

impl Lease {
    fn local_address(&self) -> Option<Seen> {
        match &self.held {
            Held::Http1 { connection, .. } => connection.local_address,
            Held::Http2(lease) => lease.local_address(),
        }
    }

    fn tls(&self) -> Option<Rc<Tls>> {
        match &self.held {
            Held::Http1 { connection, .. } => connection.tls.clone(),
            Held::Http2(lease) => lease.tls(),
        }
    }

    /// How long the request waited for its connection. A connection for many requests is there already, or is not
    /// counted for the one that opens it.
    fn ready_after(&self) -> Duration {
        match &self.held {
            Held::Http1 { connection, .. } if !connection.reused => connection.opened_in,
            Held::Http1 { .. } | Held::Http2(_) => Duration::ZERO,
        }
    }

    /// The response is complete: gives the connection back if the whole request was sent too. An endpoint that answers
    /// before has heard enough.
    fn release(self) {
        if let Held::Http1 { connection, progress } = self.held
            && progress.is_none_or(|progress| progress.is_complete())
        {
            self.turn.endpoint.pool().put(connection);
        }
    }

    /// Why the request's body broke, if it did.
    fn failure(&self) -> Option<BodyError> {
        match &self.held {
            Held::Http1 { progress, .. } => progress.as_deref().and_then(Progress::failure),
            Held::Http2(lease) => lease.failure(),
        }
    }
}

/// The body of an endpoint's response. At its clean end the connection goes back to the pool; dropped before, it is
/// closed. Over HTTP/2 that goes for the stream.
pub struct UpstreamBody {
    source: Source,
    endpoint: Address,
    local_address: Option<Seen>,
    ready_after: Duration,
    tls: Option<Rc<Tls>>,
    lease: Option<Lease>,
}

enum Source {
    Http1(Incoming),
    Http2(http2::Http2Body),
    /// Taken: HTTP is over on it.
    Gone,
}

impl UpstreamBody {
    /// The endpoint that answers.
    pub fn endpoint(&self) -> Address {
        self.endpoint
    }

    /// Our side of the connection to it.
    pub fn local_address(&self) -> Option<Seen> {
        self.local_address
    }

    /// What the TLS handshake with it settled.
    pub fn tls(&self) -> Option<&Rc<Tls>> {
        self.tls.as_ref()
    }

    /// How long the request waited for that connection.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// What the exchange holds of the endpoint, for as long as something else than this body needs it.
    pub(super) fn take_lease(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// The HTTP/2 stream that has changed its protocol, if it is one.
    pub(super) fn take_stream(&mut self) -> Option<http2::Stream> {
        if !matches!(self.source, Source::Http2(_)) {
            return None;
        }
        match std::mem::replace(&mut self.source, Source::Gone) {
            Source::Http2(body) => body.into_stream(),
            Source::Http1(_) | Source::Gone => None,
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }

    /// The endpoint is to blame, unless the request's body broke first: then that is the cause.
    fn fail(&mut self, error: BodyError) -> BodyError {
        self.lease.take().and_then(|lease| lease.failure()).unwrap_or(error)
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Http1(incoming) => ready!(Pin::new(incoming).poll_frame(cx))
                .map(|frame| frame.map_err(|error| BodyError::upstream(&error))),
            Source::Http2(body) => ready!(Pin::new(body).poll_frame(cx)),
            Source::Gone => None,
        };
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                // Whoever knows the length may not ask again after the last byte, and nobody does after trailers.
                if frame.is_trailers() || this.is_end_stream() {
                    this.release();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(this.fail(error)))),
            None => {
                this.release();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Http1(incoming) => incoming.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
            Source::Gone => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Http1(incoming) => incoming.size_hint(),
            Source::Http2(body) => body.size_hint(),
            Source::Gone => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody")
            .field("endpoint", &self.endpoint)
            .field("open", &self.lease.is_some())
            .finish_non_exhaustive()
    }
}
