//! The two bodies of an exchange: the request's on its way up, the response's on its way down. Both stream, both run
//! through the filters, and both are counted.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use meshgate_wasm::ResponseHead;

use super::Exchange;
use super::deadline::Deadline;
use super::encode::{self, Encoder};
use super::error::ExchangeError;
use super::pace::Pace;
use super::room::Room;
use super::throttle::Throttle;
use crate::filter::{Encoding, FilteredBody, First, Stream};
use crate::message::fields::clean_trailers;
use crate::message::{Body, BodyError, BodyFault, BodyReason, ResponseFlag, grpc};

/// What arrives from the client: counted, limited, watched for its pace, and its end told to the exchange.
pub(super) struct Received {
    body: Body,
    stream: Rc<Stream>,
    left: u64,
    /// None: it may take its time.
    pace: Option<Pace>,
    /// Whether it may be read. One that begins when memory is short waits.
    room: Room,
}

impl Received {
    pub(super) fn new(stream: &Rc<Stream>, body: Body, listener: &meshgate_config::Listener) -> Received {
        // A gRPC client may wait for what it has to say.
        let may_pause = body.is_end_stream() || grpc::is_grpc(&stream.http().borrow().request.headers);
        let pace = (!may_pause).then(|| Pace::new(listener.body_timeout, listener.min_body_rate));
        let left = listener.max_request_body.unwrap_or(u64::MAX);
        let room = Room::new(listener.body_timeout, body.is_end_stream());
        Received { body, stream: Rc::clone(stream), left, pace, room }
    }

    /// Nothing has come. That must not go on for too long, unless the response has begun: then they talk to each other.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some(pace) = self.pace.as_mut().filter(|_| !self.stream.response_has_begun()) else {
            return Poll::Pending;
        };
        ready!(pace.poll_late(cx));
        let details = "slower than the listener's min_body_rate";
        Poll::Ready(BodyError::new(BodyFault::Downstream, BodyReason::Timeout, details))
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.room.is_short()
            && !this.body.is_end_stream()
            && let Err(error) =
                ready!(this.room.poll(cx, this.pace.is_none() || this.stream.response_has_begun()))
        {
            return Poll::Ready(Some(Err(error)));
        }
        this.room.begin();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.poll_late(cx).map(|late| Some(Err(late)));
        };
        let mut frame = frame.transpose()?;
        if let Some(trailers) = frame.as_mut().and_then(Frame::trailers_mut) {
            clean_trailers(trailers);
        }
        if let Some(chunk) = frame.as_ref().and_then(Frame::data_ref) {
            let length = chunk.len() as u64;
            if let Some(pace) = &mut this.pace {
                pace.received(length);
            }
            this.stream.http().borrow_mut().attributes.request_bytes += length;
            let Some(left) = this.left.checked_sub(length) else {
                let details = "longer than the listener's max_request_body";
                let error = BodyError::new(BodyFault::Downstream, BodyReason::TooLarge, details);
                return Poll::Ready(Some(Err(error)));
            };
            this.left = left;
        }
        if frame.as_ref().is_none_or(Frame::is_trailers) || this.body.is_end_stream() {
            this.stream.end_request();
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Makes `content-length` true right before a head goes out: filters may have changed the field, or may make the body
/// longer or shorter. Waits for the first bytes that come through the filters of the body, and only if there was a length
/// to be wrong about: a filter that decides about a body decides before the head is out, even if another one took the field away.
pub(super) async fn frame<B>(body: &mut FilteredBody<B>, headers: &mut HeaderMap) -> Result<(), BodyError>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let arriving = body.source_length();
    let Some(announced) = headers.get(CONTENT_LENGTH) else {
        if arriving.is_some() && body.is_filtered() && !body.is_bodiless() {
            poll_fn(|cx| body.poll_first(cx)).await?;
        }
        return Ok(());
    };
    let announced = announced.to_str().ok().and_then(|length| length.parse::<u64>().ok());
    let length = if !body.is_filtered() || body.is_bodiless() {
        arriving
    } else {
        let length = match poll_fn(|cx| body.poll_first(cx)).await? {
            First::Whole(length) => Some(length),
            First::Same => arriving,
            // A filter that changed the field too says what it will send, and is held to it.
            First::Changed => announced.filter(|_| announced != arriving),
        };
        length.inspect(|length| body.promise(*length))
    };
    match length {
        Some(length) if announced == Some(length) => {}
        Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(headers.remove(CONTENT_LENGTH)),
    }
    Ok(())
}

/// The response's body on its way to the client. Its end, or its loss, ends the exchange.
pub(super) struct Download {
    exchange: Rc<Exchange>,
    body: FilteredBody<Body>,
    deadline: Deadline,
    encoder: Option<Encoder>,
    throttle: Option<Box<Throttle>>,
    /// Armed when something is waited for, with the bytes that had passed by then.
    idle: Option<(Pin<Box<Sleep>>, u64)>,
    /// Whether filters may break it off.
    watched: bool,
}

