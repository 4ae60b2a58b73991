//! What a worker offers a plugin, played by a test: calls that the test answers, a timer that it fires, its clock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshgate_abi::{
    Attempts, Encode, LogEntry, MetricType, Retry, RouteDecision, Series, Throttle, function,
};
use meshgate_sdk::testing::{Request, StartedCall};
use meshgate_wasm::{
    CallError, CallFailure, ForeignCaller, GrpcEvents, GrpcRequest, GrpcSender, Host, HttpCall,
    HttpCallReply, LogLevel, MetricKind, PluginSpec, SeriesSpec, Status, TickHandle, VmError,
};
use prost::Message;

use crate::convert;
use crate::exchange::Running;
use crate::grpc::{Begun, Grpc};

/// One worker.
pub(crate) struct Worker {
    clusters: RefCell<Vec<String>>,
    calls: RefCell<Vec<StartedCall>>,
    replies: RefCell<HashMap<u32, HttpCallReply>>,
    /// The gRPC calls and streams under way; shared with what sends on them.
    grpc: Rc<RefCell<Grpc>>,
    last: Cell<u32>,
    logs: RefCell<Vec<String>>,
    timer: RefCell<Option<TickHandle>>,
    /// The period that was set since somebody looked.
    period: Cell<Option<Option<Duration>>>,
    failure: RefCell<Option<String>>,
    now: Cell<SystemTime>,
}

impl Worker {
    pub(crate) fn new() -> Self {
        Self {
            clusters: RefCell::default(),
            calls: RefCell::default(),
            replies: RefCell::default(),
            grpc: Rc::default(),
            last: Cell::new(0),
            logs: RefCell::default(),
            timer: RefCell::default(),
            period: Cell::new(None),
            failure: RefCell::default(),
            now: Cell::new(UNIX_EPOCH),
        }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.now.get()
    }

    pub(crate) fn set_now(&self, now: SystemTime) {
        self.now.set(now);
    }

    pub(crate) fn set_clusters(&self, names: Vec<String>) {
        self.clusters.replace(names);
    }

    pub(crate) fn take_calls(&self) -> Vec<StartedCall> {
        self.calls.take()
    }

    pub(crate) fn take_reply(&self, call: u32) -> Option<HttpCallReply> {
        self.replies.borrow_mut().remove(&call)
    }

    /// Tells the filter of the end of the calls that it gave up.
    pub(crate) fn end_cancelled_calls(&self) {
        let mut replies = self.replies.borrow_mut();
        let cancelled = replies.extract_if(|_, reply| reply.is_cancelled()).map(|(_, reply)| reply);
        let cancelled: Vec<_> = cancelled.collect();
        drop(replies);
        cancelled.into_iter().for_each(|reply| reply.deliver(Err(CallFailure::Reset)));
    }

    pub(crate) fn grpc(&self) -> &RefCell<Grpc> {
        &self.grpc
    }

    fn next(&self) -> u32 {
        let id = self.last.get() + 1;
        self.last.set(id);
        id
    }

    pub(crate) fn logs(&self) -> Vec<String> {
        self.logs.borrow().clone()
    }

    pub(crate) fn take_timer(&self) -> Option<Option<Duration>> {
        self.period.take()
    }

    pub(crate) fn forget_timer(&self) {
        self.timer.replace(None);
        self.period.set(Some(None));
        self.replies.borrow_mut().clear();
        *self.grpc.borrow_mut() = Grpc::default();
    }

    /// Lets an old plugin go, which stops its timer: not the new one's.
    pub(crate) fn keep_timer(&self, end: impl FnOnce()) {
        let (timer, period) = (self.timer.take(), self.period.take());
        end();
        self.timer.replace(timer);
        self.period.set(period);
    }

    pub(crate) fn tick(&self) {
        // Taken out: the callback may arm it again.
        let timer = self.timer.borrow().clone();
        if let Some(timer) = timer {
            timer.tick();
        }
    }

    pub(crate) fn take_failure(&self) -> Option<String> {
        self.failure.take()
    }
}

impl Host for Worker {
    fn http_call(&self, _: &PluginSpec, call: HttpCall, reply: HttpCallReply) -> Result<(), CallError> {
        if !self.clusters.borrow().contains(&call.cluster) {
            return Err(CallError::UnknownCluster);
        }
        let id = self.next();
        let head = convert::request_fields(&call.request);
        let request = Request::received(head, call.body.to_vec(), convert::fields(&call.trailers));
        self.calls.borrow_mut().push(StartedCall {
            id,
            cluster: call.cluster,
            request,
            timeout: call.timeout,
        });
        self.replies.borrow_mut().insert(id, reply);
        Ok(())
    }

