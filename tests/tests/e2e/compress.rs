//! The standard filter `compress`, and the host's part in it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use meshgate_tests::{Ask, Backend, Client, Meshgate, empty, full, streamed, within};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush};

/// A body that is worth it, and tells where something is missing.
fn text(lines: usize) -> String {
    (0..lines).map(|line| format!("line {line} of a text that goes on and on\n")).collect()
}

/// A backend whose every answer is this, with these fields.
async fn answering(body: String, fields: &'static [(&'static str, &'static str)]) -> Backend {
    Backend::answering("one", move |_, _| {
        let body = body.clone();
        async move {
            let answer =
                fields.iter().fold(Response::builder(), |answer, (name, value)| answer.header(*name, *value));
            Ok(answer.body(full(body)).unwrap())
        }
    })
    .await
}

fn asking() -> Ask {
    Ask::get("/").header("accept-encoding", "gzip")
}

/// What a gzip stream holds, once its frame is checked.
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    assert_eq!(bytes[..4], [0x1f, 0x8b, 8, 0], "no gzip");
    let (deflated, end) = bytes[10..].split_at(bytes.len() - 18);
    let plain = miniz_oxide::inflate::decompress_to_vec(deflated).unwrap();
    assert_eq!(end[..4], crc32fast::hash(&plain).to_le_bytes());
    assert_eq!(end[4..], (plain.len() as u32).to_le_bytes());
    plain
}

#[tokio::test]
async fn responses_are_compressed_for_who_takes_them_so() {
    let plain = text(20_000);
    let fields = &[("content-type", "text/plain"), ("etag", "\"1\""), ("accept-ranges", "bytes")];
    let one = answering(plain.clone(), fields).await;
    let gate = Meshgate::chain("- compress: {}").cluster("one", &[&one]).start().await;
    for mut client in [Client::http1(gate.address()).await, Client::http2(gate.address()).await] {
        let reply = client.call(asking()).await;
        let said = ["content-encoding", "content-length", "etag", "accept-ranges", "vary"]
            .map(|name| reply.header(name));
        assert_eq!(said, ["gzip", "", "W/\"1\"", "", "accept-encoding"]);
        assert!(reply.body.len() < plain.len() / 4, "{} of {}", reply.body.len(), plain.len());
        assert!(unpacked(&reply.body) == plain.as_bytes());
        // And the connection goes on.
        let reply = client.get("/").await;
        let said = ["content-encoding", "etag", "accept-ranges", "vary"].map(|name| reply.header(name));
        assert_eq!(said, ["", "\"1\"", "bytes", "accept-encoding"]);
        assert!(reply.text() == plain);
    }
    let entries = gate.stop().await.access_log;
    assert!(entries[0]["bytes_sent"].as_u64().unwrap() < plain.len() as u64 / 4, "what was sent counts");
}

#[tokio::test]
async fn what_is_not_worth_it_stays_as_it_is() {
    for fields in [
        &[("content-type", "image/png")][..],
        &[("content-type", "text/plain"), ("content-encoding", "br")],
        &[("content-type", "text/plain"), ("cache-control", "no-transform")],
        &[("content-type", "text/plain"), ("content-range", "bytes 0-9/10")],
    ] {
        let one = answering(text(100), fields).await;
        let gate = Meshgate::chain("- compress: {}").cluster("one", &[&one]).start().await;
        let reply = gate.call(asking()).await;
        assert!(reply.text() == text(100) && reply.header("vary").is_empty(), "{fields:?}");
        assert!(!reply.header("content-length").is_empty());
    }
    let one = answering("short".to_owned(), &[("content-type", "text/plain")]).await;
    let gate = Meshgate::chain("- compress: {}").cluster("one", &[&one]).start().await;
    assert_eq!(gate.call(asking()).await.text(), "short");
}

#[tokio::test]
async fn heads_say_what_a_get_would() {
    let one = answering(text(100), &[("content-type", "text/plain"), ("etag", "\"1\"")]).await;
    let gate = Meshgate::chain("- compress: {}").cluster("one", &[&one]).start().await;
    for mut client in [Client::http1(gate.address()).await, Client::http2(gate.address()).await] {
        let ask = Ask::new(Method::HEAD, "/", empty()).header("accept-encoding", "gzip");
        let reply = client.call(ask).await;
        let said = ["content-encoding", "content-length", "etag"].map(|name| reply.header(name));
        assert_eq!((said, reply.text()), (["gzip", "", "W/\"1\""], String::new()));
        assert_eq!(client.call(asking()).await.header("content-encoding"), "gzip");
    }
}

