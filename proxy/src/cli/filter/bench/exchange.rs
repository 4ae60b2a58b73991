//! One exchange again and again, with a stopwatch at every callback.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Version};
use meshgate::filter::{Chain, Stream, StreamParts, Target, Targets};
use meshgate_wasm::{
    Attributes, BodyAction, CallFailure, Callbacks, Connection, GrpcStatus, HeadersAction, HttpCallResponse,
    HttpStream, Plugin, RequestHead, ResponseHead, StreamContext, VmError,
};

use super::host::{Bench, Waiting};
use super::report::{Measurements, Part};
use crate::cli::filter::cases::{self, Answer, Case, GrpcAnswering};

/// How long the exchange is run before it is measured, so that caches are warm and memory has grown to what it will be.
const WARM_UP: Duration = Duration::from_millis(500);
/// Ticks after which a filter that still waits will not go on.
const MOST_TICKS: u32 = 100_000;

/// What a case's first exchange consists of.
pub(super) struct Sample {
    request: RequestHead,
    request_body: Bytes,
    response: ResponseHead,
    response_body: Bytes,
    clusters: BTreeMap<String, Answered>,
    connection: Rc<Connection>,
    chain: Rc<Chain>,
    targets: Targets,
}

impl Sample {
    pub(super) fn of(case: &Case) -> Result<Sample> {
        let (request, request_body) = request(case)?;
        let upstream = answered(&case.upstream)?.response;
        let upstream =
            upstream.context("the upstream must answer what is measured: this case says `fails`")?;
        let clusters = case.clusters.iter().map(|(name, answer)| Ok((name.clone(), answered(answer)?)));
        let (client, listener) = (([127, 0, 0, 1], 50_000), ([127, 0, 0, 1], 8080));
        let address = std::net::SocketAddr::from;
        Ok(Sample {
            request,
            request_body,
            response: upstream.head,
            response_body: upstream.body,
            clusters: clusters.collect::<Result<_>>()?,
            connection: Rc::new(Connection::cleartext(1, address(client), address(listener))),
            chain: Rc::new(Chain { name: "bench".into(), filters: Box::default() }),
            targets: Rc::new(|name| Some(Target { name: name.into(), metadata: None })),
        })
    }

    fn stream(&self) -> Rc<Stream> {
        let attributes = Attributes::new(Rc::clone(&self.connection));
        Stream::new(StreamParts {
            http: HttpStream::new(self.request.clone(), attributes),
            chain: Rc::clone(&self.chain),
            clusters: Rc::clone(&self.targets),
        })
    }

    /// What comes of a call: to a cluster that the case does not mention, that nobody is there.
    fn outcome(&self, call: &Waiting) -> Result<HttpCallResponse, CallFailure> {
        let answered = self.clusters.get(&call.cluster).ok_or(CallFailure::NoEndpoint)?;
        if call.timeout.is_some_and(|timeout| answered.delay >= timeout) {
            return Err(CallFailure::Timeout);
        }
        answered.response.clone().ok_or(CallFailure::Reset)
    }

    /// As for calls.
    fn grpc(&self, cluster: &str) -> GrpcAnswered {
        let answered = self.clusters.get(cluster);
        GrpcAnswered {
            answer: answered.and_then(|answered| answered.grpc.clone()),
            delay: answered.map_or(Duration::ZERO, |answered| answered.delay),
        }
    }
}

/// What comes of gRPC to a cluster.
pub(super) struct GrpcAnswered {
    /// None: nobody is there, or it closes the connection.
    pub(super) answer: Option<Rc<GrpcAnswering>>,
    delay: Duration,
}

impl GrpcAnswered {
    pub(super) fn of_call(&self, timeout: Option<Duration>) -> Result<Bytes, GrpcStatus> {
        const DEADLINE_EXCEEDED: u32 = 4;
        if timeout.is_some_and(|timeout| self.delay >= timeout) {
            return Err(GrpcStatus::new(DEADLINE_EXCEEDED, "upstream request timeout"));
        }
        let answer = self.answer.as_ref().ok_or_else(|| self.status())?;
        answer.of_call().map_err(|(code, words)| GrpcStatus { code, message: words.into() })
    }

    /// The status of a stream.
    pub(super) fn status(&self) -> GrpcStatus {
        const UNAVAILABLE: u32 = 14;
        match &self.answer {
            Some(answer) => GrpcStatus { code: answer.status, message: answer.words.clone().into() },
            None => GrpcStatus::new(UNAVAILABLE, "no healthy upstream"),
        }
    }
}

fn request(case: &Case) -> Result<(RequestHead, Bytes)> {
    let (head, body) = cases::written(&case.request)?.into_parts();
    let mut headers = head.headers;
    let authority = headers.remove(HOST).unwrap_or_else(|| HeaderValue::from_static(""));
    let path = head.uri.path_and_query().cloned();
    let request = RequestHead {
        method: head.method,
        scheme: Scheme::HTTP,
        authority,
        path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
        version: Version::HTTP_11,
        headers,
    };
    Ok((request, body))
}

/// What a cluster does with a call.
struct Answered {
    /// None: it closes the connection.
    response: Option<HttpCallResponse>,
    grpc: Option<Rc<GrpcAnswering>>,
    delay: Duration,
}

fn answered(answer: &Answer) -> Result<Answered> {
    let cases::Answering { response, delay, fails, grpc } = cases::answering(answer)?;
    let (head, body) = response.into_parts();
    let head = ResponseHead { status: head.status, headers: head.headers };
    let response = (!fails).then_some(HttpCallResponse { head, body, trailers: None });
    Ok(Answered { response, grpc: grpc.filter(|_| !fails).map(Rc::new), delay })
}

