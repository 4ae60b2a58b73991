//! What runs a filter in a test: the simulation of this crate, or a real host.

use std::time::{Duration, SystemTime};

use meshgate_abi::{
    Attempt, Attempts, CLAIMABLE_FLAGS, Encode, LogEntry, LogField, Retry, Span, Spans, TraceContext,
    function, is_log_field_name,
};
use prost::Message;

use super::message::{Client, Fields, Request, Response};
use crate::host::Status;
use crate::tcp::ClosedBy;

/// A host that runs one filter on one worker, as [`Proxy`](super::Proxy) drives it. Filters' authors need not know it.
///
/// The simulation implements it for a filter compiled natively, `meshgate-testing` for a compiled module in Meshgate's own
/// host. Both must agree.
///
/// ```
/// use meshgate_sdk::testing::{Engine, Part, Request, Verdict};
///
/// /// What a proxy of its own would do with a request that has no body.
/// fn lets_pass(host: &mut impl Engine, request: &Request) -> bool {
///     let exchange = host.open(request);
///     let verdict = host.deliver(exchange, Part::RequestHead(true));
///     let said = host.close(exchange);
///     matches!(verdict, Verdict::Passed(_)) && said.flags.is_empty()
/// }
/// ```
pub trait Engine {
    /// Starts the filter with this configuration. Shared data, metrics and the clock stay what they were.
    ///
    /// # Errors
    /// The filter refused; what it logged.
    fn start(&mut self, configuration: &str) -> Result<(), String>;

    /// Begins an exchange: the request's head, and the properties that are known of it. Nothing is delivered yet.
    fn open(&mut self, request: &Request) -> u32;

    /// Begins a TCP connection. Nothing is delivered yet.
    fn connect(&mut self, client: &Client) -> u32;

    /// Delivers a part of a message, or of what happens on a connection, to the filter, and says what became of it.
    fn deliver(&mut self, exchange: u32, part: Part) -> Verdict;

    /// What the filter let go of a held way since it was asked last; `None` if it still holds it.
    fn released(&mut self, exchange: u32, way: Way) -> Option<Verdict>;

    /// The fields of a head as they are now, pseudo-headers included.
    fn head(&self, exchange: u32, way: Way) -> Fields;

    /// The fields after a body as they are now.
    fn trailers(&self, exchange: u32, way: Way) -> Fields;

    /// The cluster that the filter decided for.
    fn cluster(&self, exchange: u32) -> Option<String>;

    /// The answer that the filter decided for, in the place of a cluster.
    fn direct(&self, exchange: u32) -> Option<Response>;

    /// What the filter wants of the request's tries, if it wants to judge them.
    fn attempts(&self, exchange: u32) -> Option<Attempts>;

    /// Asks the filter about a try: the response's head, if there is one.
    fn ask(&mut self, exchange: u32, attempt: &Attempt, head: Option<Fields>) -> Option<Retry>;

    /// The exchange is over. What the filter said of it beside its messages.
    fn close(&mut self, exchange: u32) -> Said;

    /// The clusters that exist.
    fn set_clusters(&mut self, names: Vec<String>);

    /// The calls that the filter has begun since it was asked last.
    fn calls(&mut self) -> Vec<StartedCall>;

    /// Delivers what became of a call.
    fn answer(&mut self, call: u32, response: &Response);

    /// What the filter has done with gRPC streams since it was asked last, in order, and with which.
    fn streams(&mut self) -> Vec<(u32, StreamDid)>;

    /// Delivers what comes on a gRPC stream.
    fn receive(&mut self, stream: u32, part: &StreamPart);

    /// How often the filter wants to be woken from now on, if at all; `None` if it has not said so since it was asked last.
    fn timer(&mut self) -> Option<Option<Duration>>;

    /// Wakes it.
    fn tick(&mut self);

    /// Tells it of the queues into which something was put.
    fn tell_of_queues(&mut self);

    /// Tells it that it ends.
    fn end(&mut self);

    /// Whether it has nothing left to do.
    fn has_ended(&self) -> bool;

    /// Sets the clock.
    fn set_time(&mut self, now: SystemTime);

    /// What the filter logged, in order.
    fn logs(&self) -> Vec<String>;

    /// The value of a metric's series: a counter's or gauge's value, or how many values a histogram has taken up.
    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<i64>;
}

