//! Shared data, queues and metrics through the ABI.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshgate_abi::{KvAdd, KvAnswer, KvGet, KvOperation, KvRemove, KvRequest, KvSet};
use prost::Message;

use super::puppet::{Allocator, UNREACHABLE};
use super::world::*;
use crate::state::thread_time;
use crate::vms::MOST_TURNS;
use crate::*;

fn set(key: &str, value: Option<&str>, version: u32) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (key, length) = scratch.put(key);
    let (value, size) = value.map_or((0, 0), |value| scratch.put(value));
    vec![scratch.step(), call("proxy_set_shared_data", [key, length, value, size, version])]
}

fn get(key: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (key, length) = scratch.put(key);
    vec![
        scratch.step(),
        call("proxy_get_shared_data", [key, length, OUT, OUT + 4, OUT + 8]),
        Step::PeekAt(OUT),
        Step::Peek(OUT + 8, 1),
    ]
}

#[test]
fn data_is_shared_between_workers_and_guarded_by_versions() {
    let shared = Shared::new();
    let writer = World::sharing(shared.clone());
    let reader = World::sharing(shared.clone());
    let _keep = (writer.plugin(), reader.plugin());
    let statuses = writer.run(
        [
            set("k", Some("1"), 0),
            set("k", Some("2"), 9),
            set("k", Some("2"), 1),
            set("gone", Some("x"), 0),
            set("gone", None, 0),
            set("never", None, 0),
            set("empty", Some(""), 0),
            vec![call("proxy_set_shared_data", [OUT, 1, u32::MAX, 2, 0])],
            vec![call("proxy_get_shared_data", [OUT, 1, OUT, OUT + 4, u32::MAX])],
        ]
        .concat(),
    );
    assert_eq!(statuses, [0, 8, 0, 0, 0, 0, 0, 6, 6]);
    assert_eq!(reader.show(get("k")), [b"2", &[2][..]]);
    assert_eq!(reader.run([get("gone"), get("empty"), get("never")].concat()), [1, 0, 1]);
    let mut elsewhere = spec("");
    elsewhere.vm_id = "another".into();
    let plugin = reader.vms.plugin(Arc::new(elsewhere)).unwrap();
    reader.script("proxy_on_request_headers", get("k"));
    reader.take();
    plugin.stream(reader.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    assert_eq!(reader.statuses(), [1], "other VM ids have other data");
}

/// One call of `meshgate.kv`: its status and its answer.
fn kv(key: &str, operation: KvOperation) -> Vec<Step> {
    let request = KvRequest { key: key.as_bytes().to_vec(), operation: Some(operation) };
    foreign("meshgate.kv", &request.encode_to_vec())
}

fn foreign(name: &str, argument: &[u8]) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (n, nn) = scratch.put(name);
    let (a, an) = scratch.put(argument);
    vec![scratch.step(), call("proxy_call_foreign_function", [n, nn, a, an, OUT, OUT + 4]), Step::PeekAt(OUT)]
}

