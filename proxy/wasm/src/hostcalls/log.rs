//! Logging.

use std::rc::Rc;

use super::{Functions, functions};
use crate::error::printable;
use crate::memory::{Call, Outcome, Span};
use crate::status::{LogLevel, Status};

/// Bytes of a line that are kept.
const MAX_LINE: u32 = 16 << 10;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", Always, {
        "proxy_log" => log[level: u32, text: u32, length: u32];
        "proxy_get_log_level" => log_level[level_at: u32];
    });
    Ok(())
}

fn log(call: &mut Call<'_>, level: u32, text: u32, length: u32) -> Outcome {
    let level = LogLevel::from_abi(level).ok_or(Status::BadArgument)?;
    line(call, level, (text, length))
}

fn log_level(call: &mut Call<'_>, level_at: u32) -> Outcome {
    let level = call.state().host.log_level();
    call.write_u32(level_at, level as u32)
}

/// A line of the effective plugin, from the guest's memory.
fn line(call: &mut Call<'_>, level: LogLevel, (text, length): Span) -> Outcome {
    call.check((text, length))?;
    if level < call.state().host.log_level() {
        return Ok(());
    }
    let line = call.copy((text, length.min(MAX_LINE)))?;
    write(call, level, &line)
}

/// Writes a line, or its beginning, if the plugin's rate allows. What would look like another line is escaped.
pub(super) fn write(call: &mut Call<'_>, level: LogLevel, line: &[u8]) -> Outcome {
    let host = Rc::clone(&call.state().host);
    let root = call.root()?;
    if level >= host.log_level() && root.core.may_log() {
        let line = line.get(..MAX_LINE as usize).unwrap_or(line);
        host.log(&root.core.spec, level, &printable(String::from_utf8_lossy(line)));
    }
    Ok(())
}
