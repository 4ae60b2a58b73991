//! Why something in this crate failed: an engine, a module, the start of a plugin, a callback.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that a message has of a text that comes from a guest or its module.
pub(crate) const MAX_TEXT: usize = 1 << 10;

/// Why an [`crate::Engine`] cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly engine cannot start: {0}")]
pub struct EngineError(pub(crate) String);

/// Why a module cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// Not a WebAssembly module in binary form.
    #[error("not a WebAssembly module: {}", excerpt(.0, MAX_TEXT))]
    NotWasm(String),
    /// No `proxy_abi_version_*` export of a version we speak.
    #[error("not a Proxy-Wasm module: it exports none of proxy_abi_version_0_1_0, _0_2_0, _0_2_1")]
    NoAbi,
    /// Larger than allowed.
    #[error("{what}: {found} is more than the {limit} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// An export that every Proxy-Wasm module needs is missing.
    #[error("the module exports no {0}")]
    Missing(&'static str),
    /// An import that is not a function.
    #[error(
        "the module imports `{}.{}`, which is not a function",
        excerpt(.module, MAX_TEXT),
        excerpt(.name, MAX_TEXT)
    )]
    Import {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// The compiler refused it.
    #[error("the module cannot be compiled: {}", excerpt(.0, MAX_TEXT))]
    Compile(String),
    /// The compiler did not come to an end.
    #[error("the module takes longer than {limit:?} to compile")]
    TooSlow {
        /// How long it may take.
        limit: Duration,
    },
}

/// Why a plugin cannot start.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The module could not be instantiated.
    #[error("plugin `{plugin}`: cannot instantiate: {reason}")]
    Instantiate {
        /// The plugin's name.
        plugin: String,
        /// Why not.
        reason: String,
    },
    /// `proxy_on_vm_start` or `proxy_on_configure` returned false.
    #[error("plugin `{plugin}`: {callback} refused the configuration")]
    Refused {
        /// The plugin's name.
        plugin: String,
        /// The callback.
        callback: &'static str,
    },
    /// A callback failed.
    #[error(transparent)]
    Failed(VmError),
    /// It failed repeatedly; the next attempt is made after a pause.
    #[error("plugin `{plugin}`: in quarantine, as it keeps failing; next attempt in {retry_after:?}")]
    Quarantined {
        /// The plugin's name.
        plugin: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// There is no room for its instance now: the process has too many, or too much memory in use. Not its fault.
    #[error("plugin `{plugin}`: no room for another instance")]
    Overloaded {
        /// The plugin's name.
        plugin: String,
    },
    /// Replacing its VM over and over took too much time; the next replacement is made after a pause.
    #[error("plugin `{plugin}`: its VM was replaced too often, next attempt in {retry_after:?}")]
    BackingOff {
        /// The plugin's name.
        plugin: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// Why a callback did not finish. But for `Unavailable` and `Reentered`, the VM is not entered again after it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// The guest trapped.
    #[error("plugin `{plugin}`: {callback} trapped: {cause}{}", Trace(.frames))]
    Trap {
        /// The plugin's name.
        plugin: String,
        /// The callback, by its export's name.
        callback: &'static str,
        /// What happened. The guest may have said it, so it is short and without control characters.
        cause: String,
        /// The guest's call stack, innermost first.
        frames: Arc<[Frame]>,
    },
    /// The guest ran longer than it may.
    #[error("plugin `{plugin}`: {callback} ran longer than {limit:?}{}", Trace(.frames))]
    Deadline {
        /// The plugin's name.
        plugin: String,
        /// The callback.
        callback: &'static str,
        /// How long it may run.
        limit: Duration,
        /// Where it was.
        frames: Arc<[Frame]>,
    },
    /// The guest used up its memory, its stack or its hostcalls.
    #[error("plugin `{plugin}`: {callback} exceeded a limit: {what}{}", Trace(.frames))]
    Limit {
        /// The plugin's name.
        plugin: String,
        /// The callback.
        callback: &'static str,
        /// Which limit.
        what: String,
        /// Where it was.
        frames: Arc<[Frame]>,
    },
    /// The host itself failed inside a hostcall. A defect of ours, kept from spreading.
    #[error("plugin `{plugin}`: internal error in a hostcall from {callback}")]
    Host {
        /// The plugin's name.
        plugin: String,
        /// The callback.
        callback: &'static str,
    },
    /// The stream's VM failed earlier, in another callback.
    #[error("plugin `{plugin}`: its VM failed earlier")]
    Poisoned {
        /// The plugin's name.
        plugin: String,
    },
    /// There is no VM for the plugin now.
    #[error("{0}")]
    Unavailable(Box<StartError>),
    /// The plugin used more than its share of a worker that has no time to spare.
    #[error("plugin `{plugin}`: over its share of the CPU")]
    Shed {
        /// The plugin's name.
        plugin: String,
    },
    /// A callback was made from inside a hostcall.
    #[error("plugin `{plugin}`: {callback} called from inside of a hostcall")]
    Reentered {
        /// The plugin's name.
        plugin: String,
        /// The callback.
        callback: &'static str,
    },
}

impl VmError {
    /// All that [`VmError::cause`] answers.
    pub const CAUSES: [&str; 10] = [
        "trap",
        "deadline",
        "limit",
        "host",
        "poisoned",
        "unavailable",
        "quarantined",
        "overload",
        "cpu",
        "reentered",
    ];

    /// The response flag for the access log: `WL` for a limit, else `WT`.
    pub fn flag(&self) -> &'static str {
        match self {
            VmError::Deadline { .. } | VmError::Limit { .. } | VmError::Shed { .. } => "WL",
            VmError::Unavailable(error) if matches!(**error, StartError::Overloaded { .. }) => "WL",
            _ => "WT",
        }
    }

    /// When it makes sense to ask again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            VmError::Shed { .. } => Some(Duration::from_secs(1)),
            VmError::Unavailable(error) => match **error {
                StartError::Quarantined { retry_after, .. } | StartError::BackingOff { retry_after, .. } => {
                    Some(retry_after)
                }
                StartError::Overloaded { .. } => Some(Duration::from_secs(1)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The callback that failed, by its export's name; empty if none was made.
    pub fn callback(&self) -> &'static str {
        match self {
            VmError::Trap { callback, .. }
            | VmError::Deadline { callback, .. }
            | VmError::Limit { callback, .. }
            | VmError::Host { callback, .. }
            | VmError::Reentered { callback, .. } => callback,
            VmError::Poisoned { .. } | VmError::Unavailable(_) | VmError::Shed { .. } => "",
        }
    }

    /// One word for metrics and response details.
    pub fn cause(&self) -> &'static str {
        match self {
            VmError::Trap { .. } => "trap",
            VmError::Deadline { .. } => "deadline",
            VmError::Limit { .. } => "limit",
            VmError::Host { .. } => "host",
            VmError::Poisoned { .. } => "poisoned",
            VmError::Unavailable(error) => match **error {
                StartError::Quarantined { .. } | StartError::BackingOff { .. } => "quarantined",
                StartError::Overloaded { .. } => "overload",
                _ => "unavailable",
            },
            VmError::Shed { .. } => "cpu",
            VmError::Reentered { .. } => "reentered",
        }
    }
}

