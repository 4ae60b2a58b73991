//! Which authorities (`Host`, `:authority`, the target's own) are accepted.
//!
//! Stricter than the URI grammar on purpose: what virtual hosts, caches and backends would read differently (user
//! information, lists, percent-encoding) is refused.

/// Whether `authority` is a host name or an IP address, with or without a port.
pub fn is_valid(authority: &[u8]) -> bool {
    let Some((host, port)) = split(authority) else { return false };
    let host = match host {
        [b'[', address @ .., b']'] => is_ipv6(address),
        name => !name.is_empty() && name.len() <= 255 && name.iter().all(|byte| is_name_byte(*byte)),
    };
    host && port.is_none_or(is_port)
}

/// The host of an authority, without its port.
pub fn host(authority: &[u8]) -> &[u8] {
    split(authority).map_or(authority, |(host, _)| host)
}

/// Splits off the port; none if there are brackets where none belong.
fn split(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let host_end = match authority.first() {
        Some(b'[') => authority.iter().position(|byte| *byte == b']')? + 1,
        _ => authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    match rest {
        [] => Some((host, None)),
        [b':', port @ ..] => Some((host, Some(port))),
        _ => None,
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_ipv6(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_port(port: &[u8]) -> bool {
    !port.is_empty()
        && port.iter().all(u8::is_ascii_digit)
        && std::str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn hosts_and_ports() {
        for good in
            ["a", "example.com", "EXAMPLE.com:80", "1.2.3.4:65535", "[::1]", "[2001:db8::1]:8080", "my_app:1"]
        {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:65536",
            "a:+1",
            "a:1:2",
            "a@b",
            "u:p@b",
            "h/p",
            "a,b",
            "a b",
            "a%41",
            "::1",
            "[::1",
            "[]",
            "[::1]x",
            "[v1.x]",
            "[fe80::1%25eth0]",
            "h?q",
            "h#f",
            "h\\x",
            "h\u{e9}",
            "h\0",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
        assert!(!is_valid("a".repeat(256).as_bytes()));
    }

    proptest::proptest! {
        /// What is accepted, everybody behind reads as one host with one port.
        #[test]
        fn what_is_accepted_is_an_authority_for_others_too(authority in "([a-zA-Z0-9.:_~@/?#%,\\[\\] -]|\\PC){0,24}") {
            if is_valid(authority.as_bytes()) {
                let read: http::uri::Authority = authority.parse().unwrap();
                let port = read.port().map(|port| format!(":{port}")).unwrap_or_default();
                proptest::prop_assert_eq!(format!("{}{port}", read.host()), authority);
            }
        }

        #[test]
        fn no_bytes_panic(authority: Vec<u8>) {
            let _ = is_valid(&authority);
        }
    }
}
