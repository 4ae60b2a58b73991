//! HTTP calls that a filter makes while an exchange waits, or at a tick.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Cluster;
use crate::error::Stop;
use crate::headers::Pairs;
use crate::host::{self, HttpCall, Status};
use crate::reply::Reply;
use crate::runtime::calls::{self, HttpReply};
use crate::trace;

/// A request of the filter's own, to one of the host's clusters. It begins with [`Cluster::get`] and its like, and
/// [`send`](Self::send) makes it.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// use meshgate_sdk::CallError;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Config {
///     users: Cluster,
/// }
///
/// # struct WhoIs { users: Cluster }
/// # #[filter]
/// # impl Filter for WhoIs {
/// # fn configure(config: Config) -> Result<Self, ConfigError> { Ok(Self { users: config.users }) }
/// async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     let call = self.users.get("/me").header("accept", "text/plain").timeout(Duration::from_millis(200));
///     let name = match call.send().await {
///         Ok(response) => response.success()?.text().into_owned(),
///         Err(CallError::Timeout) => "somebody".to_owned(), // good enough
///         Err(other) => return Err(other.into()),           // 503, and a line in the log
///     };
///     exchange.request().headers().set("x-user", &name)?;
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
///
/// While a call is under way, other exchanges go on. If the exchange ends before the response is there, the callback that
/// waits is dropped where it stands, and with it the call: Meshgate breaks the request off; elsewhere it runs on until its timeout.
#[must_use = "a call is made by `.send().await`"]
#[derive(Clone, Debug)]
pub struct Call {
    cluster: String,
    method: Cow<'static, str>,
    path: String,
    authority: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: Duration,
}

impl Cluster {
    /// Begins a `GET` request to this cluster.
    pub fn get(&self, path: impl Into<String>) -> Call {
        self.request("GET", path)
    }

