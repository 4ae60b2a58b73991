//! A guest written directly on the `proxy-wasm` crate, as filters for other hosts are. It does what its configuration
//! says, so that one module shows each thing an ABI user relies on; the same module runs in Envoy for comparison.
//!
//! The configuration is JSON; every key may be left out.
//!
//! | key | what it does |
//! |---|---|
//! | `request`, `response`, `request_trailers`, `response_trailers` | `{"remove": [name], "set": {name: value}, "add": {name: value}}`, in this order, on that map; for trailers in their own callback |
//! | `request_body`, `response_body` | `{"replace": text}`: waits for the whole body, then replaces it; `{"append": text}`: after the last chunk; `{"prepend": text}`: before the first; `{"uppercase": true}`: chunk by chunk. `content-length` is removed |
//! | `call` | `{"at": phase, "cluster": name, "path": path, "timeout_ms": n, "then": "resume" or "reply"}`: pauses in that phase for an HTTP call. Afterwards it resumes (and puts the call's status, or `failed`, into `x-call-status`, the body into `x-call-body`), or answers with the call's status and body. Phases: `request_headers`, `request_body`, `request_trailers`, `response_headers`, `response_body` |
//! | `reply` | `{"at": phase, "status": n, "body": text, "headers": {name: value}}`: answers in that phase. Phases as above, and `response_trailers`, `call` (the call's response) |
//! | `tick_ms` | counts ticks in the shared data `plain.ticks` and in the counter `plain_ticks`; every response gets both as `x-ticks: <shared data> <counter>` |
//! | `count` | increments the counter of that name with each request and puts its value into the response field `x-count` |
//! | `properties` | `{name: path}`, path segments separated by `/`: puts each property into the response field `name`, as text if it is printable, else as hex digits |
//! | `log` | writes that text at info level with each request, and `<text> done` when the exchange is over |
//! | `order` | appends that text to the request field `x-order` and, later, to the response field `x-order` |
//! | `refuse` | text: `on_configure` logs it and answers false |
#![allow(missing_docs, reason = "the entry that `proxy_wasm::main!` writes has none")]

mod actions;
mod config;

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MapType, MetricType};

use crate::config::{Call, Config, Phase, Then};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

const TICKS: &str = "plain.ticks";

