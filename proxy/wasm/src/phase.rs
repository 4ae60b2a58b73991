//! Which callback is running: names it in messages, and decides what hostcalls may do.

/// The callback that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The module's `start` function, `_initialize`, `_start`.
    Initialize,
    ContextCreate,
    VmStart,
    Configure,
    Tick,
    QueueReady,
    HttpCallResponse,
    GrpcInitialMetadata,
    GrpcReceive,
    GrpcTrailingMetadata,
    GrpcClose,
    ForeignFunction,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    NewConnection,
    DownstreamData,
    DownstreamClose,
    UpstreamData,
    UpstreamClose,
    Done,
    Log,
    Delete,
}

impl Phase {
    /// The callback's export name.
    pub(crate) fn callback(self) -> &'static str {
        match self {
            Phase::Initialize => "_initialize",
            Phase::ContextCreate => "proxy_on_context_create",
            Phase::VmStart => "proxy_on_vm_start",
            Phase::Configure => "proxy_on_configure",
            Phase::Tick => "proxy_on_tick",
            Phase::QueueReady => "proxy_on_queue_ready",
            Phase::HttpCallResponse => "proxy_on_http_call_response",
            Phase::GrpcInitialMetadata => "proxy_on_grpc_receive_initial_metadata",
            Phase::GrpcReceive => "proxy_on_grpc_receive",
            Phase::GrpcTrailingMetadata => "proxy_on_grpc_receive_trailing_metadata",
            Phase::GrpcClose => "proxy_on_grpc_close",
            Phase::ForeignFunction => "proxy_on_foreign_function",
            Phase::RequestHeaders => "proxy_on_request_headers",
            Phase::RequestBody => "proxy_on_request_body",
            Phase::RequestTrailers => "proxy_on_request_trailers",
            Phase::ResponseHeaders => "proxy_on_response_headers",
            Phase::ResponseBody => "proxy_on_response_body",
            Phase::ResponseTrailers => "proxy_on_response_trailers",
            Phase::NewConnection => "proxy_on_new_connection",
            Phase::DownstreamData => "proxy_on_downstream_data",
            Phase::DownstreamClose => "proxy_on_downstream_connection_close",
            Phase::UpstreamData => "proxy_on_upstream_data",
            Phase::UpstreamClose => "proxy_on_upstream_connection_close",
            Phase::Done => "proxy_on_done",
            Phase::Log => "proxy_on_log",
            Phase::Delete => "proxy_on_delete",
        }
    }

    /// Whether it belongs to the start of a VM or plugin, which may take longer.
    pub(crate) fn is_start(self) -> bool {
        matches!(self, Phase::Initialize | Phase::VmStart | Phase::Configure)
    }
}
