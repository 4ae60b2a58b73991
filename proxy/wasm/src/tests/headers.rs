//! Header maps: what is read, what is written, and every status.

use http::HeaderMap;
use proptest::prelude::*;

use super::world::*;
use crate::pairs;
use crate::*;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const INVALID_MEMORY: u32 = 6;

/// Gets a value and shows it.
fn get(map: u32, key: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (key, length) = scratch.put(key);
    vec![
        Step::Write(OUT, vec![0xff; 8]),
        scratch.step(),
        call("proxy_get_header_map_value", [map, key, length, OUT, OUT + 4]),
    ]
}

fn write(name: &'static str, map: u32, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (key, length) = scratch.put(key);
    let (value, size) = scratch.put(value);
    vec![scratch.step(), call(name, [map, key, length, value, size])]
}

fn set(map: u32, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<Step> {
    write("proxy_replace_header_map_value", map, key, value)
}

fn remove(map: u32, key: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (key, length) = scratch.put(key);
    vec![scratch.step(), call("proxy_remove_header_map_value", [map, key, length])]
}

/// Runs steps on a fresh exchange, whose head is given back with the statuses.
fn on_request(steps: Vec<Step>) -> (Vec<u32>, RequestHead) {
    let world = World::new();
    world.script("proxy_on_request_headers", steps);
    let plugin = world.plugin();
    let exchange = world.exchange();
    let stream = plugin.stream(exchange.clone(), 0).unwrap();
    stream.on_request_headers(true).unwrap();
    let head = exchange.http().borrow().request.clone();
    (world.statuses(), head)
}

#[test]
fn values_are_found_whatever_the_case() {
    let shown = |key| {
        let world = World::new();
        world.show([get(0, key), vec![Step::PeekAt(OUT)]].concat()).pop().unwrap()
    };
    assert_eq!(shown("X-A"), b"1", "the first of several");
    assert_eq!(shown(":path"), b"/path?query=1");
    assert_eq!(shown(":method"), b"GET");
    assert_eq!(shown(":scheme"), b"http");
    assert_eq!(shown(":authority"), b"example.com");
    assert_eq!(shown("Host"), b"example.com");
}

#[test]
fn a_present_but_empty_value_is_ok_without_memory() {
    let world = World::new();
    let steps = [get(0, "x-empty"), vec![Step::Peek(OUT, 8)]].concat();
    world.script("proxy_on_request_headers", steps);
    let plugin = world.plugin();
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    let events = world.take();
    assert!(events.contains(&Event::Status(OK)) && events.contains(&Event::Peek(vec![0; 8])), "{events:?}");
}

#[test]
fn statuses_of_reading() {
    let world = World::new();
    let statuses = world.run(
        [
            get(0, "x-missing"),
            get(0, ":status"),
            get(0, "not a name"),
            get(0, ""),
            // Trailers, response and call response do not exist in this phase; there is no map 8.
            get(1, "x"),
            get(2, ":status"),
            get(3, "x"),
            get(4, "x"),
            get(6, ":status"),
            get(7, "x"),
            get(8, "x"),
            vec![
                call("proxy_get_header_map_value", [0, 131_070, 9, OUT, OUT + 4]),
                call("proxy_get_header_map_value", [0, u32::MAX, u32::MAX, OUT, OUT + 4]),
                call("proxy_get_header_map_size", [0, OUT]),
                call("proxy_get_header_map_size", [1, OUT]),
                call("proxy_get_header_map_size", [8, OUT]),
                call("proxy_get_header_map_size", [0, u32::MAX]),
                call("proxy_get_header_map_pairs", [0, OUT, OUT + 4]),
                call("proxy_get_header_map_pairs", [2, OUT, OUT + 4]),
                call("proxy_get_header_map_pairs", [8, OUT, OUT + 4]),
            ],
        ]
        .concat(),
    );
    let expected = [
        NOT_FOUND,
        NOT_FOUND,
        NOT_FOUND,
        NOT_FOUND,
        NOT_FOUND,
        NOT_FOUND,
        NOT_FOUND,
        NOT_FOUND,
        NOT_FOUND,
        NOT_FOUND,
        BAD_ARGUMENT,
        INVALID_MEMORY,
        INVALID_MEMORY,
        OK,
        BAD_ARGUMENT,
        BAD_ARGUMENT,
        INVALID_MEMORY,
        OK,
        OK,
        BAD_ARGUMENT,
    ];
    assert_eq!(statuses, expected);
}

#[test]
fn a_strict_plugin_hears_of_maps_that_do_not_exist() {
    let world = World::new();
    let mut strict = spec("");
    strict.compatibility.strict_maps = true;
    let plugin = world.vms.plugin(strict.into()).unwrap();
    world.script("proxy_on_request_headers", [get(2, ":status"), get(0, "x-missing")].concat());
    plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [BAD_ARGUMENT, NOT_FOUND]);
}

