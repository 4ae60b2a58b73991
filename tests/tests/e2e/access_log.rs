//! What is written about each request, in both formats.

use http::Response;
use meshgate_tests::{Ask, Backend, Client, Meshgate, Wire, full};

#[tokio::test]
async fn json_entry_says_everything() {
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("answer")))).await;
    let gate = Meshgate::chain("- routing: {routes: [{name: all, match: {path: /**}, to: one}]}")
        .without_default_cluster()
        .cluster("one", &[&one])
        .start()
        .await;
    let ask =
        Ask::post("/things?a=b", "request").header("user-agent", "tester").header("x-request-id", "id-1");
    Client::http1(gate.address()).await.authority("shop.example").call(ask).await;

    let entry = gate.access("/things?a=b").await;
    let expected = [
        ("method", "POST"),
        ("protocol", "HTTP/1.1"),
        ("response_code_details", "via_upstream"),
        ("x_forwarded_for", "127.0.0.1"),
        ("user_agent", "tester"),
        ("request_id", "id-1"),
        ("authority", "shop.example"),
        ("cluster", "one"),
        ("route", "all"),
        ("listener", "web"),
    ];
    for (key, value) in expected {
        assert_eq!(entry[key], value, "{key} in {entry}");
    }
    assert_eq!(entry["response_code"], 200);
    assert!(entry["response_flags"].is_null(), "{entry}");
    assert_eq!((&entry["bytes_received"], &entry["bytes_sent"]), (&7.into(), &6.into()));
    assert_eq!(entry["upstream_address"], one.address().to_string());
    assert!(entry["downstream_address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(entry["duration_ms"].is_u64() && entry["upstream_time_ms"].is_u64(), "{entry}");
    let start = entry["start_time"].as_str().unwrap();
    assert!(start.len() >= 20 && start.ends_with('Z') && start.as_bytes()[10] == b'T', "{start}");
}

#[tokio::test]
async fn every_request_has_one_entry() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").workers(2).cluster("one", &[&one]).start().await;
    let mut paths = Vec::new();
    for number in 0..50 {
        let path = format!("/{number}");
        match number % 2 {
            0 => gate.get(&path).await,
            _ => Client::http2(gate.address()).await.get(&path).await,
        };
        paths.push(path);
    }
    let entries = gate.stop().await.access_log;
    let mut logged: Vec<_> = entries.iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect();
    logged.sort();
    paths.sort();
    assert_eq!(logged, paths);
}

#[tokio::test]
async fn hostile_values_stay_on_one_line() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("").cluster("one", &[&one]).start().await;
    let agent = "\\\" {\"path\": \"/forged\"} \u{1f600}";
    let mut wire = Wire::connect(gate.address()).await;
    wire.write(format!("GET /quotes?a=%22b HTTP/1.1\r\nhost: a\r\nuser-agent: {agent}\r\n\r\n")).await;
    assert_eq!(wire.read_reply().await.status(), 200);
    let entry = gate.access("/quotes?a=%22b").await;
    assert_eq!(entry["user_agent"], agent);
    assert_eq!(gate.access_log().len(), 1);
}

#[tokio::test]
async fn text_is_the_default_format() {
    let one = Backend::answering("one", async |_, _| Ok(Response::new(full("answer")))).await;
    let yaml = format!(
        "admin: {{address: \"127.0.0.1:0\"}}\n\
         workers: 1\n\
         listeners: [{{name: web, address: \"127.0.0.1:0\", chain: web, cluster: one}}]\n\
         chains: {{web: []}}\n\
         clusters: [{{name: one, endpoints: [\"{}\"]}}]\n",
        one.address()
    );
    let gate = Meshgate::with(&yaml).start().await;
    gate.call(Ask::post("/p?q=1", "request").header("user-agent", "a \"tester\"")).await;
    let line = gate.stdout().wait("a line of text", |line| Some(line.to_owned())).await;
    let (_, rest) = line.split_once("] ").unwrap();
    assert!(line.starts_with("[20"), "{line}");
    assert!(rest.starts_with("\"POST /p?q=1 HTTP/1.1\" 200 - via_upstream 7 6 "), "{line}");
    assert!(rest.contains("\"a \\\"tester\\\"\""), "{line}");
    assert!(rest.contains(&format!("\"{}\" one - 127.0.0.1:", one.address())), "{line}");
    assert!(rest.ends_with(" web"), "{line}");
}

#[tokio::test]
async fn log_goes_to_a_file_or_nowhere() {
    let one = Backend::echo("one").await;
    let yaml = |to: &str| {
        format!(
            "admin: {{address: \"127.0.0.1:0\"}}\n\
             access_log: {{format: json, to: {to}}}\n\
             workers: 1\n\
             listeners: [{{name: web, address: \"127.0.0.1:0\", chain: web, cluster: one}}]\n\
             chains: {{web: []}}\n\
             clusters: [{{name: one, endpoints: [\"{}\"]}}]\n",
            one.address()
        )
    };
    let gate = Meshgate::with(&yaml("./access.log")).start().await;
    gate.get("/into-a-file").await;
    let file = gate.path("access.log");
    gate.terminate();
    meshgate_tests::until("the entry is in the file", || async {
        std::fs::read_to_string(&file).is_ok_and(|log| log.contains("\"/into-a-file\"")).then_some(())
    })
    .await;
    assert!(gate.wait().await.access_log.is_empty());

    let gate = Meshgate::with(&yaml("none")).start().await;
    gate.get("/nowhere").await;
    assert!(gate.stop().await.access_log.is_empty());
}

#[tokio::test]
async fn filters_set_flags_and_add_fields() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- suite: {}").guest("suite", "").cluster("one", &[&one]).start().await;
    let reply = gate.call(Ask::get("/said").header("x-do", "log")).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["headers"]["x-said"]),
        (200, &"Some(bad argument)".into())
    );
    let entry = gate.access("/said").await;
    assert_eq!(entry["response_flags"], "FI,RL");
    let fields = serde_json::json!({"suite.word": "second", "suite.other": "\"\n\u{fffd}"});
    assert_eq!(entry["fields"], fields);
    for flag in ["FI", "RL"] {
        let flagged = [("listener", "web"), ("flag", flag)];
        assert_eq!(gate.metrics().await.sum("meshgate_downstream_response_flags_total", &flagged), 1.0);
    }
    gate.get("/nothing").await;
    let entry = gate.access("/nothing").await;
    assert!(entry["fields"].is_null() && entry["response_flags"].is_null(), "{entry}");
}

#[tokio::test]
async fn what_a_filter_adds_is_bounded() {
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- suite: {}")
        .guest("suite", "limits: {log_bytes: 60B}")
        .cluster("one", &[&one])
        .start()
        .await;
    let reply = gate.call(Ask::get("/much").header("x-do", "log")).await;
    assert_eq!(reply.status, 500, "the filter passes on what it was refused");
    let entry = gate.access("/much").await;
    assert_eq!(entry["fields"], serde_json::json!({"suite.word": "first"}));
    let met = [("plugin", "suite"), ("limit", "log_bytes")];
    assert_eq!(gate.metrics().await.sum("meshgate_plugin_limit_exceeded_total", &met), 1.0);
}
