//! gRPC's messages in bodies: both ways must agree however they are cut.

use std::time::Duration;

use meshgate_sdk::GrpcMessage;
use meshgate_sdk::testing::{Request, Response};

use super::both;

/// A message as it stands in a body.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    GrpcMessage::new(text).frame()
}

#[test]
fn messages_are_changed_however_they_are_cut() {
    let sent = ["one", "", "three"].map(frame).concat();
    let shouted = ["ONE", "", "THREE"].map(frame).concat();
    let counted = ["ONE", "", "THREE", "3"].map(frame).concat();
    both("", |proxy| {
        for size in 1..=sent.len() {
            let parts: Vec<Vec<u8>> = sent.chunks(size).map(<[u8]>::to_vec).collect();
            let done = proxy.send(Request::post("/messages", "").parts(parts.clone()));
            assert_eq!(done.upstream().unwrap().bytes(), counted, "in parts of {size}");
            proxy.endpoint(move |_| Response::new(200).parts(parts.clone()).trailer("grpc-status", "0"));
            let done = proxy.send(Request::get("/messages"));
            assert_eq!(done.response().bytes(), shouted, "in parts of {size}");
            assert_eq!(done.response().trailer_field("grpc-status").as_deref(), Some("0"));
        }
    });
}

#[test]
fn messages_go_on_one_by_one() {
    let sent = ["one", "two"].map(frame).concat();
    both("", |proxy| {
        // Of the second one, three bytes come with the first.
        let done = proxy.send(Request::post("/messages", "").parts(sent.chunks(11)));
        let parts = [frame("ONE"), ["TWO", "2"].map(frame).concat()];
        assert_eq!(done.upstream().unwrap().body_parts(), parts);
        let done = proxy.send(Request::post("/messages-checked", "").parts(sent.chunks(11)));
        let checked = ["checked", "one", "checked", "two"].map(frame).concat();
        assert_eq!(done.upstream().unwrap().bytes(), checked);
        assert_eq!(done.took(), Duration::from_millis(60));
    });
}

#[test]
fn messages_that_are_given_up_go_on_as_they_are() {
    let sent = ["one", "two"].map(frame).concat();
    let (first, second) = sent.split_at(11);
    both("", |proxy| {
        let done = proxy.send(Request::post("/messages-left", "").parts([first, second]));
        assert_eq!(done.upstream().unwrap().body_parts(), [first.to_vec(), second.to_vec()]);
        let done = proxy.send(Request::post("/messages-mixed", "").parts([first, second]));
        let mixed = [&frame("one")[..], b"(3 bytes)"].concat();
        assert_eq!(done.upstream().unwrap().body_parts(), [mixed, second.to_vec()]);
    });
}

#[test]
fn what_is_no_message_is_refused() {
    let one = frame("one");
    let cut = &one[..6];
    let one_and_cut = [&one[..], cut].concat();
    both("", |proxy| {
        let long = frame(&"x".repeat(65));
        for (body, status) in [
            (cut, 400),
            (&one_and_cut[..], 400),
            (&b"\0"[..], 400),
            (&b"\x02\0\0\0\0"[..], 400),
            (&b"\0\xff\xff\xff\xff"[..], 413),
            (&long[..], 413),
        ] {
            // What is answered then is no message, and is not read as one.
            let request = Request::post("/messages-sent", body);
            assert_eq!(proxy.send(request.clone()).status(), status, "{body:?}");
            assert_eq!(proxy.send(request.trailer("x-sum", "0")).status(), status, "{body:?}, and trailers");
        }
        let cut = cut.to_vec();
        proxy.endpoint(move |_| Response::new(200).body(cut.clone()));
        assert_eq!(proxy.send(Request::get("/messages")).status(), 502);
    });
}