#[test]
fn pairs_list_everything_pseudo_headers_first() {
    let world = World::new();
    let steps = vec![
        call("proxy_get_header_map_pairs", [0, OUT, OUT + 4]),
        Step::PeekAt(OUT),
        call("proxy_get_header_map_pairs", [3, OUT, OUT + 4]),
        Step::Peek(OUT, 8),
        call("proxy_get_header_map_size", [0, OUT]),
        Step::Peek(OUT, 4),
    ];
    let peeked = world.show(steps);
    let pairs = pairs::decode(&peeked[0]).unwrap();
    let expected: [(&[u8], &[u8]); 7] = [
        (b":authority", b"example.com"),
        (b":method", b"GET"),
        (b":path", b"/path?query=1"),
        (b":scheme", b"http"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"x-empty", b""),
    ];
    assert_eq!(pairs, expected);
    assert_eq!(peeked[1], [0; 8]);
    let bytes: usize = expected.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!(peeked[2], (bytes as u32).to_le_bytes());
}

#[test]
fn writes_change_the_request() {
    let (statuses, head) = on_request(
        [
            set(0, "X-A", "3"),
            write("proxy_add_header_map_value", 0, "x-b", "1"),
            write("proxy_add_header_map_value", 0, "x-b", " 2\t"),
            remove(0, "X-Empty"),
            remove(0, "x-never-there"),
            set(0, ":path", "/other?x"),
            set(0, ":method", "POST"),
            set(0, ":scheme", "https"),
            set(0, "host", "other.example:8080"),
        ]
        .concat(),
    );
    assert_eq!(statuses, [OK; 9]);
    assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["3"]);
    assert_eq!(head.headers.get_all("x-b").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(!head.headers.contains_key("x-empty") && !head.headers.contains_key("host"));
    assert_eq!((head.method.as_str(), head.path.as_str()), ("POST", "/other?x"));
    assert_eq!((head.scheme.as_str(), head.authority.to_str().unwrap()), ("https", "other.example:8080"));
}

#[test]
fn no_more_of_a_value_is_kept_than_shows_that_it_is_too_long() {
    let world = World::new();
    let plugin = world.plugin();
    let exchange = world.exchange();
    exchange.http().borrow_mut().most_head_bytes = 5;
    let steps = [set(0, "x-fits", "12345"), set(0, "x-long", "123456"), set(0, "x-longer", "1234567")];
    world.script("proxy_on_request_headers", steps.concat());
    plugin.stream(exchange.clone(), 0).unwrap().on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [OK; 3]);
    let http = exchange.http().borrow();
    let kept = ["x-fits", "x-long", "x-longer"].map(|name| http.request.headers[name].to_str().unwrap());
    assert_eq!(kept, ["12345", "123456", "123456"]);
}

#[test]
fn maps_have_so_many_bytes_whatever_is_written() {
    let world = World::new();
    let plugin = world.plugin();
    let exchange = world.exchange();
    {
        let mut http = exchange.http().borrow_mut();
        http.most_head_bytes = 2_000;
        http.request_trailers = Some(HeaderMap::new());
    }
    let value = "x".repeat(1_000);
    // The head may become too large, and larger than that it is not kept; trailers may not, and a value in the place of another may.
    let heads = ["x-1", "x-2", "x-3", "x-4", "x-4"].map(|name| set(0, name, &value));
    let trailers = ["x-1", "x-2", "x-1"].map(|name| set(1, name, &value));
    world.script("proxy_on_request_headers", [heads.concat(), trailers.concat()].concat());
    plugin.stream(exchange.clone(), 0).unwrap().on_request_headers(true).unwrap();
    let full = Status::InternalFailure as u32;
    assert_eq!(world.statuses(), [OK, OK, OK, full, full, OK, full, OK]);
    let http = exchange.http().borrow();
    assert_eq!(http.request_trailers.as_ref().unwrap().len(), 1);
}

