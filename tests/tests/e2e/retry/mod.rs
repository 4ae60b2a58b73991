//! Retries: how tries end and what becomes of that. The table of what other proxies do has them as rows 5 to 7; the tests'
//! names say which part.

mod bodies;
mod budgets;
mod filters;
mod hedges;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meshgate_tests::{Answer, Ask, Backend, Meshgate, Seen, Setup, empty, full, until};

/// Which try a backend was told it is.
fn number(seen: &Seen) -> usize {
    seen.header("x-envoy-attempt-count").parse().unwrap_or(0)
}

fn status(status: u16) -> Answer {
    Ok(Response::builder().status(status).body(full(format!("status {status}"))).unwrap())
}

/// Answers each try by what stands there for it, and all that come later by the last.
async fn answering(http2: bool, answers: &'static [u16]) -> Backend {
    let answer =
        move |seen: Seen, _| async move { status(answers[number(&seen).clamp(1, answers.len()) - 1]) };
    if http2 {
        Backend::http2("answering", answer).await
    } else {
        Backend::answering("answering", answer).await
    }
}

/// One filter before one backend.
fn before(backend: &Backend, http2: bool, filter: &str) -> Setup {
    let protocol = if http2 { "protocol: http2" } else { "protocol: http1" };
    Meshgate::chain(&format!("- retry: {filter}")).cluster_of("one", &[backend.address()], protocol)
}

/// How often requests to the cluster were sent again.
async fn retried(gate: &Meshgate) -> f64 {
    gate.metrics().await.sum("meshgate_cluster_retries_total", &[])
}

/// Waits until so many requests of clients have ended with this class of status.
async fn requests_that_ended(gate: &Meshgate, class: &str, count: f64) {
    let labels = [("response_code_class", class)];
    let ended = || async {
        let ended = gate.metrics().await.sum("meshgate_downstream_requests_total", &labels);
        assert!(ended <= count, "{ended} requests ended");
        (ended == count).then_some(())
    };
    until(format!("{count} requests have ended"), ended).await;
}

/// Where nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
pub(crate) async fn row_6_hits_are_one_and_the_retries_and_each_says_which_it_is() {
    for http2 in [false, true] {
        let backend = answering(http2, &[500]).await;
        let gate = before(&backend, http2, "{if: [5xx], attempts: 3}").start().await;
        let ask = Ask::get("/all").header("x-envoy-attempt-count", "9");
        let reply = gate.call(ask).await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (500, "status 500"));
        assert_eq!(backend.seen().iter().map(number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        // One request, whatever became of it on the way.
        requests_that_ended(&gate, "5xx", 1.0).await;
        let metrics = gate.metrics().await;
        assert_eq!(metrics.sum("meshgate_retries_total", &[("because", "5xx")]), 3.0);
        assert_eq!(metrics.sum("meshgate_retries_refused_total", &[("because", "attempts")]), 1.0);
        assert_eq!(retried(&gate).await, 3.0);
        gate.access("/all").await;
        assert_eq!(gate.access_log().len(), 1);
    }
}

#[tokio::test]
async fn a_later_try_may_succeed() {
    for http2 in [false, true] {
        let backend = answering(http2, &[503, 500, 200]).await;
        let gate = before(&backend, http2, "{if: [5xx]}").start().await;
        let reply = gate.get("/").await;
        assert_eq!(
            (reply.status.as_u16(), reply.text().as_str(), backend.requests()),
            (200, "status 200", 3)
        );
        let entry = gate.access("/").await;
        assert_eq!(
            (&entry["response_code"], &entry["response_flags"]),
            (&200.into(), &serde_json::Value::Null)
        );
    }
}

#[tokio::test]
async fn row_6_what_no_condition_names_is_delivered() {
    for (conditions, answers, hits) in [
        ("[5xx]", &[404][..], 1),
        ("[5xx]", &[429], 1),
        ("[retriable-4xx]", &[409, 200], 2),
        ("[retriable-4xx]", &[404], 1),
        ("[gateway-error]", &[500], 1),
        ("[gateway-error]", &[502, 503, 200], 3),
        ("[429, 500-503]", &[429, 501, 200], 3),
        ("[connect-failure, refused-stream]", &[503], 1),
    ] {
        let backend = answering(false, answers).await;
        let gate = before(&backend, false, &format!("{{if: {conditions}}}")).start().await;
        assert_eq!(gate.get("/").await.status.as_u16(), *answers.last().unwrap(), "{conditions}");
        assert_eq!(backend.requests(), hits, "{conditions} {answers:?}");
    }
}

#[tokio::test]
async fn no_connection_to_one_endpoint_is_a_reason_to_try_another() {
    let backend = Backend::echo("good").await;
    let gate = Meshgate::chain("- retry: {}").cluster_of("one", &[closed_port(), backend.address()], "");
    let gate = gate.start().await;
    let mut retries = 0;
    for _ in 0..20 {
        // Nothing was sent, so that any request is safe to send again.
        let reply = gate.call(Ask::post("/", "body")).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["body"]), (200, &"body".into()));
        retries += usize::from(reply.json()["headers"]["x-envoy-attempt-count"] == "2");
    }
    assert_eq!((backend.requests(), retried(&gate).await), (20, retries as f64));
    assert!(retries > 0, "round robin has its turn at each");
}

