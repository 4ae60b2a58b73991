//! Any function the host links, with any arguments, on memory of any contents, in any phase, with an allocator of any
//! kind: the host never panics, answers what guests know, and an answer other than OK means that nothing happened.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::{cases, changed, replay};
use crate::hostcalls::Functions;
use crate::tests::puppet::CALLBACKS;
use crate::tests::world::*;
use crate::{GrpcStatus, Module, PluginSpec, pairs};

const TARGET: &str = "hostcalls";

/// Statuses that guests know: those that the Rust SDK's `Status` has, and the one it gets only for its own bad memory.
const STATUSES: [u32; 9] = [0, 1, 2, 3, 4, 6, 7, 8, 10];
/// WASI's error numbers that are answered.
const ERRNOS: [u32; 8] = [0, 8, 20, 21, 28, 44, 52, 58];

/// Where the input lies in the guest's memory: [`IMAGE`] bytes to point at, then calls of [`CALL`] bytes each.
const INPUT: u32 = 65_536;
const IMAGE: usize = 512;
/// What stands for the function (4 bytes: [`name_hash`], so that stored inputs outlive new functions), the allocator's
/// kind (1), a callback's result (1), 2 for nothing, 12 arguments of 8.
const CALL: usize = 8 + 12 * 8;
/// In place of a function: the end of a callback.
const END: u32 = 0;
/// Kinds of allocators.
const ALLOCATORS: u8 = 8;

/// The functions, in order: module, name, signature.
pub(super) fn functions() -> &'static [(String, String, String)] {
    static FUNCTIONS: LazyLock<Vec<(String, String, String)>> = LazyLock::new(|| {
        let mut all = Functions::link(engine().wasmtime()).unwrap().all();
        all.sort();
        all
    });
    &FUNCTIONS
}

pub(super) fn wat_types(letters: &str) -> String {
    let name = |letter| match letter {
        'i' => " i32",
        'I' => " i64",
        'F' => " f64",
        other => panic!("a type {other}"),
    };
    letters.chars().map(name).collect()
}

/// The imports of everything, one line each.
pub(super) fn imports() -> String {
    let mut out = String::new();
    for (index, (module, name, signature)) in functions().iter().enumerate() {
        let (parameters, results) = signature.split_once('>').unwrap();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "(import \"{module}\" \"{name}\" (func $h{index} (param{}) (result{})))",
            wat_types(parameters),
            wat_types(results)
        );
    }
    out
}

