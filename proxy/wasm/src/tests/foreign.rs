//! The foreign functions that the host answers itself.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::world::*;
use crate::*;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
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

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn pem(kind: &str, der: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {kind}-----\n");
    for (index, group) in der.chunks(3).enumerate() {
        let mut bits = [0; 3];
        bits[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for position in 0..4 {
            let letter = char::from(LETTERS[(bits >> (18 - 6 * position)) as usize & 63]);
            text.push(if position > group.len() { '=' } else { letter });
        }
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    text + &format!("\n-----END {kind}-----\n")
}

/// What `verify_signature` says: the result, and the error.
fn verified(world: &World, hash: &str, key: (u32, &[u8]), signature: &[u8], text: &str) -> (bool, String) {
    let fields = [(1, hash.as_bytes()), key, (3, signature), (4, text.as_bytes())];
    let (status, answer) = ask(world, "verify_signature", &message(&fields));
    assert_eq!(status, OK);
    match answer.first() {
        Some(0x08) => (true, String::from_utf8(answer[2..].to_vec()).unwrap()),
        _ => (false, String::from_utf8(answer[2..].to_vec()).unwrap()),
    }
}

fn no_key() -> (bool, String) {
    (false, "Failed to import the key.".to_owned())
}

#[test]
fn signatures_of_openssl_are_verified() {
    let world = World::new();
    let mut key = Vec::new();
    let mut checked = 0;
    for line in include_str!("signatures.txt").lines().filter(|line| !line.starts_with('#')) {
        let [name, hash, bytes] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let bytes = hex(bytes);
        if hash == "der" {
            key = bytes;
            continue;
        }
        if name == "p-224" {
            assert_eq!(verified(&world, hash, (2, &key), &bytes, "the text"), no_key(), "no such curve");
            continue;
        }
        let by_der = verified(&world, hash, (2, &key), &bytes, "the text");
        let by_pem = pem("PUBLIC KEY", &key);
        assert_eq!(
            verified(&world, &hash.to_uppercase(), (5, by_pem.as_bytes()), &bytes, "the text"),
            by_der
        );
        if (name, hash) == ("rsa", "sha224") {
            assert_eq!(by_der, (false, "sha224 is not supported with rsa keys.".to_owned()));
            continue;
        }
        assert_eq!(by_der, (true, String::new()), "{name} {hash}");
        let failed = (false, "Failed to verify digest. Error code: 0".to_owned());
        assert_eq!(verified(&world, hash, (2, &key), &bytes, "the test"), failed, "{name} {hash}");
        let mut broken = bytes.clone();
        broken[10] ^= 1;
        assert_eq!(verified(&world, hash, (2, &key), &broken, "the text"), failed, "{name} {hash}");
        checked += 1;
    }
    assert_eq!(checked, 19);
    assert_eq!(verified(&world, "md5", (2, &key), b"", ""), (false, "md5 is not supported.".to_owned()));
}

#[test]
fn a_key_that_is_none_is_told() {
    let world = World::new();
    for (function, pem, error) in [("verify_signature", 5, 2), ("sign", 4, 3)] {
        let told = message(&[(error, no_key().1.as_bytes())]);
        let sha: (u32, &[u8]) = (1, b"sha256");
        for fields in
            [&[sha][..], &[sha, (2, b"junk")], &[sha, (pem, b"junk")], &[sha, (2, b"x"), (pem, b"y")]]
        {
            assert_eq!(ask(&world, function, &message(fields)), (OK, told.clone()), "{function} {fields:?}");
        }
        assert_eq!(ask(&world, function, b"\xff"), (BAD_ARGUMENT, Vec::new()));
    }
}

/// What `sign` says: the signature, or the error.
fn signed(world: &World, hash: &str, key: (u32, &[u8])) -> Result<Vec<u8>, String> {
    let (status, answer) = ask(world, "sign", &message(&[(1, hash.as_bytes()), key, (3, b"the text")]));
    assert_eq!(status, OK);
    let mut rest = &answer[..];
    if rest[0] == 0x08 {
        rest = &rest[2..];
        assert_eq!(prost::encoding::decode_key(&mut rest), Ok((2, WireType::LengthDelimited)));
        let length = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
        assert_eq!(rest.len(), length);
        return Ok(rest.to_vec());
    }
    Err(String::from_utf8(rest[2..].to_vec()).unwrap())
}

#[test]
fn what_is_signed_is_verified() {
    let world = World::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let ecdsa = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let keys = [
        (rsa.as_der().unwrap().as_ref().to_vec(), rsa.public_key().as_der().unwrap().as_ref().to_vec()),
        (
            ecdsa.to_pkcs8v1().unwrap().as_ref().to_vec(),
            ecdsa.public_key().as_der().unwrap().as_ref().to_vec(),
        ),
    ];
    for (private, public) in &keys {
        let pem = pem("PRIVATE KEY", private);
        for hash in ["sha256", "SHA384", "sha512"] {
            for key in [(2, &private[..]), (4, pem.as_bytes())] {
                let signature = signed(&world, hash, key).unwrap();
                assert_eq!(
                    verified(&world, hash, (2, public), &signature, "the text"),
                    (true, String::new()),
                    "{hash}"
                );
            }
        }
    }
    let signature = signed(&world, "sha1", (2, &keys[1].0)).unwrap();
    assert_eq!(verified(&world, "sha1", (2, &keys[1].1), &signature, "the text"), (true, String::new()));
    let unsupported = |hash| Err(format!("{hash} is not supported with rsa keys."));
    assert_eq!(signed(&world, "sha1", (2, &keys[0].0)), unsupported("sha1"));
    assert_eq!(signed(&world, "sha224", (2, &keys[0].0)), unsupported("sha224"));
    assert_eq!(signed(&world, "sha3", (2, &keys[0].0)), Err("sha3 is not supported.".to_owned()));
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
    assert_eq!(attributes.custom.find(b"once").unwrap(), b"1");
    assert_eq!(attributes.custom.find(b"lasting"), None);
    assert_eq!(attributes.connection.custom.borrow().find(b"lasting").unwrap(), b"4");
}

/// Functions that take a message, and what they answer to one that says nothing.
const MESSAGES: [(&str, u32); 8] = [
    ("verify_signature", OK),
    ("sign", OK),
    ("declare_property", BAD_ARGUMENT),
    ("meshgate.kv", BAD_ARGUMENT),
    ("meshgate.cancel", BAD_ARGUMENT),
    // The embedder's, which has none of them here.
    ("set_envoy_filter_state", NOT_FOUND),
    ("meshgate.route", NOT_FOUND),
    ("meshgate.verify", NOT_FOUND),
];

/// Of a field that no message has.
const EMPTY_PART: [u8; 2] = [0x7a, 0x00];

#[test]
fn a_message_that_is_too_much_is_not_decoded() {
    let world = World::new();
    let most = EMPTY_PART.repeat(2_048);
    let too_many = EMPTY_PART.repeat(2_049);
    let long = message(&[(15, &[0_u8; 200_000][..])]);
    let too_long = message(&[(15, &[0_u8; 300_000][..])]);
    // What is signed may be a whole body.
    let signed = message(&[(15, &[0_u8; 1 << 20][..])]);
    for (name, status) in MESSAGES {
        if ["sign", "verify_signature"].contains(&name) {
            assert_eq!(ask(&world, name, &signed).0, status, "{name}");
            continue;
        }
        for argument in [&most, &long] {
            assert_eq!(ask(&world, name, argument).0, status, "{name}, {} bytes", argument.len());
        }
        for argument in [&too_many, &too_long] {
            assert_eq!(ask(&world, name, argument).0, BAD_ARGUMENT, "{name}, {} bytes", argument.len());
        }
    }
}

#[test]
fn bytes_that_are_no_message_are_not_counted() {
    let world = World::new();
    let bytes = EMPTY_PART.repeat(150_000);
    assert_eq!(ask(&world, "echo", &bytes), (OK, bytes.clone()));
    assert_eq!(ask(&world, "nothing", &bytes), (NOT_FOUND, Vec::new()));
    let (status, packed) = ask(&world, "compress", &bytes);
    assert_eq!((status, ask(&world, "uncompress", &packed)), (OK, (OK, bytes)));
}

#[test]
fn clearing_the_route_cache_is_fine_and_expressions_are_unknown() {
    let world = World::new();
    assert_eq!(ask(&world, "clear_route_cache", b""), (OK, Vec::new()));
    for name in ["expr_create", "expr_evaluate", "expr_delete", "set_envoy_filter_state", "nothing"] {
        assert_eq!(ask(&world, name, b"x"), (NOT_FOUND, Vec::new()), "{name}");
    }
}
