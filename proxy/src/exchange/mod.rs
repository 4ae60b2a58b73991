//! ONE request and its response, top to bottom: [`serve`] is the whole way. Everything here runs on one worker.

mod attempts;
mod body;
mod deadline;
mod encode;
mod error;
mod mirror;
mod pace;
mod record;
mod replay;
mod reply;
mod room;
mod throttle;
mod tunnel;
mod upgrade;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use meshgate_config::ClusterProtocol;
use meshgate_wasm::{Attributes, HttpStream, ResponseHead};

use self::attempts::Tries;
use self::body::{Download, Received, frame};
use self::deadline::Deadline;
pub use self::error::{ExchangeError, Fault, Verdict};
use self::record::{Arrived, Destination, Exchange};
use self::reply::Reply;
use self::upgrade::Offer;
use crate::filter::{FilteredBody, Interrupted, Stop, Stream, StreamParts};
use crate::message::{
    ArrivedRequest, Body, BodyError, Peer, call_depth, detach, request_arrived, upstream_request,
};
use crate::overload;
use crate::snapshot::Listener;
use crate::upstream::{Cluster, Queued, UpstreamBody, UpstreamErrorKind};

/// A filter closed the stream: the connection (HTTP/1) or the stream (HTTP/2) is reset instead of a response.
#[derive(Debug, thiserror::Error)]
#[error("a filter closed the stream")]
pub struct Closed;

/// Serves one request: the way of an exchange.
pub async fn serve(
    listener: Rc<Listener>,
    peer: Rc<Peer>,
    arrived: Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    let (exchange, body) = match open(listener, &peer, arrived) {
        Ok(opened) => opened,
        Err(refused) => return Ok(*refused),
    };
    let reply = match request(&exchange, body).await {
        Ok(reply) => reply,
        Err(stop) => exchange.instead(stop)?,
    };
    respond(&exchange, reply).await
}

/// Takes the request's head in. One that is not acceptable, or finds no memory left, is answered here and runs through no filter.
fn open(
    listener: Rc<Listener>,
    peer: &Peer,
    arrived: Request<Incoming>,
) -> Result<(Rc<Exchange>, Body), Box<Response<Body>>> {
    let (mut parts, body) = arrived.into_parts();
    let (version, depth) = (parts.version, call_depth::take(&mut parts.headers));
    let raw = Arrived::of(&parts);
    if overload::refuses() {
        overload::count_refused();
        return Err(Box::new(raw.reject(&listener, peer, &ExchangeError::Overloaded, &parts.headers)));
    }
    overload::took(overload::EXCHANGE);
    let config = &listener.config;
    let arrived = request_arrived(parts, peer, &listener.forwarding, config.max_headers, &config.upgrades);
    let ArrivedRequest { head, origin, upgrade } = match arrived {
        Ok(arrived) => arrived,
        Err((rejection, headers)) => {
            return Err(Box::new(raw.reject(&listener, peer, &ExchangeError::Head(rejection), &headers)));
        }
    };
    let mut attributes = Attributes::new(Rc::clone(&peer.connection));
    attributes.call_depth = depth;
    attributes.source = origin.client;
    if origin.malformed {
        listener.metrics.forwarded_malformed();
    }
    attributes.listener.clone_from(&listener.facts);
    let stream = Stream::new(StreamParts {
        http: HttpStream {
            most_head_bytes: listener.config.most_filtered_head_bytes(),
            ..HttpStream::new(head, attributes)
        },
        chain: Rc::clone(&listener.chain),
        clusters: Rc::clone(&listener.targets),
    });
    Ok((Exchange::new(listener, raw, stream, Offer::new(upgrade)), Body::downstream(body, version)))
}

