//! The matrix: each protocol, in cleartext, through TLS and through mutual TLS, while the configuration is reloaded, while
//! certificates are renewed, and at the end of the process. Nothing that the protocol allows to keep is lost.
//!
//! A cell is a proxy under traffic of two kinds: *callers* ask again and again, and *lines* are streams that stay open from
//! before the event until after it. All that is sent is numbered and comes back; every byte of it is compared. Then:
//!
//! | event | callers | lines |
//! |---|---|---|
//! | reload, rotation | every call is answered, on connections that were there before, where calls share one | every line lives on |
//! | drain | a call that is not answered never came to the endpoint, so that it can be made elsewhere | every line lives on, and ends when its client ends it; then the process does, in order |
//!
//! With TLS and mutual TLS, the proxy speaks the same to the endpoint. In cleartext, the certificates that are renewed are
//! those of a listener beside.

mod line;
mod traffic;
mod world;

use meshgate_tests::{Meshgate, until};

use self::traffic::Traffic;
use self::world::{Protocol, Security, World};

/// What happens to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Reload,
    Rotation,
    Drain,
}

/// How often it happens, if it can happen more than once.
const TIMES: u32 = 3;

macro_rules! cells {
    ($($protocol:ident: $of_protocol:expr),* $(,)?) => {
        $(cells! { @securities $protocol, $of_protocol;
            cleartext: Security::Cleartext, tls: Security::Tls, mtls: Security::Mtls })*
    };
    (@securities $protocol:ident, $of_protocol:expr; $($security:ident: $of_security:expr),*) => {
        mod $protocol {
            $(mod $security {
                use super::super::{Event, Protocol, Security, cell};

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn reload() {
                    cell($of_protocol, $of_security, Event::Reload).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn rotation() {
                    cell($of_protocol, $of_security, Event::Rotation).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn drain() {
                    cell($of_protocol, $of_security, Event::Drain).await;
                }
            })*
        }
    };
}

cells! {
    http1: Protocol::Http1,
    http2: Protocol::Http2,
    grpc_unary: Protocol::GrpcUnary,
    grpc_stream: Protocol::GrpcStream,
    websocket: Protocol::WebSocket,
    tcp: Protocol::Tcp,
}

async fn cell(protocol: Protocol, security: Security, event: Event) {
    let world = World::new(protocol, security).await;
    let gate = world.setup(0).start().await;
    let traffic = Traffic::start(&world, gate.address()).await;
    traffic.goes_on().await;
    match event {
        Event::Reload => reload(&world, &gate, &traffic).await,
        Event::Rotation => rotation(&world, &gate, &traffic).await,
        Event::Drain => return drain(&world, gate, traffic).await,
    }
    traffic.end_lines().await;
    traffic.end_callers().await.all_good();
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("meshgate_downstream_tls_handshakes_failed_total", &[]), 0.0);
    gate.stop().await;
}

async fn reload(world: &World, gate: &Meshgate, traffic: &Traffic) {
    for version in 1..=TIMES {
        let before = gate.reload().await;
        gate.replace("meshgate.yaml", world.setup(version).yaml());
        gate.reloaded(&before).await;
        traffic.goes_on().await;
    }
}

async fn rotation(world: &World, gate: &Meshgate, traffic: &Traffic) {
    for round in 0..TIMES {
        let new = world.issue_own();
        gate.replace("web.key", &new.key);
        if round == 1 {
            // For a while there is no pair.
            traffic.goes_on().await;
        }
        gate.replace("web.pem", &new.certificate);
        until("the new certificate is shown", || async { world.is_shown(gate, &new).await.then_some(()) })
            .await;
        if world.security() == Security::Mtls {
            let new = world.issue_client();
            gate.replace("own.key", &new.key);
            gate.replace("own.pem", &new.certificate);
            until("the endpoint meets it", || async { world.has_met(&new).then_some(()) }).await;
        }
        traffic.goes_on().await;
    }
}

async fn drain(world: &World, gate: Meshgate, traffic: Traffic) {
    gate.terminate();
    // Where there are no lines, it may be over at once.
    gate.log().wait("the drain begins", |line| line.contains("draining").then_some(())).await;
    traffic.lines_go_on().await;
    traffic.end_lines().await;
    let tally = traffic.refused().await;
    let reached = world.reached();
    for (id, what) in &tally.unanswered {
        assert!(!reached.contains(id), "call {id} came to the endpoint and was not answered: {what}");
    }
    let stopped = gate.wait().await;
    assert!(stopped.status.success(), "{}\n{}", stopped.status, stopped.log.join("\n"));
}
