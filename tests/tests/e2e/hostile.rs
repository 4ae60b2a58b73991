//! Filters that loop, trap, grow or end the process, in every callback: each costs its own request and nothing else.

use std::sync::Arc;

use http::Response;
use meshgate_tests::{
    Ask, Backend, Begun, Client, Meshgate, Misdeed, Reply, STREAM_CALLBACKS, full, hostile, until, within,
};
use tokio::sync::Semaphore;

/// One worker, one filter for each callback on a route of its own, and a route `/held` with another filter.
struct Arena {
    gate: Meshgate,
    one: Backend,
    held: Backend,
    release: Arc<Semaphore>,
}

impl Arena {
    async fn start(misdeed: Misdeed, callbacks: &[&str]) -> Arena {
        let release = Arc::new(Semaphore::new(0));
        let waiting = Arc::clone(&release);
        let held = Backend::answering("held", move |_, _| {
            let waiting = Arc::clone(&waiting);
            async move {
                waiting.acquire().await.unwrap().forget();
                Ok(Response::new(full("untouched")))
            }
        })
        .await;
        let one = Backend::answering("one", answer_with_trailers).await;
        let mut routes = String::new();
        for callback in callbacks {
            let path = path(callback);
            routes += &format!(
                "      - {{name: {path}, match: {{path: /{path}}}, to: one, filters: [{path}: {{}}]}}\n"
            );
        }
        let chain = format!(
            "- routing:\n    routes:\n{routes}      - {{name: held, match: {{path: /held}}, to: held, \
             filters: [headers: {{response: {{set: {{x-stamp: stamped}}}}}}]}}\n"
        );
        let mut setup = Meshgate::chain(&chain).cluster("one", &[&one]).cluster("held", &[&held]);
        for callback in callbacks {
            setup = setup.filter(&path(callback), &hostile(callback, misdeed), "");
        }
        Arena { gate: setup.start().await, one, held, release }
    }

    /// A request on its way through another filter, held up by its backend.
    async fn bystander(&self) -> (Client, Begun) {
        let mut client = self.gate.client().await;
        let count = self.held.requests() + 1;
        let begun = client.begin(Ask::get("/held")).await.unwrap();
        self.held.wait_for_requests(count).await;
        (client, begun)
    }

    /// Asserts that the bystander's request ends as if nothing had happened.
    async fn untouched(&self, (_client, begun): (Client, Begun)) {
        self.release.add_permits(1);
        let reply = Reply::collect(within("the bystander's answer", begun).await.unwrap()).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.header("x-stamp")), (200, "stamped"));
        assert_eq!(reply.text(), "untouched");
    }
}

/// A callback's name as it stands in paths and names.
fn path(callback: &str) -> String {
    callback.replace('_', "-")
}

/// A request in which every callback has something to look at, and that leaves nothing behind on its connection.
fn request(path: &str) -> Ask {
    Ask::post(path, "body").header("te", "trailers").trailers(&[("x-last", "z")])
}

async fn answer_with_trailers(
    _: meshgate_tests::Seen,
    request: http::Request<hyper::body::Incoming>,
) -> meshgate_tests::Answer {
    use http_body_util::BodyExt;
    request.into_body().collect().await.map_err(std::io::Error::other)?;
    let (mut sender, body) = meshgate_tests::streamed();
    tokio::spawn(async move {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("42"));
        let _ = sender.send_data("answer".into()).await;
        let _ = sender.send_trailers(trailers).await;
    });
    Ok(Response::builder().header("trailer", "x-sum").body(body).unwrap())
}

/// A good request through the filter: everything passes as if the filter were not there.
async fn passes(gate: &Meshgate, path: &str) {
    let reply = Client::http2(gate.address()).await.call(request(path)).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "answer"), "{path}");
    assert_eq!(reply.trailers["x-sum"], "42", "{path}");
}

