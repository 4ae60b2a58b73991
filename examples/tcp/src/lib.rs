//! A filter for TCP connections, which chooses the cluster by the first bytes. A client that sends nothing known is
//! disconnected. The listener needs `wait_for_data: true`: the cluster is chosen before Meshgate connects to it.
//!
//! The configuration is a list: `[{starts_with: GET, to: reads}, …]`.
#![allow(missing_docs, reason = "the entry that `proxy_wasm::main!` writes has none")]

use std::rc::Rc;

use meshgate_abi::{RouteDecision, function};
use prost::Message;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, RootContext, StreamContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use serde::Deserialize;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    starts_with: String,
    to: String,
}

#[derive(Default)]
struct Root {
    rules: Rc<[Rule]>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        match serde_json::from_slice::<Vec<Rule>>(&json) {
            Ok(rules) => {
                self.rules = rules.into();
                true
            }
            Err(error) => {
                let _ = hostcalls::log(LogLevel::Error, &error.to_string());
                false
            }
        }
    }

    fn create_stream_context(&self, _: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Connection { rules: Rc::clone(&self.rules), decided: false }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::StreamContext)
    }
}

struct Connection {
    rules: Rc<[Rule]>,
    decided: bool,
}

impl Context for Connection {}

impl StreamContext for Connection {
    fn on_downstream_data(&mut self, size: usize, is_last: bool) -> Action {
        if self.decided {
            return Action::Continue;
        }
        let longest = self.rules.iter().map(|rule| rule.starts_with.len()).max().unwrap_or(0);
        let first = self.get_downstream_data(0, longest).unwrap_or_default();
        let rule = self.rules.iter().find(|rule| first.starts_with(rule.starts_with.as_bytes()));
        match rule {
            Some(rule) => {
                let decision = RouteDecision {
                    route: rule.starts_with.clone(),
                    cluster: rule.to.clone(),
                    ..RouteDecision::default()
                };
                if hostcalls::call_foreign_function(function::ROUTE, Some(&decision.encode_to_vec())).is_err()
                {
                    self.close_downstream();
                }
                self.decided = true;
                Action::Continue
            }
            // More may come.
            None if size < longest && !is_last => Action::Pause,
            None => {
                self.close_downstream();
                Action::Pause
            }
        }
    }
}