#[test]
fn numbers_are_changed_in_one_step_by_workers_that_share_them() {
    let shared = Shared::new();
    let (one, other) = (World::sharing(shared.clone()), World::sharing(shared.clone()));
    let _keep = (one.plugin(), other.plugin());
    let add = |amount| KvOperation::Add(KvAdd { amount, most: Some(3), ..KvAdd::default() });
    let answer = |world: &World, operation| {
        let bytes = world.show(kv("k", operation)).remove(0);
        KvAnswer::decode(&bytes[..]).unwrap()
    };
    let number = |number, done| KvAnswer { number, done, ..KvAnswer::default() };
    assert_eq!(answer(&one, add(2)), number(2, true));
    assert_eq!(answer(&other, add(2)), number(2, false));
    assert_eq!(answer(&other, add(1)), number(3, true));
    assert_eq!(one.show(get("k")), [&3_i64.to_le_bytes()[..], &[2][..]], "it is shared data like any");
    let setting = |version| KvSet { value: b"text".to_vec(), version, expire_ms: 3_600_000 };
    assert_eq!(answer(&one, KvOperation::Set(setting(9))), KvAnswer::default(), "another version");
    assert!(answer(&one, KvOperation::Set(setting(2))).done);
    let found = answer(&other, KvOperation::Get(KvGet {}));
    assert_eq!((found.done, &found.value[..], found.version), (true, &b"text"[..], 3));
    assert!((3_000_000..=3_600_000).contains(&found.expires_ms), "{found:?}");
    assert!(answer(&other, KvOperation::Remove(KvRemove { version: 0 })).done);
    assert_eq!(answer(&one, KvOperation::Get(KvGet {})), KvAnswer::default());
    let statuses = one.run(
        [
            set("k", Some("text"), 0),
            kv("k", add(1)),
            foreign("meshgate.kv", b"\xff"),
            foreign("meshgate.kv", b"\x0a\x01k"),
        ]
        .concat(),
    );
    assert_eq!(statuses, [0, 2, 2, 2], "no number, no message, no operation");
}

/// What is held at a time, by exchanges that end, and by one whose VM dies under it.
#[test]
fn what_an_exchange_holds_is_given_back_however_it_ends() {
    let world = World::new();
    let plugin = world.plugin();
    let seat = KvAdd { amount: 1, most: Some(2), hold: true, ..KvAdd::default() };
    let seated = || {
        world.script("proxy_on_request_headers", kv("seats", KvOperation::Add(seat)));
        let context = plugin.stream(world.exchange(), 0).unwrap();
        world.take();
        context.on_request_headers(true).unwrap();
        let answers = world.take();
        let answer = answers.iter().find_map(|event| match event {
            Event::Peek(bytes) => KvAnswer::decode(&bytes[..]).ok(),
            _ => None,
        });
        answer.unwrap().done.then_some(context)
    };
    let (first, second) = (seated().unwrap(), seated().unwrap());
    assert!(seated().is_none());
    drop(first);
    let third = seated().unwrap();
    world.script("proxy_on_request_body", vec![Step::Crash(UNREACHABLE)]);
    assert!(second.on_request_body(true).is_err() && third.is_poisoned());
    // Its VM is dead and still there, as the third lasts on; its place is free.
    drop(second);
    let fourth = seated().unwrap();
    assert!(seated().is_none());
    drop((third, fourth));
    assert!(seated().is_some() && seated().is_some());
    let refused = |operation| world.run(kv("seats", KvOperation::Add(operation)));
    assert_eq!(refused(KvAdd { amount: 0, ..seat }), [2]);
    assert_eq!(refused(KvAdd { expire_ms: 1, ..seat }), [2]);
}

#[test]
fn queues_wake_the_worker_that_registered() {
    let shared = Shared::new();
    let consumer = World::sharing(shared.clone());
    let producer = World::sharing(shared.clone());
    let mut scratch = Scratch::default();
    let (name, length) = scratch.put("queue");
    let prepare = scratch.step();
    let register = call("proxy_register_shared_queue", [name, length, OUT]);
    consumer.script("proxy_on_configure", vec![prepare.clone(), register]);
    let plugin = consumer.plugin();
    let (_, woken) = consumer.poll_events();

    let resolve = call("proxy_resolve_shared_queue", [0, 0, name, length, OUT]);
    let unknown = call("proxy_resolve_shared_queue", [0, 0, name, length - 1, OUT]);
    let steps = vec![
        prepare,
        resolve,
        Step::Peek(OUT, 4),
        unknown,
        call("proxy_enqueue_shared_queue", [1, name, length]),
    ];
    assert_eq!(
        producer.run([steps, vec![call("proxy_enqueue_shared_queue", [2, name, 1])]].concat()),
        [0, 1, 0, 1]
    );
    assert!(woken.is_set());
    let dequeue = call("proxy_dequeue_shared_queue", [1, OUT, OUT + 4]);
    consumer.script("proxy_on_queue_ready", vec![dequeue.clone(), Step::PeekAt(OUT), dequeue]);
    consumer.poll_events();
    let expected = [
        Event::Callback("proxy_on_queue_ready", vec![1, 1]),
        Event::Status(0),
        Event::Peek(b"queue".to_vec()),
        Event::Status(7),
    ];
    assert_eq!(consumer.take(), expected);
    assert_eq!(consumer.run(vec![call("proxy_dequeue_shared_queue", [9, OUT, OUT + 4])]), [1]);
    drop(plugin);
}

