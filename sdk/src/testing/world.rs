//! The simulated host: what hostcalls read and write while a filter's callback runs natively.
//!
//! It follows Meshgate's own host, as far as a filter on the SDK can notice.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use meshgate_abi::{
    Attempts, Cancel, Encode, LogEntry, MetricType, Retry, RouteDecision, Series, Throttle, function,
};
use prost::Message;

use super::calls::OpenStream;
use super::engine::{Said, StartedCall, StreamDid};
use super::message::{Fields, Response};
use super::shared::{Hold, SharedValues};
use crate::headers::Pairs;
use crate::host::{BufferType, Direction, LocalResponse, MapType, Status};

thread_local! {
    static CURRENT: RefCell<Option<Rc<RefCell<World>>>> = const { RefCell::new(None) };
    /// Contexts and calls are numbered through for all worlds of a thread: the SDK's tables are the thread's.
    static LAST: RefCell<u32> = const { RefCell::new(0) };
}

/// Lets a hostcall act on the world that is entered, if there is one.
pub(crate) fn current<T>(call: impl FnOnce(&mut World) -> T) -> Option<T> {
    CURRENT.with_borrow(|world| world.as_ref().map(|world| call(&mut world.borrow_mut())))
}

/// Runs a callback in this world.
pub(crate) fn within<T>(world: &Rc<RefCell<World>>, callback: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(Some(Rc::clone(world)));
    let result = callback();
    CURRENT.replace(before);
    result
}

pub(crate) fn next_id() -> u32 {
    LAST.with_borrow_mut(|last| {
        *last += 1;
        *last
    })
}

/// One exchange or connection.
#[derive(Default)]
pub(crate) struct Stream {
    /// The messages' fields, by the number of their map; `None` for those that are not there yet.
    pub(crate) maps: [Option<Fields>; 4],
    /// What is there of the bodies, or of what both sides of a connection send.
    pub(crate) bodies: [Vec<u8>; 2],
    /// The one whose callback runs.
    pub(crate) in_body: Option<Direction>,
    pub(crate) properties: HashMap<Vec<u8>, Vec<u8>>,
    pub(crate) resumed: [bool; 2],
    pub(crate) answer: Option<Response>,
    pub(crate) route: Option<RouteDecision>,
    pub(crate) attempts: Option<Attempts>,
    /// While the filter is asked about a try: what it answers.
    pub(crate) verdict: Option<Option<Retry>>,
    pub(crate) over: bool,
    /// It is a connection.
    pub(crate) is_tcp: bool,
    /// The filter has closed it.
    pub(crate) closed: bool,
    pub(crate) said: Said,
    /// What it holds of shared numbers.
    pub(crate) holds: Vec<Hold>,
}

/// What a metric's series has come to.
pub(crate) struct Recorded {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) kind: u32,
    pub(crate) value: i64,
}

/// Everything outside of the filter.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) nanoseconds: u64,
    pub(crate) configuration: Vec<u8>,
    pub(crate) clusters: Vec<String>,
    /// The period that was set since somebody looked.
    pub(crate) timer: Option<Option<Duration>>,
    pub(crate) logs: Vec<String>,
    pub(crate) metrics: Vec<Recorded>,
    pub(crate) shared: SharedValues,
    /// By number, which begin at 1.
    queues: Vec<(String, VecDeque<Vec<u8>>)>,
    /// The queues into which something was put since somebody looked.
    pub(crate) ready: Vec<u32>,
    pub(crate) calls: Vec<StartedCall>,
    /// Which of all calls are gRPC's.
    pub(crate) grpc_calls: HashSet<u32>,
    pub(super) grpc_streams: HashMap<u32, OpenStream>,
    /// What was done with them since somebody looked.
    pub(super) streams_did: Vec<(u32, StreamDid)>,
    /// The message of the event that is being delivered.
    pub(crate) event: Vec<u8>,
    /// The call's response that is being delivered.
    pub(crate) reply: Option<Response>,
    pub(crate) streams: HashMap<u32, Stream>,
    /// The context whose callback runs.
    pub(crate) active: u32,
    /// The context that hostcalls act for.
    pub(crate) effective: u32,
    /// In whose callback each call was made: to that one its response goes.
    pub(crate) made_by: HashMap<u32, u32>,
    /// The filter has come to its end.
    pub(crate) is_done: bool,
    /// For which context each call and stream was begun: for that one it counts.
    pub(super) made_for: HashMap<u32, u32>,
}

