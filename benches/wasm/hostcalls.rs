//! What each hostcall costs, allocation in the guest included where it returns bytes.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Bencher, Criterion};
use meshgate_benches::{CALLS, Guest, Surroundings, exchange};

/// One hostcall with its arguments.
struct Case {
    name: &'static str,
    function: &'static str,
    parameters: &'static str,
    arguments: &'static str,
    memory: &'static [u8],
    status: u32,
}

/// Most have strings at address 16; 0, 4 and 8 take answers. 32768 (21 bytes) is a name in use.
const CASES: &[Case] = &[
    Case {
        name: "get_current_time_nanoseconds",
        function: "proxy_get_current_time_nanoseconds",
        parameters: "i32",
        arguments: "(i32.const 0)",
        memory: b"",
        status: 0,
    },
    Case {
        name: "log, below the level",
        function: "proxy_log",
        parameters: "i32 i32 i32",
        arguments: "(i32.const 0) (i32.const 16) (i32.const 40)",
        memory: b"a line of forty bytes, as logs have many",
        status: 0,
    },
    Case {
        name: "log, 40 bytes",
        function: "proxy_log",
        parameters: "i32 i32 i32",
        arguments: "(i32.const 4) (i32.const 16) (i32.const 40)",
        memory: b"a line of forty bytes, as logs have many",
        status: 0,
    },
    Case {
        name: "get_header_map_value",
        function: "proxy_get_header_map_value",
        parameters: "i32 i32 i32 i32 i32",
        arguments: "(i32.const 0) (i32.const 16) (i32.const 12) (i32.const 0) (i32.const 4)",
        memory: b"x-request-id",
        status: 0,
    },
    Case {
        name: "get_header_map_value, :path",
        function: "proxy_get_header_map_value",
        parameters: "i32 i32 i32 i32 i32",
        arguments: "(i32.const 0) (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4)",
        memory: b":path",
        status: 0,
    },
    Case {
        name: "get_header_map_value, not there",
        function: "proxy_get_header_map_value",
        parameters: "i32 i32 i32 i32 i32",
        arguments: "(i32.const 0) (i32.const 16) (i32.const 9) (i32.const 0) (i32.const 4)",
        memory: b"x-missing",
        status: 1,
    },
    Case {
        name: "replace_header_map_value",
        function: "proxy_replace_header_map_value",
        parameters: "i32 i32 i32 i32 i32",
        arguments: "(i32.const 0) (i32.const 16) (i32.const 7) (i32.const 23) (i32.const 5)",
        memory: b"x-benchvalue",
        status: 0,
    },
    Case {
        name: "get_header_map_pairs, 12 pairs",
        function: "proxy_get_header_map_pairs",
        parameters: "i32 i32 i32",
        arguments: "(i32.const 0) (i32.const 0) (i32.const 4)",
        memory: b"",
        status: 0,
    },
    Case {
        name: "set_header_map_pairs, 2 pairs",
        function: "proxy_set_header_map_pairs",
        parameters: "i32 i32 i32",
        arguments: "(i32.const 2) (i32.const 16) (i32.const 46)",
        memory: b"\x02\0\0\0\x07\0\0\0\x03\0\0\0\x08\0\0\0\x04\0\0\0:status\x00200\0x-second\0two!\0",
        status: 0,
    },
    Case {
        name: "get_property, request.path",
        function: "proxy_get_property",
        parameters: "i32 i32 i32 i32",
        arguments: "(i32.const 16) (i32.const 12) (i32.const 0) (i32.const 4)",
        memory: b"request\0path",
        status: 0,
    },
    Case {
        name: "get_property, response.code",
        function: "proxy_get_property",
        parameters: "i32 i32 i32 i32",
        arguments: "(i32.const 16) (i32.const 13) (i32.const 0) (i32.const 4)",
        memory: b"response\0code",
        status: 0,
    },
    Case {
        name: "set_property",
        function: "proxy_set_property",
        parameters: "i32 i32 i32 i32",
        arguments: "(i32.const 16) (i32.const 8) (i32.const 24) (i32.const 5)",
        memory: b"my\0bench\x01\x02\x03\x04\x05",
        status: 0,
    },
    Case {
        name: "get_shared_data",
        function: "proxy_get_shared_data",
        parameters: "i32 i32 i32 i32 i32",
        arguments: "(i32.const 32768) (i32.const 21) (i32.const 0) (i32.const 4) (i32.const 8)",
        memory: b"",
        status: 0,
    },
    Case {
        name: "set_shared_data",
        function: "proxy_set_shared_data",
        parameters: "i32 i32 i32 i32 i32",
        arguments: "(i32.const 32768) (i32.const 21) (i32.const 32768) (i32.const 21) (i32.const 0)",
        memory: b"",
        status: 0,
    },
    Case {
        name: "increment_metric",
        function: "proxy_increment_metric",
        parameters: "i32 i64",
        arguments: "(i32.load (i32.const 32800)) (i64.const 1)",
        memory: b"",
        status: 0,
    },
    Case {
        name: "call_foreign_function, unknown",
        function: "proxy_call_foreign_function",
        parameters: "i32 i32 i32 i32 i32 i32",
        arguments: "(i32.const 32768) (i32.const 21) (i32.const 16) (i32.const 1) (i32.const 0) (i32.const 4)",
        memory: b"x",
        status: 1,
    },
];

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hostcall");
    for case in CASES {
        let guest = Guest {
            function: case.function,
            parameters: case.parameters,
            arguments: case.arguments.into(),
            memory: case.memory.into(),
            status: case.status,
            callback: "proxy_on_request_headers",
        };
        group.bench_function(case.name, |bench| on_head(bench, &guest));
    }
    for (name, start, length) in [("1 KiB of 64 KiB", 30_000, 1024), ("64 KiB", 0, 65_536)] {
        let guest = Guest {
            function: "proxy_get_buffer_bytes",
            parameters: "i32 i32 i32 i32 i32",
            arguments: format!(
                "(i32.const 0) (i32.const {start}) (i32.const {length}) (i32.const 0) (i32.const 4)"
            ),
            memory: Vec::new(),
            status: 0,
            callback: "proxy_on_request_body",
        };
        group.bench_function(format!("get_buffer_bytes, {name}"), |bench| on_body(bench, &guest));
    }
    let guest = Guest {
        function: "proxy_set_buffer_bytes",
        parameters: "i32 i32 i32 i32 i32",
        arguments: "(i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 1024) (i32.const 1024)".into(),
        memory: Vec::new(),
        status: 0,
        callback: "proxy_on_request_body",
    };
    group.bench_function("set_buffer_bytes, 1 KiB of 64 KiB", |bench| on_body(bench, &guest));
    group.finish();
}

