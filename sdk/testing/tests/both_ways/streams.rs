//! gRPC streams: both ways must agree on every message, its order and its time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use meshgate_sdk::testing::{ServerStream, StreamEvent};

use super::{asked, both, said};

/// The server of the cluster `talk`: each message comes back after 10 ms; other methods misbehave by name.
pub(crate) fn talk(stream: &mut ServerStream<'_>, event: StreamEvent) {
    match event {
        StreamEvent::Opened(request) => match request.target().rsplit('/').next().unwrap_or_default() {
            "Refuse" => stream.fail(7, "not you"),
            "Half" => {
                stream.send("half");
                stream.after(Duration::from_millis(5));
                stream.fail(13, "broken");
            }
            "Reset" => {
                stream.send("half");
                stream.after(Duration::from_millis(5));
                stream.reset();
            }
            "Flood" => (0..4).for_each(|_| stream.send("twelve bytes")),
            "Over" => stream.end(),
            "Silent" => {}
            _ => stream.metadata("x-initial", request.field("x-a").unwrap_or_default()),
        },
        StreamEvent::Message(message) => {
            stream.after(Duration::from_millis(10));
            stream.send([&b"echo "[..], &message[..message.len().min(9)]].concat());
        }
        StreamEvent::Ended => {
            stream.trailer("x-trailing", "t");
            stream.end();
        }
        StreamEvent::Cancelled => {}
    }
}

#[test]
fn messages_go_both_ways_to_the_end() {
    both("", |proxy| {
        let done = proxy.send(asked("stream"));
        let names = ":status,content-type,x-initial";
        let expected = format!(r#"9 {names} Some("1") 0 [echo one, echo two, end] Some("t") end"#);
        assert_eq!((said(&done), done.took()), (expected, Duration::from_millis(10)));
        let call = &proxy.calls("talk")[0];
        assert_eq!((call.target().as_str(), call.field("x-a").as_deref()), ("/example.Talk/Talk", Some("1")));
        assert_eq!(call.field("content-type").as_deref(), Some("application/grpc"));
        let done = proxy.send(asked("stream-lockstep"));
        assert_eq!(said(&done), "echo one|echo |echo three");
        assert_eq!(done.took(), Duration::from_millis(30));
        let done = proxy.send(asked("stream-two"));
        assert_eq!((said(&done).as_str(), done.took()), ("echo one echo other", Duration::from_millis(10)));
    });
}

#[test]
fn ends_have_their_status() {
    for (what, expected, took) in [
        ("stream-Refuse", "0 [7 not you] grpc-message,grpc-status 7", 0),
        ("stream-Half", "2 [half, 13 broken] grpc-message,grpc-status 13", 5),
        ("stream-Reset", "2 [half, 14 upstream connection ended]  14", 5),
        ("stream-unknown", "14 the host did not make the call: cannot be parsed", 0),
        ("stream-nobody", "12 no such method", 0),
        ("stream-over", "end 9 9", 0),
        ("stream-late", "true", 40),
    ] {
        both("", |proxy| {
            let done = proxy.send(asked(what));
            assert_eq!(
                (said(&done).as_str(), done.took()),
                (expected, Duration::from_millis(took)),
                "{what}"
            );
        });
    }
}

#[test]
fn limits_are_errors() {
    both("", |proxy| {
        let refused = "14 the host did not make the call: internal failure";
        let flood = "twelve bytes, 8 too much waits to be read";
        let expected = format!("8 0 8 [{flood}] 8 {refused}");
        assert_eq!(said(&proxy.send(asked("stream-limits"))), expected);
        // All of them ended with the exchange.
        assert_eq!(said(&proxy.send(asked("stream-limits"))), expected);
    });
}

#[test]
fn what_is_dropped_is_cancelled() {
    both("", |proxy| {
        let events = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&events);
        proxy.grpc_streams("talk", move |stream, event| {
            seen.borrow_mut().push(format!("{event:?}").split('(').next().unwrap_or_default().to_owned());
            talk(stream, event);
        });
        assert_eq!(said(&proxy.send(asked("stream-late"))), "true");
        assert_eq!(events.take(), ["Opened", "Cancelled"]);
        proxy.abandon(asked("stream-lockstep"));
        assert_eq!(events.take(), ["Opened", "Message", "Cancelled"]);
        assert_eq!(said(&proxy.send(asked("stream-over"))), "end 9 9");
        assert_eq!(events.take(), ["Opened"], "it was over");
    });
}

#[test]
fn a_stream_ends_with_the_exchange_that_opened_it() {
    both("", |proxy| {
        let lender = proxy.begin(asked("lend"));
        let borrower = proxy.begin(asked("borrow"));
        proxy.give_up(lender);
        assert_eq!(proxy.finish(borrower).status(), 503);
        let expected = "the call ended with gRPC status 14: the exchange that opened the stream is over";
        assert_eq!(proxy.logs(), [expected]);
    });
}

#[test]
fn a_stream_of_the_filters_own() {
    both(r#"{"tick": "1s", "follow": true}"#, |proxy| {
        proxy.grpc_streams("talk", |stream, event| {
            if let StreamEvent::Message(message) = event {
                for number in 1..=3 {
                    stream.after(Duration::from_millis(600));
                    stream.send([&message[..], &[b'0' + number]].concat());
                }
                stream.fail(14, "gone");
            }
        });
        proxy.advance(Duration::from_millis(2_300));
        assert_eq!(said(&proxy.send(asked("fetched"))), "2");
        proxy.advance(Duration::from_millis(600));
        let logs = proxy.logs();
        assert_eq!(logs[..3], ["followed follow1", "followed follow2", "followed follow3"]);
        assert!(logs[3].contains("gRPC status 14: gone"), "{logs:?}");
        assert_eq!(proxy.calls("talk").len(), 1);
        // The next tick opens another one.
        proxy.advance(Duration::from_millis(1_700));
        assert_eq!(proxy.calls("talk").len(), 2);
        assert_eq!(said(&proxy.send(asked("fetched"))), "5");
    });
}
