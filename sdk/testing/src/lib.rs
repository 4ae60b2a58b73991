//! Runs tests of filters with the compiled module, in Meshgate's own host.
//!
//! `meshgate_sdk::testing::Proxy` drives a filter through an `Engine`. The SDK's own runs a filter natively, in a simulated
//! host; [`RealHost`] runs a `.wasm` on wasmtime, with the hostcalls that the proxy uses. It is a crate of its own so that
//! filters, which depend on the SDK, do not have to compile wasmtime.
//!
//! ```no_run
//! use meshgate_sdk::testing::{Proxy, Request};
//! use meshgate_testing::RealHost;
//!
//! let module = std::fs::read("target/filters/headers.wasm").unwrap();
//! let mut proxy = Proxy::with(RealHost::new(&module).unwrap(), r#"{"request": {"set": {"x-a": "1"}}}"#);
//! let done = proxy.send(Request::get("/"));
//! assert_eq!(done.upstream().unwrap().field("x-a").as_deref(), Some("1"));
//! ```

mod convert;
mod exchange;
mod grpc;
mod worker;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use meshgate_abi::{Attempt, Attempts, Retry, event};
use meshgate_sdk::ClosedBy;
use meshgate_sdk::testing::{
    Client, Engine, Failure, Fields, Part, Request, Response, Said, StartedCall, StreamDid, StreamPart,
    Verdict, Way,
};
use meshgate_wasm::{
    BodyAction, CallFailure, EngineError, EngineOptions, GrpcStatus, HeadersAction, HttpStream, Module,
    ModuleError, PeerType, Plugin, PluginSpec, Shared, StreamContext, TcpAction, TrailersAction, VmError,
    Vms,
};
use prost::Message;

use self::exchange::Running;
use self::worker::Worker;

/// How long a callback may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often in a row the filter is told of queues: for one that puts something in each time there is no end.
const MOST_ROUNDS: usize = 1_000;

/// Meshgate's host with one module and one worker, for [`Proxy::with`](meshgate_sdk::testing::Proxy::with).
///
/// ```no_run
/// use meshgate_sdk::testing::{Proxy, Request};
/// use meshgate_testing::RealHost;
///
/// let module = std::fs::read("target/filters/headers.wasm").unwrap();
/// for (name, expected) in [("x-a", Some("1")), ("x-b", None)] {
///     let host = RealHost::new(&module).unwrap(); // compiled once in a process
///     let mut proxy = Proxy::with(host, r#"{"request": {"set": {"x-a": "1"}}}"#);
///     let done = proxy.send(Request::get("/"));
///     assert_eq!(done.upstream().unwrap().field(name).as_deref(), expected);
/// }
/// ```
pub struct RealHost {
    // Dropped in this order: contexts, plugin, VMs.
    exchanges: HashMap<u32, (StreamContext, Rc<Running>)>,
    plugin: Option<Rc<Plugin>>,
    vms: Option<Vms>,
    module: Module,
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    last: u32,
}

/// Why a module cannot be run.
///
/// ```
/// use meshgate_testing::{HostError, RealHost};
///
/// let error = RealHost::new(b"no module").unwrap_err();
/// assert!(matches!(error, HostError::Module(_)), "{error}");
/// ```
#[derive(Debug)]
pub enum HostError {
    /// The machine cannot run the engine.
    Engine(EngineError),
    /// The module is not one that the host takes.
    Module(ModuleError),
}

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Module(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HostError {}

/// One for all tests of a process: it has a thread of its own.
fn engine() -> Result<meshgate_wasm::Engine, HostError> {
    static ENGINE: LazyLock<Result<meshgate_wasm::Engine, String>> = LazyLock::new(|| {
        let options = EngineOptions { max_instances: 100, ..EngineOptions::default() };
        meshgate_wasm::Engine::new(options).map_err(|error| error.to_string())
    });
    match &*ENGINE {
        Ok(engine) => Ok(engine.clone()),
        // Once more, for the error itself.
        Err(_) => meshgate_wasm::Engine::new(EngineOptions::default()).map_err(HostError::Engine),
    }
}

/// The module, compiled once in a process.
fn compiled(bytes: &[u8]) -> Result<Module, HostError> {
    static MODULES: Mutex<Vec<(Vec<u8>, Module)>> = Mutex::new(Vec::new());
    // A test that failed while it held the lock has left nothing half done.
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, module)) = modules.iter().find(|(known, _)| known == bytes) {
        return Ok(module.clone());
    }
    let module = engine()?.compile("filter", bytes).map_err(HostError::Module)?;
    modules.push((bytes.to_vec(), module.clone()));
    Ok(module)
}