/// Registers a queue. Tokens are counted from 1.
fn register(name: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (name, length) = scratch.put(name);
    vec![scratch.step(), call("proxy_register_shared_queue", [name, length, OUT])]
}

fn resolve(vm: &str, name: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (vm, vm_length) = scratch.put(vm);
    let (name, length) = scratch.put(name);
    vec![scratch.step(), call("proxy_resolve_shared_queue", [vm, vm_length, name, length, OUT])]
}

/// Puts four bytes in, whatever they are.
fn enqueue(token: u32) -> Step {
    call("proxy_enqueue_shared_queue", [token, OUT, 4])
}

fn dequeue(token: u32) -> Step {
    call("proxy_dequeue_shared_queue", [token, OUT, OUT + 4])
}

/// Runs a worker's task for queues once: the queues that its plugins were told of, and whether the task is to run again.
fn told(world: &World) -> (Vec<u32>, bool) {
    world.take();
    let (again, _) = world.poll_events();
    let queue = |event| match event {
        Event::Callback("proxy_on_queue_ready", parameters) => parameters.last().copied(),
        _ => None,
    };
    (world.take().into_iter().filter_map(queue).collect(), again.is_some())
}

/// The same until there is nothing more to tell.
fn told_of_all(world: &World) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let (some, again) = told(world);
        all.extend(some);
        if !again {
            return all;
        }
    }
}

/// The statuses of the steps in the callback for the head of a new stream of this plugin.
fn statuses(world: &World, plugin: &Rc<Plugin>, steps: Vec<Step>) -> Vec<u32> {
    world.script("proxy_on_request_headers", steps);
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.take();
    stream.on_request_headers(true).unwrap();
    world.statuses()
}

#[test]
fn other_tasks_run_between_queues_that_take_long() {
    let world = World::new();
    // Each time works for longer than all of a turn may, by this thread's own clock.
    world.host.watch(|_| {
        let began = thread_time();
        while thread_time() - began < Duration::from_millis(2) {}
    });
    let steps = [register("one"), register("two"), vec![enqueue(1), enqueue(1), enqueue(1), enqueue(2)]];
    world.script("proxy_on_configure", steps.concat());
    for _ in 0..4 {
        world.script("proxy_on_queue_ready", foreign("report", b""));
    }
    let mut patient = spec("");
    patient.limits.time = Duration::from_secs(60);
    let _plugin = world.vms.plugin(Arc::new(patient)).unwrap();
    let rounds: Vec<_> = std::iter::repeat_with(|| told(&world)).take(3).collect();
    // And the queue with one item does not wait for all of the other's.
    assert_eq!(rounds, [(vec![1], true), (vec![2], true), (vec![1], true)]);
    // For so much longer they have the worker for themselves, also after the last one.
    let rest = world.poll_events().0.unwrap();
    assert!(rest >= Duration::from_millis(19 * 2), "{rest:?}");
    assert_eq!(told(&world), (vec![], false));
}

#[test]
fn other_tasks_run_between_many_items() {
    let world = World::new();
    world.script("proxy_on_configure", [register("queue"), vec![enqueue(1); 3 * MOST_TURNS]].concat());
    let _plugin = world.plugin();
    let mut all = 0;
    loop {
        let (some, again) = told(&world);
        assert!((1..=MOST_TURNS).contains(&some.len()), "{some:?}");
        all += some.len();
        if !again {
            break;
        }
    }
    assert_eq!(all, 3 * MOST_TURNS);
}

