//! Bulk memory instructions in pieces. What the compiler makes of `memory.copy`, `memory.fill` and `memory.init` runs to its end,
//! whatever the guest's time: over 13 MB that are touched for the first time, for 13 to 18 ms. So, before a
//! module is compiled, those that may be long become calls of functions that go on in pieces and whose loops look at the time.

use std::borrow::Cow;
use std::ops::Range;

use wasm_encoder::{BlockType, Encode, Function, InstructionSink, Module, SectionId};
use wasmparser::{
    BinaryReader, BinaryReaderError, Data, DataKind, FunctionBody, Operator, Parser, Payload, TypeRef,
};

/// Bytes that an instruction may write at once: 16 pages, which the system has to find and clear if they are new.
const PIECE: u32 = 64 << 10;
/// `(func (param i32 i32 i32))` in the section for types.
const TYPE: [u8; 6] = [0x60, 3, 0x7f, 0x7f, 0x7f, 0];
const CALL: u8 = 0x10;
const NOP: u8 = 0x01;
/// The longest number of 32 bits, in bytes.
const LONGEST: usize = 5;

/// A module whose bulk memory instructions are short.
pub(crate) struct Pieces<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    pub(crate) layout: Layout,
}

/// How compiled code differs from the module as it came, for who tells people of places in it.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Functions of the module itself, imported ones included: those behind them have been added.
    functions: u32,
    /// Bytes by which code lies further behind.
    shift: usize,
}

impl Layout {
    /// Where in the module as it came this is; none for what has been added.
    pub(crate) fn original(self, function: u32, offset: Option<usize>) -> Option<Option<usize>> {
        (function < self.functions).then(|| offset.map(|offset| offset.saturating_sub(self.shift)))
    }
}

/// What may be long.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bulk {
    Copy,
    Fill,
    /// From a segment.
    Init(u32),
}

/// What was found in a module.
#[derive(Default)]
struct Found {
    types: u32,
    /// Imported and own.
    functions: u32,
    sections: Vec<(u8, Range<usize>)>,
    bodies: Vec<Range<usize>>,
    instructions: Vec<(Range<usize>, Bulk)>,
    /// Bytes of each segment.
    segments: Vec<usize>,
}

/// The module as it came if there is nothing to change. What is changed has to be found valid as it came, too: the functions that are
/// added could make references good that are not.
///
/// # Errors
/// Bytes that are no module.
pub(crate) fn in_pieces(bytes: &[u8]) -> Result<Pieces<'_>, BinaryReaderError> {
    let mut found = Found::default();
    for payload in Parser::new(0).parse_all(bytes) {
        found.note(payload?)?;
    }
    let Found { functions, segments, instructions, .. } = &mut found;
    instructions.retain(|(_, bulk)| match bulk {
        // Beyond its segment it fails at once.
        Bulk::Init(segment) => segments.get(*segment as usize).is_some_and(|length| *length > PIECE as usize),
        Bulk::Copy | Bulk::Fill => true,
    });
    let functions = *functions;
    if instructions.is_empty() {
        let layout = Layout { functions: u32::MAX, shift: 0 };
        return Ok(Pieces { bytes: Cow::Borrowed(bytes), layout });
    }
    let (bytes, shift) = found.rewritten(bytes)?;
    Ok(Pieces { bytes: Cow::Owned(bytes), layout: Layout { functions, shift } })
}

