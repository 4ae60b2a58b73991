//! A filter's whole life on an exchange: context create, the callbacks, done, log, delete.

use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use criterion::Criterion;
use meshgate_benches::{Surroundings, exchange, no_op};
use meshgate_wasm::{BodyAction, Exchange, HeadersAction, Plugin, StreamContext};

/// The same filter that does nothing, on the SDK and on `proxy-wasm`, if `cargo xtask filters` has been run.
const NO_OPS: [(&str, &str); 2] = [
    ("on the SDK", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guests/noop.wasm")),
    ("on proxy-wasm", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guests/noop-proxy-wasm.wasm")),
];

/// The standard filter, if `cargo xtask filters` has been run.
const HEADERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/filters/headers.wasm");

pub(crate) fn measure(criterion: &mut Criterion) {
    let surroundings = Surroundings::new();
    let mut group = criterion.benchmark_group("exchange");

    let module = surroundings.module(&no_op(false));
    let plugins: Vec<Rc<Plugin>> =
        (1..=5).map(|place| surroundings.plugin(&format!("no-op-{place}"), &module, "")).collect();
    // The difference between these two, by four, is what one more filter costs.
    for filters in [1, 5] {
        let chain = plugins.get(..filters).expect("there are five");
        let exchange = exchange();
        group.bench_function(format!("{filters} no-op, heads only"), |bench| {
            bench.iter(|| run(chain, &exchange, None));
        });
    }

    let module = surroundings.module(&no_op(true));
    let plugin = [surroundings.plugin("no-op-bodies", &module, "")];
    let (exchange_with_body, body) = (exchange(), Bytes::from(vec![b'x'; 128]));
    group.bench_function("1 no-op, heads and bodies", |bench| {
        bench.iter(|| run(&plugin, &exchange_with_body, Some(&body)));
    });

    for (what, path) in NO_OPS {
        let Ok(bytes) = std::fs::read(Path::new(path)) else { continue };
        let module = surroundings.module(&bytes);
        let plugin = [surroundings.plugin(what, &module, "")];
        let exchange = exchange();
        for (parts, body) in [("heads only", None), ("heads and bodies", Some(&body))] {
            group.bench_function(format!("1 no-op {what}, {parts}"), |bench| {
                bench.iter(|| run(&plugin, &exchange, body));
            });
        }
    }

    if let Ok(bytes) = std::fs::read(Path::new(HEADERS)) {
        let module = surroundings.module(&bytes);
        let configuration = r#"{"response":{"set":{"x-bench":"on"}}}"#;
        let plugin = [surroundings.plugin("headers", &module, configuration)];
        let exchange = exchange();
        run(&plugin, &exchange, None);
        let response = exchange.http().and_then(|http| http.borrow().response.clone()).expect("there is one");
        assert_eq!(response.headers.get_all("x-bench").iter().count(), 1, "the filter did not do its work");
        group.bench_function("1 headers (Rust SDK), sets one field", |bench| {
            bench.iter(|| run(&plugin, &exchange, None));
        });
    }
    group.finish();
}

/// One exchange through a chain, as the proxy runs it: the request down, the response up, then the end.
fn run(chain: &[Rc<Plugin>], exchange: &Rc<dyn Exchange>, body: Option<&Bytes>) {
    let contexts: Vec<StreamContext> =
        (0..).zip(chain).map(|(place, plugin)| begin(plugin, exchange, place, body)).collect();
    for context in contexts.iter().rev() {
        let action = context.on_response_headers(body.is_none()).expect("the callback returns");
        assert!(matches!(action, HeadersAction::Continue));
        if let Some(body) = body {
            context.response_body().push(body.clone());
            let action = context.on_response_body(true).expect("the callback returns");
            assert!(matches!(action, BodyAction::Continue));
            context.response_body().clear();
        }
    }
    contexts.into_iter().for_each(StreamContext::finish);
}

fn begin(
    plugin: &Rc<Plugin>,
    exchange: &Rc<dyn Exchange>,
    place: u32,
    body: Option<&Bytes>,
) -> StreamContext {
    let context = plugin.stream(Rc::clone(exchange), place).expect("the context is created");
    let action = context.on_request_headers(body.is_none()).expect("the callback returns");
    assert!(matches!(action, HeadersAction::Continue));
    if let Some(body) = body {
        context.request_body().push(body.clone());
        let action = context.on_request_body(true).expect("the callback returns");
        assert!(matches!(action, BodyAction::Continue));
        context.request_body().clear();
    }
    context
}
