//! A module, in WebAssembly text, that makes hostcalls as no SDK would and shows what came of each in a field: the value,
//! or the status. Which status a call gets is part of the ABI, because SDKs panic about the ones they do not expect.

use std::fmt::Write as _;

/// The callback in which the calls are made; their results become fields of the same message.
#[derive(Clone, Copy)]
pub(super) enum Phase {
    RequestHeaders,
    ResponseHeaders,
}

/// One hostcall.
pub(super) struct Call {
    /// The field that shows what came of it.
    pub(super) name: &'static str,
    /// The function, without `proxy_`.
    pub(super) function: &'static str,
    pub(super) arguments: &'static [Argument],
}

pub(super) enum Argument {
    Number(i64),
    /// A number of 64 bits.
    Long(i64),
    /// Pointer and length of these bytes.
    Bytes(&'static str),
    /// Where a pointer and a length are written: the field shows what they point to.
    Value,
    /// Where a number is written that the field does not show.
    Slot,
}

use Argument::{Bytes, Long, Number, Slot, Value};

/// Where `Value` and `Slot` point to.
const OUT: usize = 16;
/// Where the text of a status is put together.
const STATUS: usize = 64;
/// Where names and bytes begin.
const DATA: usize = 1024;

/// A module that makes these calls with every message.
pub(super) fn probe(phase: Phase, calls: &[Call]) -> Vec<u8> {
    let mut module = Module::default();
    let (callback, map) = match phase {
        Phase::RequestHeaders => ("proxy_on_request_headers", 0),
        Phase::ResponseHeaders => ("proxy_on_response_headers", 2),
    };
    for call in calls {
        module.make(call, map);
    }
    let Module { imports, data, body, .. } = module;
    let text = format!(
        r#"(module
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
{imports}
  (memory (export "memory") 4)
  (global $free (mut i32) (i32.const 65536))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get $size))))
  (data (i32.const {STATUS}) "status  ")
{data}
  (func $show (param $status i32) (param $map i32) (param $name i32) (param $length i32) (param $value i32)
    (if (i32.and (i32.eqz (local.get $status)) (local.get $value))
      (then (drop (call $add (local.get $map) (local.get $name) (local.get $length)
        (i32.load (i32.const {OUT})) (i32.load (i32.const {OUT} + 4)))))
      (else
        (i32.store8 (i32.const {last}) (i32.add (i32.const 48) (local.get $status)))
        (drop (call $add (local.get $map) (local.get $name) (local.get $length) (i32.const {STATUS}) (i32.const 8))))))
  (func (export "{callback}") (param i32 i32 i32) (result i32)
    (global.set $free (i32.const 65536))
{body}
    (i32.const 0)))"#,
        last = STATUS + 7,
    );
    let text = text.replace(&format!("(i32.const {OUT} + 4)"), &format!("(i32.const {})", OUT + 4));
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[derive(Default)]
struct Module {
    imports: String,
    imported: Vec<&'static str>,
    data: String,
    end: usize,
    body: String,
}

impl Module {
    fn make(&mut self, call: &Call, map: u32) {
        if !self.imported.contains(&call.function) {
            self.imported.push(call.function);
            let types: Vec<_> = call.arguments.iter().map(Argument::types).collect();
            let (function, types) = (call.function, types.join(" "));
            writeln!(
                self.imports,
                "  (import \"env\" \"proxy_{function}\" (func ${function} (param {types}) (result i32)))"
            )
            .unwrap();
        }
        let mut arguments = String::new();
        for argument in call.arguments {
            let text = match argument {
                Number(number) => format!(" (i32.const {number})"),
                Long(number) => format!(" (i64.const {number})"),
                Bytes(bytes) => self.put(bytes),
                Value => format!(" (i32.const {OUT}) (i32.const {})", OUT + 4),
                Slot => format!(" (i32.const {})", OUT + 8),
            };
            arguments.push_str(&text);
        }
        let name = self.put(call.name);
        let shows = u32::from(call.arguments.iter().any(|argument| matches!(argument, Value)));
        let function = call.function;
        writeln!(
            self.body,
            "    (call $show (call ${function}{arguments}) (i32.const {map}){name} (i32.const {shows}))"
        )
        .unwrap();
    }

    /// Puts bytes into the memory: their address and length.
    fn put(&mut self, bytes: &str) -> String {
        let at = DATA + self.end;
        let escaped: String = bytes.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(self.data, "  (data (i32.const {at}) \"{escaped}\")").unwrap();
        self.end += bytes.len();
        format!(" (i32.const {at}) (i32.const {})", bytes.len())
    }
}

impl Argument {
    fn types(&self) -> &'static str {
        match self {
            Long(_) => "i64",
            Number(_) | Slot => "i32",
            Bytes(_) | Value => "i32 i32",
        }
    }
}

/// A property: the segments of its path divided by NUL.
pub(super) const fn property(name: &'static str, arguments: &'static [Argument]) -> Call {
    Call { name, function: "get_property", arguments }
}