#[derive(Default)]
struct Root {
    config: Rc<Config>,
    /// Ids of the counters `plain_ticks` and `Config::count`.
    tick_counter: Option<u32>,
    request_counter: Option<u32>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        let json = if bytes.is_empty() { b"{}" } else { bytes.as_slice() };
        let config: Config = match serde_json::from_slice(json) {
            Ok(config) => config,
            Err(error) => {
                let _ = hostcalls::log(LogLevel::Error, &format!("plain: {error}"));
                return false;
            }
        };
        if let Some(reason) = &config.refuse {
            let _ = hostcalls::log(LogLevel::Error, reason);
            return false;
        }
        if config.tick_ms > 0 {
            self.set_tick_period(Duration::from_millis(config.tick_ms));
            self.tick_counter = hostcalls::define_metric(MetricType::Counter, "plain_ticks").ok();
        }
        if let Some(name) = &config.count {
            self.request_counter = hostcalls::define_metric(MetricType::Counter, name).ok();
        }
        self.config = Rc::new(config);
        true
    }

    fn on_tick(&mut self) {
        if let Some(counter) = self.tick_counter {
            let _ = hostcalls::increment_metric(counter, 1);
        }
        // Several workers count in the same place: try again when another one was quicker.
        loop {
            let (value, cas) = self.get_shared_data(TICKS);
            let ticks = value.as_deref().map_or(0, actions::number) + 1;
            if self.set_shared_data(TICKS, Some(ticks.to_string().as_bytes()), cas).is_ok() {
                break;
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            config: self.config.clone(),
            tick_counter: self.tick_counter,
            request_counter: self.request_counter,
            calling: None,
            called: false,
            call_status: None,
            body_started: [false; 2],
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    config: Rc<Config>,
    tick_counter: Option<u32>,
    request_counter: Option<u32>,
    /// The phase that waits for a call.
    calling: Option<Phase>,
    called: bool,
    /// The call's status and body, for the response fields.
    call_status: Option<(String, String)>,
    /// Whether a part of the request's and of the response's body was seen.
    body_started: [bool; 2],
}

impl Stream {
    /// Answers or calls if the configuration says so for this phase. `None`: go on.
    fn interrupt(&mut self, phase: Phase) -> Option<Action> {
        // The end of a body may come as a chunk of its own, while the call for an earlier one is still out.
        if self.calling == Some(phase) {
            return Some(Action::Pause);
        }
        if let Some(reply) = self.config.reply.as_ref().filter(|reply| reply.at == phase) {
            reply.send();
            return Some(Action::Pause);
        }
        let config = self.config.clone();
        let call = config.call.as_ref().filter(|call| call.at == phase && !self.called)?;
        self.called = true;
        match self.start(call) {
            Ok(()) => {
                self.calling = Some(phase);
                Some(Action::Pause)
            }
            Err(status) => {
                self.note_call(phase, format!("refused {}", status as u32), String::new());
                None
            }
        }
    }

    fn start(&self, call: &Call) -> Result<(), proxy_wasm::types::Status> {
        let headers =
            vec![(":method", "GET"), (":path", call.path.as_str()), (":authority", "called.example")];
        let timeout = Duration::from_millis(call.timeout_ms.unwrap_or(1000));
        self.dispatch_http_call(&call.cluster, headers, None, vec![], timeout).map(|_| ())
    }

    /// Puts the call's result where the next side can see it: on the request, if that has not left yet, and on the response.
    fn note_call(&mut self, phase: Phase, status: String, body: String) {
        let map = match phase {
            Phase::RequestHeaders => Some(MapType::HttpRequestHeaders),
            Phase::ResponseHeaders => Some(MapType::HttpResponseHeaders),
            _ => None,
        };
        if let Some(map) = map {
            let _ = hostcalls::set_map_value(map, "x-call-status", Some(&status));
            let _ = hostcalls::set_map_value(map, "x-call-body", Some(&body));
        }
        self.call_status = Some((status, body));
    }

    fn body(&mut self, is_response: bool, size: usize, is_last: bool) -> Action {
        let config = self.config.clone();
        let edit = if is_response { &config.response_body } else { &config.request_body };
        let is_first = !std::mem::replace(&mut self.body_started[usize::from(is_response)], true);
        if let Some(edit) = edit
            && edit.apply(is_response, size, is_first, is_last) == Action::Pause
        {
            return Action::Pause;
        }
        let phase = if is_response { Phase::ResponseBody } else { Phase::RequestBody };
        self.interrupt(phase).unwrap_or(Action::Continue)
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, num_headers: usize, body_size: usize, _: usize) {
        let Some(phase) = self.calling.take() else { return };
        if let Some(reply) = self.config.reply.as_ref().filter(|reply| reply.at == Phase::Call) {
            reply.send();
            return;
        }
        let status = self.get_http_call_response_header(":status").filter(|_| num_headers > 0);
        let body = self.get_http_call_response_body(0, body_size).unwrap_or_default();
        let then = self.config.call.as_ref().map_or(Then::Resume, |call| call.then);
        if then == Then::Reply {
            let code = status.as_deref().map_or(502, |status| actions::number(status.as_bytes()));
            let headers = vec![("x-from", "call")];
            self.send_http_response(u32::try_from(code).unwrap_or(502), headers, Some(&body));
            return;
        }
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        self.note_call(phase, status.unwrap_or_else(|| "failed".to_owned()), text);
        match phase {
            Phase::RequestHeaders | Phase::RequestBody | Phase::RequestTrailers => self.resume_http_request(),
            _ => self.resume_http_response(),
        }
    }

    fn on_done(&mut self) -> bool {
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if let Some(text) = &self.config.log {
            let _ = hostcalls::log(LogLevel::Info, text);
        }
        if let Some(counter) = self.request_counter {
            let _ = hostcalls::increment_metric(counter, 1);
        }
        if let Some(text) = &self.config.order {
            actions::append(MapType::HttpRequestHeaders, "x-order", text);
        }
        self.config.request.apply(MapType::HttpRequestHeaders);
        if self.config.request_body.is_some() {
            self.set_http_request_header("content-length", None);
        }
        self.interrupt(Phase::RequestHeaders).unwrap_or(Action::Continue)
    }

    fn on_http_request_body(&mut self, size: usize, is_last: bool) -> Action {
        self.body(false, size, is_last)
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.config.request_trailers.apply(MapType::HttpRequestTrailers);
        self.interrupt(Phase::RequestTrailers).unwrap_or(Action::Continue)
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if let Some(text) = &self.config.order {
            actions::append(MapType::HttpResponseHeaders, "x-order", text);
        }
        self.config.response.apply(MapType::HttpResponseHeaders);
        if self.config.response_body.is_some() {
            self.set_http_response_header("content-length", None);
        }
        if let Some((status, body)) = &self.call_status {
            self.set_http_response_header("x-call-status", Some(status));
            self.set_http_response_header("x-call-body", Some(body));
        }
        if let Some(counter) = self.tick_counter {
            let shared = self.get_shared_data(TICKS).0.as_deref().map_or(0, actions::number);
            let counted = hostcalls::get_metric(counter).unwrap_or_default();
            self.set_http_response_header("x-ticks", Some(&format!("{shared} {counted}")));
        }
        if let Some(counter) = self.request_counter {
            let counted = hostcalls::get_metric(counter).unwrap_or_default();
            self.set_http_response_header("x-count", Some(&counted.to_string()));
        }
        for (name, path) in &self.config.properties {
            let value = self.get_property(path.split('/').collect());
            self.set_http_response_header(name, Some(&actions::shown(value.as_deref())));
        }
        self.interrupt(Phase::ResponseHeaders).unwrap_or(Action::Continue)
    }

    fn on_http_response_body(&mut self, size: usize, is_last: bool) -> Action {
        self.body(true, size, is_last)
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.config.response_trailers.apply(MapType::HttpResponseTrailers);
        self.interrupt(Phase::ResponseTrailers).unwrap_or(Action::Continue)
    }

    fn on_log(&mut self) {
        if let Some(text) = &self.config.log {
            let _ = hostcalls::log(LogLevel::Info, &format!("{text} done"));
        }
    }
}
