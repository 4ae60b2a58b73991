//! Modules: what is refused, what is stubbed, what is read from them.

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use crate::*;

const MINIMAL: &str = r#"(memory (export "memory") 1) (func (export "malloc") (param i32) (result i32) i32.const 1024)
    (func (export "proxy_abi_version_0_2_0"))"#;

fn binary(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {body})")).unwrap()
}

fn refused(bytes: &[u8]) -> String {
    engine().compile("m", bytes).map(drop).unwrap_err().to_string()
}

fn with_section(mut module: Vec<u8>, name: &str, content: &[u8]) -> Vec<u8> {
    let mut section = vec![name.len() as u8];
    section.extend(name.as_bytes());
    section.extend(content);
    module.extend([0, section.len() as u8]);
    module.extend(section);
    module
}

#[test]
fn what_is_no_filter_is_refused() {
    assert!(refused(b"").contains("not a WebAssembly module"));
    assert!(refused(b"\x7fELF").contains("not a WebAssembly module"));
    assert!(refused(b"\0asm\x0d\0\x01\0").contains("not a WebAssembly module"), "a component");
    assert!(refused(&binary("")).contains("proxy_abi_version"));
    let good = binary(MINIMAL);
    for end in 8..good.len() {
        assert!(engine().compile("m", &good[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(engine().compile("m", &good).unwrap().abi(), AbiVersion::V0_2_0);
    let abi = r#"(func (export "proxy_abi_version_0_2_1"))"#;
    let memory = r#"(memory (export "memory") 1)"#;
    assert!(refused(&binary(abi)).contains("no memory"));
    assert!(refused(&binary(&format!("{abi} {memory}"))).contains("proxy_on_memory_allocate"));
    let mistyped = r#"(func (export "malloc") (result i32) i32.const 0)"#;
    assert!(refused(&binary(&format!("{abi} {memory} {mistyped}"))).contains("proxy_on_memory_allocate"));
    let imported = format!(r#"(import "env" "table" (table 1 funcref)) {MINIMAL}"#);
    assert!(refused(&binary(&imported)).contains("env.table"));
}

#[test]
fn features_beyond_the_basics_are_off() {
    let beyond = [
        ("multi-memory", r#"(memory (export "m2") 1)"#),
        (
            "wide arithmetic",
            r#"(func (param i64) (drop (drop (i64.add128 (local.get 0) (local.get 0) (local.get 0) (local.get 0)))))"#,
        ),
        ("tail calls", r#"(func $f (return_call $f))"#),
        ("exceptions", r#"(tag $t) (func (throw $t))"#),
        (
            "relaxed SIMD",
            r#"(func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))"#,
        ),
        ("garbage collection", r#"(type $s (struct (field i32))) (func (drop (struct.new_default $s)))"#),
        (
            "typed function references",
            r#"(type $t (func)) (func (param (ref $t)) (call_ref $t (local.get 0)))"#,
        ),
        ("threads", r#"(func (drop (i32.atomic.load (i32.const 0))))"#),
        ("shared globals", r#"(global (shared i32) (i32.const 0))"#),
        ("stack switching", r#"(type $f (func)) (type $c (cont $f))"#),
        ("custom page sizes", r#"(memory 1 (pagesize 1))"#),
    ];
    for (feature, text) in beyond {
        let bytes = binary(&format!("{MINIMAL} {text}"));
        assert!(engine().compile("m", &bytes).is_err(), "{feature}");
    }
    for memory in ["(memory (export \"memory\") i64 1)", "(memory (export \"memory\") 1 1 shared)"] {
        let text = MINIMAL.replace(r#"(memory (export "memory") 1)"#, memory);
        assert!(engine().compile("m", &binary(&text)).is_err(), "{memory}");
    }
    let basics = r#"(func (param v128) (result v128) (i8x16.add (local.get 0) (local.get 0)))
        (func (result i32 i32) i32.const 1 i32.const 2) (func (param i32) (result i32) (i32.extend8_s (local.get 0)))
        (table 1 funcref) (global (mut i32) (i32.const 0))"#;
    assert!(engine().compile("m", &binary(&format!("{MINIMAL} {basics}"))).is_ok());
}

#[test]
fn sizes_are_bounded_before_compiling() {
    let bounds = ModuleBounds { functions: 3, function_bytes: 100, bytes: 2_000, ..ModuleBounds::default() };
    let compile =
        |text: &str| engine().compile_within("m", &binary(&format!("{MINIMAL} {text}")), &bounds).map(drop);
    assert_eq!(compile("(func)"), Ok(()));
    let too_large = |outcome: Result<(), ModuleError>, wanted: &str| match outcome {
        Err(ModuleError::TooLarge { what, .. }) => assert!(what.contains(wanted), "{what}"),
        other => panic!("{other:?}"),
    };
    too_large(compile("(func) (func)"), "functions");
    too_large(compile(&format!("(func {})", "nop ".repeat(100))), "one function");
    too_large(compile(&format!("(data (i32.const 0) \"{}\")", "x".repeat(2_000))), "bytes in the module");
}

#[test]
fn a_module_that_takes_too_long_to_compile_is_refused() {
    let body = "(drop (i32.add (i32.const 1) (i32.const 2)))".repeat(20_000);
    let bytes = binary(&format!("{MINIMAL} (func {body})"));
    let bounds = ModuleBounds { compile_time: Duration::from_nanos(1), ..ModuleBounds::default() };
    let error = engine().compile_within("m", &bytes, &bounds).map(drop).unwrap_err();
    assert_eq!(error, ModuleError::TooSlow { limit: Duration::from_nanos(1) });
}

#[test]
fn unknown_imports_are_stubs_of_their_own_type() {
    let text = r#"
        (import "env" "proxy_from_the_future" (func $future (param i32 i64) (result i32)))
        (import "wasi_snapshot_preview1" "fd_future" (func $wasi (result i32)))
        (import "env" "notify" (func $nothing (param f64)))
        (import "env" "odd" (func $odd (result i64)))
        (import "env" "proxy_done" (func $mistyped (param i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))
        (func (export "proxy_on_tick") (param i32) (drop (call $odd)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $nothing (f64.const 0))
            (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
            (i32.store (i32.const 0) (i32.add (i32.add (call $future (i32.const 0) (i64.const 0)) (call $wasi))
                                              (i32.add (call $mistyped (i32.const 0))
                                                       (call $equal (i32.const 3) (i32.const 3)))))
            (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
            (i32.const 0))"#;
    let module =
        engine().compile("m", &wat::parse_str(format!("(module {text} {MINIMAL})")).unwrap()).unwrap();
    let stubs = [
        "env.proxy_from_the_future",
        "wasi_snapshot_preview1.fd_future",
        "env.notify",
        "env.odd (traps)",
        "env.proxy_done",
    ];
    assert_eq!(module.stubs(), stubs);
    let world = World::new();
    let plugin = world.vms.plugin(Arc::new(PluginSpec::new("p", module, ""))).unwrap();
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    // 12 + 52 + 12 + 1 is a capital M.
    assert_eq!(world.take().last(), Some(&Event::Log(LogLevel::Info, "M".into())));
}

#[test]
fn wrongly_typed_callbacks_are_absent() {
    let text = r#"(func (export "proxy_on_request_headers") (param i32) (result i32) unreachable)
        (func (export "proxy_on_request_body") (param i32 i32 i32) unreachable)
        (func (export "proxy_on_configure") (param i32 i64) (result i32) unreachable)
        (func (export "proxy_on_response_headers") (param i32 i32) (result i32) (i32.const 1))"#;
    let world = World::new();
    let module = compile(&format!("(module {MINIMAL} {text})"));
    assert_eq!(module.callbacks(), Callbacks::RESPONSE_HEADERS);
    let plugin = world.vms.plugin(Arc::new(PluginSpec::new("p", module, "x"))).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    assert_eq!(stream.on_request_headers(true).unwrap(), HeadersAction::Continue);
    assert_eq!(stream.on_request_body(true).unwrap(), BodyAction::Continue);
    assert_eq!(stream.on_response_headers(true).unwrap(), HeadersAction::StopAllWatermark);
}

#[test]
fn the_manifest_is_read_and_says_what_need_not_be_called() {
    let manifest = br#"{"name":"m","callbacks":["request_headers","log","something_new"]}"#;
    let text = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) i32.const 0)
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) unreachable)
        (func (export "proxy_on_log") (param i32))
        (func (export "proxy_on_done") (param i32) (result i32) i32.const 1)"#;
    let plain = binary(&format!("{MINIMAL} {text}"));
    assert_eq!(manifest_section(&plain), Ok(None));
    let bytes = with_section(plain, "meshgate.manifest", manifest);
    assert_eq!(manifest_section(&bytes), Ok(Some(manifest.to_vec())));
    let module = engine().compile("m", &bytes).unwrap();
    assert_eq!(module.manifest(), Some(&manifest[..]));
    assert_eq!(module.callbacks(), Callbacks::REQUEST_HEADERS.union(Callbacks::LOG));
    let world = World::new();
    let plugin = world.vms.plugin(Arc::new(PluginSpec::new("p", module, ""))).unwrap();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    assert_eq!(stream.on_response_headers(true).unwrap(), HeadersAction::Continue, "not called");
    for broken in ["{", "[null]", "1", "null", r#"{"callbacks": {}}"#] {
        let bytes =
            with_section(binary(&format!("{MINIMAL} {text}")), "meshgate.manifest", broken.as_bytes());
        let module = engine().compile("m", &bytes).unwrap();
        assert!(module.callbacks().contains(Callbacks::RESPONSE_HEADERS), "{broken}");
    }
    assert!(manifest_section(b"\0asm\x01\0\0\0").is_err(), "no filter");
}

#[test]
fn too_much_initial_memory_is_told() {
    let module = compile(&format!("(module {})", MINIMAL.replace("\"memory\") 1)", "\"memory\") 300)")));
    let world = World::new();
    let error = world.vms.plugin(Arc::new(PluginSpec::new("large", module, ""))).map(drop).unwrap_err();
    let expected = "plugin `large`: cannot instantiate: the module's initial memory is more than the 16777216 bytes allowed";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn compiled_modules_are_kept_between_runs() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let options = EngineOptions { cache: Some(cache.clone()), max_instances: 10, ..Default::default() };
    let files =
        || -> Vec<_> { std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let bytes = binary(MINIMAL);
    Engine::new(options.clone()).unwrap().compile("m", &bytes).unwrap();
    let kept = files();
    assert_eq!(kept.len(), 3, "code, its authentication and the key: {kept:?}");
    let code =
        kept.iter().find(|path| path.extension().is_some_and(|extension| extension == "code")).unwrap();
    let sound = std::fs::read(code).unwrap();
    let engine = Engine::new(options.clone()).unwrap();
    let module = engine.compile("m", &bytes).unwrap();
    assert_eq!(module.abi(), AbiVersion::V0_2_0);
    // Damaged code is not run, but replaced.
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    std::fs::write(code, &damaged).unwrap();
    engine.compile("m", &bytes).unwrap();
    assert_eq!(std::fs::read(code).unwrap(), sound);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&cache).unwrap());
    assert_eq!(mode & 0o777, 0o700);
    // A directory that others can write to is not used.
    std::fs::set_permissions(&cache, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::remove_file(code).unwrap();
    Engine::new(options).unwrap().compile("m", &bytes).unwrap();
    assert_eq!(files().len(), 2);
}

#[test]
fn a_full_pool_is_nobodys_fault() {
    let engine = Engine::new(EngineOptions { max_instances: 1, ..Default::default() }).unwrap();
    let module = engine.compile("m", &binary(MINIMAL)).unwrap();
    let host = std::rc::Rc::new(FakeHost::default());
    let vms = Vms::new(engine, host, Shared::new());
    let _one = vms.plugin(Arc::new(PluginSpec::new("one", module.clone(), ""))).unwrap();
    let mut two = PluginSpec::new("two", module, "");
    two.vm_id = "2".into();
    assert!(matches!(vms.plugin(Arc::new(two)), Err(StartError::Overloaded { .. })));
}
