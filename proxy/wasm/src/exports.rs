//! What a module exports for the host to call. Looked up once per VM; a wrongly typed export counts as absent.

use wasmtime::{ExternType, FuncType, Instance, Store, TypedFunc, ValType, WasmParams, WasmResults};

use crate::action::Callbacks;
use crate::state::VmState;

/// A headers callback: without `end_of_stream` before ABI 0.2.0. What counts is how it is exported.
pub(crate) enum HeadersFn {
    Two(TypedFunc<(u32, u32), u32>),
    Three(TypedFunc<(u32, u32, u32), u32>),
}

/// Root context, token, numbers of headers, body bytes and trailers.
pub(crate) type CallResponseFn = TypedFunc<(u32, u32, u32, u32, u32), ()>;
/// Root context, id, and a number: of fields, of bytes, or the status.
pub(crate) type GrpcFn = TypedFunc<(u32, u32, u32), ()>;
pub(crate) type BodyFn = TypedFunc<(u32, u32, u32), u32>;
pub(crate) type TrailersFn = TypedFunc<(u32, u32), u32>;
/// Stream context, and who closed.
pub(crate) type CloseFn = TypedFunc<(u32, u32), ()>;

/// The callbacks of an instance.
pub(crate) struct Exports {
    pub(crate) context_create: Option<TypedFunc<(u32, u32), ()>>,
    pub(crate) vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) configure: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) tick: Option<TypedFunc<u32, ()>>,
    pub(crate) queue_ready: Option<TypedFunc<(u32, u32), ()>>,
    pub(crate) http_call_response: Option<CallResponseFn>,
    pub(crate) grpc_initial_metadata: Option<GrpcFn>,
    pub(crate) grpc_receive: Option<GrpcFn>,
    pub(crate) grpc_trailing_metadata: Option<GrpcFn>,
    pub(crate) grpc_close: Option<GrpcFn>,
    pub(crate) foreign_function: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub(crate) request_headers: Option<HeadersFn>,
    pub(crate) request_body: Option<BodyFn>,
    pub(crate) request_trailers: Option<TrailersFn>,
    pub(crate) response_headers: Option<HeadersFn>,
    pub(crate) response_body: Option<BodyFn>,
    pub(crate) response_trailers: Option<TrailersFn>,
    pub(crate) new_connection: Option<TypedFunc<u32, u32>>,
    pub(crate) downstream_data: Option<BodyFn>,
    pub(crate) downstream_close: Option<CloseFn>,
    pub(crate) upstream_data: Option<BodyFn>,
    pub(crate) upstream_close: Option<CloseFn>,
    pub(crate) done: Option<TypedFunc<u32, u32>>,
    pub(crate) log: Option<TypedFunc<u32, ()>>,
    pub(crate) delete: Option<TypedFunc<u32, ()>>,
}

impl Exports {
    /// Looks the callbacks up; of the stream's, those in `wanted`.
    pub(crate) fn of(instance: &Instance, store: &mut Store<VmState>, wanted: Callbacks) -> Exports {
        let want = |callback| wanted.contains(callback);
        Exports {
            context_create: find(instance, store, true, "proxy_on_context_create"),
            vm_start: find(instance, store, true, "proxy_on_vm_start"),
            configure: find(instance, store, true, "proxy_on_configure"),
            tick: find(instance, store, true, "proxy_on_tick"),
            queue_ready: find(instance, store, true, "proxy_on_queue_ready"),
            http_call_response: find(instance, store, true, "proxy_on_http_call_response"),
            grpc_initial_metadata: find(instance, store, true, "proxy_on_grpc_receive_initial_metadata"),
            grpc_receive: find(instance, store, true, "proxy_on_grpc_receive"),
            grpc_trailing_metadata: find(instance, store, true, "proxy_on_grpc_receive_trailing_metadata"),
            grpc_close: find(instance, store, true, "proxy_on_grpc_close"),
            foreign_function: find(
                instance,
                store,
                want(Callbacks::FOREIGN_FUNCTION),
                "proxy_on_foreign_function",
            ),
            request_headers: find_headers(
                instance,
                store,
                want(Callbacks::REQUEST_HEADERS),
                "proxy_on_request_headers",
            ),
            request_body: find(instance, store, want(Callbacks::REQUEST_BODY), "proxy_on_request_body"),
            request_trailers: find(
                instance,
                store,
                want(Callbacks::REQUEST_TRAILERS),
                "proxy_on_request_trailers",
            ),
            response_headers: find_headers(
                instance,
                store,
                want(Callbacks::RESPONSE_HEADERS),
                "proxy_on_response_headers",
            ),
            response_body: find(instance, store, want(Callbacks::RESPONSE_BODY), "proxy_on_response_body"),
            response_trailers: find(
                instance,
                store,
                want(Callbacks::RESPONSE_TRAILERS),
                "proxy_on_response_trailers",
            ),
            new_connection: find(instance, store, want(Callbacks::NEW_CONNECTION), "proxy_on_new_connection"),
            downstream_data: find(
                instance,
                store,
                want(Callbacks::DOWNSTREAM_DATA),
                "proxy_on_downstream_data",
            ),
            downstream_close: find(
                instance,
                store,
                want(Callbacks::DOWNSTREAM_CLOSE),
                "proxy_on_downstream_connection_close",
            ),
            upstream_data: find(instance, store, want(Callbacks::UPSTREAM_DATA), "proxy_on_upstream_data"),
            upstream_close: find(
                instance,
                store,
                want(Callbacks::UPSTREAM_CLOSE),
                "proxy_on_upstream_connection_close",
            ),
            // Root contexts are asked whether they are done, whatever the manifest says of streams.
            done: find(instance, store, true, "proxy_on_done"),
            log: find(instance, store, want(Callbacks::LOG), "proxy_on_log"),
            delete: find(instance, store, true, "proxy_on_delete"),
        }
    }
}

