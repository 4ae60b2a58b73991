//! What is known of exchanges beside their messages, what is kept of them, and who they come from.

use std::time::Duration;

use meshgate_sdk::testing::Request;

use super::{asked, both, each, said};

#[test]
fn what_the_host_knows_can_be_asked_for() {
    // Neither host here has an endpoint or a handshake to know it from: the test says it.
    let nanoseconds = String::from_utf8(5_000_000_i64.to_le_bytes().to_vec()).unwrap();
    let request = asked("facts")
        .property("connection/tls_version", "TLSv1.3")
        .property("connection/requested_server_name", "shop.example")
        .property("upstream/address", "192.0.2.9:80")
        .property("response/backend_latency", &nanoseconds)
        .property("response/code_details", "via_upstream");
    let expected = [
        r#"(Some("TLSv1.3"), Some("shop.example")) (Some("192.0.2.9:80"), Some(5ms)) Some("via_upstream")"#,
        "(None, None) (None, None) None",
    ];
    both("", |proxy| {
        proxy.send(request.clone());
        proxy.send(asked("facts"));
        assert_eq!(proxy.logs(), expected);
    });
}

#[test]
fn times_and_sizes_are_the_real_hosts() {
    // The simulated host measures nothing. Around the real one is no proxy that counts bytes: it has what the request says.
    let answers = each(|proxy| {
        let request = Request::post("/", "12345").header("x-do", "measure").header("content-length", "5");
        assert_eq!(proxy.send(request).took(), Duration::from_millis(20));
        proxy.logs().join("\n")
    });
    assert_eq!(answers, ["None None (None, None)", "Some(1767225600s) Some(20ms) (Some(5), Some(0))"]);
}

#[test]
fn gauges_go_down_and_histograms_have_buckets() {
    // The simulated host counts values, and has no buckets to sort them into.
    let answers = each(|proxy| {
        proxy.send(asked("measure"));
        let bucket = proxy.metric("suite_waits_seconds_bucket", &[("le", "0.005")]);
        format!("{} {} {bucket}", proxy.metric("suite_level", &[]), proxy.metric("suite_waits_seconds", &[]))
    });
    assert_eq!(answers, ["3 3 0", "3 3 2"]);
}

#[test]
fn signatures_are_checked_by_the_host() {
    // The simulated host has no cryptography. The real one has Envoy's function here; Meshgate's own is the proxy's.
    let answers = each(|proxy| said(&proxy.send(asked("verify"))));
    let refused = "Err(not implemented)";
    assert_eq!(answers[0], [refused, refused, "Ok(false)", refused].join(" "));
    assert_eq!(answers[1], ["Ok(true)", "Ok(false)", "Ok(false)", refused].join(" "));
}

#[test]
fn what_is_updated_lasts_from_then_on() {
    both("", |proxy| {
        // There is always room here, so that nothing has to go.
        for (wait, expected) in
            [(0, "e 1 true false"), (9, "ee 2 true false"), (9, "eee 3 true false"), (10, "e 4 true false")]
        {
            proxy.advance(Duration::from_secs(wait));
            assert_eq!(said(&proxy.send(asked("kept"))), expected);
        }
    });
}

#[test]
fn a_filter_records_the_trace() {
    both("", |proxy| {
        let done = proxy.send(asked("record"));
        assert_eq!(said(&done), format!(r#"Some(bad argument) 0 true Some("{}")"#, "01".repeat(16)));
        let spans = done.spans();
        assert_eq!((spans.len(), &*spans[0].name, &spans[0].parent), (1, "of its own", &None));
    });
}

#[test]
fn credentials_are_found_and_taken_out() {
    let request = Request::get("/a?x=1&key=sesame")
        .header("x-do", "credentials")
        .header("authorization", "bearer of-ann")
        .header("x-key", "one")
        .header("x-key", "two")
        .header("cookie", "a=1; session=s; b=2");
    both("", |proxy| {
        let done = proxy.send(request.clone());
        assert_eq!(said(&done), r#"Ok(Some("of-ann")) Err(Ambiguous) Ok(Some("sesame")) Ok(Some("s"))"#);
        let upstream = done.upstream().unwrap();
        assert_eq!(upstream.target(), "/a?x=1");
        assert_eq!((upstream.field("authorization"), upstream.field("x-key")), (None, None));
        assert_eq!(upstream.field("cookie").as_deref(), Some("a=1; b=2"));
    });
}

#[test]
fn clients_have_the_address_that_trusted_proxies_say() {
    let request = asked("client")
        .property("source/address", "192.0.2.7:555")
        .header("x-forwarded-for", "198.51.100.1, 203.0.113.9")
        .header("x-forwarded-for", "192.0.2.7");
    both("", |proxy| {
        let expected = "Some(192.0.2.7) Some(203.0.113.9) Some(198.51.100.1)";
        assert_eq!(said(&proxy.send(request.clone())), expected);
    });
}

#[test]
fn fields_that_mean_something_to_the_host_are_texts() {
    // What a chain's key, a path and a content are made of is the proxy's to do; both hosts here give what they are given.
    both(r#"{"chain": "routes/0/filters", "file": "words.txt", "text": "one\ntwo"}"#, |proxy| {
        let expected = r#"Some("routes/0/filters") Some("words.txt") Some("one\ntwo")"#;
        assert_eq!(said(&proxy.send(asked("texts"))), expected);
    });
    both("", |proxy| assert_eq!(said(&proxy.send(asked("texts"))), "None None None"));
}

#[test]
fn callbacks_that_a_host_does_not_leave_out_do_no_harm() {
    // Which callbacks are made is the proxy's to say: both hosts here make all that the filter has.
    both(r#"{"quiet": true}"#, |proxy| {
        assert_eq!(proxy.send(asked("nothing")).header("x-callbacks").as_deref(), Some("2"));
    });
}
