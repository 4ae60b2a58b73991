//! The engine that runs a filter natively, in the simulated host.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshgate_abi::{Attempt, Attempts, Retry, event};
use prost::Message;

use super::engine::{Engine, Part, Said, StartedCall, StreamDid, StreamPart, Verdict, Way};
use super::message::{Client, Failure, Fields, Request, Response};
use super::simulated::{Callback, Simulated};
use super::world::{Stream, World, next_id, within};
use crate::host::{Action, Direction, MapType};
use crate::runtime::{Root, grpc_streams};

/// One worker with one filter.
pub(crate) struct Native<K: Simulated> {
    root: Option<Root<K>>,
    streams: HashMap<u32, K::Context>,
    world: Rc<RefCell<World>>,
    plugin: u32,
}

impl<K: Simulated> Native<K> {
    pub(crate) fn new() -> Self {
        Self { root: None, streams: HashMap::new(), world: Rc::default(), plugin: 0 }
    }

    /// Runs a callback for this context.
    fn callback<T>(&self, context: u32, run: impl FnOnce() -> T) -> T {
        let mut world = self.world.borrow_mut();
        (world.active, world.effective) = (context, context);
        drop(world);
        within(&self.world, run)
    }

    /// Makes a callback of a stream context, if it is one that the filter has.
    fn call(&self, exchange: u32, callback: Callback) -> Action {
        match self.streams.get(&exchange) {
            Some(context) if callback.is_of::<K>() => self.callback(exchange, || K::call(context, callback)),
            _ => Action::Continue,
        }
    }

    fn with<T>(&self, exchange: u32, look: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        self.world.borrow_mut().streams.get_mut(&exchange).map(look)
    }

    /// Delivers bytes; `callback` is told how many there are.
    fn arrives(&self, exchange: u32, way: Way, bytes: &[u8], callback: impl Fn(usize) -> Callback) -> Action {
        let direction = direction(way);
        let size = self.with(exchange, |stream| {
            stream.in_body = Some(direction);
            stream.bodies.get_mut(direction as usize).map_or(0, |body| {
                body.extend_from_slice(bytes);
                body.len()
            })
        });
        let action = self.call(exchange, callback(size.unwrap_or(0)));
        self.with(exchange, |stream| stream.in_body = None);
        action
    }

    /// Makes something known, and its context.
    fn begin(&self, facts: &[(String, Vec<u8>)], mut stream: Stream) -> (u32, Option<K::Context>) {
        let id = next_id();
        for (path, value) in facts {
            stream.properties.insert(path.replace('/', "\0").into_bytes(), value.clone());
        }
        self.world.borrow_mut().streams.insert(id, stream);
        let root = self.root.as_ref();
        (id, root.map(|root| self.callback(self.plugin, || K::create(root, id))))
    }

    /// What became of a callback that returned this.
    fn verdict(&self, exchange: u32, way: Way, action: Action) -> Verdict {
        let direction = direction(way) as usize;
        let verdict = self.with(exchange, |stream| {
            if let Some(answer) = stream.answer.take() {
                return Verdict::Answered(Box::new(answer));
            }
            let resumed = stream.resumed.get_mut(direction).is_some_and(std::mem::take);
            let passes = action == Action::Continue || resumed;
            if !passes && !stream.closed {
                return Verdict::Held;
            }
            let body = stream.bodies.get_mut(direction).filter(|_| passes);
            let bytes = body.map(std::mem::take).unwrap_or_default();
            if stream.closed { Verdict::Closed(bytes) } else { Verdict::Passed(bytes) }
        });
        verdict.unwrap_or(Verdict::Held)
    }
}

impl<K: Simulated> Engine for Native<K> {
    fn start(&mut self, configuration: &str) -> Result<(), String> {
        let before = (std::mem::take(&mut self.streams), self.root.take());
        self.callback(self.plugin, || drop(before));
        let logged = {
            let mut world = self.world.borrow_mut();
            let holds =
                world.streams.values_mut().flat_map(|stream| std::mem::take(&mut stream.holds)).collect();
            world.release(holds);
            world.configuration = configuration.as_bytes().to_vec();
            world.timer = Some(None);
            world.logs.len()
        };
        self.plugin = next_id();
        let root = Root::new(self.plugin);
        if self.callback(self.plugin, || root.configure(configuration.len())) {
            self.root = Some(root);
            Ok(())
        } else {
            Err(self.world.borrow().logs.get(logged..).unwrap_or_default().join("\n"))
        }
    }

    fn open(&mut self, request: &Request) -> u32 {
        let mut stream = Stream::default();
        stream.maps[MapType::HttpRequestHeaders as usize] = Some(request.head.clone());
        stream.said.trace = request.trace();
        let (exchange, context) = self.begin(&request.facts, stream);
        self.streams.extend(context.map(|context| (exchange, context)));
        exchange
    }

