//! What one exchange shares with its filters: the heads and trailers, the filters' places, the route they decided,
//! and the wakers of whoever waits for a paused filter. One worker, one thread: everything is `Rc` and `Cell`.

use std::any::Any;
use std::cell::{Cell, OnceCell, Ref, RefCell, RefMut};
use std::future::poll_fn;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use meshgate_wasm::{Callbacks, HeadersAction, HttpStream, LocalResponse, Metadata};

use super::attempts::Judging;
use super::body::FilteredBody;
use super::encoding::Encoding;
use super::failure::{FilterFailure, FilterFault, Interrupted, Stop};
use super::filter_state;
use super::log_entry::Noted;
use super::run::{Direction, Run};
use super::spans::Spans;
use super::{Chain, Filter};
use crate::message::BodyError;
use crate::telemetry::LogFields;

/// Where an exchange goes, as a filter decided it.
#[derive(Clone)]
pub struct Decision {
    /// The route's name; may be empty.
    pub route: Rc<str>,
    /// The cluster, which exists in the exchange's snapshot; without a name if `direct` answers.
    pub cluster: Target,
    /// From the end of the request to the end of the response.
    pub timeout: TimeLimit,
    /// The route's own filters, which run after the listener's.
    pub chain: Option<Rc<Chain>>,
    /// Answer with this and send the request nowhere.
    pub direct: Option<LocalResponse>,
    /// What few decisions have.
    pub extras: Option<Rc<Extras>>,
}

/// How long an exchange may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeLimit {
    /// As the listener says.
    #[default]
    Default,
    /// As long as it takes.
    Unlimited,
    /// This long.
    Within(Duration),
}

impl TimeLimit {
    /// The time, given the listener's.
    pub fn or(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            TimeLimit::Default => default,
            TimeLimit::Unlimited => None,
            TimeLimit::Within(time) => Some(time),
        }
    }
}

/// What few decisions have.
#[derive(Default)]
pub struct Extras {
    /// What the load balancer chooses by; empty: the cluster's own key.
    pub hash_key: Bytes,
    /// Fields that are added to the response.
    pub response_headers: HeaderMap,
    /// Who gets a copy of the request.
    pub mirrors: Box<[Mirror]>,
    /// The endpoint's host name takes the place of the request's authority.
    pub endpoint_authority: bool,
}

/// A cluster that gets a copy of a request.
pub struct Mirror {
    /// The cluster, which exists in the exchange's snapshot.
    pub cluster: Rc<str>,
    /// What is put at the end of the host in the copy's authority; may be empty.
    pub suffix: Box<str>,
    /// Whether its answer is compared with the endpoint's.
    pub compare: bool,
    /// Bytes of a body that may wait for it.
    pub buffer: usize,
}

/// What filters may know of a cluster once it is chosen.
#[derive(Clone)]
pub struct Target {
    /// Its one shared name.
    pub name: Rc<str>,
    /// What the configuration says of it; none if nothing.
    pub metadata: Option<Rc<Metadata>>,
}

/// Finds a cluster, if there is one of this name.
pub type Targets = Rc<dyn Fn(&str) -> Option<Target>>;

/// What a stream is made of.
pub struct StreamParts {
    /// The request's head, and what is known of the connection.
    pub http: HttpStream,
    /// The listener's chain.
    pub chain: Rc<Chain>,
    /// The clusters that a filter may choose.
    pub clusters: Targets,
}

/// One exchange, as its filters and the two body streams share it.
pub struct Stream {
    http: RefCell<HttpStream>,
    runs: Box<[Run]>,
    routed: OnceCell<Box<[Run]>>,
    reached: Cell<usize>,
    clusters: Targets,
    decision: RefCell<Option<Decision>>,
    pub(super) judging: Judging,
    failure: RefCell<Option<FilterFailure>>,
    closed: Cell<bool>,
    request_ended: Cell<bool>,
    response_begun: Cell<bool>,
    finished: Cell<bool>,
    exchange_waker: Cell<Option<Waker>>,
    request_waker: Cell<Option<Waker>>,
    response_waker: Cell<Option<Waker>>,
    log_fields: RefCell<LogFields>,
    encoding: Cell<Option<Encoding>>,
    throttle: Cell<Option<NonZeroU64>>,
    /// The recorded trace, if there is one.
    pub(super) spans: RefCell<Option<Box<Spans>>>,
}

