//! The tries of a request: a filter that is asked how each ended, and says whether there is another one.

use std::fmt;
use std::time::Duration;

/// As [`Attempt::ending`] says it.
///
/// ```
/// use meshgate_sdk::attempts::Ending;
///
/// /// Whether the endpoint cannot have begun with the request.
/// fn is_untouched(ending: Ending) -> bool {
///     matches!(ending, Ending::ConnectFailure | Ending::Refused | Ending::ResetBeforeRequest)
/// }
/// # assert!(is_untouched(Ending::Refused) && !is_untouched(Ending::Reset));
/// ```
pub use meshgate_abi::Ending;
use meshgate_abi::{event, function};
use prost::Message;

use crate::error::Refused;
use crate::exchange::Exchange;
use crate::filter::Filter;
use crate::host::{self, BufferType};
use crate::log::{Level, line};

/// What a filter wants to decide about the tries of a request, ready to be said as often as needed.
///
/// ```
/// use meshgate_sdk::attempts::{Attempt, Attempts, Ending, Retry, Verdict};
/// use meshgate_sdk::prelude::*;
///
/// struct Patient {
///     attempts: Attempts,
/// }
///
/// #[filter]
/// impl Filter for Patient {
///     fn configure(_: Empty) -> Result<Self, ConfigError> {
///         let attempts = Attempts::judge().from_status(503).per_try_timeout(Duration::from_secs(2)).build();
///         Ok(Self { attempts })
///     }
///
///     fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///         exchange.attempts(&self.attempts)?;
///         Ok(())
///     }
///
///     fn on_attempt(&self, _: &Exchange<Self>, attempt: &Attempt) -> Verdict {
///         match attempt.ending() {
///             Ending::ConnectFailure if attempt.number() < 3 => Retry::after(Duration::from_millis(20)).into(),
///             Ending::Response if attempt.status() == 503 && attempt.number() < 3 => Retry::now().elsewhere().into(),
///             _ => Verdict::Deliver,
///         }
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Attempts {
    bytes: Box<[u8]>,
}

impl Attempts {
    /// Begins to say what is wanted: to be asked about every response, and about every try without one.
    pub fn judge() -> Builder {
        Builder(meshgate_abi::Attempts::default())
    }

    pub(crate) fn watch(&self) -> Result<(), Refused> {
        match host::call_foreign_function(function::ATTEMPTS, &self.bytes) {
            Ok(_) => Ok(()),
            Err(status) => Err(Refused::new("cannot judge the request's tries", status)),
        }
    }
}

/// Describes [`Attempts`].
///
/// ```
/// # use meshgate_sdk::attempts::{Attempt, Attempts, Ending, Retry, Verdict};
/// # use meshgate_sdk::prelude::*;
/// # struct Hedge(Attempts);
/// # #[filter]
/// # impl Filter for Hedge {
/// fn configure(_: Empty) -> Result<Self, ConfigError> {
///     let attempts = Attempts::judge()
///         .per_try_timeout(Duration::from_secs(2))
///         .hedge_after(Duration::from_millis(500)) // asks about one that is slow
///         .from_status(502)                        // and about no response that is better
///         .replay(1 << 20)
///         .numbered();
///     Ok(Self(attempts.build()))
/// }
/// # fn on_request(&self, exchange: &Exchange<Self>) -> Outcome { Ok(exchange.attempts(&self.0)?) }
/// # fn on_attempt(&self, _: &Exchange<Self>, attempt: &Attempt) -> Verdict {
/// #     if attempt.ending() == Ending::Slow { Retry::now().into() } else { Verdict::Deliver }
/// # }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request, Response};
/// # let mut proxy = Proxy::new::<Hedge>("");
/// # proxy.endpoint(|request| match request.field("x-envoy-attempt-count").as_deref() {
/// #     Some("1") => Response::new(200).after(Duration::from_secs(3)),
/// #     _ => Response::new(200).after(Duration::from_millis(10)),
/// # });
/// # assert_eq!(proxy.send(Request::get("/")).took(), Duration::from_millis(510));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder(meshgate_abi::Attempts);

impl Builder {
    /// Bounds the time from a try's beginning, or from the end of the request if that comes later, to the response's head.
    #[must_use]
    pub fn per_try_timeout(mut self, timeout: impl Into<Duration>) -> Self {
        self.0.per_try_timeout_ms = milliseconds(timeout.into()).max(1);
        self
    }

