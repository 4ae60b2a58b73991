//! What compilers import beside the ABI: helpers of C++ and AssemblyScript, the end of a program; and imports that are not
//! there, or only in one other host.

use std::fmt::Write as _;

use meshgate_tests::{Ask, Backend, Meshgate, until, written};

/// What the table of the documentation says of imports that are not there.
const NO_SUCH_FUNCTION: u32 = 12;
const NOT_OFFERED: u32 = 52;

/// Function, parameters that are all zero, what it answers.
pub(super) const ANSWERS: &[(&str, &str, usize, u32)] = &[
    ("env", "pthread_equal", 2, 1),
    ("wasi_snapshot_preview1", "path_link", 7, 58),
    ("wasi_unstable", "path_link", 7, 58),
    ("env", "envoy_resolve_dns", 3, NO_SUCH_FUNCTION),
    ("env", "proxy_redis_init", 7, NO_SUCH_FUNCTION),
    ("env", "proxy_redis_call", 5, NO_SUCH_FUNCTION),
    ("env", "no_such_function", 1, NO_SUCH_FUNCTION),
    ("wasi_snapshot_preview1", "no_such_function", 1, NOT_OFFERED),
];

/// Where the answers are kept, a letter for each.
const LETTERS: usize = 1024;

#[tokio::test]
pub(super) async fn what_they_answer() {
    let (mut imports, mut calls) = (String::new(), String::new());
    for (place, (module, name, parameters, _)) in ANSWERS.iter().enumerate() {
        let (types, zeros) = (" i32".repeat(*parameters), " (i32.const 0)".repeat(*parameters));
        writeln!(imports, "(import \"{module}\" \"{name}\" (func $f{place} (param{types}) (result i32)))")
            .unwrap();
        let at = LETTERS + place;
        writeln!(calls, "(i32.store8 (i32.const {at}) (i32.add (i32.const 33) (call $f{place}{zeros})))")
            .unwrap();
    }
    let add =
        r#"(import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))"#;
    let beside = r#"(import "env" "emscripten_notify_memory_growth" (func $growth (param i32)))
        (import "env" "seed" (func $seed (result f64)))"#;
    let module = written(
        &format!("{imports} {add} {beside}"),
        &format!(
            r#"(data (i32.const 16) "x-answers")
            (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
              {calls}
              (call $growth (i32.const 0))
              ;; Two seeds differ, and are numbers that are not negative.
              (if (f64.eq (call $seed) (call $seed)) (then unreachable))
              (if (i32.eqz (f64.ge (call $seed) (f64.const 0))) (then unreachable))
              (call $add (i32.const 2) (i32.const 16) (i32.const 9) (i32.const {LETTERS}) (i32.const {count})))"#,
            count = ANSWERS.len()
        ),
    );
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- odd").filter("odd", &module, "").cluster("one", &[&one]).start().await;
    let reply = gate.get("/").await;
    let answers: Vec<_> = reply.header("x-answers").bytes().map(|letter| u32::from(letter) - 33).collect();
    let expected: Vec<_> = ANSWERS.iter().map(|(.., answer)| *answer).collect();
    assert_eq!(answers, expected);
    // What is not there is named, once, and nothing else is.
    let missing = |name: &&str| {
        name.starts_with("no_such") || name.starts_with("proxy_redis") || *name == "envoy_resolve_dns"
    };
    for name in ANSWERS.iter().map(|(_, name, ..)| *name).filter(missing) {
        gate.log().wait(name, |line| line.contains(&format!(".{name}")).then_some(())).await;
    }
    assert!(!gate.log().all().iter().any(|line| line.contains("path_link") || line.contains(".seed")));
}

/// A module that does this for requests with `x-end`.
fn ending(imports: &str, data: &str, end: &str) -> Vec<u8> {
    let get =
        r#"(import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))"#;
    written(
        &format!("{imports} {get}"),
        &format!(
            r#"(data (i32.const 16) "x-end") {data}
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
              (if (i32.eqz (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 36)))
                (then {end}))
              (i32.const 0))"#
        ),
    )
}

