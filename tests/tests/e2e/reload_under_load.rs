//! Two hundred reloads under load: no request fails, none is answered by a mix of two versions, memory stays flat.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use meshgate_tests::{Ask, Backend, Load, Meshgate, Reply, Setup, stamp, with_custom_section};

const CONNECTIONS: usize = 64;
const RELOADS: usize = 200;
/// How much more memory the second half of the reloads may end with than the first.
const GROWTH: u64 = 8 * 1024 * 1024;

/// Each version shows in five places: two filters of one module at the ends of the chain, which both stamp requests and
/// responses, `headers` between them, which does too, and the cluster that `routing` decides.
fn chain(version: usize) -> String {
    let backend = ["even", "odd"][version % 2];
    format!(
        "- first: {{version: \"{version}\"}}\n\
         - headers: {{request: {{set: {{x-yaml: \"{version}\"}}}}, response: {{set: {{x-yaml: \"{version}\"}}}}}}\n\
         - routing: {{routes: [{{name: r{version}, match: {{path: /**}}, to: {backend}}}]}}\n\
         - last: {{version: \"{version}\"}}\n"
    )
}

/// The versions of YAML and module that an answer shows, if it shows one of each everywhere.
fn versions(reply: &Reply) -> Result<(usize, usize), String> {
    if reply.status != 200 {
        return Err(format!("{}: {}", reply.status, reply.text()));
    }
    let seen = reply.json();
    let yaml = reply.header("x-yaml").to_owned();
    let mut modules: Vec<String> =
        reply.headers.get_all("x-module").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    modules.extend(seen["headers"]["x-module"].as_str().unwrap_or_default().split(", ").map(str::to_owned));
    let mixed = || Err(format!("a mix: {:?} {:?} {}", reply.headers, modules, seen));
    let Ok(version) = yaml.parse::<usize>() else { return mixed() };
    let backend = ["even", "odd"][version % 2];
    let one_yaml = seen["headers"]["x-yaml"] == yaml.as_str() && seen["backend"] == backend;
    let one_module = modules.len() == 4 && modules.iter().all(|module| *module == modules[0]);
    match modules[0].parse() {
        Ok(module) if one_yaml && one_module => Ok((version, module)),
        _ => mixed(),
    }
}

/// The `number`th way to spoil a configuration, and what must be said about it.
fn spoiled(setup: &Setup, number: usize) -> (String, String) {
    let text = setup.yaml();
    let line = |part: &str| 1 + text.lines().position(|line| line.contains(part)).unwrap();
    match number % 4 {
        0 => (text.replace("chain: web", "chain: wbe"), format!("meshgate.yaml:{}:", line("chain: web"))),
        1 => (text.replace("to: ", "to: nowhere-"), format!("meshgate.yaml:{}:", line("to: "))),
        2 => (format!("{text}colour: red\n"), format!("meshgate.yaml:{}:1", text.lines().count() + 1)),
        _ => (text[..text.len() / 2].to_owned(), "meshgate.yaml:".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_and_none_sees_a_mix() {
    let (even, odd) = (Backend::echo("even").await, Backend::echo("odd").await);
    let mut setup = Meshgate::chain(&chain(1)).without_default_cluster().workers(2);
    setup = setup.filter("first", &stamp(1), "").cluster("even", &[&even]).cluster("odd", &[&odd]);
    // Both names stand for the same file.
    setup = setup.named_module("last", "./first.wasm");
    let gate = setup.start().await;

    // The pairs of versions that ever were complete; an answer that shows another pair is a mix.
    let complete = Arc::new(Mutex::new(vec![(1, 1)]));
    let shown_so_far = Arc::new(Mutex::new(HashSet::new()));
    let (known, seen) = (Arc::clone(&complete), Arc::clone(&shown_so_far));
    let judge = move |reply: &Reply| {
        let shown = versions(reply)?;
        seen.lock().unwrap().insert(shown);
        let known = known.lock().unwrap();
        if known.contains(&shown) { Ok(()) } else { Err(format!("{shown:?} never was a configuration")) }
    };
    let load = Load::start(gate.address(), CONNECTIONS, || Ask::get("/"), judge);
    load.wait_for_more(1_000).await;

    let (mut yaml, mut module) = (1, 1);
    let mut memory = Vec::new();
    for reload in 0..RELOADS {
        let before = gate.reload().await;
        let current = gate.setup().clone().with_chain(&chain(yaml));
        match reload % 4 {
            0 => {
                let (text, place) = spoiled(&current, reload / 4);
                gate.replace("meshgate.yaml", text);
                let errors = gate.refused().await;
                assert!(errors.contains(&place), "{place} is not in: {errors}");
            }
            1 => {
                yaml += 1;
                complete.lock().unwrap().push((yaml, module));
                gate.replace("meshgate.yaml", current.with_chain(&chain(yaml)).yaml());
                gate.reloaded(&before).await;
            }
            2 => {
                let good = stamp(1);
                // Cut off, another ABI's marker, or not wasm at all.
                let bad = match reload / 4 % 3 {
                    0 => good[..good.len() - 10].to_vec(),
                    1 => b"\0asm\x01\0\0\0".to_vec(),
                    _ => b"#!/bin/sh\n".to_vec(),
                };
                gate.edit("first.wasm", bad);
                let errors = gate.refused().await;
                assert!(errors.contains("meshgate.yaml:") && errors.contains("first.wasm"), "{errors}");
            }
            _ => {
                module += 1;
                complete.lock().unwrap().push((yaml, module));
                let content = vec![0; 1000 + reload];
                let bytes = with_custom_section(&stamp(u32::try_from(module).unwrap()), "padding", &content);
                gate.edit("first.wasm", bytes);
                gate.reloaded(&before).await;
            }
        }
        assert_eq!(gate.reload().await.errors.is_some(), reload % 2 == 0);
        // One answer more than can have been under way: at least one request began on what runs now.
        load.wait_for_more(CONNECTIONS as u64 + 1).await;
        memory.push(gate.memory().0);
    }
    // What runs now is the last version, and only that.
    let last = versions(&gate.get("/").await).unwrap();
    assert_eq!(last, (yaml, module));
    let tally = load.stop().await;
    let requests = tally.all_good();
    assert!(requests >= (CONNECTIONS * RELOADS) as u64);
    assert_eq!(
        shown_so_far.lock().unwrap().len(),
        complete.lock().unwrap().len(),
        "every good version served"
    );

    let (first, second) = (median(&memory[RELOADS / 4..RELOADS / 2]), median(&memory[RELOADS * 3 / 4..]));
    println!(
        "{requests} requests over {RELOADS} reloads; memory at the second quarter {first}, at the last {second}"
    );
    assert!(second < first + GROWTH, "memory grew from {first} to {second} bytes: {memory:?}");
    gate.stop().await;
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