#[test]
fn what_the_network_may_not_say_guests_may_not_either() {
    let bad: [(&[u8], &[u8]); 24] = [
        (b"x-a", b"1\r\nx-b: 2"),
        (b"x-a", b"1\n"),
        (b"x-a", b"1\0"),
        (b"x-a", b"\x7f"),
        (b"x a", b"1"),
        (b"x-a:", b"1"),
        (b"x-a\n", b"1"),
        (b"", b"1"),
        (b"content-length", b"+1"),
        (b"content-length", b"1, 1"),
        (b":path", b""),
        (b":path", b"relative"),
        (b":path", b"/a b"),
        (b":path", b"/a#b"),
        (b":path", b"/\xc3\xa9"),
        (b":method", b"G T"),
        (b":method", b""),
        (b":scheme", b"ftp"),
        (b":authority", b""),
        (b":authority", b"user@host"),
        (b":authority", b"a/b"),
        (b":status", b"200"),
        (b":unknown", b"1"),
        (b":", b"1"),
    ];
    for (key, value) in bad {
        for hostcall in ["proxy_add_header_map_value", "proxy_replace_header_map_value"] {
            let (statuses, head) = on_request(write(hostcall, 0, key, value));
            assert_eq!(statuses, [BAD_ARGUMENT], "{key:?}: {value:?}");
            assert_eq!(head.pairs().count(), 7);
            assert_eq!(head.headers["x-a"], "1");
        }
    }
}

#[test]
fn framing_is_the_hosts_and_required_pseudo_headers_stay() {
    let ignored = [
        set(0, "connection", "close"),
        set(0, "Transfer-Encoding", "chunked"),
        set(0, "upgrade", "websocket"),
        set(0, "keep-alive", "1"),
        set(0, "proxy-connection", "close"),
        set(0, "te", "gzip"),
        remove(0, ":path"),
        remove(0, ":authority"),
        remove(0, "host"),
    ];
    for steps in ignored {
        let (statuses, head) = on_request(steps.clone());
        assert_eq!(statuses, [OK]);
        assert_eq!(head.count(), 7, "{steps:?}");
    }
    let (statuses, head) = on_request([set(0, "te", "trailers"), set(0, "content-length", "5")].concat());
    assert_eq!(statuses, [OK, OK]);
    assert_eq!(
        (head.headers["te"].to_str().unwrap(), &head.headers["content-length"]),
        ("trailers", &"5".parse().unwrap())
    );
}

#[test]
fn setting_all_pairs_replaces_all_but_what_is_required() {
    let all = |map: u32, bytes: &[u8]| {
        let mut scratch = Scratch::default();
        let (text, size) = scratch.put(bytes);
        vec![scratch.step(), call("proxy_set_header_map_pairs", [map, text, size])]
    };
    let new =
        pairs::encode(|| [(&b"X-New"[..], &b"1"[..]), (b":path", b"/new"), (b"x-new", b"2")].into_iter());
    let (statuses, head) = on_request(all(0, &new));
    assert_eq!(statuses, [OK]);
    assert_eq!((head.path.as_str(), head.method.as_str(), head.headers.len()), ("/new", "GET", 2));
    for empty in [&b""[..], b"\0", b"\0\0\0\0"] {
        let (statuses, head) = on_request(all(0, empty));
        assert_eq!((statuses, head.count()), (vec![OK], 4));
    }
    let spoiled = pairs::encode(|| [(&b"x-new"[..], &b"1"[..]), (b"x-bad", b"\n")].into_iter());
    for bytes in [&new[..new.len() - 1], &spoiled, b"\xff\xff\xff\xff", b"\x01\0"] {
        let (statuses, head) = on_request(all(0, bytes));
        assert_eq!((statuses, head.count()), (vec![BAD_ARGUMENT], 7), "no change at all");
    }
    let (statuses, _) =
        on_request([all(2, &new), all(1, &new), all(4, &new), all(6, &new), all(8, &new)].concat());
    assert_eq!(statuses, [BAD_ARGUMENT; 5]);
}