#[test]
fn a_queue_that_is_empty_meanwhile_is_not_told_of() {
    let world = World::new();
    world.script("proxy_on_configure", register("queue"));
    let plugin = world.plugin();
    let storm = std::iter::repeat_with(|| [enqueue(1), dequeue(1)]).take(100).flatten().collect();
    assert_eq!(statuses(&world, &plugin, storm), [0; 200]);
    assert!(told_of_all(&world).is_empty());
    // Each item is told of, for plugins that take one out each time ...
    for _ in 0..3 {
        world.script("proxy_on_queue_ready", vec![dequeue(1)]);
    }
    assert_eq!(statuses(&world, &plugin, vec![enqueue(1); 3]), [0; 3]);
    assert_eq!(told_of_all(&world), [1; 3]);
    // ... but not to those that have taken out all.
    world.script("proxy_on_queue_ready", vec![dequeue(1); 3]);
    assert_eq!(statuses(&world, &plugin, vec![enqueue(1); 3]), [0; 3]);
    assert_eq!(told_of_all(&world), [1]);
    assert_eq!(statuses(&world, &plugin, vec![dequeue(1)]), [7]);
}

#[test]
fn a_plugin_over_its_share_of_the_cpu_is_told_of_its_queues_later() {
    let world = World::new();
    world.script("proxy_on_configure", [register("queue"), vec![enqueue(1), enqueue(1)]].concat());
    let plugin = world.plugin();
    let (share, long) = (&plugin.core.usage.share, Duration::from_millis(700));
    // In an hour, so that the second is not over before the test is.
    let began = Instant::now() + Duration::from_secs(3_600);
    share.estimate(long, began, || Duration::ZERO);
    assert!(share.measure(long, began + long, || long));
    assert_eq!(told(&world), (vec![], false));
    world.vms.sweep();
    assert_eq!(told(&world), (vec![], false));
    assert_eq!(share.wait(began + Duration::from_secs(1)), None);
    assert_eq!(told(&world), (vec![], false), "it is looked at once per second");
    // As it is measured, each item has it wait again. None is lost.
    for _ in 0..2 {
        assert_eq!(share.wait(began + Duration::from_secs(1)), None);
        world.vms.sweep();
        assert_eq!(told(&world).0, [1]);
    }
}

#[test]
fn a_guest_reaches_only_queues_that_it_registered_or_found() {
    let shared = Shared::new();
    let (owner, other) = (World::sharing(shared.clone()), World::sharing(shared));
    let mut owning = spec("");
    owning.vm_id = "owners".into();
    owner.script("proxy_on_configure", [register("queue"), vec![enqueue(1)]].concat());
    let plugin = owner.vms.plugin(Arc::new(owning.clone())).unwrap();
    let _keep = other.plugin();
    assert_eq!(other.run(vec![enqueue(1), dequeue(1)]), [1, 1]);
    let found = [resolve("owners", "queue"), vec![enqueue(1), dequeue(1), enqueue(2)]].concat();
    assert_eq!(other.run(found), [0, 0, 1, 1], "what is another's can be put into");
    // The same VM id on another worker: its guest has to find the queue, too.
    let beside = other.vms.plugin(Arc::new(owning)).unwrap();
    assert_eq!(statuses(&other, &beside, vec![dequeue(1)]), [1]);
    let found =
        [resolve("", "queue"), vec![dequeue(1)], resolve("owners", "queue"), vec![dequeue(1)]].concat();
    assert_eq!(statuses(&other, &beside, found), [0, 0, 0, 0]);
    assert_eq!(statuses(&owner, &plugin, vec![dequeue(1)]), [7]);
}