#[tokio::test]
async fn another_endpoint_is_preferred_unless_a_key_decides() {
    let (bad, good) =
        (Backend::answering("bad", |_, _| async { status(500) }).await, Backend::echo("good").await);
    let addresses = [bad.address(), good.address()];
    let chain = "- retry: {if: [5xx], attempts: 1}";
    let gate =
        Meshgate::chain(chain).cluster_of("one", &addresses, "load_balancer: round_robin").start().await;
    for _ in 0..20 {
        assert_eq!(gate.get("/").await.status, 200);
    }
    assert_eq!(good.requests(), 20);
    assert_eq!(retried(&gate).await, bad.requests() as f64);
    assert!(bad.requests() > 0);

    let hashed = "load_balancer: {ring_hash: {by: {header: x-user}}}";
    let gate = Meshgate::chain(chain).cluster_of("one", &addresses, hashed).start().await;
    let (mut to_bad, before) = (0, bad.requests());
    for user in 0..40 {
        let reply = gate.call(Ask::get("/").header("x-user", &user.to_string())).await;
        to_bad += usize::from(reply.status == 500);
    }
    assert_eq!(bad.requests() - before, 2 * to_bad, "all tries of a user go to one endpoint");
    assert!(to_bad > 0);
}

#[tokio::test]
async fn row_5_a_try_that_takes_too_long_is_followed_by_one_that_does_not() {
    for http2 in [false, true] {
        let answer = |seen: Seen, _| async move {
            if number(&seen) == 1 {
                std::future::pending::<()>().await;
            }
            status(200)
        };
        let backend = if http2 {
            Backend::http2("slow once", answer).await
        } else {
            Backend::answering("slow once", answer).await
        };
        let gate = before(&backend, http2, "{if: [timeout], per_try_timeout: 100ms}").start().await;
        let began = Instant::now();
        assert_eq!((gate.get("/").await.status.as_u16(), backend.requests()), (200, 2));
        assert!(began.elapsed() >= Duration::from_millis(100));
        // A condition that does not name it does not mean it.
        let gate =
            before(&backend, http2, "{if: [500, refused-stream], per_try_timeout: 100ms}").start().await;
        assert_eq!((gate.get("/once").await.status.as_u16(), backend.requests()), (504, 3));
        let entry = gate.access("/once").await;
        let (flags, details) = (&entry["response_flags"], &entry["response_code_details"]);
        assert_eq!((flags, details), (&"UT".into(), &"upstream_per_try_timeout".into()));
    }
}

#[tokio::test]
async fn the_request_as_a_whole_has_its_own_time() {
    let silent = Backend::answering("silent", |_, _| std::future::pending()).await;
    let setup = before(
        &silent,
        false,
        "{if: [timeout], attempts: 50, per_try_timeout: 50ms, back_off: {base: 1ms, max: 1ms}}",
    );
    let gate = setup.listener("request_timeout: 300ms").start().await;
    let began = Instant::now();
    assert_eq!(gate.get("/").await.status, 504);
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    assert!((2..50).contains(&silent.requests()), "{}", silent.requests());
    // A pause that would take longer than there is time is not begun.
    let bad = answering(false, &[500]).await;
    let setup =
        before(&bad, false, "{if: [5xx], attempts: 1, retry_after: 1h, back_off: {base: 8760h, max: 8760h}}");
    let gate = setup.listener("request_timeout: 5s").start().await;
    assert_eq!((gate.get("/").await.status.as_u16(), bad.requests()), (500, 1));
}

