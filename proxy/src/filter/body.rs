//! A body on its way through the filters that look at it, with back-pressure: a chunk is taken from the source only
//! when the receiver asks for more, and only while no filter blocks. A body that no filter looks at passes as it is.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use meshgate_wasm::{BodyAction, Callbacks, Exchange, Limit, TrailersAction};
use tokio::time::Sleep;

use super::failure::{FilterFailure, FilterFault, Interrupted, Stop};
use super::run::{Buffer, Direction, Hold, Run};
use super::stream::Stream;
use crate::message::{BodyError, BodyFault, BodyReason};

/// When to look again if a body does not go on and no filter holds it, which cannot be.
const UNHELD: Duration = Duration::from_secs(15);

/// Parts of a body, as they came from the network.
type Chunks = VecDeque<Bytes>;

/// The source's frames as the filters let them through.
pub struct FilteredBody<B> {
    stream: Rc<Stream>,
    direction: Direction,
    source: B,
    source_ended: bool,
    arriving: Option<u64>,
    /// Bytes taken from the source.
    taken: u64,
    /// How many filters the response's head runs through.
    top: usize,
    /// How many filters the body passes: those that the head has passed, or that hold it and want the body.
    filters: usize,
    /// Whether one of them looks at it; else it passes as it is.
    filtered: bool,
    /// The last of them holds the head, and has let nothing of the body pass.
    head_held: bool,
    /// Something came through all filters, or the end, since there were so many.
    passed: bool,
    out: Chunks,
    /// The last filter let the end through; what is in `out` is all there will be.
    end: bool,
    /// Trailers passed the last filter and go out after the body.
    trailers: bool,
    /// Bytes that the head promised, and how many of them went out.
    length: Option<Length>,
    /// Runs while nothing but a paused filter is waited for.
    pause: Option<Pin<Box<Sleep>>>,
}

/// What a body's first bytes say about its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// All of it came through the filters, and this is its length.
    Whole(u64),
    /// As many bytes came out as went in.
    Same,
    /// The filters changed the number of bytes, or hold some back.
    Changed,
}

#[derive(Clone, Copy, Debug)]
struct Length {
    promised: u64,
    sent: u64,
}

impl Stream {
    /// Whether filters can break the exchange off once its response is on its way. One that has closed it before cannot: it
    /// answered as well, the answer counted, and is this response.
    pub fn can_be_broken_off(&self) -> bool {
        self.has_filters() && !matches!(self.check(), Err(Stop::Closed))
    }

    /// Waits until a filter breaks the exchange off, wherever it does so: its response is on its way.
    pub fn poll_broken_off(&self, cx: &mut Context<'_>) -> Poll<Stop> {
        if !self.has_filters() {
            return Poll::Pending;
        }
        match ready!(self.poll_stopped(cx)) {
            Stop::Responded if self.drop_failed_answer() => self.poll_stopped(cx),
            stop => Poll::Ready(self.unless_late(stop)),
        }
    }

    /// Drops an answer that was left by a filter that failed in the same callback, if it is one: what became of the exchange was
    /// decided then.
    fn drop_failed_answer(&self) -> bool {
        let failed = |place: u32| self.run(place as usize).is_some_and(|run| !run.wants(Callbacks::ALL));
        self.http().borrow_mut().local_response.take_if(|answer| failed(answer.place)).is_some()
    }

    /// An answer that comes when the response has begun is a failure.
    fn unless_late(&self, stop: Stop) -> Stop {
        match stop {
            Stop::Responded => self.late_answer().map_or(Stop::Responded, Stop::Failed),
            stop => stop,
        }
    }
}

