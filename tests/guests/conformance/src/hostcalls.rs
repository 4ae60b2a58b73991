//! The host's functions, declared by hand, and callable by name.

/// Declares functions of one module of imports, and `call`, which finds them by name.
macro_rules! hostcalls {
    ($module:literal { $($name:ident ($($parameter:ty),*) $(-> $result:ident)?;)* }) => {
        #[link(wasm_import_module = $module)]
        unsafe extern "C" {
            $(hostcalls!(@declare $name ($($parameter),*) $($result)?);)*
        }

        /// Makes the hostcall of this name. `None`: there is none, or not with so many arguments.
        pub(crate) fn call(name: &str, arguments: &[u64]) -> Option<u32> {
            let mut rest = arguments.iter().copied();
            let mut next = || rest.next();
            let status = match name {
                // SAFETY: the pointers among the arguments are for the host to judge; that is what is being tested.
                $(stringify!($name) => unsafe { u32::from($name($(next()? as $parameter),*)) },)*
                _ => return None,
            };
            rest.next().is_none().then_some(status)
        }
    };
    (@declare $name:ident ($($parameter:ty),*)) => { fn $name($(_: $parameter),*) -> u32; };
}

/// The ABI's own.
pub(crate) mod env {
    hostcalls! { "env" {
        proxy_log(u32, u32, u32);
        proxy_get_log_level(u32);
        proxy_get_current_time_nanoseconds(u32);
        proxy_set_tick_period_milliseconds(u32);
        proxy_get_buffer_bytes(u32, u32, u32, u32, u32);
        proxy_set_buffer_bytes(u32, u32, u32, u32, u32);
        proxy_get_buffer_status(u32, u32, u32);
        proxy_get_configuration(u32, u32);
        proxy_get_header_map_size(u32, u32);
        proxy_get_header_map_pairs(u32, u32, u32);
        proxy_set_header_map_pairs(u32, u32, u32);
        proxy_get_header_map_value(u32, u32, u32, u32, u32);
        proxy_add_header_map_value(u32, u32, u32, u32, u32);
        proxy_replace_header_map_value(u32, u32, u32, u32, u32);
        proxy_remove_header_map_value(u32, u32, u32);
        proxy_get_property(u32, u32, u32, u32);
        proxy_set_property(u32, u32, u32, u32);
        proxy_continue_stream(u32);
        proxy_close_stream(u32);
        proxy_continue_request();
        proxy_continue_response();
        proxy_clear_route_cache();
        proxy_send_local_response(u32, u32, u32, u32, u32, u32, u32, u32);
        proxy_set_effective_context(u32);
        proxy_done();
        proxy_get_status(u32, u32, u32);
        proxy_http_call(u32, u32, u32, u32, u32, u32, u32, u32, u32, u32);
        proxy_grpc_call(u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32);
        proxy_grpc_stream(u32, u32, u32, u32, u32, u32, u32, u32, u32);
        proxy_grpc_send(u32, u32, u32, u32);
        proxy_grpc_cancel(u32);
        proxy_grpc_close(u32);
        proxy_get_shared_data(u32, u32, u32, u32, u32);
        proxy_set_shared_data(u32, u32, u32, u32, u32);
        proxy_register_shared_queue(u32, u32, u32);
        proxy_resolve_shared_queue(u32, u32, u32, u32, u32);
        proxy_enqueue_shared_queue(u32, u32, u32);
        proxy_dequeue_shared_queue(u32, u32, u32);
        proxy_define_metric(u32, u32, u32, u32);
        proxy_record_metric(u32, u64);
        proxy_increment_metric(u32, i64);
        proxy_get_metric(u32, u32);
        proxy_call_foreign_function(u32, u32, u32, u32, u32, u32);
        pthread_equal(u32, u32);
    } }
}

/// WASI's functions, in a module of imports of either name. Without `path_link`, which Envoy has with another type: it
/// would refuse this module.
macro_rules! wasi {
    ($rust:ident, $module:literal) => {
        pub(crate) mod $rust {
            hostcalls! { $module {
                args_get(u32, u32);
                args_sizes_get(u32, u32);
                environ_get(u32, u32);
                environ_sizes_get(u32, u32);
                clock_res_get(u32, u32);
                clock_time_get(u32, u64, u32);
                random_get(u32, u32);
                sched_yield();
                poll_oneoff(u32, u32, u32, u32);
                proc_raise(u32);
                fd_advise(u32, u64, u64, u32);
                fd_allocate(u32, u64, u64);
                fd_close(u32);
                fd_datasync(u32);
                fd_fdstat_get(u32, u32);
                fd_fdstat_set_flags(u32, u32);
                fd_fdstat_set_rights(u32, u64, u64);
                fd_filestat_get(u32, u32);
                fd_filestat_set_size(u32, u64);
                fd_filestat_set_times(u32, u64, u64, u32);
                fd_pread(u32, u32, u32, u64, u32);
                fd_prestat_get(u32, u32);
                fd_prestat_dir_name(u32, u32, u32);
                fd_pwrite(u32, u32, u32, u64, u32);
                fd_read(u32, u32, u32, u32);
                fd_readdir(u32, u32, u32, u64, u32);
                fd_renumber(u32, u32);
                fd_seek(u32, u64, u32, u32);
                fd_sync(u32);
                fd_tell(u32, u32);
                fd_write(u32, u32, u32, u32);
                path_create_directory(u32, u32, u32);
                path_filestat_get(u32, u32, u32, u32, u32);
                path_filestat_set_times(u32, u32, u32, u32, u64, u64, u32);
                path_open(u32, u32, u32, u32, u32, u64, u64, u32, u32);
                path_readlink(u32, u32, u32, u32, u32, u32);
                path_remove_directory(u32, u32, u32);
                path_rename(u32, u32, u32, u32, u32, u32);
                path_symlink(u32, u32, u32, u32, u32);
                path_unlink_file(u32, u32, u32);
                sock_accept(u32, u32, u32);
                sock_recv(u32, u32, u32, u32, u32, u32);
                sock_send(u32, u32, u32, u32, u32);
                sock_shutdown(u32, u32);
            } }
        }
    };
}

wasi!(preview1, "wasi_snapshot_preview1");
wasi!(unstable, "wasi_unstable");

/// Makes the hostcall of this name, wherever it belongs.
pub(crate) fn call(name: &str, arguments: &[u64]) -> Option<u32> {
    match name.strip_prefix("unstable.") {
        Some(name) => unstable::call(name, arguments),
        None => env::call(name, arguments).or_else(|| preview1::call(name, arguments)),
    }
}
