//! A guest that makes the hostcalls its configuration names, in any callback, and logs what came of each. It declares the
//! host's functions by hand and has every callback of the ABI, so that no SDK stands between a test and the host.
//!
//! The configuration is a JSON object: callback → list of steps. A callback is named without `proxy_on_`; `root_` stands
//! before `context_create`, `done` and `delete` of root contexts; `#2` behind it means: only when that context enters it
//! for the second time, and before the other steps. Steps:
//!
//! | step | what it does |
//! |---|---|
//! | `["function", argument, …]` | makes the hostcall; functions of `wasi_unstable` have `unstable.` before their names |
//! | `{"return": n}` | what the callback answers; else 1 (true) in `vm_start`, `configure`, `done`, and 0 (Continue) |
//!
//! | argument | passed as |
//! |---|---|
//! | number | itself |
//! | `"text"`, `{"hex": "00ff"}`, `{"pairs": [["name", "value"]]}` | pointer and length of these bytes, of the serialized map |
//! | `{"parts": ["text"]}` | pointer and length of a list of pointers and lengths, WASI's vectors |
//! | `{"out": "word"}`, `{"out": "long"}` | pointer to 4, 8 bytes, whose number is reported |
//! | `{"out": "bytes"}` | two pointers: to an address and to a size, whose bytes are reported |
//! | `{"save": "name"}`, `{"saved": "name"}` | as `word`, and the number is kept; a number that was kept |
//! | `{"id": "context"}`, `"root"`, `"stream"` | the running context's id, its root's, that of the last stream created |
//!
//! After each callback it logs `conformance ` and an object: `phase`, `context`, `arguments`, `results` (for each hostcall
//! its status and what was reported; null for what the host did not write), `from` (the place of the first of them, when
//! they take several lines), `nested` if the callback came while another one was running.
#![allow(unsafe_code, reason = "this guest declares the ABI's functions and exports by hand")]

mod hostcalls;
mod memory;
mod state;

/// Defines exported callbacks: name, phase, parameters, and what is answered unless the configuration says otherwise.
macro_rules! callbacks {
    ($($export:ident $phase:literal ($id:ident $(, $parameter:ident)*) $(-> $default:literal)?;)*) => {
        $(callbacks!(@one $export $phase ($id $(, $parameter)*) $($default)?);)*
    };
    (@one $export:ident $phase:literal ($id:ident $(, $parameter:ident)*)) => {
        #[doc = concat!("Runs the steps for `", $phase, "`.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $export($id: u32 $(, $parameter: u32)*) {
            state::run($phase, $id, &[$($parameter),*], 0);
        }
    };
    (@one $export:ident $phase:literal ($id:ident $(, $parameter:ident)*) $default:literal) => {
        #[doc = concat!("Runs the steps for `", $phase, "`.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $export($id: u32 $(, $parameter: u32)*) -> u32 {
            state::run($phase, $id, &[$($parameter),*], $default)
        }
    };
}

callbacks! {
    proxy_on_vm_start "vm_start" (id, size) -> 1;
    proxy_on_configure "configure" (id, size) -> 1;
    proxy_on_tick "tick" (id);
    proxy_on_queue_ready "queue_ready" (id, queue);
    proxy_on_http_call_response "http_call_response" (id, token, headers, body, trailers);
    proxy_on_grpc_receive_initial_metadata "grpc_receive_initial_metadata" (id, token, headers);
    proxy_on_grpc_receive "grpc_receive" (id, token, size);
    proxy_on_grpc_receive_trailing_metadata "grpc_receive_trailing_metadata" (id, token, trailers);
    proxy_on_grpc_close "grpc_close" (id, token, code);
    proxy_on_foreign_function "foreign_function" (id, function, size);
    proxy_on_request_headers "request_headers" (id, count, end) -> 0;
    proxy_on_request_body "request_body" (id, size, end) -> 0;
    proxy_on_request_trailers "request_trailers" (id, count) -> 0;
    proxy_on_request_metadata "request_metadata" (id, count) -> 0;
    proxy_on_response_headers "response_headers" (id, count, end) -> 0;
    proxy_on_response_body "response_body" (id, size, end) -> 0;
    proxy_on_response_trailers "response_trailers" (id, count) -> 0;
    proxy_on_response_metadata "response_metadata" (id, count) -> 0;
    proxy_on_new_connection "new_connection" (id) -> 0;
    proxy_on_downstream_data "downstream_data" (id, size, end) -> 0;
    proxy_on_downstream_connection_close "downstream_connection_close" (id, peer);
    proxy_on_upstream_data "upstream_data" (id, size, end) -> 0;
    proxy_on_upstream_connection_close "upstream_connection_close" (id, peer);
    proxy_on_log "log" (id);
}

/// Says which version of the ABI this is.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Notes the new context, then runs the steps for `root_context_create` or `context_create`.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(id: u32, parent: u32) {
    state::create(id, parent);
    state::run(of(id, "root_context_create", "context_create"), id, &[parent], 0);
}

/// Runs the steps for `root_done` or `done`.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_done(id: u32) -> u32 {
    state::run(of(id, "root_done", "done"), id, &[], 1)
}

/// Runs the steps for `root_delete` or `delete`, then forgets the context.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(id: u32) {
    state::run(of(id, "root_delete", "delete"), id, &[], 0);
    state::forget(id);
}

fn of(id: u32, root: &'static str, stream: &'static str) -> &'static str {
    if state::is_root(id) { root } else { stream }
}
