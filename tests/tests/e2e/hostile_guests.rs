//! Every guest under `tests/hostile`: what its file says happens, alone and beside a filter under load; the process lives,
//! the neighbour's requests all succeed, and the next request meets a filter that works.

use std::net::SocketAddr;
use std::sync::Arc;

use meshgate_tests::{Ask, Backend, HostileGuest, Meshgate, repository, until};
use tokio::net::{TcpListener, TcpStream};

use self::arena::{Arena, HEALTHY, answer};
use self::latency::{compared, say};

mod arena;
mod latency;
mod refused;
mod stalls;

#[tokio::test]
async fn each_guest_alone() {
    let arena = Arc::new(Arena::start().await);
    arena.try_all().await;
    arena.stop().await;
}

#[tokio::test]
async fn each_guest_beside_a_filter_under_load() {
    let arena = Arc::new(Arena::start().await);
    let before = arena.load(4);
    before.wait_for_more(2_000).await;
    let before = before.stop().await;
    let load = arena.load(4);
    arena.try_all().await;
    load.wait_for_more(100).await;
    let during = load.stop().await;
    before.all_good();
    during.all_good();
    say(&format!("neighbour of {} guests: {}", arena.guests.len(), compared(&before.times, &during.times)));
    arena.stop().await;
}

#[test]
fn every_kind_of_attack_is_tested_as_the_documents_say() {
    let page = std::fs::read_to_string(repository().join("docs/testing.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 4 && cells[0].parse::<u32>().is_ok())
        .collect();
    assert_eq!(rows.len(), 36, "{rows:?}");
    let guests = HostileGuest::all();
    let sources = sources();
    let names =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    for (number, row) in (1..).zip(&rows) {
        assert_eq!(row[0], number.to_string());
        assert!(!names(row[2]).is_empty() || !names(row[3]).is_empty(), "row {number}");
        for name in names(row[2]) {
            assert!(guests.iter().any(|guest| guest.name.starts_with(&name)), "{name}");
        }
        for name in names(row[3]) {
            let (module, test) = name.split_once("::").unwrap_or_else(|| panic!("{name}"));
            let is_there = |(path, text): &(String, String)| {
                path.split(['/', '.']).any(|part| part == module) && text.contains(&format!("fn {test}("))
            };
            assert!(sources.iter().any(is_there), "{name}");
        }
    }
    for guest in &guests {
        let row = &rows[guest.row() as usize - 1];
        assert!(names(row[2]).iter().any(|name| guest.name.starts_with(name)), "{}", guest.name);
    }
}

/// The files that tests are in: path and text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![repository().join("tests/tests/e2e"), repository().join("proxy/wasm/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match std::fs::read_to_string(&path) {
                Ok(text) => found.push((path.to_string_lossy().into_owned(), text)),
                Err(_) if path.is_dir() => folders.push(path),
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
    found
}

/// Passes connections on to an address that is known later: a way for a configuration to name its own listener.
async fn detour(listener: TcpListener, to: SocketAddr) {
    loop {
        let Ok((mut from, _)) = listener.accept().await else { return };
        tokio::spawn(async move {
            let Ok(mut to) = TcpStream::connect(to).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        });
    }
}

#[tokio::test]
async fn calls_to_oneself_come_to_an_end() {
    // Every request makes a call that comes back as a request through the same filter.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let one = Backend::answering("one", answer).await;
    let chain = format!(
        "- routing:\n    routes:\n{HEALTHY}      - {{name: calls, match: {{path: /called}}, to: one, filters: [caller: {{}}]}}\n"
    );
    let gate = Meshgate::chain(&chain)
        .cluster("one", &[&one])
        .cluster_of("self", &[listener.local_addr().unwrap()], "")
        .filter("caller", &caller(), "")
        .start()
        .await;
    let detour = tokio::spawn(detour(listener, gate.address()));
    let arena = Arena { gate, one, guests: Vec::new() };
    let load = arena.load(2);
    let reply = arena.gate.call(Ask::get("/called")).await;
    assert!([200, 503, 504].contains(&reply.status.as_u16()), "{}", reply.status);
    load.wait_for_more(100).await;
    load.stop().await.all_good();
    detour.abort();
    arena.gate.stop().await;
}

/// A guest that calls `GET /called` of cluster `self` for every request, and waits for the answer.
fn caller() -> Vec<u8> {
    wat::parse_str(
        r#"(module
  (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $resume (param i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (data (i32.const 48) "self")
  (data (i32.const 160) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\07\00\00\00\0a\00\00\00\04\00\00\00")
  (data (i32.const 188) ":method\00GET\00:path\00/called\00:authority\00self\00")
  ;; The stream that waits for a call, by the call's number.
  (func (export "proxy_on_request_headers") (param $stream i32) (param i32 i32) (result i32)
    (if (call $call (i32.const 48) (i32.const 4) (i32.const 160) (i32.const 70) (i32.const 0) (i32.const 0)
          (i32.const 0) (i32.const 0) (i32.const 3000) (i32.const 8))
      (then (return (i32.const 0))))
    (i32.store (i32.add (i32.const 8192) (i32.shl (i32.load (i32.const 8)) (i32.const 2))) (local.get $stream))
    (i32.const 1))
  (func (export "proxy_on_http_call_response") (param i32) (param $call i32) (param i32 i32 i32)
    (drop (call $effective (i32.load (i32.add (i32.const 8192) (i32.shl (local.get $call) (i32.const 2))))))
    (drop (call $resume (i32.const 0)))))"#,
    )
    .unwrap()
}

#[tokio::test]
async fn contexts_that_are_never_done_are_let_go() {
    // Counts its contexts: one up when one is made, one down when it is deleted.
    let module = wat::parse_str(
        r#"(module
  (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (data (i32.const 16) "hostile_contexts")
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (i32.eqz (call $define (i32.const 1) (i32.const 16) (i32.const 16) (i32.const 8))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $increment (i32.load (i32.const 8)) (i64.const 1)))
    (i32.const 0))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 0))
  (func (export "proxy_on_delete") (param i32)
    (drop (call $increment (i32.load (i32.const 8)) (i64.const -1)))))"#,
    )
    .unwrap();
    let one = Backend::echo("one").await;
    let gate = Meshgate::chain("- leaky: {}")
        .filter("leaky", &module, "limits: {done: 1s}")
        .cluster("one", &[&one])
        .start()
        .await;
    let live = || async {
        let metrics = gate.metrics().await;
        let line =
            metrics.text().lines().find(|line| line.contains("hostile_contexts") && !line.starts_with('#'));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no hostile_contexts in\n{}", metrics.text()))
    };
    for _ in 0..50 {
        assert_eq!(gate.get("/").await.status, 200);
    }
    assert!(live().await > 0.0, "the contexts stay for a while");
    until("all contexts are gone", || async { (live().await == 0.0).then_some(()) }).await;
    gate.stop().await;
}
