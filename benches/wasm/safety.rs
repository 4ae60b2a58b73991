//! What safety costs: an instance for each exchange instead of a shared one, and how long a guest that loops keeps its
//! worker before it is stopped.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use meshgate_benches::{ABI, Surroundings, exchange, no_op};
use meshgate_wasm::{Exchange, Isolation, Plugin, StreamContext};

/// The standard filter, if `cargo xtask filters` has been run.
const HEADERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/filters/headers.wasm");

pub(crate) fn measure(criterion: &mut Criterion) {
    isolation(criterion);
    deadline(criterion);
}

/// A whole exchange, heads only: the context in the shared VM, or in an instance of its own with its root context
/// created and configured.
fn isolation(criterion: &mut Criterion) {
    let surroundings = Surroundings::new();
    let mut guests = vec![("no-op", no_op(false), "")];
    if let Ok(bytes) = std::fs::read(Path::new(HEADERS)) {
        guests.push(("headers (Rust SDK)", bytes, r#"{"response":{"set":{"x-bench":"on"}}}"#));
    }
    let mut group = criterion.benchmark_group("isolation");
    for (name, bytes, configuration) in guests {
        let module = surroundings.module(&bytes);
        for isolation in [Isolation::Shared, Isolation::Exchange] {
            let mut spec = (*Surroundings::spec(name, &module, configuration)).clone();
            spec.isolation = isolation;
            let plugin = surroundings.vms.plugin(Arc::new(spec)).expect("the plugin starts");
            let exchange = exchange();
            group.bench_function(format!("{name}, {isolation:?}"), |bench| {
                bench.iter(|| run(&plugin, &exchange));
            });
        }
    }
    group.finish();
}

fn run(plugin: &Rc<Plugin>, exchange: &Rc<dyn Exchange>) {
    let context = plugin.stream(Rc::clone(exchange), 0).expect("the context is created");
    context.on_request_headers(true).expect("the callback returns");
    context.on_response_headers(true).expect("the callback returns");
    StreamContext::finish(context);
}

/// From the entry into a guest that loops until the host has it stopped and a new VM in its place.
fn deadline(criterion: &mut Criterion) {
    let surroundings = Surroundings::new();
    let looping = format!(
        r#"(module {ABI} (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (loop $again (br $again)) unreachable))"#
    );
    let module = surroundings.module(&wat::parse_str(looping).expect("it is WebAssembly"));
    let mut group = criterion.benchmark_group("deadline");
    group.sample_size(10);
    for limit in [1, 10, 20] {
        let mut spec = (*Surroundings::spec(&format!("loop-{limit}"), &module, "")).clone();
        spec.limits.time = Duration::from_millis(limit);
        spec.limits.crashes = u32::MAX;
        spec.limits.cpu_percent = 100;
        let plugin = surroundings.vms.plugin(Arc::new(spec)).expect("the plugin starts");
        let exchange = exchange();
        group.bench_function(format!("a loop of {limit} ms"), |bench| {
            bench.iter(|| {
                let context = plugin.stream(Rc::clone(&exchange), 0).expect("the context is created");
                let stopped = context.on_request_headers(true).expect_err("it never returns");
                assert_eq!(stopped.cause(), "deadline");
            });
        });
    }
    group.finish();
}