/// What a filter said of an exchange beside its messages.
///
/// ```
/// use meshgate_abi::{Encode, LogEntry, function};
/// use meshgate_sdk::testing::Said;
///
/// let mut said = Said::default();
/// assert!(said.add(LogEntry { flags: vec!["RL".to_owned()], ..LogEntry::default() }));
/// assert!(!said.add(LogEntry { flags: vec!["UH".to_owned()], ..LogEntry::default() })); // the proxy's own
/// assert_eq!(said.flags, ["RL"]);
///
/// assert!(said.encode(Encode { coding: "gzip".to_owned(), level: 6 }));
/// assert_eq!(said.encoding, Some(("gzip".to_owned(), 6)));
///
/// assert_eq!(said.tracing(function::TRACE, b""), Some(Ok(Vec::new()))); // no trace is recorded
/// assert_eq!(said.tracing(function::KV, b""), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The letters of response flags, in the order in which they were set.
    pub flags: Vec<String>,
    /// Fields of the access log, in the order in which they were first added.
    pub fields: Fields,
    /// The coding for the response's body, and its level.
    pub encoding: Option<(String, u32)>,
    /// The speed of the response's body in bytes per second; 0: as fast as it can.
    pub throttle: u64,
    /// The trace that is recorded, if one is.
    pub trace: Option<TraceContext>,
    /// Spans that were added to it.
    pub spans: Vec<Span>,
    /// What they take.
    span_bytes: usize,
    /// Ids that were given out.
    last_id: u64,
}

/// Spans of an exchange and their bytes, and what each counts beside its own, as in Meshgate's defaults.
const MOST_SPANS: usize = 32;
const MOST_SPAN_BYTES: usize = 16 << 10;
const SPAN_COST: usize = 64;

impl Said {
    /// Adds what `meshgate.log` was called with. False, and nothing is added, if a flag is not a filter's to set, or a name no
    /// field's.
    #[must_use]
    pub fn add(&mut self, entry: LogEntry) -> bool {
        let known = entry.flags.iter().all(|flag| CLAIMABLE_FLAGS.contains(&flag.as_str()));
        if !known || !entry.fields.iter().all(|field| is_log_field_name(&field.name)) {
            return false;
        }
        for flag in entry.flags {
            if !self.flags.contains(&flag) {
                self.flags.push(flag);
            }
        }
        for LogField { name, value } in entry.fields {
            match self.fields.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => self.fields.push((name, value)),
            }
        }
        true
    }

    /// Answers `meshgate.trace`, `meshgate.span` and `meshgate.spans`; `None` for other functions.
    pub fn tracing(&mut self, name: &str, argument: &[u8]) -> Option<Result<Vec<u8>, Status>> {
        match name {
            function::TRACE => Some(self.tell_trace(argument)),
            function::SPAN => Some(self.add_span(argument).map(|()| Vec::new())),
            function::SPANS => Some(Ok(Spans { spans: self.spans.clone() }.encode_to_vec())),
            _ => None,
        }
    }

    fn tell_trace(&mut self, argument: &[u8]) -> Result<Vec<u8>, Status> {
        if argument.is_empty() {
            self.last_id += 1;
            let new_id = self.last_id.to_be_bytes().to_vec();
            let answer = self.trace.clone().map(|trace| TraceContext { new_id, ..trace });
            return Ok(answer.map(|answer| answer.encode_to_vec()).unwrap_or_default());
        }
        let trace = TraceContext::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
        let is_id = |id: &[u8], size| id.len() == size && id.iter().any(|byte| *byte != 0);
        if !is_id(&trace.trace_id, 16) || !is_id(&trace.span_id, 8) {
            return Err(Status::BAD_ARGUMENT);
        }
        self.trace = Some(trace);
        Ok(Vec::new())
    }

    fn add_span(&mut self, argument: &[u8]) -> Result<(), Status> {
        let span = Span::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
        let Some(trace) = &self.trace else { return Ok(()) };
        let sound = span.trace_id == trace.trace_id && !span.name.is_empty();
        if !sound || span.end_time_unix_nano < span.start_time_unix_nano {
            return Err(Status::BAD_ARGUMENT);
        }
        let bytes = self.span_bytes + argument.len() + SPAN_COST;
        if self.spans.len() >= MOST_SPANS || bytes > MOST_SPAN_BYTES {
            return Err(Status::INTERNAL_FAILURE);
        }
        self.span_bytes = bytes;
        self.spans.push(span);
        Ok(())
    }

    /// Takes what `meshgate.encode` was called with. False if there is no such coding.
    #[must_use]
    pub fn encode(&mut self, encode: Encode) -> bool {
        let known = encode.coding == "gzip" && encode.level <= 9;
        if known {
            self.encoding = Some((encode.coding, encode.level));
        }
        known
    }
}

