//! The functions of WASI preview 1 that toolchains import. There are no files and no sockets: 1 and 2 are the
//! log, everything else does not exist.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use wasmtime::{Caller, FuncType, Val, ValType};

use super::clock::nanoseconds;
use super::{Functions, functions};
use crate::memory::{Allowed, Call, Outcome, Parts, Stop, run, slice, slice_mut};
use crate::remains::Data;
use crate::status::LogLevel;
use crate::trap::Exit;

/// The error numbers that are answered.
const BAD_FILE: u32 = 8;
const FAULT: u32 = 21;
const NO_ENTRY: u32 = 44;
const NOT_OFFERED: u32 = 52;
/// What the shared C++ host says of reading a directory; "not a directory" by Linux's numbers.
const NO_DIRECTORY: u32 = 20;
const NOT_SUPPORTED: u32 = 58;

/// Bytes of one write that are logged.
const MAX_LINE: usize = 16 << 10;
/// Parts of one write.
const MAX_PARTS: u32 = 1_024;
/// Random bytes that are fetched between two looks at the callback's time.
const RANDOM_PIECE: usize = 64 << 10;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        functions!(functions, module, Always, {
            "args_sizes_get" => args_sizes[count_at: u32, size_at: u32];
            "environ_get" => environ[list: u32, bytes: u32];
            "environ_sizes_get" => environ_sizes[count_at: u32, size_at: u32];
            "clock_res_get" => clock_resolution[id: u32, time_at: u32];
            "clock_time_get" => clock[id: u32, precision: u64, time_at: u32];
            "random_get" => random[bytes: u32, size: u32];
            "fd_write" => write[file: u32, parts: u32, count: u32, written_at: u32];
            "fd_fdstat_get" => file_status[file: u32, at: u32];
            "fd_tell" => tell[file: u32, offset_at: u32];
            "poll_oneoff" => poll[wanted: u32, events: u32, count: u32, happened_at: u32];
        });
        let exit = |caller: Caller<'_, Data>, code: u32| -> wasmtime::Result<()> {
            run(caller, Allowed::Always, |_| Err(Stop::Trap(wasmtime::Error::new(Exit(code))))).map(drop)
        };
        functions.define_as(module, "proc_exit", "i>".into(), exit)?;
        for (name, parameters, answer) in FIXED {
            define_fixed(functions, module, name, parameters, *answer)?;
        }
    }
    Ok(())
}

/// A function whose answer is known beforehand.
#[derive(Clone, Copy)]
enum Answer {
    Code(u32),
    /// 0 for the log, else that there is no such file.
    ForLog,
}

/// Names, parameters (`i` 32 bits, `I` 64 bits) and answers.
const FIXED: &[(&str, &str, Answer)] = &[
    ("args_get", "ii", Answer::Code(0)),
    ("sched_yield", "", Answer::Code(0)),
    ("fd_advise", "iIIi", Answer::Code(0)),
    ("fd_allocate", "iII", Answer::ForLog),
    ("fd_close", "i", Answer::ForLog),
    ("fd_datasync", "i", Answer::ForLog),
    ("fd_fdstat_set_flags", "ii", Answer::Code(NOT_OFFERED)),
    ("fd_fdstat_set_rights", "iII", Answer::ForLog),
    ("fd_filestat_get", "ii", Answer::Code(BAD_FILE)),
    ("fd_filestat_set_size", "iI", Answer::ForLog),
    ("fd_filestat_set_times", "iIIi", Answer::ForLog),
    ("fd_pread", "iiiIi", Answer::Code(NOT_OFFERED)),
    // Ends the C library's search for open directories.
    ("fd_prestat_get", "ii", Answer::Code(BAD_FILE)),
    ("fd_prestat_dir_name", "iii", Answer::Code(NOT_OFFERED)),
    ("fd_pwrite", "iiiIi", Answer::Code(NOT_OFFERED)),
    ("fd_read", "iiii", Answer::Code(NOT_OFFERED)),
    ("fd_readdir", "iiiIi", Answer::Code(NO_DIRECTORY)),
    ("fd_renumber", "ii", Answer::Code(NOT_SUPPORTED)),
    ("fd_seek", "iIii", Answer::ForLog),
    ("fd_sync", "i", Answer::ForLog),
    ("path_create_directory", "iii", Answer::Code(NOT_SUPPORTED)),
    ("path_filestat_get", "iiiii", Answer::Code(NOT_SUPPORTED)),
    ("path_filestat_set_times", "iiiiIIi", Answer::Code(NOT_SUPPORTED)),
    ("path_link", "iiiiiii", Answer::Code(NOT_SUPPORTED)),
    ("path_open", "iiiiiIIii", Answer::Code(NO_ENTRY)),
    ("path_readlink", "iiiiii", Answer::Code(NOT_SUPPORTED)),
    ("path_remove_directory", "iii", Answer::Code(NOT_SUPPORTED)),
    ("path_rename", "iiiiii", Answer::Code(NOT_SUPPORTED)),
    ("path_symlink", "iiiii", Answer::Code(NOT_SUPPORTED)),
    ("path_unlink_file", "iii", Answer::Code(NOT_SUPPORTED)),
    ("proc_raise", "i", Answer::Code(NOT_SUPPORTED)),
    ("sock_accept", "iii", Answer::Code(NOT_SUPPORTED)),
    ("sock_recv", "iiiiii", Answer::Code(NOT_SUPPORTED)),
    ("sock_send", "iiiii", Answer::Code(NOT_SUPPORTED)),
    ("sock_shutdown", "ii", Answer::Code(NOT_SUPPORTED)),
];

