//! What the host asks of the worker that embeds it, and the values that pass between the two.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::action::Callbacks;
use crate::callout::HttpCallReply;
use crate::core::Core;
use crate::error::VmError;
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use crate::grpc::{GrpcEvents, GrpcRequest, GrpcSender};
use crate::limits::Limit;
use crate::metrics::SeriesSpec;
use crate::plugin::PluginSpec;
use crate::status::{LogLevel, Status};
use crate::tick::TickHandle;

/// What the embedding worker offers; one per worker. Its methods run inside a hostcall: they must return soon
/// and must not call back into a VM.
pub trait Host {
    /// Starts an HTTP call. Deliver the outcome later, from a fresh stack, by [`HttpCallReply::deliver`].
    ///
    /// # Errors
    /// Why the call cannot be made; the guest is told at once, and nothing is to be delivered.
    fn http_call(&self, plugin: &PluginSpec, call: HttpCall, reply: HttpCallReply) -> Result<(), CallError>;

    /// Starts a gRPC call or opens a stream. What comes back is delivered later, from a fresh stack, by the events;
    /// dropping the sender cancels, and nothing is delivered any more. Without an implementation no cluster exists.
    ///
    /// # Errors
    /// Why it cannot be started; the guest is told at once, and nothing is to be delivered.
    fn grpc(
        &self,
        plugin: &PluginSpec,
        request: GrpcRequest,
        events: GrpcEvents,
    ) -> Result<Box<dyn GrpcSender>, CallError> {
        let _ = (plugin, request, events);
        Err(CallError::UnknownCluster)
    }

    /// Arms the plugin's timer, replacing the one it had (same [`TickHandle::key`]), or stops it (`None`).
    /// Every `period` call [`TickHandle::tick`], until it returns false.
    fn tick(&self, plugin: TickHandle, period: Option<Duration>);

    /// A foreign function of the embedder.
    ///
    /// # Errors
    /// The status for the guest: [`Status::NotFound`] for an unknown name. The Rust SDK traps on others than
    /// NotFound, BadArgument, SerializationFailure and InternalFailure.
    fn foreign_function(
        &self,
        caller: &mut ForeignCaller<'_>,
        name: &str,
        argument: &[u8],
    ) -> Result<Vec<u8>, Status>;

    /// A guest's log line, cleaned of control characters and within the plugin's rate.
    fn log(&self, plugin: &PluginSpec, level: LogLevel, message: &str);

    /// The wall clock that guests read. Tests have one of their own.
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// The lowest level [`Host::log`] wants to see; lower lines are dropped before they are copied.
    fn log_level(&self) -> LogLevel {
        LogLevel::Info
    }

    /// A VM failed while it ran a callback of this plugin. Called once per failure, also where an error is
    /// returned as well, so that there is one place to log and count it.
    fn failed(&self, plugin: &PluginSpec, error: &VmError);
}

/// Who calls a foreign function.
pub struct ForeignCaller<'a> {
    pub(crate) core: &'a Core,
    pub(crate) stream: Option<(&'a dyn Exchange, u32)>,
    pub(crate) series: &'a mut dyn FnMut(&SeriesSpec<'_>) -> Result<u32, Status>,
}

impl<'a> ForeignCaller<'a> {
    /// The calling plugin.
    pub fn plugin(&self) -> &'a PluginSpec {
        &self.core.spec
    }

    /// From now on the plugin has no use for these callbacks, nor for those others but where the request is one of gRPC. Heard
    /// when the plugin is configured: whoever asks for [`crate::Plugin::callbacks`] does so after that.
    pub fn leave_out(&self, unused: Callbacks, grpc_only: Callbacks) {
        self.core.unused.set(self.core.unused.get().union(unused));
        self.core.grpc_only.set(self.core.grpc_only.get().union(grpc_only));
    }

    /// Counts that the call met this limit, and says so in the log.
    pub fn exceeded(&self, limit: Limit) {
        self.core.exceeded(limit);
    }

    /// The exchange of the stream that is the effective context; none for a call from the plugin itself.
    pub fn exchange(&self) -> Option<&'a dyn Exchange> {
        self.stream.map(|(exchange, _)| exchange)
    }

    /// The filter's place in that exchange, as given to [`crate::Plugin::stream`].
    pub fn place(&self) -> Option<u32> {
        self.stream.map(|(_, place)| place)
    }

    /// A place among the bodies that are encoded for the plugin on this worker; none, and counted, if there are as many as
    /// there may be.
    pub fn encoding(&self) -> Option<Permit> {
        let permit = Permit::take(&self.core.usage.encodings, self.core.spec.limits.encodings);
        if permit.is_none() {
            self.core.exceeded(Limit::Encodings);
        }
        permit
    }

    /// Defines a labelled series, or finds it, and returns the id by which this VM's metric hostcalls know it.
    ///
    /// # Errors
    /// BadArgument for a bad name, label or type conflict; InternalFailure when there are too many series.
    pub fn series(&mut self, spec: &SeriesSpec<'_>) -> Result<u32, Status> {
        (self.series)(spec)
    }
}

