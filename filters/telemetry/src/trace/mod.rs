//! Traces: the context that goes on with a request, whether its spans are recorded, and the spans.
//!
//! `context.rs` reads and writes the context, `ids.rs` makes new ids, `span.rs` writes spans.

pub(crate) mod context;
mod ids;
mod span;

use meshgate_sdk::{ConfigError, Exchange, Headers, Refused, property};

use self::context::{Context, SpanId, TraceId};
use self::ids::Ids;
use self::span::Attributes;
use crate::Telemetry;
use crate::config::{Config, Propagation, SpanKinds, TracesConfig};
use crate::otlp::{Exporter, Signal};
use crate::seen::{Direction, Seen};

/// The trace that an exchange belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    id: TraceId,
    /// The span of whoever sent the request, if there is one.
    parent: Option<SpanId>,
    /// The span of the whole exchange, if it has one.
    server: Option<SpanId>,
    /// The span of the endpoint's part, if it has one.
    client: Option<SpanId>,
    sampled: bool,
}

impl Trace {
    /// Its id, as lines show it.
    pub(crate) fn id_text(&self) -> String {
        self.id.text()
    }

    /// The id of the exchange's own span: the outer one, if there are two.
    pub(crate) fn span_text(&self) -> String {
        self.span().map_or_else(String::new, SpanId::text)
    }

    /// Its id, as records have it.
    pub(crate) fn id_bytes(&self) -> [u8; 16] {
        self.id.bytes()
    }

    /// The id of the exchange's own span, as records have it.
    pub(crate) fn span_bytes(&self) -> Vec<u8> {
        self.span().map_or_else(Vec::new, |span| span.bytes().to_vec())
    }

    /// Whether it is recorded.
    pub(crate) fn is_sampled(&self) -> bool {
        self.sampled
    }

    fn span(&self) -> Option<SpanId> {
        self.server.or(self.client).or(self.parent)
    }

    /// The parent of what the endpoint does.
    fn innermost(&self) -> Option<SpanId> {
        self.client.or(self.server).or(self.parent)
    }
}

/// Reads contexts, decides, and records.
pub(crate) struct Tracer {
    propagation: Vec<Propagation>,
    /// A trace that begins here is recorded if the low 56 bits of its id are below this.
    threshold: u64,
    trust: bool,
    start: bool,
    spans: Option<SpanKinds>,
    attributes: Attributes,
    exporter: Option<Exporter>,
    ids: Ids,
}

impl Tracer {
    /// What the configuration says.
    ///
    /// # Errors
    /// It makes no sense, or the host refuses to define metrics.
    pub(crate) fn new(config: &Config, traces: &TracesConfig) -> Result<Self, ConfigError> {
        let receiver = traces.receiver.as_ref();
        let exporter = receiver.map(|receiver| Exporter::new(receiver, Signal::Traces, &config.workload));
        let exporter = exporter.transpose().map_err(|error| error.within("traces/receiver"))?;
        Ok(Self {
            propagation: traces.propagation.clone(),
            threshold: (traces.sampling.clamp(0.0, 100.0) / 100.0 * (1_u64 << 56) as f64) as u64,
            trust: traces.trust,
            start: traces.start,
            spans: traces.spans,
            attributes: Attributes::new(&traces.attributes),
            exporter,
            ids: Ids::default(),
        })
    }

    /// Whether spans need to know when the response began.
    pub(crate) fn needs_response(&self) -> bool {
        self.exporter.is_some() && (self.spans != Some(SpanKinds::Server) || self.attributes.needs_response())
    }

    /// What sends the spans.
    pub(crate) fn exporter(&self) -> Option<&Exporter> {
        self.exporter.as_ref()
    }

