//! Modules in WebAssembly text, for tests that need to say exactly what a module does: one that stamps its version on
//! every message, and ones that misbehave in one callback.

/// What every module here begins with: the ABI's marker, a memory, an allocator that only moves forward.
pub(crate) const FRAME: &str = r#"
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 4096))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get $size)))
    ;; A test's few requests fit into a page; a run of many starts over long after the host has forgotten the oldest.
    (if (i32.gt_u (global.get $free) (i32.const 60000)) (then (global.set $free (i32.const 4096)))))
"#;

/// A module that adds `x-module: VERSION` to every request and every response.
pub fn stamp(version: u32) -> Vec<u8> {
    assemble(&format!(
        r#"(module
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  {FRAME}
  (data (i32.const 16) "x-module")
  (data (i32.const 32) "{version:08}")
  (func $stamp (param $map i32)
    (drop (call $add (local.get $map) (i32.const 16) (i32.const 8) (i32.const 32) (i32.const 8))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $stamp (i32.const 0)) (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $stamp (i32.const 2)) (i32.const 0)))"#
    ))
}

/// A module of these imports and these functions and data; below 4096 the memory is theirs.
pub fn written(imports: &str, code: &str) -> Vec<u8> {
    assemble(&format!("(module {imports} {FRAME} {code})"))
}

/// A way to misbehave.
#[derive(Clone, Copy, Debug)]
pub enum Misdeed {
    /// Never returns.
    Loop,
    /// Executes `unreachable`, as a panic does.
    Trap,
    /// Reads beyond its memory.
    OutOfBounds,
    /// Takes more memory for ever.
    Grow,
    /// Takes more memory until it gets none, and then gives up as Rust's allocator does.
    GrowAndTrap,
    /// Calls itself for ever.
    Recurse,
    /// Asks WASI to end the process.
    Exit,
}

impl Misdeed {
    /// All of them.
    pub const ALL: [Misdeed; 7] = [
        Misdeed::Loop,
        Misdeed::Trap,
        Misdeed::OutOfBounds,
        Misdeed::Grow,
        Misdeed::GrowAndTrap,
        Misdeed::Recurse,
        Misdeed::Exit,
    ];

    fn code(self) -> &'static str {
        match self {
            Misdeed::Loop => "(loop $again (br $again))",
            Misdeed::Trap => "unreachable",
            Misdeed::OutOfBounds => "(drop (i32.load (i32.const -4)))",
            Misdeed::Grow => "(loop $again (drop (memory.grow (i32.const 1))) (br $again))",
            Misdeed::GrowAndTrap => {
                "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"
            }
            Misdeed::Recurse => "(call $misbehave)",
            Misdeed::Exit => "(call $exit (i32.const 0))",
        }
    }
}

/// The callbacks of a stream in which `hostile` can misbehave, without `proxy_on_`, in the order in which they come.
pub const STREAM_CALLBACKS: [&str; 9] = [
    "request_headers",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
    "done",
    "log",
    "delete",
];

