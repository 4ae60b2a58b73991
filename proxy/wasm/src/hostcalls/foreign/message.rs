//! What the argument of a function may be that takes a message: so many bytes, and so many parts, which are counted before anybody
//! decodes them. An empty part takes two bytes in a message, and ten times as much memory and time afterwards.

use meshgate_abi::function;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::status::Status;

/// How the names of all functions begin that no other host has. Each takes a message, or nothing.
const OURS: &str = "meshgate.";
/// Those of other hosts that take one, whoever answers them.
const OTHERS: [&str; 4] = ["declare_property", "set_envoy_filter_state", "sign", "verify_signature"];
/// Bytes of a message.
const MOST_BYTES: usize = 256 << 10;
/// Those with a text that is signed, such as a whole body, and bytes of theirs.
const SIGNED: [&str; 2] = ["sign", "verify_signature"];
const MOST_SIGNED: usize = (1 << 20) + (64 << 10);
/// Parts of a message: more than any function has a use for.
const MOST_PARTS: usize = 2_048;
/// Bytes of a message that is decoded uncounted.
const SMALL: usize = 2 * MOST_PARTS;
/// The field of a route's decision with the direct response, whose fields are counted as well.
const DIRECT: u32 = 5;

/// Refuses what is too much to be decoded within a callback's time. Functions that take plain bytes, and those that are
/// not known here, take what there is.
pub(super) fn check(name: &str, argument: &[u8]) -> Result<(), Status> {
    if !name.starts_with(OURS) && !OTHERS.contains(&name) {
        return Ok(());
    }
    let inside = (name == function::ROUTE).then_some(DIRECT);
    let most = if SIGNED.contains(&name) { MOST_SIGNED } else { MOST_BYTES };
    if argument.len() > most || !has_few_parts(argument, inside) {
        return Err(Status::BadArgument);
    }
    Ok(())
}

/// What is inside of its parts does not count, but for the field `inside`.
fn has_few_parts(message: &[u8], inside: Option<u32>) -> bool {
    message.len() <= SMALL || count(message, inside, MOST_PARTS).is_some()
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

    fn decision(response_headers: usize, headers: usize, body: usize) -> Vec<u8> {
        let direct =
            DirectResponse { status: 200, body: vec![0x1a; body], headers: vec![Header::default(); headers] };
        let response_headers = vec![Header::default(); response_headers];
        RouteDecision { direct: Some(direct), response_headers, ..RouteDecision::default() }.encode_to_vec()
    }

    fn is_taken(name: &str, argument: &[u8]) -> bool {
        check(name, argument).is_ok()
    }

    #[test]
    fn parts_are_counted_and_bytes_are_not() {
        assert!(is_taken(function::ROUTE, &decision(0, 0, 200_000)));
        assert!(is_taken(function::ROUTE, &decision(1_000, 1_000, 200_000)));
        assert!(!is_taken(function::ROUTE, &decision(1_000, 1_060, 200_000)));
        assert!(!is_taken(function::ROUTE, &decision(0, 100_000, 0)));
        assert!(is_taken(function::RETRY, &decision(0, 100_000, 0)));
        assert!(!is_taken(function::RETRY, &decision(2_050, 0, 0)));
    }

    #[test]
    fn what_is_no_message_has_too_many() {
        assert!(!is_taken(function::ROUTE, &[0xff; SMALL + 1]));
        let whole = decision(1_000, 0, 10_000);
        assert!(!is_taken(function::ROUTE, &whole[..whole.len() - 1]));
    }

    #[test]
    fn a_message_has_so_many_bytes() {
        // One part, with its key and its length.
        let of = |bytes: usize| decision(0, 0, bytes);
        let most = (0..32).map(|less| of(MOST_BYTES - less)).find(|whole| whole.len() == MOST_BYTES).unwrap();
        assert!(is_taken("declare_property", &most));
        let more = [most, vec![0x7a, 0x00]].concat();
        assert!(!is_taken("declare_property", &more) && is_taken("sign", &more));
        assert!(!is_taken("sign", &of(MOST_SIGNED)));
    }

    #[test]
    fn only_messages_are_looked_at() {
        let many = [0x7a_u8, 0x00].repeat(MOST_BYTES);
        for name in ["compress", "uncompress", "clear_route_cache", "expr_create", "meshgate", ""] {
            assert!(is_taken(name, &many), "{name}");
        }
    }
}
