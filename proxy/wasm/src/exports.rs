//! What a module exports for the host to call. A wrongly typed export counts as absent.

use wasmtime::{
    ExternType, Func, FuncType, Instance, Memory, ModuleExport, Store, TypedFunc, ValType, WasmParams,
    WasmResults,
};

use crate::action::Callbacks;
use crate::remains::Data;

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
pub(crate) type AllocatorFn = TypedFunc<u32, u32>;

/// An exported function that is called in one way, or one of a few.
trait Callable: Sized {
    fn of(function: &Func, store: &Store<Data>) -> Option<Self>;
}

impl<P: WasmParams, R: WasmResults> Callable for TypedFunc<P, R> {
    fn of(function: &Func, store: &Store<Data>) -> Option<Self> {
        function.typed(store).ok()
    }
}

impl Callable for HeadersFn {
    fn of(function: &Func, store: &Store<Data>) -> Option<HeadersFn> {
        let three = Callable::of(function, store).map(HeadersFn::Three);
        three.or_else(|| Callable::of(function, store).map(HeadersFn::Two))
    }
}

/// Exported functions: `field: type = "name"`, those of streams with the callback that must be wanted.
macro_rules! exports {
    ($($field:ident: $type:ty = $name:literal $(if $callback:ident)?;)*) => {
        /// Where a module's exports are. Looked up by name once per module, since a third of what it takes to start a VM would be that.
        pub(crate) struct Places {
            memory: Option<ModuleExport>,
            $($field: Option<ModuleExport>,)*
        }

        impl Places {
            /// Looks the functions up; of the stream's, those in `wanted`.
            pub(crate) fn of(code: &wasmtime::Module, wanted: Callbacks) -> Places {
                let nothing = Callbacks::default();
                Places {
                    memory: code.get_export_index("memory"),
                    $($field: {
                        let needs = nothing $(.union(Callbacks::$callback))?;
                        code.get_export_index($name).filter(|_| wanted.contains(needs))
                    },)*
                }
            }
        }

        /// The functions of an instance.
        pub(crate) struct Exports {
            $(pub(crate) $field: Option<$type>,)*
        }

        impl Exports {
            pub(crate) fn of(places: &Places, instance: &Instance, store: &mut Store<Data>) -> Exports {
                Exports { $($field: function(places.$field.as_ref(), instance, store),)* }
            }
        }
    };
}

exports! {
    initialize: TypedFunc<(), ()> = "_initialize";
    start: TypedFunc<(), ()> = "_start";
    main: TypedFunc<(u32, u32), u32> = "main";
    main_void: TypedFunc<(), u32> = "__main_void";
    allocate: AllocatorFn = "proxy_on_memory_allocate";
    malloc: AllocatorFn = "malloc";
    context_create: TypedFunc<(u32, u32), ()> = "proxy_on_context_create";
    vm_start: TypedFunc<(u32, u32), u32> = "proxy_on_vm_start";
    configure: TypedFunc<(u32, u32), u32> = "proxy_on_configure";
    tick: TypedFunc<u32, ()> = "proxy_on_tick";
    queue_ready: TypedFunc<(u32, u32), ()> = "proxy_on_queue_ready";
    http_call_response: CallResponseFn = "proxy_on_http_call_response";
    grpc_initial_metadata: GrpcFn = "proxy_on_grpc_receive_initial_metadata";
    grpc_receive: GrpcFn = "proxy_on_grpc_receive";
    grpc_trailing_metadata: GrpcFn = "proxy_on_grpc_receive_trailing_metadata";
    grpc_close: GrpcFn = "proxy_on_grpc_close";
    foreign_function: TypedFunc<(u32, u32, u32), ()> = "proxy_on_foreign_function" if FOREIGN_FUNCTION;
    request_headers: HeadersFn = "proxy_on_request_headers" if REQUEST_HEADERS;
    request_body: BodyFn = "proxy_on_request_body" if REQUEST_BODY;
    request_trailers: TrailersFn = "proxy_on_request_trailers" if REQUEST_TRAILERS;
    response_headers: HeadersFn = "proxy_on_response_headers" if RESPONSE_HEADERS;
    response_body: BodyFn = "proxy_on_response_body" if RESPONSE_BODY;
    response_trailers: TrailersFn = "proxy_on_response_trailers" if RESPONSE_TRAILERS;
    new_connection: TypedFunc<u32, u32> = "proxy_on_new_connection" if NEW_CONNECTION;
    downstream_data: BodyFn = "proxy_on_downstream_data" if DOWNSTREAM_DATA;
    downstream_close: CloseFn = "proxy_on_downstream_connection_close" if DOWNSTREAM_CLOSE;
    upstream_data: BodyFn = "proxy_on_upstream_data" if UPSTREAM_DATA;
    upstream_close: CloseFn = "proxy_on_upstream_connection_close" if UPSTREAM_CLOSE;
    // Root contexts are asked whether they are done, whatever the manifest says of streams.
    done: TypedFunc<u32, u32> = "proxy_on_done";
    log: TypedFunc<u32, ()> = "proxy_on_log" if LOG;
    delete: TypedFunc<u32, ()> = "proxy_on_delete";
}

fn function<F: Callable>(
    place: Option<&ModuleExport>,
    instance: &Instance,
    store: &mut Store<Data>,
) -> Option<F> {
    let function = instance.get_module_export(&mut *store, place?)?.into_func()?;
    F::of(&function, store)
}

impl Places {
    /// The instance's memory.
    pub(crate) fn memory(&self, instance: &Instance, store: &mut Store<Data>) -> Option<Memory> {
        instance.get_module_export(store, self.memory.as_ref()?)?.into_memory()
    }
}

impl Exports {
    /// The guest's allocator: the ABI's own name first, since TinyGo's `malloc` leaks what the host allocates. No longer
    /// among the others then.
    pub(crate) fn take_allocator(&mut self, prefer_malloc: bool) -> Option<AllocatorFn> {
        let malloc = self.malloc.take_if(|_| prefer_malloc || self.allocate.is_none());
        malloc.or_else(|| self.allocate.take())
    }
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
