//! Protocol Buffers, as far as OTLP needs them: written field by field into one buffer.

/// Appends a message as a field.
pub(crate) fn record(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Writer<'_>)) {
    Writer::new(out).message(number, write);
}

/// Writes the fields of a message.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer at the end of this buffer.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Text; an empty one is left out.
    pub(crate) fn text(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    /// Bytes; none are left out.
    pub(crate) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.key(number, 2);
            varint(self.out, bytes.len() as u64);
            self.out.extend_from_slice(bytes);
        }
    }

    /// A number; 0 is left out.
    pub(crate) fn number(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.key(number, 0);
            varint(self.out, value);
        }
    }

    /// A number of eight bytes.
    pub(crate) fn fixed64(&mut self, number: u32, value: u64) {
        self.key(number, 1);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// A number of four bytes.
    pub(crate) fn fixed32(&mut self, number: u32, value: u32) {
        self.key(number, 5);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// A message.
    pub(crate) fn message(&mut self, number: u32, write: impl FnOnce(&mut Writer<'_>)) {
        self.key(number, 2);
        // Most are short: their length has one byte, and only of longer ones what follows is moved.
        let place = self.out.len();
        self.out.push(0);
        write(&mut Writer { out: self.out });
        let length = self.out.len() - place - 1;
        let mut prefix = Vec::new();
        varint(&mut prefix, length as u64);
        self.out.splice(place..=place, prefix);
    }

    /// Fields that are written already.
    pub(crate) fn written(&mut self, fields: &[u8]) {
        self.out.extend_from_slice(fields);
    }

    /// `KeyValue` with a text.
    pub(crate) fn attribute(&mut self, number: u32, name: &str, value: &str) {
        self.message(number, |pair| {
            pair.text(1, name);
            pair.message(2, |any| {
                any.key(1, 2);
                varint(any.out, value.len() as u64);
                any.out.extend_from_slice(value.as_bytes());
            });
        });
    }

    /// `KeyValue` with a number.
    pub(crate) fn count(&mut self, number: u32, name: &str, value: u64) {
        self.message(number, |pair| {
            pair.text(1, name);
            pair.message(2, |any| {
                any.key(3, 0);
                varint(any.out, value);
            });
        });
    }

    /// A field's number and wire type.
    fn key(&mut self, number: u32, kind: u32) {
        varint(self.out, u64::from(number << 3 | kind));
    }
}

/// How many messages stand here, one after the other, each as a field with a short number.
pub(crate) fn count(mut messages: &[u8]) -> u32 {
    let mut count = 0;
    while let Some((_, rest)) = messages.split_first() {
        let (mut length, mut shift, mut rest) = (0_usize, 0, rest);
        while let Some((byte, after)) = rest.split_first() {
            length |= usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            (shift, rest) = (shift + 7, after);
            if byte & 0x80 == 0 {
                break;
            }
        }
        messages = rest.get(length..).unwrap_or_default();
        count += 1;
    }
    count
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_the_specification() {
        let mut out = Vec::new();
        record(&mut out, 2, |span| {
            span.bytes(1, &[0xab; 2]);
            span.text(5, "");
            span.number(6, 300);
            span.fixed64(7, 1);
            span.fixed32(16, 2);
            span.attribute(9, "k", "");
            span.count(9, "n", 1);
        });
        let expected: &[&[u8]] = &[
            &[0x12, 40],
            &[0x0a, 2, 0xab, 0xab],
            &[0x30, 0xac, 0x02],
            &[0x39, 1, 0, 0, 0, 0, 0, 0, 0],
            &[0x85, 0x01, 2, 0, 0, 0],
            &[0x4a, 7, 0x0a, 1, b'k', 0x12, 2, 0x0a, 0],
            &[0x4a, 7, 0x0a, 1, b'n', 0x12, 2, 0x18, 1],
        ];
        assert_eq!(out[2..], expected[1..].concat());
        assert_eq!(out[..2], *expected[0]);
    }

    #[test]
    fn long_messages_get_a_long_length() {
        let mut out = Vec::new();
        record(&mut out, 1, |message| message.bytes(1, &[7; 300]));
        assert_eq!(out[..6], [0x0a, 0xaf, 0x02, 0x0a, 0xac, 0x02]);
        assert_eq!(out.len(), 6 + 300);
    }
}