fn define_fixed(
    functions: &mut Functions,
    module: &'static str,
    name: &'static str,
    parameters: &str,
    answer: Answer,
) -> wasmtime::Result<()> {
    let kind = |letter| if letter == 'I' { ValType::I64 } else { ValType::I32 };
    let ty = FuncType::new(functions.linker.engine(), parameters.chars().map(kind), [ValType::I32]);
    let function = move |caller: Caller<'_, Data>, arguments: &[Val], results: &mut [Val]| {
        let is_log = matches!(arguments, [Val::I32(1 | 2), ..]);
        let code = run(caller, Allowed::Always, |_| match answer {
            Answer::Code(0) => Ok(()),
            Answer::ForLog if is_log => Ok(()),
            Answer::ForLog => Err(Stop::Code(BAD_FILE)),
            Answer::Code(code) => Err(Stop::Code(code)),
        })?;
        if let [result] = results {
            *result = Val::I32(code.cast_signed());
        }
        Ok(())
    };
    functions.linker.func_new(module, name, ty, function)?;
    functions.signatures.insert((module, name), format!("{parameters}>i"));
    Ok(())
}

fn args_sizes(call: &mut Call<'_>, count_at: u32, size_at: u32) -> Outcome {
    sizes(call, count_at, 0, size_at, 0)
}

fn environ_sizes(call: &mut Call<'_>, count_at: u32, size_at: u32) -> Outcome {
    let (count, size) = (call.state().environment_count, call.state().environment.len() as u32);
    sizes(call, count_at, count, size_at, size)
}

fn sizes(call: &mut Call<'_>, count_at: u32, count: u32, size_at: u32, size: u32) -> Outcome {
    faulty(call.write_u32(count_at, count))?;
    faulty(call.write_u32(size_at, size))
}

/// The log is always at its beginning.
fn tell(call: &mut Call<'_>, file: u32, offset_at: u32) -> Outcome {
    if !matches!(file, 1 | 2) {
        return Err(Stop::Code(BAD_FILE));
    }
    faulty(call.write_u64(offset_at, 0))
}

/// The plugin's own variables, never the process's.
fn environ(call: &mut Call<'_>, list: u32, bytes: u32) -> Outcome {
    let Parts { memory, state } = call.parts();
    let mut entry = u64::from(list);
    let mut at = u64::from(bytes);
    for variable in state.environment.split_inclusive(|byte| *byte == 0) {
        let (Ok(pointer), Ok(target)) = (u32::try_from(entry), u32::try_from(at)) else {
            return Err(Stop::Code(FAULT));
        };
        let fault = |_| Stop::Code(FAULT);
        slice_mut(memory, (pointer, 4)).map_err(fault)?.copy_from_slice(&target.to_le_bytes());
        let text = slice_mut(memory, (target, variable.len() as u32)).map_err(fault)?;
        text.copy_from_slice(variable);
        entry += 4;
        at += variable.len() as u64;
    }
    Ok(())
}

