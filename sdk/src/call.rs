//! HTTP calls that a filter makes while an exchange waits. Used through [`Exchange::call`](crate::Exchange::call).

use std::fmt;
use std::time::Duration;

use crate::config::ClusterName;
use crate::error::Refused;
use crate::headers::Headers;
use crate::host::{self, Buffer, Map, Status};
use crate::message;

/// A request of the filter's own, to one of the host's clusters.
#[derive(Clone, Debug)]
pub struct Call {
    cluster: String,
    method: String,
    path: String,
    authority: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: Duration,
}

impl Call {
    /// A request with this method and path. Without [`authority`](Self::authority) it carries the cluster's name as such,
    /// without [`timeout`](Self::timeout) it has five seconds.
    pub fn new(cluster: &ClusterName, method: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            cluster: cluster.as_str().to_owned(),
            method: method.into(),
            path: path.into(),
            authority: None,
            headers: Vec::new(),
            body: Vec::new(),
            timeout: Duration::from_secs(5),
        }
    }

    /// A `GET` request.
    pub fn get(cluster: &ClusterName, path: impl Into<String>) -> Self {
        Self::new(cluster, "GET", path)
    }

    /// A `POST` request with a body.
    pub fn post(cluster: &ClusterName, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new(cluster, "POST", path) }
    }

    /// Sets the authority.
    #[must_use]
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Bounds the time until the whole response is there.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts the call and returns its token.
    pub(crate) fn start(&self) -> Result<u32, Refused> {
        let authority = self.authority.as_deref().unwrap_or(&self.cluster);
        let mut headers =
            vec![(":method", self.method.as_str()), (":path", &self.path), (":authority", authority)];
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let body = (!self.body.is_empty()).then_some(self.body.as_slice());
        // In the ABI 0 means "no limit", and the number has 32 bits.
        let timeout = self.timeout.clamp(Duration::from_millis(1), Duration::from_millis(u32::MAX.into()));
        // This wrapper remembers which exchange the token belongs to. It hands through the two statuses that hosts answer.
        proxy_wasm::hostcalls::dispatch_http_call(&self.cluster, headers, body, Vec::new(), timeout).map_err(
            |status| {
                let number = if status == proxy_wasm::types::Status::BadArgument {
                    Status::BAD_ARGUMENT
                } else {
                    Status::INTERNAL_FAILURE
                };
                Refused::new(format!("cannot call the cluster {}", self.cluster), number)
            },
        )
    }
}

/// What came back from a call. Valid as long as the continuation runs that it was passed to.
#[derive(Debug)]
pub struct CallResponse {
    body_size: usize,
}

impl CallResponse {
    /// `num_headers` is 0 where there was no response.
    pub(crate) fn new(num_headers: usize, body_size: usize) -> Result<Self, CallFailed> {
        if num_headers == 0 {
            let reason = Headers::new(Map::CallHeaders).first(":dispatch_status");
            return Err(CallFailed { reason: reason.map(|value| value.to_text().into_owned()) });
        }
        Ok(Self { body_size })
    }

    /// The status; 0 if the host gave none.
    pub fn status(&self) -> u16 {
        message::status_of(&self.headers()).unwrap_or(0)
    }

    /// The head's fields, which can only be read.
    pub fn headers(&self) -> Headers {
        Headers::new(Map::CallHeaders)
    }

    /// The fields after the body, which can only be read.
    pub fn trailers(&self) -> Headers {
        Headers::new(Map::CallTrailers)
    }

    /// The whole body.
    ///
    /// # Errors
    /// The host gave no access to it.
    pub fn body(&self) -> Result<Vec<u8>, Refused> {
        if self.body_size == 0 {
            return Ok(Vec::new());
        }
        host::buffer(Buffer::CallBody, 0, self.body_size)
            .map_err(|status| Refused::new("cannot read the body of a call's response", status))
    }
}

/// A call without a response: it could not connect, took too long, or was cut off.
///
/// Some hosts make up a response with status 503 or 504 instead; then this does not appear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallFailed {
    reason: Option<String>,
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no response ({})", self.reason.as_deref().unwrap_or("the host gave no reason"))
    }
}

impl std::error::Error for CallFailed {}