#[test]
fn maps_that_are_not_there_or_read_only_cannot_be_written() {
    let (statuses, _) = on_request(
        [
            set(1, "x", "1"),
            set(2, "x", "1"),
            set(3, "x", "1"),
            set(4, "x", "1"),
            set(6, "x", "1"),
            set(8, "x", "1"),
            remove(2, "x"),
        ]
        .concat(),
    );
    assert_eq!(statuses, [BAD_ARGUMENT; 7]);
}

#[test]
fn the_response_and_the_trailers_have_their_turn() {
    let world = World::new();
    let plugin = world.plugin();
    let exchange = world.exchange();
    let stream = plugin.stream(exchange.clone(), 0).unwrap();
    exchange.http().borrow_mut().response = Some(response(200));
    let steps = [
        set(2, ":status", "404"),
        set(2, ":status", "100"),
        set(2, ":status", "1000"),
        set(2, ":path", "/"),
        set(2, "x-r", "1"),
        remove(2, ":status"),
        set(0, "x-late", "1"),
        set(3, "x", "1"),
    ];
    world.script("proxy_on_response_headers", steps.concat());
    world.take();
    stream.on_response_headers(false).unwrap();
    assert_eq!(world.statuses(), [OK, 2, 2, 2, OK, OK, OK, BAD_ARGUMENT]);
    // The end of the body: trailers can be made.
    let trailers =
        [set(3, "x-t", "1"), set(3, "content-length", "1"), set(3, ":status", "1"), set(1, "x", "1")];
    world.script("proxy_on_response_body", trailers.concat());
    stream.on_response_body(true).unwrap();
    assert_eq!(world.statuses(), [OK, OK, BAD_ARGUMENT, BAD_ARGUMENT]);
    // In the log all can be read and none written.
    let logged = [
        get(0, "x-late"),
        get(2, ":status"),
        get(3, "x-t"),
        set(0, "x", "1"),
        set(2, "x", "1"),
        remove(3, "x-t"),
    ];
    world.script("proxy_on_log", logged.concat());
    drop(stream);
    assert_eq!(world.statuses(), [OK, OK, OK, BAD_ARGUMENT, BAD_ARGUMENT, BAD_ARGUMENT]);
    let http = exchange.http().borrow();
    let head = http.response.as_ref().unwrap();
    assert_eq!((head.status.as_u16(), &head.headers["x-r"]), (404, &"1".parse().unwrap()));
    assert_eq!(http.response_trailers.as_ref().unwrap().len(), 1);
}

#[test]
fn a_plugin_has_no_stream_and_no_maps() {
    let world = World::new();
    world.script("proxy_on_configure", [get(0, ":path"), set(0, "x", "1")].concat());
    let _plugin = world.vms.plugin(spec("").into()).unwrap();
    assert_eq!(world.statuses(), [NOT_FOUND, BAD_ARGUMENT]);
}

#[test]
fn the_number_of_fields_is_bounded() {
    let world = World::new();
    let plugin = world.plugin();
    let exchange = world.exchange();
    for number in 0..1_021 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        exchange.http().borrow_mut().request.headers.insert(name, "1".parse().unwrap());
    }
    let stream = plugin.stream(exchange.clone(), 0).unwrap();
    world.script("proxy_on_request_headers", [set(0, "x-more", "1"), set(0, "x-1", "2")].concat());
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [10, OK]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_accepted_can_be_read_back(key in "[ -~\r\n]{0,12}", value in any::<Vec<u8>>()) {
        let (statuses, head) = on_request(set(0, &key, &value));
        let trimmed = value.trim_ascii();
        if statuses == [OK] && !trimmed.is_empty() {
            let found = head.find(key.as_bytes());
            prop_assert!(found.is_none_or(|found| found == trimmed));
            prop_assert!(found.is_none_or(|found| !found.contains(&b'\n') && !found.contains(&b'\r')));
        } else if statuses != [OK] {
            prop_assert_eq!(statuses, [BAD_ARGUMENT]);
        }
    }
}
