//! The engine that runs a filter natively, in the simulated host.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshgate_abi::{Attempt, Attempts, Retry, event};
use prost::Message;

use super::engine::{Engine, Part, StartedCall, Verdict, Way};
use super::message::{Failure, Fields, Request, Response};
use super::world::{Stream, World, next_id, within};
use crate::filter::Filter;
use crate::host::{CONTINUE, Direction, Map};
use crate::runtime::Module;

/// One worker with one filter.
pub(crate) struct Native<F: Filter> {
    module: Module<F>,
    world: Rc<RefCell<World>>,
    plugin: u32,
}

impl<F: Filter> Native<F> {
    pub(crate) fn new() -> Self {
        Self { module: Module::new(), world: Rc::default(), plugin: 0 }
    }

    /// Runs a callback for this context.
    fn callback<T>(&self, context: u32, run: impl FnOnce(&Module<F>) -> T) -> T {
        self.world.borrow_mut().effective = context;
        within(&self.world, || run(&self.module))
    }

    fn with<T>(&self, exchange: u32, look: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        self.world.borrow_mut().streams.get_mut(&exchange).map(look)
    }

    fn body(&self, exchange: u32, way: Way, bytes: &[u8], end: bool) -> u32 {
        let direction = direction(way);
        let size = self.with(exchange, |stream| {
            stream.in_body = Some(direction);
            stream.bodies.get_mut(direction as usize).map_or(0, |body| {
                body.extend_from_slice(bytes);
                body.len()
            })
        });
        let size = size.unwrap_or(0);
        let action = self.callback(exchange, |module| match way {
            Way::Request if F::CALLBACKS.contains(&"request_body") => {
                module.request_body(exchange, size, end)
            }
            Way::Response if F::CALLBACKS.contains(&"response_body") => {
                module.response_body(exchange, size, end)
            }
            _ => CONTINUE,
        });
        self.with(exchange, |stream| stream.in_body = None);
        action
    }

    /// What became of a callback that returned this.
    fn verdict(&self, exchange: u32, way: Way, action: u32) -> Verdict {
        let direction = direction(way) as usize;
        let verdict = self.with(exchange, |stream| {
            if let Some(answer) = stream.answer.take() {
                return Verdict::Answered(Box::new(answer));
            }
            let resumed = stream.resumed.get_mut(direction).is_some_and(std::mem::take);
            if action == CONTINUE || resumed {
                return Verdict::Passed(
                    stream.bodies.get_mut(direction).map(std::mem::take).unwrap_or_default(),
                );
            }
            Verdict::Held
        });
        verdict.unwrap_or(Verdict::Held)
    }
}

impl<F: Filter> Engine for Native<F> {
    fn start(&mut self, configuration: &str) -> Result<(), String> {
        if self.plugin != 0 {
            self.callback(self.plugin, |module| module.delete(self.plugin));
        }
        let logged = {
            let mut world = self.world.borrow_mut();
            world.configuration = configuration.as_bytes().to_vec();
            world.timer = Some(None);
            world.logs.len()
        };
        self.plugin = next_id();
        let accepted = self.callback(self.plugin, |module| {
            module.create(self.plugin, 0);
            module.configure(self.plugin, configuration.len())
        });
        if accepted {
            Ok(())
        } else {
            Err(self.world.borrow().logs.get(logged..).unwrap_or_default().join("\n"))
        }
    }

    fn open(&mut self, request: &Request) -> u32 {
        let exchange = next_id();
        let mut stream = Stream::default();
        stream.maps[Map::RequestHeaders as usize] = Some(request.head.clone());
        for (path, value) in &request.facts {
            stream.properties.insert(path.replace('/', "\0").into_bytes(), value.clone());
        }
        self.world.borrow_mut().streams.insert(exchange, stream);
        self.callback(self.plugin, |module| module.create(exchange, self.plugin));
        exchange
    }

