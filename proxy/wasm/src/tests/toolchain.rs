//! What compilers import beside the ABI, and the older ABI.

use super::world::*;
use crate::*;

/// A module that does this in its request headers callback.
fn guest(imports: &str, body: &str) -> Module {
    compile(&format!(
        r#"(module {imports}
        (memory (export "memory") 1)
        (data (i32.const 96) "\08\00\00\00d\00o\00n\00e\00")
        (data (i32.const 196) "\0c\00\00\00m\00a\00i\00n\00.\00t\00")
        (func (export "malloc") (param i32) (result i32) i32.const 1024)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {body} i32.const 0))"#
    ))
}

fn run(world: &World, module: Module) -> Result<HeadersAction, VmError> {
    let plugin = world.vms.plugin(PluginSpec::new("p", module, "").into()).unwrap();
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true)
}

#[test]
fn a_guest_in_assembly_script_says_why_it_aborts() {
    let world = World::new();
    let import = r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))"#;
    let abort = |message, file| {
        let call =
            format!("(call $abort (i32.const {message}) (i32.const {file}) (i32.const 7) (i32.const 9))");
        run(&world, guest(import, &call)).unwrap_err().to_string()
    };
    let error = abort("100", "200");
    assert!(error.contains("abort: done at main.t:7:9"), "{error}");
    let line = Event::Log(LogLevel::Critical, "abort: done at main.t:7:9".into());
    assert_eq!(world.take().iter().filter(|event| **event == line).count(), 1);
    for pointer in ["0", "3", "65536", "-1"] {
        let error = abort(pointer, pointer);
        assert!(error.contains("abort:  at :7:9"), "{error}");
    }
}

#[test]
fn helpers_of_other_compilers_are_there() {
    let world = World::new();
    let imports = r#"(import "env" "seed" (func $seed (result f64)))
        (import "env" "emscripten_notify_memory_growth" (func $growth (param i32)))
        (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))"#;
    let body = "(call $growth (i32.const 0))
        (if (i32.eqz (call $equal (i32.const 3) (i32.const 3))) (then unreachable))
        (if (call $equal (i32.const 3) (i32.const 4)) (then unreachable))
        (if (f64.lt (call $seed) (f64.const 0)) (then unreachable))";
    let module = guest(imports, body);
    assert!(module.stubs().is_empty());
    assert_eq!(run(&world, module).unwrap(), HeadersAction::Continue);
}

#[test]
fn every_function_of_wasi_is_there_in_both_modules() {
    let world = World::new();
    // Name, parameters, and what is answered about descriptors 1 and 9.
    let expected = [
        ("fd_advise", "i32 i64 i64 i32", 0, 0),
        ("fd_allocate", "i32 i64 i64", 0, 8),
        ("fd_close", "i32", 0, 8),
        ("fd_datasync", "i32", 0, 8),
        ("fd_fdstat_set_flags", "i32 i32", 52, 52),
        ("fd_fdstat_set_rights", "i32 i64 i64", 0, 8),
        ("fd_filestat_get", "i32 i32", 8, 8),
        ("fd_filestat_set_size", "i32 i64", 0, 8),
        ("fd_filestat_set_times", "i32 i64 i64 i32", 0, 8),
        ("fd_pread", "i32 i32 i32 i64 i32", 52, 52),
        ("fd_prestat_get", "i32 i32", 8, 8),
        ("fd_prestat_dir_name", "i32 i32 i32", 52, 52),
        ("fd_pwrite", "i32 i32 i32 i64 i32", 52, 52),
        ("fd_read", "i32 i32 i32 i32", 52, 52),
        ("fd_readdir", "i32 i32 i32 i64 i32", 20, 20),
        ("fd_renumber", "i32 i32", 58, 58),
        ("fd_seek", "i32 i64 i32 i32", 0, 8),
        ("fd_sync", "i32", 0, 8),
        ("fd_tell", "i32 i32", 0, 8),
        ("path_create_directory", "i32 i32 i32", 58, 58),
        ("path_filestat_get", "i32 i32 i32 i32 i32", 58, 58),
        ("path_filestat_set_times", "i32 i32 i32 i32 i64 i64 i32", 58, 58),
        ("path_link", "i32 i32 i32 i32 i32 i32 i32", 58, 58),
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", 44, 44),
        ("path_readlink", "i32 i32 i32 i32 i32 i32", 58, 58),
        ("path_remove_directory", "i32 i32 i32", 58, 58),
        ("path_rename", "i32 i32 i32 i32 i32 i32", 58, 58),
        ("path_symlink", "i32 i32 i32 i32 i32", 58, 58),
        ("path_unlink_file", "i32 i32 i32", 58, 58),
        ("sock_accept", "i32 i32 i32", 58, 58),
        ("sock_recv", "i32 i32 i32 i32 i32 i32", 58, 58),
        ("sock_send", "i32 i32 i32 i32 i32", 58, 58),
        ("sock_shutdown", "i32 i32", 58, 58),
        ("args_get", "i32 i32", 0, 0),
        ("args_sizes_get", "i32 i32", 0, 0),
        ("clock_res_get", "i32 i32", 0, 58),
        ("clock_time_get", "i32 i64 i32", 0, 58),
        ("environ_get", "i32 i32", 0, 0),
        ("environ_sizes_get", "i32 i32", 0, 0),
        ("fd_fdstat_get", "i32 i32", 0, 8),
        ("fd_write", "i32 i32 i32 i32", 0, 8),
        ("poll_oneoff", "i32 i32 i32 i32", 0, 0),
        ("random_get", "i32 i32", 0, 0),
    ];
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        for (name, parameters, about_log, about_nothing) in expected {
            let import =
                format!(r#"(import "{module}" "{name}" (func $f (param {parameters}) (result i32)))"#);
            let call = |first: u32, answer: u32| {
                let rest: String =
                    parameters.split(' ').skip(1).map(|ty| format!("({ty}.const 0)")).collect();
                format!(
                    "(if (i32.ne (call $f (i32.const {first}) {rest}) (i32.const {answer})) (then unreachable))"
                )
            };
            let body = call(1, about_log) + &call(9, about_nothing);
            let module = guest(&import, &body);
            assert!(module.stubs().is_empty(), "{name}");
            run(&world, module).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
