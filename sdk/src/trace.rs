//! Traces: spans of what a filter does for an exchange, and the context that goes on with its calls.
//!
//! [`Exchange::span`] begins a span in the exchange's own, which the standard filter `telemetry` records and exports. Where no
//! trace is recorded (it was not sampled, nobody exports, the host is not Meshgate), nothing is kept, and it costs next to
//! nothing.
//!
//! ```
//! # use meshgate_sdk::prelude::*;
//! # struct Plans { accounts: Cluster }
//! # #[filter]
//! # impl Filter for Plans {
//! # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { accounts: "accounts".into() }) }
//! async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
//!     let mut span = exchange.span("look the plan up").call();
//!     let call = self.accounts.get("/plan").trace(span.context());    // the service's spans go below this one
//!     let plan = call.send().await?.success()?.text().into_owned();
//!     span.attribute("account.plan", plan.as_str());
//!     span.end();                                                     // or where it is dropped
//!     exchange.request().headers().set("x-plan", plan)?;
//!     Ok(())
//! }
//! # }
//! # fn main() {
//! use meshgate_sdk::testing::{Proxy, Request, Response};
//!
//! # let mut proxy = Proxy::new::<Plans>("");
//! proxy.upstream("accounts", |_| Response::new(200).body("gold"));
//! let done = proxy.send(Request::get("/").recorded());
//! assert_eq!(done.spans()[0].name, "look the plan up");
//! assert_eq!(done.spans()[0].attribute("account.plan").as_deref(), Some("gold"));
//! # }
//! ```

use std::fmt;

use meshgate_abi::{AnyValue, KeyValue, Span as Wire, SpanEvent, SpanStatus, function};
use prost::Message;

use crate::error::Refused;
use crate::exchange::Exchange;
use crate::filter::Filter;
use crate::host::{self, Status};
use crate::runtime::current;

/// The place of an exchange, or of a span of a filter's, in a trace: what a request carries on. See [`Call::trace`](crate::Call::trace).
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Log;
/// # #[filter]
/// # impl Filter for Log {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     if let Some(context) = exchange.trace_context() {
///         meshgate_sdk::info!("seen"; trace = context.trace_id());
///         meshgate_sdk::debug!("{} {:?}", context.traceparent(), context.tracestate());
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    traceparent: String,
    tracestate: Option<String>,
}

impl Context {
    /// W3C's field of this name: version, trace, span and flags.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// W3C's field of this name, if there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The trace, in hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.traceparent.split('-').nth(1).unwrap_or_default()
    }

    /// Its fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let state = self.tracestate.as_deref().map(|state| ("tracestate", state));
        [("traceparent", self.traceparent.as_str())].into_iter().chain(state)
    }

    /// Of a trace that is recorded.
    fn of(recorded: &meshgate_abi::TraceContext, span: &[u8]) -> Self {
        let traceparent = format!("00-{}-{}-01", hexadecimal(&recorded.trace_id), hexadecimal(span));
        Self { traceparent, tracestate: Some(recorded.state.clone()).filter(|state| !state.is_empty()) }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A value of an attribute: text, a whole number, or true or false.
///
/// ```
/// use meshgate_sdk::trace::Value;
///
/// let values = [Value::from("gold"), Value::from(3), Value::from(true)];
/// # assert_eq!(values.len(), 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(meshgate_abi::Value);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(meshgate_abi::Value::Text(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(meshgate_abi::Value::Text(text))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self(meshgate_abi::Value::Flag(flag))
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self(meshgate_abi::Value::Number(number.into()))
            }
        }
    )*};
}
numbers!(i64, i32, u32, u16);

impl<F: Filter> Exchange<F> {
    /// Begins a span in the exchange's own. It ends where [`Span::end`] is called, or where it is dropped.
    ///
    /// A filter may add 32 spans with 16 KiB to an exchange's trace (`limits.spans`, `limits.span_bytes`); more are lost and counted.
    pub fn span(&self, name: impl Into<String>) -> Span {
        match recorded() {
            Some(trace) => Span::begin(trace, self.context, Vec::new(), name.into()),
            None => Span(None),
        }
    }

    /// The exchange's place in its trace: of its own span, if that is recorded, else as its request says. `None` if it belongs to
    /// none.
    pub fn trace_context(&self) -> Option<Context> {
        if let Some(trace) = recorded() {
            return Some(Context::of(&trace, &trace.span_id));
        }
        let headers = self.request().headers();
        Some(Context { traceparent: headers.get("traceparent")?, tracestate: headers.get("tracestate") })
    }

    /// Says that the exchange's trace is recorded, by this filter: what other filters add to it from now on is kept for
    /// [`take_spans`](Self::take_spans). For filters that export traces; of several, the last one counts.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # use meshgate_sdk::Dice;
    /// # struct Export { dice: Dice }
    /// # #[filter]
    /// # impl Filter for Export {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { dice: Dice::new("export") }) }
    /// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
    ///     let trace = (u128::from(self.dice.bits()) << 64 | u128::from(self.dice.bits())).to_be_bytes();
    ///     exchange.record_spans(trace, self.dice.bits().to_be_bytes(), "")?;
    ///     Ok(())
    /// }
    ///
    /// fn on_log(&self, exchange: &Exchange<Self>) {
    ///     meshgate_sdk::info!("{} bytes for the collector", exchange.take_spans().len());
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request};
    /// # let mut proxy = Proxy::new::<Export>("");
    /// # proxy.send(Request::get("/"));
    /// # assert_eq!(proxy.logs(), ["0 bytes for the collector"]);
    /// # }
    /// ```
    ///
    /// # Errors
    /// `BAD_ARGUMENT`: an id that has nothing but zeros, or more than 512 bytes of state. `NOT_FOUND`: the host is not Meshgate.
    pub fn record_spans(&self, trace: [u8; 16], span: [u8; 8], state: &str) -> Result<(), Refused> {
        let context = meshgate_abi::TraceContext {
            trace_id: trace.to_vec(),
            span_id: span.to_vec(),
            state: state.to_owned(),
            new_id: Vec::new(),
        };
        host::call_foreign_function(function::TRACE, &context.encode_to_vec())
            .map(drop)
            .map_err(|status| Refused::new("cannot record the trace", status))
    }

    /// The spans that filters have added since they were taken last, in OpenTelemetry's form: `spans` of a `ScopeSpans`, encoded.
    /// In [`on_log`](Filter::on_log) those of all filters behind this one are there.
    pub fn take_spans(&self) -> Vec<u8> {
        host::call_foreign_function(function::SPANS, b"").unwrap_or_default()
    }
}

