//! A fake worker and fake exchanges around the puppet: everything the host needs, and a record of what happened.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::puppet::{self, Allocator, CALLBACKS, HOSTCALLS};
use crate::*;

/// Address, size of what a hostcall gave lie here.
pub(super) const OUT: u32 = 1_024;

/// What the puppet is to do.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Write(u32, Vec<u8>),
    Peek(u32, u32),
    /// Shows what lies where the address and size at this place say.
    PeekAt(u32),
    Return(u32),
    Crash(u32),
    Call(&'static str, Vec<u64>, Allocator),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Callback(&'static str, Vec<u32>),
    Status(u32),
    Peek(Vec<u8>),
    Log(LogLevel, String),
    Failed(&'static str, String),
    Wake,
}

/// A message and whether it was the last, or that the sender was dropped.
pub(super) type Sent = Option<(Option<Bytes>, bool)>;

/// The fake worker.
#[derive(Default)]
pub(super) struct FakeHost {
    pub(super) events: RefCell<Vec<Event>>,
    scripts: RefCell<HashMap<&'static str, VecDeque<Vec<Step>>>>,
    steps: RefCell<VecDeque<Step>>,
    pub(super) calls: RefCell<Vec<(HttpCall, HttpCallReply)>>,
    pub(super) grpc: RefCell<Vec<(GrpcRequest, GrpcEvents)>>,
    /// What guests sent on streams.
    pub(super) grpc_sent: Rc<RefCell<Vec<Sent>>>,
    pub(super) ticks: RefCell<Vec<(TickHandle, Option<Duration>)>>,
    pub(super) panics: Cell<bool>,
    watch: RefCell<Option<Watch>>,
}

/// Told the argument whenever a guest calls the foreign function `report`.
type Watch = Box<dyn Fn(&[u8])>;

impl FakeHost {
    pub(super) fn watch(&self, watch: impl Fn(&[u8]) + 'static) {
        self.watch.replace(Some(Box::new(watch)));
    }

    fn record(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn begin(&self, argument: &[u8]) {
        let words: Vec<u32> =
            argument.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        let (name, ..) = CALLBACKS[words[0] as usize];
        let parameters = words[1..].iter().copied().take_while(|word| *word != u32::MAX).collect();
        self.record(Event::Callback(name, parameters));
        let script = self.scripts.borrow_mut().get_mut(name).and_then(VecDeque::pop_front);
        self.steps.replace(script.unwrap_or_default().into());
    }

    fn next(&self) -> Vec<u8> {
        let Some(step) = self.steps.borrow_mut().pop_front() else { return Vec::new() };
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        match step {
            Step::Write(at, bytes) => {
                let mut step = words(&[puppet::WRITE, at, bytes.len() as u32]);
                step.extend(bytes);
                step
            }
            Step::Peek(at, size) => words(&[puppet::PEEK, at, size]),
            Step::PeekAt(at) => words(&[puppet::PEEK_AT, at]),
            Step::Return(value) => words(&[puppet::RETURN, value]),
            Step::Crash(kind) => words(&[kind]),
            Step::Call(name, arguments, allocator) => {
                let index = HOSTCALLS.iter().position(|(known, _)| *known == name).unwrap();
                let mut step = words(&[puppet::CALL + index as u32, allocator as u32]);
                arguments.iter().for_each(|argument| step.extend(argument.to_le_bytes()));
                step
            }
        }
    }
}

impl Host for FakeHost {
    fn http_call(&self, _: &PluginSpec, call: HttpCall, reply: HttpCallReply) -> Result<(), CallError> {
        match call.cluster.as_str() {
            "known" => {
                self.calls.borrow_mut().push((call, reply));
                Ok(())
            }
            "busy" => Err(CallError::CannotStart),
            _ => Err(CallError::UnknownCluster),
        }
    }

    fn grpc(
        &self,
        _: &PluginSpec,
        request: GrpcRequest,
        events: GrpcEvents,
    ) -> Result<Box<dyn GrpcSender>, CallError> {
        match request.cluster.as_str() {
            "known" => {
                self.grpc.borrow_mut().push((request, events));
                Ok(Box::new(FakeSender(Rc::clone(&self.grpc_sent))))
            }
            "busy" => Err(CallError::CannotStart),
            _ => Err(CallError::UnknownCluster),
        }
    }

    fn tick(&self, plugin: TickHandle, period: Option<Duration>) {
        self.ticks.borrow_mut().push((plugin, period));
    }

