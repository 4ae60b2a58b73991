//! A guest that makes a gRPC call or opens a stream for each request, written directly on the `proxy-wasm` crate; the same
//! module runs in Envoy for comparison. It pauses the request until the call is over, and puts what happened, event by
//! event, into the request field and the response field `x-grpc`.
//!
//! The configuration is JSON; every key may be left out.
//!
//! | key | what it does |
//! |---|---|
//! | `cluster` | where to; by default `grpc` |
//! | `as_message` | says it as Envoy's `GrpcService`, with the authority `grpc.example` and the metadata `x-service: 1` |
//! | `method` | a method of the service `test.Echo` |
//! | `stream` | a stream; without it, a call |
//! | `send` | the messages to be sent; a call sends the first one |
//! | `lockstep` | each message but the first is sent when one has come |
//! | `then` | what follows the last message: `end` (with it), `close`, `nothing`; by default `end` |
//! | `cancel` | cancels at the first event of this name: `start`, `initial`, `message`, `trailing` |
//! | `timeout_ms` | a call's |
//! | `metadata` | `{name: value}` |
//! | `again` | tries everything once more about an id that is over, and shows what that answers |
#![allow(missing_docs, reason = "the entry that `proxy_wasm::main!` writes has none")]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use serde::Deserialize;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    cluster: Option<String>,
    as_message: bool,
    method: String,
    stream: bool,
    send: Vec<String>,
    lockstep: bool,
    then: Then,
    cancel: Option<String>,
    timeout_ms: u64,
    metadata: BTreeMap<String, String>,
    again: bool,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Then {
    #[default]
    End,
    Close,
    Nothing,
}

#[derive(Default)]
struct Root {
    config: Rc<Config>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        match serde_json::from_slice(&bytes) {
            Ok(config) => {
                self.config = Rc::new(config);
                true
            }
            Err(error) => {
                let _ = hostcalls::log(LogLevel::Error, &format!("grpc: {error}"));
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { config: self.config.clone(), ..Stream::default() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

#[derive(Default)]
struct Stream {
    config: Rc<Config>,
    id: Option<u32>,
    sent: usize,
    events: Vec<String>,
}

impl Config {
    fn upstream(&self) -> String {
        let cluster = self.cluster.as_deref().unwrap_or("grpc");
        if !self.as_message {
            return cluster.to_owned();
        }
        let delimited = |tag: u8, content: &str| {
            let length = u8::try_from(content.len()).unwrap_or_default();
            format!("{}{}{content}", char::from(tag), char::from(length))
        };
        let envoy_grpc = delimited(0x0a, cluster) + &delimited(0x12, "grpc.example");
        let metadata = delimited(0x0a, "x-service") + &delimited(0x12, "1");
        delimited(0x0a, &envoy_grpc) + &delimited(0x2a, &metadata)
    }
}

impl Stream {
    fn open(&self) -> Result<u32, proxy_wasm::types::Status> {
        let config = &self.config;
        let upstream = config.upstream();
        let metadata: Vec<(&str, &[u8])> =
            config.metadata.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        if config.stream {
            return self.open_grpc_stream(&upstream, "test.Echo", &config.method, metadata);
        }
        let message = config.send.first().map(String::as_bytes);
        let timeout = Duration::from_millis(config.timeout_ms);
        self.dispatch_grpc_call(&upstream, "test.Echo", &config.method, metadata, message, timeout)
    }

    /// Sends the next message, or all of them.
    fn send(&mut self, id: u32) {
        let config = self.config.clone();
        while let Some(message) = config.send.get(self.sent) {
            self.sent += 1;
            let last = self.sent == config.send.len();
            self.send_grpc_stream_message(id, Some(message.as_bytes()), last && config.then == Then::End);
            if last && config.then == Then::Close {
                self.close_grpc_stream(id);
            }
            if config.lockstep {
                return;
            }
        }
    }

    /// Notes an event; true if everything was cancelled at it.
    fn note(&mut self, name: &str, text: &str) -> bool {
        self.events.push(format!("{name}({text})"));
        let cancelled = self.config.cancel.as_deref() == Some(name);
        if cancelled && let Some(id) = self.id {
            if self.config.stream {
                self.cancel_grpc_stream(id);
            } else {
                self.cancel_grpc_call(id);
            }
            self.finish("cancelled");
        }
        cancelled
    }

    fn finish(&mut self, last: &str) {
        self.events.push(last.to_owned());
        if self.config.again
            && let Some(id) = self.id
        {
            let answers = [
                hostcalls::send_grpc_stream_message(id, None, false).is_ok(),
                hostcalls::close_grpc_stream(id).is_ok(),
                hostcalls::cancel_grpc_stream(id).is_ok(),
            ];
            self.events.push(format!("again{answers:?}"));
        }
        self.tell();
        self.resume_http_request();
    }

    fn tell(&self) {
        self.set_http_request_header("x-grpc", Some(&self.events.join("; ")));
    }

    fn status(&self, code: u32) -> String {
        let (same, message) = self.get_grpc_status();
        let message = message.unwrap_or_default();
        if same == code { format!("close({code} {message})") } else { format!("close({code}, but {same})") }
    }
}

fn shown(value: Option<Vec<u8>>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())
}

impl Context for Stream {
    fn on_grpc_call_response(&mut self, id: u32, code: u32, size: usize) {
        if self.id != Some(id) {
            return self.finish("a stranger's call");
        }
        if code != 0 {
            let status = self.status(code);
            return self.finish(&status);
        }
        let message = shown(self.get_grpc_call_response_body(0, size));
        self.finish(&format!("message({message})"));
    }

    fn on_grpc_stream_initial_metadata(&mut self, _: u32, count: u32) {
        let value = |name| shown(self.get_grpc_stream_initial_metadata_value(name));
        let text = format!("{} {} {}", count > 0, value(":status"), value("x-initial"));
        self.note("initial", &text);
    }

    fn on_grpc_stream_message(&mut self, id: u32, size: usize) {
        let message = shown(self.get_grpc_stream_message(0, size));
        if !self.note("message", &message) && self.config.lockstep {
            self.send(id);
        }
    }

    fn on_grpc_stream_trailing_metadata(&mut self, _: u32, count: u32) {
        let value = |name| shown(self.get_grpc_stream_trailing_metadata_value(name));
        let text = format!("{} {} {}", count > 0, value("grpc-status"), value("x-trailing"));
        self.note("trailing", &text);
    }

    fn on_grpc_stream_close(&mut self, _: u32, code: u32) {
        let status = self.status(code);
        self.finish(&status);
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        match self.open() {
            Ok(id) => {
                self.id = Some(id);
                if !self.note("start", "") && self.config.stream {
                    self.send(id);
                }
                Action::Pause
            }
            Err(status) => {
                self.events.push(format!("refused({})", status as u32));
                self.tell();
                Action::Continue
            }
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_header("x-grpc", Some(&self.events.join("; ")));
        Action::Continue
    }
}