    /// Begins a `POST` request with a body to this cluster.
    pub fn post(&self, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Call {
        self.request("POST", path).body(body)
    }

    /// Begins a request to this cluster. Without [`authority`](Call::authority) it carries the cluster's name as such,
    /// without [`timeout`](Call::timeout) it has five seconds.
    ///
    /// ```
    /// # use meshgate_sdk::{Cluster, Stop};
    /// async fn order(shop: &Cluster, token: &str, items: &[u32]) -> Result<bool, Stop> {
    ///     let call = shop.request("PUT", "/orders/7").authority("shop.example").bearer_token(token);
    ///     let made = call.json(&items)?.send().await?;
    ///     let note = shop.request("PATCH", "/orders/7").header("content-type", "text/plain").body("urgent");
    ///     Ok(made.is_success() && note.send().await?.is_success())
    /// }
    /// ```
    pub fn request(&self, method: impl Into<Cow<'static, str>>, path: impl Into<String>) -> Call {
        Call {
            cluster: self.as_str().to_owned(),
            method: method.into(),
            path: path.into(),
            authority: None,
            headers: Vec::new(),
            body: Vec::new(),
            timeout: Duration::from_secs(5),
        }
    }
}

impl Call {
    /// Sets the authority.
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// Adds a field.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds the field `authorization: Bearer …`.
    pub fn bearer_token(self, token: impl fmt::Display) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Carries a trace on: of the exchange ([`trace_context`](crate::Exchange::trace_context)), or of a span
    /// ([`context`](crate::trace::Span::context)). Without one, nothing is added.
    pub fn trace(self, context: Option<trace::Context>) -> Self {
        context
            .iter()
            .flat_map(trace::Context::fields)
            .fold(self, |call, (name, value)| call.header(name, value))
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a body that is a value, written as JSON, and the `content-type` that belongs to it.
    ///
    /// # Errors
    /// The value cannot be written as JSON: a map whose keys are not text, for example.
    pub fn json(self, value: &impl Serialize) -> Result<Self, Stop> {
        let body = serde_json::to_vec(value).map_err(Stop::failed)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Bounds the time until the whole response is there.
    pub fn timeout(mut self, timeout: impl Into<Duration>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Makes the call and waits for the response, whatever its status.
    ///
    /// # Errors
    /// There is no response; [`CallError`] says why.
    pub async fn send(self) -> Result<CallResponse, CallError> {
        calls::place().await.map_err(CallError::from_status)?;
        let token = self.start().map_err(CallError::from_status)?;
        CallResponse::new(calls::http(token).await)
    }

    fn start(&self) -> Result<u32, Status> {
        let authority = self.authority.as_deref().unwrap_or(&self.cluster);
        let mut headers = Vec::with_capacity(self.headers.len() + 3);
        headers.extend([(":method", &*self.method), (":path", &self.path), (":authority", authority)]);
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        host::http_call(HttpCall {
            cluster: &self.cluster,
            headers,
            body: &self.body,
            timeout: bounded(self.timeout),
        })
    }
}

/// In the ABI 0 means "no limit", and the number of milliseconds has 32 bits, which some hosts take for signed.
pub(crate) fn bounded(timeout: Duration) -> Duration {
    timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX.unsigned_abs().into()))
}

/// What came back from a call.
///
/// ```no_run
/// # use meshgate_sdk::{CallError, CallResponse};
/// # fn look(response: CallResponse) -> Result<(), CallError> {
/// #[derive(serde::Deserialize)]
/// struct Quota { left: u32 }
///
/// let response = response.success()?;
/// if response.header("content-type").as_deref() == Some("application/json") {
///     let quota: Quota = response.json()?;
///     meshgate_sdk::info!("{} left", quota.left);
/// }
/// let (size, sum) = (response.body().len(), response.trailers().get("x-sum"));
/// meshgate_sdk::debug!("{}: {size} bytes, {sum:?}, {:?}", response.status(), response.headers());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CallResponse {
    status: u16,
    headers: Pairs,
    body: Vec<u8>,
    trailers: Pairs,
}

impl CallResponse {
    fn new(reply: HttpReply) -> Result<Self, CallError> {
        let headers = Pairs::new(reply.headers);
        let Some(status) = headers.get(":status").and_then(|status| status.parse().ok()) else {
            return Err(CallError::from_reason(&reply.reason.unwrap_or_default()));
        };
        match CallError::from_stand_in(status, &headers, &reply.body) {
            Some(error) => Err(error),
            None => Ok(Self { status, headers, body: reply.body, trailers: Pairs::new(reply.trailers) }),
        }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is one of success: 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The response, if its status is one of success.
    ///
    /// # Errors
    /// [`CallError::Status`], if it is another one.
    pub fn success(self) -> Result<Self, CallError> {
        if self.is_success() { Ok(self) } else { Err(CallError::Status(self.status)) }
    }

    /// The first value of a field, as text. `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)
    }

    /// The head's fields.
    pub fn headers(&self) -> &Pairs {
        &self.headers
    }

    /// The fields after the body.
    pub fn trailers(&self) -> &Pairs {
        &self.trailers
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as text; bytes that are not UTF-8 become `U+FFFD`.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    /// [`CallError::Malformed`], if it is not JSON of that form.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| CallError::Malformed(error.to_string()))
    }
}

/// Why a call came to nothing.
///
/// `?` in a callback answers the exchange: with 504 after a timeout, with 502 if there was a response of no use, else
/// with 503; why is in the access log and in the filter's log.
///
/// Hosts say it in different ways: with `failed_calls: empty` Meshgate names the reason, by default it gives, as Envoy, a
/// response 503 or 504 with words of its own in the place of one that never came. The SDK knows these words, so that a
/// filter need not.
///
/// ```
/// use meshgate_sdk::{CallError, Stop};
///
/// let stop = Stop::from(CallError::Timeout);
/// assert!(matches!(stop, Stop::Reply(reply) if reply.status() == 504));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// It took longer than its timeout.
    Timeout,
    /// No connection to an endpoint of the cluster could be made.
    Connect,
    /// The connection broke before the response was complete.
    Reset,
    /// The host did not begin with it: it does not know the cluster, or there are too many calls, or they hold too much
    /// (`limits.call_bytes`).
    Refused(Status),
    /// There was a response, but not the status that was asked for: see [`CallResponse::success`].
    Status(u16),
    /// There was a response, but its body is not what was asked for: see [`CallResponse::json`].
    Malformed(String),
}