/// Requests with `x-end` fail, with these words in the log; those without pass, before and after.
async fn fails(module: &[u8], words: &str) {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- ends").filter("ends", module, "").cluster("one", &[&one]).start().await;
    for _ in 0..2 {
        assert_eq!(gate.get("/").await.status, 200);
        let reply = gate.call(Ask::get("/").header("x-end", "1")).await;
        assert!(reply.status.is_server_error(), "{reply:?}");
    }
    assert_eq!((gate.get("/").await.status.as_u16(), one.requests()), (200, 3));
    until(format!("`{words}` in the log"), || async {
        gate.log().all().iter().any(|line| line.contains(words)).then_some(())
    })
    .await;
}

const ABORT: &str = r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))"#;

#[tokio::test]
pub(super) async fn a_guest_that_aborts() {
    let data = r#"(data (i32.const 96) "\08\00\00\00d\00o\00n\00e\00") (data (i32.const 196) "\0c\00\00\00m\00a\00i\00n\00.\00t\00")"#;
    let end = "(call $abort (i32.const 100) (i32.const 200) (i32.const 7) (i32.const 9))";
    fails(&ending(ABORT, data, end), "abort: done at main.t:7:9").await;
}

/// A string of AssemblyScript at this address: UTF-16, its length in bytes before it.
fn string(at: usize, text: &str) -> String {
    let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    let bytes: String = length.iter().chain(&text).map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {}) \"{bytes}\")", at - 4)
}

/// What it says, and what its functions are called, is no line of its own in the log, and no command for a terminal.
#[tokio::test]
async fn what_a_guest_says_of_its_failure_stays_on_its_line() {
    let data =
        string(100, "done\n2026-01-01T00:00:00.000000Z ERROR forged\x1b[31m") + &string(400, "main\r.t");
    let function = r#"(func $named (@name "named\0a2026-01-01T00:00:00.000000Z ERROR forged\1b[31m")
        (call $abort (i32.const 100) (i32.const 400) (i32.const 7) (i32.const 9)))"#;
    let module = ending(ABORT, &(data + function), "(call $named)");
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- ends").filter("ends", &module, "").cluster("one", &[&one]).start().await;
    assert!(gate.call(Ask::get("/").header("x-end", "1")).await.status.is_server_error());
    let log = gate.stop().await.log;
    let forged: Vec<_> = log.iter().filter(|line| line.contains("forged")).collect();
    assert_eq!(forged.len(), 2, "what it said, and that it failed: {log:?}");
    let said = "done\\n2026-01-01T00:00:00.000000Z ERROR forged\\u{1b}[31m at main\\r.t:7:9";
    assert!(forged.iter().all(|line| line.contains(said)), "{forged:?}");
    let named = "(in named\\n2026-01-01T00:00:00.000000Z ERROR forged\\u{1b}[31m < ";
    assert_eq!(forged.iter().filter(|line| line.contains(named)).count(), 1, "{forged:?}");
    assert!(!log.iter().any(|line| line.contains(char::is_control)), "{log:?}");
}

#[tokio::test]
pub(super) async fn a_guest_that_exits() {
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        let import = format!(r#"(import "{module}" "proc_exit" (func $exit (param i32)))"#);
        for code in [0, 3] {
            fails(&ending(&import, "", &format!("(call $exit (i32.const {code}))")), "exit").await;
        }
        // While it starts, 0 is the normal end, and anything else a failure.
        for (code, starts) in [(0, true), (3, false)] {
            let start = format!(r#"(func (export "_start") (call $exit (i32.const {code})))"#);
            let one = Backend::echo("one").await;
            let setup = Meshgate::chain("- ends").filter("ends", &written(&import, &start), "");
            let setup = setup.cluster("one", &[&one]);
            if starts {
                assert_eq!(setup.start().await.get("/").await.status, 200);
            } else {
                assert_ne!(setup.start_refused().await.code, Some(0));
            }
        }
    }
}