pub(crate) fn find<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<VmState>,
    wanted: bool,
    name: &str,
) -> Option<TypedFunc<P, R>> {
    if wanted { instance.get_typed_func(store, name).ok() } else { None }
}

fn find_headers(
    instance: &Instance,
    store: &mut Store<VmState>,
    wanted: bool,
    name: &str,
) -> Option<HeadersFn> {
    find(instance, store, wanted, name)
        .map(HeadersFn::Three)
        .or_else(|| find(instance, store, wanted, name).map(HeadersFn::Two))
}

/// The guest's allocator: the ABI's own name first, since TinyGo's `malloc` leaks what the host allocates.
pub(crate) fn allocator(
    instance: &Instance,
    store: &mut Store<VmState>,
    prefer_malloc: bool,
) -> Option<TypedFunc<u32, u32>> {
    let mut names = ["proxy_on_memory_allocate", "malloc"];
    if prefer_malloc {
        names.reverse();
    }
    names.into_iter().find_map(|name| find(instance, store, true, name))
}

/// Whether the module exports an allocator.
pub(crate) fn has_allocator(code: &wasmtime::Module) -> bool {
    ["proxy_on_memory_allocate", "malloc"].into_iter().any(|name| exported(code, name, 1, 1))
}

/// The stream callbacks the module exports with the right type.
pub(crate) fn callbacks(code: &wasmtime::Module) -> Callbacks {
    const STREAM: [(Callbacks, &str, usize, usize); 16] = [
        (Callbacks::REQUEST_HEADERS, "proxy_on_request_headers", 2, 1),
        (Callbacks::REQUEST_HEADERS, "proxy_on_request_headers", 3, 1),
        (Callbacks::REQUEST_BODY, "proxy_on_request_body", 3, 1),
        (Callbacks::REQUEST_TRAILERS, "proxy_on_request_trailers", 2, 1),
        (Callbacks::RESPONSE_HEADERS, "proxy_on_response_headers", 2, 1),
        (Callbacks::RESPONSE_HEADERS, "proxy_on_response_headers", 3, 1),
        (Callbacks::RESPONSE_BODY, "proxy_on_response_body", 3, 1),
        (Callbacks::RESPONSE_TRAILERS, "proxy_on_response_trailers", 2, 1),
        (Callbacks::NEW_CONNECTION, "proxy_on_new_connection", 1, 1),
        (Callbacks::DOWNSTREAM_DATA, "proxy_on_downstream_data", 3, 1),
        (Callbacks::DOWNSTREAM_CLOSE, "proxy_on_downstream_connection_close", 2, 0),
        (Callbacks::UPSTREAM_DATA, "proxy_on_upstream_data", 3, 1),
        (Callbacks::UPSTREAM_CLOSE, "proxy_on_upstream_connection_close", 2, 0),
        (Callbacks::DONE, "proxy_on_done", 1, 1),
        (Callbacks::LOG, "proxy_on_log", 1, 0),
        (Callbacks::FOREIGN_FUNCTION, "proxy_on_foreign_function", 3, 0),
    ];
    STREAM
        .into_iter()
        .filter(|(_, name, parameters, results)| exported(code, name, *parameters, *results))
        .fold(Callbacks::default(), |set, (callback, ..)| set.union(callback))
}

fn exported(code: &wasmtime::Module, name: &str, parameters: usize, results: usize) -> bool {
    let all_i32 = |ty: &FuncType| ty.params().chain(ty.results()).all(|ty| matches!(ty, ValType::I32));
    match code.get_export(name) {
        Some(ExternType::Func(ty)) => {
            ty.params().len() == parameters && ty.results().len() == results && all_i32(&ty)
        }
        _ => false,
    }
}