/// A place among a bounded number, given back when it is dropped.
#[derive(Debug)]
pub struct Permit(Rc<Cell<u32>>);

impl Permit {
    fn take(taken: &Rc<Cell<u32>>, most: u32) -> Option<Permit> {
        let now = taken.get();
        (now < most).then(|| {
            taken.set(now + 1);
            Permit(Rc::clone(taken))
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// An HTTP request a guest wants to be sent.
#[derive(Clone, Debug)]
pub struct HttpCall {
    /// Where to: a cluster's name.
    pub cluster: String,
    /// The head, checked; without framing fields.
    pub request: RequestHead,
    /// The body.
    pub body: Bytes,
    /// The trailers, empty for none.
    pub trailers: HeaderMap,
    /// How long the whole call may take; none for the embedder's default.
    pub timeout: Option<Duration>,
    /// The most bytes the response's body may have; with more, the call failed.
    pub most_body: u64,
    /// How many calls stand in a row with this one, each made while the one before was served: 1 for a call from an
    /// exchange that no call led to. An embedder that receives the call itself says so in
    /// [`crate::Attributes::call_depth`].
    pub depth: u32,
    /// The plugin is at its end: what it was configured with, clusters too, may be gone.
    pub ended: bool,
}

/// Why a call cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// There is no cluster of that name (the guest sees BAD_ARGUMENT for an HTTP call, PARSE_FAILURE for gRPC).
    UnknownCluster,
    /// Too many calls under way, or the like (the guest sees INTERNAL_FAILURE).
    CannotStart,
}

/// The response to an HTTP call, complete.
#[derive(Clone, Debug)]
pub struct HttpCallResponse {
    /// Status and fields.
    pub head: ResponseHead,
    /// The body.
    pub body: Bytes,
    /// The trailers.
    pub trailers: Option<HeaderMap>,
}

/// Why an HTTP call has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// It took longer than its timeout.
    Timeout,
    /// There was no endpoint to connect to.
    NoEndpoint,
    /// No connection to an endpoint could be made.
    ConnectFailed,
    /// The connection broke before there was a response's head, or what came was none.
    Unanswered,
    /// The response broke in the middle, or the guest gave the call up.
    Reset,
    /// The response was larger than allowed.
    TooLarge,
    /// The plugin's calls hold as much as they may, and more of the response came ([`crate::HttpCallReply::has_room`]).
    NoRoom,
}

impl CallFailure {
    /// In the words that guests may see as `:dispatch_status`.
    pub fn reason(self) -> &'static str {
        match self {
            CallFailure::Timeout => "timeout",
            CallFailure::NoEndpoint => "no healthy upstream",
            CallFailure::ConnectFailed => "connect failed",
            CallFailure::Unanswered | CallFailure::Reset => "broken connection",
            CallFailure::TooLarge => "response too large",
            CallFailure::NoRoom => "no room for the response",
        }
    }

    /// The response that Envoy has in the place of one that never came: filters test for it. None if there is nothing
    /// but the failure there, too.
    pub(crate) fn stand_in(self) -> Option<HttpCallResponse> {
        // Envoy's words, by which filters tell that the endpoint may have begun with the request.
        const UNANSWERED: &str =
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        let (status, text) = match self {
            CallFailure::Timeout => (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout"),
            CallFailure::NoEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream"),
            CallFailure::ConnectFailed => (StatusCode::SERVICE_UNAVAILABLE, "upstream connect error"),
            CallFailure::Unanswered => (StatusCode::SERVICE_UNAVAILABLE, UNANSWERED),
            CallFailure::Reset | CallFailure::TooLarge | CallFailure::NoRoom => return None,
        };
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let head = ResponseHead { status, headers };
        Some(HttpCallResponse { head, body: Bytes::from_static(text.as_bytes()), trailers: None })
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.reason())
    }
}
