//! A service of rate limits by Envoy's protocol, with its messages written and read by hand.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::ask::streamed;
use crate::backend::{Answer, Backend, Seen};
use crate::grpc::{framed, messages};

/// A service that lets every descriptor have so many hits, and then no more.
pub struct RateLimits {
    backend: Backend,
    counts: Counts,
}

/// Hits by descriptor: `domain: key=value, key=value`.
type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

impl RateLimits {
    /// Starts it with this limit, at most 127.
    pub async fn start(limit: u8) -> RateLimits {
        assert!(limit < 0x80, "the messages are written by hand");
        let counts = Counts::default();
        let counted = Arc::clone(&counts);
        let answer = move |seen, request| answer(limit, Arc::clone(&counted), seen, request);
        RateLimits { backend: Backend::http2("limits", answer).await, counts }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// How often it was asked.
    pub fn requests(&self) -> usize {
        self.backend.requests()
    }

    /// Hits by descriptor: `domain: key=value, key=value`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap().clone()
    }
}

async fn answer(limit: u8, counts: Counts, seen: Seen, request: Request<Incoming>) -> Answer {
    if seen.path != "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit" {
        return Err(io::Error::other(format!("{} is not what the service does", seen.path)));
    }
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let question = messages(&mut BytesMut::from(&body[..])).pop().unwrap_or_default();
    let framed = framed(&decide(limit, &counts, &question));
    let (mut sender, body) = streamed();
    tokio::spawn(async move {
        sender.send_data(framed).await?;
        let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
        sender.send_trailers(HeaderMap::from_iter([status])).await
    });
    Response::builder().header("content-type", "application/grpc").body(body).map_err(io::Error::other)
}

/// The answer: whether it is over a limit, each descriptor's status, and a field for either side.
fn decide(limit: u8, counts: &Counts, question: &[u8]) -> Vec<u8> {
    let (mut domain, mut descriptors, mut hits) = (String::new(), Vec::new(), 1);
    for (number, value) in fields(question) {
        match (number, value) {
            (1, Value::Bytes(text)) => domain = String::from_utf8_lossy(text).into_owned(),
            (2, Value::Bytes(descriptor)) => descriptors.push(described(descriptor)),
            (3, Value::Number(number)) => hits = number,
            _ => panic!("the question has an unknown field {number}"),
        }
    }
    let mut statuses = Vec::new();
    let mut is_over = false;
    for (entries, own_hits) in descriptors {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(format!("{domain}: {entries}")).or_default();
        *count += own_hits.unwrap_or(hits);
        let left = u64::from(limit).checked_sub(*count);
        is_over |= left.is_none();
        // Code, limit (so many in a minute, with a name), what is left, and 30 s until it begins again.
        let mut status = vec![0x08, if left.is_some() { 1 } else { 2 }];
        status.extend(bytes(2, &[&[0x08, limit, 0x10, 2][..], &bytes(3, b"each")].concat()));
        status.extend([0x18, u8::try_from(left.unwrap_or(0)).unwrap()]);
        status.extend(bytes(4, &[0x08, 30]));
        statuses.extend(bytes(2, &status));
    }
    let field = |name: &[u8]| [bytes(1, name), bytes(2, b"yes")].concat();
    let code = if is_over { 2 } else { 1 };
    let body: &[u8] = if is_over { b"come back later\n" } else { b"" };
    let added = [bytes(3, &field(b"x-counted")), bytes(4, &field(b"x-passed"))].concat();
    [&[0x08, code][..], &statuses, &added, &bytes(5, body)].concat()
}

/// A descriptor's entries, and how many hits it counts for if it says so.
fn described(descriptor: &[u8]) -> (String, Option<u64>) {
    let (mut entries, mut hits) = (Vec::new(), None);
    for (number, value) in fields(descriptor) {
        match (number, value) {
            (1, Value::Bytes(entry)) => {
                let texts = fields(entry).into_iter().map(|(_, value)| match value {
                    Value::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
                    Value::Number(number) => number.to_string(),
                });
                entries.push(texts.collect::<Vec<_>>().join("="));
            }
            (3, Value::Bytes(value)) => {
                hits = Some(fields(value).first().map_or(0, |(_, value)| match value {
                    Value::Number(number) => *number,
                    Value::Bytes(_) => panic!("hits are a number"),
                }));
            }
            _ => {}
        }
    }
    (entries.join(", "), hits)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, which has none but numbers and bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let number = varint(&mut message);
        found.push((
            key >> 3,
            match key & 7 {
                0 => Value::Number(number),
                2 => {
                    let (bytes, rest) = message.split_at(usize::try_from(number).unwrap());
                    message = rest;
                    Value::Bytes(bytes)
                }
                kind => panic!("a field of kind {kind}"),
            },
        ));
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = message.split_first().expect("the rest of a number");
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    number
}

/// A field of bytes; none if there are none.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    if content.is_empty() {
        return Vec::new();
    }
    [&[number << 3 | 2, u8::try_from(content.len()).expect("a short field")], content].concat()
}