impl World {
    /// What a stream that is over held is given back.
    pub(crate) fn release(&mut self, holds: Vec<Hold>) {
        for hold in holds {
            self.shared.release(&hold, self.nanoseconds);
        }
    }

    fn stream(&mut self) -> Option<&mut Stream> {
        self.streams.get_mut(&self.effective)
    }

    pub(crate) fn log(&mut self, message: &str) {
        self.logs.push(message.to_owned());
    }

    pub(crate) fn now(&self) -> u64 {
        self.nanoseconds
    }

    pub(crate) fn set_tick_period(&mut self, period: Duration) {
        self.timer = Some((!period.is_zero()).then_some(period));
    }

    pub(crate) fn set_effective_context(&mut self, context: u32) {
        self.effective = context;
    }

    pub(crate) fn buffer(
        &mut self,
        buffer: BufferType,
        start: usize,
        most: usize,
    ) -> Result<Vec<u8>, Status> {
        let bytes = match buffer {
            BufferType::PluginConfiguration => &self.configuration,
            BufferType::CallData => &self.event,
            BufferType::HttpCallResponseBody | BufferType::GrpcReceiveBuffer => {
                return self
                    .reply
                    .as_ref()
                    .map(|reply| part(&reply.bytes(), start, most))
                    .ok_or(Status::NOT_FOUND);
            }
            buffer => self.body(buffer).ok_or(Status::NOT_FOUND)?,
        };
        Ok(part(bytes, start, most))
    }

    pub(crate) fn set_buffer(
        &mut self,
        buffer: BufferType,
        start: usize,
        size: usize,
        new: &[u8],
    ) -> Result<(), Status> {
        let body = self.body(buffer).ok_or(Status::BAD_ARGUMENT)?;
        let start = start.min(body.len());
        let end = start.saturating_add(size).min(body.len());
        body.splice(start..end, new.iter().copied());
        Ok(())
    }

    /// There during its callback, and while something is held.
    fn body(&mut self, buffer: BufferType) -> Option<&mut Vec<u8>> {
        let (direction, is_tcp) = match buffer {
            BufferType::HttpRequestBody => (Direction::Request, false),
            BufferType::HttpResponseBody => (Direction::Response, false),
            BufferType::DownstreamData => (Direction::Request, true),
            BufferType::UpstreamData => (Direction::Response, true),
            _ => return None,
        };
        let stream = self.stream().filter(|stream| stream.is_tcp == is_tcp)?;
        let in_body = stream.in_body == Some(direction);
        let body = stream.bodies.get_mut(direction as usize)?;
        (in_body || !body.is_empty()).then_some(body)
    }

    pub(crate) fn map(&mut self, map: MapType) -> Option<&Fields> {
        match map {
            MapType::HttpCallResponseHeaders | MapType::GrpcReceiveInitialMetadata => {
                self.reply.as_ref().map(|reply| &reply.head)
            }
            MapType::HttpCallResponseTrailers | MapType::GrpcReceiveTrailingMetadata => {
                self.reply.as_ref().map(|reply| &reply.tail)
            }
            map => self.stream()?.maps.get(map as usize)?.as_ref(),
        }
    }

