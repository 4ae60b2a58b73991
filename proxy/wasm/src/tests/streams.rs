//! Resume, close, local responses; and who is woken.

use super::world::*;
use crate::pairs;
use crate::*;

fn answer(status: u32, details: &str, body: &str, headers: &[u8], grpc: u32) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (d, dn) = scratch.put(details);
    let (b, bn) = scratch.put(body);
    let (h, hn) = scratch.put(headers);
    vec![scratch.step(), call("proxy_send_local_response", [status, d, dn, b, bn, h, hn, grpc])]
}

#[test]
fn a_guest_that_resumes_in_its_own_callback_has_continued() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.take();
    for hostcall in [call("proxy_continue_stream", [0]), call("proxy_continue_request", [])] {
        world.script("proxy_on_request_headers", vec![hostcall.clone(), Step::Return(1)]);
        assert_eq!(stream.on_request_headers(false).unwrap(), HeadersAction::Continue);
        world.script("proxy_on_request_body", vec![hostcall, Step::Return(1)]);
        assert_eq!(stream.on_request_body(false).unwrap(), BodyAction::Continue);
        assert!(!stream.take_resumed_request());
    }
    // The other direction is not this callback's.
    world.script("proxy_on_request_headers", vec![call("proxy_continue_stream", [1]), Step::Return(1)]);
    assert_eq!(stream.on_request_headers(false).unwrap(), HeadersAction::StopAllWatermark);
    assert!(stream.take_resumed_response() && !stream.take_resumed_response());
    assert!(!world.take().contains(&Event::Wake), "the embedder is looking anyway");
}

#[test]
fn streams_by_number() {
    let world = World::new();
    let resumes = [0, 1, 2, 3, 4, u32::MAX].map(|stream| call("proxy_continue_stream", [stream]));
    let closes = [0, 3, 4].map(|stream| call("proxy_close_stream", [stream]));
    let others = [call("proxy_clear_route_cache", [])];
    let statuses = world.run([resumes.to_vec(), closes.to_vec(), others.to_vec()].concat());
    assert_eq!(statuses, [0, 0, 0, 0, 2, 2, 0, 0, 2, 0]);
}

#[test]
fn closing_is_left_for_the_embedder() {
    let world = World::new();
    let plugin = world.plugin();
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    assert!(!stream.take_closed());
    world.script("proxy_on_request_headers", vec![call("proxy_close_stream", [1])]);
    stream.on_request_headers(true).unwrap();
    assert!(stream.take_closed() && !stream.take_closed());
}

