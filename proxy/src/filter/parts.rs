//! How many parts a message of a guest has, counted before it is decoded: an empty part takes two bytes in it, and ten times as
//! much memory and time afterwards. Used by `extensions`.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// More than any function has a use for.
const MOST: usize = 2_048;
/// Bytes of a message that is decoded uncounted.
const SMALL: usize = 2 * MOST;

/// Whether a message, or what is left of it, has no more parts than that. What is inside of its parts does not count, but for the
/// field `inside`.
pub(super) fn are_few(message: &[u8], inside: Option<u32>) -> bool {
    message.len() <= SMALL || count(message, inside, MOST).is_some()
}

/// How many more there may be. None if there are too many, or the message is none.
fn count(mut message: &[u8], inside: Option<u32>, mut most: usize) -> Option<usize> {
    while !message.is_empty() {
        let (field, wire) = decode_key(&mut message).ok()?;
        most = most.checked_sub(1)?;
        if wire == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
            let (part, rest) = message.split_at_checked(length)?;
            if inside == Some(field) {
                most = count(part, None, most)?;
            }
            message = rest;
        } else {
            skip_field(wire, field, &mut message, DecodeContext::default()).ok()?;
        }
    }
    Some(most)
}

#[cfg(test)]
mod tests {
    use meshgate_abi::{DirectResponse, Header, RouteDecision};
    use prost::Message;

    use super::*;

    const DIRECT: Option<u32> = Some(5);

    fn decision(response_headers: usize, headers: usize, body: usize) -> Vec<u8> {
        let direct =
            DirectResponse { status: 200, body: vec![0x1a; body], headers: vec![Header::default(); headers] };
        let response_headers = vec![Header::default(); response_headers];
        RouteDecision { direct: Some(direct), response_headers, ..RouteDecision::default() }.encode_to_vec()
    }

    #[test]
    fn parts_are_counted_and_bytes_are_not() {
        assert!(are_few(&decision(0, 0, 200_000), DIRECT));
        assert!(are_few(&decision(1_000, 1_000, 200_000), DIRECT));
        assert!(!are_few(&decision(1_000, 1_060, 200_000), DIRECT));
        assert!(!are_few(&decision(0, 100_000, 0), DIRECT));
        assert!(are_few(&decision(0, 100_000, 0), None));
        assert!(!are_few(&decision(2_050, 0, 0), None));
    }

    #[test]
    fn what_is_no_message_has_too_many() {
        assert!(!are_few(&[0xff; SMALL + 1], DIRECT));
        let whole = decision(1_000, 0, 10_000);
        assert!(!are_few(&whole[..whole.len() - 1], DIRECT));
    }
}
