//! A response that a filter makes itself. Used by callbacks that answer instead of forwarding.

use serde::Serialize;

use crate::error::{Refused, Stop};
use crate::host::{self, LocalResponse};
use crate::{headers, log};

/// A response that a filter makes itself.
///
/// ```
/// use meshgate_sdk::{Outcome, Reply};
///
/// fn guard(token: Option<&str>) -> Outcome {
///     let token = token.ok_or_else(|| Reply::new(401).header("www-authenticate", "Bearer"))?;
///     if token == "old" {
///         return Reply::redirect("/login").into();
///     }
///     Ok(())
/// }
/// # assert!(guard(None).is_err() && guard(Some("old")).is_err() && guard(Some("new")).is_ok());
/// ```
///
/// ```
/// use meshgate_sdk::{Outcome, Reply, Stop};
///
/// #[derive(serde::Serialize)]
/// struct Problem {
///     title: &'static str,
/// }
///
/// fn too_many() -> Outcome {
///     let reply = Reply::json(429, &Problem { title: "slow down" })?;
///     reply.header("retry-after", "1").details("too_many").grpc_status(8).into()
/// }
/// # assert!(matches!(too_many(), Err(Stop::Reply(reply)) if reply.status() == 429));
/// ```
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    details: String,
    grpc_status: Option<u8>,
}

impl Reply {
    /// A response with this status, no fields and no body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), details: String::new(), grpc_status: None }
    }

    /// A redirect that clients follow with GET: 303.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self::redirect_with(303, location)
    }

    /// A redirect with a status of your choice: 301, 302, 303, 307 or 308.
    pub fn redirect_with(status: u16, location: impl Into<String>) -> Self {
        Self::new(status).header("location", location.into())
    }

    /// A response whose body is a value, written as JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON: a map whose keys are not text, for example.
    pub fn json(status: u16, value: &impl Serialize) -> Result<Self, Stop> {
        let body = serde_json::to_vec(value).map_err(Stop::failed)?;
        Ok(Self::new(status).header("content-type", "application/json").body(body))
    }

    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body. Its length and, if no field says otherwise, its type `text/plain` are added by the host.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a short word for the access log that says why, such as `token_expired`.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// Sets the status that a gRPC client gets; otherwise the host derives it from the HTTP status.
    #[must_use]
    pub fn grpc_status(mut self, status: u8) -> Self {
        self.grpc_status = Some(status);
        self
    }

    /// The response's status.
    pub fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn send(&self) -> Result<(), Refused> {
        let response = LocalResponse {
            status: self.status,
            details: &self.details,
            body: &self.body,
            headers: &headers::serialize(&self.headers),
            grpc_status: self.grpc_status.map_or(-1, i32::from),
        };
        host::send_local_response(response).map_err(|status| Refused::new("cannot answer", status))
    }
}

impl Stop {
    /// Answers the exchange whose context is the effective one.
    #[cold]
    pub(crate) fn answer(self, callback: &str) {
        let reply = match self {
            Self::Reply(reply) => reply,
            Self::Failed(message) => {
                log::line(log::Level::Error, &format!("{callback} failed: {message}"));
                Reply::new(500).details("filter_failed")
            }
            Self::Reset => {
                if let Err(status) = host::reset_exchange() {
                    log::line(log::Level::Error, &format!("{callback}: the host does not reset: {status}"));
                }
                return;
            }
        };
        if let Err(refused) = reply.send() {
            log::line(log::Level::Error, &format!("{callback}: {refused}"));
        }
    }
}
