//! What the scenario's guests do, whatever they are written in. The configuration is the name of a cluster.
//!
//! | when | what |
//! |---|---|
//! | configured | defines the counter `scenario_requests`, asks for ticks every 10 ms |
//! | tick | counts in the shared data `scenario.ticks`, as decimal digits, by compare and set |
//! | request | counts; removes `x-remove` and `content-length`, sets `x-set: new`, adds `x-add: second` |
//! | request to `/deny…` | answers 403 `denied` with `x-denied: yes` |
//! | request to `/call…` | calls the cluster (`GET /check`), waits, and sets `x-call: <status> <body>` |
//! | request body | waits for all of it and sends it on in upper case |
//! | response | removes `content-length`, sets `x-scenario: done`, `x-path` (the property `request.path`, as it was when the request came), `x-ticks: yes` once there was a tick, `x-count` (the counter's value) |
//! | response body | appends ` [seen]` |
//! | log | logs `scenario over <response.code> done` |

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType};

use crate::headers_callback;

const TICKS: &str = "scenario.ticks";
const END: &[u8] = b" [seen]";

#[derive(Default)]
pub(crate) struct Root {
    cluster: Rc<str>,
    counter: u32,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let Some(cluster) = crate::configuration(self).and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return false;
        };
        self.cluster = cluster.into();
        self.set_tick_period(Duration::from_millis(10));
        let counter = hostcalls::define_metric(MetricType::Counter, "scenario_requests");
        self.counter = counter.unwrap_or_default();
        counter.is_ok()
    }

    fn on_tick(&mut self) {
        loop {
            let (value, cas) = self.get_shared_data(TICKS);
            let ticks =
                value.and_then(|value| String::from_utf8(value).ok()?.parse().ok()).unwrap_or(0_u64) + 1;
            if self.set_shared_data(TICKS, Some(ticks.to_string().as_bytes()), cas).is_ok() {
                return;
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            cluster: Rc::clone(&self.cluster),
            counter: self.counter,
            path: String::new(),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    cluster: Rc<str>,
    counter: u32,
    path: String,
}

impl Stream {
    fn request(&mut self) -> Action {
        let _ = hostcalls::increment_metric(self.counter, 1);
        self.set_http_request_header("x-remove", None);
        self.set_http_request_header("content-length", None);
        self.set_http_request_header("x-set", Some("new"));
        self.add_http_request_header("x-add", "second");
        let path = self.get_property(vec!["request", "path"]).unwrap_or_default();
        self.path = String::from_utf8_lossy(&path).into_owned();
        if self.path.starts_with("/deny") {
            self.send_http_response(403, vec![("x-denied", "yes")], Some(b"denied"));
            return Action::Pause;
        }
        if self.path.starts_with("/call") {
            let head = vec![(":method", "GET"), (":path", "/check"), (":authority", "called.example")];
            let called = self.dispatch_http_call(&self.cluster, head, None, vec![], Duration::from_secs(5));
            return if called.is_ok() { Action::Pause } else { Action::Continue };
        }
        Action::Continue
    }

    fn response(&mut self) -> Action {
        self.set_http_response_header("content-length", None);
        self.set_http_response_header("x-scenario", Some("done"));
        self.set_http_response_header("x-path", Some(&self.path));
        let ticked = self.get_shared_data(TICKS).0.is_some();
        self.set_http_response_header("x-ticks", Some(if ticked { "yes" } else { "no" }));
        let count = hostcalls::get_metric(self.counter).unwrap_or_default().to_string();
        self.set_http_response_header("x-count", Some(&count));
        Action::Continue
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, _: usize, size: usize, _: usize) {
        let status = self.get_http_call_response_header(":status").unwrap_or_default();
        let body = self.get_http_call_response_body(0, size).unwrap_or_default();
        let shown = format!("{status} {}", String::from_utf8_lossy(&body));
        self.set_http_request_header("x-call", Some(&shown));
        self.resume_http_request();
    }
}

impl HttpContext for Stream {
    headers_callback!(on_http_request_headers, request);
    headers_callback!(on_http_response_headers, response);

    fn on_http_request_body(&mut self, size: usize, is_last: bool) -> Action {
        if !is_last {
            return Action::Pause;
        }
        if let Some(body) = self.get_http_request_body(0, size) {
            self.set_http_request_body(0, size, &body.to_ascii_uppercase());
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, is_last: bool) -> Action {
        if is_last {
            self.set_http_response_body(size, 0, END);
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let code = self.get_property(vec!["response", "code"]);
        let code = code.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        let line = format!("scenario over {} done", code.unwrap_or_default());
        let _ = hostcalls::log(LogLevel::Info, &line);
    }
}
