//! A stream context of HTTP: one exchange, and the callbacks that a filter has for it.
//!
//! The crate exports every callback, and hosts that do not read manifests make them all. Those that a filter does not have go
//! through.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Poll;

use super::half::{Half, Stage};
use super::kind::{Kind, Subject};
use super::plugin::{Plugin, Root, meanwhile};
use super::task::has;
use super::{grpc_streams, run};
use crate::attempts;
use crate::error::{Outcome, Stop};
use crate::exchange::Exchange;
use crate::filter::Filter;
use crate::host::{self, Action, Direction, Status};

/// A stream context.
pub(crate) struct Stream<F: Filter> {
    exchange: Rc<Exchange<F>>,
    plugin: Rc<Plugin<F>>,
}

impl<F: Filter, K: Kind<Filter = F>> Root<K> {
    /// `proxy_on_context_create`, for a stream context of this plugin.
    pub(crate) fn stream(&self, context: u32) -> Stream<F> {
        let filter = self.0.filter.borrow().clone();
        Stream {
            exchange: Rc::new(Exchange::new(context, self.0.context, filter)),
            plugin: Rc::clone(&self.0),
        }
    }
}

impl<F: Filter> Stream<F> {
    /// `proxy_on_request_headers`
    pub(crate) fn request_head(&self, end: bool) -> Action {
        if const { !has(F::CALLBACKS, "request_headers") } {
            return Action::Continue;
        }
        let exchange = &self.exchange;
        self.plugin.enter(&**exchange);
        exchange.request.has_more.set(!end);
        let outcome = run!(exchange, Direction::Request, "request_headers", |filter, exchange| filter
            .on_request(exchange));
        self.plugin.concluded(exchange, Direction::Request, outcome)
    }

    /// `proxy_on_response_headers`
    pub(crate) fn response_head(&self, end: bool) -> Action {
        if const { !has(F::CALLBACKS, "response_headers") } {
            return Action::Continue;
        }
        let exchange = &self.exchange;
        self.plugin.enter(&**exchange);
        exchange.response.has_more.set(!end);
        let outcome = run!(exchange, Direction::Response, "response_headers", |filter, exchange| filter
            .on_response(exchange));
        self.plugin.concluded(exchange, Direction::Response, outcome)
    }

    /// `proxy_on_request_body`
    pub(crate) fn request_body(&self, size: usize, end: bool) -> Action {
        let exchange = &self.exchange;
        if const { !has(F::CALLBACKS, "request_body") } {
            return meanwhile(&exchange.request);
        }
        self.plugin.body(exchange, Direction::Request, size, end, |mut body| {
            run!(exchange, Direction::Request, "request_body", |filter, exchange| {
                filter.on_request_body(exchange, &mut body)
            })
        })
    }

    /// `proxy_on_response_body`
    pub(crate) fn response_body(&self, size: usize, end: bool) -> Action {
        let exchange = &self.exchange;
        if const { !has(F::CALLBACKS, "response_body") } {
            return meanwhile(&exchange.response);
        }
        self.plugin.body(exchange, Direction::Response, size, end, |mut body| {
            run!(exchange, Direction::Response, "response_body", |filter, exchange| {
                filter.on_response_body(exchange, &mut body)
            })
        })
    }

    /// `proxy_on_request_trailers`
    pub(crate) fn request_trailers(&self) -> Action {
        self.trailers(Direction::Request)
    }

    /// `proxy_on_response_trailers`
    pub(crate) fn response_trailers(&self) -> Action {
        self.trailers(Direction::Response)
    }

    fn trailers(&self, direction: Direction) -> Action {
        let exchange = &self.exchange;
        let half = exchange.half(direction);
        self.plugin.enter(&**exchange);
        if half.is_busy() {
            // The body has ended; its callback may be done with that.
            half.trailers_due.set(true);
            half.body.ended();
            match half.poll() {
                Poll::Ready(Ok(())) => {}
                outcome => return self.plugin.concluded(exchange, direction, outcome),
            }
        }
        let outcome = exchange.after_body(direction);
        self.plugin.concluded(exchange, direction, outcome)
    }

    /// `proxy_on_http_call_response`, of a call that was made in a callback of this context.
    pub(crate) fn http_call_response(&self, token: u32, headers: usize, body: usize, trailers: usize) {
        self.plugin.http_call_response(&*self.exchange, token, headers, body, trailers);
    }

    /// `proxy_on_grpc_receive` and `proxy_on_grpc_close`, of such a call.
    pub(crate) fn grpc_call_response(&self, token: u32, status: u32, size: usize) {
        self.plugin.grpc_call_response(&*self.exchange, token, status, size);
    }

    /// `proxy_on_grpc_receive` and its like, of a stream that was opened in a callback of this context.
    pub(crate) fn grpc_stream(&self, id: u32, part: grpc_streams::Part) {
        self.plugin.grpc_stream(&*self.exchange, id, part);
    }

    /// `proxy_on_foreign_function`
    pub(crate) fn foreign_function(&self, function: u32, size: usize) {
        if const { has(F::CALLBACKS, "foreign_function") } {
            let exchange = &*self.exchange;
            self.plugin.tell(exchange, || attempts::judge(exchange, function, size));
        }
    }

    /// `proxy_on_log`
    pub(crate) fn log(&self) {
        let exchange = &*self.exchange;
        self.plugin.tell(exchange, || {
            exchange.cancel();
            if const { has(F::CALLBACKS, "log") }
                && let Some(filter) = &exchange.filter
            {
                filter.on_log(exchange);
            }
        });
    }
}

/// `proxy_on_delete`
impl<F: Filter> Drop for Stream<F> {
    fn drop(&mut self) {
        self.plugin.over(&*self.exchange);
    }
}

impl<F: Filter> Subject for Exchange<F> {
    fn context(&self) -> u32 {
        self.context
    }

    fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }

    fn has_waited(&self) -> &Cell<bool> {
        &self.has_waited
    }

    fn resume(&self, direction: Direction) -> Result<(), Status> {
        host::resume(direction)
    }

    fn stop(&self, stop: Stop, callback: &str) {
        stop.answer(callback);
    }

    fn after_body(self: &Rc<Self>, direction: Direction) -> Poll<Outcome> {
        let half = self.half(direction);
        half.stage.set(Stage::Trailers);
        half.trailers_due.set(false);
        match direction {
            Direction::Request if const { has(F::CALLBACKS, "request_trailers") } => {
                run!(self, Direction::Request, "request_trailers", |filter, exchange| {
                    filter.on_request_trailers(exchange)
                })
            }
            Direction::Response if const { has(F::CALLBACKS, "response_trailers") } => {
                run!(self, Direction::Response, "response_trailers", |filter, exchange| {
                    filter.on_response_trailers(exchange)
                })
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn callback(direction: Direction, stage: Stage) -> &'static str {
        match (direction, stage) {
            (Direction::Request, Stage::Head) => "on_request",
            (Direction::Request, Stage::Body) => "on_request_body",
            (Direction::Request, Stage::Trailers) => "on_request_trailers",
            (Direction::Response, Stage::Head) => "on_response",
            (Direction::Response, Stage::Body) => "on_response_body",
            (Direction::Response, Stage::Trailers) => "on_response_trailers",
        }
    }
}
