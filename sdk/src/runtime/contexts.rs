//! The contexts as the `proxy-wasm` crate has them. It exports the callbacks, knows the contexts by their numbers, and
//! delivers to each what is its own; here that goes to the [`Root`], [`Stream`] or [`Session`].

use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{Action, ContextType, PeerType};

use super::grpc_streams::Part;
use super::kind::{Both, Http, Kind, Tcp};
use super::{Root, Session, Stream};
use crate::filter::Filter;
use crate::host::{self, MapType};
use crate::log::{Level, line};
use crate::property;
use crate::tcp::{ClosedBy, TcpFilter};

/// Makes `F` this module's filter. Called once, when the VM starts.
pub fn start_http<F: Filter>() {
    report_panics();
    proxy_wasm::set_root_context(|context| Box::new(Root::<Http<F>>::new(context)));
}

/// As [`start_http`], of a filter for TCP.
pub fn start_tcp<F: TcpFilter>() {
    report_panics();
    proxy_wasm::set_root_context(|context| Box::new(Root::<Tcp<F>>::new(context)));
}

/// As [`start_http`], of a filter for both.
pub fn start_both<F: Filter + TcpFilter>() {
    report_panics();
    proxy_wasm::set_root_context(|context| Box::new(Root::<Both<F>>::new(context)));
}

/// Without it a trap says where the module stopped, but not why.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| line(Level::Critical, &panic.to_string())));
}

/// The callbacks in which calls and streams are answered, which the crate makes on the context that began them.
macro_rules! answers {
    () => {
        fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, trailers: usize) {
            self.http_call_response(token, headers, body, trailers);
        }

        fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
            self.grpc_call_response(token, status, size);
        }

        fn on_grpc_stream_initial_metadata(&mut self, id: u32, count: u32) {
            self.grpc_stream(id, Part::Metadata(count as usize));
        }

        fn on_grpc_stream_message(&mut self, id: u32, size: usize) {
            self.grpc_stream(id, Part::Message(size));
        }

        fn on_grpc_stream_trailing_metadata(&mut self, id: u32, count: u32) {
            self.grpc_stream(id, Part::Trailers(count as usize));
        }

        fn on_grpc_stream_close(&mut self, id: u32, status: u32) {
            self.grpc_stream(id, Part::Closed(status));
        }
    };
}

impl<K: Kind> Context for Root<K> {
    fn on_done(&mut self) -> bool {
        self.end()
    }

    answers!();
}

impl<F: Filter> RootContext for Root<Http<F>> {
    fn on_configure(&mut self, size: usize) -> bool {
        self.configure(size)
    }

    fn on_tick(&mut self) {
        self.tick();
    }

    fn on_queue_ready(&mut self, queue: u32) {
        self.queue_ready(queue);
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(self.stream(context)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl<F: TcpFilter> RootContext for Root<Tcp<F>> {
    fn on_configure(&mut self, size: usize) -> bool {
        self.configure(size)
    }

    fn on_tick(&mut self) {
        self.tick();
    }

    fn on_queue_ready(&mut self, queue: u32) {
        self.queue_ready(queue);
    }

    fn create_stream_context(&self, context: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(self.session(context)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::StreamContext)
    }
}

impl<F: Filter + TcpFilter> RootContext for Root<Both<F>> {
    fn on_configure(&mut self, size: usize) -> bool {
        self.configure(size)
    }

    fn on_tick(&mut self) {
        self.tick();
    }

    fn on_queue_ready(&mut self, queue: u32) {
        self.queue_ready(queue);
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(self.stream(context)))
    }

    fn create_stream_context(&self, context: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(self.session(context)))
    }

    /// The crate asks when the host creates a stream context, which is the effective one then.
    fn get_type(&self) -> Option<ContextType> {
        Some(if is_http() { ContextType::HttpContext } else { ContextType::StreamContext })
    }
}

/// Whether the stream context that is being created is one of HTTP. The ABI does not say; but a request has a protocol, which
/// a connection has not. A host may keep properties from a filter; then there may be a request to be seen.
fn is_http() -> bool {
    property::bytes("request/protocol").is_some()
        || host::header(MapType::HttpRequestHeaders, ":method").is_ok()
}

impl<F: Filter> Context for Stream<F> {
    answers!();

    fn on_foreign_function(&mut self, function: u32, size: usize) {
        self.foreign_function(function, size);
    }
}

impl<F: Filter> HttpContext for Stream<F> {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        self.request_head(end)
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.request_body(size, end)
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.request_trailers()
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        self.response_head(end)
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.response_body(size, end)
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.response_trailers()
    }

    fn on_log(&mut self) {
        self.log();
    }
}

impl<F: TcpFilter> Context for Session<F> {
    answers!();
}

impl<F: TcpFilter> StreamContext for Session<F> {
    fn on_new_connection(&mut self) -> Action {
        self.new_connection()
    }

    fn on_downstream_data(&mut self, size: usize, end: bool) -> Action {
        self.downstream_data(size, end)
    }

    fn on_downstream_close(&mut self, by: PeerType) {
        self.downstream_closed(closed_by(by));
    }

    fn on_upstream_data(&mut self, size: usize, end: bool) -> Action {
        self.upstream_data(size, end)
    }

    fn on_upstream_close(&mut self, by: PeerType) {
        self.upstream_closed(closed_by(by));
    }

    fn on_log(&mut self) {
        self.log();
    }
}

fn closed_by(peer: PeerType) -> ClosedBy {
    match peer {
        PeerType::Local => ClosedBy::Proxy,
        PeerType::Remote => ClosedBy::Peer,
        _ => ClosedBy::Unknown,
    }
}
