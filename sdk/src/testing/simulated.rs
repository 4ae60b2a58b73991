//! The stream contexts of both kinds of filters, as the simulated host drives them.

use super::engine::Way;
use crate::filter::Filter;
use crate::host::Action;
use crate::runtime::grpc_streams::Part;
use crate::runtime::{Http, Kind, Root, Session, Stream, Tcp};
use crate::tcp::{ClosedBy, TcpFilter};

/// A callback of a stream context.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Callback {
    Head(Way, bool),
    Body(Way, usize, bool),
    Trailers(Way),
    Connection,
    Data(Way, usize, bool),
    Closed(Way, ClosedBy),
    ForeignFunction(u32, usize),
    Log,
}

impl Callback {
    /// The names of those for which it is made.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Head(Way::Request, _) => &["request_headers"],
            Self::Head(Way::Response, _) => &["response_headers"],
            Self::Body(Way::Request, ..) => &["request_body"],
            Self::Body(Way::Response, ..) => &["response_body"],
            // Trailers end a body, whose callback may wait for that.
            Self::Trailers(Way::Request) => &["request_trailers", "request_body"],
            Self::Trailers(Way::Response) => &["response_trailers", "response_body"],
            Self::Connection => &["new_connection"],
            Self::Data(Way::Request, ..) => &["downstream_data"],
            Self::Data(Way::Response, ..) => &["upstream_data"],
            Self::Closed(Way::Request, _) => &["downstream_connection_close"],
            Self::Closed(Way::Response, _) => &["upstream_connection_close"],
            Self::ForeignFunction(..) => &["foreign_function"],
            Self::Log => &["log"],
        }
    }

    /// Whether filters of this kind have it.
    pub(crate) fn is_of<K: Kind>(self) -> bool {
        self.names().iter().any(|name| K::CALLBACKS.iter().any(|callbacks| callbacks.contains(name)))
    }
}

/// A kind of filters that the simulated host runs.
pub(crate) trait Simulated: Kind {
    /// Its stream contexts.
    type Context;

    fn create(root: &Root<Self>, context: u32) -> Self::Context;

    /// Makes a callback.
    fn call(context: &Self::Context, callback: Callback) -> Action;

    fn http_call_response(context: &Self::Context, token: u32, headers: usize, body: usize, trailers: usize);

    fn grpc_call_response(context: &Self::Context, token: u32, status: u32, size: usize);

    fn grpc_stream(context: &Self::Context, id: u32, part: Part);
}

impl<F: Filter> Simulated for Http<F> {
    type Context = Stream<F>;

    fn create(root: &Root<Self>, context: u32) -> Stream<F> {
        root.stream(context)
    }

    fn call(context: &Stream<F>, callback: Callback) -> Action {
        match callback {
            Callback::Head(Way::Request, end) => return context.request_head(end),
            Callback::Head(Way::Response, end) => return context.response_head(end),
            Callback::Body(Way::Request, size, end) => return context.request_body(size, end),
            Callback::Body(Way::Response, size, end) => return context.response_body(size, end),
            Callback::Trailers(Way::Request) => return context.request_trailers(),
            Callback::Trailers(Way::Response) => return context.response_trailers(),
            Callback::ForeignFunction(function, size) => context.foreign_function(function, size),
            Callback::Log => context.log(),
            Callback::Connection | Callback::Data(..) | Callback::Closed(..) => {}
        }
        Action::Continue
    }

    fn http_call_response(context: &Stream<F>, token: u32, headers: usize, body: usize, trailers: usize) {
        context.http_call_response(token, headers, body, trailers);
    }

    fn grpc_call_response(context: &Stream<F>, token: u32, status: u32, size: usize) {
        context.grpc_call_response(token, status, size);
    }

    fn grpc_stream(context: &Stream<F>, id: u32, part: Part) {
        context.grpc_stream(id, part);
    }
}

impl<F: TcpFilter> Simulated for Tcp<F> {
    type Context = Session<F>;

    fn create(root: &Root<Self>, context: u32) -> Session<F> {
        root.session(context)
    }

    fn call(context: &Session<F>, callback: Callback) -> Action {
        match callback {
            Callback::Connection => return context.new_connection(),
            Callback::Data(Way::Request, size, end) => return context.downstream_data(size, end),
            Callback::Data(Way::Response, size, end) => return context.upstream_data(size, end),
            Callback::Closed(Way::Request, by) => context.downstream_closed(by),
            Callback::Closed(Way::Response, by) => context.upstream_closed(by),
            Callback::Log => context.log(),
            Callback::Head(..)
            | Callback::Body(..)
            | Callback::Trailers(_)
            | Callback::ForeignFunction(..) => {}
        }
        Action::Continue
    }

    fn http_call_response(context: &Session<F>, token: u32, headers: usize, body: usize, trailers: usize) {
        context.http_call_response(token, headers, body, trailers);
    }

    fn grpc_call_response(context: &Session<F>, token: u32, status: u32, size: usize) {
        context.grpc_call_response(token, status, size);
    }

    fn grpc_stream(context: &Session<F>, id: u32, part: Part) {
        context.grpc_stream(id, part);
    }
}
