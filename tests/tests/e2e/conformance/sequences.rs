//! Which callbacks an exchange or a connection meets, in which order, side by side in Envoy, where it is installed.

use http::Method;
use meshgate_tests::{Ask, Client, Envoy, SocketBackend, empty};

use super::envoy::setup;
use super::returns::{BODY, HEADERS, stops};
use super::script::Arg::{N, Pairs, Stream, T, Word};
use super::script::{Report, Script, call, entered, reports};
use super::tcp;
use super::world::{World, whole};

/// Differences that this comparison knows; each is explained in the documentation under its id.
pub(crate) const KNOWN: &[&str] = &["end-of-context"];

/// What a stream context met: each callback with what it says of the end, several for one body as one.
fn met(reports: &[Report]) -> Vec<String> {
    let mut created = reports.iter().filter(|report| report.phase == "context_create");
    let last = created.next_back().map_or(0, |report| report.context);
    let mut met: Vec<(String, String)> = Vec::new();
    for report in reports.iter().filter(|report| report.context == last) {
        // Sizes and numbers of fields are what the proxies add; how a connection ended is compared in `envoy`.
        let end = match report.phase.as_str() {
            "request_headers" | "response_headers" | "request_body" | "response_body" => {
                report.arguments.get(1)
            }
            "request_trailers" | "response_trailers" => report.arguments.first(),
            _ => None,
        };
        let end = end.map(ToString::to_string).unwrap_or_default();
        let again = report.phase.ends_with("_body") || report.phase.ends_with("_data");
        match met.last_mut() {
            Some((phase, before)) if again && *phase == report.phase => *before = end,
            _ => met.push((report.phase.clone(), end)),
        }
    }
    met.into_iter().map(|(phase, end)| format!("{phase} {end}").trim_end().to_owned()).collect()
}

/// Envoy logs before a context is done: `end-of-context`. Whether that showed.
fn in_our_order(met: &mut [String]) -> bool {
    let place = met.iter().position(|entry| entry == "log");
    let before = place.filter(|place| met.get(place + 1).is_some_and(|next| next == "done"));
    if let Some(place) = before {
        met.swap(place, place + 1);
    }
    before.is_some()
}

async fn by_envoy(script: &Script, version: u8, ask: Ask) -> Vec<String> {
    let world = World::start().await;
    let envoy = setup(script, world.one.address(), &world).start().await;
    let mut client = match version {
        1 => Client::http1(envoy.address()).await,
        _ => Client::http2(envoy.address()).await,
    };
    let _ = meshgate_tests::within("Envoy's response, or the connection's end", client.try_call(ask)).await;
    entered(envoy.log(), "delete", 1).await;
    let mut met = met(&reports(&envoy.log().all()));
    assert!(in_our_order(&mut met), "end-of-context did not show: {met:?}");
    met
}

async fn by_meshgate(script: &Script, version: u8, ask: Ask) -> Vec<String> {
    let running = World::start().await.run(script).await;
    let _ = running.ask(version, ask).await;
    entered(running.log(), "delete", 1).await;
    met(&running.stop().await)
}

/// Its name, what the guest does, and what is asked.
type Scenario = (&'static str, Script, fn() -> Ask);

fn scenarios() -> Vec<Scenario> {
    const HEAD: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "called.example")];
    let bare = || Ask::get("/");
    let body = || Ask::post("/", "hello");
    let head = || Ask::new(Method::HEAD, "/", empty());
    let refuse = || call("proxy_send_local_response", &[N(429), T(""), T("slow down"), Pairs(&[]), N(-1)]);
    let calls = || call("proxy_http_call", &[T("called"), Pairs(HEAD), T(""), Pairs(&[]), N(5000), Word]);
    let resume = |stream| {
        [call("proxy_set_effective_context", &[Stream]), call("proxy_continue_stream", &[N(stream)])]
    };
    let refusing = |callback: &str| Script::default().on(callback, [refuse()]).answer(callback, 1);
    let paused = |callback: &str, stream| {
        Script::default()
            .on(&format!("{callback}#1"), [calls()])
            .answer(&format!("{callback}#1"), 1)
            .on("http_call_response", resume(stream))
    };
    vec![
        ("nothing", Script::default(), whole),
        ("nothing, without a body", Script::default(), bare),
        ("nothing, with a body", Script::default(), body),
        ("nothing, for HEAD", Script::default(), head),
        ("a local response", refusing("request_headers"), whole),
        ("a local response to a body", refusing("request_body"), whole),
        ("a local response to a response", refusing("response_headers"), bare),
        ("a request that waits", paused("request_headers", 0), whole),
        ("a request's body that waits", paused("request_body", 0), body),
        ("a response that waits", paused("response_headers", 1), bare),
        ("a response's body that waits", paused("response_body", 1), bare),
    ]
}

#[tokio::test]
async fn of_exchanges() {
    if Envoy::installed().is_none() {
        println!("envoy is not installed: skipped");
        return;
    }
    let mut found = Vec::new();
    for (name, script, ask) in scenarios() {
        for version in [1, 2] {
            let (ours, theirs) =
                (by_meshgate(&script, version, ask()).await, by_envoy(&script, version, ask()).await);
            if ours != theirs {
                found.push(format!("{name}, HTTP/{version}:\n  meshgate {ours:?}\n  envoy    {theirs:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// Whatever a callback answers, with a call whose response resumes the stream.
#[tokio::test]
async fn of_answers() {
    if Envoy::installed().is_none() {
        println!("envoy is not installed: skipped");
        return;
    }
    let mut found = Vec::new();
    for (callback, answers) in [
        ("request_headers", HEADERS),
        ("request_body", BODY),
        ("response_headers", HEADERS),
        ("response_body", BODY),
    ] {
        for (answer, _) in answers {
            let script = stops(callback, *answer);
            let (ours, theirs) =
                (by_meshgate(&script, 2, whole()).await, by_envoy(&script, 2, whole()).await);
            if ours != theirs {
                found.push(format!(
                    "{callback} answers {answer}:\n  meshgate {ours:?}\n  envoy    {theirs:?}"
                ));
            }
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

#[tokio::test]
async fn of_a_connection() {
    if Envoy::installed().is_none() {
        println!("envoy is not installed: skipped");
        return;
    }
    let (world, backend) = (World::start().await, SocketBackend::start().await);
    let envoy = setup(&Script::default(), backend.address(), &world).tcp().start().await;
    tcp::converse(envoy.address(), &backend).await;
    entered(envoy.log(), "delete", 1).await;
    let theirs = met(&reports(&envoy.log().all()));
    let ours = met(&tcp::connection(&Script::default()).await);
    assert_eq!(ours, theirs);
}
