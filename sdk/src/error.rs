//! What a callback answers, and what can go wrong. Used by every filter.

use std::fmt;

use crate::host::Status;
use crate::reply::Reply;

/// What a callback returns: how to go on, or why not.
pub type Outcome = Result<Flow, Stop>;

/// How an exchange goes on after a callback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// On to the next filter.
    Continue,
    /// Wait.
    ///
    /// After headers: nothing more of this direction comes until a pending call's continuation returns
    /// [`Continue`](Self::Continue). After a part of a body: the part stays in the buffer, and the next callback sees
    /// the whole buffer.
    Pause,
}

/// Why an exchange does not go on: the error side of [`Outcome`], made by `?`.
#[derive(Debug)]
pub enum Stop {
    /// The filter answers by itself.
    Reply(Reply),
    /// The filter failed. The failure is logged, and the client gets a 500.
    Failed(String),
}

impl Stop {
    /// The filter failed, and this is what the log says about it.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::Failed(message.to_string())
    }
}

impl From<Reply> for Stop {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl From<Refused> for Stop {
    #[cold]
    fn from(refused: Refused) -> Self {
        Self::failed(refused)
    }
}

/// The host refused a hostcall.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused {
    what: String,
    status: Status,
}

impl Refused {
    #[cold]
    pub(crate) fn new(what: impl Into<String>, status: Status) -> Self {
        Self { what: what.into(), status }
    }

    /// What the host answered.
    pub fn status(&self) -> Status {
        self.status
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.status)
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Refused {}
