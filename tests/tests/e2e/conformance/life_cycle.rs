//! Which callback comes when, on which context, with which arguments.

use http::Method;
use meshgate_tests::Ask;

use super::script::Arg::{Bytes, N, Root, Stream, T};
use super::script::{OK, Report, Script, call, entered};
use super::world::{World, exchange, last, whole, worker};

/// The callbacks of one context, in order.
fn of(reports: &[Report], context: u32) -> Vec<String> {
    reports.iter().filter(|report| report.context == context).map(Report::shown).collect()
}

#[tokio::test]
async fn of_a_whole_exchange() {
    let script = Script::default();
    let (_, reports) = exchange(&script).await;
    let reports = worker(&reports);
    let size = script.json().len();
    // Root contexts begin at 1, streams come after.
    let expected = [
        "root_context_create(0)",
        "vm_start(0)",
        &format!("configure({size})"),
        "root_done()",
        "root_delete()",
    ];
    assert_eq!(of(reports, 1), expected);
    let count = |callback: &str| last_of(reports, callback).arguments[0];
    let expected = [
        "context_create(1)".to_owned(),
        format!("request_headers({}, 0)", count("request_headers")),
        "request_body(5, 0)".to_owned(),
        "request_trailers(1)".to_owned(),
        format!("response_headers({}, 0)", count("response_headers")),
        "response_body(10, 0)".to_owned(),
        "response_trailers(1)".to_owned(),
        "done()".to_owned(),
        "log()".to_owned(),
        "delete()".to_owned(),
    ];
    assert_eq!(of(reports, 2), expected);
}

fn last_of<'a>(reports: &'a [Report], callback: &str) -> &'a Report {
    reports.iter().rev().find(|report| report.phase == callback).unwrap()
}

/// What it reads in the log callback is there, however late that comes.
#[tokio::test]
async fn of_a_stream_that_is_done_late() {
    let reads = [
        call("proxy_get_header_map_value", &[N(2), T(":status"), Bytes]),
        call("proxy_get_property", &[T("response\0code"), Bytes]),
        call("proxy_get_property", &[T("request\0path"), Bytes]),
    ];
    let script = Script::default()
        .on("configure", [call("proxy_set_tick_period_milliseconds", &[N(50)])])
        .answer("done", 0)
        .on("tick", [call("proxy_set_effective_context", &[Stream]), call("proxy_done", &[])])
        .on("log", reads);
    let (_, reports) = exchange(&script).await;
    let reports = worker(&reports);
    assert!(of(reports, 2).ends_with(&["done()", "log()", "delete()"].map(str::to_owned)), "{reports:?}");
    let place = |found: &dyn Fn(&Report) -> bool| reports.iter().position(found).unwrap();
    let done = place(&|report: &Report| report.phase == "done");
    let said = place(&|report: &Report| report.phase == "tick" && report.statuses() == [OK, OK]);
    let logged = place(&|report: &Report| report.phase == "log");
    assert!(done < said && said < logged, "{reports:?}");
    let log = last(reports, "log");
    assert_eq!(log.statuses(), [OK, OK, OK], "{log:?}");
    assert_eq!((log.value(0), log.value(2)), (&"200".into(), &"/path?query=1".into()));
    assert_eq!(*log.value(1), serde_json::json!({"hex": "c800000000000000"}), "200 in eight bytes");
}

#[tokio::test]
async fn of_messages_without_body() {
    let running = World::start().await.run(&Script::default()).await;
    for (version, method) in [(1, Method::GET), (2, Method::GET), (1, Method::HEAD), (2, Method::HEAD)] {
        running.ask(version, Ask::new(method, "/", meshgate_tests::empty())).await.unwrap();
    }
    entered(running.log(), "delete", 4).await;
    let reports = running.stop().await;
    let heads: Vec<_> = reports.iter().filter(|report| report.phase == "request_headers").collect();
    assert_eq!(heads.len(), 4);
    assert!(heads.iter().all(|report| report.arguments[1] == 1), "the head is all: {heads:?}");
    assert!(
        reports.iter().all(|report| !["request_body", "request_trailers"].contains(&report.phase.as_str()))
    );
    let mut contexts: Vec<_> = heads.iter().map(|report| report.context).collect();
    contexts.dedup();
    assert_eq!(contexts.len(), 4, "a context for each exchange");
}

