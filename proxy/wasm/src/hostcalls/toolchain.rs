//! Functions that compilers other than Rust's import beside the ABI.

use wasmtime::Caller;

use super::Functions;
use crate::memory::{Allowed, run};
use crate::state::VmState;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    // Emscripten.
    let notify = |_: Caller<'_, VmState>, _: u32| {};
    functions.define_as("env", "emscripten_notify_memory_growth", "i>".into(), notify)?;
    let equal = |_: Caller<'_, VmState>, a: u32, b: u32| u32::from(a == b);
    functions.define_as("env", "pthread_equal", "ii>i".into(), equal)?;
    // AssemblyScript.
    let abort = |_: Caller<'_, VmState>, _: u32, _: u32, line: u32, column: u32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg(format!("the guest aborted at {line}:{column}")))
    };
    functions.define_as("env", "abort", "iiii>".into(), abort)?;
    let seed = |caller: Caller<'_, VmState>| -> wasmtime::Result<f64> {
        let mut bytes = [0; 8];
        run(caller, Allowed::Always, |_| super::wasi::fill_random(&mut bytes))?;
        Ok((u64::from_le_bytes(bytes) >> 11) as f64)
    };
    functions.define_as("env", "seed", ">F".into(), seed)
}