/// Runs the request through its filters and sends it where they say.
async fn request(exchange: &Exchange, body: Body) -> Result<Reply, End> {
    let stream = &exchange.stream;
    let mut deadline = Deadline::new(None);
    let bodiless = body.is_end_stream();
    let received = Received::new(stream, body, &exchange.listener.config);
    let mut upload = FilteredBody::request(stream, received);
    stream.run_request_head(&mut upload).await.map_err(End::of_request)?;
    let cluster = match exchange.destination()? {
        Destination::Cluster(cluster, timeout) => {
            deadline.limit(timeout);
            if let Some(left) = exchange.client_patience() {
                deadline.end_within(left);
            }
            cluster
        }
        Destination::Direct(response) => return Ok(exchange.local_reply(response)),
    };
    if bodiless {
        stream.end_request();
    }
    let mut response = forward(exchange, &cluster, upload, &mut deadline).await?;
    exchange.compare(response.status());
    let tunnel = exchange.offer.taken(&mut response).await?;
    Ok(Reply::upstream(response, tunnel, deadline)?)
}

/// Sends the request to one endpoint of the cluster and waits for the head of its response, while the body streams.
async fn forward(
    exchange: &Exchange,
    cluster: &Cluster,
    mut upload: FilteredBody<Received>,
    deadline: &mut Deadline,
) -> Result<Response<UpstreamBody>, End> {
    let stream = &exchange.stream;
    let mut head = exchange.request_head()?;
    if let Err(error) = frame(&mut upload, &mut head.headers).await {
        stream.check()?;
        return Err(ExchangeError::RequestBody(error).into());
    }
    let mut headers = std::mem::take(&mut head.headers);
    exchange.offer.pass_on(cluster, &mut headers)?;
    let body = mirror::begin(exchange, &head, &headers, upload);
    if let Some(judge) = stream.judge() {
        let request = attempts::Outgoing { head, headers, body };
        // Boxed, as what follows is in other places: few requests need it, and none should carry the room for it.
        return Box::pin(Tries::new(exchange, cluster, judge, request).run(deadline)).await;
    }
    let idempotent = head.method.is_idempotent();
    let may_be_sent_again = idempotent || cluster.protocol() == ClusterProtocol::Http2;
    let spare = (body.is_end_stream() && may_be_sent_again).then(|| headers.clone());
    let request = upstream_request(&head, headers, body);
    let mut response = attempt(exchange, cluster, request, deadline).await;
    if let Some(headers) = spare
        && may_be_resent(&response, idempotent)
    {
        let request = upstream_request(&head, headers, Body::empty());
        response = attempt(exchange, cluster, request, deadline).await;
    }
    response
}

/// Whether a request without a body is sent again once, whatever filters say. The endpoint closed an idle connection while the
/// request was on its way to it, or says that it has not begun with the request: that is nobody's failure, and RFC 9110
/// section 9.2.2 and RFC 9113 section 8.7 allow a proxy to send such a request again.
fn may_be_resent(response: &Result<Response<UpstreamBody>, End>, idempotent: bool) -> bool {
    let Err(End::Error(ExchangeError::Upstream(error))) = response else { return false };
    match error.kind {
        UpstreamErrorKind::Refused => true,
        UpstreamErrorKind::Reset { reused: true } => idempotent,
        _ => false,
    }
}

/// Sends the request once.
async fn attempt(
    exchange: &Exchange,
    cluster: &Cluster,
    mut request: Request<Body>,
    deadline: &mut Deadline,
) -> Result<Response<UpstreamBody>, End> {
    exchange.introduce_client(cluster, &mut request);
    let stream = &exchange.stream;
    let upstream = &exchange.listener.upstream;
    let endpoint = upstream.pick(cluster, exchange.key(cluster)).map_err(ExchangeError::Upstream)?;
    exchange.address_to(&endpoint, &mut request);
    let sent = exchange.begin_attempt(cluster, &endpoint);
    let queued = Queued::default();
    let mut send = pin!(upstream.send_to(cluster, &endpoint, request, &queued));
    let response = poll_fn(|cx| {
        if let Poll::Ready(response) = send.as_mut().poll(cx) {
            return Poll::Ready(response.map_err(|error| ExchangeError::Upstream(error).into()));
        }
        if let Poll::Ready(stop) = stream.poll_stopped(cx) {
            return Poll::Ready(Err(End::Stop(stop)));
        }
        if stream.request_has_ended() {
            deadline.start();
        }
        deadline.poll(cx).map(|()| Err(ExchangeError::Timeout.into()))
    })
    .await;
    // A filter that stopped the request broke its body: what the endpoint made of that does not matter.
    stream.check()?;
    exchange.end_attempt(cluster, &endpoint, (sent, &queued), &response);
    response
}

