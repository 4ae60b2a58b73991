//! Random guests: valid modules that import the whole ABI and export every callback, with bodies made of hostcalls, memory,
//! branches, loops and recursion as the input's bytes choose. Each loads, and runs within its limits.

use std::fmt::Write;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::hostcalls::{functions, imports, wat_types};
use super::modules::exercise;
use super::{cases, changed, replay};
use crate::tests::puppet::CALLBACKS;
use crate::tests::world::*;

const TARGET: &str = "guests";

/// How deep statements nest.
const DEPTH: u32 = 4;
/// Functions that callbacks and each other call.
const INNER: u32 = 4;

fn run(bytes: &[u8]) {
    let _ = good_callbacks(bytes);
}

fn good_callbacks(bytes: &[u8]) -> usize {
    let text = Source { bytes, out: String::new() }.module();
    let module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    exercise(engine().compile("fuzz", &module).unwrap())
}

/// What is left of the input, and the text it has chosen so far.
struct Source<'a> {
    bytes: &'a [u8],
    out: String,
}

impl Source<'_> {
    /// The next byte; 0 when there are no more.
    fn byte(&mut self) -> u32 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        u32::from(*first)
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.byte() % limit
    }

    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn module(mut self) -> String {
        self.put("(module");
        self.out += &imports();
        self.put(
            "(memory (export \"memory\") 2) (table 4 4 funcref) (elem (i32.const 0) func $inner0 $inner1 $inner2)
            (global $free (mut i32) (i32.const 65536)) (global $a (mut i32) (i32.const 0))
            (func (export \"proxy_abi_version_0_2_1\"))
            (data (i32.const 64) \"known\") (data (i32.const 72) \":path\") (data (i32.const 80) \"request\\00path\")",
        );
        self.allocator();
        for index in 0..INNER {
            let _ = write!(self.out, "(func $inner{index} (param $x i32) (result i32) (local $y i32)");
            self.statements(DEPTH);
            self.value(2);
            self.put(")");
        }
        for (name, parameters, result) in CALLBACKS {
            self.callback(name, *parameters, result.is_some());
        }
        if self.below(8) == 1 {
            self.put("(func $start (local $x i32) (local $y i32)");
            self.statements(1);
            self.put(") (start $start)");
        }
        self.put(")");
        self.out
    }

    fn allocator(&mut self) {
        self.put("(func (export \"proxy_on_memory_allocate\") (param $x i32) (result i32) (local $y i32)");
        match self.below(8) {
            0 => self.put("(i32.const 0)"),
            1 => {
                self.statements(1);
                self.value(2);
            }
            _ => self.put(
                "(global.get $free)
                (global.set $free (i32.add (i32.const 65536)
                    (i32.and (i32.add (global.get $free) (local.get $x)) (i32.const 0x7fff))))",
            ),
        }
        self.put(")");
    }

    fn callback(&mut self, name: &str, parameters: usize, result: bool) {
        let parameters = " i32".repeat(parameters);
        let result = if result { "(result i32)" } else { "" };
        let _ = write!(
            self.out,
            "(func (export \"{name}\") (param{parameters}) {result} (local $x i32) (local $y i32)"
        );
        self.statements(DEPTH);
        if !result.is_empty() {
            // Mostly what lets things go on.
            match self.below(4) {
                0 => self.value(2),
                1 => self.put("(i32.const 0)"),
                _ => self.put("(i32.const 1)"),
            }
        }
        self.put(")");
    }

    fn statements(&mut self, depth: u32) {
        for _ in 0..self.below(5) {
            self.statement(depth);
        }
    }

    fn statement(&mut self, depth: u32) {
        match self.below(if depth == 0 { 10 } else { 14 }) {
            0 => self.around("(local.set $x ", ")"),
            1 => self.around("(global.set $a ", ")"),
            2 => {
                self.put("(i32.store ");
                self.value(1);
                self.around("", ")");
            }
            3 if self.below(4) == 0 => self.put("unreachable"),
            4 => self.around("(drop (memory.grow ", "))"),
            5..10 | 3 => self.hostcall(),
            10 => {
                self.around("(if ", " (then ");
                self.statements(depth - 1);
                self.put("))");
            }
            11 => {
                // For so many turns, or for ever.
                self.put("(local.set $y (i32.const 20)) (loop ");
                self.statements(depth - 1);
                self.put("(local.set $y (i32.sub (local.get $y) (i32.const 1))) (br_if 0 (local.get $y)))");
            }
            12 => {
                let index = self.below(INNER);
                self.around(&format!("(drop (call $inner{index} "), "))");
            }
            _ => {
                self.put("(drop (call_indirect (param i32) (result i32) ");
                self.value(1);
                self.around("", "))");
            }
        }
    }

    fn around(&mut self, before: &str, after: &str) {
        self.put(before);
        self.value(2);
        self.put(after);
    }

    fn hostcall(&mut self) {
        let all = functions();
        let index = (self.byte() as usize * 256 + self.byte() as usize) % all.len();
        let (parameters, results) = all[index].2.split_once('>').unwrap_or_default();
        self.put(if results.is_empty() { "(block " } else { "(drop " });
        let _ = write!(self.out, "(call $h{index}");
        for letter in parameters.chars() {
            match wat_types(&letter.to_string()).trim() {
                "i64" => self.put("(i64.const -1)"),
                _ => self.value(1),
            }
        }
        self.put("))");
    }

    /// A number: mostly one that means something.
    fn value(&mut self, depth: u32) {
        match self.below(if depth == 0 { 10 } else { 12 }) {
            0 => self.put("(local.get $x)"),
            1 => self.put("(global.get $a)"),
            2 => self.put("(i32.const -1)"),
            3 => self.put("(i32.const 131070)"),
            4 | 5 => {
                let address = 64 + 8 * self.below(16);
                self.put(&format!("(i32.const {address})"));
            }
            6..10 => {
                let number = self.below(16);
                self.put(&format!("(i32.const {number})"));
            }
            10 => {
                self.put("(i32.load ");
                self.value(depth - 1);
                self.put(")");
            }
            _ => {
                self.put("(i32.add ");
                self.value(depth - 1);
                self.value(depth - 1);
                self.put(")");
            }
        }
    }
}

#[test]
fn stored_inputs() {
    replay(TARGET, run);
}

#[test]
fn guests_do_something() {
    // Neither all of them fail, which would prove little, nor none of them.
    let mut random = TestRunner::deterministic();
    let bytes = prop::collection::vec(any::<u8>(), 2_000);
    let good: Vec<usize> =
        (0..20).map(|_| good_callbacks(&bytes.new_tree(&mut random).unwrap().current())).collect();
    assert!(good.iter().any(|good| *good >= 4) && good.contains(&0), "{good:?}");
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn changed_inputs(bytes in changed(TARGET)) {
        run(&bytes);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
        run(&bytes);
    }
}