/// Runs one misdeed in each callback of a stream.
async fn misbehaves_in_each_callback(misdeed: Misdeed) {
    let arena = Arena::start(misdeed, &STREAM_CALLBACKS).await;
    let gate = &arena.gate;
    for callback in STREAM_CALLBACKS {
        let route = format!("/{}", path(callback));
        passes(gate, &route).await;
        let bystander = arena.bystander().await;

        let marked = request(&format!("{route}?bad")).header("x-misbehave", "1");
        let reply = within(format!("{misdeed:?} in {callback} is answered"), async {
            Client::http2(gate.address()).await.try_call(marked).await
        })
        .await;
        match callback {
            // The answer had gone out already.
            "done" | "log" | "delete" => assert_eq!(reply.unwrap().status, 200, "{misdeed:?} in {callback}"),
            // Its beginning may have: then it must not look whole.
            "response_body" | "response_trailers" => {
                assert!(reply.is_err() || reply.unwrap().status == 503, "{misdeed:?} in {callback}");
            }
            _ => assert_eq!(reply.unwrap().status, 503, "{misdeed:?} in {callback}"),
        }
        if !["done", "log", "delete"].contains(&callback) {
            let entry = gate.access(&format!("{route}?bad")).await;
            let flags = entry["response_flags"].as_str().unwrap_or_default();
            assert!(flags == "WT" || flags == "WL", "{misdeed:?} in {callback}: {entry}");
        }
        for _ in 0..2 {
            passes(gate, &route).await;
        }
        arena.untouched(bystander).await;
    }
    let traps = gate.metrics().await.sum("meshgate_plugin_traps_total", &[]);
    assert_eq!(traps, STREAM_CALLBACKS.len() as f64, "each is counted");
}

#[tokio::test]
async fn loop_in_each_callback() {
    misbehaves_in_each_callback(Misdeed::Loop).await;
}

#[tokio::test]
async fn trap_in_each_callback() {
    misbehaves_in_each_callback(Misdeed::Trap).await;
}

#[tokio::test]
async fn access_out_of_bounds_in_each_callback() {
    misbehaves_in_each_callback(Misdeed::OutOfBounds).await;
}

#[tokio::test]
async fn endless_growth_in_each_callback() {
    misbehaves_in_each_callback(Misdeed::Grow).await;
}

#[tokio::test]
async fn growth_to_the_limit_in_each_callback() {
    misbehaves_in_each_callback(Misdeed::GrowAndTrap).await;
}

#[tokio::test]
async fn endless_recursion_in_each_callback() {
    misbehaves_in_each_callback(Misdeed::Recurse).await;
}

#[tokio::test]
async fn exit_in_each_callback() {
    misbehaves_in_each_callback(Misdeed::Exit).await;
}

#[tokio::test]
async fn guest_in_rust_misbehaves_in_each_callback() {
    // The same once more with a guest compiled from Rust: its panics, its allocator and its deep stack frames.
    const PLACES: [&str; 8] = [
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
        "done",
        "log",
    ];
    let one = Backend::answering("one", answer_with_trailers).await;
    for mode in ["panic", "recurse", "grow", "loop", "trap", "exit"] {
        let routes: String = PLACES
            .iter()
            .map(|place| {
                format!(
                    "      - {{name: {place}, match: {{path: /{place}}}, to: one, \
                     filters: [hostile: {{mode: {mode}, where: {place}}}]}}\n"
                )
            })
            .collect();
        let gate = Meshgate::chain(&format!("- routing:\n    routes:\n{routes}"))
            .guest("hostile", "")
            .cluster("one", &[&one])
            .start()
            .await;
        for place in PLACES {
            let route = format!("/{place}");
            passes(&gate, &route).await;
            let attack = request(&format!("{route}?bad")).header("x-attack", "1");
            let reply = within(format!("{mode} in {place} is answered"), async {
                Client::http2(gate.address()).await.try_call(attack).await
            })
            .await;
            match place {
                "done" | "log" => assert_eq!(reply.unwrap().status, 200, "{mode} in {place}"),
                "response_body" | "response_trailers" => {
                    assert!(reply.is_err() || reply.unwrap().status == 503, "{mode} in {place}");
                }
                _ => assert_eq!(reply.unwrap().status, 503, "{mode} in {place}"),
            }
            passes(&gate, &route).await;
        }
    }
}