fn clock_resolution(call: &mut Call<'_>, id: u32, time_at: u32) -> Outcome {
    match id {
        0 | 1 => faulty(call.write_u64(time_at, 1)),
        _ => Err(Stop::Code(NOT_SUPPORTED)),
    }
}

fn clock(call: &mut Call<'_>, id: u32, _precision: u64, time_at: u32) -> Outcome {
    /// Guests take a monotonic time of 0 for "not set".
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let time = match id {
        0 => nanoseconds(SystemTime::now()),
        1 => u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1),
        _ => return Err(Stop::Code(NOT_SUPPORTED)),
    };
    let time = call.moment(time);
    faulty(call.write_u64(time_at, time))
}

/// Of any size within the budget and the time: libraries take a refusal for a broken machine.
fn random(call: &mut Call<'_>, bytes: u32, size: u32) -> Outcome {
    let Parts { memory, state } = call.parts();
    let out = slice_mut(memory, (bytes, size)).map_err(|_| Stop::Code(FAULT))?;
    state.running.charge_bytes(out.len())?;
    for piece in out.chunks_mut(RANDOM_PIECE) {
        state.running.in_time()?;
        fill_random(piece)?;
    }
    Ok(())
}

/// Random bytes from the system.
pub(super) fn fill_random(mut out: &mut [u8]) -> Outcome {
    while !out.is_empty() {
        let filled = rustix::rand::getrandom(&mut *out, rustix::rand::GetRandomFlags::empty());
        match filled {
            Ok(filled) => out = &mut out[filled..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Stop::Trap(wasmtime::Error::msg(format!("no random bytes: {error}")))),
        }
    }
    Ok(())
}

/// To the plugin's log: 1 as info, 2 as an error.
fn write(call: &mut Call<'_>, file: u32, parts: u32, count: u32, written_at: u32) -> Outcome {
    let level = match file {
        1 => LogLevel::Info,
        2 => LogLevel::Error,
        _ => return Err(Stop::Code(BAD_FILE)),
    };
    if count > MAX_PARTS {
        return Err(Stop::Code(FAULT));
    }
    let fault = |_| Stop::Code(FAULT);
    let Parts { memory, state } = call.parts();
    let mut line = Vec::new();
    let mut written = 0_u32;
    let list = slice(memory, (parts, count * 8)).map_err(fault)?;
    for part in list.as_chunks::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *part;
        let (pointer, length) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let bytes = slice(memory, (pointer, length)).map_err(fault)?;
        line.extend_from_slice(&bytes[..bytes.len().min(MAX_LINE - line.len())]);
        written = written.wrapping_add(length);
    }
    state.running.charge_bytes(line.len())?;
    faulty(call.write_u32(written_at, written))?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    super::log::write(call, level, line)
}

/// 1 and 2 can be written to; 24 bytes, all zero but the rights.
fn file_status(call: &mut Call<'_>, file: u32, at: u32) -> Outcome {
    const RIGHT_TO_WRITE: u8 = 64;
    if !matches!(file, 1 | 2) {
        return Err(Stop::Code(BAD_FILE));
    }
    let mut status = [0; 24];
    status[8] = RIGHT_TO_WRITE;
    faulty(call.parts().write(at, &status))
}

/// Nothing happened: Go's runtime ends the program on an error.
fn poll(call: &mut Call<'_>, _wanted: u32, _events: u32, _count: u32, happened_at: u32) -> Outcome {
    faulty(call.write_u32(happened_at, 0))
}

/// Bad memory has WASI's number, not the ABI's.
fn faulty(outcome: Outcome) -> Outcome {
    outcome.map_err(|stop| match stop {
        Stop::Code(_) => Stop::Code(FAULT),
        trap @ Stop::Trap(_) => trap,
    })
}