/// Runs the sample's exchange through a plugin.
pub(super) struct Exchanges<'a> {
    sample: &'a Sample,
    host: &'a Bench,
    plugin: &'a Rc<Plugin>,
    measured: Measurements,
}

/// Where a filter holds an exchange.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Response,
}

impl<'a> Exchanges<'a> {
    pub(super) fn new(sample: &'a Sample, host: &'a Bench, plugin: &'a Rc<Plugin>) -> Self {
        Self { sample, host, plugin, measured: Measurements::new() }
    }

    pub(super) fn warm_up(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.one()?;
        while begun.elapsed() < WARM_UP {
            self.one()?;
        }
        self.measured = Measurements::new();
        Ok(())
    }

    pub(super) fn run_for(mut self, time: Duration) -> Result<Measurements> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.one()?;
        }
        Ok(self.measured)
    }

    fn one(&mut self) -> Result<()> {
        let stream = self.sample.stream();
        let begun = Instant::now();
        let context = self.plugin.stream(Rc::clone(&stream) as Rc<dyn meshgate_wasm::Exchange>, 0)?;
        self.measured.add(Part::Create, begun, 0);
        let run = Run { context: &context, stream: &stream };
        self.request(&run)?;
        self.response(&run)?;
        let begun = Instant::now();
        context.finish();
        self.measured.add(Part::End, begun, 0);
        self.measured.end_exchange();
        Ok(())
    }

    fn request(&mut self, run: &Run<'_>) -> Result<()> {
        let (body, has) = (&self.sample.request_body, self.plugin.callbacks());
        if has.contains(Callbacks::REQUEST_HEADERS) {
            let action =
                self.timed(run, Part::RequestHead, |context| context.on_request_headers(body.is_empty()))?;
            // A filter that may read the body while it holds the head gets it; others wait first.
            if !matches!(action, HeadersAction::Continue | HeadersAction::StopIteration) {
                self.wait(run, Way::Request)?;
            }
        }
        if !body.is_empty() && has.contains(Callbacks::REQUEST_BODY) && !run.is_answered() {
            run.context.request_body().push(body.clone());
            let action = self.timed(run, Part::RequestBody, |context| context.on_request_body(true))?;
            if action != BodyAction::Continue {
                self.wait(run, Way::Request)?;
            }
            run.context.request_body().clear();
        }
        Ok(())
    }

    fn response(&mut self, run: &Run<'_>) -> Result<()> {
        if run.is_answered() {
            // A filter's own answer runs up through the filters before it.
            self.measured.answered += 1;
            return Ok(());
        }
        let (body, has) = (&self.sample.response_body, self.plugin.callbacks());
        run.stream.http().borrow_mut().response = Some(self.sample.response.clone());
        if has.contains(Callbacks::RESPONSE_HEADERS) {
            let action =
                self.timed(run, Part::ResponseHead, |context| context.on_response_headers(body.is_empty()))?;
            if !matches!(action, HeadersAction::Continue | HeadersAction::StopIteration) {
                self.wait(run, Way::Response)?;
            }
        }
        if !body.is_empty() && has.contains(Callbacks::RESPONSE_BODY) && !run.is_answered() {
            run.context.response_body().push(body.clone());
            let action = self.timed(run, Part::ResponseBody, |context| context.on_response_body(true))?;
            if action != BodyAction::Continue {
                self.wait(run, Way::Response)?;
            }
            run.context.response_body().clear();
        }
        Ok(())
    }

    fn timed<T>(
        &mut self,
        run: &Run<'_>,
        part: Part,
        callback: impl FnOnce(&StreamContext) -> Result<T, VmError>,
    ) -> Result<T> {
        let begun = Instant::now();
        let outcome = callback(run.context)?;
        self.measured.add(part, begun, run.context.copied());
        Ok(outcome)
    }

    /// Answers calls, and fires the timer when there are none, until the filter goes on.
    fn wait(&mut self, run: &Run<'_>, way: Way) -> Result<()> {
        let mut ticks = 0;
        while !run.goes_on(way) {
            if let Some(failure) = self.host.failure() {
                bail!("{failure}");
            }
            if let Some(call) = self.host.next_call() {
                let outcome = self.sample.outcome(&call);
                let begun = Instant::now();
                call.reply.deliver(outcome);
                self.measured.add(Part::CallResponse, begun, run.context.copied());
                continue;
            }
            let begun = Instant::now();
            if self.host.grpc.deliver(|cluster| self.sample.grpc(cluster)) {
                self.measured.add(Part::Grpc, begun, run.context.copied());
                continue;
            }
            let timer = self.host.next_tick().filter(|_| ticks < MOST_TICKS);
            let timer =
                timer.context("the filter holds the exchange, and there is nothing it could wait for")?;
            ticks += 1;
            let begun = Instant::now();
            timer.tick();
            self.measured.add(Part::Tick, begun, run.context.copied());
        }
        Ok(())
    }
}

/// An exchange under way.
struct Run<'a> {
    context: &'a StreamContext,
    stream: &'a Stream,
}

impl Run<'_> {
    fn is_answered(&self) -> bool {
        self.stream.http().borrow().local_response.is_some()
    }

    fn goes_on(&self, way: Way) -> bool {
        let resumed = match way {
            Way::Request => self.context.take_resumed_request(),
            Way::Response => self.context.take_resumed_response(),
        };
        resumed || self.is_answered()
    }
}
