//! TCP filters built with the SDK in both proxies: the guest `suite-tcp`, and the example that chooses by the first bytes.

use meshgate_tests::{example, guest};
use serde_json::{Value, json};

use super::tcp::Step::{self, Accept, Answer, Answered, Ask, BackendEnds, ClientEnds, Heard, HeardEnd, Said};
use super::tcp::{Module, Scenario, Speech};

async fn suite(name: &'static str, configuration: Value, steps: &'static [Step]) {
    let speech = Speech::Own(told_to_suite);
    let module = Module { name: "suite-tcp", bytes: guest("suite-tcp"), speech, listener: None };
    Scenario { name, module, filters: vec![configuration], steps }.compare().await;
}

/// The ends, and how many parts were counted until then.
fn told_to_suite(line: &str) -> Option<String> {
    let closed = |side: &str| {
        let (_, by) = line.split_once(&format!("{side}'s over, by "))?;
        ["Unknown", "Proxy", "Peer"].iter().position(|known| *known == by)
    };
    if let Some(by) = closed("endpoint") {
        return Some(format!("upstream_close {by}"));
    }
    if let Some(by) = closed("client") {
        return Some(format!("downstream_close {by}"));
    }
    let count = line.strip_suffix(" parts")?.rsplit(' ').next()?;
    Some(format!("log {count}"))
}

#[tokio::test]
async fn data_part_by_part() {
    const STEPS: &[Step] = &[
        Accept,
        Ask("PA"),
        Ask("RT"),
        Heard("PART"),
        Ask("one"),
        Heard("<ONE>"),
        Answer("answer"),
        Answered("answer"),
        Ask("two"),
        Heard("<TWO>"),
        ClientEnds,
        HeardEnd,
        BackendEnds,
    ];
    suite("tcp suite in parts", json!({}), STEPS).await;
}

#[tokio::test]
async fn data_wait_for_calls_and_time() {
    const CALL: &[Step] = &[
        Accept,
        Ask("CALL"),
        Heard("called"),
        Ask("more"),
        Heard("more"),
        Answer("answer"),
        Answered("answer"),
        ClientEnds,
        HeardEnd,
        BackendEnds,
    ];
    suite("tcp suite calls", json!({}), CALL).await;
    const WAIT: &[Step] = &[
        Accept,
        Ask("WAIT"),
        Heard("waited"),
        Ask("more"),
        Heard("more"),
        ClientEnds,
        HeardEnd,
        BackendEnds,
    ];
    suite("tcp suite waits", json!({}), WAIT).await;
    const TALK: &[Step] = &[
        Accept,
        Ask("TALK"),
        Heard("TALK"),
        Ask("one"),
        Heard("echo one"),
        Ask("two"),
        Heard("echo two"),
        ClientEnds,
        HeardEnd,
        BackendEnds,
    ];
    suite("tcp suite talks", json!({}), TALK).await;
}

/// What the endpoint has sent waits for a call, too; but Envoy does not let it go on.
#[tokio::test]
async fn data_wait_on_the_way_up() {
    const STEPS: &[Step] =
        &[Accept, Ask("hello"), Heard("hello"), Answer("slow and steady"), BackendEnds, ClientEnds];
    suite("tcp suite waits on the way up", json!({}), STEPS).await;
}

#[tokio::test]
async fn whole_data() {
    const WHOLE: &[Step] = &[Accept, Ask("WHOLE"), Ask(" day"), ClientEnds, HeardEnd, BackendEnds];
    suite("tcp suite as a whole", json!({}), WHOLE).await;
    suite("tcp suite too long", json!({}), &[Accept, Ask("WHOLE and too long")]).await;
}

#[tokio::test]
async fn messages_of_grpc() {
    // Of the second message, three bytes come with the first.
    const MESSAGES: &[Step] = &[
        Accept,
        Ask("MSGS"),
        Heard("MSGS"),
        Ask("\0\0\0\0\u{3}one\0\0\0"),
        Heard("\0\0\0\0\u{3}ONE"),
        Ask("\0\u{3}two"),
        Heard("\0\0\0\0\u{3}TWO"),
        ClientEnds,
        HeardEnd,
        BackendEnds,
    ];
    suite("tcp suite messages", json!({}), MESSAGES).await;
    const CHECKED: &[Step] = &[
        Accept,
        Ask("MSGC"),
        Heard("MSGC"),
        Ask("\0\0\0\0\u{3}one\0\0\0"),
        Heard("\0\0\0\0\u{3}ONE"),
        Ask("\0\u{3}two"),
        Heard("\0\0\0\0\u{3}TWO"),
        ClientEnds,
        HeardEnd,
        BackendEnds,
    ];
    suite("tcp suite messages checked", json!({}), CHECKED).await;
    suite("tcp suite no message", json!({}), &[Accept, Ask("MSGS"), Heard("MSGS"), Ask("no message")]).await;
}

#[tokio::test]
async fn filters_close() {
    suite("tcp suite quits", json!({}), &[Accept, Ask("QUIT")]).await;
    suite("tcp suite fails", json!({}), &[Accept, Ask("FAIL")]).await;
}

#[tokio::test]
async fn connections_hear_of_ticks() {
    const STEPS: &[Step] = &[
        Accept,
        Ask("PART"),
        Heard("PART"),
        Said("0 parts so far"),
        Ask("one"),
        Heard("<ONE>"),
        Said("1 parts so far"),
        ClientEnds,
        HeardEnd,
        BackendEnds,
    ];
    suite("tcp suite ticks", json!({"tick": "20ms"}), STEPS).await;
}

/// Without `meshgate.route` a client that has said something known is disconnected as well: `our-functions`.
#[tokio::test]
async fn the_example_chooses_by_the_first_bytes() {
    const SCENARIOS: [(&str, &[Step]); 3] = [
        ("tcp example without a choice", &[Ask("DELETE /")]),
        ("tcp example with too little", &[Ask("PO"), ClientEnds]),
        ("tcp example chooses", &[Ask("GET /"), ClientEnds, Accept, HeardEnd, BackendEnds]),
    ];
    for (name, steps) in SCENARIOS {
        let rules = json!([{"starts_with": "GET", "to": "one"}, {"starts_with": "POST", "to": "called"}]);
        let bytes = example("tcp");
        let (speech, listener) = (Speech::Silent, Some("wait_for_data: true"));
        let module = Module { name: "by-first-bytes", bytes, speech, listener };
        Scenario { name, module, filters: vec![rules], steps }.compare().await;
    }
}
