//! An instance of a filter for each exchange, and what sharing one costs.

use std::sync::Arc;

use http::Response;
use meshgate_tests::{Ask, Backend, Client, Meshgate, Misdeed, Reply, full, hostile, within};
use tokio::sync::Semaphore;

/// A backend that answers `/held` when it is let, and everything else at once.
async fn holding(release: &Arc<Semaphore>) -> Backend {
    let release = Arc::clone(release);
    Backend::answering("one", move |seen, _| {
        let release = Arc::clone(&release);
        async move {
            if seen.path == "/held" {
                release.acquire().await.unwrap().forget();
            }
            Ok(Response::new(full("answer")))
        }
    })
    .await
}

/// The status of an exchange that is in the filter while another traps in it.
async fn beside_a_trap(more: &str) -> u16 {
    let release = Arc::new(Semaphore::new(0));
    let one = holding(&release).await;
    // It has a say in both directions.
    let module = hostile("response_headers", Misdeed::Trap);
    let gate =
        Meshgate::chain("- bad: {}").filter("bad", &module, more).cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    // Its context is made with the response; a body callback would make it earlier, so the marked one comes after.
    let held = client.begin(Ask::get("/held")).await.unwrap();
    one.wait_for_requests(1).await;
    assert_eq!(gate.call(Ask::get("/bad").header("x-misbehave", "1")).await.status, 503);
    release.add_permits(1);
    let reply = Reply::collect(within("the held answer", held).await.unwrap()).await.unwrap();
    assert_eq!(gate.get("/next").await.status, 200, "the next one is served");
    reply.status.as_u16()
}

/// As [`beside_a_trap`], of a filter that was entered with the request.
async fn beside_a_trap_after_the_request(more: &str) -> u16 {
    let release = Arc::new(Semaphore::new(0));
    let one = holding(&release).await;
    let module = meshgate_tests::guest("hostile");
    let chain = "- bad: {mode: trap, where: request_headers}";
    let gate = Meshgate::chain(chain).filter("bad", &module, more).cluster("one", &[&one]).start().await;
    let mut client = gate.client().await;
    let held = client.begin(Ask::get("/held")).await.unwrap();
    one.wait_for_requests(1).await;
    let attacked = if more.contains("skip") { 200 } else { 503 };
    assert_eq!(gate.call(Ask::get("/bad").header("x-attack", "1")).await.status, attacked);
    release.add_permits(1);
    let reply = Reply::collect(within("the held answer", held).await.unwrap()).await.unwrap();
    assert_eq!(gate.get("/next").await.status, 200, "the next one is served");
    reply.status.as_u16()
}

#[tokio::test]
async fn a_shared_vm_that_traps_takes_the_exchanges_inside_with_it() {
    assert_eq!(beside_a_trap_after_the_request("").await, 503, "by on_error: deny");
    assert_eq!(beside_a_trap_after_the_request("on_error: skip").await, 200, "by on_error: skip");
    assert_eq!(beside_a_trap("").await, 200, "it was not inside yet");
}

#[tokio::test]
async fn with_an_instance_for_each_exchange_a_trap_touches_no_other() {
    assert_eq!(beside_a_trap_after_the_request("isolation: exchange").await, 200);
    assert_eq!(beside_a_trap("isolation: exchange").await, 200);
}

#[tokio::test]
async fn too_many_instances_are_an_overload() {
    let release = Arc::new(Semaphore::new(0));
    let one = holding(&release).await;
    let module = meshgate_tests::guest("hostile");
    let gate = Meshgate::chain("- bad: {mode: none}")
        .filter("bad", &module, "isolation: exchange")
        .top("wasm: {exchange_instances: 1}")
        .cluster("one", &[&one])
        .start()
        .await;
    let mut client = gate.client().await;
    let held = client.begin(Ask::get("/held")).await.unwrap();
    one.wait_for_requests(1).await;
    for _ in 0..30 {
        let reply = gate.get("/refused").await;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "2"));
    }
    let entry = gate.access("/refused").await;
    assert_eq!(entry["response_code_details"], "wasm_overload", "{entry}");
    assert_eq!(entry["response_flags"], "WL", "{entry}");
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_wasm_exchange_instances", &[]), 1.0);
    assert_eq!(metrics.sum("meshgate_plugin_quarantined", &[]), 0.0, "nobody's fault");
    release.add_permits(1);
    Reply::collect(within("the held answer", held).await.unwrap()).await.unwrap();
    let mut next = Client::http1(gate.address()).await;
    meshgate_tests::until("there is room again", || async {
        (gate.get("/next").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(next.get("/next").await.status, 200);
    assert_eq!(gate.metrics().await.sum("meshgate_wasm_exchange_instances", &[]), 0.0);
}

#[tokio::test]
async fn filters_of_a_module_share_a_vm_unless_they_name_another() {
    let one = Backend::echo("one").await;
    for (more, vms) in [("", 1), ("vm: apart", 2)] {
        let gate = Meshgate::chain("- first: {mode: none}\n- second: {mode: none}")
            .filter("first", &meshgate_tests::guest("hostile"), "")
            .file("second.wasm", meshgate_tests::guest("hostile"))
            .filter("second", &meshgate_tests::guest("hostile"), more)
            .cluster("one", &[&one])
            .start()
            .await;
        assert_eq!(gate.get("/").await.status, 200);
        let metrics = gate.metrics().await;
        let holders = ["first", "second"]
            .into_iter()
            .filter(|name| metrics.sum("meshgate_plugin_memory_bytes", &[("plugin", name)]) > 0.0)
            .count();
        assert_eq!(holders, vms, "{more}");
    }
}