/// A module that does `misdeed` in `callback` (one of [`STREAM_CALLBACKS`], `context_create`, `http_call_response`,
/// `foreign_function`, `tick` or `configure`), and else lets everything pass.
///
/// In a stream's callback it does so only for requests that carry `x-misbehave`. For `http_call_response` such a request
/// makes a call to cluster `one` first, for `foreign_function` it wants to judge its tries. For `tick` it leaves a word in the shared data, which the next tick finds.
pub fn hostile(callback: &str, misdeed: Misdeed) -> Vec<u8> {
    assemble(&format!(
        r#"(module
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_http_call"
    (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $leave (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_shared_data" (func $look (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  {FRAME}
  (data (i32.const 16) "x-misbehave")
  (data (i32.const 32) "one")
  (data (i32.const 128) "meshgate.attempts")
  (data (i32.const 256) "{call}")
  (func $misbehave {code})
  ;; The streams of this worker are handled one after the other, and a stream's request headers stay readable to its end.
  (func $marked (result i32)
    (i32.eqz (call $get (i32.const 0) (i32.const 16) (i32.const 11) (i32.const 48) (i32.const 52))))
  {callbacks})"#,
        call = escaped(&pairs(&[(":method", "GET"), (":path", "/called"), (":authority", "one")])),
        code = misdeed.code(),
        callbacks = callbacks(callback),
    ))
}

const IF_MARKED: &str = "(if (call $marked) (then (call $misbehave)))";

fn callbacks(callback: &str) -> String {
    let function = |name: &str, signature: &str, code: &str| {
        format!("(func (export \"proxy_on_{name}\") {signature}\n    {code})\n  ")
    };
    let headers = "(param i32 i32 i32) (result i32)";
    match callback {
        "request_headers" | "response_headers" | "request_body" | "response_body" => {
            function(callback, headers, &format!("{IF_MARKED} (i32.const 0)"))
        }
        "request_trailers" | "response_trailers" => {
            function(callback, "(param i32 i32) (result i32)", &format!("{IF_MARKED} (i32.const 0)"))
        }
        // The maps may be gone by then, so the request's mark is remembered.
        "done" | "log" | "delete" => {
            let (result, value) =
                if callback == "done" { ("(result i32)", "(i32.const 1)") } else { ("", "") };
            let remembered = format!("(if (global.get $bad) (then (call $misbehave))) {value}");
            "(global $bad (mut i32) (i32.const 0))\n  ".to_owned()
                + &function("request_headers", headers, "(global.set $bad (call $marked)) (i32.const 0)")
                + &function(callback, &format!("(param i32) {result}"), &remembered)
        }
        // The root context has no parent; it must come up, or there would be no plugin. Without a callback of a stream, no
        // stream would be created.
        "context_create" => {
            function(callback, "(param i32 i32)", "(if (local.get 1) (then (call $misbehave)))")
                + &function("request_headers", headers, "(i32.const 0)")
        }
        "configure" => function(callback, "(param i32 i32) (result i32)", "(call $misbehave) (i32.const 1)"),
        "http_call_response" => {
            let call = "(if (call $marked) (then
      (drop (call $call (i32.const 32) (i32.const 3) (i32.const 256) (i32.const 69)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 56)))
      (return (i32.const 1)))) (i32.const 0)";
            function("request_headers", headers, call)
                + &function(callback, "(param i32 i32 i32 i32 i32)", "(call $misbehave)")
        }
        "foreign_function" => {
            let judge = "(if (call $marked) (then (drop (call $foreign (i32.const 128) (i32.const 17)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))) (i32.const 0)";
            function("request_headers", headers, judge)
                + &function(callback, "(param i32 i32 i32)", "(call $misbehave)")
        }
        "tick" => {
            let leave = "(if (call $marked) (then (drop (call $leave (i32.const 16) (i32.const 11)
      (i32.const 16) (i32.const 1) (i32.const 0))))) (i32.const 0)";
            // The word is taken away first: the VM that follows must not find it again.
            let look = "(drop (call $look (i32.const 16) (i32.const 11) (i32.const 64) (i32.const 68) (i32.const 72)))
    (if (i32.load (i32.const 68)) (then
      (drop (call $leave (i32.const 16) (i32.const 11) (i32.const 16) (i32.const 0) (i32.const 0)))
      (call $misbehave)))";
            function(
                "configure",
                "(param i32 i32) (result i32)",
                "(drop (call $tick (i32.const 20))) (i32.const 1)",
            ) + &function("request_headers", headers, leave)
                + &function(callback, "(param i32)", look)
        }
        other => panic!("no callback {other}"),
    }
}

/// The ABI's form of a header map: a count, the lengths, then names and values, each with a zero byte after it.
fn pairs(fields: &[(&str, &str)]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).expect("a small number").to_le_bytes();
    let mut bytes = number(fields.len()).to_vec();
    for (name, value) in fields {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for text in fields.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

pub(crate) fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}