    fn connect(&mut self, client: &Client) -> u32 {
        let stream = Stream { is_tcp: true, ..Stream::default() };
        let (connection, context) = self.begin(client.facts(), stream);
        self.streams.extend(context.map(|context| (connection, context)));
        connection
    }

    fn deliver(&mut self, exchange: u32, part: Part) -> Verdict {
        let (way, action) = match part {
            Part::RequestHead(end) => (Way::Request, self.call(exchange, Callback::Head(Way::Request, end))),
            Part::ResponseHead(mut fields, end) => {
                self.with(exchange, |stream| {
                    let added = stream.route.iter().flat_map(|route| &route.response_headers);
                    fields.extend(added.map(|header| (header.name.clone(), header.value.clone())));
                    stream.maps[MapType::HttpResponseHeaders as usize] = Some(fields);
                });
                (Way::Response, self.call(exchange, Callback::Head(Way::Response, end)))
            }
            Part::Body(way, bytes, end) => {
                (way, self.arrives(exchange, way, &bytes, |size| Callback::Body(way, size, end)))
            }
            Part::Trailers(way, fields) => {
                let map = trailers(way);
                self.with(exchange, |stream| stream.maps[map as usize] = Some(fields));
                (way, self.call(exchange, Callback::Trailers(way)))
            }
            Part::Connection => (Way::Request, self.call(exchange, Callback::Connection)),
            Part::Data(way, bytes, end) => {
                (way, self.arrives(exchange, way, &bytes, |size| Callback::Data(way, size, end)))
            }
            Part::Closed(way, by) => {
                self.call(exchange, Callback::Closed(way, by));
                // It lets nothing go.
                (way, Action::Pause)
            }
        };
        self.verdict(exchange, way, action)
    }

    fn released(&mut self, exchange: u32, way: Way) -> Option<Verdict> {
        let verdict = self.verdict(exchange, way, Action::Pause);
        (verdict != Verdict::Held).then_some(verdict)
    }

    fn head(&self, exchange: u32, way: Way) -> Fields {
        self.fields(
            exchange,
            match way {
                Way::Request => MapType::HttpRequestHeaders,
                Way::Response => MapType::HttpResponseHeaders,
            },
        )
    }

    fn trailers(&self, exchange: u32, way: Way) -> Fields {
        self.fields(exchange, trailers(way))
    }

    fn cluster(&self, exchange: u32) -> Option<String> {
        self.with(exchange, |stream| stream.route.as_ref().map(|route| route.cluster.clone()))?
    }

    fn direct(&self, exchange: u32) -> Option<Response> {
        self.with(exchange, |stream| {
            let direct = stream.route.as_ref()?.direct.as_ref()?;
            let mut response = Response::new(u16::try_from(direct.status).ok()?).body(direct.body.clone());
            for header in &direct.headers {
                response = response.header(&header.name, &header.value);
            }
            Some(response)
        })?
    }

    fn attempts(&self, exchange: u32) -> Option<Attempts> {
        self.with(exchange, |stream| stream.attempts.clone())?
    }

    fn ask(&mut self, exchange: u32, attempt: &Attempt, head: Option<Fields>) -> Option<Retry> {
        let message = attempt.encode_to_vec();
        let size = message.len();
        self.world.borrow_mut().event = message;
        self.with(exchange, |stream| {
            stream.maps[MapType::HttpResponseHeaders as usize] = head;
            stream.verdict = Some(None);
        });
        self.call(exchange, Callback::ForeignFunction(event::ATTEMPT, size));
        self.with(exchange, |stream| {
            stream.maps[MapType::HttpResponseHeaders as usize] = None;
            stream.verdict.take().flatten()
        })?
    }

    fn close(&mut self, exchange: u32) -> Said {
        self.with(exchange, |stream| stream.over = true);
        self.call(exchange, Callback::Log);
        let stream = self.streams.remove(&exchange);
        self.callback(exchange, || drop(stream));
        let mut world = self.world.borrow_mut();
        let Stream { said, holds, .. } = world.streams.remove(&exchange).unwrap_or_default();
        world.release(holds);
        said
    }

    fn set_clusters(&mut self, names: Vec<String>) {
        self.world.borrow_mut().clusters = names;
    }

    fn calls(&mut self) -> Vec<StartedCall> {
        std::mem::take(&mut self.world.borrow_mut().calls)
    }

    fn answer(&mut self, call: u32, response: &Response) {
        let is_grpc = self.world.borrow_mut().grpc_calls.remove(&call);
        if is_grpc {
            self.answer_grpc(call, response);
            return;
        }
        let reply = match response.failure {
            None => Some(response.clone()),
            // As hosts say it by default.
            Some(Failure::Timeout) => Some(Response::new(504).body("upstream request timeout")),
            Some(Failure::Refused) => Some(Response::new(503).body("upstream connect error")),
            Some(Failure::Reset) => {
                let words = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
                Some(Response::new(503).body(words))
            }
        };
        let (headers, body, trailers) = reply
            .as_ref()
            .map_or((0, 0, 0), |reply| (reply.head.len(), reply.bytes().len(), reply.tail.len()));
        self.world.borrow_mut().reply = reply;
        self.delivered(
            call,
            |context| K::http_call_response(context, call, headers, body, trailers),
            |root| root.http_call_response(call, headers, body, trailers),
        );
        self.world.borrow_mut().reply = None;
    }

