//! A request whose tries a filter judges (`meshgate.attempts`): it is sent, the filter hears how that ended, and what it
//! answers is done: what there is is delivered, or the request is sent again. [`Tries::run`] is the whole way.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use meshgate_abi::{Attempt, Ending};
use meshgate_config::Address;
use meshgate_wasm::{RequestHead, ResponseHead};
use tokio::time::{Sleep, sleep};

use super::deadline::Deadline;
use super::error::ExchangeError;
use super::record::Exchange;
use super::replay::Replay;
use super::{End, may_be_resent};
use crate::filter::{Judge, Retry, Stop};
use crate::message::{Body, grpc, upstream_request};
use crate::upstream::limits::RetrySlot;
use crate::upstream::{Cluster, Endpoint, Queued, UpstreamBody, UpstreamError, UpstreamErrorKind};

/// Most tries of one request, whatever the filter says.
const MOST: u32 = 100;
/// How often the load balancer is asked for an endpoint that has not had the request.
const PICKS: usize = 5;
/// Bytes of a response that nobody gets, read so that its connection can be used again.
const DRAINED: usize = 64 << 10;
/// Which try it is. Envoy's name, which other proxies and servers know.
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// A request on its way out.
pub(super) struct Outgoing {
    pub(super) head: RequestHead,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// All tries of one request. Dropping it ends those that are under way.
pub(super) struct Tries<'a> {
    exchange: &'a Exchange,
    cluster: &'a Cluster,
    judge: Rc<Judge>,
    head: RequestHead,
    headers: HeaderMap,
    body: Replay,
    bodiless: bool,
    number: u32,
    tried: Vec<Address>,
    under_way: Vec<Try<'a>>,
    /// Runs while a try may become slow.
    slow: Option<Pin<Box<Sleep>>>,
    /// The filter wants no more tries beside others.
    patient: bool,
    resent: bool,
}

/// How the next try is begun.
#[derive(Default)]
struct Next {
    elsewhere: bool,
    slot: Option<RetrySlot>,
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, UpstreamError>> + 'a>>;

/// One try that is under way.
struct Try<'a> {
    number: u32,
    endpoint: Rc<Endpoint>,
    sent: Instant,
    queued: Rc<Queued>,
    sending: Sending<'a>,
    /// Begins to run when the request has been received as a whole.
    timeout: Option<Duration>,
    late: Option<Pin<Box<Sleep>>>,
    /// Its place among the cluster's retries, if it is one.
    _slot: Option<RetrySlot>,
}

/// A try that has ended.
struct Ended {
    number: u32,
    endpoint: Option<Address>,
    took: Duration,
    response: Result<Response<UpstreamBody>, End>,
}

/// What happens while tries are under way.
enum Event {
    Ended(Box<Ended>),
    Slow,
    Stopped(Stop),
    Expired,
}

