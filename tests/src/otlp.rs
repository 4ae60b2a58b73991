//! A receiver of OpenTelemetry's protocol, over gRPC or HTTP, that remembers spans and log records. Protocol Buffers are read by
//! hand here: an encoder that reads itself proves nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value};

use crate::ask::{full, streamed};
use crate::backend::{Answer, Backend, Seen};
use crate::deadline::until;
use crate::grpc::{framed, messages};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// A receiver, gone when dropped.
pub struct OtlpReceiver {
    backend: Backend,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
    /// Answers that are to be errors.
    failures: usize,
}

/// A span as it came.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// In hexadecimal digits.
    pub trace: String,
    /// In hexadecimal digits.
    pub id: String,
    /// In hexadecimal digits; empty for a root.
    pub parent: String,
    /// The name.
    pub name: String,
    /// 2: server, 3: client.
    pub kind: u64,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// `tracestate` as it came.
    pub state: String,
    /// 2: an error.
    pub status: u64,
    /// Flags.
    pub flags: u64,
    /// Attributes: texts and numbers.
    pub attributes: Map<String, Value>,
    /// Attributes of who sent it.
    pub resource: Map<String, Value>,
}

/// A log record as it came.
#[derive(Clone, Debug, Default)]
pub struct LogRecord {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// `INFO` or the like.
    pub severity: String,
    /// The body.
    pub body: Value,
    /// In hexadecimal digits.
    pub trace: String,
    /// In hexadecimal digits.
    pub span: String,
    /// Attributes.
    pub attributes: Map<String, Value>,
    /// Attributes of who sent it.
    pub resource: Map<String, Value>,
}

impl OtlpReceiver {
    /// A receiver over gRPC.
    pub async fn grpc() -> OtlpReceiver {
        let received = Arc::<Mutex<Received>>::default();
        let kept = Arc::clone(&received);
        let backend =
            Backend::http2("collector", move |seen, request| grpc(Arc::clone(&kept), seen, request)).await;
        OtlpReceiver { backend, received }
    }