    pub(crate) fn header(&mut self, map: MapType, name: &str) -> Result<Vec<u8>, Status> {
        let name = canonical(name);
        let fields = self.map(map).ok_or(Status::NOT_FOUND)?;
        let found = fields.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).ok_or(Status::NOT_FOUND)
    }

    /// The fields of a map that can be written, if name and value can be sent.
    fn writable(&mut self, map: MapType, name: &str, value: &[u8]) -> Result<&mut Fields, Status> {
        let token = name.strip_prefix(':').unwrap_or(name);
        let sound = !token.is_empty()
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
            && value.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f));
        let stream = self.stream().filter(|stream| sound && !stream.over).ok_or(Status::BAD_ARGUMENT)?;
        stream.maps.get_mut(map as usize).and_then(Option::as_mut).ok_or(Status::BAD_ARGUMENT)
    }

    pub(crate) fn add_header(&mut self, map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
        if name.starts_with(':') {
            return self.set_header(map, name, value);
        }
        let name = canonical(name);
        self.writable(map, &name, value)?.push((name, value.to_vec()));
        Ok(())
    }

    pub(crate) fn set_header(&mut self, map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
        let name = canonical(name);
        let fields = self.writable(map, &name, value)?;
        match fields.iter().position(|(known, _)| *known == name) {
            Some(position) => {
                let mut index = 0;
                fields.retain(|(known, _)| {
                    index += 1;
                    *known != name || index == position + 1
                });
                if let Some((_, known)) = fields.get_mut(position) {
                    *known = value.to_vec();
                }
            }
            None => fields.push((name, value.to_vec())),
        }
        Ok(())
    }

    pub(crate) fn remove_header(&mut self, map: MapType, name: &str) -> Result<(), Status> {
        let name = canonical(name);
        // Pseudo-headers stay: a message cannot do without.
        self.writable(map, &name, b"")?.retain(|(known, _)| *known != name || known.starts_with(':'));
        Ok(())
    }

    pub(crate) fn property(&mut self, path: &[u8]) -> Result<Vec<u8>, Status> {
        let stream = self.stream().ok_or(Status::NOT_FOUND)?;
        if let Some(value) = stream.properties.get(path) {
            return Ok(value.clone());
        }
        let field = |map: usize, name: &str| {
            let (_, value) = stream.maps.get(map)?.as_ref()?.iter().find(|(known, _)| known == name)?;
            Some(value.clone())
        };
        let number = |bytes: Vec<u8>| {
            let number: i64 = String::from_utf8(bytes).ok()?.parse().ok()?;
            Some(number.to_le_bytes().to_vec())
        };
        let decided = |value: fn(&RouteDecision) -> &String| {
            stream
                .route
                .as_ref()
                .map(value)
                .filter(|text| !text.is_empty())
                .map(|text| text.clone().into_bytes())
        };
        match path {
            b"request\0path" => field(0, ":path"),
            b"request\0method" => field(0, ":method"),
            b"request\0host" => field(0, ":authority"),
            b"request\0scheme" => field(0, ":scheme"),
            b"request\0id" => field(0, "x-request-id"),
            b"response\0code" => field(2, ":status").and_then(number),
            b"xds\0route_name" => decided(|route| &route.route),
            b"xds\0cluster_name" => decided(|route| &route.cluster),
            _ => None,
        }
        .ok_or(Status::NOT_FOUND)
    }

    pub(crate) fn set_property(&mut self, path: &[u8], value: &[u8]) -> Result<(), Status> {
        let stream = self.stream().ok_or(Status::NOT_FOUND)?;
        stream.properties.insert(path.to_vec(), value.to_vec());
        Ok(())
    }

    pub(crate) fn resume(&mut self, direction: Direction) {
        if let Some(resumed) = self.stream().and_then(|stream| stream.resumed.get_mut(direction as usize)) {
            *resumed = true;
        }
    }

    pub(crate) fn close(&mut self) {
        if let Some(stream) = self.stream() {
            stream.closed = true;
        }
    }

    pub(crate) fn answer(&mut self, response: LocalResponse<'_>) -> Result<(), Status> {
        if !(200..1000).contains(&response.status) {
            return Err(Status::BAD_ARGUMENT);
        }
        let Some(stream) = self.stream() else { return Ok(()) };
        if stream.answer.is_none() {
            let fields = Pairs::new(response.headers.to_vec());
            let mut answer = Response::new(response.status);
            answer.head.extend(fields.iter().map(|(name, value)| (canonical(name), value.to_vec())));
            if !response.body.is_empty() {
                answer.parts = vec![response.body.to_vec()];
                if answer.field("content-type").is_none() {
                    answer = answer.header("content-type", "text/plain");
                }
            }
            let details = response.details.replace(char::is_whitespace, "_");
            stream.properties.insert(b"response\0code_details".to_vec(), details.into_bytes());
            if response.grpc_status >= 0 {
                let status = i64::from(response.grpc_status).to_le_bytes().to_vec();
                stream.properties.insert(b"response\0grpc_status".to_vec(), status);
            }
            stream.answer = Some(answer);
        }
        Ok(())
    }

    pub(crate) fn foreign_function(&mut self, name: &str, argument: &[u8]) -> Result<Vec<u8>, Status> {
        match name {
            function::ROUTE => {
                let decision = RouteDecision::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
                let exists = |cluster: &String| self.clusters.contains(cluster);
                let known = decision.direct.is_some() || exists(&decision.cluster);
                let known = known && decision.mirrors.iter().all(|mirror| exists(&mirror.cluster));
                let stream = self.stream().filter(|_| known).ok_or(Status::BAD_ARGUMENT)?;
                stream.route = Some(decision);
                Ok(Vec::new())
            }
            function::ATTEMPTS => {
                let attempts = Attempts::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
                self.stream().ok_or(Status::BAD_ARGUMENT)?.attempts = Some(attempts);
                Ok(Vec::new())
            }
            function::RETRY => {
                let retry = Retry::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
                let verdict = self.stream().and_then(|stream| stream.verdict.as_mut());
                *verdict.ok_or(Status::BAD_ARGUMENT)? = Some(retry);
                Ok(Vec::new())
            }
            function::KV => {
                let of_stream = self.streams.contains_key(&self.effective);
                let (answer, hold) = self.shared.answer(argument, of_stream, self.nanoseconds)?;
                self.stream().into_iter().for_each(|stream| stream.holds.extend(hold.clone()));
                Ok(answer)
            }
            function::ENCODE => {
                let encode = Encode::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
                let stream = self
                    .stream()
                    .filter(|stream| stream.maps[MapType::HttpResponseHeaders as usize].is_some());
                let stream = stream.ok_or(Status::BAD_ARGUMENT)?;
                if stream.said.encode(encode) { Ok(Vec::new()) } else { Err(Status::BAD_ARGUMENT) }
            }
            function::THROTTLE => {
                let throttle = Throttle::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
                self.stream().ok_or(Status::BAD_ARGUMENT)?.said.throttle = throttle.bytes_per_second;
                Ok(Vec::new())
            }
            function::CANCEL => {
                let Cancel { call } = Cancel::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
                self.cancel(call).map(|()| Vec::new())
            }
            function::LOG => {
                let entry = LogEntry::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
                let stream = self.stream().ok_or(Status::BAD_ARGUMENT)?;
                if stream.said.add(entry) { Ok(Vec::new()) } else { Err(Status::BAD_ARGUMENT) }
            }
            function::METRIC => {
                let series = Series::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
                let kind = MetricType::try_from(series.r#type).map_err(|_| Status::BAD_ARGUMENT)?;
                let labels = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
                self.define_metric(kind as u32, &series.name, labels).map(|id| id.to_le_bytes().to_vec())
            }
            function::TRACE | function::SPAN | function::SPANS => {
                let stream = self.stream().filter(|stream| !stream.is_tcp).ok_or(Status::BAD_ARGUMENT)?;
                stream.said.tracing(name, argument).unwrap_or(Err(Status::NOT_FOUND))
            }
            _ => Err(Status::NOT_FOUND),
        }
    }

    pub(crate) fn define_metric(
        &mut self,
        kind: u32,
        name: &str,
        mut labels: Vec<(String, String)>,
    ) -> Result<u32, Status> {
        labels.sort();
        let of_name = |recorded: &&Recorded| recorded.name == name;
        if self.metrics.iter().find(of_name).is_some_and(|recorded| recorded.kind != kind) {
            return Err(Status::BAD_ARGUMENT);
        }
        let known =
            self.metrics.iter().position(|recorded| recorded.name == name && recorded.labels == labels);
        let position = known.unwrap_or_else(|| {
            self.metrics.push(Recorded { name: name.to_owned(), labels, kind, value: 0 });
            self.metrics.len() - 1
        });
        u32::try_from(position).map_err(|_| Status::INTERNAL_FAILURE)
    }

    pub(crate) fn record_metric(&mut self, id: u32, value: u64) -> Result<(), Status> {
        let recorded = self.metrics.get_mut(id as usize).ok_or(Status::NOT_FOUND)?;
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        match recorded.kind {
            0 => recorded.value = recorded.value.saturating_add(value),
            1 => recorded.value = value,
            _ => recorded.value += 1,
        }
        Ok(())
    }

    pub(crate) fn increment_metric(&mut self, id: u32, offset: i64) -> Result<(), Status> {
        let recorded = self.metrics.get_mut(id as usize).ok_or(Status::NOT_FOUND)?;
        if recorded.kind > 1 || (recorded.kind == 0 && offset <= 0) {
            return Err(Status::BAD_ARGUMENT);
        }
        recorded.value = recorded.value.saturating_add(offset);
        Ok(())
    }

    pub(crate) fn shared_data(&mut self, key: &str) -> Result<(Vec<u8>, u32), Status> {
        self.shared.find(key, self.nanoseconds)
    }

    pub(crate) fn set_shared_data(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        version: u32,
    ) -> Result<(), Status> {
        self.shared.set(key, value, version, None, self.nanoseconds)
    }

    pub(crate) fn register_queue(&mut self, name: &str) -> Result<u32, Status> {
        if let Ok(id) = self.find_queue(name) {
            return Ok(id);
        }
        self.queues.push((name.to_owned(), VecDeque::new()));
        u32::try_from(self.queues.len()).map_err(|_| Status::INTERNAL_FAILURE)
    }

    pub(crate) fn find_queue(&self, name: &str) -> Result<u32, Status> {
        let position = self.queues.iter().position(|(known, _)| known == name).ok_or(Status::NOT_FOUND)?;
        u32::try_from(position + 1).map_err(|_| Status::NOT_FOUND)
    }

    pub(crate) fn enqueue(&mut self, id: u32, item: &[u8]) -> Result<(), Status> {
        self.queue(id)?.push_back(item.to_vec());
        self.ready.push(id);
        Ok(())
    }

    pub(crate) fn dequeue(&mut self, id: u32) -> Result<Vec<u8>, Status> {
        self.queue(id)?.pop_front().ok_or(Status::EMPTY)
    }

    fn queue(&mut self, id: u32) -> Result<&mut VecDeque<Vec<u8>>, Status> {
        let index = (id as usize).checked_sub(1).ok_or(Status::NOT_FOUND)?;
        self.queues.get_mut(index).map(|(_, items)| items).ok_or(Status::NOT_FOUND)
    }
}

pub(super) fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name == "host" { ":authority".to_owned() } else { name }
}

fn part(bytes: &[u8], start: usize, most: usize) -> Vec<u8> {
    bytes.iter().skip(start).take(most).copied().collect()
}