    fn grpc(
        &self,
        _: &PluginSpec,
        request: GrpcRequest,
        events: GrpcEvents,
    ) -> Result<Box<dyn GrpcSender>, CallError> {
        if !self.clusters.borrow().contains(&request.cluster) {
            return Err(CallError::UnknownCluster);
        }
        let (begun, sender) = Grpc::begin(&self.grpc, self.next(), request, events);
        if let Begun::Call(call) = begun {
            self.calls.borrow_mut().push(call);
        }
        Ok(sender)
    }

    fn tick(&self, plugin: TickHandle, period: Option<Duration>) {
        self.timer.replace(period.map(|_| plugin));
        self.period.set(Some(period));
    }

    fn foreign_function(
        &self,
        caller: &mut ForeignCaller<'_>,
        name: &str,
        argument: &[u8],
    ) -> Result<Vec<u8>, Status> {
        match name {
            function::ROUTE => {
                let decision = RouteDecision::decode(argument).map_err(|_| Status::BadArgument)?;
                let exists = |cluster: &String| self.clusters.borrow().contains(cluster);
                let known = decision.direct.is_some() || exists(&decision.cluster);
                if !known || !decision.mirrors.iter().all(|mirror| exists(&mirror.cluster)) {
                    return Err(Status::BadArgument);
                }
                running(caller)?.decide(&decision);
                Ok(Vec::new())
            }
            function::ATTEMPTS => {
                let attempts = Attempts::decode(argument).map_err(|_| Status::BadArgument)?;
                running(caller)?.watch(attempts);
                Ok(Vec::new())
            }
            function::RETRY => {
                let retry = Retry::decode(argument).map_err(|_| Status::BadArgument)?;
                running(caller)?.answer(retry).then(Vec::new).ok_or(Status::BadArgument)
            }
            function::ENCODE => {
                let encode = Encode::decode(argument).map_err(|_| Status::BadArgument)?;
                let running = running(caller)?;
                let has_response = running.http().is_some_and(|http| http.borrow().response.is_some());
                let known = has_response && running.said().borrow_mut().encode(encode);
                if known { Ok(Vec::new()) } else { Err(Status::BadArgument) }
            }
            function::THROTTLE => {
                let throttle = Throttle::decode(argument).map_err(|_| Status::BadArgument)?;
                let running = running(caller)?;
                running.http().ok_or(Status::BadArgument)?;
                running.said().borrow_mut().throttle = throttle.bytes_per_second;
                Ok(Vec::new())
            }
            function::TRACE | function::SPAN | function::SPANS => {
                let running = running(caller)?;
                running.http().ok_or(Status::BadArgument)?;
                let answer = running.said().borrow_mut().tracing(name, argument);
                answer.ok_or(Status::NotFound)?.map_err(|status| match status {
                    meshgate_sdk::Status::INTERNAL_FAILURE => Status::InternalFailure,
                    _ => Status::BadArgument,
                })
            }
            function::LOG => {
                let entry = LogEntry::decode(argument).map_err(|_| Status::BadArgument)?;
                let running = running(caller)?;
                let added = running.said().borrow_mut().add(entry);
                if added { Ok(Vec::new()) } else { Err(Status::BadArgument) }
            }
            function::METRIC => {
                let series = Series::decode(argument).map_err(|_| Status::BadArgument)?;
                let kind = match MetricType::try_from(series.r#type).map_err(|_| Status::BadArgument)? {
                    MetricType::Counter => MetricKind::Counter,
                    MetricType::Gauge => MetricKind::Gauge,
                    MetricType::Histogram => MetricKind::Histogram,
                };
                let labels: Vec<_> =
                    series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect();
                let id = caller.series(&SeriesSpec {
                    name: &series.name,
                    kind,
                    labels: &labels,
                    help: &series.help,
                    scale: series.scale,
                    buckets: &series.buckets,
                })?;
                Ok(id.to_le_bytes().to_vec())
            }
            _ => Err(Status::NotFound),
        }
    }

    fn log(&self, _: &PluginSpec, _: LogLevel, message: &str) {
        self.logs.borrow_mut().push(message.to_owned());
    }

    fn log_level(&self) -> LogLevel {
        LogLevel::Trace
    }

    fn failed(&self, _: &PluginSpec, error: &VmError) {
        self.failure.replace(Some(error.to_string()));
    }

    fn now(&self) -> SystemTime {
        self.now.get()
    }
}

/// The exchange that a foreign function is called for.
fn running<'a>(caller: &ForeignCaller<'a>) -> Result<&'a Running, Status> {
    caller.exchange().and_then(|exchange| exchange.as_any().downcast_ref()).ok_or(Status::BadArgument)
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