    fn streams(&mut self) -> Vec<(u32, StreamDid)> {
        self.world.borrow_mut().take_streams()
    }

    fn receive(&mut self, stream: u32, part: &StreamPart) {
        let (reply, part) = match part {
            StreamPart::Metadata(fields) => (
                Response::received(fields.clone(), Vec::new(), Fields::new()),
                grpc_streams::Part::Metadata(fields.len()),
            ),
            StreamPart::Message(message) => (
                Response::received(Fields::new(), message.clone(), Fields::new()),
                grpc_streams::Part::Message(message.len()),
            ),
            StreamPart::Trailers(fields) => (
                Response::received(Fields::new(), Vec::new(), fields.clone()),
                grpc_streams::Part::Trailers(fields.len()),
            ),
            StreamPart::Closed(status, words) => {
                (Response::grpc_status(*status, words), grpc_streams::Part::Closed(*status))
            }
        };
        let mut world = self.world.borrow_mut();
        let Some(made_by) = world.receives(stream, matches!(part, grpc_streams::Part::Closed(_))) else {
            return;
        };
        world.reply = Some(reply);
        drop(world);
        self.delivered_to(
            made_by,
            |context| K::grpc_stream(context, stream, part),
            |root| root.grpc_stream(stream, part),
        );
        self.world.borrow_mut().reply = None;
    }

    fn timer(&mut self) -> Option<Option<Duration>> {
        self.world.borrow_mut().timer.take()
    }

    fn tick(&mut self) {
        if let Some(root) = &self.root {
            self.callback(self.plugin, || root.tick());
        }
    }

    fn tell_of_queues(&mut self) {
        let ready = std::mem::take(&mut self.world.borrow_mut().ready);
        if let Some(root) = &self.root {
            ready.into_iter().for_each(|queue| self.callback(self.plugin, || root.queue_ready(queue)));
        }
    }

    fn end(&mut self) {
        let is_done = self.root.as_ref().is_none_or(|root| self.callback(self.plugin, || root.end()));
        self.world.borrow_mut().is_done = is_done;
    }

    fn has_ended(&self) -> bool {
        self.world.borrow().is_done
    }

    fn set_time(&mut self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.world.borrow_mut().nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    }

    fn logs(&self) -> Vec<String> {
        self.world.borrow().logs.clone()
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
        let mut labels: Vec<_> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        labels.sort();
        let world = self.world.borrow();
        let found = world.metrics.iter().find(|series| series.name == name && series.labels == labels);
        found.map(|series| series.value)
    }
}

impl<K: Simulated> Native<K> {
    fn answer_grpc(&self, call: u32, response: &Response) {
        self.world.borrow_mut().reply = Some(response.clone());
        let (status, size) = match response.grpc_outcome() {
            Ok(message) => (0, message.len()),
            Err((status, _)) => (status, 0),
        };
        self.delivered(
            call,
            |context| K::grpc_call_response(context, call, status, size),
            |root| root.grpc_call_response(call, status, size),
        );
        self.world.borrow_mut().reply = None;
    }

    /// As the `proxy-wasm` crate does: to the context in whose callback the call was made, if it is still there.
    fn delivered(&self, call: u32, stream: impl FnOnce(&K::Context), root: impl FnOnce(&Root<K>)) {
        let Some(made_by) = self.world.borrow_mut().made_by.remove(&call) else { return };
        self.delivered_to(made_by, stream, root);
    }

    fn delivered_to(&self, made_by: u32, stream: impl FnOnce(&K::Context), root: impl FnOnce(&Root<K>)) {
        match (self.streams.get(&made_by), &self.root) {
            (Some(known), _) => self.callback(made_by, || stream(known)),
            (None, Some(known)) if made_by == self.plugin => self.callback(made_by, || root(known)),
            _ => {}
        }
    }

    fn fields(&self, exchange: u32, map: MapType) -> Fields {
        self.with(exchange, |stream| stream.maps.get(map as usize).cloned().flatten())
            .flatten()
            .unwrap_or_default()
    }
}

fn trailers(way: Way) -> MapType {
    match way {
        Way::Request => MapType::HttpRequestTrailers,
        Way::Response => MapType::HttpResponseTrailers,
    }
}

fn direction(way: Way) -> Direction {
    match way {
        Way::Request => Direction::Request,
        Way::Response => Direction::Response,
    }
}
