//! Functions that compilers other than Rust's import beside the ABI.

use wasmtime::Caller;

use super::{Functions, log};
use crate::memory::{Allowed, Call, Parts, Stop, run, slice};
use crate::remains::Data;
use crate::status::LogLevel;

/// Bytes of an AssemblyScript string that are read.
const MAX_STRING: u32 = 8 << 10;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    // Emscripten.
    let notify = |_: Caller<'_, Data>, _: u32| {};
    functions.define_as("env", "emscripten_notify_memory_growth", "i>".into(), notify)?;
    let equal = |_: Caller<'_, Data>, a: u32, b: u32| u32::from(a == b);
    functions.define_as("env", "pthread_equal", "ii>i".into(), equal)?;
    // AssemblyScript.
    let abort = |caller: Caller<'_, Data>, message: u32, file: u32, line: u32, column: u32| {
        run(caller, Allowed::Always, |call| {
            let message = string(call, message)?;
            let file = string(call, file)?;
            let text = format!("abort: {message} at {file}:{line}:{column}");
            log::write(call, LogLevel::Critical, text.as_bytes())?;
            Err(Stop::Trap(wasmtime::Error::msg(text)))
        })
        .map(drop)
    };
    functions.define_as("env", "abort", "iiii>".into(), abort)?;
    let seed = |caller: Caller<'_, Data>| -> wasmtime::Result<f64> {
        let mut bytes = [0; 8];
        run(caller, Allowed::Always, |_| super::wasi::fill_random(&mut bytes))?;
        Ok((u64::from_le_bytes(bytes) >> 11) as f64)
    };
    functions.define_as("env", "seed", ">F".into(), seed)
}

/// A string of AssemblyScript: UTF-16, its length in bytes before it. What lies outside of the memory reads as
/// empty: the guest is about to end, and says why as well as it can.
fn string(call: &mut Call<'_>, pointer: u32) -> Result<String, Stop> {
    let Parts { memory, state } = call.parts();
    let length =
        pointer.checked_sub(4).and_then(|at| slice(memory, (at, 4)).ok()?.first_chunk::<4>().copied());
    let length = length.map_or(0, u32::from_le_bytes).min(MAX_STRING);
    let bytes = slice(memory, (pointer, length)).unwrap_or_default();
    state.running.charge_bytes(bytes.len())?;
    let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    Ok(char::decode_utf16(units).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}