impl RealHost {
    /// Compiles a module.
    ///
    /// # Errors
    /// The machine cannot run the engine, or the module is not one that Meshgate takes.
    pub fn new(module: &[u8]) -> Result<Self, HostError> {
        let module = compiled(module)?;
        Ok(Self {
            exchanges: HashMap::new(),
            plugin: None,
            vms: None,
            module,
            worker: Rc::new(Worker::new()),
            shared: Shared::new(),
            last: 0,
        })
    }

    fn http(&self, exchange: u32) -> Option<&RefCell<HttpStream>> {
        self.exchanges.get(&exchange)?.1.http()
    }

    fn begin(&mut self, running: Running) -> u32 {
        self.last += 1;
        let running = Rc::new(running);
        let exchange = Rc::clone(&running) as Rc<dyn meshgate_wasm::Exchange>;
        // A context that cannot be made fails with the first part that is delivered.
        if let Some(Ok(context)) = self.plugin.as_ref().map(|plugin| plugin.stream(exchange, 0)) {
            self.exchanges.insert(self.last, (context, running));
        }
        self.last
    }

    fn verdict(&self, exchange: u32, way: Way, outcome: Result<bool, VmError>) -> Verdict {
        let Some((context, running)) = self.exchanges.get(&exchange) else { return Verdict::Held };
        let passed = match outcome {
            Ok(passed) => passed,
            Err(error) => return Verdict::Failed(error.to_string()),
        };
        let answer = running.http().and_then(|http| http.borrow_mut().local_response.take());
        if let Some(answer) = answer {
            return Verdict::Answered(Box::new(convert::answer(answer)));
        }
        let closed = context.take_closed();
        let resumed = match way {
            Way::Request => context.take_resumed_request(),
            Way::Response => context.take_resumed_response(),
        };
        let passes = passed || resumed;
        if !passes {
            return if closed { Verdict::Closed(Vec::new()) } else { Verdict::Held };
        }
        let mut body = match way {
            Way::Request => context.request_body(),
            Way::Response => context.response_body(),
        };
        let bytes = body.drain().flatten().collect();
        if closed { Verdict::Closed(bytes) } else { Verdict::Passed(bytes) }
    }
}

impl Engine for RealHost {
    fn start(&mut self, configuration: &str) -> Result<(), String> {
        self.exchanges.clear();
        // They go when the new ones are there: with a module's last instance its shared data goes, too.
        let before = (self.plugin.take(), self.vms.take());
        self.worker.forget_timer();
        let logged = self.worker.logs().len();
        let engine = engine().map_err(|error| error.to_string())?;
        let vms = Vms::new(
            engine,
            Rc::clone(&self.worker) as Rc<dyn meshgate_wasm::Host>,
            Arc::clone(&self.shared),
        );
        let mut spec = PluginSpec::new("filter", self.module.clone(), configuration);
        // A test that runs on a busy machine is not a filter that takes too long.
        spec.limits.time = PATIENCE;
        spec.limits.body_time = PATIENCE;
        spec.limits.start_time = PATIENCE;
        let plugin = vms.plugin(Arc::new(spec)).map_err(|error| {
            let logs = self.worker.logs();
            match logs.get(logged..) {
                Some(logs) if !logs.is_empty() => logs.join("\n"),
                _ => error.to_string(),
            }
        })?;
        self.plugin = Some(plugin);
        self.vms = Some(vms);
        self.worker.keep_timer(|| drop(before));
        Ok(())
    }