#[tokio::test]
async fn misdeed_when_an_http_call_returns() {
    for misdeed in Misdeed::ALL {
        let arena = Arena::start(misdeed, &["http_call_response"]).await;
        let gate = &arena.gate;
        let bystander = arena.bystander().await;
        let marked = request("/http-call-response?bad").header("x-misbehave", "1");
        assert_eq!(gate.call(marked).await.status, 503, "{misdeed:?}");
        let calls = arena.one.seen().iter().filter(|seen| seen.path == "/called").count();
        assert_eq!(calls, 1, "the call was made");
        passes(gate, "/http-call-response").await;
        arena.untouched(bystander).await;
    }
}

#[tokio::test]
async fn misdeed_in_a_tick() {
    for misdeed in Misdeed::ALL {
        let arena = Arena::start(misdeed, &["tick"]).await;
        let gate = &arena.gate;
        let bystander = arena.bystander().await;
        assert_eq!(gate.call(request("/tick").header("x-misbehave", "1")).await.status, 200, "{misdeed:?}");
        until("the tick failed", || async {
            (gate.metrics().await.sum("meshgate_plugin_traps_total", &[]) == 1.0).then_some(())
        })
        .await;
        passes(gate, "/tick").await;
        arena.untouched(bystander).await;
        let traps = gate.metrics().await.sum("meshgate_plugin_traps_total", &[]);
        assert_eq!(traps, 1.0, "{misdeed:?}: once");
    }
}

#[tokio::test]
async fn misdeed_when_a_stream_is_created() {
    for misdeed in Misdeed::ALL {
        let arena = Arena::start(misdeed, &["context_create"]).await;
        let bystander = arena.bystander().await;
        for _ in 0..3 {
            assert_eq!(arena.gate.call(request("/context-create")).await.status, 503, "{misdeed:?}");
        }
        arena.untouched(bystander).await;
    }
}

#[tokio::test]
async fn misdeed_in_the_configuration_refuses_the_file() {
    let one = Backend::echo("one").await;
    for misdeed in Misdeed::ALL {
        let module = hostile("configure", misdeed);
        let setup = Meshgate::chain("- bad: {}").filter("bad", &module, "").cluster("one", &[&one]);
        let place = setup.place("- bad: {}");
        let finished = setup.check().await;
        assert_eq!(finished.code, Some(2), "{misdeed:?}: {finished:?}");
        let said = finished.stdout + &finished.stderr;
        assert!(said.contains(&place), "{misdeed:?}: {said}");
    }
}

#[tokio::test]
async fn misdeed_in_the_configuration_leaves_a_running_proxy_alone() {
    let one = Backend::echo("one").await;
    let good = hostile("request_headers", Misdeed::Loop);
    let gate = Meshgate::chain("- bad: {}").filter("bad", &good, "").cluster("one", &[&one]).start().await;
    for misdeed in [Misdeed::Loop, Misdeed::Trap, Misdeed::Grow] {
        gate.replace("bad.wasm", hostile("configure", misdeed));
        let errors = gate.refused().await;
        assert!(errors.contains(&gate.setup().place("- bad: {}")), "{misdeed:?}: {errors}");
        assert_eq!(gate.get("/").await.status, 200);
        // Back to good, or the next refusal could not be told from this one.
        gate.replace("bad.wasm", &good);
        gate.reload_until("the good module is back", |reload| reload.errors.is_none()).await;
    }
}

#[tokio::test]
async fn filter_that_may_be_skipped_is_skipped_when_it_fails() {
    let one = Backend::echo("one").await;
    for misdeed in [Misdeed::Trap, Misdeed::Loop] {
        let module = hostile("request_headers", misdeed);
        let gate = Meshgate::chain("- bad: {}\n- headers: {response: {set: {x-stamp: stamped}}}")
            .filter("bad", &module, "on_error: skip")
            .cluster("one", &[&one])
            .start()
            .await;
        let reply = gate.call(Ask::get("/").header("x-misbehave", "1")).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-stamp")), (200, "stamped"));
    }
}
