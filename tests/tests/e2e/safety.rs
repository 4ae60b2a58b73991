//! What a filter may use and do: each limit has a key, a counter and a consequence.

use meshgate_tests::{
    Ask, Backend, Client, Load, Meshgate, Misdeed, Reply, Setup, busy, hostile, stamp, until, waiting,
    with_custom_section,
};

/// A proxy with the filter `bad` in front of an echo, and `more` keys in the filter's entry.
fn with_bad(module: &[u8], more: &str, one: &Backend) -> Setup {
    Meshgate::chain("- bad: {}").filter("bad", module, more).cluster("one", &[one])
}

/// How often `bad` met a limit.
async fn exceeded(gate: &Meshgate, limit: &str) -> f64 {
    let labels = [("plugin", "bad"), ("limit", limit)];
    gate.metrics().await.sum("meshgate_plugin_limit_exceeded_total", &labels)
}

fn marked() -> Ask {
    Ask::get("/").header("x-misbehave", "1")
}

#[tokio::test]
async fn limits_are_counted_by_filter_and_name() {
    let one = Backend::echo("one").await;
    for (misdeed, limit, cause) in [
        (Misdeed::Loop, "time", "deadline"),
        (Misdeed::GrowAndTrap, "memory", "limit"),
        (Misdeed::Recurse, "stack", "limit"),
    ] {
        let module = hostile("request_headers", misdeed);
        let gate = with_bad(&module, "limits: {time: 5ms, memory: 1MiB}", &one).start().await;
        assert_eq!(gate.call(marked()).await.status, 503, "{misdeed:?}");
        assert_eq!(exceeded(&gate, limit).await, 1.0, "{misdeed:?}");
        let labels = [("plugin", "bad"), ("cause", cause)];
        assert_eq!(gate.metrics().await.sum("meshgate_plugin_failures_total", &labels), 1.0, "{misdeed:?}");
        let filters = gate.admin("/filters").await.json();
        let shown = &filters["filters"][0];
        assert_eq!(shown["limits_exceeded"][limit], 1, "{shown}");
        assert_eq!((&shown["state"], &shown["contexts"]), (&"running".into(), &0.into()), "{shown}");
    }
}

/// What a VM takes within its own limit may still be too much for the process.
#[tokio::test]
async fn all_filters_together_have_so_much_memory() {
    let one = Backend::echo("one").await;
    let module = hostile("request_headers", Misdeed::GrowAndTrap);
    let gate = with_bad(&module, "limits: {time: 1s}", &one).top("wasm: {memory: 2MiB}").start().await;
    assert_eq!(gate.call(marked()).await.status, 503);
    assert_eq!((exceeded(&gate, "wasm.memory").await, exceeded(&gate, "memory").await), (1.0, 0.0));
    let filters = gate.admin("/filters").await.json();
    assert_eq!(filters["filters"][0]["limits_exceeded"]["wasm.memory"], 1, "{filters}");
    // What failed holds nothing that its successor needs.
    assert_eq!(gate.get("/").await.status, 200);
}

#[tokio::test]
async fn body_callbacks_have_a_deadline_of_their_own() {
    let one = Backend::echo("one").await;
    let module = hostile("request_body", Misdeed::Loop);
    let gate = with_bad(&module, "limits: {body_time: 30ms}", &one).start().await;
    let ask = Ask::post("/", "body").header("x-misbehave", "1");
    assert_eq!(gate.call(ask).await.status, 503);
    assert_eq!((exceeded(&gate, "body_time").await, exceeded(&gate, "time").await), (1.0, 0.0));
    gate.log().wait("the deadline in the log", |line| line.contains("longer than 30ms").then_some(())).await;
}

#[tokio::test]
async fn a_filter_holds_an_exchange_no_longer_than_it_may() {
    let one = Backend::echo("one").await;
    for callback in ["request_headers", "request_body", "response_headers", "response_body"] {
        let gate = with_bad(&waiting(callback), "limits: {pause: 50ms}", &one).start().await;
        let reply = gate.call(Ask::post("/held", "body")).await;
        assert_eq!(reply.status, 504, "{callback}");
        let entry = gate.access("/held").await;
        assert_eq!(entry["response_code_details"], "wasm_pause_timeout", "{callback}: {entry}");
        assert_eq!(exceeded(&gate, "pause").await, 1.0, "{callback}");
    }
    // With trailers the head may be gone by then: the answer must not look whole.
    let gate = with_bad(&waiting("request_trailers"), "limits: {pause: 50ms}", &one).start().await;
    let ask = Ask::post("/held", "body").header("te", "trailers").trailers(&[("x-last", "z")]);
    let reply = Client::http2(gate.address()).await.try_call(ask).await;
    assert!(reply.is_err() || reply.unwrap().status == 504);
    assert_eq!(exceeded(&gate, "pause").await, 1.0);
}

