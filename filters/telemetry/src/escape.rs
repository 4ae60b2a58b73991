//! Values in lines: one line stays one line, and reads as what it is, whatever a client sent.

/// Appends a value of a line of text: quotes and backslashes get a backslash, and bytes that are not printable ASCII become
/// `\xNN`.
pub(crate) fn text(value: &[u8], out: &mut Vec<u8>) {
    if value.iter().all(|byte| is_plain(*byte)) {
        return out.extend_from_slice(value);
    }
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]),
        }
    }
}

/// Appends a JSON string, in printable ASCII. Bytes that are not UTF-8 become `U+FFFD`.
pub(crate) fn json(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if value.iter().all(|byte| is_plain(*byte)) {
        out.extend_from_slice(value);
    } else {
        for letter in String::from_utf8_lossy(value).chars() {
            match letter {
                '"' | '\\' => out.extend_from_slice(&[b'\\', letter as u8]),
                ' '..='~' => out.push(letter as u8),
                _ => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        let [high, low] = unit.to_be_bytes();
                        let digits = [high >> 4, high & 15, low >> 4, low & 15].map(digit);
                        out.extend_from_slice(b"\\u");
                        out.extend_from_slice(&digits);
                    }
                }
            }
        }
    }
    out.push(b'"');
}

/// Appends decimal digits.
pub(crate) fn number(value: i64, out: &mut Vec<u8>) {
    let mut left = value.unsigned_abs();
    let mut digits = [0; 20];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
        used += 1;
        if left == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

fn is_plain(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Four bits as a digit.
fn digit(bits: u8) -> u8 {
    if bits < 10 { b'0' + bits } else { b'a' + bits - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_ends_a_line_or_a_quote() {
        let hostile = b"a\"b\\c\n\x1b\xff\xc3\xa9";
        assert_eq!(written(|out| text(hostile, out)), r#"a\"b\\c\x0a\x1b\xff\xc3\xa9"#);
        assert_eq!(written(|out| json(hostile, out)), r#""a\"b\\c\u000a\u001b\ufffd\u00e9""#);
        assert_eq!(written(|out| json("𝄞".as_bytes(), out)), r#""\ud834\udd1e""#);
    }

    #[test]
    fn numbers_have_their_digits() {
        for value in [0, 7, -1, 10, 1_234_567_890, i64::MAX, i64::MIN] {
            assert_eq!(written(|out| number(value, out)), value.to_string());
        }
    }
}
