//! Escaping of what clients send, so that a log line is always one line and always parses.
//!
//! Both forms are plain printable ASCII whatever comes in: no control character reaches a terminal, no bidirectional mark reorders a line, and a quote
//! never ends a field early. Nearly every value needs no escaping at all, so that case is one scan and one copy.

/// Appends a value between double quotes, as it stands in the text format: `"` and `\` get a backslash, every byte that is not printable ASCII becomes
/// `\xNN`. Reversible, byte for byte.
pub(super) fn text_quoted(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    text::<false>(value, out);
    out.push(b'"');
}

/// Appends a value that stands unquoted between spaces in the text format: as [`text_quoted`], and a space becomes `\x20`.
pub(super) fn text_bare(value: &[u8], out: &mut Vec<u8>) {
    text::<true>(value, out);
}

fn text<const SPACES: bool>(value: &[u8], out: &mut Vec<u8>) {
    if all_plain::<SPACES>(value) {
        return out.extend_from_slice(value);
    }
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' ' if SPACES => out.extend_from_slice(b"\\x20"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte)]),
        }
    }
}

/// Appends a JSON string. Bytes that are not UTF-8 become U+FFFD, as with `String::from_utf8_lossy`; everything beyond printable ASCII is written as
/// `\uNNNN`.
pub(super) fn json_string(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if all_plain::<false>(value) {
        out.extend_from_slice(value);
    } else {
        for chunk in value.utf8_chunks() {
            chunk.valid().chars().for_each(|character| json_character(character, out));
            if !chunk.invalid().is_empty() {
                json_character(char::REPLACEMENT_CHARACTER, out);
            }
        }
    }
    out.push(b'"');
}

fn json_character(character: char, out: &mut Vec<u8>) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        ' '..='~' => out.push(character as u8),
        _ => {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let [high, low] = unit.to_be_bytes();
                out.extend_from_slice(&[b'\\', b'u', hex(high >> 4), hex(high), hex(low >> 4), hex(low)]);
            }
        }
    }
}

/// Whether all bytes are printable ASCII that means itself in both formats; spaces do not count as such where they are escaped too. Looks at every byte
/// without stopping early, because the compiler then looks at many at once.
fn all_plain<const SPACES: bool>(value: &[u8]) -> bool {
    let first = if SPACES { b'!' } else { b' ' };
    value.iter().fold(true, |plain, &byte| {
        plain & (byte >= first) & (byte <= b'~') & (byte != b'"') & (byte != b'\\')
    })
}

/// The lower four bits as a hexadecimal digit.
fn hex(bits: u8) -> u8 {
    b"0123456789abcdef"[usize::from(bits & 0xf)]
}