/// One way of an exchange.
///
/// ```
/// use meshgate_sdk::testing::{Engine, Way};
///
/// fn fields(host: &impl Engine, exchange: u32) -> usize {
///     host.head(exchange, Way::Request).len() + host.head(exchange, Way::Response).len()
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client to the endpoint.
    Request,
    /// Back.
    Response,
}

/// A part of a message.
///
/// ```
/// use meshgate_sdk::testing::{Engine, Part, Verdict, Way};
///
/// /// Delivers a body in two parts.
/// fn deliver(host: &mut impl Engine, exchange: u32, one: &[u8], other: &[u8]) -> [Verdict; 2] {
///     [
///         host.deliver(exchange, Part::Body(Way::Request, one.to_vec(), false)),
///         host.deliver(exchange, Part::Body(Way::Request, other.to_vec(), true)),
///     ]
/// }
/// ```
#[derive(Clone, Debug)]
pub enum Part {
    /// The request's head, which the exchange was opened with; whether it is all.
    RequestHead(bool),
    /// The response's head, and whether it is all.
    ResponseHead(Fields, bool),
    /// A part of a body, and whether it is the last and no trailers follow.
    Body(Way, Vec<u8>, bool),
    /// The fields after a body.
    Trailers(Way, Fields),
    /// A client has connected.
    Connection,
    /// What one side of a connection sends, and whether it ends with that.
    Data(Way, Vec<u8>, bool),
    /// One side of a connection is over.
    Closed(Way, ClosedBy),
}

/// What became of what was delivered.
///
/// ```
/// use meshgate_sdk::testing::Verdict;
///
/// fn describe(verdict: &Verdict) -> String {
///     match verdict {
///         Verdict::Passed(bytes) => format!("{} bytes go on", bytes.len()),
///         Verdict::Held => "it waits".to_owned(),
///         Verdict::Answered(response) => format!("the client gets {}", response.status()),
///         Verdict::Closed(_) => "it is closed".to_owned(),
///         Verdict::Failed(reason) => format!("it fails: {reason}"),
///     }
/// }
/// # assert_eq!(describe(&Verdict::Passed(b"abc".to_vec())), "3 bytes go on");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It goes on, with these bytes of the body, or of what one side sent.
    Passed(Vec<u8>),
    /// The filter holds it.
    Held,
    /// The filter answered the exchange.
    Answered(Box<Response>),
    /// The filter closed the connection; these bytes still go on.
    Closed(Vec<u8>),
    /// The filter failed, so that nothing goes on.
    Failed(String),
}

/// A call that a filter has begun.
///
/// ```
/// use meshgate_sdk::testing::{Engine, Response, StartedCall};
///
/// /// Answers all calls, each with what it asks for.
/// fn answer(host: &mut impl Engine) {
///     for StartedCall { id, request, .. } in host.calls() {
///         host.answer(id, &Response::new(200).body(request.target()));
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct StartedCall {
    /// By which [`Engine::answer`] knows it.
    pub id: u32,
    /// Where to.
    pub cluster: String,
    /// What it asks.
    pub request: Request,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// What a filter did with a gRPC stream.
///
/// ```
/// use meshgate_sdk::testing::{Engine, StreamDid};
///
/// /// The messages that were sent since somebody looked, on any stream.
/// fn sent(host: &mut impl Engine) -> Vec<Vec<u8>> {
///     let did = host.streams().into_iter().map(|(_, did)| did);
///     did.filter_map(|did| if let StreamDid::Sent(message) = did { Some(message) } else { None }).collect()
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum StreamDid {
    /// It opened it.
    Opened {
        /// Where to.
        cluster: String,
        /// With this request, which has no body.
        request: Request,
    },
    /// It sent a message.
    Sent(Vec<u8>),
    /// It ended its side.
    Ended,
    /// It cancelled it.
    Cancelled,
}

/// What comes on a gRPC stream. The host tells of it in this order, and of metadata even where there is none.
///
/// ```
/// use meshgate_sdk::testing::{Engine, StreamPart};
///
/// /// Answers with one message, and ends the stream.
/// fn answer(host: &mut impl Engine, stream: u32, message: &[u8]) {
///     host.receive(stream, &StreamPart::Metadata(vec![(":status".to_owned(), b"200".to_vec())]));
///     host.receive(stream, &StreamPart::Message(message.to_vec()));
///     host.receive(stream, &StreamPart::Trailers(vec![("grpc-status".to_owned(), b"0".to_vec())]));
///     host.receive(stream, &StreamPart::Closed(0, String::new()));
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum StreamPart {
    /// Before the first message.
    Metadata(Fields),
    /// A message.
    Message(Vec<u8>),
    /// After the last message.
    Trailers(Fields),
    /// The end: a status, and words beside it.
    Closed(u32, String),
}
