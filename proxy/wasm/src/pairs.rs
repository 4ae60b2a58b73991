//! Serialized pairs, the form in which header maps pass between guest and host:
//! `u32 n; n × (u32 key length, u32 value length); n × (key NUL value NUL)`, little-endian.

use crate::status::Status;

/// Bytes of a serialized map from a guest.
const MAX_BYTES: usize = 1 << 20;
/// Pairs of a serialized map from a guest.
const MAX_PAIRS: usize = 1_024;

/// A key and its value.
pub(crate) type Pair<'a> = (&'a [u8], &'a [u8]);

/// How many bytes these pairs take.
pub(crate) fn size<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> usize {
    pairs.fold(4, |size, (key, value)| size + 8 + key.len() + 1 + value.len() + 1)
}

/// Writes `count` pairs to `out`, which must be of their [`size`].
pub(crate) fn write<'a, I: Iterator<Item = Pair<'a>>>(
    out: &mut [u8],
    count: usize,
    pairs: impl Fn() -> I,
) -> Result<(), Status> {
    let mut at = Cursor { out, at: 0 };
    at.put(&(count as u32).to_le_bytes())?;
    for (key, value) in pairs() {
        at.put(&(key.len() as u32).to_le_bytes())?;
        at.put(&(value.len() as u32).to_le_bytes())?;
    }
    for (key, value) in pairs() {
        at.put(key)?;
        at.put(&[0])?;
        at.put(value)?;
        at.put(&[0])?;
    }
    Ok(())
}

/// The pairs as a new buffer.
pub(crate) fn encode<'a, I: Iterator<Item = Pair<'a>>>(pairs: impl Fn() -> I) -> Vec<u8> {
    let mut out = vec![0; size(pairs())];
    let count = pairs().count();
    // The buffer has the very size of the pairs.
    let written = write(&mut out, count, pairs);
    debug_assert_eq!(written, Ok(()));
    out
}

struct Cursor<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let end = self.at + bytes.len();
        self.out.get_mut(self.at..end).ok_or(Status::SerializationFailure)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }
}

/// The pairs in a buffer from a guest; BadArgument if it is anything but whole and exact. No bytes, one NUL and
/// a count of 0 are all the empty map.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Pair<'_>>, Status> {
    if matches!(bytes, [] | [0]) {
        return Ok(Vec::new());
    }
    if bytes.len() > MAX_BYTES {
        return Err(Status::BadArgument);
    }
    let (count, rest) = number(bytes)?;
    if count > MAX_PAIRS {
        return Err(Status::BadArgument);
    }
    let (lengths, mut rest) = rest.split_at_checked(count * 8).ok_or(Status::BadArgument)?;
    let mut pairs = Vec::with_capacity(count);
    for lengths in lengths.chunks_exact(8) {
        let (key_length, lengths) = number(lengths)?;
        let (value_length, _) = number(lengths)?;
        let (key, after) = terminated(rest, key_length)?;
        let (value, after) = terminated(after, value_length)?;
        pairs.push((key, value));
        rest = after;
    }
    if rest.is_empty() { Ok(pairs) } else { Err(Status::BadArgument) }
}

fn number(bytes: &[u8]) -> Result<(usize, &[u8]), Status> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Status::BadArgument)?;
    Ok((u32::from_le_bytes(*number) as usize, rest))
}

fn terminated(bytes: &[u8], length: usize) -> Result<(&[u8], &[u8]), Status> {
    let (text, rest) = bytes.split_at_checked(length).ok_or(Status::BadArgument)?;
    match rest {
        [0, rest @ ..] => Ok((text, rest)),
        _ => Err(Status::BadArgument),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_form_is_the_abis() {
        let pairs = [(&b"a"[..], &b"bc"[..]), (&b""[..], &b"\0"[..])];
        let bytes = encode(|| pairs.into_iter());
        assert_eq!(bytes, b"\x02\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0a\0bc\0\0\0\0");
        assert_eq!(decode(&bytes), Ok(pairs.to_vec()));
        assert_eq!(encode(std::iter::empty), [0; 4]);
    }

    #[test]
    fn all_forms_of_empty() {
        for bytes in [&b""[..], b"\0", b"\0\0\0\0"] {
            assert_eq!(decode(bytes), Ok(Vec::new()));
        }
    }

    #[test]
    fn anything_inexact_is_refused() {
        let whole = encode(|| [(&b"key"[..], &b"value"[..])].into_iter());
        for end in 2..whole.len() {
            assert_eq!(decode(&whole[..end]), Err(Status::BadArgument), "cut at {end}");
        }
        assert_eq!(decode(&[&whole[..], b"x"].concat()), Err(Status::BadArgument));
        let mut no_nul = whole.clone();
        *no_nul.last_mut().unwrap() = b'x';
        assert_eq!(decode(&no_nul), Err(Status::BadArgument));
        assert_eq!(decode(b"\xff\xff\xff\xff"), Err(Status::BadArgument));
        let many = encode(|| vec![(&b""[..], &b""[..]); MAX_PAIRS + 1].into_iter());
        assert_eq!(decode(&many), Err(Status::BadArgument));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pairs in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..20)) {
            let borrowed: Vec<_> = pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            let bytes = encode(|| borrowed.iter().copied());
            prop_assert_eq!(decode(&bytes), Ok(borrowed));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_lengths_panic(count in 0u32..6, lengths in prop::collection::vec(0u32..40, 0..12), tail: Vec<u8>) {
            let mut bytes = count.to_le_bytes().to_vec();
            lengths.iter().for_each(|length| bytes.extend(length.to_le_bytes()));
            bytes.extend(tail);
            let _ = decode(&bytes);
        }
    }
}
