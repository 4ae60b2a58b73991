//! One request on an HTTP/2 connection, and what became of it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version, request};
use http_body::Body as _;
use meshgate_wasm::{Address as Seen, Tls};

use super::body::Http2Body;
use super::change::Offer;
use super::connections::{Connections, Room};
use super::upload::Upload;
use crate::message::{Body, BodyError, detach};
use crate::upstream::attempt::Queued;
use crate::upstream::error::{UpstreamError, UpstreamErrorKind};
use crate::upstream::interim::TooManyInterim;

/// What an exchange holds of its connection. Dropped before the response's end, it resets the stream.
pub(in crate::upstream) struct Lease {
    upload: Option<Upload>,
    room: Room,
}

impl Lease {
    /// Our side of the connection.
    pub(in crate::upstream) fn local_address(&self) -> Option<Seen> {
        self.room.connection.local_address
    }

    /// What its TLS handshake settled.
    pub(in crate::upstream) fn tls(&self) -> Option<Rc<Tls>> {
        self.room.connection.tls.clone()
    }

    /// Why the request's body broke, if it did: what the response says about it is then only the consequence.
    pub(in crate::upstream) fn failure(&self) -> Option<BodyError> {
        self.upload.as_ref().and_then(Upload::failure)
    }
}

/// Sends a request, whose target is in origin form and which has a `host`, and waits for the head of its response.
/// `queued` tells what it waits for, `admit` has the last word before it is sent. Dropping the future resets the stream.
///
/// With `may_change`, a protocol that the request offers is offered to the endpoint, and the response may have the status 101:
/// then its body is the changed stream.
pub(in crate::upstream) async fn send(
    connections: &Rc<Connections>,
    request: Request<Body>,
    may_change: bool,
    queued: &Queued,
    admit: impl FnOnce() -> Result<(), UpstreamError>,
) -> Result<(Response<Http2Body>, Lease), UpstreamError> {
    let endpoint = connections.address();
    let failed = |kind, details: String| UpstreamError::new(kind, Some(endpoint), details);
    let (mut head, body) = request.into_parts();
    let offer = if may_change { Offer::of(&mut head) } else { None };
    let request = Request::from_parts(translated(head, connections), ());
    let whole = body.is_end_stream() && offer.is_none();
    let room = connections.room(queued).await?;
    if offer.is_some() && !room.connection.may_change_protocols() {
        return Err(failed(UpstreamErrorKind::NoUpgrades, "no extended CONNECT in its settings".to_owned()));
    }
    admit()?;
    let reused = room.connection.used.replace(true);
    // The connection was looked at just now, and nothing has been waited for since: it takes the request.
    let sent = room.connection.sender().send_request(request, whole);
    let (response, stream) = sent.map_err(|error| failed(kind(&error, reused), error.to_string()))?;
    let mut upward = None;
    let mut upload = None;
    if offer.is_some() {
        // There is no body behind an offer.
        upward = Some(stream);
    } else if !whole {
        upload = Some(Upload::start(body, stream));
    }
    let lease = Lease { upload, room };
    let most = connections.limits().interim_responses().most();
    match answer(response, most).await {
        Ok(response) => {
            let (mut head, stream) = response.into_parts();
            let mut body = Http2Body::new(stream, &head.headers);
            if let (Some(offer), Some(mut upward)) = (offer, upward) {
                if head.status.is_success() {
                    offer.take(&mut head);
                    body.goes_on_with(upward);
                } else {
                    // What the endpoint says instead is an ordinary response, to a request that ends here.
                    let _ = upward.send_data(Bytes::new(), true);
                }
            }
            Ok((Response::from_parts(head, body), lease))
        }
        Err(None) => {
            connections.limits().count_interim_overflow();
            Err(failed(UpstreamErrorKind::Protocol, TooManyInterim(most).to_string()))
        }
        Err(Some(error)) => {
            let kind = lease.failure().map_or_else(|| kind(&error, reused), UpstreamErrorKind::RequestBody);
            Err(failed(kind, error.to_string()))
        }
    }
}

/// Waits for the head of the response, past a few interim ones. `Err(None)`: past too many.
async fn answer(
    mut response: ResponseFuture,
    most: usize,
) -> Result<Response<RecvStream>, Option<h2::Error>> {
    let mut interim = 0;
    poll_fn(|cx| {
        while let Poll::Ready(Some(one)) = response.poll_informational(cx) {
            one.map_err(Some)?;
            interim += 1;
            if interim > most {
                return Poll::Ready(Err(None));
            }
        }
        Pin::new(&mut response).poll(cx).map_err(Some)
    })
    .await
}

/// The head in HTTP/2's form: the authority in the target, and no field that belongs to an HTTP/1.1 connection.
fn translated(mut head: request::Parts, connections: &Connections) -> request::Parts {
    let host = head.headers.remove(HOST);
    for name in [CONNECTION, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    // Header compression remembers what was sent for as long as the connection lives.
    detach(&mut head.headers);
    let authority = host
        .and_then(|host| Authority::from_maybe_shared(Bytes::copy_from_slice(host.as_bytes())).ok())
        .or_else(|| Authority::try_from(connections.address().to_string()).ok())
        .or_else(|| Some(Authority::from_static("localhost")));
    let mut target = head.uri.into_parts();
    target.scheme = Some(if connections.are_secure() { Scheme::HTTPS } else { Scheme::HTTP });
    target.authority = authority;
    target.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    head.uri = Uri::from_parts(target).unwrap_or_default();
    head.version = Version::HTTP_2;
    head
}

/// Says what happened to a request that got no response head.
fn kind(error: &h2::Error, reused: bool) -> UpstreamErrorKind {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    if error.is_remote() && (refused || error.is_go_away()) {
        // GOAWAY ends only streams that the peer has not begun with, and never will.
        return UpstreamErrorKind::Refused;
    }
    match error.reason() {
        Some(_) if error.is_library() => UpstreamErrorKind::Protocol,
        Some(reason) if error.is_remote() => UpstreamErrorKind::StreamReset { code: reason.into() },
        _ => UpstreamErrorKind::Reset { reused },
    }
}