#[test]
fn data_outlives_the_only_vm() {
    let world = World::new();
    let plugin = world.plugin();
    assert_eq!(statuses(&world, &plugin, set("k", Some("kept"), 0)), [0]);
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
    stream.on_request_headers(true).unwrap_err();
    drop(stream);
    assert_eq!(statuses(&world, &plugin, get("k")), [0]);
}

#[test]
fn a_plugin_that_is_told_of_a_queue_reaches_it_from_a_new_vm() {
    let world = World::new();
    let plugin = world.plugin();
    // Not when it is configured: the VM that replaces this one does not register it.
    assert_eq!(statuses(&world, &plugin, [register("queue"), vec![enqueue(1)]].concat()), [0, 0]);
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.script("proxy_on_request_headers", vec![Step::Crash(UNREACHABLE)]);
    stream.on_request_headers(true).unwrap_err();
    drop(stream);
    assert_eq!(statuses(&world, &plugin, vec![dequeue(1)]), [1]);
    world.script("proxy_on_queue_ready", vec![dequeue(1)]);
    assert_eq!(told(&world), (vec![1], false));
    assert_eq!(statuses(&world, &plugin, vec![dequeue(1)]), [7], "it has taken the item out");
}

#[test]
fn names_and_keys_have_an_end() {
    let world = World::new();
    let _keep = world.plugin();
    let steps = [
        register(&"x".repeat(256)),
        register(&"x".repeat(257)),
        resolve("", &"x".repeat(257)),
        resolve(&"x".repeat(257), "queue"),
        // Whatever lies there.
        vec![
            call("proxy_set_shared_data", [8_192, 65_536, 8_192, 1, 0]),
            call("proxy_set_shared_data", [8_192, 65_537, 8_192, 1, 0]),
            call("proxy_get_shared_data", [8_192, 65_537, OUT, OUT + 4, OUT + 8]),
        ],
    ];
    assert_eq!(world.run(steps.concat()), [0, 2, 1, 1, 0, 10, 1]);
}

#[test]
fn queues_outlive_a_reload_but_not_their_filter() {
    let shared = Shared::new();
    let (world, other) = (World::sharing(shared.clone()), World::sharing(shared.clone()));
    let owning = |configuration: &str| {
        let mut owning = spec(configuration);
        owning.name = "owner".into();
        world.script("proxy_on_configure", [register("queue"), vec![Step::Peek(OUT, 4)]].concat());
        let plugin = world.vms.plugin(Arc::new(owning)).unwrap();
        let given = world.take().into_iter().find_map(|event| match event {
            Event::Peek(token) => token.first().copied(),
            _ => None,
        });
        (plugin, given)
    };
    let used = || {
        let ledger = shared.ledger("owner");
        (ledger.queues.used(), ledger.queue_bytes.used())
    };
    let _keep = other.plugin();
    let (first, token) = owning("first");
    assert_eq!(token, Some(1));
    assert_eq!(other.run([resolve("", "queue"), vec![enqueue(1), enqueue(1)]].concat()), [0, 0, 0]);
    let (second, token) = owning("second");
    assert_eq!(token, Some(1), "it is the same queue");
    drop(first);
    world.vms.sweep();
    assert_eq!(used(), (1, 8));
    assert_eq!(statuses(&world, &second, vec![dequeue(1)]), [0]);
    drop(second);
    world.vms.sweep();
    assert_eq!(used(), (0, 0));
    let steps = [vec![enqueue(1), dequeue(1)], resolve("", "queue")].concat();
    assert_eq!(other.run(steps), [1, 1, 1]);
    let (_third, token) = owning("third");
    assert_eq!(token, Some(2), "no token is given twice");
    assert_eq!(other.run(vec![enqueue(1), enqueue(2)]), [1, 1]);
}

fn define(kind: u32, name: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (name, length) = scratch.put(name);
    vec![scratch.step(), call("proxy_define_metric", [kind, name, length, OUT])]
}