/// Runs the response up through the filters and gives it to the client's connection.
async fn respond(exchange: &Rc<Exchange>, mut reply: Reply) -> Result<Response<Body>, Closed> {
    let stream = &exchange.stream;
    let mut above = stream.reached();
    let mut misled = false;
    loop {
        let Reply { mut head, body, tunnel, mut deadline } = reply;
        exchange.add_decided(&mut head);
        exchange.show(head);
        // What was decided for the response that this one takes the place of.
        drop(stream.take_encoding());
        let mut body = FilteredBody::response(stream, body, above);
        if let Err((next, interrupted)) = stream.run_response_head(&mut body, |cx| deadline.poll(cx)).await {
            reply = exchange.instead(End::of_response(interrupted))?;
            above = next;
            continue;
        }
        let mut head = match exchange.response_head() {
            Ok(head) => head,
            Err(error) => {
                reply = exchange.instead(error.into())?;
                above = 0;
                continue;
            }
        };
        if let Some(endpoint) = tunnel {
            stream.begin_response();
            return Ok(upgrade::switch(exchange, head, endpoint));
        }
        if exchange.offer.is_misled_by(head.status) {
            if std::mem::replace(&mut misled, true) {
                // What gRPC clients are answered with is a success, too.
                return Err(Closed);
            }
            reply = exchange.instead(ExchangeError::NotTaken.into())?;
            above = 0;
            continue;
        }
        let encoding = stream.take_encoding().filter(|_| encode::fits(&head));
        let mut download = Download::new(exchange, body, deadline);
        match download.frame(&mut head, encoding).await {
            Ok(()) => {
                stream.begin_response();
                if exchange.is_http2() {
                    detach(&mut head.headers);
                }
                return Ok(downstream_response(head, download));
            }
            // The filters of the body had their say while the head was still here: their answer takes its place, and
            // none of them sees it, because all of them have seen a head.
            Err(error) => {
                reply = exchange.instead(End::of_response_body(stream, error))?;
                above = 0;
            }
        }
    }
}

fn downstream_response(head: ResponseHead, download: Download) -> Response<Body> {
    let mut response = Response::new(Body::stream(download));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// Why an exchange has no response of an endpoint, or not that one.
enum End {
    /// A filter stopped it.
    Stop(Stop),
    /// Something failed.
    Error(ExchangeError),
}

impl End {
    fn of_request(interrupted: Interrupted) -> End {
        match interrupted {
            Interrupted::Stop(stop) => End::Stop(stop),
            Interrupted::Body(error) => ExchangeError::RequestBody(error).into(),
            Interrupted::Expired => ExchangeError::Timeout.into(),
        }
    }

    fn of_response(interrupted: Interrupted) -> End {
        match interrupted {
            Interrupted::Body(error) => ExchangeError::ResponseBody(error).into(),
            other => End::of_request(other),
        }
    }

    fn of_response_body(stream: &Stream, error: BodyError) -> End {
        match stream.check() {
            Err(stop) => End::Stop(stop),
            Ok(()) => End::Error(ExchangeError::ResponseBody(error)),
        }
    }
}

impl From<Stop> for End {
    fn from(stop: Stop) -> End {
        End::Stop(stop)
    }
}

impl From<ExchangeError> for End {
    fn from(error: ExchangeError) -> End {
        End::Error(error)
    }
}
