//! Spans that a filter has added to an exchange's trace.

use std::time::Duration;

use meshgate_abi::{SpanStatus, Value};

/// A span of the filter's own: see [`Done::spans`](super::Done::spans).
///
/// ```
/// # use meshgate_sdk::testing::{Proxy, Request};
/// fn tells_of_its_call(proxy: &mut Proxy) {
///     let spans = proxy.send(Request::get("/").recorded()).spans();
///     let call = spans.iter().find(|span| span.name == "ask the service").expect("a span");
///     assert!(call.is_call && call.failure.is_none());
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What was done.
    pub name: String,
    /// In hexadecimal digits, as calls carry it on.
    pub id: String,
    /// The span of the filter's that it is in, by its id; `None`: the exchange's own.
    pub parent: Option<String>,
    /// How long it took, by the filter's clock.
    pub took: Duration,
    /// It is a call to somebody else.
    pub is_call: bool,
    /// Names and values, as text.
    pub attributes: Vec<(String, String)>,
    /// What happened meanwhile.
    pub events: Vec<String>,
    /// Why it came to nothing, if it did.
    pub failure: Option<String>,
}

impl Span {
    pub(super) fn of(span: &meshgate_abi::Span) -> Self {
        let hexadecimal = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let value = |value: &Option<meshgate_abi::AnyValue>| match value
            .as_ref()
            .and_then(|any| any.value.as_ref())
        {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Flag(flag)) => flag.to_string(),
            None => String::new(),
        };
        let failed = span.status.as_ref().filter(|status| status.code == SpanStatus::ERROR);
        Self {
            name: span.name.clone(),
            id: hexadecimal(&span.span_id),
            parent: Some(hexadecimal(&span.parent_span_id)).filter(|parent| !parent.is_empty()),
            took: Duration::from_nanos(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano)),
            is_call: span.kind == meshgate_abi::Span::CLIENT,
            attributes: span.attributes.iter().map(|pair| (pair.key.clone(), value(&pair.value))).collect(),
            events: span.events.iter().map(|event| event.name.clone()).collect(),
            failure: failed.map(|status| status.message.clone()),
        }
    }

    /// The value of an attribute, as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}
