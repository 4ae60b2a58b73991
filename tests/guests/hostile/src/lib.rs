//! A guest that does harm, in the callback that its configuration names.
//!
//! The configuration is JSON.
//!
//! | key | value |
//! |---|---|
//! | `mode` | `loop` (never returns), `trap` (executes `unreachable`), `grow` (allocates memory until it gets none, then loops), `recurse` (never ends a recursion), `exit` (calls WASI's `proc_exit(7)`), `panic` (a Rust panic), `none` |
//! | `where` | `vm_start`, `configure`, `tick`, `request_headers`, `request_body`, `request_trailers`, `http_call_response`, `response_headers`, `response_body`, `response_trailers`, `done`, `log` |
//! | `call` | for `http_call_response`: the cluster that is called (`GET /`) from `request_headers`, which waits for it |
//!
//! In callbacks of an exchange it does harm only if the request carries `x-attack: 1`; other requests pass through and get
//! the response field `x-hostile: passed`. `tick` and the call back of a call do harm once the first such request came.
//!
//! `vm_start` has no plugin configuration: it does harm if the VM configuration (or, on hosts without one, the plugin
//! configuration read in `vm_start`) says so.
#![allow(missing_docs, reason = "the entry that `proxy_wasm::main!` writes has none")]

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel};
use serde::Deserialize;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Loop,
    Trap,
    Grow,
    Recurse,
    Exit,
    Panic,
    #[default]
    None,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Place {
    VmStart,
    Configure,
    Tick,
    #[default]
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    HttpCallResponse,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    Done,
    Log,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    mode: Mode,
    r#where: Place,
    call: Option<String>,
}

impl Config {
    fn read(buffer: BufferType) -> Option<Self> {
        let bytes = hostcalls::get_buffer(buffer, 0, usize::MAX).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    fn reach(&self, place: Place) {
        if self.r#where == place {
            self.mode.harm();
        }
    }
}

impl Mode {
    #[allow(clippy::panic, reason = "it is what this guest is for")]
    fn harm(self) {
        match self {
            Self::Loop => spin(),
            Self::Trap => trap(),
            Self::Grow => grow(),
            Self::Recurse => {
                black_box(recurse(black_box(1)));
            }
            Self::Exit => exit(),
            Self::Panic => panic!("a hostile guest panics"),
            Self::None => {}
        }
    }
}

fn spin() {
    let mut turns: u64 = 0;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

#[cfg(target_arch = "wasm32")]
fn trap() {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() {
    std::process::abort()
}

/// Allocates until there is no more, and keeps it.
fn grow() {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    let mut size = 1 << 20;
    loop {
        let mut block: Vec<u8> = Vec::new();
        if block.try_reserve_exact(size).is_ok() {
            block.resize(size, 1);
            hoard.push(black_box(block));
        } else if size > 1 {
            size /= 2;
        } else {
            spin();
        }
    }
}

#[allow(unconditional_recursion, reason = "it is what this guest is for")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    recurse(black_box(depth + 1)) + frame[15]
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "an import; it does not return")]
fn exit() {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn proc_exit(code: u32) -> !;
    }
    // SAFETY: no pointers.
    unsafe { proc_exit(7) }
}

#[cfg(not(target_arch = "wasm32"))]
fn exit() {
    std::process::exit(7)
}

#[derive(Default)]
struct Root {
    config: Rc<Config>,
    attacked: Rc<Cell<bool>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_vm_start(&mut self, _: usize) -> bool {
        let config = Config::read(BufferType::VmConfiguration)
            .or_else(|| Config::read(BufferType::PluginConfiguration))
            .unwrap_or_default();
        config.reach(Place::VmStart);
        true
    }

    fn on_configure(&mut self, size: usize) -> bool {
        if size == 0 {
            return true;
        }
        let Some(config) = Config::read(BufferType::PluginConfiguration) else { return false };
        config.reach(Place::Configure);
        if config.r#where == Place::Tick {
            self.set_tick_period(Duration::from_millis(10));
        }
        self.config = Rc::new(config);
        true
    }

    fn on_tick(&mut self) {
        if self.attacked.get() {
            self.config.reach(Place::Tick);
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            config: self.config.clone(),
            attacked: self.attacked.clone(),
            attacks: false,
            waits: RefCell::new(false),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    config: Rc<Config>,
    attacked: Rc<Cell<bool>>,
    /// Whether this exchange's request asked for it.
    attacks: bool,
    waits: RefCell<bool>,
}

impl Stream {
    fn reach(&self, place: Place) {
        if self.attacks {
            self.config.reach(place);
        }
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
        self.reach(Place::HttpCallResponse);
        if self.waits.replace(false) {
            self.resume_http_request();
        }
    }

    fn on_done(&mut self) -> bool {
        self.reach(Place::Done);
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.attacks = self.get_http_request_header("x-attack").is_some_and(|value| value == "1");
        if self.attacks {
            self.attacked.set(true);
        }
        self.reach(Place::RequestHeaders);
        if let Some(cluster) = &self.config.call {
            let headers = vec![(":method", "GET"), (":path", "/"), (":authority", "called.example")];
            if self.dispatch_http_call(cluster, headers, None, vec![], Duration::from_secs(1)).is_ok() {
                self.waits.replace(true);
                return Action::Pause;
            }
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        self.reach(Place::RequestBody);
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.reach(Place::RequestTrailers);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.reach(Place::ResponseHeaders);
        self.set_http_response_header("x-hostile", Some("passed"));
        Action::Continue
    }

    fn on_http_response_body(&mut self, _: usize, _: bool) -> Action {
        self.reach(Place::ResponseBody);
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.reach(Place::ResponseTrailers);
        Action::Continue
    }

    fn on_log(&mut self) {
        self.reach(Place::Log);
    }
}