impl<B> FilteredBody<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    /// The request's body on its way to the endpoint. It passes no filter until [`FilteredBody::open`].
    pub fn request(stream: &Rc<Stream>, source: B) -> FilteredBody<B> {
        FilteredBody::new(stream, Direction::Request, source, 0)
    }

    /// The response's body on its way to the client; `top` filters are on its way.
    pub fn response(stream: &Rc<Stream>, source: B, top: usize) -> FilteredBody<B> {
        FilteredBody::new(stream, Direction::Response, source, top)
    }

    fn new(stream: &Rc<Stream>, direction: Direction, source: B, top: usize) -> FilteredBody<B> {
        FilteredBody {
            stream: Rc::clone(stream),
            direction,
            source_ended: false,
            arriving: source.size_hint().exact(),
            taken: 0,
            top,
            filters: 0,
            filtered: false,
            head_held: false,
            passed: false,
            out: Chunks::new(),
            end: source.is_end_stream(),
            trailers: false,
            length: None,
            pause: None,
            source,
        }
    }

    /// From here on the body passes so many filters: the head did. What came through fewer of them goes on.
    pub fn open(&mut self, filters: usize) -> Result<(), Stop> {
        let from = std::mem::replace(&mut self.filters, filters);
        let stream = Rc::clone(&self.stream);
        let wanted = self.body_callback().union(self.trailers_callback());
        let looks = |position| self.run(&stream, position).is_some_and(|run| run.wants(wanted));
        self.filtered = self.filtered || (from..filters).any(looks);
        if !std::mem::take(&mut self.passed) {
            return Ok(());
        }
        let (bytes, end) = (std::mem::take(&mut self.out), std::mem::take(&mut self.end));
        let trailers = std::mem::take(&mut self.trailers);
        self.feed(from, bytes, end && !trailers)?;
        if trailers { self.feed_trailers(from) } else { Ok(()) }
    }

    /// The last of so many filters holds the head and wants the body all the same: lets it pass these filters until
    /// something of it gets through, or the filter resumes. Without a callback for the body it can only resume.
    pub async fn run_held(
        &mut self,
        filters: usize,
        expired: &mut impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Result<(), Interrupted> {
        let stream = Rc::clone(&self.stream);
        self.filtered = true;
        self.head_held = true;
        if let Some(run) = self.at(&stream, filters.saturating_sub(1)) {
            // One that is not told of the body waits for something else, and the body waits with the head.
            let told = run.wants(self.body_callback());
            run.half(self.direction).hold.set(if told { Hold::Buffering } else { Hold::Blocked });
        }
        self.open(filters)?;
        poll_fn(|cx| {
            while !self.passed {
                if expired(cx).is_ready() {
                    return Poll::Ready(Err(Interrupted::Expired));
                }
                if let Err(error) = ready!(self.poll_step(cx)) {
                    return Poll::Ready(Err(self.interrupted(error)));
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        self.head_held = false;
        Ok(())
    }

    /// A filter that stopped the exchange broke the body, too.
    fn interrupted(&self, error: BodyError) -> Interrupted {
        self.stream.check().map_or_else(Interrupted::Stop, |()| Interrupted::Body(error))
    }

    /// How many filters the response's head runs through.
    pub(super) fn top(&self) -> usize {
        self.top
    }

    /// Whether any filter looks at this body.
    pub fn is_filtered(&self) -> bool {
        self.filtered
    }

    /// Whether there is no body, and never was one.
    pub fn is_bodiless(&self) -> bool {
        self.is_end_stream() && self.taken == 0 && !self.source_ended
    }

    /// The length of the body as it arrives, if that was announced.
    pub fn source_length(&self) -> Option<u64> {
        self.arriving
    }

    /// Holds the filters to a `content-length` that goes out with the head: a body that turns out longer or shorter
    /// is an error, never a message whose framing lies.
    pub fn promise(&mut self, length: u64) {
        self.length = Some(Length { promised: length, sent: 0 });
    }

    /// Ready when a filter broke the exchange off, whether or not it looks at this body, which is on its way to the client.
    pub fn poll_broken_off(&self, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.stream.poll_broken_off(cx).map(|stop| self.stopped(stop))
    }

    /// Lets filters work until they let the first bytes through, or the whole body, without giving any out: what can
    /// be said of the body's length before its head goes out.
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<First, BodyError>> {
        while self.out.is_empty() && !self.end {
            ready!(self.poll_step(cx))?;
        }
        let passed = self.out.iter().map(|chunk| chunk.len() as u64).sum();
        Poll::Ready(Ok(match self.end {
            true if !self.trailers => First::Whole(passed),
            _ if passed == self.taken => First::Same,
            _ => First::Changed,
        }))
    }

    /// One step: lets resumed filters go on, or takes one frame from the source.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let resumed = self.release_resumed();
        if self.settle(resumed)? {
            self.pause = None;
            return Poll::Ready(Ok(()));
        }
        self.stream.park(self.direction, cx);
        if self.source_ended || self.is_blocked() {
            return self.poll_pause(cx);
        }
        self.pause = None;
        let frame = ready!(Pin::new(&mut self.source).poll_frame(cx)).transpose()?;
        let fed = self.feed_frame(frame);
        self.settle(fed).map(|_| ()).into()
    }

    /// Nothing but a filter is waited for: for so long and no longer.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let stream = Rc::clone(&self.stream);
        let holds = |run: &&Run| run.half(self.direction).hold.get() != Hold::Open;
        let holder = (0..self.filters).filter_map(|position| self.run(&stream, position)).filter(holds);
        // The one that may hold it shortest.
        let holder = holder.min_by_key(|run| run.filter().pause);
        let pause = holder.map_or(UNHELD, |run| run.filter().pause);
        let timer = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        ready!(timer.as_mut().poll(cx));
        self.pause = None;
        let failed = holder.map_or(Ok(()), |run| run.fail(FilterFault::PauseTimeout));
        Poll::Ready(self.settle(failed))
    }

    fn feed_frame(&mut self, frame: Option<Frame<Bytes>>) -> Result<(), Stop> {
        let Some(frame) = frame else {
            self.source_ended = true;
            return self.feed(0, Chunks::new(), true);
        };
        match frame.into_data() {
            Ok(chunk) => {
                self.taken += chunk.len() as u64;
                self.source_ended = self.source.is_end_stream();
                self.feed(0, Chunks::from([chunk]), self.source_ended)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    self.source_ended = true;
                    self.put_trailers(trailers);
                    self.feed_trailers(0)
                }
                Err(_) => Ok(()),
            },
        }
    }

    /// Gives bytes to the filters from this position on, as far as they let them through.
    fn feed(&mut self, mut position: usize, mut bytes: Chunks, end: bool) -> Result<(), Stop> {
        let stream = Rc::clone(&self.stream);
        while let Some(run) = self.run(&stream, position) {
            if bytes.is_empty() && !end {
                return Ok(());
            }
            match self.pass(&stream, run, bytes, end)? {
                Some(passed) => bytes = passed,
                None => return Ok(()),
            }
            position += 1;
            if end && self.has_trailers() {
                // The filter made trailers in the last body callback: they end the stream for the ones behind it.
                self.feed(position, bytes, false)?;
                return self.feed_trailers(position);
            }
        }
        self.emit(bytes, end);
        Ok(())
    }

    /// Gives bytes to one filter: what it lets through, or `None` if it holds them.
    fn pass(&self, stream: &Rc<Stream>, run: &Run, bytes: Chunks, end: bool) -> Result<Option<Chunks>, Stop> {
        let wanted = self.body_callback();
        if !run.wants(wanted) {
            return if self.holds_head(run) { self.keep(run, bytes, end) } else { Ok(Some(bytes)) };
        }
        let mut bytes = Some(bytes);
        let direction = self.direction;
        let action = run.call(stream, wanted, |context| {
            let mut buffer = match direction {
                Direction::Request => context.request_body(),
                Direction::Response => context.response_body(),
            };
            bytes.take().into_iter().flatten().for_each(|chunk| buffer.push(chunk));
            drop(buffer);
            match direction {
                Direction::Request => context.on_request_body(end),
                Direction::Response => context.on_response_body(end),
            }
        })?;
        let half = run.half(direction);
        let Some(buffer) = run.buffer(direction) else { return Ok(bytes) };
        match action {
            // A filter that failed and is skipped lets everything through that it held.
            None | Some(BodyAction::Continue) => {
                half.hold.set(Hold::Open);
                let mut passed: Chunks = buffer.borrow().drain().collect();
                passed.extend(bytes.into_iter().flatten());
                return Ok(Some(passed));
            }
            Some(BodyAction::Buffer) => half.hold.set(Hold::Buffering),
            Some(BodyAction::Watermark) => half.hold.set(Hold::Blocked),
            Some(BodyAction::Drop) => {
                buffer.borrow().clear();
                half.hold.set(Hold::Buffering);
            }
        }
        self.held(run, &buffer, end)
    }

    /// Holds bytes for a filter that is not told of them, since it holds the head that they belong to.
    fn keep(&self, run: &Run, bytes: Chunks, end: bool) -> Result<Option<Chunks>, Stop> {
        let Some(buffer) = run.buffer(self.direction) else { return Ok(Some(bytes)) };
        bytes.into_iter().for_each(|chunk| buffer.borrow().push(chunk));
        self.held(run, &buffer, end)
    }

    /// A filter holds what is in its buffer, if that is not more than it may.
    fn held(&self, run: &Run, buffer: &Buffer<'_>, end: bool) -> Result<Option<Chunks>, Stop> {
        run.half(self.direction).end.set(end);
        let held = buffer.borrow();
        if held.over_limit() || held.len() > run.filter().body_limit {
            Err(self.over_limit(run))
        } else {
            Ok(None)
        }
    }

    /// Whether this filter holds the head, which what it is not told of must not overtake.
    fn holds_head(&self, run: &Run) -> bool {
        let last = self.filters.saturating_sub(1);
        self.head_held
            && run.half(self.direction).hold.get() != Hold::Open
            && self.run(&self.stream, last).is_some_and(|holder| std::ptr::eq(holder, run))
    }

    /// Gives the trailers to the filters from this position on. A filter that held the body until now lets it go by
    /// answering Continue here, or by having no callback for trailers, which is the same answer.
    fn feed_trailers(&mut self, mut position: usize) -> Result<(), Stop> {
        let stream = Rc::clone(&self.stream);
        while let Some(run) = self.run(&stream, position) {
            let half = run.half(self.direction);
            let action = run.call(&stream, self.trailers_callback(), |context| match self.direction {
                Direction::Request => context.on_request_trailers(),
                Direction::Response => context.on_response_trailers(),
            })?;
            position += 1;
            let goes_on = match (action, half.hold.get()) {
                (Some(action), _) => action == TrailersAction::Continue,
                (None, Hold::Open) => true,
                // It may only have waited for the body's end, which is here.
                (None, Hold::Buffering) => !self.holds_head(run),
                // It lets nothing more come until it resumes, and says so itself.
                (None, Hold::Blocked) => false,
            };
            if !goes_on {
                if half.hold.get() == Hold::Open {
                    half.hold.set(Hold::Blocked);
                }
                half.trailers.set(true);
                return Ok(());
            }
            if half.hold.replace(Hold::Open) != Hold::Open {
                let held = run.buffer(self.direction).map(|buffer| buffer.borrow().drain().collect());
                self.feed(position, held.unwrap_or_default(), false)?;
            }
        }
        self.trailers = true;
        self.end = true;
        self.passed = true;
        Ok(())
    }

    /// Lets go what resumed filters held; `true` if there was any.
    fn release_resumed(&mut self) -> Result<bool, Stop> {
        let stream = Rc::clone(&self.stream);
        stream.check_woken()?;
        let mut released = false;
        for position in 0..self.filters {
            let Some(run) = self.run(&stream, position) else { break };
            let half = run.half(self.direction);
            if half.hold.get() == Hold::Open || !run.take_resumed(self.direction)? {
                continue;
            }
            released = true;
            half.hold.set(Hold::Open);
            let held = run.buffer(self.direction).map(|buffer| buffer.borrow().drain().collect());
            let end = half.end.take();
            // They waited, or were made in the callback that held the body's end: then they end the stream from here on.
            let trailers = half.trailers.take() || (end && self.has_trailers());
            self.feed(position + 1, held.unwrap_or_default(), end && !trailers)?;
            if trailers {
                self.feed_trailers(position + 1)?;
            }
        }
        Ok(released)
    }

    /// What a stop in a body callback means: the stream's end, told to the exchange and to whoever sends the body.
    fn settle<T>(&self, result: Result<T, Stop>) -> Result<T, BodyError> {
        result.map_err(|stop| self.stopped(stop))
    }

    fn stopped(&self, stop: Stop) -> BodyError {
        let details: Box<str> = match self.stream.unless_late(stop) {
            Stop::Responded => "a filter answered the request".into(),
            Stop::Closed => "a filter closed the stream".into(),
            Stop::Failed(failure) => {
                let text = failure.to_string();
                self.stream.fail(failure);
                text.into()
            }
        };
        self.stream.wake();
        BodyError::new(BodyFault::Filter, BodyReason::Aborted, details)
    }

    fn over_limit(&self, run: &Run) -> Stop {
        let limit = run.filter().body_limit;
        let fault = match self.direction {
            Direction::Request => FilterFault::RequestBodyLimit(limit),
            Direction::Response => FilterFault::ResponseBodyLimit(limit),
        };
        run.filter().plugin.exceeded(Limit::Body);
        Stop::Failed(FilterFailure { filter: Rc::clone(&run.filter().name), fault })
    }

    /// Counts what goes out against what the head promised.
    fn count(&mut self, bytes: usize) -> Result<(), BodyError> {
        let Some(length) = &mut self.length else { return Ok(()) };
        length.sent += bytes as u64;
        let ended = self.end && self.out.is_empty();
        let lied = length.sent > length.promised || (ended && length.sent < length.promised);
        if !(lied && self.filtered) {
            return Ok(());
        }
        let filter = Rc::from("on this chain");
        Err(self.stopped(Stop::Failed(FilterFailure { filter, fault: FilterFault::LengthChanged })))
    }

    fn emit(&mut self, bytes: Chunks, end: bool) {
        self.out.extend(bytes);
        self.end |= end;
        self.passed = true;
    }

    /// The filter at this position of the body's way, if it is open.
    fn run<'s>(&self, stream: &'s Stream, position: usize) -> Option<&'s Run> {
        if position < self.filters { self.at(stream, position) } else { None }
    }

    /// The filter at this position: requests go down the chain, responses up.
    fn at<'s>(&self, stream: &'s Stream, position: usize) -> Option<&'s Run> {
        match self.direction {
            Direction::Request => stream.run(position),
            Direction::Response => stream.run(self.top.checked_sub(position + 1)?),
        }
    }

    fn is_blocked(&self) -> bool {
        let stream = &self.stream;
        (0..self.filters)
            .filter_map(|position| self.run(stream, position))
            .any(|run| run.half(self.direction).hold.get() == Hold::Blocked)
    }

    fn body_callback(&self) -> Callbacks {
        match self.direction {
            Direction::Request => Callbacks::REQUEST_BODY,
            Direction::Response => Callbacks::RESPONSE_BODY,
        }
    }

    fn trailers_callback(&self) -> Callbacks {
        match self.direction {
            Direction::Request => Callbacks::REQUEST_TRAILERS,
            Direction::Response => Callbacks::RESPONSE_TRAILERS,
        }
    }

    fn put_trailers(&self, trailers: HeaderMap) {
        let mut http = self.stream.http().borrow_mut();
        match self.direction {
            Direction::Request => http.request_trailers = Some(trailers),
            Direction::Response => http.response_trailers = Some(trailers),
        }
    }

    fn has_trailers(&self) -> bool {
        let http = self.stream.http().borrow();
        match self.direction {
            Direction::Request => http.request_trailers.is_some(),
            Direction::Response => http.response_trailers.is_some(),
        }
    }

    fn take_trailers(&self) -> Option<HeaderMap> {
        // A copy goes out: the trailers stay readable until the exchange is logged.
        let http = self.stream.http().borrow();
        match self.direction {
            Direction::Request => http.request_trailers.clone(),
            Direction::Response => http.response_trailers.clone(),
        }
        .filter(|trailers| !trailers.is_empty())
    }
}

impl<B> Body for FilteredBody<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if !this.filtered {
            return Pin::new(&mut this.source).poll_frame(cx);
        }
        loop {
            if let Some(chunk) = this.out.pop_front() {
                this.count(chunk.len())?;
                if !chunk.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
            } else if this.end {
                this.count(0)?;
                let trailers = std::mem::take(&mut this.trailers).then(|| this.take_trailers()).flatten();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            } else {
                ready!(this.poll_step(cx))?;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if !self.filtered {
            return self.source.is_end_stream();
        }
        self.end && self.out.is_empty() && !self.trailers
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            _ if !self.filtered => self.source.size_hint(),
            Some(length) => SizeHint::with_exact(length.promised - length.sent),
            None => SizeHint::default(),
        }
    }
}