    fn foreign_function(
        &self,
        caller: &mut ForeignCaller<'_>,
        name: &str,
        argument: &[u8],
    ) -> Result<Vec<u8>, Status> {
        assert!(!self.panics.take(), "a defect of the embedder");
        match name {
            "callback" => self.begin(argument),
            "next" => return Ok(self.next()),
            "status" => self.record(Event::Status(u32::from_le_bytes(argument.try_into().unwrap()))),
            "peek" => self.record(Event::Peek(argument.to_vec())),
            "report" => {
                if let Some(watch) = &*self.watch.borrow() {
                    watch(argument);
                }
            }
            "echo" => return Ok(argument.to_vec()),
            "place" => return Ok(caller.place().map(|place| vec![place as u8]).unwrap_or_default()),
            "series" => {
                let spec = SeriesSpec {
                    name: "series_total",
                    kind: MetricKind::Counter,
                    labels: &[("plugin", &caller.plugin().name)],
                    help: "",
                    scale: 0.0,
                    buckets: &[],
                };
                return caller.series(&spec).map(|id| id.to_le_bytes().to_vec());
            }
            _ => return Err(Status::NotFound),
        }
        Ok(Vec::new())
    }

    fn log(&self, _: &PluginSpec, level: LogLevel, message: &str) {
        self.record(Event::Log(level, message.to_owned()));
    }

    fn failed(&self, _: &PluginSpec, error: &VmError) {
        self.record(Event::Failed(error.cause(), error.to_string()));
    }
}

/// A sending side that takes everything but the word "full".
struct FakeSender(Rc<RefCell<Vec<Sent>>>);

impl GrpcSender for FakeSender {
    fn send(&self, message: Option<Bytes>, last: bool) -> Result<(), GrpcSendError> {
        if message.as_deref() == Some(b"full") {
            return Err(GrpcSendError::Full);
        }
        self.0.borrow_mut().push(Some((message, last)));
        Ok(())
    }

    fn cancel(&self) {
        self.0.borrow_mut().push(Some((None, false)));
    }
}

impl Drop for FakeSender {
    fn drop(&mut self) {
        self.0.borrow_mut().push(None);
    }
}

/// A fake exchange.
pub(super) struct FakeExchange {
    http: RefCell<HttpStream>,
    host: Rc<FakeHost>,
}

impl FakeExchange {
    pub(super) fn http(&self) -> &RefCell<HttpStream> {
        &self.http
    }
}

impl Exchange for FakeExchange {
    fn http(&self) -> Option<&RefCell<HttpStream>> {
        Some(&self.http)
    }