    /// A receiver over HTTP.
    pub async fn http() -> OtlpReceiver {
        let received = Arc::<Mutex<Received>>::default();
        let kept = Arc::clone(&received);
        let backend =
            Backend::answering("collector", move |seen, request| plain(Arc::clone(&kept), seen, request))
                .await;
        OtlpReceiver { backend, received }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// As a server, with the heads of all requests.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The next so many requests are answered with an error that says to try again.
    pub fn fail(&self, requests: usize) {
        self.locked().failures = requests;
    }

    /// All spans until now.
    pub fn spans(&self) -> Vec<Span> {
        self.locked().spans.clone()
    }

    /// All log records until now.
    pub fn logs(&self) -> Vec<LogRecord> {
        self.locked().logs.clone()
    }

    /// Waits until so many spans came, and tells all.
    pub async fn wait_for_spans(&self, count: usize) -> Vec<Span> {
        let enough = || async { Some(self.spans()).filter(|spans| spans.len() >= count) };
        until(format!("{count} spans came"), enough).await
    }

    /// Waits until so many log records came, and tells all.
    pub async fn wait_for_logs(&self, count: usize) -> Vec<LogRecord> {
        let enough = || async { Some(self.logs()).filter(|logs| logs.len() >= count) };
        until(format!("{count} log records came"), enough).await
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Received> {
        self.received.lock().expect("nobody panics while pushing")
    }
}

async fn grpc(received: Arc<Mutex<Received>>, seen: Seen, request: Request<Incoming>) -> Answer {
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let message = messages(&mut BytesMut::from(&body[..])).pop().unwrap_or_default();
    let status = match seen.path.as_str() {
        TRACES => received.lock().expect("no panic").take(true, &message).map_or("14", |()| "0"),
        LOGS => received.lock().expect("no panic").take(false, &message).map_or("14", |()| "0"),
        _ => "12",
    };
    let (mut sender, body) = streamed();
    tokio::spawn(async move {
        if status == "0" {
            sender.send_data(framed(b"")).await?;
        }
        let trailers = HeaderMap::from_iter([(
            "grpc-status".parse().expect("a name"),
            HeaderValue::from_static(status),
        )]);
        sender.send_trailers(trailers).await
    });
    Response::builder().header("content-type", "application/grpc").body(body).map_err(io::Error::other)
}

async fn plain(received: Arc<Mutex<Received>>, seen: Seen, request: Request<Incoming>) -> Answer {
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let is_sound =
        seen.method == http::Method::POST && seen.header("content-type") == "application/x-protobuf";
    let status = match seen.path.as_str() {
        "/v1/traces" if is_sound => {
            received.lock().expect("no panic").take(true, &body).map_or(503, |()| 200)
        }
        "/v1/logs" if is_sound => received.lock().expect("no panic").take(false, &body).map_or(503, |()| 200),
        _ => 404,
    };
    Response::builder().status(status).body(full("")).map_err(io::Error::other)
}

impl Received {
    /// Keeps what a request has; none if it is to fail.
    fn take(&mut self, traces: bool, message: &[u8]) -> Option<()> {
        if self.failures > 0 {
            self.failures -= 1;
            return None;
        }
        for of_resource in parts(message, 1) {
            let resource =
                parts(of_resource, 1).next().map(|resource| attributes(resource, 1)).unwrap_or_default();
            for record in parts(of_resource, 2).flat_map(|of_scope| parts(of_scope, 2)) {
                if traces {
                    self.spans.push(Span { resource: resource.clone(), ..Span::read(record) });
                } else {
                    self.logs.push(LogRecord { resource: resource.clone(), ..LogRecord::read(record) });
                }
            }
        }
        Some(())
    }
}

impl Span {
    fn read(message: &[u8]) -> Span {
        let status = parts(message, 15).next().map_or(0, |status| number(status, 3));
        Span {
            trace: hex(message, 1),
            id: hex(message, 2),
            state: text(message, 3),
            parent: hex(message, 4),
            name: text(message, 5),
            kind: number(message, 6),
            start: number(message, 7),
            end: number(message, 8),
            attributes: attributes(message, 9),
            status,
            flags: number(message, 16),
            resource: Map::new(),
        }
    }
}

impl LogRecord {
    fn read(message: &[u8]) -> LogRecord {
        LogRecord {
            time: number(message, 1),
            severity: text(message, 3),
            body: parts(message, 5).next().map_or(Value::Null, any),
            attributes: attributes(message, 6),
            trace: hex(message, 9),
            span: hex(message, 10),
            resource: Map::new(),
        }
    }
}

/// A field's value, as far as its form tells.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers.
fn read(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => Field::Number(varint(&mut message)),
            1 => Field::Number(u64::from_le_bytes(*take::<8>(&mut message))),
            5 => Field::Number(u32::from_le_bytes(*take::<4>(&mut message)).into()),
            2 => {
                let length = varint(&mut message) as usize;
                assert!(length <= message.len(), "a field longer than its message");
                let (bytes, rest) = message.split_at(length);
                message = rest;
                Field::Bytes(bytes)
            }
            other => panic!("no wire type: {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take::<1>(message)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a number that does not end")
}

fn take<'a, const N: usize>(message: &mut &'a [u8]) -> &'a [u8; N] {
    let (bytes, rest) = message.split_first_chunk().expect("a message that ends in a field");
    *message = rest;
    bytes
}

fn parts(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    read(message).into_iter().filter_map(move |(number, value)| match value {
        Field::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    })
}

fn number(message: &[u8], wanted: u64) -> u64 {
    let found = read(message).into_iter().find_map(|(number, value)| match value {
        Field::Number(value) if number == wanted => Some(value),
        _ => None,
    });
    found.unwrap_or(0)
}

fn text(message: &[u8], wanted: u64) -> String {
    let bytes = parts(message, wanted).next().unwrap_or_default();
    String::from_utf8(bytes.to_vec()).expect("texts are UTF-8")
}

fn hex(message: &[u8], wanted: u64) -> String {
    let bytes = parts(message, wanted).next().unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(message: &[u8], wanted: u64) -> Map<String, Value> {
    let pair = |pair| (text(pair, 1), parts(pair, 2).next().map_or(Value::Null, any));
    let pairs: BTreeMap<_, _> = parts(message, wanted).map(pair).collect();
    pairs.into_iter().collect()
}

/// `AnyValue`
fn any(message: &[u8]) -> Value {
    match read(message).into_iter().next() {
        Some((1, Field::Bytes(bytes))) => String::from_utf8_lossy(bytes).into(),
        Some((2, Field::Number(value))) => (value != 0).into(),
        Some((3, Field::Number(value))) => value.cast_signed().into(),
        Some((6, Field::Bytes(list))) => Value::Object(attributes(list, 1)),
        _ => Value::Null,
    }
}
