//! Hellos as clients send them (`proxy/fuzz/corpus/client_hello`), whole, in pieces and spoiled.

use std::path::Path;

use proptest::prelude::*;

use super::*;

const MOST: usize = 16 * 1024;

fn block(length_bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[4 - length_bytes..], content].concat()
}

fn extension(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[0, kind][..], &block(2, content)].concat()
}

/// A ClientHello with these extensions, in records of at most `size` bytes.
fn hello(extensions: &[Vec<u8>], size: usize) -> Vec<u8> {
    let content = [
        &[3, 3][..],
        &[7; 32],
        &block(1, &[1; 32]),
        &block(2, &[0x13, 0x01]),
        &block(1, &[0]),
        &block(2, &extensions.concat()),
    ]
    .concat();
    records(&[&[CLIENT_HELLO][..], &block(3, &content)].concat(), size)
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[HANDSHAKE_RECORD, 3, 1][..], &block(2, part)].concat()).collect()
}

/// The list of these names.
fn names(names: &[&[u8]]) -> Vec<u8> {
    extension(
        0,
        &block(2, &names.iter().flat_map(|name| [&[0][..], &block(2, name)].concat()).collect::<Vec<_>>()),
    )
}

fn look(bytes: &[u8]) -> Result<Option<Hello>, NoHello> {
    HelloReader::new(MOST).read(bytes)
}

fn named(name: &str) -> Result<Option<Hello>, NoHello> {
    Ok(Some(Hello { server_name: Some(name.into()) }))
}

/// In pieces of `size` bytes.
fn look_at_pieces(bytes: &[u8], size: usize) -> Result<Option<Hello>, NoHello> {
    let mut reader = HelloReader::new(MOST);
    for piece in bytes.chunks(size) {
        match reader.read(piece) {
            Ok(None) => {}
            found => return found,
        }
    }
    Ok(None)
}

#[test]
fn names_are_found_in_any_number_of_records_and_pieces() {
    for size in [1, 7, 100, 16_384] {
        let bytes = hello(&[extension(43, &[2, 3, 4]), names(&[b"A.Example"])], size);
        assert_eq!(look(&bytes), named("a.example"));
        assert_eq!(look(&[&bytes[..], b"more"].concat()), named("a.example"));
        for piece in [1, 3, 50] {
            assert_eq!(look_at_pieces(&bytes, piece), named("a.example"));
        }
        for cut in 0..bytes.len() {
            assert_eq!(look(&bytes[..cut]), Ok(None), "{cut} of {}", bytes.len());
        }
    }
    assert_eq!(look(&hello(&[], 16_384)), Ok(Some(Hello { server_name: None })));
    assert_eq!(look(&hello(&[names(&[b"a.example."])], 16_384)), named("a.example"));
}

#[test]
fn what_is_no_hello_is_told_apart() {
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n"[..], NoHello::NotTls),
        (b"SSH-2.0-x", NoHello::NotTls),
        (&[HANDSHAKE_RECORD, 2], NoHello::NotTls),
        (&[21, 3, 1, 0, 2, 1, 0], NoHello::NotTls),
        (&[HANDSHAKE_RECORD, 3, 1, 0, 0], NoHello::Malformed),
        (&[HANDSHAKE_RECORD, 3, 1, 0x40, 1], NoHello::Malformed),
        (&[HANDSHAKE_RECORD, 3, 1, 0, 4, 2, 0, 0, 0], NoHello::Malformed),
        (&[HANDSHAKE_RECORD, 3, 1, 0, 4, CLIENT_HELLO, 0xff, 0, 0], NoHello::TooLong),
        (&[HANDSHAKE_RECORD, 3, 1, 0, 1, CLIENT_HELLO, 21], NoHello::Malformed),
        (&hello(&[names(&[b""])], 16_384), NoHello::Malformed),
        (&hello(&[names(&[b"."])], 16_384), NoHello::Malformed),
        (&hello(&[names(&[b"a b"])], 16_384), NoHello::Malformed),
        (&hello(&[names(&[&[b'a'; 256]])], 16_384), NoHello::Malformed),
        (&hello(&[names(&[])], 16_384), NoHello::Malformed),
        (&hello(&[names(&[b"a", b"b"])], 16_384), NoHello::Malformed),
        (&hello(&[names(&[b"a"]), names(&[b"b"])], 16_384), NoHello::Malformed),
        (&hello(&[extension(0, &[0, 9, 0])], 16_384), NoHello::Malformed),
    ] {
        assert_eq!(look(bytes), Err(reason), "{bytes:?}");
        assert_eq!(look_at_pieces(bytes, 1), Err(reason), "{bytes:?}");
    }
}

#[test]
fn what_has_no_end_is_given_up() {
    let bytes = hello(&[extension(21, &[0; 600])], 100);
    let mut reader = HelloReader::new(500);
    assert_eq!(reader.read(&bytes[..499]), Err(NoHello::TooLong), "the message says how long it is");
    // Much around little.
    let bytes = hello(&[names(&[b"a.example"])], 1);
    let mut reader = HelloReader::new(200);
    assert_eq!(reader.read(&bytes[..199]), Ok(None));
    assert_eq!(reader.room(), 1);
    assert_eq!(reader.read(&bytes[199..200]), Err(NoHello::TooLong));
}

/// The stored hellos, by the name that their file's begins with.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/client_hello");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    };
    files.map(read).collect()
}

#[test]
fn real_clients_are_understood() {
    let corpus = corpus();
    assert!(corpus.len() >= 5, "{}", corpus.len());
    for (file, bytes) in corpus {
        let expected = if file.starts_with("nameless") {
            Ok(Some(Hello { server_name: None }))
        } else {
            named("shop.example.com")
        };
        assert_eq!(look(&bytes), expected, "{file}");
        assert_eq!(look_at_pieces(&bytes, 1), expected, "{file}");
        // The same message in other records.
        let message: Vec<u8> = bytes[RECORD_HEAD..].to_vec();
        assert_eq!(look(&records(&message, 13)), expected, "{file}");
    }
}

proptest! {
    #[test]
    fn nothing_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..400), size in 1_usize..100) {
        let message = [&[CLIENT_HELLO][..], &block(3, &bytes)].concat();
        for bytes in [records(&bytes, 400), records(&message, 400), bytes] {
            prop_assert_eq!(look(&bytes), look_at_pieces(&bytes, size));
        }
    }

    /// One byte changed or the end cut off: still nothing breaks, and the answer does not hang on the pieces it came in.
    #[test]
    fn spoiled_hellos_are_harmless(which: prop::sample::Index, at: prop::sample::Index, byte: u8, cut in 0_usize..40, size in 1_usize..100) {
        let corpus = corpus();
        let mut bytes = which.get(&corpus).1.clone();
        *at.get_mut(&mut bytes) = byte;
        bytes.truncate(bytes.len() - cut);
        prop_assert_eq!(look(&bytes), look_at_pieces(&bytes, size));
    }

    #[test]
    fn every_name_is_found(name in "[a-z0-9_-]{1,20}(\\.[a-z0-9_-]{1,20}){0,5}", size in 1_usize..200) {
        prop_assert_eq!(look(&hello(&[extension(43, &[2, 3, 4]), names(&[name.as_bytes()])], size)), named(&name));
    }
}