#[tokio::test]
async fn of_two_plugins_in_one_vm() {
    let world = World::start().await;
    // With different configurations, since equal plugins are one.
    let scripts = ["a", "b"].map(|name| {
        let script = Script::default().on("configure", [call("proxy_log", &[N(0), T(name)])]);
        serde_json::to_string(&script.json()).unwrap()
    });
    let chain = format!("- conformance: {}\n- conformance: {}", scripts[0], scripts[1]);
    let setup =
        meshgate_tests::Meshgate::chain(&chain).guest("conformance", "").cluster("one", &[&world.one]);
    let gate = setup.start().await;
    gate.call(whole()).await;
    entered(gate.log(), "delete", 2).await;
    let reports = super::script::reports(&gate.stop().await.log);
    let streams: Vec<_> = reports.iter().filter(|report| report.phase == "context_create").collect();
    let [first, second] = streams[..] else { panic!("two streams: {streams:?}") };
    assert_ne!((first.context, &first.arguments), (second.context, &second.arguments));
    // Requests run down the chain, responses run back up.
    let order = |callback: &str| -> Vec<u32> {
        reports.iter().filter(|report| report.phase == callback).map(|report| report.context).collect()
    };
    for callback in ["request_headers", "request_body", "request_trailers"] {
        assert_eq!(order(callback), [first.context, second.context], "{callback}");
    }
    for callback in ["response_headers", "response_body", "response_trailers"] {
        assert_eq!(order(callback), [second.context, first.context], "{callback}");
    }
    // Each root is started by itself.
    let roots: Vec<_> = [first, second].map(|stream| stream.arguments[0]).to_vec();
    for root in roots {
        let starts = of(&reports, root);
        let begin = starts.iter().position(|entry| entry == "root_context_create(0)").unwrap();
        assert!(
            starts[begin + 1].starts_with("vm_start(") && starts[begin + 2].starts_with("configure("),
            "{starts:?}"
        );
    }
}

#[tokio::test]
async fn a_configuration_that_the_plugin_refuses() {
    for callback in ["vm_start", "configure"] {
        let world = World::start().await;
        let script = Script::default().answer(callback, 0);
        let quoted = serde_json::to_string(&script.json()).unwrap();
        let setup = meshgate_tests::Meshgate::chain(&format!("- conformance: {quoted}"));
        let ended = setup.guest("conformance", "").cluster("one", &[&world.one]).start_refused().await;
        assert_ne!(ended.code, Some(0), "{callback}");
    }
}

#[tokio::test]
async fn a_plugin_that_is_not_done_waits_for_its_end() {
    let script = Script::default()
        .on("configure", [call("proxy_set_tick_period_milliseconds", &[N(50)])])
        .answer("root_done", 0)
        .on("tick", [call("proxy_set_effective_context", &[Root]), call("proxy_done", &[])]);
    let (_, reports) = exchange(&script).await;
    let reports = worker(&reports);
    let place = |callback: &str| reports.iter().position(|report| report.phase == callback);
    let (done, deleted) = (place("root_done").unwrap(), place("root_delete"));
    let ended = reports.iter().position(|report| report.phase == "tick" && report.statuses() == [OK, OK]);
    let ended = ended.expect("a tick after root_done ended the plugin");
    assert!(done < ended && deleted.is_some_and(|deleted| ended < deleted), "{reports:?}");
}

#[tokio::test]
async fn an_exchange_that_the_client_breaks_off() {
    let script = Script::default().answer("request_headers", 1);
    let running = World::start().await.run(&script).await;
    let mut wire = meshgate_tests::Wire::connect(running.gate.address()).await;
    wire.write("GET / HTTP/1.1\r\nhost: example\r\n\r\n").await;
    entered(running.log(), "request_headers", 1).await;
    wire.reset();
    entered(running.log(), "delete", 1).await;
    let reports = running.stop().await;
    let context = last_of(&reports, "request_headers").context;
    let entered: Vec<_> = worker(&reports)
        .iter()
        .filter(|report| report.context == context && report.phase != "root_delete")
        .map(|report| report.phase.clone())
        .collect();
    assert_eq!(entered, ["context_create", "request_headers", "done", "log", "delete"]);
}