    /// The most bytes of the request's body that are kept to be sent again, but no more than the filter's `limits.body`.
    /// 64 KiB unless said.
    #[must_use]
    pub fn replay(mut self, bytes: u64) -> Self {
        self.0.replay_bytes = Some(bytes);
        self
    }

    /// Lets responses with a lower status pass without a question, unless they are of nothing but trailers and say that a
    /// gRPC call failed. The fewer questions, the cheaper.
    #[must_use]
    pub fn from_status(mut self, status: u16) -> Self {
        self.0.from_status = status.into();
        self
    }

    /// Asks about a try that has no response after this time ([`Ending::Slow`]): there may be another one beside it.
    #[must_use]
    pub fn hedge_after(mut self, time: impl Into<Duration>) -> Self {
        self.0.hedge_after_ms = milliseconds(time.into()).max(1);
        self
    }

    /// Tells endpoints which try it is, in the field `x-envoy-attempt-count`.
    #[must_use]
    pub fn numbered(mut self) -> Self {
        self.0.numbered = true;
        self
    }

    /// Ready to be said.
    pub fn build(&self) -> Attempts {
        Attempts { bytes: self.0.encode_to_vec().into() }
    }
}

/// How a try ended. In [`on_attempt`](Filter::on_attempt), the fields of its response can be read as in
/// [`on_response`](Filter::on_response).
///
/// ```
/// use meshgate_sdk::attempts::{Attempt, Ending, Retry, Verdict};
///
/// fn judge(attempt: &Attempt) -> Verdict {
///     let passing = matches!(attempt.ending(), Ending::ConnectFailure | Ending::Timeout);
///     // Only what can be sent again, and only while nine of ten requests are first tries.
///     if passing && attempt.can_retry() && attempt.retries() * 10 < attempt.active() {
///         return Retry::now().elsewhere().into();
///     }
///     Verdict::Deliver
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Attempt(meshgate_abi::Attempt);

impl Attempt {
    /// Which try of the request it is, counted from 1.
    pub fn number(&self) -> u32 {
        self.0.number
    }

    /// How it ended. What a newer host says and this SDK does not know counts as [`Ending::Reset`].
    pub fn ending(&self) -> Ending {
        Ending::try_from(self.0.ending).unwrap_or(Ending::Reset)
    }

    /// The response's status; 0 if there is no response.
    pub fn status(&self) -> u16 {
        u16::try_from(self.0.status).unwrap_or(0)
    }

    /// gRPC's status, if the response is of nothing but trailers.
    pub fn grpc_status(&self) -> Option<u32> {
        self.0.grpc_status
    }

    /// The endpoint's address; empty if there was none to be used.
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// How long it took.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.elapsed_us)
    }

    /// How much time the exchange has left; `None` if nobody set a limit.
    pub fn left(&self) -> Option<Duration> {
        self.0.left_ms.map(Duration::from_millis)
    }

    /// Whether the request can be sent again. Not if its body is longer than what is kept of it, or was still on its way
    /// when the response came.
    pub fn can_retry(&self) -> bool {
        self.0.can_retry
    }

    /// How many other tries of the same request are under way. With some, [`Verdict::Retry`] means to wait for them.
    pub fn others(&self) -> u32 {
        self.0.others
    }

    /// How many requests of the whole process are on their way to the cluster, or wait for a connection.
    pub fn active(&self) -> u64 {
        self.0.active
    }

    /// How many tries of the whole process on this cluster are not a request's first.
    pub fn retries(&self) -> u64 {
        self.0.retries
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Attempt");
        shown.field("number", &self.number()).field("ending", &self.ending()).field("status", &self.status());
        shown.finish_non_exhaustive()
    }
}