impl From<StartError> for VmError {
    fn from(error: StartError) -> VmError {
        VmError::Unavailable(Box::new(error))
    }
}

/// One frame of a guest's call stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The function's name, demangled, or its index. Modules name them: it is short and without control characters.
    pub function: String,
    /// Where in the module's file, in bytes.
    pub offset: Option<usize>,
}

struct Trace<'a>(&'a [Frame]);

impl fmt::Display for Trace<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, frame) in self.0.iter().enumerate() {
            out.write_str(if position == 0 { " (in " } else { " < " })?;
            out.write_str(&frame.function)?;
        }
        if self.0.is_empty() { Ok(()) } else { out.write_str(")") }
    }
}

/// What a guest or a module wrote, for people: without control characters, since it must not look like another line of
/// the log, or move a terminal's cursor.
pub(crate) fn printable(text: Cow<'_, str>) -> Cow<'_, str> {
    // Found out many bytes at a time, and nearly always so.
    let is_plain = text.bytes().fold(true, |plain, byte| plain & (b' '..=b'~').contains(&byte));
    if is_plain || !text.chars().any(char::is_control) {
        return text;
    }
    Cow::Owned(excerpt(&text, usize::MAX))
}

/// The beginning of what `value` says, likewise: so many bytes at most, and an ellipsis if there is more. What would come
/// behind them is not even made.
pub(crate) fn excerpt(value: impl fmt::Display, most: usize) -> String {
    let mut excerpt = Excerpt { text: String::new(), most };
    if write!(excerpt, "{value}").is_err() {
        excerpt.text.push('…');
    }
    excerpt.text
}

/// A text that takes no more than fits, and no control characters.
struct Excerpt {
    text: String,
    most: usize,
}

impl fmt::Write for Excerpt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|letter| self.write_char(letter))
    }

    fn write_char(&mut self, letter: char) -> fmt::Result {
        let escaped = letter.is_control().then(|| letter.escape_default());
        let length = escaped.as_ref().map_or(letter.len_utf8(), ExactSizeIterator::len);
        if length > self.most.saturating_sub(self.text.len()) {
            return Err(fmt::Error);
        }
        match escaped {
            Some(escaped) => self.text.extend(escaped),
            None => self.text.push(letter),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("plain é".into()), "plain é");
        assert_eq!(printable("a\nb\x1b[2J\0".into()), "a\\nb\\u{1b}[2J\\u{0}");
        assert_eq!(printable("\u{9b}2J\r".into()), "\\u{9b}2J\\r");
        assert_eq!(excerpt("a\nb", 80), "a\\nb");
    }

    #[test]
    fn an_excerpt_ends_with_a_whole_character() {
        assert_eq!(excerpt("four", 4), "four");
        assert_eq!(excerpt("fives", 4), "five…");
        assert_eq!(excerpt("éé", 3), "é…");
        assert_eq!(excerpt("\x1b\x1b", 7), "\\u{1b}…", "an escape is whole, or not there");
        assert_eq!(excerpt("", 0), "");
    }

    #[test]
    fn what_does_not_fit_is_not_made() {
        /// Says more than anybody waits for.
        struct Endless;

        impl fmt::Display for Endless {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    out.write_str("more ")?;
                }
            }
        }

        assert_eq!(excerpt(Endless, 9), "more more…");
    }

    #[test]
    fn what_a_module_says_stays_on_its_line() {
        let import = ModuleError::Import { module: "e\nv".into(), name: "\x1b[31m".into() };
        assert_eq!(import.to_string(), "the module imports `e\\nv.\\u{1b}[31m`, which is not a function");
        let long = ModuleError::NotWasm("x".repeat(100_000)).to_string();
        assert!(long.len() < 1_100 && long.ends_with("xx…"), "{long}");
    }
}
