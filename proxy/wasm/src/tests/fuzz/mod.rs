//! Fuzz targets. Each is one function of bytes that panics if something is wrong; it runs over the corpus stored in
//! `proxy/wasm/fuzz/corpus/<target>`, over changes of it, and over inputs made for the target.
//!
//! More of it: `PROPTEST_CASES=100000 cargo test -p meshgate-wasm fuzz`. A new seed is a file put into the corpus.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use proptest::prelude::*;

mod guests;
mod hostcalls;
mod modules;
mod pairs;

/// How many cases proptest tries: as many as the environment says, else `usual`.
fn cases(usual: u32) -> ProptestConfig {
    let told = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: told.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
}

/// The stored inputs of a target, by file name. Text is assembled: it says better what a module is about.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(path).unwrap();
        (
            name.clone(),
            if name.ends_with(".wat") { wat::parse_bytes(&bytes).unwrap().into_owned() } else { bytes },
        )
    };
    let mut seeds: Vec<_> = entries.map(read).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds
}

/// Runs a target over its corpus, and says which seed is to blame.
fn replay(target: &str, run: fn(&[u8])) {
    for (name, bytes) in corpus(target) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&bytes))) {
            eprintln!("the seed is fuzz/corpus/{target}/{name}");
            resume_unwind(panic);
        }
    }
}

/// A small change of an input.
#[derive(Clone, Debug)]
enum Change {
    Set(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Double(usize),
    /// Four bytes that make a number on which arithmetic fails.
    Number(u32),
    Cut,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any::<u8>().prop_map(Change::Set),
        2 => prop::collection::vec(any::<u8>(), 1..9).prop_map(Change::Insert),
        2 => (1..9_usize).prop_map(Change::Remove),
        1 => (1..65_usize).prop_map(Change::Double),
        2 => prop::sample::select(vec![0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fffc, u32::MAX]).prop_map(Change::Number),
        1 => Just(Change::Cut),
    ]
}

/// A seed of the target with some changes.
fn changed(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), change()), 1..6);
    (prop::sample::select(seeds), changes).prop_map(|(mut bytes, changes)| {
        for (place, change) in changes {
            let at = place.index(bytes.len() + 1);
            apply(&mut bytes, at, change);
        }
        bytes
    })
}

fn apply(bytes: &mut Vec<u8>, at: usize, change: Change) {
    let end = |length: usize| (at + length).min(bytes.len());
    match change {
        Change::Set(byte) => bytes.splice(at..end(1), [byte]).for_each(drop),
        Change::Insert(more) => bytes.splice(at..at, more).for_each(drop),
        Change::Remove(length) => bytes.drain(at..end(length)).for_each(drop),
        Change::Double(length) => {
            let part = bytes[at..end(length)].to_vec();
            bytes.splice(at..at, part).for_each(drop);
        }
        Change::Number(number) => bytes.splice(at..end(4), number.to_le_bytes()).for_each(drop),
        Change::Cut => bytes.truncate(at),
    }
}
