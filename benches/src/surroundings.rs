//! A worker's surroundings without a proxy: a host that does nothing, and an exchange with usual heads.

use std::any::Any;
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use meshgate_wasm::{
    Attributes, CallError, Connection, Engine, EngineOptions, Exchange, ForeignCaller, Host, HttpCall,
    HttpCallReply, HttpStream, LogLevel, Module, Plugin, PluginSpec, RequestHead, ResponseHead, Shared,
    Status, TickHandle, VmError, Vms,
};

/// One worker's VMs.
pub struct Surroundings {
    /// The engine.
    pub engine: Engine,
    /// The worker's VMs.
    pub vms: Vms,
}

impl Surroundings {
    /// An engine without a cache, and a worker.
    pub fn new() -> Self {
        let engine = Engine::new(EngineOptions::default()).expect("the engine starts");
        let vms = Vms::new(engine.clone(), Rc::new(Bystander), Shared::new());
        Self { engine, vms }
    }

    /// Compiles a guest.
    pub fn module(&self, bytes: &[u8]) -> Module {
        self.engine.compile("bench", bytes).expect("the module compiles")
    }

    /// Starts a plugin of `module`; equal names give the same one.
    pub fn plugin(&self, name: &str, module: &Module, configuration: &str) -> Rc<Plugin> {
        self.vms.plugin(Self::spec(name, module, configuration)).expect("the plugin starts")
    }

    /// What [`Surroundings::plugin`] starts.
    pub fn spec(name: &str, module: &Module, configuration: &str) -> Arc<PluginSpec> {
        let mut spec = PluginSpec::new(name, module.clone(), configuration);
        // Benches make calls in bulk, and a machine may take the core away meanwhile: no limit is to be met.
        spec.limits.time = Duration::from_secs(10);
        spec.limits.copied = u64::MAX;
        spec.limits.log_lines = u32::MAX;
        spec.limits.cpu_percent = 100;
        Arc::new(spec)
    }
}

impl Default for Surroundings {
    fn default() -> Self {
        Self::new()
    }
}

/// A host that offers nothing and takes log lines without looking at them.
pub struct Bystander;

impl Host for Bystander {
    fn http_call(&self, _: &PluginSpec, _: HttpCall, _: HttpCallReply) -> Result<(), CallError> {
        Err(CallError::UnknownCluster)
    }

    fn tick(&self, _: TickHandle, _: Option<Duration>) {}

    fn foreign_function(&self, _: &mut ForeignCaller<'_>, _: &str, _: &[u8]) -> Result<Vec<u8>, Status> {
        Err(Status::NotFound)
    }

    fn log(&self, _: &PluginSpec, _: LogLevel, _: &str) {}

    fn failed(&self, _: &PluginSpec, _: &VmError) {}
}

struct Still {
    http: RefCell<HttpStream>,
}

impl Exchange for Still {
    fn http(&self) -> Option<&RefCell<HttpStream>> {
        Some(&self.http)
    }

    fn wake(&self) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An exchange with the heads of a small request and its response.
pub fn exchange() -> Rc<dyn Exchange> {
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000));
    let listener = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let request = RequestHead {
        method: Method::GET,
        scheme: Scheme::HTTP,
        authority: HeaderValue::from_static("shop.example"),
        path: PathAndQuery::from_static("/reviews/42?page=2"),
        version: Version::HTTP_11,
        headers: fields(&[
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            ("accept-language", "en-US,en;q=0.5"),
            ("accept-encoding", "gzip, deflate, br, zstd"),
            ("cookie", "session=1f3c0b2a9d; theme=dark"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "0191b2c4-7d1e-7e0a-8f11-5a6b7c8d9e0f"),
        ]),
    };
    let mut stream =
        HttpStream::new(request, Attributes::new(Rc::new(Connection::cleartext(1, client, listener))));
    stream.response = Some(ResponseHead {
        status: StatusCode::OK,
        headers: fields(&[
            ("content-type", "application/json"),
            ("content-length", "128"),
            ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ]),
    });
    stream.attributes.cluster = Some("reviews".into());
    Rc::new(Still { http: RefCell::new(stream) })
}

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}
