//! What happens outside of exchanges: a fresh VM, a compiled module, a module from the cache.

use criterion::Criterion;
use meshgate_benches::{Surroundings, no_op};
use meshgate_wasm::{Engine, EngineOptions};

/// The standard filter, if `cargo xtask filters` has been run.
const HEADERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/filters/headers.wasm");

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut modules = vec![("no-op", no_op(false), "")];
    if let Ok(bytes) = std::fs::read(HEADERS) {
        modules.push(("headers", bytes, "{}"));
    }
    let mut group = criterion.benchmark_group("module");
    group.sample_size(10);
    for (name, bytes, configuration) in &modules {
        let surroundings = Surroundings::new();
        let module = surroundings.module(bytes);
        // With its root context created and configured, and all of it ended again.
        group.bench_function(format!("{name}: fresh VM"), |bench| {
            bench.iter(|| surroundings.plugin("bench", &module, configuration));
        });
        group.bench_function(format!("{name}: compile"), |bench| {
            bench.iter(|| surroundings.module(bytes));
        });
        group.bench_function(format!("{name}: from the cache"), |bench| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let cache = Some(directory.path().join("modules"));
            let engine = Engine::new(EngineOptions { cache, ..EngineOptions::default() }).expect("it starts");
            engine.compile(name, bytes).expect("the module compiles");
            bench.iter(|| engine.compile(name, bytes).expect("the module loads"));
        });
    }
    group.finish();
}
