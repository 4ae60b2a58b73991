//! A TCP filter written directly on the `proxy-wasm` crate, as filters for other hosts are. It logs each of its callbacks
//! and does what its configuration says; the same module runs in Envoy for comparison.
//!
//! The configuration is JSON; every key may be left out. Phases: `new_connection`, `downstream_data`, `upstream_data`,
//! `downstream_close`, `upstream_close`, `call` (the call's response), `done`, `log`.
//!
//! | key | what it does |
//! |---|---|
//! | `name` | stands in the log lines: `<name>: <callback> <parameters>`; without it nothing is logged |
//! | `downstream`, `upstream` | `{"uppercase": true, "prepend": text, "append": text, "double": true, "swallow": true, "hold": n}`: what is done to the data of that side: upper case, text before the first and after the last byte, every chunk twice, nothing passed on; `hold` pauses until `n` bytes are there, or the end |
//! | `call` | `{"at": phase, "cluster": name, "path": path}`: pauses in that phase, once, for an HTTP call; resumes if its status is 200, else closes |
//! | `close` | `{"at": phase, "side": "downstream" or "upstream"}`: closes that side in that phase |
//! | `pause` | phase: pauses there, always, and never resumes |
//! | `trap` | phase: traps there |
//! | `cluster` | chooses this cluster for every new connection, by `meshgate.route` |
//! | `by_first_byte` | `{letter: cluster}`: chooses by the first byte |
//! | `log` | sets the flag `DO` for every new connection, and adds the field `tcp.word` with this value, by `meshgate.log` |
//! | `properties` | paths, segments separated by `/`: their values are logged with `log`, numbers as such |
#![allow(missing_docs, reason = "the entry that `proxy_wasm::main!` writes has none")]

mod config;

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, RootContext, StreamContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, PeerType};

use crate::config::{Config, Edit, Phase, Side};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Root {
    config: Rc<Config>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        let json = if bytes.is_empty() { b"{}" } else { bytes.as_slice() };
        match serde_json::from_slice(json) {
            Ok(config) => {
                self.config = Rc::new(config);
                true
            }
            Err(error) => {
                let _ = hostcalls::log(LogLevel::Error, &format!("tcp: {error}"));
                false
            }
        }
    }

    fn create_stream_context(&self, _: u32) -> Option<Box<dyn StreamContext>> {
        let config = self.config.clone();
        Some(Box::new(Stream { config, calling: None, called: false, routed: false, begun: [false; 2] }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::StreamContext)
    }
}

struct Stream {
    config: Rc<Config>,
    /// The phase that waits for a call.
    calling: Option<Phase>,
    called: bool,
    /// A cluster was chosen by the first byte.
    routed: bool,
    /// Whether something was passed on of what the client sent, and of what the endpoint sent.
    begun: [bool; 2],
}

impl Stream {
    fn say(&self, what: &str) {
        if let Some(name) = &self.config.name {
            let _ = hostcalls::log(LogLevel::Info, &format!("{name}: {what}"));
        }
    }

    /// Does what the configuration says for this phase. `true`: the callback is to pause.
    fn interrupt(&mut self, phase: Phase) -> bool {
        let config = self.config.clone();
        assert!(config.trap != Some(phase), "as configured");
        if let Some(close) = config.close.as_ref().filter(|close| close.at == phase) {
            match close.side {
                Side::Downstream => self.close_downstream(),
                Side::Upstream => self.close_upstream(),
            }
        }
        if let Some(call) = config.call.as_ref().filter(|call| call.at == phase && !self.called) {
            self.called = true;
            let headers =
                vec![(":method", "GET"), (":path", call.path.as_str()), (":authority", "called.example")];
            match self.dispatch_http_call(&call.cluster, headers, None, vec![], Duration::from_secs(5)) {
                Ok(_) => {
                    self.calling = Some(phase);
                    return true;
                }
                Err(status) => self.say(&format!("call refused {}", status as u32)),
            }
        }
        config.pause == Some(phase)
    }

    fn data(&mut self, side: Side, size: usize, is_last: bool) -> Action {
        let config = self.config.clone();
        let (phase, edit, buffer) = match side {
            Side::Downstream => (Phase::DownstreamData, &config.downstream, BufferType::DownstreamData),
            Side::Upstream => (Phase::UpstreamData, &config.upstream, BufferType::UpstreamData),
        };
        // What comes while a call is under way waits for its end.
        let waits = match self.calling {
            Some(Phase::UpstreamData) => side == Side::Upstream,
            Some(_) => side == Side::Downstream,
            None => false,
        };
        if waits || self.interrupt(phase) {
            return Action::Pause;
        }
        if side == Side::Downstream && !self.config.by_first_byte.is_empty() && !self.routed {
            let first = hostcalls::get_buffer(buffer, 0, 1).ok().flatten().unwrap_or_default();
            if let Some(cluster) = config.by_first_byte.get(&*String::from_utf8_lossy(&first)) {
                self.choose(cluster);
            }
            self.routed = true;
        }
        if size < edit.hold && !is_last {
            return Action::Pause;
        }
        let is_first = !std::mem::replace(&mut self.begun[side as usize], true);
        edit.apply(buffer, size, is_first, is_last);
        Action::Continue
    }

