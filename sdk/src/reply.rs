//! A response that a filter makes itself. Used by callbacks that answer instead of forwarding.

use crate::error::Refused;
use crate::{headers, host};

/// A response that a filter makes itself: `Err(Reply::new(403).body("not for you"))?`.
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

    /// Sets a short word for the access log that says why, such as `jwt_expired`.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// Sets the status that a gRPC client gets.
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
        let headers = headers::serialize(&self.headers);
        let grpc_status = self.grpc_status.map_or(-1, i32::from);
        host::send_local_response(self.status, &self.details, &self.body, &headers, grpc_status)
            .map_err(|status| Refused::new("cannot answer", status))
    }
}
