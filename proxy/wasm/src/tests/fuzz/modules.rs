//! Modules whose bytes anybody wrote: each is refused, or runs within its limits.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{cases, changed, replay};
use crate::tests::world::*;
use crate::{GrpcStatus, Module, PluginSpec, StreamContext, VmError, manifest_section};

const TARGET: &str = "modules";

type Callback = fn(&StreamContext) -> Result<(), VmError>;

fn run(bytes: &[u8]) {
    let manifest = manifest_section(bytes);
    match engine().compile("fuzz", bytes) {
        Ok(module) => {
            assert_eq!(manifest.ok().flatten().as_deref(), module.manifest());
            let _ = exercise(module);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Runs every callback once, and tells how many went well. A guest may fail as it likes; the host may not.
pub(super) fn exercise(module: Module) -> usize {
    let world = World::new();
    let mut spec = PluginSpec::new("fuzz", module, "{}");
    spec.limits.memory = 2 << 20;
    spec.limits.time = Duration::from_millis(2);
    spec.limits.start_time = Duration::from_millis(2);
    let exchange = world.exchange();
    exchange.http().borrow_mut().response = Some(response(200));
    let mut good = 0;
    if let Ok(plugin) = world.vms.plugin(Arc::new(spec)) {
        let callbacks: [Callback; 7] = [
            |stream| stream.on_request_headers(false).map(drop),
            |stream| stream.on_request_body(true).map(drop),
            |stream| stream.on_request_trailers().map(drop),
            |stream| stream.on_response_headers(false).map(drop),
            |stream| stream.on_response_body(true).map(drop),
            |stream| stream.on_response_trailers().map(drop),
            |stream| stream.on_foreign_function(1, "".into()),
        ];
        for callback in callbacks {
            // A stream of its own for each, as the one before may have failed.
            let Ok(stream) = plugin.stream(exchange.clone(), 0) else { break };
            stream.request_body().push("some body".into());
            stream.response_body().push("another body".into());
            good += usize::from(callback(&stream).is_ok());
        }
        let callbacks: [Callback; 3] = [
            |stream| stream.on_new_connection().map(drop),
            |stream| stream.on_downstream_data(true).map(drop),
            |stream| stream.on_upstream_data(true).map(drop),
        ];
        for callback in callbacks {
            let Ok(stream) = plugin.stream(world.connection(), 0) else { break };
            stream.downstream_data().push("some data".into());
            good += usize::from(callback(&stream).is_ok());
        }
        for (_, reply) in world.host.calls.take() {
            reply.deliver(Ok(call_response(200, "x")));
        }
        for (_, events) in world.host.grpc.take() {
            events.message("a message".into());
            events.close(GrpcStatus::new(0, ""));
        }
        for (handle, _) in world.host.ticks.take() {
            handle.tick();
        }
    }
    for event in world.take() {
        if let Event::Failed(cause, text) = event {
            assert_ne!(cause, "host", "{text}");
        }
    }
    good
}

#[test]
fn stored_inputs() {
    replay(TARGET, run);
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn changed_inputs(bytes in changed(TARGET)) {
        run(&bytes);
    }
}