impl<'a> Tries<'a> {
    pub(super) fn new(
        exchange: &'a Exchange,
        cluster: &'a Cluster,
        judge: Rc<Judge>,
        request: Outgoing,
    ) -> Tries<'a> {
        let Outgoing { head, headers, body } = request;
        let bodiless = body.is_end_stream();
        let body = Replay::new(body, judge.replay);
        Tries {
            exchange,
            cluster,
            judge,
            head,
            headers,
            body,
            bodiless,
            number: 0,
            tried: Vec::new(),
            under_way: Vec::new(),
            slow: None,
            patient: false,
            resent: false,
        }
    }

    /// Sends the request until there is something to be delivered.
    pub(super) async fn run(mut self, deadline: &mut Deadline) -> Result<Response<UpstreamBody>, End> {
        let mut next = Some(Next::default());
        loop {
            let mut ended = match next.take().map(|next| self.begin(next)) {
                Some(Err(error)) => self.nowhere(error),
                Some(Ok(())) | None => self.wait(deadline).await?,
            };
            let Some(retry) = self.ask(&mut ended, deadline)? else {
                if self.may_resend(&ended.response) {
                    self.resent = true;
                    next = Some(Next::default());
                    continue;
                }
                self.forgo_others();
                return ended.response;
            };
            if !self.under_way.is_empty() {
                continue;
            }
            let late = deadline.left().is_some_and(|left| left <= retry.delay);
            let slot = if late { None } else { self.cluster.limits().retry(retry.most) };
            if slot.is_none() {
                return ended.response;
            }
            self.pause(ended.response.ok(), retry.delay, deadline).await?;
            next = Some(Next { elsewhere: retry.elsewhere, slot });
        }
    }

    /// Begins a try.
    fn begin(&mut self, next: Next) -> Result<(), UpstreamError> {
        self.number += 1;
        self.slow = None;
        let (exchange, cluster) = (self.exchange, self.cluster);
        let endpoint = self.pick(next.elsewhere)?;
        let mut headers = self.headers.clone();
        if self.judge.numbered {
            headers.insert(ATTEMPT_COUNT, HeaderValue::from(self.number));
        }
        let mut request: Request<_> = upstream_request(&self.head, headers, self.body.body());
        exchange.introduce_client(cluster, &mut request);
        exchange.address_to(&endpoint, &mut request);
        let sent = exchange.begin_attempt(cluster, &endpoint);
        self.tried.push(endpoint.address());
        let upstream = &exchange.listener.upstream;
        let (to, queued) = (Rc::clone(&endpoint), Rc::<Queued>::default());
        let queue = Rc::clone(&queued);
        self.under_way.push(Try {
            number: self.number,
            endpoint,
            sent,
            queued,
            sending: Box::pin(async move { upstream.send_to(cluster, &to, request, &queue).await }),
            timeout: self.judge.per_try_timeout,
            late: None,
            _slot: next.slot,
        });
        Ok(())
    }

    fn pick(&self, elsewhere: bool) -> Result<Rc<Endpoint>, UpstreamError> {
        let key = self.exchange.key(self.cluster);
        let pick = || self.exchange.listener.upstream.pick(self.cluster, key);
        let mut endpoint = pick()?;
        // By key there is but one, which is the point of it.
        if elsewhere && key.is_none() {
            for _ in 1..PICKS {
                if !self.tried.contains(&endpoint.address()) {
                    break;
                }
                endpoint = pick()?;
            }
        }
        Ok(endpoint)
    }

    /// Waits until a try has ended, and begins others beside it if it takes long.
    async fn wait(&mut self, deadline: &mut Deadline) -> Result<Ended, End> {
        loop {
            match poll_fn(|cx| self.poll(cx, deadline)).await {
                Event::Ended(ended) => return Ok(*ended),
                Event::Slow => self.hedge(deadline)?,
                Event::Stopped(stop) => return Err(stop.into()),
                Event::Expired => {
                    let expired = || Err(ExchangeError::Timeout.into());
                    for late in self.under_way.drain(..) {
                        let tried = (late.sent, &*late.queued);
                        self.exchange.end_attempt(self.cluster, &late.endpoint, tried, &expired());
                    }
                    return Err(ExchangeError::Timeout.into());
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline) -> Poll<Event> {
        let stream = &self.exchange.stream;
        let received = stream.request_has_ended();
        let mut tries = self.under_way.iter_mut().enumerate();
        let over = tries.find_map(|(index, one)| match one.poll(cx, received) {
            Poll::Ready(response) => Some((index, response)),
            Poll::Pending => None,
        });
        if let Some((index, response)) = over {
            let over = self.under_way.remove(index);
            // A filter that stopped the request broke its body: what the endpoint made of that does not matter.
            if let Err(stop) = stream.check() {
                return Poll::Ready(Event::Stopped(stop));
            }
            let tried = (over.sent, &*over.queued);
            self.exchange.end_attempt(self.cluster, &over.endpoint, tried, &response);
            return Poll::Ready(Event::Ended(Box::new(Ended {
                number: over.number,
                endpoint: Some(over.endpoint.address()),
                took: over.sent.elapsed(),
                response,
            })));
        }
        if let Poll::Ready(stop) = stream.poll_stopped(cx) {
            return Poll::Ready(Event::Stopped(stop));
        }
        if received {
            deadline.start();
        }
        if deadline.poll(cx).is_ready() {
            return Poll::Ready(Event::Expired);
        }
        if let Some(after) = self.judge.hedge_after
            && !self.patient
            && self.body.is_whole()
        {
            let timer = self.slow.get_or_insert_with(|| Box::pin(sleep(after)));
            if timer.as_mut().poll(cx).is_ready() {
                self.slow = None;
                return Poll::Ready(Event::Slow);
            }
        }
        Poll::Pending
    }

    /// Asks whether another try is worth it beside the one that takes long.
    fn hedge(&mut self, deadline: &Deadline) -> Result<(), End> {
        let Some(slow) = self.under_way.last() else { return Ok(()) };
        let (number, endpoint, took) = (slow.number, slow.endpoint.address(), slow.sent.elapsed());
        let attempt = Attempt {
            can_retry: number < MOST,
            others: count(self.under_way.len() - 1),
            ..self.attempt(number, Some(endpoint), took, Ending::Slow, deadline)
        };
        let retry = self.exchange.stream.ask(&self.judge, &attempt)?.filter(|_| attempt.can_retry);
        let admitted = retry.and_then(|retry| {
            let slot = self.cluster.limits().retry(retry.most)?;
            Some(Next { elsewhere: retry.elsewhere, slot: Some(slot) })
        });
        let begun = admitted.map(|next| self.begin(next));
        self.patient = !matches!(begun, Some(Ok(())));
        Ok(())
    }

    /// Asks the filter about a try that has ended. `None`: it is delivered.
    fn ask(&self, ended: &mut Ended, deadline: &Deadline) -> Result<Option<Retry>, End> {
        let (ending, status, grpc_status) = match &ended.response {
            Ok(response) => {
                let (status, grpc_status) = (response.status(), grpc_status(response.headers()));
                let quiet = u32::from(status.as_u16()) < self.judge.from_status
                    && grpc_status.is_none_or(|status| status == 0);
                if quiet || status == StatusCode::SWITCHING_PROTOCOLS {
                    return Ok(None);
                }
                (Ending::Response, status.as_u16().into(), grpc_status)
            }
            Err(End::Error(error)) => match ending(error) {
                Some(ending) => (ending, 0, None),
                None => return Ok(None),
            },
            Err(End::Stop(_)) => return Ok(None),
        };
        // A response to a part of a request may be to that part.
        let may = if ended.response.is_ok() { self.body.is_whole() } else { self.body.is_kept() };
        let attempt = Attempt {
            status,
            grpc_status,
            can_retry: may && self.number < MOST,
            others: count(self.under_way.len()),
            ..self.attempt(ended.number, ended.endpoint, ended.took, ending, deadline)
        };
        let stream = &self.exchange.stream;
        let asked = match &mut ended.response {
            Ok(response) => {
                let headers = std::mem::take(response.headers_mut());
                self.exchange.show(ResponseHead { status: response.status(), headers });
                let asked = stream.ask(&self.judge, &attempt);
                // What the filter changed in it is changed, and is checked with the rest of it.
                *response.headers_mut() = self.exchange.take_shown().unwrap_or_default();
                asked
            }
            Err(_) => stream.ask(&self.judge, &attempt),
        };
        Ok(asked?.filter(|_| attempt.can_retry))
    }

    fn attempt(
        &self,
        number: u32,
        endpoint: Option<Address>,
        took: Duration,
        ending: Ending,
        deadline: &Deadline,
    ) -> Attempt {
        let limits = self.cluster.limits();
        let left = deadline.left().map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        Attempt {
            number,
            ending: ending.into(),
            endpoint: endpoint.map(|address| address.to_string()).unwrap_or_default(),
            elapsed_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            left_ms: left,
            active: (limits.requests().now() + limits.pending().now()) as u64,
            retries: limits.retries().now() as u64,
            ..Attempt::default()
        }
    }

    fn nowhere(&self, error: UpstreamError) -> Ended {
        let response = Err(ExchangeError::Upstream(error).into());
        Ended { number: self.number, endpoint: None, took: Duration::ZERO, response }
    }

    /// Whether the request is sent again once although the filter does not ask for it, as it would be without one.
    fn may_resend(&self, response: &Result<Response<UpstreamBody>, End>) -> bool {
        let alone = self.bodiless && !self.resent && self.under_way.is_empty();
        alone && may_be_resent(response, self.head.method.is_idempotent())
    }

    /// Another try is delivered: these took longer than that one.
    fn forgo_others(&mut self) {
        for slower in self.under_way.drain(..) {
            self.cluster.report_slower(&slower.endpoint, slower.sent.elapsed());
        }
    }

    /// Waits before the next try, and reads what the last one answered to its end, if that is near.
    async fn pause(
        &self,
        response: Option<Response<UpstreamBody>>,
        delay: Duration,
        deadline: &mut Deadline,
    ) -> Result<(), End> {
        let stream = &self.exchange.stream;
        let mut unread = response.map(Response::into_body);
        let mut left = DRAINED;
        let mut timer = pin!(sleep(delay));
        poll_fn(|cx| {
            if unread.as_mut().is_some_and(|body| poll_drained(body, &mut left, cx).is_ready()) {
                unread = None;
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(stop) = stream.poll_stopped(cx) {
                return Poll::Ready(Err(stop.into()));
            }
            if stream.request_has_ended() {
                deadline.start();
            }
            deadline.poll(cx).map(|()| Err(ExchangeError::Timeout.into()))
        })
        .await
    }
}

impl Try<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, received: bool) -> Poll<Result<Response<UpstreamBody>, End>> {
        if let Poll::Ready(response) = self.sending.as_mut().poll(cx) {
            return Poll::Ready(response.map_err(|error| ExchangeError::Upstream(error).into()));
        }
        if received && let Some(timeout) = self.timeout.take() {
            self.late = Some(Box::pin(sleep(timeout)));
        }
        match &mut self.late {
            Some(late) => late.as_mut().poll(cx).map(|()| Err(ExchangeError::TryTimeout.into())),
            None => Poll::Pending,
        }
    }
}

/// How a try ended that has no response; none if that is nothing that another try could mend.
fn ending(error: &ExchangeError) -> Option<Ending> {
    let error = match error {
        ExchangeError::TryTimeout => return Some(Ending::Timeout),
        ExchangeError::Upstream(error) => error,
        _ => return None,
    };
    Some(match &error.kind {
        UpstreamErrorKind::NoEndpoint => Ending::NoEndpoint,
        UpstreamErrorKind::ConnectFailed
        | UpstreamErrorKind::ConnectTimeout
        | UpstreamErrorKind::TlsFailed => Ending::ConnectFailure,
        UpstreamErrorKind::Unsent => Ending::ResetBeforeRequest,
        UpstreamErrorKind::Overflow => Ending::Overflow,
        UpstreamErrorKind::Refused => Ending::Refused,
        UpstreamErrorKind::StreamReset { .. } | UpstreamErrorKind::Reset { .. } => Ending::Reset,
        UpstreamErrorKind::Protocol => Ending::Protocol,
        // Another endpoint says the same.
        UpstreamErrorKind::NoUpgrades | UpstreamErrorKind::RequestBody(_) => return None,
    })
}

/// gRPC's status in a response's head: there is nothing after it.
fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    let status = headers.get(grpc::GRPC_STATUS).filter(|_| grpc::is_grpc(headers))?;
    status.to_str().ok()?.parse().ok()
}

/// Ready when the rest of a response has been read, is too long, or does not come.
fn poll_drained(body: &mut UpstreamBody, left: &mut usize, cx: &mut Context<'_>) -> Poll<()> {
    while let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
        let Some(Ok(frame)) = frame else { return Poll::Ready(()) };
        match left.checked_sub(frame.data_ref().map_or(0, |chunk| chunk.len())) {
            Some(rest) => *left = rest,
            None => return Poll::Ready(()),
        }
    }
    Poll::Pending
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