impl Stream {
    /// A stream at its beginning.
    pub fn new(parts: StreamParts) -> Rc<Stream> {
        Rc::new(Stream {
            runs: runs(&parts.chain, 0, &parts.http.request.headers),
            http: RefCell::new(parts.http),
            routed: OnceCell::new(),
            reached: Cell::new(0),
            clusters: parts.clusters,
            decision: RefCell::new(None),
            judging: Judging::default(),
            failure: RefCell::new(None),
            closed: Cell::new(false),
            request_ended: Cell::new(false),
            response_begun: Cell::new(false),
            finished: Cell::new(false),
            exchange_waker: Cell::new(None),
            request_waker: Cell::new(None),
            response_waker: Cell::new(None),
            log_fields: RefCell::default(),
            encoding: Cell::new(None),
            throttle: Cell::new(None),
            spans: RefCell::default(),
        })
    }

    /// The heads, trailers and attributes. Not to be borrowed while a filter runs.
    pub fn http(&self) -> &RefCell<HttpStream> {
        &self.http
    }

    /// What filters added to the exchange's entry in the access log.
    pub fn log_fields(&self) -> Ref<'_, LogFields> {
        self.log_fields.borrow()
    }

    /// A filter decides how the response's body goes to the client.
    pub(super) fn encode(&self, encoding: Encoding) {
        self.encoding.set(Some(encoding));
    }

    /// What was decided about that last.
    pub fn take_encoding(&self) -> Option<Encoding> {
        self.encoding.take()
    }

    /// A filter decides how many bytes of the response's body go in a second.
    pub(super) fn set_throttle(&self, per_second: Option<NonZeroU64>) {
        self.throttle.set(per_second);
    }

    /// How many bytes of the response's body go in a second, if a filter decided so.
    pub fn throttle(&self) -> Option<NonZeroU64> {
        self.throttle.get()
    }

    /// The flags and fields that filters set.
    pub(super) fn noted(&self) -> Noted<'_> {
        let flags = RefMut::map(self.http.borrow_mut(), |http| &mut http.attributes.response_flags);
        Noted { flags, fields: self.log_fields.borrow_mut() }
    }

    /// What was decided last.
    pub fn decision(&self) -> Option<Decision> {
        self.decision.borrow().clone()
    }

    /// What the decision has beside what most have.
    pub fn extras(&self) -> Option<Rc<Extras>> {
        self.decision.borrow().as_ref()?.extras.clone()
    }

    pub(super) fn decide(&self, decision: Decision) {
        let mut http = self.http.borrow_mut();
        http.attributes.route = (!decision.route.is_empty()).then(|| Rc::clone(&decision.route));
        let cluster = Some(&decision.cluster).filter(|cluster| !cluster.name.is_empty());
        http.attributes.cluster = cluster.map(|cluster| Rc::clone(&cluster.name));
        http.attributes.cluster_metadata = cluster.and_then(|cluster| cluster.metadata.clone());
        *self.decision.borrow_mut() = Some(decision);
    }

    /// The cluster of this name, if there is one.
    pub(super) fn cluster(&self, name: &str) -> Option<Target> {
        (self.clusters)(name)
    }

    /// The cluster that a filter chose for everything on the downstream connection, if that still exists.
    pub fn connection_cluster(&self) -> Option<Rc<str>> {
        let http = self.http.borrow();
        let of_connection = http.attributes.connection.custom.borrow();
        let name = std::str::from_utf8(of_connection.find(filter_state::CLUSTER_PATH)?).ok()?;
        Some(self.cluster(name)?.name)
    }

    /// The filter at this place of the exchange.
    pub(super) fn filter(&self, place: u32) -> Option<&Rc<Filter>> {
        self.run(place as usize).map(Run::filter)
    }

    /// Runs the request's head down the listener's chain and then down the chain of the route it decided. The body
    /// waits meanwhile, but for a filter that holds the head and wants it.
    pub async fn run_request_head<B>(self: &Rc<Self>, body: &mut FilteredBody<B>) -> Result<(), Interrupted>
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin,
    {
        let mut next = 0;
        let end = body.is_end_stream();
        loop {
            while let Some(run) = self.run(next) {
                next += 1;
                self.reached.set(next);
                let action =
                    run.call(self, Callbacks::REQUEST_HEADERS, |context| context.on_request_headers(end))?;
                match action {
                    None | Some(HeadersAction::Continue) => {}
                    Some(HeadersAction::StopIteration) if !end => {
                        body.run_held(next, &mut |_| Poll::Pending).await?;
                    }
                    Some(_) => self.resumed(run, Direction::Request).await?,
                }
            }
            if !self.add_routed() {
                return Ok(body.open(next)?);
            }
        }
    }

    /// Runs the response's head up the chain, through the filters that its body has before it, in the time there is.
    /// When it is interrupted, the number of filters that are still above comes with the reason.
    pub async fn run_response_head<B>(
        self: &Rc<Self>,
        body: &mut FilteredBody<B>,
        mut expired: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Result<(), (usize, Interrupted)>
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin,
    {
        let top = body.top();
        let mut next = top;
        let end = body.is_end_stream();
        while let Some(run) = next.checked_sub(1).and_then(|index| self.run(index)) {
            next -= 1;
            let action =
                run.call(self, Callbacks::RESPONSE_HEADERS, |context| context.on_response_headers(end));
            let ran = match action {
                Ok(None | Some(HeadersAction::Continue)) => Ok(()),
                Ok(Some(HeadersAction::StopIteration)) if !end => {
                    body.run_held(top - next, &mut expired).await
                }
                Ok(Some(_)) => self.resumed(run, Direction::Response).await.map_err(Interrupted::Stop),
                Err(stop) => Err(Interrupted::Stop(stop)),
            };
            ran.map_err(|interrupted| (next, interrupted))?;
        }
        body.open(top).map_err(|stop| (0, Interrupted::Stop(stop)))
    }

    /// Whether any filter is in the exchange's way.
    pub fn has_filters(&self) -> bool {
        self.run(0).is_some()
    }

    /// How many filters the request reached: the ones that the response runs through.
    pub fn reached(&self) -> usize {
        self.reached.get()
    }

    /// The request was received as a whole: timeouts run from here.
    pub fn end_request(&self) {
        if !self.request_ended.replace(true)
            && let Some(waker) = self.exchange_waker.take()
        {
            waker.wake();
        }
    }

    /// Whether the request was received as a whole.
    pub fn request_has_ended(&self) -> bool {
        self.request_ended.get()
    }

    /// From here on the response is on its way to the client and cannot be replaced.
    pub fn begin_response(&self) {
        self.response_begun.set(true);
    }

    /// Whether it is.
    pub fn response_has_begun(&self) -> bool {
        self.response_begun.get()
    }

    /// Waits until something outside of the exchange's own steps ends it: a filter's answer or failure in a body
    /// callback or an HTTP call's response.
    pub fn poll_stopped(&self, cx: &mut Context<'_>) -> Poll<Stop> {
        self.exchange_waker.set(Some(cx.waker().clone()));
        match self.check_woken() {
            Err(stop) => Poll::Ready(stop),
            Ok(()) => Poll::Pending,
        }
    }

    /// Whether the exchange was ended by a filter.
    pub fn check(&self) -> Result<(), Stop> {
        if let Some(failure) = &*self.failure.borrow() {
            return Err(Stop::Failed(failure.clone()));
        }
        let http = self.http.borrow();
        if http.local_response.is_some() {
            return Err(Stop::Responded);
        }
        if self.closed.get() { Err(Stop::Closed) } else { Ok(()) }
    }

    /// As [`check`](Self::check), after a wake: a filter may have closed the stream outside of its own callbacks here.
    pub(super) fn check_woken(&self) -> Result<(), Stop> {
        let routed = self.routed.get().map(|runs| &runs[..]).unwrap_or_default();
        if self.runs.iter().chain(routed).any(Run::take_closed) {
            self.close();
        }
        self.check()
    }

    /// A filter closed the stream.
    pub(super) fn close(&self) {
        self.closed.set(true);
    }

    /// Ends the exchange by this failure, wherever its steps are.
    pub(super) fn fail(&self, failure: FilterFailure) {
        self.failure.borrow_mut().get_or_insert(failure);
        self.wake_all();
    }

    /// Forgets the failure and the answer of a filter: they are being told to the client.
    pub fn take_failure(&self) -> Option<FilterFailure> {
        self.failure.borrow_mut().take()
    }

    /// Takes away an answer that came too late: the response has begun.
    pub(super) fn late_answer(&self) -> Option<FilterFailure> {
        if !self.response_begun.get() {
            return None;
        }
        let answer = self.http.borrow_mut().local_response.take()?;
        let filter =
            self.filter(answer.place).map_or_else(|| Rc::from("?"), |filter| Rc::clone(&filter.name));
        Some(FilterFailure { filter, fault: FilterFault::ResponseBegun })
    }

    pub(super) fn park(&self, direction: Direction, cx: &Context<'_>) {
        let waker = match direction {
            Direction::Request => &self.request_waker,
            Direction::Response => &self.response_waker,
        };
        waker.set(Some(cx.waker().clone()));
    }

    /// The filter at this place: the listener's chain first, then the route's.
    pub(super) fn run(&self, index: usize) -> Option<&Run> {
        match index.checked_sub(self.runs.len()) {
            None => self.runs.get(index),
            Some(index) => self.routed.get()?.get(index),
        }
    }

    /// Ends every filter's part: done, log, delete; last to first, as responses pass, so that a filter sees what those behind it
    /// say of the exchange at its end.
    pub fn finish(self: &Rc<Self>) {
        let all = self.runs.len() + self.routed.get().map_or(0, |routed| routed.len());
        for run in (0..all).rev().filter_map(|index| self.run(index)) {
            run.finish(self);
        }
        self.finished.set(true);
    }

    /// Whether the exchange is over, so that no filter is to be entered again.
    pub(super) fn is_finished(&self) -> bool {
        self.finished.get()
    }

    /// Puts the decided route's chain behind the listener's; `false` if there is none, or it is there already.
    fn add_routed(&self) -> bool {
        if self.routed.get().is_some() {
            return false;
        }
        let decision = self.decision.borrow();
        let Some(chain) = decision.as_ref().and_then(|decision| decision.chain.as_ref()) else {
            return false;
        };
        let http = self.http.borrow();
        self.routed.set(runs(chain, self.runs.len(), &http.request.headers)).is_ok()
    }

    /// Waits for a paused filter.
    async fn resumed(&self, run: &Run, direction: Direction) -> Result<(), Stop> {
        let resumed = poll_fn(|cx| {
            self.exchange_waker.set(Some(cx.waker().clone()));
            if let Err(stop) = self.check_woken() {
                return Poll::Ready(Err(stop));
            }
            match run.take_resumed(direction) {
                Ok(true) => Poll::Ready(Ok(())),
                Ok(false) => Poll::Pending,
                Err(stop) => Poll::Ready(Err(stop)),
            }
        });
        match tokio::time::timeout(run.filter().pause, resumed).await {
            Ok(resumed) => resumed,
            Err(_) => run.fail(FilterFault::PauseTimeout),
        }
    }

    fn wake_all(&self) {
        for waker in [&self.exchange_waker, &self.request_waker, &self.response_waker] {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

fn runs(chain: &Chain, first: usize, request: &HeaderMap) -> Box<[Run]> {
    let filters = chain.filters.iter().enumerate();
    filters.map(|(index, filter)| Run::new(filter, first + index, request)).collect()
}

impl meshgate_wasm::Exchange for Stream {
    fn http(&self) -> Option<&RefCell<HttpStream>> {
        Some(&self.http)
    }

    fn wake(&self) {
        self.wake_all();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