    /// As Protocol Buffers have it: field 2, a string.
    fn choose(&self, cluster: &str) {
        let mut decision = vec![0x12, u8::try_from(cluster.len()).unwrap_or(0)];
        decision.extend(cluster.as_bytes());
        if let Err(status) = hostcalls::call_foreign_function("meshgate.route", Some(&decision)) {
            self.say(&format!("route refused {}", status as u32));
        }
    }

    /// As Protocol Buffers have it: field 1 with the flag, field 2 with a message of name and value.
    fn note(&self, word: &str) {
        let field =
            [b"\x0a\x08tcp.word\x12", &[u8::try_from(word.len()).unwrap_or(0)][..], word.as_bytes()].concat();
        let entry = [b"\x0a\x02DO\x12", &[u8::try_from(field.len()).unwrap_or(0)][..], &field].concat();
        if let Err(status) = hostcalls::call_foreign_function("meshgate.log", Some(&entry)) {
            self.say(&format!("log refused {}", status as u32));
        }
    }

    fn property(&self, path: &str) -> String {
        let value = hostcalls::get_property(path.split('/').collect()).ok().flatten();
        match value {
            None => "none".to_owned(),
            Some(bytes) => match <[u8; 8]>::try_from(&bytes[..]) {
                Ok(number) => u64::from_le_bytes(number).to_string(),
                Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
            },
        }
    }
}

impl Edit {
    fn apply(&self, buffer: BufferType, size: usize, is_first: bool, is_last: bool) {
        let set = |start, length, bytes: &[u8]| {
            let _ = hostcalls::set_buffer(buffer, start, length, bytes);
        };
        if (self.uppercase || self.double) && size > 0 {
            let mut bytes = hostcalls::get_buffer(buffer, 0, size).ok().flatten().unwrap_or_default();
            if self.uppercase {
                bytes.make_ascii_uppercase();
            }
            if self.double {
                bytes.extend_from_within(..);
            }
            set(0, size, &bytes);
        }
        if self.swallow {
            set(0, usize::MAX, b"");
        }
        if let Some(text) = self.prepend.as_ref().filter(|_| is_first) {
            set(0, 0, text.as_bytes());
        }
        if let Some(text) = self.append.as_ref().filter(|_| is_last) {
            set(usize::MAX, 0, text.as_bytes());
        }
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
        let status = self.get_http_call_response_header(":status");
        self.say(&format!("call {}", status.as_deref().unwrap_or("failed")));
        let phase = self.calling.take();
        self.interrupt(Phase::Call);
        match (status.as_deref(), phase) {
            (Some("200"), Some(Phase::UpstreamData)) => self.resume_upstream(),
            (Some("200"), _) => self.resume_downstream(),
            _ => self.close_downstream(),
        }
    }

    fn on_done(&mut self) -> bool {
        self.say("done");
        self.interrupt(Phase::Done);
        true
    }
}

impl StreamContext for Stream {
    fn on_new_connection(&mut self) -> Action {
        self.say("new_connection");
        if let Some(cluster) = &self.config.cluster {
            self.choose(cluster);
        }
        if let Some(word) = &self.config.log {
            self.note(word);
        }
        if self.interrupt(Phase::NewConnection) { Action::Pause } else { Action::Continue }
    }

    fn on_downstream_data(&mut self, size: usize, is_last: bool) -> Action {
        self.say(&format!("downstream_data {size} {is_last}"));
        self.data(Side::Downstream, size, is_last)
    }

    fn on_downstream_close(&mut self, peer: PeerType) {
        self.say(&format!("downstream_close {}", peer as u32));
        self.interrupt(Phase::DownstreamClose);
    }

    fn on_upstream_data(&mut self, size: usize, is_last: bool) -> Action {
        self.say(&format!("upstream_data {size} {is_last}"));
        self.data(Side::Upstream, size, is_last)
    }

    fn on_upstream_close(&mut self, peer: PeerType) {
        self.say(&format!("upstream_close {}", peer as u32));
        self.interrupt(Phase::UpstreamClose);
    }

    fn on_log(&mut self) {
        let values: Vec<_> =
            self.config.properties.iter().map(|path| format!(" {path}={}", self.property(path))).collect();
        self.say(&format!("log{}", values.concat()));
        self.interrupt(Phase::Log);
    }
}
