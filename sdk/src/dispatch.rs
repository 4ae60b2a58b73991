//! Between `proxy-wasm`'s contexts and the [`Filter`] trait. Used by the `export!` macro only.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use crate::call::CallResponse;
use crate::config::{self, ConfigError};
use crate::error::{Flow, Outcome, Stop};
use crate::exchange::Exchange;
use crate::filter::Filter;
use crate::host::{self, Buffer, Direction};
use crate::log::Level;
use crate::message::Body;
use crate::reply::Reply;

/// Makes `F` this module's filter. Called once, when the VM starts.
pub fn start<F: Filter>() {
    // Without this a trap says where the module stopped, but not why.
    std::panic::set_hook(Box::new(|panic| host::log(Level::Critical as u32, &panic.to_string())));
    proxy_wasm::set_root_context(|_| Box::new(Plugin::<F> { filter: None }));
}

/// The root context: a filter with its configuration, as soon as it has one.
struct Plugin<F> {
    filter: Option<Rc<F>>,
}

impl<F: Filter> Plugin<F> {
    fn configure(size: usize) -> Result<F, ConfigError> {
        let bytes = match size {
            0 => Vec::new(),
            _ => host::buffer(Buffer::PluginConfiguration, 0, size).map_err(|status| {
                ConfigError::new(format_args!("the host gave no access to the configuration: {status}"))
            })?,
        };
        F::configure(config::parse(&bytes)?)
    }
}

impl<F: Filter> Context for Plugin<F> {}

impl<F: Filter> RootContext for Plugin<F> {
    fn on_configure(&mut self, size: usize) -> bool {
        match Self::configure(size) {
            Ok(filter) => {
                self.filter = Some(Rc::new(filter));
                true
            }
            Err(error) => {
                host::log(Level::Error as u32, &format!("configuration refused: {error}"));
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(filter) = &self.filter {
            filter.on_tick();
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { filter: self.filter.clone(), exchange: Exchange::new() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// A stream context: the filter and one exchange.
struct Stream<F: Filter> {
    /// `None` only on a host that sends requests to a plugin that refused its configuration.
    filter: Option<Rc<F>>,
    exchange: Exchange<F>,
}

impl<F: Filter> Stream<F> {
    fn run(
        &mut self,
        direction: Direction,
        callback: &'static str,
        run: impl FnOnce(&F, &mut Exchange<F>) -> Outcome,
    ) -> Action {
        let outcome = match &self.filter {
            Some(filter) => run(filter, &mut self.exchange),
            None => Err(Stop::failed("the filter is not configured")),
        };
        match outcome {
            Ok(Flow::Continue) => Action::Continue,
            Ok(Flow::Pause) => {
                self.exchange.paused = Some(direction);
                Action::Pause
            }
            Err(stop) => {
                answer(stop, callback);
                Action::Pause
            }
        }
    }
}

#[cold]
fn answer(stop: Stop, callback: &str) {
    let reply = match stop {
        Stop::Reply(reply) => reply,
        Stop::Failed(message) => {
            host::log(Level::Error as u32, &format!("{callback} failed: {message}"));
            Reply::new(500).details("filter_failed")
        }
    };
    if let Err(refused) = reply.send() {
        host::log(Level::Error as u32, &format!("{callback}: {refused}"));
    }
}

impl<F: Filter> Context for Stream<F> {
    fn on_http_call_response(&mut self, token: u32, num_headers: usize, body_size: usize, _: usize) {
        let Some(filter) = self.filter.clone() else { return };
        let Some(position) = self.exchange.calls.iter().position(|(pending, _)| *pending == token) else {
            return;
        };
        let (_, then) = self.exchange.calls.swap_remove(position);
        match then(&filter, &mut self.exchange, CallResponse::new(num_headers, body_size)) {
            Ok(Flow::Continue) => {
                if let Some(direction) = self.exchange.paused.take()
                    && let Err(status) = host::resume(direction)
                {
                    host::log(Level::Error as u32, &format!("cannot resume the exchange: {status}"));
                }
            }
            Ok(Flow::Pause) => {}
            Err(stop) => answer(stop, "the continuation of a call"),
        }
    }
}

impl<F: Filter> HttpContext for Stream<F> {
    fn on_http_request_headers(&mut self, _: usize, is_last: bool) -> Action {
        self.run(Direction::Request, "on_request_headers", |filter, exchange| {
            filter.on_request_headers(exchange, is_last)
        })
    }

    fn on_http_request_body(&mut self, size: usize, is_last: bool) -> Action {
        self.run(Direction::Request, "on_request_body", |filter, exchange| {
            filter.on_request_body(exchange, &mut Body::new(Buffer::RequestBody, size, is_last))
        })
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.run(Direction::Request, "on_request_trailers", |filter, exchange| {
            filter.on_request_trailers(exchange)
        })
    }

    fn on_http_response_headers(&mut self, _: usize, is_last: bool) -> Action {
        self.run(Direction::Response, "on_response_headers", |filter, exchange| {
            filter.on_response_headers(exchange, is_last)
        })
    }

    fn on_http_response_body(&mut self, size: usize, is_last: bool) -> Action {
        self.run(Direction::Response, "on_response_body", |filter, exchange| {
            filter.on_response_body(exchange, &mut Body::new(Buffer::ResponseBody, size, is_last))
        })
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.run(Direction::Response, "on_response_trailers", |filter, exchange| {
            filter.on_response_trailers(exchange)
        })
    }

    fn on_log(&mut self) {
        if let Some(filter) = &self.filter {
            filter.on_log(&mut self.exchange);
        }
    }
}