#[test]
fn a_local_response_stops_the_filter_and_the_first_wins() {
    let world = World::new();
    let plugin = world.plugin();
    let exchange = world.exchange();
    let stream = plugin.stream(exchange.clone(), 5).unwrap();
    let headers = pairs::encode(|| {
        let fields: [(&[u8], &[u8]); 4] =
            [(b"X-Why", b"1"), (b":status", b"200"), (b"content-length", b"9"), (b"connection", b"close")];
        fields.into_iter()
    });
    let first = answer(403, "not for\tyou", "denied", &headers, 7);
    let second = answer(200, "", "", b"", 99);
    world.script("proxy_on_request_headers", [first, second].concat());
    world.take();
    assert_eq!(stream.on_request_headers(false).unwrap(), HeadersAction::StopAllWatermark);
    assert_eq!(world.statuses(), [0, 0]);
    let response = exchange.http().borrow_mut().local_response.take().unwrap();
    assert_eq!((response.status.as_u16(), &response.body[..]), (403, &b"denied"[..]));
    assert_eq!((&*response.details, response.grpc_status, response.place), ("not_for_you", Some(7), 5));
    assert_eq!(response.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-why"]);
    // Taken or not, it is the only one, also in the response's callbacks; they are not stopped by it.
    world.script("proxy_on_response_headers", answer(200, "", "", b"", u32::MAX));
    assert_eq!(stream.on_response_headers(false).unwrap(), HeadersAction::Continue);
    assert_eq!(world.statuses(), [0]);
    assert!(exchange.http().borrow().local_response.is_none());
}

#[test]
fn a_local_response_to_an_event_stops_none_of_the_callbacks_that_it_runs_through() {
    let world = World::new();
    let plugin = world.plugin();
    let exchange = world.exchange();
    let stream = plugin.stream(exchange.clone(), 0).unwrap();
    world.script("proxy_on_foreign_function", answer(403, "", "", b"", u32::MAX));
    stream.on_foreign_function(1, bytes::Bytes::new()).unwrap();
    let response = exchange.http().borrow_mut().local_response.take().unwrap();
    assert_eq!(response.status.as_u16(), 403);
    assert_eq!(stream.on_response_headers(false).unwrap(), HeadersAction::Continue);
}

#[test]
fn a_local_response_can_come_from_each_phase() {
    for phase in ["proxy_on_request_body", "proxy_on_response_headers", "proxy_on_response_trailers"] {
        let world = World::new();
        let plugin = world.plugin();
        let exchange = world.exchange();
        let stream = plugin.stream(exchange.clone(), 0).unwrap();
        world.script(phase, answer(503, "", "", b"", u32::MAX));
        assert_eq!(
            stream.on_request_body(true).unwrap() == BodyAction::Watermark,
            phase == "proxy_on_request_body"
        );
        let stopped = stream.on_response_headers(true).unwrap() == HeadersAction::StopAllWatermark;
        assert_eq!(stopped, phase == "proxy_on_response_headers");
        let paused = stream.on_response_trailers().unwrap() == TrailersAction::Pause;
        assert_eq!(paused, phase == "proxy_on_response_trailers");
        assert_eq!(exchange.http().borrow().local_response.as_ref().unwrap().status, 503);
    }
}

#[test]
fn bad_local_responses_are_refused() {
    let bad_field = pairs::encode(|| [(&b"x"[..], &b"\n"[..])].into_iter());
    let world = World::new();
    let statuses = world.run(
        [
            answer(0, "", "", b"", 0),
            answer(101, "", "", b"", 0),
            answer(1_000, "", "", b"", 0),
            answer(70_000, "", "", b"", 0),
            answer(200, "", "", b"\x01", 0),
            answer(200, "", "", &bad_field, 0),
            vec![call("proxy_send_local_response", [200, 0, 0, u32::MAX, 1, 0, 0, 0])],
        ]
        .concat(),
    );
    assert_eq!(statuses, [2, 2, 2, 2, 2, 2, 6]);
}

#[test]
fn without_a_stream_there_is_nothing_to_do() {
    let world = World::new();
    let steps = [
        answer(403, "", "", b"", u32::MAX),
        vec![call("proxy_continue_stream", [0]), call("proxy_close_stream", [0])],
    ];
    world.script("proxy_on_configure", steps.concat());
    let _plugin = world.vms.plugin(spec("").into()).unwrap();
    assert_eq!(world.statuses(), [0, 0, 0]);
}

#[test]
fn from_elsewhere_the_exchange_is_woken() {
    let world = World::new();
    let plugin = world.plugin();
    let exchange = world.exchange();
    let stream = plugin.stream(exchange.clone(), 0).unwrap();
    world.script("proxy_on_configure", Vec::new());
    let steps = [
        vec![call("proxy_set_effective_context", [2]), call("proxy_continue_stream", [0])],
        answer(200, "", "", b"", u32::MAX),
        vec![call("proxy_set_effective_context", [1]), call("proxy_continue_stream", [0])],
        vec![call("proxy_set_effective_context", [77]), call("proxy_set_effective_context", [0])],
    ];
    let other = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", steps.concat());
    world.take();
    assert_eq!(other.on_request_headers(false).unwrap(), HeadersAction::Continue, "its own was not touched");
    let events = world.take();
    assert_eq!(events.iter().filter(|event| **event == Event::Wake).count(), 2);
    let statuses: Vec<_> =
        events.iter().filter(|event| matches!(event, Event::Status(s) if *s != 0)).collect();
    assert_eq!(statuses, [&Event::Status(2), &Event::Status(2)], "unknown contexts");
    assert!(stream.take_resumed_request());
    assert!(exchange.http().borrow().local_response.is_some());
    assert!(!other.take_resumed_request());
}

#[test]
fn another_plugins_context_is_out_of_reach() {
    let world = World::new();
    let one = world.plugin();
    let two = world.vms.plugin(spec("another, in the same VM").into()).unwrap();
    let _first = one.stream(world.exchange(), 0).unwrap();
    let second = two.stream(world.exchange(), 0).unwrap();
    world.take();
    let ids = [1, 2, 3, 4].map(|id| call("proxy_set_effective_context", [id]));
    world.script("proxy_on_request_headers", ids.to_vec());
    second.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [2, 0, 2, 0], "roots 1 and 2, streams 3 and 4");
}