impl CallError {
    pub(crate) fn from_status(status: Status) -> Self {
        Self::Refused(status)
    }

    fn from_reason(reason: &[u8]) -> Self {
        match reason {
            b"timeout" => Self::Timeout,
            b"no healthy upstream" | b"connect failed" | b"tls handshake failure" | b"resolver failure" => {
                Self::Connect
            }
            _ => Self::Reset,
        }
    }

    /// What a response means that the host made up. No server sends one with these words and nothing but their length and
    /// type, and one that did would only fail its own call.
    fn from_stand_in(status: u16, headers: &Pairs, body: &[u8]) -> Option<Self> {
        if !(status == 503 || status == 504) || headers.iter().count() > 5 {
            return None;
        }
        match status {
            504 if body == b"upstream request timeout" => Some(Self::Timeout),
            503 if body == b"no healthy upstream" => Some(Self::Connect),
            503 if body.starts_with(b"upstream connect error") => {
                let broken = [
                    &b"reset reason: connection termination"[..],
                    b"reset reason: remote reset",
                    b"reset reason: protocol error",
                ];
                let reset = broken.iter().any(|words| body.windows(words.len()).any(|part| part == *words));
                Some(if reset { Self::Reset } else { Self::Connect })
            }
            _ => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("the call took too long"),
            Self::Connect => f.write_str("the call found no endpoint to connect to"),
            Self::Reset => f.write_str("the call's connection broke"),
            Self::Refused(status) => write!(f, "the host did not make the call: {status}"),
            Self::Status(status) => write!(f, "the call was answered with {status}"),
            Self::Malformed(reason) => write!(f, "the call's response is malformed: {reason}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for Stop {
    #[cold]
    fn from(error: CallError) -> Self {
        crate::warn!("{error}");
        let (status, details) = match error {
            CallError::Timeout => (504, "call_timeout"),
            CallError::Connect => (503, "call_connect"),
            CallError::Reset => (503, "call_reset"),
            CallError::Refused(_) => (503, "call_refused"),
            CallError::Status(_) => (502, "call_status"),
            CallError::Malformed(_) => (502, "call_malformed"),
        };
        Reply::new(status).details(details).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::serialize;

    fn reply(status: u16, body: &str) -> HttpReply {
        HttpReply {
            headers: serialize(&[(":status", status.to_string()), ("content-type", "text/plain".to_owned())]),
            body: body.as_bytes().to_vec(),
            trailers: Vec::new(),
            reason: None,
        }
    }

    #[test]
    fn failures_are_known_by_what_hosts_say() {
        let failed = |reply| CallResponse::new(reply).unwrap_err();
        assert_eq!(failed(reply(504, "upstream request timeout")), CallError::Timeout);
        assert_eq!(failed(reply(503, "no healthy upstream")), CallError::Connect);
        assert_eq!(failed(reply(503, "upstream connect error")), CallError::Connect);
        for reason in ["connection termination", "remote reset", "protocol error"] {
            let text =
                format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
            assert_eq!(failed(reply(503, &text)), CallError::Reset, "{reason}");
        }
        let empty = |reason: Option<&[u8]>| HttpReply {
            headers: Vec::new(),
            body: Vec::new(),
            trailers: Vec::new(),
            reason: reason.map(<[u8]>::to_vec),
        };
        assert_eq!(failed(empty(Some(b"timeout"))), CallError::Timeout);
        assert_eq!(failed(empty(Some(b"connect failed"))), CallError::Connect);
        assert_eq!(failed(empty(Some(b"broken connection"))), CallError::Reset);
        assert_eq!(failed(empty(None)), CallError::Reset);
    }

    #[test]
    fn responses_of_servers_are_responses() {
        for (status, body) in [(503, "maintenance"), (504, ""), (200, "no healthy upstream"), (404, "")] {
            let response = CallResponse::new(reply(status, body)).unwrap();
            assert_eq!((response.status(), response.body()), (status, body.as_bytes()));
        }
        assert_eq!(CallResponse::new(reply(404, "")).unwrap().success().unwrap_err(), CallError::Status(404));
        let text = CallResponse::new(reply(200, "{")).unwrap();
        assert!(matches!(text.json::<u32>(), Err(CallError::Malformed(_))));
    }
}