    fn open(&mut self, request: &Request) -> u32 {
        self.begin(Running::new(request, self.worker.now()))
    }

    fn connect(&mut self, client: &Client) -> u32 {
        self.begin(Running::connected(client, self.worker.now()))
    }

    fn deliver(&mut self, exchange: u32, part: Part) -> Verdict {
        let Some((context, running)) = self.exchanges.get(&exchange) else {
            return Verdict::Failed("there is no context for the exchange".to_owned());
        };
        let change = |change: &dyn Fn(&mut HttpStream)| {
            if let Some(http) = running.http() {
                change(&mut http.borrow_mut());
            }
        };
        let (way, outcome) = match part {
            Part::RequestHead(end) => (Way::Request, context.on_request_headers(end).map(goes_on)),
            Part::ResponseHead(mut fields, end) => {
                fields.extend(running.added());
                change(&|http| http.response = Some(convert::response_head(&fields)));
                (Way::Response, context.on_response_headers(end).map(goes_on))
            }
            Part::Body(Way::Request, bytes, end) => {
                context.request_body().push(bytes.into());
                (Way::Request, context.on_request_body(end).map(|action| action == BodyAction::Continue))
            }
            Part::Body(Way::Response, bytes, end) => {
                context.response_body().push(bytes.into());
                (Way::Response, context.on_response_body(end).map(|action| action == BodyAction::Continue))
            }
            Part::Trailers(Way::Request, fields) => {
                change(&|http| http.request_trailers = Some(convert::headers(&fields)));
                (Way::Request, context.on_request_trailers().map(|action| action == TrailersAction::Continue))
            }
            Part::Trailers(Way::Response, fields) => {
                change(&|http| http.response_trailers = Some(convert::headers(&fields)));
                (
                    Way::Response,
                    context.on_response_trailers().map(|action| action == TrailersAction::Continue),
                )
            }
            Part::Connection => {
                (Way::Request, context.on_new_connection().map(|action| action == TcpAction::Continue))
            }
            Part::Data(Way::Request, bytes, end) => {
                context.downstream_data().push(bytes.into());
                let action = context.on_downstream_data(end);
                (Way::Request, action.map(|action| action == TcpAction::Continue))
            }
            Part::Data(Way::Response, bytes, end) => {
                context.upstream_data().push(bytes.into());
                let action = context.on_upstream_data(end);
                (Way::Response, action.map(|action| action == TcpAction::Continue))
            }
            // They let nothing go.
            Part::Closed(Way::Request, by) => {
                (Way::Request, context.on_downstream_close(peer(by)).map(|()| false))
            }
            Part::Closed(Way::Response, by) => {
                (Way::Response, context.on_upstream_close(peer(by)).map(|()| false))
            }
        };
        self.verdict(exchange, way, outcome)
    }

    fn released(&mut self, exchange: u32, way: Way) -> Option<Verdict> {
        if let Some(failure) = self.worker.take_failure() {
            return Some(Verdict::Failed(failure));
        }
        let verdict = self.verdict(exchange, way, Ok(false));
        (verdict != Verdict::Held).then_some(verdict)
    }

    fn head(&self, exchange: u32, way: Way) -> Fields {
        let Some(http) = self.http(exchange) else { return Fields::new() };
        let http = http.borrow();
        match way {
            Way::Request => convert::request_fields(&http.request),
            Way::Response => http.response.as_ref().map(convert::response_fields).unwrap_or_default(),
        }
    }

    fn trailers(&self, exchange: u32, way: Way) -> Fields {
        let Some(http) = self.http(exchange) else { return Fields::new() };
        let http = http.borrow();
        let trailers = match way {
            Way::Request => &http.request_trailers,
            Way::Response => &http.response_trailers,
        };
        trailers.as_ref().map(convert::fields).unwrap_or_default()
    }

