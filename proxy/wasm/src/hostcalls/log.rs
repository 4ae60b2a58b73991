//! Logging.

use std::borrow::Cow;
use std::rc::Rc;

use super::{Functions, functions};
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

/// Writes a line, if the plugin's rate allows.
pub(super) fn write(call: &mut Call<'_>, level: LogLevel, line: &[u8]) -> Outcome {
    let host = Rc::clone(&call.state().host);
    let root = call.root()?;
    if level >= host.log_level() && root.core.may_log() {
        host.log(&root.core.spec, level, &printable(line));
    }
    Ok(())
}

/// Without control characters: a guest's line must not look like another line, or move a terminal's cursor.
fn printable(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if letter.is_control() { clean.extend(letter.escape_default()) } else { clean.push(letter) }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable(b"plain \xc3\xa9"), "plain é");
        assert_eq!(printable(b"a\nb\x1b[2J\0"), "a\\nb\\u{1b}[2J\\u{0}");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }
}