/// Time of so many hostcalls, made in the callback for the request's head.
fn on_head(bench: &mut Bencher<'_>, guest: &Guest) {
    let surroundings = Surroundings::new();
    let module = surroundings.module(&guest.module());
    let plugin = surroundings.plugin("bench", &module, "");
    let exchange = exchange();
    bench.iter_custom(|calls| {
        let context = plugin.stream(Rc::clone(&exchange), 0).expect("the context is created");
        time(calls, || {
            context.on_request_headers(true).expect("each hostcall answers as it must");
        })
    });
}

/// The same in the callback for the request's body, of 64 KiB in chunks as a socket gives them.
fn on_body(bench: &mut Bencher<'_>, guest: &Guest) {
    let surroundings = Surroundings::new();
    let module = surroundings.module(&guest.module());
    let plugin = surroundings.plugin("bench", &module, "");
    let exchange = exchange();
    let chunk = Bytes::from(vec![b'x'; 16 * 1024]);
    bench.iter_custom(|calls| {
        let context = plugin.stream(Rc::clone(&exchange), 0).expect("the context is created");
        context.on_request_headers(false).expect("not implemented by the guest");
        for _ in 0..4 {
            context.request_body().push(chunk.clone());
        }
        time(calls, || {
            context.on_request_body(false).expect("each hostcall answers as it must");
        })
    });
}

/// Runs the callback often enough for `calls` hostcalls and answers the time of exactly so many.
fn time(calls: u64, mut callback: impl FnMut()) -> Duration {
    let callbacks = calls.div_ceil(u64::from(CALLS));
    let begin = Instant::now();
    for _ in 0..callbacks {
        callback();
    }
    let made = callbacks * u64::from(CALLS);
    begin.elapsed().mul_f64(calls as f64 / made as f64)
}