    fn deliver(&mut self, exchange: u32, part: Part) -> Verdict {
        let has = |name| F::CALLBACKS.contains(&name);
        let (way, action) = match part {
            Part::RequestHead(end) => {
                let run = |module: &Module<F>| module.request_head(exchange, end);
                (Way::Request, if has("request_headers") { self.callback(exchange, run) } else { CONTINUE })
            }
            Part::ResponseHead(mut fields, end) => {
                self.with(exchange, |stream| {
                    let added = stream.route.iter().flat_map(|route| &route.response_headers);
                    fields.extend(added.map(|header| (header.name.clone(), header.value.clone())));
                    stream.maps[Map::ResponseHeaders as usize] = Some(fields);
                });
                let run = |module: &Module<F>| module.response_head(exchange, end);
                (Way::Response, if has("response_headers") { self.callback(exchange, run) } else { CONTINUE })
            }
            Part::Body(way, bytes, end) => (way, self.body(exchange, way, &bytes, end)),
            Part::Trailers(way, fields) => {
                let (map, name, body) = match way {
                    Way::Request => (Map::RequestTrailers, "request_trailers", "request_body"),
                    Way::Response => (Map::ResponseTrailers, "response_trailers", "response_body"),
                };
                self.with(exchange, |stream| stream.maps[map as usize] = Some(fields));
                let run = |module: &Module<F>| match way {
                    Way::Request => module.request_trailers(exchange),
                    Way::Response => module.response_trailers(exchange),
                };
                (way, if has(name) || has(body) { self.callback(exchange, run) } else { CONTINUE })
            }
        };
        self.verdict(exchange, way, action)
    }

    fn released(&mut self, exchange: u32, way: Way) -> Option<Verdict> {
        let verdict = self.verdict(exchange, way, crate::host::PAUSE);
        (verdict != Verdict::Held).then_some(verdict)
    }

    fn head(&self, exchange: u32, way: Way) -> Fields {
        self.fields(exchange, if way == Way::Request { Map::RequestHeaders } else { Map::ResponseHeaders })
    }

    fn trailers(&self, exchange: u32, way: Way) -> Fields {
        self.fields(exchange, if way == Way::Request { Map::RequestTrailers } else { Map::ResponseTrailers })
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
            stream.maps[Map::ResponseHeaders as usize] = head;
            stream.verdict = Some(None);
        });
        if F::CALLBACKS.contains(&"foreign_function") {
            self.callback(exchange, |module| module.foreign_function(exchange, event::ATTEMPT, size));
        }
        self.with(exchange, |stream| {
            stream.maps[Map::ResponseHeaders as usize] = None;
            stream.verdict.take().flatten()
        })?
    }

    fn close(&mut self, exchange: u32) {
        self.with(exchange, |stream| stream.over = true);
        self.callback(exchange, |module| {
            if F::CALLBACKS.contains(&"log") {
                module.log(exchange);
            }
            module.delete(exchange);
        });
        self.world.borrow_mut().streams.remove(&exchange);
    }

    fn set_clusters(&mut self, names: Vec<String>) {
        self.world.borrow_mut().clusters = names;
    }

    fn calls(&mut self) -> Vec<StartedCall> {
        std::mem::take(&mut self.world.borrow_mut().calls)
    }

    fn answer(&mut self, call: u32, response: &Response) {
        if self.world.borrow_mut().grpc_calls.remove(&call) {
            self.answer_grpc(call, response);
            return;
        }
        let reply = match response.failure {
            None => Some(response.clone()),
            // As hosts say it by default; a connection that breaks has no words.
            Some(Failure::Timeout) => Some(Response::new(504).body("upstream request timeout")),
            Some(Failure::Refused) => Some(Response::new(503).body("upstream connect error")),
            Some(Failure::Reset) => None,
        };
        let (headers, body, trailers) = reply.as_ref().map_or((0, 0, 0), |reply| {
            (count(reply.head.len()), count(reply.bytes().len()), count(reply.tail.len()))
        });
        self.world.borrow_mut().reply = reply;
        self.callback(self.plugin, |module| module.http_call_response(call, headers, body, trailers));
        self.world.borrow_mut().reply = None;
    }

    fn timer(&mut self) -> Option<Option<Duration>> {
        self.world.borrow_mut().timer.take()
    }

    fn tick(&mut self) {
        self.callback(self.plugin, |module| module.tick(self.plugin));
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

impl<F: Filter> Native<F> {
    fn answer_grpc(&self, call: u32, response: &Response) {
        self.world.borrow_mut().reply = Some(response.clone());
        self.callback(self.plugin, |module| match response.grpc_outcome() {
            Ok(message) => module.grpc_receive(call, count(message.len())),
            Err((status, _)) => module.grpc_close(call, status),
        });
        self.world.borrow_mut().reply = None;
    }

    fn fields(&self, exchange: u32, map: Map) -> Fields {
        self.with(exchange, |stream| stream.maps.get(map as usize).cloned().flatten())
            .flatten()
            .unwrap_or_default()
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn direction(way: Way) -> Direction {
    match way {
        Way::Request => Direction::Request,
        Way::Response => Direction::Response,
    }
}
