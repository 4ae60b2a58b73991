//! A gRPC server with the framing written by hand: the service `test.Echo`, whose methods behave well or badly by name.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::ask::{Body, BodySender, full, streamed};
use crate::backend::{Answer, Backend, Seen};

/// A message with its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.len().try_into().expect("a message the test wrote"));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The whole messages at the beginning of `bytes`, which are taken out.
pub fn messages(bytes: &mut BytesMut) -> Vec<Bytes> {
    let mut found = Vec::new();
    while let Some([_, length @ ..]) = bytes.first_chunk::<5>() {
        let length = u32::from_be_bytes(*length) as usize;
        if bytes.len() < 5 + length {
            break;
        }
        bytes.advance(5);
        found.push(bytes.split_to(length).freeze());
    }
    found
}

/// A server of `test.Echo`:
///
/// | method | what it does |
/// |---|---|
/// | `Unary` | answers with `echo: ` and the message |
/// | `Stream` | answers each message so, as it comes, and ends when the client has ended |
/// | `Early` | ends as soon as one message came, whatever else the client wants to send |
/// | `Fields` | answers with the request's `:authority` and fields whose names begin with `x-`, `te` and `grpc-` |
/// | `Refuse` | a head with status 7 and nothing else |
/// | `Silent` | never answers |
/// | `Status404`, `Html`, `NoStatus`, `NoTrailers`, `NoMessage`, `TwoMessages` | answers that are not as they should be |
/// | `Compressed`, `Cut`, `Large` | a message with a flag, one that lacks its end, one of 2 MiB |
/// | `ResetEarly`, `ResetLate` | resets the stream before the head; after a message, at the next one or the end |
pub async fn grpc_backend(name: &str) -> Backend {
    Backend::http2(name, answer).await
}

async fn answer(seen: Seen, request: Request<Incoming>) -> Answer {
    let method = seen.path.strip_prefix("/test.Echo/").unwrap_or_default().to_owned();
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let ok = || Response::builder().header("content-type", "application/grpc").header("x-initial", "i");
    let respond = |response: http::response::Builder, body| response.body(body).map_err(io::Error::other);
    match method.as_str() {
        "Stream" | "Early" | "ResetLate" => {
            let (sender, body) = streamed();
            tokio::spawn(converse(request.into_body(), sender, method));
            return respond(ok(), body);
        }
        "Silent" => return std::future::pending().await,
        "ResetEarly" => return Err(io::Error::other("reset")),
        _ => {}
    }
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let message = messages(&mut BytesMut::from(&body[..])).pop().unwrap_or_default();
    let echo = framed(&[b"echo: ", &message[..]].concat());
    let twice = [&echo[..], &echo[..]].concat();
    match method.as_str() {
        "Unary" => respond(ok(), ending(echo, Some("0"))),
        "Fields" => respond(ok(), ending(framed(fields(&authority, &seen).as_bytes()), Some("0"))),
        "Refuse" => respond(ok().header("grpc-status", "7").header("grpc-message", "not for you"), full("")),
        "Status404" => respond(Response::builder().status(StatusCode::NOT_FOUND), full("nothing here")),
        "Html" => respond(Response::builder().header("content-type", "text/html"), ending(echo, Some("0"))),
        "NoStatus" => respond(ok(), ending(echo, None)),
        "NoTrailers" => respond(ok(), full(echo)),
        "NoMessage" => respond(ok(), ending(Bytes::new(), Some("0"))),
        "TwoMessages" => respond(ok(), ending(twice.into(), Some("0"))),
        "Compressed" => respond(ok(), ending([&b"\x01"[..], &echo[1..]].concat().into(), Some("0"))),
        "Cut" => respond(ok(), ending(echo.slice(..echo.len() - 1), Some("0"))),
        "Large" => respond(ok(), ending(framed(&vec![b'x'; 2 << 20]), Some("0"))),
        _ => respond(ok().header("grpc-status", "12"), full("")),
    }
}

/// Answers message by message.
async fn converse(mut incoming: Incoming, mut sender: BodySender, method: String) {
    let mut bytes = BytesMut::new();
    let mut answered = 0;
    while let Some(Ok(frame)) = incoming.frame().await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |chunk| chunk));
        for message in messages(&mut bytes) {
            if method == "ResetLate" && answered > 0 {
                return sender.abort(io::Error::other("reset"));
            }
            answered += 1;
            let _ = sender.send_data(framed(&[b"echo: ", &message[..]].concat())).await;
        }
        if method == "Early" && answered > 0 {
            break;
        }
    }
    if method == "ResetLate" {
        return sender.abort(io::Error::other("reset"));
    }
    let _ = sender.send_trailers(trailers(Some("0"))).await;
}

fn trailers(status: Option<&'static str>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-trailing", HeaderValue::from_static("t"));
    if let Some(status) = status {
        trailers.insert("grpc-status", HeaderValue::from_static(status));
    }
    trailers
}

fn ending(bytes: Bytes, status: Option<&'static str>) -> Body {
    let (mut sender, body) = streamed();
    tokio::spawn(async move {
        if !bytes.is_empty() {
            sender.send_data(bytes).await?;
        }
        sender.send_trailers(trailers(status)).await
    });
    body
}

fn fields(authority: &str, seen: &Seen) -> String {
    let wanted = |name: &str| {
        let of_gateway = ["x-forwarded-", "x-request-", "x-envoy-", "x-meshgate-"]
            .iter()
            .any(|start| name.starts_with(start));
        (name.starts_with("x-") && !of_gateway)
            || name.starts_with("grpc-")
            || ["te", "content-type"].contains(&name)
    };
    let mut lines = vec![format!(":authority={authority}")];
    let mut names: Vec<_> =
        seen.headers.keys().map(http::HeaderName::as_str).filter(|name| wanted(name)).collect();
    names.sort_unstable();
    lines.extend(names.into_iter().map(|name| format!("{name}={}", seen.header(name))));
    lines.join(" ")
}