impl Download {
    pub(super) fn new(exchange: &Rc<Exchange>, body: FilteredBody<Body>, deadline: Deadline) -> Download {
        let throttle = exchange.stream.throttle().map(|per_second| Box::new(Throttle::new(per_second)));
        Download {
            exchange: Rc::clone(exchange),
            body,
            deadline,
            encoder: None,
            throttle,
            idle: None,
            watched: exchange.stream.can_be_broken_off(),
        }
    }

    /// Nothing is there to be sent. Ready when nothing has passed for too long, in either direction; bytes are looked at only
    /// when the timer fires, so it may take up to twice as long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let timeout = self.exchange.listener.config.stream_idle_timeout;
        let passed = || {
            let attributes = &self.exchange.stream.http().borrow().attributes;
            attributes.request_bytes + attributes.response_bytes
        };
        let (timer, before) = self.idle.get_or_insert_with(|| (Box::pin(sleep(timeout)), passed()));
        loop {
            ready!(timer.as_mut().poll(cx));
            let now = passed();
            if now == std::mem::replace(before, now) {
                break;
            }
            timer.as_mut().reset(Instant::now() + timeout);
        }
        self.exchange.flag(ResponseFlag::StreamIdleTimeout, "stream_idle_timeout");
        self.exchange.complete();
        let details = "silent for the listener's stream_idle_timeout";
        Poll::Ready(BodyError::new(BodyFault::Upstream, BodyReason::Timeout, details))
    }

    /// Sets the framing of the head that goes out before this body, which is encoded if a filter decided so.
    pub(super) async fn frame(
        &mut self,
        head: &mut ResponseHead,
        encoding: Option<Encoding>,
    ) -> Result<(), BodyError> {
        // What these would announce is the length of a body that is not sent (RFC 9110 section 8.6).
        let is_head = self.exchange.stream.http().borrow().request.method == Method::HEAD;
        let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || is_head;
        // The head that answers HEAD is that of GET.
        if let Some(encoding) = encoding.filter(|_| is_head || !self.body.is_end_stream()) {
            encode::change(&mut head.headers);
            self.encoder = (!is_head).then(|| Encoder::new(encoding));
        }
        if bodiless { Ok(()) } else { frame(&mut self.body, &mut head.headers).await }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Download { body, encoder, throttle, .. } = self;
        let next = |cx: &mut Context<'_>| match encoder {
            Some(encoder) => encoder.poll_frame(body, cx),
            None => Pin::new(body).poll_frame(cx),
        };
        match throttle {
            Some(throttle) => throttle.poll(cx, next),
            None => next(cx),
        }
    }

    /// Whether it is known that nothing follows.
    fn is_over(&self) -> bool {
        self.body.is_end_stream()
            && self.encoder.as_ref().is_none_or(Encoder::is_done)
            && self.throttle.as_ref().is_none_or(|throttle| throttle.is_empty())
    }

    fn broke(&self, error: &BodyError) {
        let flag = match error.fault {
            BodyFault::Upstream => ResponseFlag::UpstreamReset,
            BodyFault::Downstream => ResponseFlag::DownstreamTermination,
            BodyFault::Filter | BodyFault::Internal => ResponseFlag::LocalReset,
        };
        match self.exchange.stream.take_failure() {
            Some(failure) => self.exchange.note(&ExchangeError::Filter(failure)),
            None => self.exchange.flag(flag, "response_body_broken"),
        }
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.watched
            && let Poll::Ready(error) = this.body.poll_broken_off(cx)
        {
            this.broke(&error);
            this.exchange.complete();
            return Poll::Ready(Some(Err(error)));
        }
        if this.deadline.poll(cx).is_ready() {
            this.exchange.note(&ExchangeError::Timeout);
            this.exchange.complete();
            let error =
                BodyError::new(BodyFault::Upstream, BodyReason::Timeout, "the route's timeout passed");
            return Poll::Ready(Some(Err(error)));
        }
        let Poll::Ready(frame) = this.poll_next(cx) else {
            return this.poll_idle(cx).map(|idle| Some(Err(idle)));
        };
        match &frame {
            Some(Ok(frame)) => this.exchange.sent(frame),
            Some(Err(error)) => this.broke(error),
            None => {}
        }
        // Nobody asks for more after trailers.
        let ends = match &frame {
            Some(Ok(frame)) => frame.is_trailers(),
            Some(Err(_)) | None => true,
        };
        if ends || this.is_over() {
            this.exchange.complete();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        if self.encoder.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // A body that is known to be over is never asked for its end.
        if self.is_over() {
            self.exchange.complete();
        }
    }
}
