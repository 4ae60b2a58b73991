//! A stream context of TCP: one connection, and the callbacks that a filter has for it.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Poll;

use super::half::{Half, Stage};
use super::kind::{Kind, Subject};
use super::plugin::{Plugin, Root, Ticks, meanwhile};
use super::task::has;
use super::{grpc_streams, run};
use crate::error::{Outcome, Stop};
use crate::host::{self, Action, Direction, Status};
use crate::log::{Level, line};
use crate::tcp::{ClosedBy, Connection, TcpFilter};

/// A stream context.
pub(crate) struct Session<F: TcpFilter> {
    connection: Rc<Connection<F>>,
    plugin: Rc<Plugin<F>>,
}

impl<F: TcpFilter, K: Kind<Filter = F>> Root<K> {
    /// `proxy_on_context_create`, for a stream context of this plugin.
    pub(crate) fn session(&self, context: u32) -> Session<F> {
        let filter = self.0.filter.borrow().clone();
        let connection = Rc::new(Connection::new(context, self.0.context, filter));
        if const { has(F::CALLBACKS, "connection_tick") } {
            self.0.opened(context, Rc::clone(&connection) as Rc<dyn Ticks>);
        }
        Session { connection, plugin: Rc::clone(&self.0) }
    }
}

impl<F: TcpFilter> Session<F> {
    /// `proxy_on_new_connection`
    pub(crate) fn new_connection(&self) -> Action {
        if const { !has(F::CALLBACKS, "new_connection") } {
            return Action::Continue;
        }
        let connection = &self.connection;
        self.plugin.enter(&**connection);
        let outcome = run!(connection, Direction::Request, "new_connection", |filter, connection| {
            filter.on_connection(connection)
        });
        self.plugin.concluded(connection, Direction::Request, outcome)
    }

    /// `proxy_on_downstream_data`
    pub(crate) fn downstream_data(&self, size: usize, end: bool) -> Action {
        let connection = &self.connection;
        if const { !has(F::CALLBACKS, "downstream_data") } {
            return meanwhile(&connection.downstream);
        }
        self.plugin.body(connection, Direction::Request, size, end, |mut data| {
            run!(connection, Direction::Request, "downstream_data", |filter, connection| {
                filter.on_downstream_data(connection, &mut data)
            })
        })
    }

    /// `proxy_on_upstream_data`
    pub(crate) fn upstream_data(&self, size: usize, end: bool) -> Action {
        let connection = &self.connection;
        if const { !has(F::CALLBACKS, "upstream_data") } {
            return meanwhile(&connection.upstream);
        }
        self.plugin.body(connection, Direction::Response, size, end, |mut data| {
            run!(connection, Direction::Response, "upstream_data", |filter, connection| {
                filter.on_upstream_data(connection, &mut data)
            })
        })
    }

    /// `proxy_on_downstream_connection_close`
    pub(crate) fn downstream_closed(&self, by: ClosedBy) {
        if const { has(F::CALLBACKS, "downstream_connection_close") } {
            self.tell(|filter, connection| filter.on_downstream_close(connection, by));
        }
    }

    /// `proxy_on_upstream_connection_close`
    pub(crate) fn upstream_closed(&self, by: ClosedBy) {
        if const { has(F::CALLBACKS, "upstream_connection_close") } {
            self.tell(|filter, connection| filter.on_upstream_close(connection, by));
        }
    }

    /// `proxy_on_http_call_response`, of a call that was made in a callback of this context.
    pub(crate) fn http_call_response(&self, token: u32, headers: usize, body: usize, trailers: usize) {
        self.plugin.http_call_response(&*self.connection, token, headers, body, trailers);
    }

    /// `proxy_on_grpc_receive` and `proxy_on_grpc_close`, of such a call.
    pub(crate) fn grpc_call_response(&self, token: u32, status: u32, size: usize) {
        self.plugin.grpc_call_response(&*self.connection, token, status, size);
    }

    /// `proxy_on_grpc_receive` and its like, of a stream that was opened in a callback of this context.
    pub(crate) fn grpc_stream(&self, id: u32, part: grpc_streams::Part) {
        self.plugin.grpc_stream(&*self.connection, id, part);
    }

    /// `proxy_on_log`
    pub(crate) fn log(&self) {
        self.connection.cancel();
        if const { has(F::CALLBACKS, "log") } {
            self.tell(F::on_log);
        }
    }

    fn tell(&self, tell: impl FnOnce(&F, &Connection<F>)) {
        let connection = &*self.connection;
        self.plugin.tell(connection, || {
            if let Some(filter) = &connection.filter {
                tell(filter, connection);
            }
        });
    }
}

/// `proxy_on_delete`
impl<F: TcpFilter> Drop for Session<F> {
    fn drop(&mut self) {
        if const { has(F::CALLBACKS, "connection_tick") } {
            self.plugin.closed(self.connection.context);
        }
        self.plugin.over(&*self.connection);
    }
}

impl<F: TcpFilter> Ticks for Connection<F> {
    fn tick(&self) {
        if let Some(filter) = &self.filter {
            filter.on_connection_tick(self);
        }
    }
}

impl<F: TcpFilter> Subject for Connection<F> {
    fn context(&self) -> u32 {
        self.context
    }

    fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Request => &self.downstream,
            Direction::Response => &self.upstream,
        }
    }

    fn has_waited(&self) -> &Cell<bool> {
        &self.has_waited
    }

    fn resume(&self, direction: Direction) -> Result<(), Status> {
        host::resume_connection(direction)
    }

    /// A reply is meant for exchanges: there is nobody to send it to.
    fn stop(&self, stop: Stop, callback: &str) {
        if let Stop::Failed(message) = stop {
            line(Level::Error, &format!("{callback} failed: {message}"));
        }
        if let Err(status) = host::close_connection() {
            line(Level::Error, &format!("{callback}: the host does not close the connection: {status}"));
        }
    }

    fn after_body(self: &Rc<Self>, _: Direction) -> Poll<Outcome> {
        Poll::Ready(Ok(()))
    }

    fn callback(direction: Direction, stage: Stage) -> &'static str {
        match (direction, stage) {
            (Direction::Request, Stage::Head) => "on_connection",
            (Direction::Request, _) => "on_downstream_data",
            (Direction::Response, _) => "on_upstream_data",
        }
    }
}