#[tokio::test]
async fn endpoints_that_ask_for_time_get_it_if_there_is_any() {
    let answer = |seen: Seen, _| async move {
        let mut response = status(if number(&seen) == 1 { 503 } else { 200 })?;
        response.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
        Ok(response)
    };
    let backend = Backend::answering("busy", answer).await;
    let gate = before(&backend, false, "{if: [503]}").start().await;
    let began = Instant::now();
    assert_eq!((gate.get("/").await.status.as_u16(), backend.requests()), (200, 2));
    assert!(began.elapsed() >= Duration::from_secs(1));
    for (filter, listener) in
        [("{if: [503]}", "request_timeout: 900ms"), ("{if: [503], retry_after: 500ms}", "")]
    {
        let mut setup = before(&backend, false, filter);
        if !listener.is_empty() {
            setup = setup.listener(listener);
        }
        let (gate, before) = (setup.start().await, backend.requests());
        assert_eq!((gate.get("/").await.status.as_u16(), backend.requests() - before), (503, 1), "{filter}");
        assert_eq!(
            gate.metrics().await.sum("meshgate_retries_refused_total", &[("because", "retry-after")]),
            1.0
        );
    }
}

#[tokio::test]
async fn overloads_are_never_answered_by_more_load() {
    // An endpoint that says so.
    let answer = |_, _| async {
        let response = Response::builder().status(503).header("x-envoy-overloaded", "true");
        Ok(response.body(empty()).unwrap())
    };
    let backend = Backend::answering("overloaded", answer).await;
    let gate = before(&backend, false, "{if: [5xx]}").start().await;
    assert_eq!((gate.get("/").await.status.as_u16(), backend.requests()), (503, 1));
    // And our own limits.
    let parking = Backend::answering("parking", |_, _| std::future::pending()).await;
    let keys = "limits: {active_requests: 1, retries: 100}";
    let gate =
        Meshgate::chain("- retry: {if: [5xx]}").cluster_of("one", &[parking.address()], keys).start().await;
    let mut client = gate.client().await;
    let parked = client.begin(Ask::get("/parked")).await.unwrap();
    parking.wait_for_requests(1).await;
    let reply = gate.get("/").await;
    assert_eq!((reply.status.as_u16(), reply.header("x-envoy-overloaded")), (503, "true"));
    assert_eq!((parking.requests(), retried(&gate).await), (1, 0.0));
    drop(parked);
}

#[tokio::test]
async fn grpc_statuses_of_nothing_but_trailers_are_conditions() {
    let answer = |seen: Seen, request: Request<Incoming>| async move {
        // One that came before the call's end would be delivered.
        request.into_body().collect().await.map_err(std::io::Error::other)?;
        let statuses: Vec<&str> = seen.header("x-statuses").split(' ').collect();
        let status = statuses[number(&seen).clamp(1, statuses.len()) - 1];
        let response =
            Response::builder().header("content-type", "application/grpc").header("grpc-status", status);
        Ok(response.body(empty()).unwrap())
    };
    let backend = Backend::http2("grpc", answer).await;
    let filter =
        "{if: [cancelled, deadline-exceeded, internal, resource-exhausted, unavailable], methods: [POST]}";
    let gate = before(&backend, true, filter).start().await;
    let mut client = meshgate_tests::Client::http2(gate.address()).await;
    for (statuses, last, tries) in [
        ("14 0", "0", 2),
        ("1 4 0", "0", 3),
        ("13 8 0", "0", 3),
        ("14 14 14 14", "14", 3),
        ("5", "5", 1),
        ("0", "0", 1),
        ("2 0", "2", 1),
    ] {
        let before = backend.requests();
        let ask = Ask::post("/test.Echo/Unary", meshgate_tests::framed(b"x"));
        let reply =
            client.call(ask.header("content-type", "application/grpc").header("x-statuses", statuses)).await;
        assert_eq!((reply.header("grpc-status"), backend.requests() - before), (last, tries), "{statuses}");
    }
}

#[tokio::test]
async fn trap_3_is_told_by_line_and_column_with_what_was_meant() {
    let setup =
        Meshgate::chain("- retry: {if: [5xx, retriable-status-500]}").cluster_of("one", &[closed_port()], "");
    let checked = setup.check().await;
    assert_eq!(checked.code, Some(2));
    let said = checked.stdout + &checked.stderr;
    assert!(said.contains("`retriable-status-500`") && said.contains("did you mean `500`?"), "{said}");
}