#[tokio::test]
async fn a_filter_that_may_be_skipped_and_holds_too_long_is_skipped() {
    let one = Backend::echo("one").await;
    let more = "on_error: skip, limits: {pause: 50ms}";
    for callback in ["request_headers", "request_body", "response_headers", "response_body"] {
        let gate = with_bad(&waiting(callback), more, &one).start().await;
        assert_eq!(gate.call(Ask::post("/held", "body")).await.status, 200, "{callback}");
    }
}

#[tokio::test]
async fn a_trap_is_told_once_with_the_guests_function_names() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- hostile: {mode: trap, where: request_headers}")
        .guest("hostile", "")
        .cluster("one", &[&one])
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(gate.call(Ask::get("/").header("x-attack", "1")).await.status, 503);
    }
    let traps = gate.metrics().await.sum("meshgate_plugin_failures_total", &[("cause", "trap")]);
    assert_eq!(traps, 5.0, "each is counted");
    let stopped = gate.stop().await;
    let told: Vec<_> = stopped.log.iter().filter(|line| line.contains("filter failed")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("guest_hostile::") && told[0].contains("on_http_request_headers"),
        "{}",
        told[0]
    );
}

#[tokio::test]
async fn a_filter_that_keeps_failing_goes_into_quarantine_and_comes_back() {
    let one = Backend::echo("one").await;
    let module = hostile("request_headers", Misdeed::Trap);
    let gate = with_bad(&module, "limits: {crashes: 2}", &one).start().await;
    for _ in 0..3 {
        assert_eq!(gate.call(marked()).await.status, 503);
    }
    let reply = gate.get("/refused").await;
    assert_eq!(reply.status, 503);
    let pause: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&pause), "{pause}");
    let entry = gate.access("/refused").await;
    assert_eq!(entry["response_code_details"], "wasm_quarantined", "{entry}");
    assert_eq!(entry["response_flags"], "WT", "{entry}");
    let filters = gate.admin("/filters").await.json();
    assert_eq!(filters["filters"][0]["state"], "quarantined", "{filters}");
    assert!(filters["filters"][0]["quarantined_until"].is_string(), "{filters}");
    assert_eq!(exceeded(&gate, "crashes").await, 1.0);
    until("it is tried again", || async { (gate.get("/").await.status == 200).then_some(()) }).await;
    assert_eq!(gate.get("/").await.status, 200);
    let traps = gate.metrics().await.sum("meshgate_plugin_traps_total", &[("plugin", "bad")]);
    assert_eq!(traps, 3.0, "in quarantine it did not run");
}

#[tokio::test]
async fn a_quarantined_filter_that_may_be_skipped_is_skipped() {
    let one = Backend::echo("one").await;
    let module = hostile("request_headers", Misdeed::Trap);
    let gate = with_bad(&module, "on_error: skip, limits: {crashes: 0}", &one).start().await;
    assert_eq!(gate.call(marked()).await.status, 200);
    let filters = gate.admin("/filters").await.json();
    assert_eq!(filters["filters"][0]["state"], "quarantined", "{filters}");
    assert_eq!(gate.call(marked()).await.status, 200);
}

