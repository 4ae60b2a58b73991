//! What a callback answers, and what can go wrong. Used by every filter.

use std::fmt;

use crate::host::Status;
use crate::reply::Reply;

/// What a callback returns: `Ok(())` lets the exchange go on, an error ends it.
///
/// ```
/// use meshgate_sdk::{Outcome, Reply};
///
/// fn only_get(method: &str) -> Outcome {
///     if method != "GET" {
///         return Reply::new(405).header("allow", "GET").into();
///     }
///     Ok(())
/// }
///
/// assert!(only_get("GET").is_ok());
/// assert!(only_get("PUT").is_err());
/// ```
pub type Outcome = Result<(), Stop>;

/// Why an exchange does not go on: the error side of [`Outcome`]. `?` makes it of a [`Reply`] and of every error of the SDK.
///
/// ```
/// use meshgate_sdk::{Outcome, Reply, Stop};
///
/// fn user(name: Option<&str>) -> Result<&str, Stop> {
///     let name = name.ok_or_else(|| Reply::new(401).body("who are you?"))?;
///     name.strip_prefix("user-").ok_or_else(|| Stop::failed("not one of our names"))
/// }
///
/// assert_eq!(user(Some("user-ann")).unwrap(), "ann");
/// assert!(matches!(user(None), Err(Stop::Reply(reply)) if reply.status() == 401));
/// assert!(matches!(user(Some("ann")), Err(Stop::Failed(_))));
/// ```
#[derive(Debug)]
pub enum Stop {
    /// The filter answers by itself.
    Reply(Reply),
    /// The filter failed. The failure is logged, and the client gets a 500.
    Failed(String),
    /// The exchange is broken off without a response: the client's connection is closed (HTTP/1.1), or its stream reset (HTTP/2).
    Reset,
}

impl Stop {
    /// The filter failed, and this is what the log says about it.
    #[cold]
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::Failed(message.to_string())
    }
}

impl From<Reply> for Stop {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Err(Stop::Reply(reply))
    }
}

impl From<Refused> for Stop {
    #[cold]
    fn from(refused: Refused) -> Self {
        Self::failed(refused)
    }
}

/// The host refused something: it does not offer it, does not allow it here, or a limit was reached.
///
/// `?` on it ends the exchange with a 500 and a line in the log.
///
/// ```no_run
/// use meshgate_sdk::{Refused, Request, Status};
///
/// fn mark(request: Request) -> Result<(), Refused> {
///     match request.headers().set("x-marked", "yes") {
///         Err(refused) if refused.status() == Status::BAD_ARGUMENT => Ok(()), // the request is on its way already
///         other => other,
///     }
/// }
/// ```
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
