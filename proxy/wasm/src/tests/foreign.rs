//! The foreign functions that the host answers itself.

use prost::encoding::{WireType, encode_key, encode_varint};

use super::world::*;
use crate::*;

const OK: u32 = 0;
const BAD_ARGUMENT: u32 = 2;
const FAILURE: u32 = 3;

/// A message of fields with bytes or text.
fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, bytes) in fields {
        encode_key(*tag, WireType::LengthDelimited, &mut out);
        encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
    }
    out
}

fn foreign(name: &str, argument: &[u8]) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (n, nn) = scratch.put(name);
    let (a, an) = scratch.put(argument);
    vec![scratch.step(), call("proxy_call_foreign_function", [n, nn, a, an, OUT, OUT + 4]), Step::PeekAt(OUT)]
}

/// The status, and the answer.
fn ask(world: &World, name: &str, argument: &[u8]) -> (u32, Vec<u8>) {
    let plugin = world.plugin();
    world.script("proxy_on_request_headers", foreign(name, argument));
    let stream = plugin.stream(world.exchange(), 0).unwrap();
    world.take();
    stream.on_request_headers(true).unwrap();
    match &world.take()[1..] {
        [Event::Status(OK), Event::Peek(answer), ..] => (OK, answer.clone()),
        [Event::Status(status), ..] => (*status, Vec::new()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_compressed_comes_back() {
    let world = World::new();
    let text = "again and ".repeat(1_000);
    let (status, packed) = ask(&world, "compress", text.as_bytes());
    assert!(status == OK && packed.len() < 100 && packed[0] == 0x78, "{status} {packed:?}");
    assert_eq!(ask(&world, "uncompress", &packed), (OK, text.into_bytes()));
    let (_, empty) = ask(&world, "compress", b"");
    assert_eq!(ask(&world, "uncompress", &empty), (OK, Vec::new()));
    // As zlib at another level makes it.
    let other = b"\x78\x01\x01\x03\x00\xfc\xff\x61\x62\x63\x02\x4d\x01\x27";
    assert_eq!(ask(&world, "uncompress", other), (OK, b"abc".to_vec()));
}

#[test]
fn what_is_no_stream_of_zlib_fails() {
    let world = World::new();
    let (_, packed) = ask(&world, "compress", b"something to pack");
    let mut wrong = packed.clone();
    *wrong.last_mut().unwrap() ^= 1;
    for bytes in [&b""[..], b"plain", &packed[..packed.len() - 1], &wrong] {
        assert_eq!(ask(&world, "uncompress", bytes), (FAILURE, Vec::new()));
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    let world = World::new();
    let bomb = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; 32 << 20], 9);
    assert!(bomb.len() < 40_000);
    assert_eq!(ask(&world, "uncompress", &bomb), (FAILURE, Vec::new()));
}

#[test]
fn compressing_costs_more_than_copying() {
    let world = World::new();
    let mut with = spec("");
    with.limits.copied = 20_000;
    let plugin = world.vms.plugin(with.into()).unwrap();
    world.script("proxy_on_request_headers", foreign("compress", &[7; 4_000]));
    let error = plugin.stream(world.exchange(), 0).unwrap().on_request_headers(true).unwrap_err();
    assert!(matches!(error, VmError::Limit { .. }), "{error}");
}

/// A declaration: the name, whether it is read-only, and the span.
fn declaration(name: &str, read_only: bool, span: u8) -> Vec<u8> {
    let mut out = message(&[(1, name.as_bytes())]);
    out.extend([0x10, u8::from(read_only), 0x28, span]);
    out
}

fn write(path: &str, value: &str) -> Vec<Step> {
    let mut scratch = Scratch::default();
    let (path, length) = scratch.put(path);
    let (value, size) = scratch.put(value);
    vec![scratch.step(), call("proxy_set_property", [path, length, value, size])]
}

#[test]
fn declared_properties_are_kept_as_declared() {
    let world = World::new();
    let configure = [
        foreign("declare_property", &declaration("once", true, 0)),
        foreign("declare_property", &declaration("once", false, 0)),
        foreign("declare_property", &declaration("lasting", false, 2)),
        foreign("declare_property", &declaration("", false, 0)),
        foreign("declare_property", b"\xff"),
    ];
    world.script("proxy_on_configure", configure.concat());
    let plugin = world.vms.plugin(spec("of the plugin").into()).unwrap();
    assert_eq!(world.statuses(), [OK, BAD_ARGUMENT, OK, BAD_ARGUMENT, BAD_ARGUMENT]);

    let exchange = world.exchange();
    let steps = [write("once", "1"), write("once", "2"), write("lasting", "3"), write("lasting", "4")];
    world.script("proxy_on_request_headers", steps.concat());
    let stream = plugin.stream(exchange.clone(), 0).unwrap();
    stream.on_request_headers(true).unwrap();
    assert_eq!(world.statuses(), [OK, BAD_ARGUMENT, OK, OK]);
    let attributes = &exchange.http().borrow().attributes;
    assert_eq!(attributes.custom.find(b"once").unwrap(), "1");
    assert_eq!(attributes.custom.find(b"lasting"), None);
    assert_eq!(attributes.connection.custom.borrow().find(b"lasting").unwrap(), "4");
}

#[test]
fn clearing_the_route_cache_is_fine_and_expressions_are_unknown() {
    let world = World::new();
    assert_eq!(ask(&world, "clear_route_cache", b""), (OK, Vec::new()));
    for name in ["expr_create", "expr_evaluate", "expr_delete", "set_envoy_filter_state", "nothing"] {
        assert_eq!(ask(&world, name, b"x"), (1, Vec::new()), "{name}");
    }
}
