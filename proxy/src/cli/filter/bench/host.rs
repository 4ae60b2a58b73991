//! What a worker offers a filter that is measured: calls, whose answers wait until they are fetched, a timer that is
//! fired by hand, and a clock that moves with it.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use meshgate::filter::foreign_function;
use meshgate_wasm::{
    CallError, ForeignCaller, GrpcEvents, GrpcRequest, GrpcSender, Host, HttpCall, HttpCallReply, LogLevel,
    PluginSpec, StartError, Status, TickHandle, VmError,
};

use super::grpc::Grpc;

/// A call that waits for its answer.
pub(super) struct Waiting {
    pub(super) cluster: String,
    pub(super) timeout: Option<Duration>,
    pub(super) reply: HttpCallReply,
}

/// The worker's side.
pub(super) struct Bench {
    calls: RefCell<Vec<Waiting>>,
    pub(super) grpc: Grpc,
    timer: RefCell<Option<(TickHandle, Duration)>>,
    /// How far the filter's clock is ahead of the machine's.
    ahead: Cell<Duration>,
    /// The last line that the filter logged, and the last failure: what is told when it does not start or go on.
    said: RefCell<Option<String>>,
    failure: RefCell<Option<String>>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            calls: RefCell::default(),
            grpc: Grpc::default(),
            timer: RefCell::default(),
            ahead: Cell::new(Duration::ZERO),
            said: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    /// The call that waits longest for its answer.
    pub(super) fn next_call(&self) -> Option<Waiting> {
        let mut calls = self.calls.borrow_mut();
        (!calls.is_empty()).then(|| calls.remove(0))
    }

    /// The timer, if it is armed. From now on it is one period later.
    pub(super) fn next_tick(&self) -> Option<TickHandle> {
        let (timer, period) = self.timer.borrow().clone()?;
        self.ahead.set(self.ahead.get() + period);
        Some(timer)
    }

    /// Why nothing goes on, if the filter failed outside of the exchange's own callbacks.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.take()
    }

    /// An error, with what the filter logged last.
    pub(super) fn explained(&self, error: &StartError) -> anyhow::Error {
        match self.said.take() {
            Some(said) => anyhow::anyhow!("{error}: {said}"),
            None => anyhow::anyhow!("{error}"),
        }
    }
}

impl Host for Bench {
    fn http_call(&self, _: &PluginSpec, call: HttpCall, reply: HttpCallReply) -> Result<(), CallError> {
        self.calls.borrow_mut().push(Waiting { cluster: call.cluster, timeout: call.timeout, reply });
        Ok(())
    }

    fn grpc(
        &self,
        _: &PluginSpec,
        request: GrpcRequest,
        events: GrpcEvents,
    ) -> Result<Box<dyn GrpcSender>, CallError> {
        Ok(self.grpc.begin(request, events))
    }

    fn tick(&self, plugin: TickHandle, period: Option<Duration>) {
        self.timer.replace(period.map(|period| (plugin, period)));
    }

    fn foreign_function(
        &self,
        caller: &mut ForeignCaller<'_>,
        name: &str,
        argument: &[u8],
    ) -> Result<Vec<u8>, Status> {
        foreign_function(caller, name, argument)
    }

    fn log(&self, _: &PluginSpec, _: LogLevel, message: &str) {
        let mut said = self.said.borrow_mut();
        let said = said.get_or_insert_default();
        said.clear();
        said.push_str(message);
    }

    fn failed(&self, _: &PluginSpec, error: &VmError) {
        self.failure.replace(Some(error.to_string()));
    }

    fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead.get()
    }
}