/// FNV-1a of a function's name.
fn name_hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The input with numbers for the guest, counted from 1, where the functions' hashes were.
fn resolved(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let calls = bytes.get_mut(IMAGE..).unwrap_or_default();
    for call in calls.chunks_exact_mut(CALL) {
        let hash = u32::from_le_bytes([call[0], call[1], call[2], call[3]]);
        let known = functions().iter().position(|(_, name, _)| name_hash(name) == hash);
        let number = match hash {
            END => 0,
            _ => 1 + known.unwrap_or(hash as usize % functions().len()) as u32,
        };
        call[..4].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn number_of(name: &str) -> usize {
    functions().iter().position(|(_, known, _)| known == name).unwrap()
}

/// A guest that makes the calls that its configuration lists, one callback after the other.
fn guest() -> &'static Module {
    static MODULE: LazyLock<Module> = LazyLock::new(|| {
        let mut text = format!("(module\n{}{BODY}", imports())
            .replace("$read_buffer", &format!("$h{}", number_of("proxy_get_buffer_bytes")))
            .replace("$foreign", &format!("$h{}", number_of("proxy_call_foreign_function")))
            .replace("$log", &format!("$h{}", number_of("proxy_log")))
            .replace("$done", &format!("$h{}", number_of("proxy_done")));
        text += "(func $call (param $index i32) (param $at i32) (result i32)\n";
        for (index, (_, _, signature)) in functions().iter().enumerate() {
            let (parameters, results) = signature.split_once('>').unwrap();
            let _ = write!(text, "(if (i32.eq (local.get $index) (i32.const {index})) (then (call $h{index}");
            for (position, letter) in parameters.chars().enumerate() {
                let ty = wat_types(&letter.to_string());
                let _ = write!(text, " ({}.load offset={} (local.get $at))", ty.trim(), 8 * (position + 1));
            }
            text += match results {
                "i" => ") return))\n",
                "" => ") (return (i32.const 0))))\n",
                _ => ") drop (return (i32.const 0))))\n",
            };
        }
        text += "(i32.const 0))\n";
        for (name, parameters, result) in CALLBACKS {
            let parameters = " i32".repeat(*parameters);
            let result = if result.is_some() { "(result i32)" } else { "" };
            let end = if result.is_empty() { "drop" } else { "" };
            let _ =
                writeln!(text, "(func (export \"{name}\") (param{parameters}) {result} (call $run) {end})");
        }
        compile(&(text + ")"))
    });
    &MODULE
}

/// At 16, 20: address and size of the input; at 24: a status, the number of the function that answered it.
const BODY: &str = r#"
(memory (export "memory") 2)
(func (export "proxy_abi_version_0_2_1"))
(data (i32.const 32) "report")
(global $heap (mut i32) (i32.const 65536))
(global $allocator (mut i32) (i32.const 0))
(global $at (mut i32) (i32.const 0))
(global $end (mut i32) (i32.const 0))

(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (local $given i32)
  (if (i32.eq (global.get $allocator) (i32.const 1)) (then (return (i32.const 0))))
  (if (i32.eq (global.get $allocator) (i32.const 2))
    (then (return (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 1)))))
  (if (i32.eq (global.get $allocator) (i32.const 3)) (then (return (i32.const -8))))
  (if (i32.eq (global.get $allocator) (i32.const 4))
    (then (drop (call $log (i32.const 4) (i32.const 32) (i32.const 6)))))
  (if (i32.eq (global.get $allocator) (i32.const 5)) (then (drop (call $done))))
  (if (i32.eq (global.get $allocator) (i32.const 6)) (then (drop (memory.grow (i32.const 1)))))
  ;; Where the answer is told about.
  (if (i32.eq (global.get $allocator) (i32.const 7)) (then (return (i32.const 65536))))
  (local.set $given (global.get $heap))
  (global.set $heap (i32.add (global.get $heap) (local.get $size)))
  (block $enough
    (loop $more
      (br_if $enough (i32.le_u (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
      (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))
      (br $more)))
  (local.get $given))

(func $fetch
  (drop (call $read_buffer (i32.const 7) (i32.const 0) (i32.const -1) (i32.const 16) (i32.const 20)))
  (global.set $at (i32.add (i32.load (i32.const 16)) (i32.const 512)))
  (global.set $end (i32.add (i32.load (i32.const 16)) (i32.load (i32.const 20)))))

(func $run (result i32)
  (local $call i32) (local $number i32) (local $status i32)
  ;; Nothing can be fetched while the module initialises.
  (if (i32.eqz (global.get $end)) (then (call $fetch)))
  (loop $next
    (local.set $call (global.get $at))
    (if (i32.gt_u (i32.add (local.get $call) (i32.const 104)) (global.get $end)) (then (return (i32.const 1))))
    (global.set $at (i32.add (local.get $call) (i32.const 104)))
    (if (i32.eqz (i32.load (local.get $call)))
      (then (return (i32.load8_u offset=5 (local.get $call)))))
    (global.set $allocator (i32.load8_u offset=4 (local.get $call)))
    (local.set $number (i32.sub (i32.load (local.get $call)) (i32.const 1)))
    (local.set $status (call $call (local.get $number) (local.get $call)))
    (i32.store (i32.const 24) (local.get $status))
    (i32.store (i32.const 28) (local.get $number))
    (global.set $allocator (i32.const 0))
    (drop (call $foreign (i32.const 32) (i32.const 6) (i32.const 24) (i32.const 8) (i32.const 0) (i32.const 0)))
    (br $next))
  (unreachable))
"#;

thread_local! {
    /// The functions that guests of this thread called, and whether that went well.
    static SEEN: RefCell<BTreeSet<(&'static str, bool)>> = const { RefCell::new(BTreeSet::new()) };
}

fn run(bytes: &[u8]) {
    let world = Rc::new(World::new());
    let exchange = world.exchange();
    exchange.http().borrow_mut().response = Some(response(200));
    let before = Rc::new(RefCell::new(String::new()));
    let (watched, compared) = (Rc::downgrade(&world), Rc::clone(&before));
    let http = Rc::downgrade(&exchange);
    world.host.watch(move |argument| {
        let Some(world) = watched.upgrade() else { return };
        let http = http.upgrade().map(|exchange| format!("{:?}", exchange.http().borrow()));
        let now = format!("{http:?} {}", world.effects());
        let earlier = compared.replace(now.clone());
        // A guest that overwrites its own words, or calls this by chance, may say anything.
        let Ok([status, number]) = <[u8; 8]>::try_from(argument).map(words) else { return };
        let Some((module, name, _)) = functions().get(number as usize) else { return };
        if name == "pthread_equal" {
            return;
        }
        SEEN.with_borrow_mut(|seen| seen.insert((name, status == 0)));
        let known = if module == "env" { &STATUSES[..] } else { &ERRNOS[..] };
        assert!(known.contains(&status), "{name} answers {status}");
        let nothing_happened = earlier.is_empty() || now == earlier;
        assert!(status == 0 || nothing_happened, "{name} answers {status}\nbefore: {earlier}\nafter: {now}");
    });
    let mut spec = PluginSpec::new("fuzz", guest().clone(), resolved(bytes));
    spec.limits.memory = 4 << 20;
    if let Ok(plugin) = world.vms.plugin(Arc::new(spec)) {
        if let Ok(stream) = plugin.stream(exchange.clone(), 0) {
            stream.request_body().push("some body".into());
            stream.response_body().push("another body".into());
            let _ = stream.on_request_headers(false);
            let _ = stream.on_request_body(true);
            let _ = stream.on_response_headers(false);
            let _ = stream.on_response_body(true);
            let _ = stream.on_foreign_function(1, "an argument".into());
        }
        if let Ok(stream) = plugin.stream(world.connection(), 0) {
            let _ = stream.on_new_connection();
            stream.downstream_data().push("some data".into());
            let _ = stream.on_downstream_data(true);
        }
        // What is taken from the world here is no hostcall's work.
        let (calls, grpc, ticks) = (world.host.calls.take(), world.host.grpc.take(), world.host.ticks.take());
        before.borrow_mut().clear();
        for (_, reply) in calls {
            reply.deliver(Ok(call_response(200, "x")));
        }
        for (_, events) in grpc {
            events.message("a message".into());
            events.close(GrpcStatus::new(0, ""));
        }
        for (handle, _) in ticks {
            handle.tick();
        }
    }
    world.host.watch(|_| {});
    for event in world.take() {
        if let Event::Failed(cause, text) = event {
            assert_ne!(cause, "host", "{text}");
        }
    }
}

fn words(bytes: [u8; 8]) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = bytes;
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// An argument that is often an address, a length or a small number.
fn argument() -> impl Strategy<Value = u64> {
    let input = u64::from(INPUT);
    prop_oneof![
        6 => 0u64..12,
        6 => (0..IMAGE as u64 / 32).prop_map(move |part| input + 32 * part),
        3 => prop::sample::select(vec![1u64, 5, 7, 10, 32, 69, 512]),
        2 => input..input + 1_024,
        1 => 131_060u64..131_080,
        1 => (u64::from(u32::MAX) - 8)..=u64::from(u32::MAX),
        1 => any::<u64>(),
    ]
}

/// 32 bytes that often look like what hostcalls want, cut or filled up with zeros.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let head = || [(&b":path"[..], &b"/"[..]), (b":method", b"GET")].into_iter();
    let texts: Vec<Vec<u8>> = vec![
        b"known".to_vec(),
        b":path".to_vec(),
        b"x-a".to_vec(),
        b"x-evil\r\n".to_vec(),
        b"request\0path".to_vec(),
        b"a\0property".to_vec(),
        b"content-length".to_vec(),
        pairs::encode(head)[..32].to_vec(),
        pairs::encode(|| [(&b"x-b"[..], &b"2"[..])].into_iter()),
        vec![0; 32],
    ];
    let text = prop_oneof![
        6 => prop::sample::select(texts),
        1 => prop::collection::vec(any::<u8>(), 32),
    ];
    text.prop_map(|mut text| {
        text.resize(32, 0);
        text
    })
}

fn call() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<u32> = functions().iter().map(|(_, name, _)| name_hash(name)).collect();
    let function = prop_oneof![6 => prop::sample::select(names), 2 => Just(END)];
    let allocator = prop_oneof![6 => Just(0), 4 => 0..ALLOCATORS];
    (function, allocator, 0..4u8, prop::collection::vec(argument(), 12)).prop_map(
        |(function, allocator, result, arguments)| {
            let mut call = function.to_le_bytes().to_vec();
            call.extend([allocator, result, 0, 0]);
            arguments.iter().for_each(|argument| call.extend(argument.to_le_bytes()));
            call
        },
    )
}

#[test]
fn stored_inputs() {
    replay(TARGET, run);
    // Or the target would prove little: what the inputs are about does happen.
    let seen = SEEN.take();
    for name in ["proxy_dequeue_shared_queue", "proxy_set_header_map_pairs", "proxy_http_call", "random_get"]
    {
        assert!(seen.contains(&(name, false)), "{name} never fails: {seen:?}");
    }
    for name in
        ["proxy_dequeue_shared_queue", "proxy_add_header_map_value", "proxy_set_shared_data", "fd_write"]
    {
        assert!(seen.contains(&(name, true)), "{name} never goes well: {seen:?}");
    }
}

#[test]
fn made_inputs_reach_most_functions() {
    let mut random = TestRunner::deterministic();
    let calls = prop::collection::vec(call(), 24);
    let image = prop::collection::vec(part(), IMAGE / 32);
    for _ in 0..100 {
        let image = image.new_tree(&mut random).unwrap().current().concat();
        let calls = calls.new_tree(&mut random).unwrap().current().concat();
        run(&[image, calls].concat());
    }
    let seen = SEEN.take();
    let reached: BTreeSet<_> = seen.iter().map(|(name, _)| name).collect();
    let all: BTreeSet<_> = functions().iter().map(|(_, name, _)| name).collect();
    assert!(reached.len() * 10 > all.len() * 8, "{} of {} functions", reached.len(), all.len());
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn changed_inputs(bytes in changed(TARGET)) {
        run(&bytes);
    }

    #[test]
    fn any_calls(
        image in prop::collection::vec(part(), IMAGE / 32),
        calls in prop::collection::vec(call(), 1..24),
    ) {
        run(&[image.concat(), calls.concat()].concat());
    }
}
