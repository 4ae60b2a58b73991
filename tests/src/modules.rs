//! The wasm modules that `cargo xtask filters` builds, and variants of them.

use std::path::Path;

use crate::command::repository;

/// A guest of `tests/guests`, as bytes.
pub fn guest(name: &str) -> Vec<u8> {
    module("guests", name)
}

/// A guest in a language whose compiler a machine may lack. `None`: it does, which is said aloud; in CI that fails the test.
pub fn foreign_guest(name: &str) -> Option<Vec<u8>> {
    foreign("guests", name)
}

/// An example in such a language.
pub fn foreign_example(name: &str) -> Option<Vec<u8>> {
    foreign("examples", name)
}

fn foreign(folder: &str, name: &str) -> Option<Vec<u8>> {
    let reason = repository().join("target").join(folder).join(name).with_extension("missing");
    let Ok(reason) = std::fs::read_to_string(reason) else { return Some(module(folder, name)) };
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{reason}");
    #[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
    {
        eprintln!("NOT TESTED: {reason}");
    }
    None
}

/// A standard filter, as bytes.
pub fn filter(name: &str) -> Vec<u8> {
    module("filters", name)
}

/// A filter of `examples`, as bytes.
pub fn example(name: &str) -> Vec<u8> {
    module("examples", name)
}

fn module(folder: &str, name: &str) -> Vec<u8> {
    let path = repository().join(Path::new("target").join(folder).join(name).with_extension("wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}: run `cargo xtask test`, which builds the modules first", path.display())
    })
}

/// The same module with one more custom section: another hash, the same behaviour.
pub fn with_custom_section(module: &[u8], name: &str, content: &[u8]) -> Vec<u8> {
    let mut section = leb128(name.len());
    section.extend(name.as_bytes());
    section.extend(content);
    let mut longer = module.to_vec();
    longer.push(0); // the id of custom sections
    longer.extend(leb128(section.len()));
    longer.extend(section);
    longer
}

/// Unsigned LEB128, wasm's form of a length.
pub(crate) fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
