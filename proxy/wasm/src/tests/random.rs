//! Any hostcall with any arguments, in any phase: the host never panics, and answers what guests know.

use proptest::prelude::*;

use super::puppet::{Allocator, HOSTCALLS, SCRATCH};
use super::world::*;
use crate::pairs;

/// Statuses of the ABI that the Rust SDK's `Status` has, and those it gets only for its own bad memory.
const KNOWN: [u32; 9] = [0, 1, 2, 3, 4, 6, 7, 8, 10];

fn argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..12,
        4 => u64::from(SCRATCH)..u64::from(SCRATCH) + 256,
        2 => 0u64..140_000,
        1 => Just(u64::from(OUT)),
        1 => 131_060u64..131_080,
        1 => (u64::from(u32::MAX) - 8)..=u64::from(u32::MAX),
        1 => any::<u64>(),
    ]
}

fn hostcall() -> impl Strategy<Value = Step> {
    let allocator = prop_oneof![
        8 => Just(Allocator::Sound),
        1 => Just(Allocator::Null),
        1 => Just(Allocator::OutOfBounds),
        1 => Just(Allocator::Logs),
    ];
    (0..HOSTCALLS.len(), prop::collection::vec(argument(), 12), allocator).prop_map(
        |(index, arguments, allocator)| {
            let (name, parameters) = HOSTCALLS[index];
            Step::Call(name, arguments[..parameters.len()].to_vec(), allocator)
        },
    )
}

/// Memory that often looks like what hostcalls want.
fn memory() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        Just(b"known".to_vec()),
        Just(b":path".to_vec()),
        Just(b"x-a".to_vec()),
        Just(b"request\0path".to_vec()),
        Just(pairs::encode(
            || [(&b":path"[..], &b"/"[..]), (b":method", b"GET"), (b":authority", b"a")].into_iter()
        )),
        prop::collection::vec(any::<u8>(), 0..64),
    ];
    prop::collection::vec(text, 1..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_hostcall_in_any_phase(memory in memory(), calls in prop::collection::vec(hostcall(), 1..12)) {
        let world = World::new();
        let plugin = world.plugin();
        let exchange = world.exchange();
        exchange.http().borrow_mut().response = Some(response(200));
        let steps = [vec![Step::Write(SCRATCH, memory)], calls].concat();
        for callback in ["proxy_on_configure", "proxy_on_request_headers", "proxy_on_request_body", "proxy_on_response_headers", "proxy_on_log", "proxy_on_http_call_response", "proxy_on_tick"] {
            world.script(callback, steps.clone());
        }
        let one = plugin.stream(exchange.clone(), 0);
        if let Ok(stream) = one {
            stream.request_body().push("some body".into());
            let outcomes = [
                stream.on_request_headers(false).map(drop),
                stream.on_request_body(true).map(drop),
                stream.on_response_headers(true).map(drop),
            ];
            for outcome in outcomes.into_iter().filter_map(Result::err) {
                prop_assert_ne!(outcome.cause(), "host", "{}", outcome);
            }
        }
        for (_, reply) in world.host.calls.take() {
            reply.deliver(Ok(call_response(200, "x")));
        }
        for (handle, _) in world.host.ticks.take() {
            handle.tick();
        }
        drop(plugin);
        for event in world.take() {
            match event {
                Event::Failed(cause, text) => prop_assert_ne!(cause, "host", "{}", text),
                Event::Status(status) => {
                    let wasi = [8, 21, 28, 44, 52, 54, 58];
                    prop_assert!(KNOWN.contains(&status) || wasi.contains(&status), "{}", status);
                }
                _ => {}
            }
        }
    }
}
