//! Guests written as WebAssembly text: what they cost is the host's doing, not a compiler's or an SDK's.

/// How many hostcalls a [`Guest`] makes in one callback, so that entering the guest hardly counts.
pub const CALLS: u32 = 100;

/// What every guest has: the ABI's mark, memory, an allocator that reuses its space, and an accepted configuration.
pub const ABI: &str = r#"
  (memory (export "memory") 16)
  (global $free (mut i32) (i32.const 65536))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $at i32)
    (if (i32.gt_u (i32.add (global.get $free) (local.get $size)) (i32.const 1048576))
      (then (global.set $free (i32.const 65536))))
    (local.set $at (global.get $free))
    (global.set $free (i32.add (global.get $free) (local.get $size)))
    (local.get $at))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
"#;

/// A guest whose callbacks do nothing: context create, both heads, done, log, delete; with `bodies` also both bodies.
pub fn no_op(bodies: bool) -> Vec<u8> {
    let bodies = if bodies {
        r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))"#
    } else {
        ""
    };
    assemble(&format!(
        r#"(module {ABI} {bodies}
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_log") (param i32))
  (func (export "proxy_on_delete") (param i32)))"#
    ))
}

/// A guest that makes one hostcall [`CALLS`] times per callback, and traps when an answer is not the expected one.
pub struct Guest {
    /// The hostcall's name.
    pub function: &'static str,
    /// Its parameters' types, as in WebAssembly text.
    pub parameters: &'static str,
    /// The arguments, as instructions. Answers may be written to the addresses 0 to 15.
    pub arguments: String,
    /// What stands in memory from address 16 on.
    pub memory: Vec<u8>,
    /// The status that each call must answer.
    pub status: u32,
    /// The callback that calls: `proxy_on_request_headers` or `proxy_on_request_body`.
    pub callback: &'static str,
}

impl Guest {
    /// The module.
    pub fn module(&self) -> Vec<u8> {
        let Self { function, parameters, arguments, status, callback, .. } = self;
        let memory: String = self.memory.iter().map(|byte| format!("\\{byte:02x}")).collect();
        assemble(&format!(
            r#"(module
  (import "env" "{function}" (func $hostcall (param {parameters}) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set_shared_data (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_define_metric" (func $define_metric (param i32 i32 i32 i32) (result i32)))
  {ABI}
  (data (i32.const 16) "{memory}")
  (data (i32.const 32768) "the-name-of-something")
  ;; So that there is a value of shared data, and a counter whose id stands at address 32800.
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (i32.and
      (i32.eqz (call $set_shared_data
        (i32.const 32768) (i32.const 21) (i32.const 32768) (i32.const 21) (i32.const 0)))
      (i32.eqz (call $define_metric (i32.const 0) (i32.const 32768) (i32.const 21) (i32.const 32800)))))
  (func (export "{callback}") (param i32 i32 i32) (result i32)
    (local $left i32)
    (local.set $left (i32.const {CALLS}))
    (loop $again
      (if (i32.ne (call $hostcall {arguments}) (i32.const {status})) (then unreachable))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $again (local.get $left)))
    (i32.const 0)))"#
        ))
    }
}

fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the guest's text is correct")
}