/// What becomes of a try that ended.
///
/// ```
/// # use meshgate_sdk::attempts::Attempts;
/// # use meshgate_sdk::prelude::*;
/// use meshgate_sdk::attempts::{Attempt, Retry, Verdict};
///
/// # struct Again(Attempts);
/// # #[filter]
/// # impl Filter for Again {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self(Attempts::judge().build())) }
/// # fn on_request(&self, exchange: &Exchange<Self>) -> Outcome { Ok(exchange.attempts(&self.0)?) }
/// /// A gRPC call that the server could not take is made again, unless another try of it is under way.
/// fn on_attempt(&self, _: &Exchange<Self>, attempt: &Attempt) -> Verdict {
///     meshgate_sdk::debug!("{}: {:?}, left {:?}", attempt.endpoint(), attempt.elapsed(), attempt.left());
///     match attempt.grpc_status() {
///         Some(14) if attempt.others() == 0 && attempt.number() < 3 => Verdict::Retry(Retry::now()),
///         _ => Verdict::Deliver,
///     }
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request, Response};
/// # let mut proxy = Proxy::new::<Again>("");
/// # let mut tries = 0;
/// # proxy.endpoint(move |_| {
/// #     tries += 1;
/// #     if tries < 3 { Response::grpc_status(14, "later") } else { Response::grpc("hi") }
/// # });
/// # assert_eq!(proxy.send(Request::post("/", "ask")).text(), "hi");
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets what there is: the response, or the error that takes its place.
    Deliver,
    /// The request is sent again.
    Retry(Retry),
}

/// Another try.
///
/// ```
/// use std::time::Duration;
///
/// use meshgate_sdk::attempts::{Retry, Verdict};
///
/// let again: Verdict = Retry::after(Duration::from_millis(20)).elsewhere().if_at_most(10).into();
/// # assert!(matches!(again, Verdict::Retry(retry) if retry.delay() == Duration::from_millis(20)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    delay: Duration,
    elsewhere: bool,
    most: Option<u64>,
}

impl Retry {
    /// At once.
    pub fn now() -> Self {
        Self { delay: Duration::ZERO, elsewhere: false, most: None }
    }

    /// After this time. If the exchange has less left, the client gets what there is.
    pub fn after(delay: impl Into<Duration>) -> Self {
        Self { delay: delay.into(), ..Self::now() }
    }

    /// At an endpoint that has not had the request, if there is one. Not with consistent hashing.
    #[must_use]
    pub fn elsewhere(mut self) -> Self {
        self.elsewhere = true;
        self
    }

    /// Only if there are no more [`retries`](Attempt::retries) than this, with it: exact, whatever others do meanwhile. The
    /// cluster's own limit holds besides.
    #[must_use]
    pub fn if_at_most(mut self, retries: u64) -> Self {
        self.most = Some(retries);
        self
    }

    /// How long it waits.
    pub fn delay(&self) -> Duration {
        self.delay
    }
}

impl From<Retry> for Verdict {
    fn from(retry: Retry) -> Self {
        Self::Retry(retry)
    }
}

/// `proxy_on_foreign_function`: reads the event, has it judged, and says what the filter answers.
pub(crate) fn judge<F: Filter>(exchange: &Exchange<F>, function: u32, size: usize) {
    let Some(filter) = exchange.filter.as_deref().filter(|_| function == event::ATTEMPT) else { return };
    let read = host::buffer(BufferType::CallData, 0, size).ok();
    let Some(attempt) = read.and_then(|bytes| meshgate_abi::Attempt::decode(&*bytes).ok()) else { return };
    if let Verdict::Retry(retry) = filter.on_attempt(exchange, &Attempt(attempt)) {
        let message = meshgate_abi::Retry {
            delay_ms: milliseconds(retry.delay),
            elsewhere: retry.elsewhere,
            most_retries: retry.most,
        };
        if let Err(status) = host::call_foreign_function(function::RETRY, &message.encode_to_vec()) {
            line(Level::Error, &format!("on_attempt: the host does not try again: {status}"));
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_said() {
        let attempts = Attempts::judge()
            .per_try_timeout(Duration::from_micros(1))
            .replay(0)
            .from_status(500)
            .hedge_after(Duration::from_secs(1))
            .numbered()
            .build();
        let expected = meshgate_abi::Attempts {
            per_try_timeout_ms: 1,
            replay_bytes: Some(0),
            from_status: 500,
            hedge_after_ms: 1_000,
            numbered: true,
        };
        assert_eq!(meshgate_abi::Attempts::decode(&*attempts.bytes), Ok(expected));
        assert!(Attempts::judge().build().bytes.is_empty());
    }
}