    fn wake(&self) {
        self.host.record(Event::Wake);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A fake TCP connection.
pub(super) struct FakeConnection {
    pub(super) attributes: RefCell<Attributes>,
    host: Rc<FakeHost>,
}

impl Exchange for FakeConnection {
    fn tcp(&self) -> Option<&RefCell<Attributes>> {
        Some(&self.attributes)
    }

    fn wake(&self) {
        self.host.record(Event::Wake);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A worker with one puppet plugin.
pub(super) struct World {
    pub(super) host: Rc<FakeHost>,
    pub(super) vms: Vms,
    pub(super) shared: Arc<Shared>,
    /// Contexts do not keep their exchanges alive.
    exchanges: RefCell<Vec<Rc<FakeExchange>>>,
    connections: RefCell<Vec<Rc<FakeConnection>>>,
}

pub(super) fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(EngineOptions::default()).unwrap());
    &ENGINE
}

pub(super) fn compile(text: &str) -> Module {
    engine().compile("test", &wat::parse_str(text).unwrap()).unwrap()
}

pub(super) fn puppet_module() -> Module {
    static MODULE: LazyLock<Module> = LazyLock::new(|| compile(&puppet::text("0_2_1")));
    MODULE.clone()
}

pub(super) fn spec(configuration: &str) -> PluginSpec {
    let mut spec = PluginSpec::new("puppet", puppet_module(), configuration);
    spec.vm_configuration = b"of the vm".to_vec();
    spec.limits.memory = 4 << 20;
    spec
}

/// Whether a task was woken.
#[derive(Default)]
pub(super) struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Woken {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl World {
    pub(super) fn new() -> World {
        World::sharing(Shared::new())
    }

    pub(super) fn sharing(shared: Arc<Shared>) -> World {
        let host = Rc::new(FakeHost::default());
        let vms = Vms::new(engine().clone(), host.clone(), shared.clone());
        World { host, vms, shared, exchanges: RefCell::default(), connections: RefCell::default() }
    }

    pub(super) fn plugin(&self) -> Rc<Plugin> {
        let plugin = self.vms.plugin(Arc::new(spec("of the plugin"))).unwrap();
        self.take();
        plugin
    }

    /// What the puppet does the next time this callback is made.
    pub(super) fn script(&self, callback: &'static str, steps: Vec<Step>) {
        self.host.scripts.borrow_mut().entry(callback).or_default().push_back(steps);
    }

    /// What happened since the last time.
    pub(super) fn take(&self) -> Vec<Event> {
        self.host.events.take()
    }

    pub(super) fn statuses(&self) -> Vec<u32> {
        self.take()
            .into_iter()
            .filter_map(|event| if let Event::Status(s) = event { Some(s) } else { None })
            .collect()
    }

    /// Runs the worker's task for events once: when it is to run again, and whether it is woken later.
    pub(super) fn poll_events(&self) -> (Option<Duration>, Arc<Woken>) {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        match self.vms.poll_events(&mut Context::from_waker(&waker)) {
            Poll::Ready(rest) => (Some(rest), woken),
            Poll::Pending => (None, woken),
        }
    }

    pub(super) fn exchange(&self) -> Rc<FakeExchange> {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        headers.insert("x-empty", HeaderValue::from_static(""));
        let request = RequestHead {
            method: Method::GET,
            scheme: http::uri::Scheme::HTTP,
            authority: HeaderValue::from_static("example.com"),
            path: "/path?query=1".parse().unwrap(),
            version: Version::HTTP_2,
            headers,
        };
        let http = HttpStream::new(request, attributes());
        let exchange = Rc::new(FakeExchange { http: RefCell::new(http), host: self.host.clone() });
        self.exchanges.borrow_mut().push(exchange.clone());
        exchange
    }

    pub(super) fn connection(&self) -> Rc<FakeConnection> {
        let attributes = RefCell::new(attributes());
        let connection = Rc::new(FakeConnection { attributes, host: self.host.clone() });
        self.connections.borrow_mut().push(connection.clone());
        connection
    }

    /// What hostcalls did outside of their exchange, as text to compare.
    pub(super) fn effects(&self) -> String {
        let (calls, ticks) = (self.host.calls.borrow().len(), self.host.ticks.borrow().len());
        let (grpc, sent) = (self.host.grpc.borrow().len(), self.host.grpc_sent.borrow().len());
        let (data, queues) = (self.shared.data().namespace(""), self.shared.queues());
        let mut effects =
            format!("{calls} calls, {grpc} and {sent} of gRPC, {ticks} ticks, {data:?}, {queues:?}, ");
        self.shared.metrics().render(&mut effects);
        effects
    }

    /// As [`World::run`], and what was peeked at.
    pub(super) fn show(&self, steps: Vec<Step>) -> Vec<Vec<u8>> {
        self.script("proxy_on_request_headers", steps);
        let plugin = self.plugin();
        let stream = plugin.stream(self.exchange(), 0).unwrap();
        stream.on_request_headers(true).unwrap();
        let peeks = |event| if let Event::Peek(bytes) = event { Some(bytes) } else { None };
        self.take().into_iter().filter_map(peeks).collect()
    }

    /// Makes a stream, runs the steps in its request headers callback and returns the statuses of the hostcalls.
    pub(super) fn run(&self, steps: Vec<Step>) -> Vec<u32> {
        self.script("proxy_on_request_headers", steps);
        let plugin = self.plugin();
        let exchange = self.exchange();
        let stream = plugin.stream(exchange, 0).unwrap();
        stream.on_request_headers(true).unwrap();
        self.statuses()
    }
}

fn attributes() -> Attributes {
    let connection = Connection::cleartext(
        7,
        Address::Ip("192.0.2.1:1234".parse().unwrap()),
        Address::Ip("192.0.2.2:80".parse().unwrap()),
    );
    Attributes::new(Rc::new(connection))
}

/// A step that makes a hostcall.
pub(super) fn call<const N: usize>(name: &'static str, arguments: [u32; N]) -> Step {
    Step::Call(name, arguments.map(u64::from).to_vec(), Allocator::Sound)
}

/// Bytes put into scratch memory one after the other, for calls that take several.
#[derive(Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
}

impl Scratch {
    /// Address and size of these bytes.
    pub(super) fn put(&mut self, bytes: impl AsRef<[u8]>) -> (u32, u32) {
        let at = puppet::SCRATCH + self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes.as_ref());
        (at, bytes.as_ref().len() as u32)
    }

    pub(super) fn step(self) -> Step {
        Step::Write(puppet::SCRATCH, self.bytes)
    }
}

pub(super) fn response(status: u16) -> ResponseHead {
    ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new() }
}

pub(super) fn call_response(status: u16, body: &'static str) -> HttpCallResponse {
    HttpCallResponse { head: response(status), body: Bytes::from_static(body.as_bytes()), trailers: None }
}