impl Found {
    fn note(&mut self, payload: Payload<'_>) -> Result<(), BinaryReaderError> {
        self.sections.extend(payload.as_section());
        match payload {
            Payload::TypeSection(groups) => {
                for group in groups {
                    self.types = self.types.saturating_add(group?.types().len() as u32);
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let function = matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                    self.functions = self.functions.saturating_add(function.into());
                }
            }
            // Nobody has counted them yet.
            Payload::FunctionSection(functions) => {
                self.functions = self.functions.saturating_add(functions.count());
            }
            Payload::CodeSectionEntry(body) => self.note_body(&body)?,
            Payload::DataSection(segments) => {
                for segment in segments {
                    let Data { kind, data, .. } = segment?;
                    self.segments.push(if matches!(kind, DataKind::Passive) { data.len() } else { 0 });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_body(&mut self, body: &FunctionBody<'_>) -> Result<(), BinaryReaderError> {
        self.bodies.push(body.range());
        let mut operators = body.get_operators_reader()?;
        let mut short = false;
        while !operators.eof() {
            let at = operators.original_position();
            let operator = operators.read()?;
            let bulk = match operator {
                Operator::MemoryCopy { dst_mem: 0, src_mem: 0 } => Some(Bulk::Copy),
                Operator::MemoryFill { mem: 0 } => Some(Bulk::Fill),
                Operator::MemoryInit { data_index, mem: 0 } => Some(Bulk::Init(data_index)),
                _ => None,
            };
            if let Some(bulk) = bulk.filter(|_| !short) {
                self.instructions.push((at..operators.original_position(), bulk));
            }
            // The length is what was put on the stack last.
            short = matches!(operator, Operator::I32Const { value } if value.cast_unsigned() <= PIECE);
        }
        Ok(())
    }

    /// The module with functions for these instructions, and how much further behind its code lies. All lengths are written at their
    /// longest, so that nothing moves to the front.
    fn rewritten(&self, bytes: &[u8]) -> Result<(Vec<u8>, usize), BinaryReaderError> {
        let mut helpers: Vec<Bulk> = self.instructions.iter().map(|(_, bulk)| *bulk).collect();
        helpers.sort_unstable();
        helpers.dedup();
        let mut signatures = Vec::new();
        helpers.iter().for_each(|_| number(&mut signatures, self.types, LONGEST));
        let mut out = Module::HEADER.to_vec();
        let mut shift = 0;
        for (id, range) in &self.sections {
            let content = &bytes[range.clone()];
            out.push(*id);
            if *id == SectionId::Type as u8 {
                section(&mut out, &longer(content, 1, &TYPE)?);
            } else if *id == SectionId::Function as u8 {
                section(&mut out, &longer(content, helpers.len(), &signatures)?);
            } else if *id == SectionId::Code as u8 {
                let (code, moved) = self.code(bytes, range.start, &helpers)?;
                shift = out.len() + LONGEST + moved - range.start;
                section(&mut out, &code);
            } else {
                section(&mut out, content);
            }
        }
        Ok((out, shift))
    }

    /// The section for code, and how much further behind the first body begins in it.
    fn code(
        &self,
        bytes: &[u8],
        start: usize,
        helpers: &[Bulk],
    ) -> Result<(Vec<u8>, usize), BinaryReaderError> {
        let mut count = BinaryReader::new(&bytes[start..], start);
        let bodies = count.read_var_u32()?;
        let mut end = count.original_position();
        let mut code = Vec::new();
        number(&mut code, bodies.saturating_add(helpers.len() as u32), LONGEST);
        let moved = code.len() - (end - start);
        let mut instructions = &self.instructions[..];
        for body in &self.bodies {
            let inside = instructions.partition_point(|(range, _)| range.start < body.end);
            let (own, others) = instructions.split_at(inside);
            instructions = others;
            let body_of_calls = self.body(bytes, body, own, helpers);
            // In as many bytes as it was: what is behind stays where it is.
            number(&mut code, body_of_calls.len() as u32, body.start - end);
            code.extend(body_of_calls);
            end = body.end;
        }
        helpers.iter().for_each(|helper| helper.in_pieces().encode(&mut code));
        Ok((code, moved))
    }

    /// A body with calls in the place of instructions, each as long as the instruction was if that can be: a `memory.fill` of three
    /// bytes has no room for a function behind the first 16,384.
    fn body(
        &self,
        bytes: &[u8],
        body: &Range<usize>,
        instructions: &[(Range<usize>, Bulk)],
        helpers: &[Bulk],
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(body.len());
        let mut from = body.start;
        for (range, bulk) in instructions {
            out.extend_from_slice(&bytes[from..range.start]);
            let begin = out.len();
            out.push(CALL);
            let place = helpers.partition_point(|helper| helper < bulk);
            number(&mut out, self.functions.saturating_add(place as u32), (range.len() - 1).min(LONGEST));
            let end = begin + range.len().max(out.len() - begin);
            out.resize(end, NOP);
            from = range.end;
        }
        out.extend_from_slice(&bytes[from..body.end]);
        out
    }
}

/// Writes a number of 32 bits in LEB128, in so many bytes at least.
fn number(out: &mut Vec<u8>, value: u32, width: usize) {
    let mut left = value;
    for written in 1_usize.. {
        let byte = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 && written >= width {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

fn section(out: &mut Vec<u8>, content: &[u8]) {
    number(out, content.len() as u32, LONGEST);
    out.extend_from_slice(content);
}

/// A section's content with so many entries more.
fn longer(content: &[u8], more: usize, entries: &[u8]) -> Result<Vec<u8>, BinaryReaderError> {
    let mut reader = BinaryReader::new(content, 0);
    let count = reader.read_var_u32()?;
    let mut out = Vec::new();
    number(&mut out, count.saturating_add(more as u32), LONGEST);
    out.extend_from_slice(&content[reader.original_position()..]);
    out.extend_from_slice(entries);
    Ok(out)
}

impl Bulk {
    /// The function that does as the instruction: its parameters are where to write, where from or what, and how many bytes.
    fn in_pieces(self) -> Function {
        let mut function = Function::new([]);
        let mut code = function.instructions();
        code.local_get(2).i32_const(PIECE.cast_signed()).i32_gt_u().if_(BlockType::Empty);
        match self {
            Bulk::Copy => {
                // The order in which no byte is overwritten before it was read.
                code.local_get(0).local_get(1).i32_le_u().if_(BlockType::Empty);
                self.forwards(&mut code);
                code.else_();
                self.backwards(&mut code);
                code.end();
            }
            Bulk::Fill | Bulk::Init(_) => self.forwards(&mut code),
        }
        code.end().local_get(0).local_get(1).local_get(2);
        self.at_once(&mut code);
        code.end();
        function
    }

    /// Piece by piece, until one is left. What does not lie in the memory fails when its turn comes: no guest is there to see what
    /// was written before that.
    fn forwards(self, code: &mut InstructionSink<'_>) {
        let piece = PIECE.cast_signed();
        code.loop_(BlockType::Empty).local_get(0).local_get(1).i32_const(piece);
        self.at_once(code);
        code.local_get(0).i32_const(piece).i32_add().local_set(0);
        if self != Bulk::Fill {
            code.local_get(1).i32_const(piece).i32_add().local_set(1);
        }
        code.local_get(2).i32_const(piece).i32_sub().local_tee(2);
        code.i32_const(piece).i32_gt_u().br_if(0).end();
    }

    /// From the end, until the first piece is left.
    fn backwards(self, code: &mut InstructionSink<'_>) {
        let piece = PIECE.cast_signed();
        code.loop_(BlockType::Empty);
        code.local_get(0).local_get(2).i32_const(piece).i32_sub().local_tee(2).i32_add();
        code.local_get(1).local_get(2).i32_add().i32_const(piece);
        self.at_once(code);
        code.local_get(2).i32_const(piece).i32_gt_u().br_if(0).end();
    }

    fn at_once(self, code: &mut InstructionSink<'_>) {
        match self {
            Bulk::Copy => code.memory_copy(0, 0),
            Bulk::Fill => code.memory_fill(0),
            Bulk::Init(segment) => code.memory_init(0, segment),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use wasmtime::{Engine, Instance, Module as Code, Store, TypedFunc};

    use super::*;

    const GUEST: &str = r#"(module
        (import "env" "say" (func))
        (memory (export "memory") 20)
        (data $long "\01\02\03PATTERN")
        (func (export "copy") (param i32 i32 i32)
            (memory.copy (local.get 0) (local.get 1) (local.get 2)))
        (func (export "fill") (param i32 i32 i32)
            (memory.fill (local.get 0) (local.get 1) (local.get 2)))
        (func (export "init") (param i32 i32 i32)
            (memory.init $long (local.get 0) (local.get 1) (local.get 2)))
        (func (export "drop") (data.drop $long))
        (func (export "trap") (param i32)
            (memory.copy (i32.const 0) (i32.const 9) (i32.const 65536))
            (if (local.get 0) (then (unreachable))))
        (start $begin)
        (func $begin (memory.fill (i32.const 0) (i32.const 7) (i32.const 1000)))
        (table funcref (elem 1 2)))"#;

    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let pattern: String =
            (0..200_000).map(|at: u32| format!("\\{:02x}", (at.wrapping_mul(at) >> 3) & 0xff)).collect();
        wat::parse_str(GUEST.replace("PATTERN", &pattern)).unwrap()
    });

    fn guest() -> Vec<u8> {
        BYTES.clone()
    }

    struct Running {
        store: Store<()>,
        instance: Instance,
    }

    impl Running {
        fn new(code: &Code) -> Running {
            let mut store = Store::new(code.engine(), ());
            let say = wasmtime::Func::wrap(&mut store, || ());
            let instance = Instance::new(&mut store, code, &[say.into()]).unwrap();
            let mut running = Running { store, instance };
            for (at, byte) in running.memory().iter_mut().enumerate() {
                *byte = ((at * 31) >> 7) as u8 ^ at as u8;
            }
            running
        }

        fn memory(&mut self) -> &mut [u8] {
            let memory = self.instance.get_memory(&mut self.store, "memory").unwrap();
            memory.data_mut(&mut self.store)
        }

        /// Whether it came back.
        fn call(&mut self, name: &str, arguments: (u32, u32, u32)) -> bool {
            let function: TypedFunc<(u32, u32, u32), ()> =
                self.instance.get_typed_func(&mut self.store, name).unwrap();
            function.call(&mut self.store, arguments).is_ok()
        }
    }

    #[test]
    fn what_is_done_in_pieces_is_what_is_done_at_once() {
        const MEMORY: u32 = 20 << 16;
        let (engine, bytes) = (Engine::default(), guest());
        let pieces = in_pieces(&bytes).unwrap();
        assert_ne!(pieces.bytes, &bytes[..]);
        let codes = [&bytes[..], &pieces.bytes[..]].map(|bytes| Code::new(&engine, bytes).unwrap());
        let places = [0, 1, 70_000, 5 * PIECE, MEMORY - PIECE, MEMORY, u32::MAX];
        for name in ["copy", "fill", "init"] {
            let mut both = codes.each_ref().map(Running::new);
            for length in [0, PIECE, PIECE + 1, 2 * PIECE, 200_003, 10 * PIECE + 1] {
                for (to, from) in places.iter().flat_map(|to| places.map(|from| (*to, from))) {
                    let arguments = (to, from, length);
                    let [one, other] = both.each_mut().map(|running| running.call(name, arguments));
                    assert_eq!(one, other, "{name} {arguments:?}");
                    if !one {
                        // The memory of who failed is nobody's any more.
                        both = codes.each_ref().map(Running::new);
                        continue;
                    }
                    let [one, other] = &mut both;
                    assert!(one.memory() == other.memory(), "{name} {arguments:?}");
                }
            }
        }
    }

    #[test]
    fn a_place_in_the_code_is_told_as_it_was() {
        let (engine, bytes) = (Engine::default(), guest());
        let pieces = in_pieces(&bytes).unwrap();
        let places = [&bytes[..], &pieces.bytes[..]].map(|bytes| {
            let Running { mut store, instance } = Running::new(&Code::new(&engine, bytes).unwrap());
            let trap: TypedFunc<u32, ()> = instance.get_typed_func(&mut store, "trap").unwrap();
            let error = trap.call(&mut store, 1).unwrap_err();
            let frame = error.downcast_ref::<wasmtime::WasmBacktrace>().unwrap().frames().first();
            frame.map(|frame| (frame.func_index(), frame.module_offset())).unwrap()
        });
        let [(function, as_it_came), (same, moved)] = places;
        assert_eq!((same, pieces.layout.original(same, moved)), (function, Some(as_it_came)));
        assert_ne!(moved, as_it_came);
        // The module imports one function and has six.
        assert_eq!(pieces.layout.original(7, Some(1_000)), None, "a function that was added");
    }

    proptest! {
        #[test]
        fn what_is_valid_stays_valid_and_nothing_else_does_harm(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..4),
        ) {
            let mut bytes = guest();
            for (place, byte, change) in changes {
                // Most of its bytes are a segment's.
                let at = place.index(300);
                match change {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    2 => drop(bytes.drain(at..(at + usize::from(byte)).min(bytes.len()))),
                    _ => {
                        let part = bytes[at..(at + usize::from(byte)).min(bytes.len())].to_vec();
                        drop(bytes.splice(at..at, part));
                    }
                }
            }
            let engine = Engine::default();
            let valid = Code::validate(&engine, &bytes).is_ok();
            match in_pieces(&bytes) {
                Ok(pieces) => prop_assert!(!valid || Code::validate(&engine, &pieces.bytes).is_ok()),
                Err(error) => prop_assert!(!valid, "{}", error),
            }
        }
    }

    #[test]
    fn what_has_two_sections_of_a_kind_is_no_module() {
        let bytes = guest();
        for kind in [SectionId::Type, SectionId::Function, SectionId::Code] {
            let sections =
                Parser::new(0).parse_all(&bytes).filter_map(|payload| payload.unwrap().as_section());
            let (id, range) = sections.into_iter().find(|(id, _)| *id == kind as u8).unwrap();
            let mut twice = bytes.clone();
            twice.push(id);
            section(&mut twice, &bytes[range]);
            assert!(in_pieces(&twice).is_err());
        }
    }

    #[test]
    fn a_module_with_short_instructions_only_stays_as_it_is() {
        let short = r#"(module (memory 1) (data $short "abc")
            (func (param i32)
                (memory.copy (local.get 0) (i32.const 0) (i32.const 65536))
                (memory.fill (local.get 0) (i32.const 0) (i32.const 100))
                (memory.init $short (local.get 0) (i32.const 0) (local.get 0))))"#;
        let bytes = wat::parse_str(short).unwrap();
        assert!(matches!(in_pieces(&bytes).unwrap().bytes, Cow::Borrowed(_)));
        let long = wat::parse_str(short.replace("65536", "65537")).unwrap();
        assert!(matches!(in_pieces(&long).unwrap().bytes, Cow::Owned(_)));
        assert!(in_pieces(&bytes[..bytes.len() - 1]).is_err());
    }
}
