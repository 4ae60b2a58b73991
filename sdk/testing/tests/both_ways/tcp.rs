//! Filters of TCP connections.

use std::time::Duration;

use guest_suite_tcp::Suite;
use meshgate_sdk::ClosedBy;
use meshgate_sdk::testing::{Client, Proxy, Response};

use super::messages::frame;

/// Runs a test both ways.
fn both(test: impl Fn(&mut Proxy)) {
    both_with("", test);
}

fn both_with(configuration: &str, test: impl Fn(&mut Proxy)) {
    let compiled = super::compiled("suite-tcp", configuration).unwrap();
    for mut proxy in [Proxy::tcp::<Suite>(configuration), compiled] {
        proxy.upstream("slow", |_| Response::new(200).body("slow").after(Duration::from_millis(30)));
        proxy.grpc_streams("talk", super::streams::talk);
        proxy.upstream("gate", |call| match call.target().as_str() {
            "/spiffe://mesh/ann" => Response::new(204).after(Duration::from_millis(5)),
            _ => Response::new(403),
        });
        test(&mut proxy);
    }
}

#[test]
fn a_client_comes_in_or_does_not() {
    both(|proxy| {
        for (identity, closed) in [("ann", false), ("bob", true), ("mallory", true)] {
            let client = Client::new().peer_identity(&format!("spiffe://mesh/{identity}"));
            let mut connection = proxy.connect(&client.property("source/address", "192.0.2.7:555"));
            assert_eq!(connection.is_closed(), closed, "{identity}");
            if !closed {
                assert_eq!(connection.client_sends("hello"), b"hello");
            }
        }
        assert_eq!(proxy.calls("gate").len(), 2);
        let expected = [
            r#"Some("192.0.2.7:555") Some("spiffe://mesh/ann")"#,
            "endpoint's over, by Peer",
            "client's over, by Peer",
            "0 parts",
            "the call was answered with 403",
            "endpoint's over, by Proxy",
            "client's over, by Proxy",
            "0 parts",
            "endpoint's over, by Proxy",
            "client's over, by Proxy",
            "0 parts",
        ];
        assert_eq!(proxy.logs(), expected);
        assert_eq!(proxy.metric("suite_connections_total", &[]), 3);
    });
}

#[test]
fn data_part_by_part() {
    both(|proxy| {
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("PA"), b"", "too few to tell");
        assert_eq!(connection.client_sends("RT"), b"PART");
        assert_eq!(connection.client_sends("one"), b"<ONE>");
        assert_eq!(connection.endpoint_sends("answer"), b"answer");
        assert_eq!(connection.client_sends("two"), b"<TWO>");
        assert_eq!(connection.client_ends(), b"end");
        connection.endpoint_closed(ClosedBy::Peer);
        drop(connection);
        assert_eq!(proxy.logs().last().unwrap(), "2 parts");
    });
}

#[test]
fn data_wait_for_calls_and_time() {
    both(|proxy| {
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("CALL"), b"");
        assert_eq!(connection.endpoint_sends("slow and steady"), b"");
        assert_eq!(connection.to_endpoint(), b"slow");
        assert_eq!(connection.to_client(), b"SLOW AND STEADY");
        assert_eq!(connection.client_sends("more"), b"more");
        drop(connection);
        let mut connection = proxy.connect(&Client::new());
        let began = connection.proxy().now();
        assert_eq!(connection.client_sends("WAIT"), b"");
        assert_eq!(connection.to_endpoint(), b"waited");
        let took = connection.proxy().now().duration_since(began).unwrap();
        assert!(took >= Duration::from_millis(20), "{took:?}");
    });
}

#[test]
fn data_through_a_stream() {
    both(|proxy| {
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("TALK"), b"TALK");
        for word in ["one", "two"] {
            assert_eq!(connection.client_sends(word), b"");
            assert_eq!(connection.to_endpoint(), format!("echo {word}").as_bytes());
        }
        drop(connection);
        assert_eq!(proxy.calls("talk").len(), 1);
    });
}

#[test]
fn messages_of_grpc() {
    let sent = ["one", "two"].map(frame).concat();
    // Of the second one, three bytes come with the first.
    let (first, second) = sent.split_at(11);
    both(|proxy| {
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("MSGS"), b"MSGS");
        assert_eq!(connection.client_sends(first), frame("ONE"));
        assert_eq!(connection.client_sends(second), frame("TWO"));
        assert_eq!(connection.client_ends(), b"");
        drop(connection);
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("MSGC"), b"MSGC");
        assert_eq!(connection.client_sends(first), b"");
        assert_eq!(connection.to_endpoint(), frame("ONE"));
        assert_eq!(connection.client_sends(second), b"");
        assert_eq!(connection.to_endpoint(), frame("TWO"));
        assert_eq!(connection.client_sends("no message"), b"");
        assert!(connection.is_closed());
    });
}

#[test]
fn a_message_that_nobody_waits_for_goes_on_as_it_is() {
    let sent = ["one", "two"].map(frame).concat();
    let (first, second) = sent.split_at(11);
    both(|proxy| {
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("SOON"), b"SOON");
        assert_eq!(connection.client_sends(first), frame("ONE"));
        connection.proxy().advance(Duration::from_millis(30));
        assert_eq!(connection.client_sends(second), frame("two"), "what had come of it as well");
        assert_eq!(connection.client_sends("more"), b"more");
    });
}

#[test]
fn connections_hear_of_ticks_while_they_are_open() {
    both_with(r#"{"tick": "1s"}"#, |proxy| {
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("PART"), b"PART");
        connection.proxy().advance(Duration::from_millis(1_500));
        assert_eq!(connection.client_sends("one"), b"<ONE>");
        connection.proxy().advance(Duration::from_secs(1));
        drop(connection);
        proxy.advance(Duration::from_secs(5));
        let logs = proxy.logs();
        assert_eq!(logs[..2], ["0 parts so far", "1 parts so far"]);
        assert_eq!(logs[2..], ["endpoint's over, by Peer", "client's over, by Peer", "1 parts"]);
    });
}

#[test]
fn whole_data() {
    both(|proxy| {
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("WHOLE"), b"");
        assert_eq!(connection.client_sends(" day"), b"");
        assert_eq!(connection.client_ends(), b"WHOLE dayWHOLE day");
        drop(connection);
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("WHOLE and too long"), b"");
        assert!(connection.is_closed());
    });
}

#[test]
fn filters_choose_the_cluster_and_close() {
    both(|proxy| {
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("GOTO slow"), b"GOTO slow");
        assert_eq!(connection.cluster().as_deref(), Some("slow"));
        drop(connection);
        for (sent, logged) in [
            ("GOTO nowhere", Some("on_downstream_data failed: cannot decide the route: bad argument")),
            ("QUIT", None),
            ("FAIL", Some("on_downstream_data failed: asked to")),
        ] {
            let before = proxy.logs().len();
            let mut connection = proxy.connect(&Client::new());
            assert_eq!(connection.client_sends(sent), b"", "{sent}");
            assert!(connection.is_closed() && connection.cluster().is_none());
            let logs = connection.proxy().logs();
            assert_eq!(logs[before..].first().map(String::as_str), logged, "{sent}");
        }
    });
}

#[test]
fn what_waits_is_dropped_with_its_connection() {
    both(|proxy| {
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("CALL"), b"");
        drop(connection);
        proxy.advance(Duration::from_secs(1));
        assert_eq!(proxy.logs().last().unwrap(), "0 parts");
    });
}