    /// A request has come: its context goes on as one of ours.
    ///
    /// # Errors
    /// The host does not let the request's fields be set.
    pub(crate) fn begin(&self, exchange: &Exchange<Telemetry>) -> Result<Option<Trace>, Refused> {
        let headers = exchange.request().headers();
        let found = if self.trust {
            self.read(headers)
        } else {
            remove(headers)?;
            None
        };
        let ids = found.and_then(|context| context.ids);
        if ids.is_none() && !self.start {
            return Ok(None);
        }
        let (id, parent) = match ids {
            Some((id, parent)) => (id, Some(parent)),
            None => (self.ids.trace(), None),
        };
        let sampled = found.and_then(|context| context.sampled);
        let sampled = sampled.unwrap_or_else(|| id.low_bits() & ((1 << 56) - 1) < self.threshold);
        if !sampled && parent.is_some() {
            // Nothing is recorded here, so there is no span of ours to be the parent of anything.
            return Ok(Some(Trace { id, parent, server: None, client: None, sampled }));
        }
        let kinds = self.spans.unwrap_or_else(|| match Direction::current() {
            Direction::Gateway => SpanKinds::Both,
            Direction::Inbound => SpanKinds::Server,
            Direction::Outbound => SpanKinds::Client,
        });
        let server = (kinds != SpanKinds::Client).then(|| self.ids.span());
        let client = (kinds != SpanKinds::Server).then(|| self.ids.span());
        let trace = Trace { id, parent, server, client, sampled };
        self.write(headers, &trace)?;
        if let Some(span) = trace.span().filter(|_| sampled && self.exporter.is_some()) {
            // What other filters do becomes a part of it. A state that is too long goes on with the request alone.
            let state =
                Some(headers.get("tracestate").unwrap_or_default()).filter(|state| state.len() <= 512);
            let _ = exchange.record_spans(id.bytes(), span.bytes(), &state.unwrap_or_default());
        }
        Ok(Some(trace))
    }

    /// The exchange is over.
    pub(crate) fn end(&self, seen: &Seen<'_>) {
        if let Some(exporter) = &self.exporter
            && let Some(trace) = seen.trace().filter(|trace| trace.sampled)
        {
            span::record(trace, seen, &self.attributes, exporter);
            exporter.add_written(&seen.exchange().map(Exchange::take_spans).unwrap_or_default());
        }
    }

    /// The first context that there is, of the forms that count.
    fn read(&self, headers: Headers) -> Option<Context> {
        self.propagation.iter().find_map(|form| match form {
            // With several fields of this name the property has all of them, which is no context.
            Propagation::W3c => context::w3c(&property::text("request/headers/traceparent")?),
            Propagation::B3 => context::b3(&headers.get("b3")?),
            Propagation::B3Multi => {
                let [trace, span, sampled, flags] =
                    ["x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"]
                        .map(|name| headers.get(name));
                context::b3_multi(trace.as_deref(), span.as_deref(), sampled.as_deref(), flags.as_deref())
            }
        })
    }

    /// Puts our context in the place of the request's.
    fn write(&self, headers: Headers, trace: &Trace) -> Result<(), Refused> {
        let Some(span) = trace.innermost() else { return Ok(()) };
        for (place, form) in self.propagation.iter().enumerate() {
            if place > 0 && !headers.contains(form.field()) {
                continue;
            }
            match form {
                Propagation::W3c => {
                    headers.set("traceparent", context::to_w3c(trace.id, span, trace.sampled))?;
                    if trace.parent.is_none() {
                        // It belongs to a context that there is not.
                        headers.remove("tracestate")?;
                    }
                }
                Propagation::B3 => headers.set("b3", context::to_b3(trace.id, span, trace.sampled))?,
                Propagation::B3Multi => {
                    let parent =
                        if trace.client.is_some() { trace.server.or(trace.parent) } else { trace.parent };
                    for (name, value) in context::to_b3_multi(trace.id, span, parent, trace.sampled) {
                        headers.set(name, value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Propagation {
    /// The field by which it is known.
    fn field(self) -> &'static str {
        match self {
            Self::W3c => "traceparent",
            Self::B3 => "b3",
            Self::B3Multi => "x-b3-traceid",
        }
    }
}

/// Takes the request's context out: nobody is to believe it.
fn remove(headers: Headers) -> Result<(), Refused> {
    for name in [
        "traceparent",
        "tracestate",
        "b3",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-flags",
    ] {
        headers.remove(name)?;
    }
    Ok(())
}
