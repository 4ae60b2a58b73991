//! A module with other imports: for hosts that refuse a module for a function that they do not have.

use crate::modules::leb128;

/// The same module, in which every function whose name is in `missing` is another one of the same type: never called, it
/// makes no difference. The names are `module.function`.
pub fn without_imports(module: &[u8], missing: &[&str]) -> Vec<u8> {
    const HEAD: usize = 8;
    const IMPORTS: u8 = 2;
    let mut out = module[..HEAD].to_vec();
    let mut rest = &module[HEAD..];
    while let Some((&id, after)) = rest.split_first() {
        rest = after;
        let length = number(&mut rest);
        let (section, after) = rest.split_at(length);
        rest = after;
        let section = if id == IMPORTS { renamed(section, missing) } else { section.to_vec() };
        out.push(id);
        out.extend(leb128(section.len()));
        out.extend(section);
    }
    out
}

struct Import<'a> {
    module: &'a [u8],
    name: &'a [u8],
    kind: usize,
}

fn renamed(mut section: &[u8], missing: &[&str]) -> Vec<u8> {
    let count = number(&mut section);
    let imports: Vec<_> = (0..count)
        .map(|_| {
            let (module, name) = (text(&mut section), text(&mut section));
            assert_eq!(take(&mut section, 1), [0], "only functions are imported");
            Import { module, name, kind: number(&mut section) }
        })
        .collect();
    let is_missing = |import: &Import<'_>| {
        let full = [import.module, b".", import.name].concat();
        missing.iter().any(|name| name.as_bytes() == full)
    };
    let mut out = leb128(count);
    for import in &imports {
        let instead = imports.iter().find(|other| other.kind == import.kind && !is_missing(other));
        let shown =
            if is_missing(import) { instead.expect("another function of the same type") } else { import };
        for part in [shown.module, shown.name] {
            out.extend(leb128(part.len()));
            out.extend(part);
        }
        out.push(0);
        out.extend(leb128(import.kind));
    }
    out
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn text<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = number(bytes);
    take(bytes, length)
}

/// An unsigned LEB128 number.
fn number(bytes: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
