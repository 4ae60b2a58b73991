//! Where a gRPC call goes, as guests say it: the name of a cluster, or Envoy's `GrpcService` message.

/// A protocol buffer's field with its length.
const LENGTH_DELIMITED: u64 = 2;

/// Where a call goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Service<'a> {
    pub(crate) cluster: &'a str,
    /// Empty if the message says nothing.
    pub(crate) authority: &'a str,
    /// Sent with each call, before the guest's own.
    pub(crate) metadata: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Service<'a> {
    /// None for what is neither.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Service<'a>> {
        Service::from_message(bytes).or_else(|| {
            let cluster = std::str::from_utf8(bytes).ok().filter(|name| !name.is_empty())?;
            Some(Service { cluster, ..Service::default() })
        })
    }

    /// `GrpcService { envoy_grpc = 1 { cluster_name = 1, authority = 2 }, initial_metadata = 5 { key = 1, value = 2 } }`;
    /// anything else in it is passed over. A name of a cluster is hardly ever a message, and never one with such a name.
    fn from_message(bytes: &'a [u8]) -> Option<Service<'a>> {
        let mut service = Service::default();
        for field in fields(bytes) {
            let (number, bytes) = field?;
            match number {
                1 => {
                    for field in fields(bytes) {
                        match field? {
                            (1, name) => service.cluster = std::str::from_utf8(name).ok()?,
                            (2, authority) => service.authority = std::str::from_utf8(authority).ok()?,
                            _ => {}
                        }
                    }
                }
                5 => service.metadata.push(header(bytes)?),
                _ => {}
            }
        }
        Some(service).filter(|service| !service.cluster.is_empty())
    }
}

/// `HeaderValue { key = 1, value = 2, raw_value = 3 }`
fn header(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut key, mut value): (&[u8], &[u8]) = (b"", b"");
    for field in fields(bytes) {
        match field? {
            (1, bytes) => key = bytes,
            (2 | 3, bytes) => value = bytes,
            _ => {}
        }
    }
    Some((key, value))
}

/// The length-delimited fields of a message; ends with a None if it is not one.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, &[u8])>> {
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match field(rest) {
                Some((found, after)) => {
                    rest = after;
                    if found.is_some() {
                        return Some(found);
                    }
                }
                None => {
                    rest = &[];
                    return Some(None);
                }
            }
        }
        None
    })
}

/// A field of which the number and content matter, or None for a number, and what comes after it.
type Field<'a> = (Option<(u64, &'a [u8])>, &'a [u8]);

fn field(bytes: &[u8]) -> Option<Field<'_>> {
    let (tag, rest) = number(bytes)?;
    let field = tag >> 3;
    if field == 0 {
        return None;
    }
    match tag & 7 {
        0 => number(rest).map(|(_, rest)| (None, rest)),
        1 => rest.get(8..).map(|rest| (None, rest)),
        LENGTH_DELIMITED => {
            let (length, rest) = number(rest)?;
            let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Some((field, content)), rest))
        }
        5 => rest.get(4..).map(|rest| (None, rest)),
        _ => None,
    }
}

/// A number of seven bits a byte.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index).min(63);
        if byte & 0x80 == 0 {
            return bytes.get(index + 1..).map(|rest| (value, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delimited(field: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![field << 3 | 2, content.len() as u8];
        bytes.extend_from_slice(content);
        bytes
    }

    #[test]
    fn a_message_or_else_a_name() {
        let envoy = delimited(1, &[delimited(1, b"auth"), delimited(2, b"auth.example")].concat());
        let metadata = delimited(5, &[delimited(1, b"x-a"), delimited(2, b"1")].concat());
        // With a timeout, a varint and a fixed number that we have no use for.
        let more = [delimited(3, &[8, 5]), vec![0x78, 0x96, 1], vec![0x7d, 0, 0, 0, 0]].concat();
        let message = [envoy.clone(), more, metadata].concat();
        let service = Service::parse(&message).unwrap();
        assert_eq!((service.cluster, service.authority), ("auth", "auth.example"));
        assert_eq!(service.metadata, [(&b"x-a"[..], &b"1"[..])]);

        for name in ["auth", "auth_cluster", "outbound|80||a.svc", "1", "J\u{1}x"] {
            let service = Service::parse(name.as_bytes()).unwrap();
            assert_eq!(service, Service { cluster: name, ..Service::default() });
        }
        assert_eq!(Service::parse(b""), None);
        assert_eq!(Service::parse(b"\xff\xff"), None);
        // Cut off: no message, and as a name it is nothing that exists.
        assert_ne!(Service::parse(&envoy[..envoy.len() - 1]).map(|service| service.cluster), Some("auth"));
    }

    proptest! {
        #[test]
        fn anything_is_taken_without_harm(bytes: Vec<u8>) {
            if let Some(service) = Service::parse(&bytes) {
                prop_assert!(!service.cluster.is_empty());
            }
        }
    }
}