#[tokio::test]
async fn a_filter_over_its_share_of_a_busy_worker_is_shed() {
    let one = Backend::echo("one").await;
    let chain = "- routing:\n    routes:\n    - {name: busy, match: {path: /busy}, to: one, filters: [bad: {}]}\n    \
                 - {name: rest, match: {path: /**}, to: one}\n";
    let gate = Meshgate::chain(chain)
        .filter("bad", &busy(2_000_000), "limits: {cpu_percent: 2, time: 1s}")
        .cluster("one", &[&one])
        .start()
        .await;
    let judge = |reply: &Reply| match reply.status.as_u16() {
        200 => Ok(()),
        503 if reply.header("retry-after") == "2" => Ok(()),
        other => Err(format!("{other}: {}", reply.text())),
    };
    let load = Load::start(gate.address(), 8, || Ask::get("/busy"), judge);
    until("the filter is shed", || async { (exceeded(&gate, "cpu_percent").await > 0.0).then_some(()) })
        .await;
    assert_eq!(gate.get("/rest").await.status, 200, "the others go on");
    load.stop().await.all_good();
    until("its share is its again", || async { (gate.get("/busy").await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn a_filter_calls_only_what_it_may() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let chain = "- plain: {call: {at: request_headers, cluster: two, path: /asked}}";
    for (may, status) in
        [("call: [one]", "refused 2"), ("call: [one, two]", "200"), ("call: []", "refused 2")]
    {
        let gate = Meshgate::chain(chain)
            .guest("plain", &format!("may: {{{may}}}"))
            .cluster("one", &[&one])
            .cluster("two", &[&two])
            .start()
            .await;
        let reply = gate.get("/").await;
        assert_eq!((reply.status.as_u16(), reply.header("x-call-status")), (200, status), "{may}");
        let refused = gate.metrics().await;
        let refused = refused
            .sum("meshgate_plugin_limit_exceeded_total", &[("plugin", "plain"), ("limit", "may.call")]);
        assert_eq!(refused > 0.0, status != "200", "{may}");
        if refused > 0.0 {
            gate.get("/").await;
            let told = gate.log().all().iter().filter(|line| line.contains("`may.call`")).count();
            assert_eq!(told, 1, "said once");
        }
    }
}

#[tokio::test]
async fn a_filter_reads_only_what_it_may() {
    let one = Backend::echo("one").await;
    let chain = "- plain: {properties: {x-method: request/method, x-source: source/port}}";
    let all = Meshgate::chain(chain).guest("plain", "").cluster("one", &[&one]).start().await;
    let some =
        Meshgate::chain(chain).guest("plain", "may: {read: [request]}").cluster("one", &[&one]).start().await;
    let (all, some) = (all.get("/").await, some.get("/").await);
    assert_eq!(all.header("x-method"), some.header("x-method"));
    assert_ne!(all.header("x-source"), some.header("x-source"));
}

#[tokio::test]
async fn calls_that_lead_back_here_end() {
    let one = Backend::echo("one").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gate = Meshgate::with(&format!(
        "admin: {{address: \"127.0.0.1:0\"}}\nworkers: 1\naccess_log: {{format: json}}\n\
         listeners: [{{name: web, address: \"{free}\", chain: web, cluster: one}}]\n\
         chains: {{web: [plain: {{call: {{at: request_headers, cluster: self, path: /again}}}}]}}\n\
         filters: {{plain: {{module: ./plain.wasm}}}}\n\
         clusters: [{{name: one, endpoints: [\"{}\"]}}, {{name: self, endpoints: [\"{free}\"]}}]\n",
        one.address()
    ))
    .file("plain.wasm", meshgate_tests::guest("plain"))
    .start()
    .await;
    let reply = gate.get("/").await;
    assert_eq!((reply.status.as_u16(), reply.header("x-call-status")), (200, "200"));
    // The client's request, and three calls in a row; the fourth is refused.
    assert_eq!(one.requests(), 4);
    assert!(
        one.seen().iter().all(|seen| !seen.headers.contains_key("x-meshgate-call-depth")),
        "not passed on"
    );
    let labels = [("plugin", "plain"), ("limit", "call_depth")];
    assert_eq!(gate.metrics().await.sum("meshgate_plugin_limit_exceeded_total", &labels), 1.0);
}

/// How much more memory the second half of the reloads may end with than the first.
const GROWTH: u64 = 8 << 20;

#[tokio::test]
async fn replaced_modules_leave_nothing_behind() {
    // `MESHGATE_RELOADS=10000` for the whole run, with the figures printed.
    let whole: Option<u32> = std::env::var("MESHGATE_RELOADS").ok().and_then(|count| count.parse().ok());
    let reloads = whole.unwrap_or(80);
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- stamp: {}\n- once: {}")
        .filter("stamp", &stamp(0), "")
        .filter("once", &stamp(99_999_999), "isolation: exchange")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut readings = Vec::new();
    for version in 1..=reloads {
        // Another hash each time, and another version.
        gate.replace("stamp.wasm", with_custom_section(&stamp(version), "serial", &version.to_le_bytes()));
        // The watcher may have been quicker, or have seen half of it: what counts is what runs in the end.
        until("the new module serves", || async {
            Client::http1(gate.admin_address()).await.call(Ask::post("/reload", "")).await;
            let seen = gate.get("/").await;
            let mut versions = seen.headers.get_all("x-module").iter();
            versions.any(|module| module == format!("{version:08}").as_str()).then_some(())
        })
        .await;
        if version % (reloads / 8).max(1) == 0 {
            readings.push((version, gate.memory().0, gate.open_files()));
        }
    }
    let shown = format!("(reloads, bytes, files): {readings:?}");
    if whole.is_some() {
        println!("{shown}");
    }
    let half = readings.len() / 2;
    let (first, second) = readings.split_at(half);
    let most = |part: &[(u32, u64, usize)]| part.iter().map(|(_, memory, _)| *memory).max().unwrap();
    assert!(most(second) <= most(first) + GROWTH, "{shown}");
    let files = |part: &[(u32, u64, usize)]| part.iter().map(|(_, _, files)| *files).max().unwrap();
    assert!(files(second) <= files(first) + 4, "{shown}");
}