#[tokio::test]
async fn events_are_not_held_back_and_trailers_follow() {
    let (events, body) = streamed();
    let body = Arc::new(Mutex::new(Some(body)));
    let one = Backend::http2("one", move |_, _| {
        let body = body.lock().unwrap().take().unwrap();
        async move { Ok(Response::builder().header("content-type", "text/event-stream").body(body).unwrap()) }
    })
    .await;
    let gate = Meshgate::chain("- compress: {}")
        .cluster_of("one", &[one.address()], "protocol: http2")
        .start()
        .await;
    let mut client = Client::http2(gate.address()).await;
    let begun = client.begin(asking().header("te", "trailers")).await.unwrap();
    let mut response = within("the head", begun).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut events = events;
    let mut inflater = InflateState::new_boxed(DataFormat::Raw);
    let mut packed = Vec::new();
    let mut seen = 0;
    for number in 0..5 {
        let event = format!("data: {number}\n\n");
        assert!(events.send_data(Bytes::from(event.clone())).await.is_ok());
        let mut plain = Vec::new();
        while plain.len() < event.len() {
            let frame = within("the event", response.frame()).await.unwrap().unwrap();
            packed.extend_from_slice(frame.data_ref().unwrap());
            seen = seen.max(10);
            let mut out = [0; 256];
            let result = inflate(&mut inflater, &packed[seen..], &mut out, MZFlush::None);
            seen += result.bytes_consumed;
            plain.extend_from_slice(&out[..result.bytes_written]);
        }
        assert_eq!(plain, event.as_bytes());
    }
    let trailers = [("x-sum", "5")]
        .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
    assert!(events.send_trailers(trailers.into_iter().collect()).await.is_ok());
    drop(events);
    let rest = within("the rest", response.collect()).await.unwrap();
    assert_eq!(rest.trailers().unwrap()["x-sum"], "5");
    packed.extend_from_slice(&rest.to_bytes());
    assert_eq!(unpacked(&packed).len(), 5 * "data: 0\n\n".len());
}

#[tokio::test]
async fn large_bodies_stream() {
    let plain = text(400_000);
    let one = answering(plain.clone(), &[("content-type", "text/plain")]).await;
    let gate = Meshgate::chain("- compress: {level: 1}").cluster("one", &[&one]).start().await;
    let reply = gate.call(asking()).await;
    assert!(unpacked(&reply.body) == plain.as_bytes());
}

#[tokio::test]
async fn no_more_are_compressed_at_a_time_than_there_may_be() {
    let plain = text(100);
    let one = answering(plain.clone(), &[("content-type", "text/plain")]).await;
    let gate = Meshgate::chain("- compress: {}")
        .top("filters: {compress: {limits: {encodings: 0}}}")
        .cluster("one", &[&one])
        .start()
        .await;
    let reply = gate.call(asking()).await;
    assert!(reply.text() == plain && reply.header("content-encoding").is_empty());
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_compress_responses_total", &[("result", "refused")]), 1.0);
    let met = [("plugin", "compress"), ("limit", "encodings")];
    assert_eq!(metrics.sum("meshgate_plugin_limit_exceeded_total", &met), 1.0);
}

#[tokio::test]
async fn places_are_given_back_when_a_response_is_over() {
    let plain = text(100);
    let one = answering(plain.clone(), &[("content-type", "text/plain")]).await;
    let gate = Meshgate::chain("- compress: {}")
        .top("filters: {compress: {limits: {encodings: 1}}}")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut client = gate.client().await;
    for _ in 0..10 {
        assert_eq!(client.call(asking()).await.header("content-encoding"), "gzip");
    }
}

#[tokio::test]
async fn other_filters_see_the_body_as_it_was() {
    let one = answering(text(100), &[("content-type", "text/plain")]).await;
    let gate = Meshgate::chain(
        "
        - plain: {response_body: {uppercase: true}}
        - compress: {}
        - plain: {response_body: {append: the end}}
        ",
    )
    .guest("plain", "")
    .cluster("one", &[&one])
    .start()
    .await;
    let reply = gate.call(asking()).await;
    let expected = format!("{}the end", text(100)).to_uppercase();
    assert!(unpacked(&reply.body) == expected.as_bytes());
}