fn change(name: &'static str, id: u32, value: i64) -> Step {
    Step::Call(name, vec![id.into(), value.cast_unsigned()], Allocator::Sound)
}

#[test]
fn metrics_by_their_kinds() {
    let world = World::new();
    let steps = [
        define(0, "counter"),
        define(1, "gauge"),
        define(2, "histogram"),
        define(3, "none"),
        define(1, "counter"),
        define(0, ""),
        define(0, &"x".repeat(1_025)),
        vec![
            change("proxy_increment_metric", 1, 2),
            change("proxy_increment_metric", 1, 0),
            change("proxy_increment_metric", 1, -1),
            change("proxy_record_metric", 1, 5),
            change("proxy_increment_metric", 2, -3),
            change("proxy_record_metric", 3, 7),
            change("proxy_increment_metric", 3, 1),
            change("proxy_increment_metric", 5, 1),
            change("proxy_record_metric", 0, 1),
            call("proxy_get_metric", [1, OUT]),
            Step::Peek(OUT, 8),
            call("proxy_get_metric", [2, OUT]),
            Step::Peek(OUT, 8),
            call("proxy_get_metric", [3, OUT]),
            call("proxy_get_metric", [9, OUT]),
            call("proxy_get_metric", [1, u32::MAX]),
        ],
    ];
    let plugin = world.plugin();
    world.script("proxy_on_request_headers", steps.concat());
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    let events = world.take();
    let peeks: Vec<_> = events.iter().filter(|event| matches!(event, Event::Peek(_))).collect();
    assert_eq!(
        peeks,
        [&Event::Peek(7_u64.to_le_bytes().to_vec()), &Event::Peek((-3_i64).to_le_bytes().to_vec())]
    );
    let statuses: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Status(s) = event { Some(*s) } else { None })
        .collect();
    assert_eq!(statuses, [0, 0, 0, 2, 0, 2, 2, 0, 2, 2, 0, 0, 0, 2, 1, 1, 0, 0, 2, 1, 6]);
    let mut text = String::new();
    world.shared.metrics().render(&mut text);
    assert!(text.contains("\nwasmcustom_counter 7\n") && text.contains("\nwasmcustom_gauge -3\n"), "{text}");
    assert!(text.contains("\nwasmcustom_histogram_bucket{le=\"10\"} 1\n"), "{text}");
}

#[test]
fn metrics_of_a_plugin_are_bounded_and_survive_its_vm() {
    let shared = Shared::new();
    let world = World::sharing(shared.clone());
    let mut modest = spec("");
    modest.limits.metrics = 2;
    let plugin = world.vms.plugin(Arc::new(modest)).unwrap();
    let steps = [
        define(0, "a"),
        define(0, "b"),
        define(0, "b"),
        define(0, "c"),
        vec![change("proxy_increment_metric", 1, 1)],
    ];
    world.script("proxy_on_request_headers", steps.concat());
    world.take();
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [0, 0, 0, 10, 0], "what there is can be defined again");
    assert_eq!(plugin.ledger().exceeded(Limit::Metrics), 1);
    // A series that the embedder makes is used by the same hostcalls.
    let mut scratch = Scratch::default();
    let (name, length) = scratch.put("series");
    let steps = vec![
        scratch.step(),
        call("proxy_call_foreign_function", [name, length, 0, 0, OUT, OUT + 4]),
        Step::PeekAt(OUT),
        change("proxy_increment_metric", 3, 4),
    ];
    world.script("proxy_on_request_headers", steps);
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    assert!(world.take().contains(&Event::Peek(vec![3, 0, 0, 0])));
    let mut text = String::new();
    shared.metrics().render(&mut text);
    assert!(text.contains("\nseries_total{plugin=\"puppet\"} 4\n"), "{text}");
    drop(plugin);
    let again = World::sharing(shared);
    assert_eq!(again.run([define(0, "a"), vec![call("proxy_get_metric", [1, OUT])]].concat()), [0, 0]);
}