    fn cluster(&self, exchange: u32) -> Option<String> {
        let (_, running) = self.exchanges.get(&exchange)?;
        running.cluster()
    }

    fn direct(&self, exchange: u32) -> Option<Response> {
        let (_, running) = self.exchanges.get(&exchange)?;
        running.direct()
    }

    fn attempts(&self, exchange: u32) -> Option<Attempts> {
        let (_, running) = self.exchanges.get(&exchange)?;
        running.attempts()
    }

    fn ask(&mut self, exchange: u32, attempt: &Attempt, head: Option<Fields>) -> Option<Retry> {
        let (context, running) = self.exchanges.get(&exchange)?;
        let http = running.http()?;
        http.borrow_mut().response = head.as_ref().map(convert::response_head);
        let retry = running.verdict(|| {
            // A failure is told by the worker.
            let _ = context.on_foreign_function(event::ATTEMPT, attempt.encode_to_vec().into());
        });
        http.borrow_mut().response = None;
        retry
    }

    fn close(&mut self, exchange: u32) -> Said {
        let Some((context, running)) = self.exchanges.remove(&exchange) else { return Said::default() };
        running.end(self.worker.now());
        context.finish();
        running.said().take()
    }

    fn set_clusters(&mut self, names: Vec<String>) {
        self.worker.set_clusters(names);
    }

    fn calls(&mut self) -> Vec<StartedCall> {
        self.worker.end_cancelled_calls();
        grpc::tell_cancelled(self.worker.grpc());
        self.worker.take_calls()
    }

    fn answer(&mut self, call: u32, response: &Response) {
        let events = self.worker.grpc().borrow_mut().take(call);
        if let Some(events) = events {
            let status = |(code, words): (u32, String)| GrpcStatus { code, message: words.into() };
            events.answer(response.grpc_outcome().map(Into::into).map_err(status));
            return;
        }
        let outcome = match response.failure() {
            None => Ok(convert::call_response(response)),
            Some(Failure::Timeout) => Err(CallFailure::Timeout),
            Some(Failure::Refused) => Err(CallFailure::ConnectFailed),
            Some(Failure::Reset) => Err(CallFailure::Unanswered),
        };
        if let Some(reply) = self.worker.take_reply(call) {
            reply.deliver(outcome);
        }
    }

    fn streams(&mut self) -> Vec<(u32, StreamDid)> {
        self.worker.grpc().borrow_mut().take_did()
    }

    fn receive(&mut self, stream: u32, part: &StreamPart) {
        grpc::receive(self.worker.grpc(), stream, part);
    }

    fn timer(&mut self) -> Option<Option<Duration>> {
        self.worker.take_timer()
    }

    fn tick(&mut self) {
        self.worker.tick();
    }

    fn tell_of_queues(&mut self) {
        let Some(vms) = &self.vms else { return };
        for _ in 0..MOST_ROUNDS {
            if vms.poll_events(&mut Context::from_waker(Waker::noop())).is_pending() {
                return;
            }
        }
    }

    fn end(&mut self) {
        drop(self.plugin.take());
    }

    fn has_ended(&self) -> bool {
        let ended = |vms: &Vms| vms.poll_ended(&mut Context::from_waker(Waker::noop())).is_ready();
        self.vms.as_ref().is_none_or(ended)
    }

    fn set_time(&mut self, now: SystemTime) {
        self.worker.set_now(now);
    }

    fn logs(&self) -> Vec<String> {
        self.worker.logs()
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
        let mut text = String::new();
        self.shared.metrics().render(&mut text);
        convert::sample(&text, name, labels)
    }
}

fn peer(by: ClosedBy) -> PeerType {
    match by {
        ClosedBy::Proxy => PeerType::Local,
        ClosedBy::Peer => PeerType::Remote,
        _ => PeerType::Unknown,
    }
}

fn goes_on(action: HeadersAction) -> bool {
    action == HeadersAction::Continue
}

impl std::fmt::Debug for RealHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealHost").field("module", &self.module.name()).finish_non_exhaustive()
    }
}
