//! What became of a request in a test.

use std::time::{Duration, SystemTime};

use super::engine::{Said, Verdict};
use super::message::{Failure, Request, Response};
use super::span::Span;

/// A request whose head went into the filter: see [`Proxy::begin`](super::Proxy::begin).
///
/// ```
/// # use meshgate_sdk::testing::{Proxy, Request};
/// fn one_at_a_time(proxy: &mut Proxy) {
///     let first = proxy.begin(Request::get("/slow"));
///     assert_eq!(proxy.send(Request::get("/slow")).status(), 503);
///     assert_eq!(proxy.finish(first).status(), 200);
/// }
/// ```
#[must_use = "it waits to be finished or given up"]
#[derive(Debug)]
pub struct Begun {
    pub(super) exchange: u32,
    pub(super) request: Request,
    pub(super) verdict: Verdict,
    pub(super) began: SystemTime,
}

/// What became of a request: see [`Proxy::send`](super::Proxy::send).
///
/// ```
/// # use meshgate_sdk::testing::{Proxy, Request};
/// fn answers_by_itself(proxy: &mut Proxy) {
///     let done = proxy.send(Request::get("/hello"));
///     assert_eq!((done.status(), done.text().as_str()), (200, "Hi!\n"));
///     assert!(done.upstream().is_none() && done.took().is_zero());
/// }
/// ```
///
/// And what the filter had the host do:
///
/// ```
/// # use meshgate_sdk::Flag;
/// # use meshgate_sdk::prelude::*;
/// # struct Slow;
/// # #[filter]
/// # impl Filter for Slow {
/// #     fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// #     async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
/// #         if exchange.request().path() == "/never" { return Err(Stop::Reset); }
/// #         let _span = exchange.span("wait");
/// #         exchange.set_flag(Flag::DelayInjected)?;
/// #         exchange.log_field("slow.by", "20ms")?;
/// #         meshgate_sdk::sleep(Duration::from_millis(20)).await?;
/// #         Ok(())
/// #     }
/// #     fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
/// #         exchange.encode_response("gzip", 6)?;
/// #         exchange.throttle_response(1024)?;
/// #         exchange.response().headers().set("x-slow", "1")?;
/// #         Ok(())
/// #     }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// # let mut proxy = Proxy::new::<Slow>("");
/// let done = proxy.send(Request::get("/").recorded());
/// assert_eq!((done.flags(), done.log_field("slow.by").as_deref()), (vec!["DI"], Some("20ms")));
/// assert_eq!((done.encoding(), done.throttle()), (Some(("gzip".to_owned(), 6)), 1024));
/// assert_eq!((done.took(), done.spans()[0].took), (Duration::from_millis(20), Duration::from_millis(20)));
/// assert_eq!((done.header("x-slow").as_deref(), done.response().head().len()), (Some("1"), 2));
/// assert!(proxy.send(Request::get("/never")).was_reset());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Done {
    pub(super) response: Response,
    pub(super) upstream: Option<Request>,
    pub(super) took: Duration,
    pub(super) said: Said,
}

impl Done {
    /// The status that the client got.
    pub fn status(&self) -> u16 {
        self.response.status()
    }

    /// The first value of a field of the response that the client got.
    pub fn header(&self, name: &str) -> Option<String> {
        self.response.field(name)
    }

    /// The body that the client got, as text.
    pub fn text(&self) -> String {
        self.response.text()
    }

    /// Whether the client got no response, since the filter has broken the exchange off.
    pub fn was_reset(&self) -> bool {
        self.response.failure() == Some(Failure::Reset)
    }

    /// The response that the client got.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The request as the endpoint got it; `None` if the filter answered.
    pub fn upstream(&self) -> Option<&Request> {
        self.upstream.as_ref()
    }

    /// How long it took, by the filter's clock.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The letters of the response flags that the filter set, in their order.
    pub fn flags(&self) -> Vec<&str> {
        self.said.flags.iter().map(String::as_str).collect()
    }

    /// The coding that the filter chose for the response's body, and its level; the body itself is as it was.
    pub fn encoding(&self) -> Option<(String, u32)> {
        self.said.encoding.clone()
    }

    /// The speed that the filter chose for the response's body, in bytes per second; 0 if it chose none. The body itself takes
    /// no time.
    pub fn throttle(&self) -> u64 {
        self.said.throttle
    }

    /// The spans that the filter added to the exchange's trace, in the order in which they ended; none, unless the request was
    /// [`recorded`](Request::recorded).
    pub fn spans(&self) -> Vec<Span> {
        self.said.spans.iter().map(Span::of).collect()
    }

    /// A field that the filter added to the exchange's entry in the access log.
    pub fn log_field(&self, name: &str) -> Option<String> {
        let found = self.said.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| crate::headers::text(value.clone()))
    }
}