/// The current exchange's trace, if it is recorded, and a new id.
fn recorded() -> Option<meshgate_abi::TraceContext> {
    let answer = host::call_foreign_function(function::TRACE, b"").ok()?;
    let trace = meshgate_abi::TraceContext::decode(&*answer).ok()?;
    (!trace.trace_id.is_empty()).then_some(trace)
}

/// Something that a filter does for an exchange, and how long it takes: see [`Exchange::span`]. It can be kept in the exchange's
/// state, and ended in another callback.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Check;
/// # #[filter]
/// # impl Filter for Check {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// async fn on_request_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
///     let mut span = exchange.span("check the order");
///     let text = body.text(64 << 10).await?;
///     span.event("the order is there");
///     let parse = span.child("parse");
///     let lines = text.lines().count();
///     parse.end();
///     span.attribute("order.lines", u32::try_from(lines).unwrap_or(u32::MAX));
///     if span.is_recorded() {
///         span.attribute("order.words", text.split_whitespace().count() as i64);
///     }
///     if lines == 0 {
///         span.fail("an empty order");
///         return Reply::new(400).into();
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
#[must_use = "it ends where it is dropped"]
pub struct Span(Option<Box<Recording>>);

/// A span that is recorded, and under way.
struct Recording {
    trace: meshgate_abi::TraceContext,
    wire: Wire,
    /// The exchange's.
    context: u32,
}

impl Span {
    fn begin(mut trace: meshgate_abi::TraceContext, context: u32, parent: Vec<u8>, name: String) -> Self {
        let wire = Wire {
            trace_id: trace.trace_id.clone(),
            span_id: std::mem::take(&mut trace.new_id),
            parent_span_id: parent,
            name,
            kind: Wire::INTERNAL,
            start_time_unix_nano: host::now_nanoseconds(),
            ..Wire::default()
        };
        Self(Some(Box::new(Recording { trace, wire, context })))
    }

    /// Whether anybody will see it: what costs something to find out need not be found out for others.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// It is a call to somebody else.
    pub fn call(mut self) -> Self {
        if let Some(recording) = &mut self.0 {
            recording.wire.kind = Wire::CLIENT;
        }
        self
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        if let Some(recording) = &mut self.0 {
            let value = Some(AnyValue { value: Some(value.into().0) });
            recording.wire.attributes.push(KeyValue { key: name.into(), value });
        }
    }

    /// Something has happened, now.
    pub fn event(&mut self, name: impl Into<String>) {
        if let Some(recording) = &mut self.0 {
            let time_unix_nano = host::now_nanoseconds();
            let event = SpanEvent { time_unix_nano, name: name.into(), attributes: Vec::new() };
            recording.wire.events.push(event);
        }
    }

    /// It came to nothing, and why.
    pub fn fail(&mut self, why: impl fmt::Display) {
        if let Some(recording) = &mut self.0 {
            recording.wire.status = Some(SpanStatus { message: why.to_string(), code: SpanStatus::ERROR });
        }
    }

    /// Begins a span in this one. It may end later than this one.
    pub fn child(&self, name: impl Into<String>) -> Self {
        let Some(recording) = &self.0 else { return Self(None) };
        let trace = recording.within(recorded);
        // The trace may be over already.
        let Some(trace) = trace else { return Self(None) };
        Self::begin(trace, recording.context, recording.wire.span_id.clone(), name.into())
    }

    /// Its place in the trace, for calls that it makes; `None` if it is not recorded: [`Exchange::trace_context`] may know one then.
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|recording| Context::of(&recording.trace, &recording.wire.span_id))
    }

    /// It ends here.
    pub fn end(self) {
        drop(self);
    }
}

impl Recording {
    /// Lets hostcalls act for the span's exchange, in whose callback it may not be.
    fn within<T>(&self, act: impl FnOnce() -> T) -> T {
        let now = current::get().context;
        if now == self.context {
            return act();
        }
        host::set_effective_context(self.context);
        let result = act();
        host::set_effective_context(now);
        result
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(mut recording) = self.0.take() else { return };
        let start = recording.wire.start_time_unix_nano;
        recording.wire.end_time_unix_nano = host::now_nanoseconds().max(start);
        let argument = recording.wire.encode_to_vec();
        let refused = recording.within(|| host::call_foreign_function(function::SPAN, &argument)).err();
        // A trace is no reason for an exchange to fail; what is too much is counted by the host.
        if let Some(status) = refused.filter(|status| *status != Status::INTERNAL_FAILURE) {
            crate::debug!("the span {} is lost: {status}", recording.wire.name);
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.as_ref().map(|recording| &recording.wire.name);
        f.debug_struct("Span").field("name", &name).finish_non_exhaustive()
    }
}
