use std::rc::Rc;

use meshgate_config::AddressRange;
use meshgate_wasm::Connection;

use super::*;
use crate::message::ForwardedCertificate;

/// Proxies in 10.0.0.0/8 and 2001:db8::/32, believed in these fields.
fn believing(fields: &[&str]) -> Forwarding {
    let range = |text: &str| serde_json::from_value::<AddressRange>(text.into()).unwrap();
    Forwarding(Some(Forwarded {
        from: vec![range("10.0.0.0/8"), range("2001:db8::/32")],
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
    }))
}

fn usual() -> Forwarding {
    believing(&["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"])
}

fn from(source: Address) -> Peer {
    let own = SocketAddr::from(([127, 0, 0, 1], 80));
    Peer::cleartext(Rc::new(Connection::cleartext(1, source, own)))
}

fn at(address: &str) -> Peer {
    from(Address::Ip(address.parse().unwrap()))
}

fn fields_of(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// Marks a request that came with these fields.
fn marked(forwarding: &Forwarding, peer: &Peer, fields: &[(&str, &str)]) -> (Origin, HeaderMap) {
    let mut headers = fields_of(fields);
    let claims = headers.keys().any(|name| fields::is_provenance(name.as_str()));
    let client = forwarding.client(&headers, peer);
    let origin = forwarding.mark(&mut headers, peer, claims);
    assert_eq!(origin.client, client, "it is the same before and after");
    (origin, headers)
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

const CLAIMS: [(&str, &str); 8] = [
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "shop.example"),
    ("x-forwarded-port", "443"),
    ("x-forwarded-client-cert", "URI=spiffe://a/b"),
    ("x-forwarded-user", "root"),
    ("forwarded", "for=192.0.2.7"),
    ("x-meshgate-route", "x"),
];

#[test]
fn strangers_claims_are_replaced() {
    for (forwarding, peer, address) in [
        (Forwarding::default(), at("10.0.0.1:4711"), "10.0.0.1"),
        (usual(), at("192.0.2.9:4711"), "192.0.2.9"),
        (usual(), at("[::ffff:192.0.2.9]:4711"), "192.0.2.9"),
        (usual(), at("[2001:db9::1]:4711"), "2001:db9::1"),
    ] {
        let (origin, headers) = marked(&forwarding, &peer, &CLAIMS);
        let expected = Origin { client: peer.connection.source, scheme: Scheme::HTTP, malformed: false };
        assert_eq!(origin, expected);
        assert_eq!(all(&headers, "x-forwarded-for"), [address]);
        assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
        assert_eq!(headers.len(), 3, "and the id: {headers:?}");
    }
    let (_, headers) = marked(&Forwarding::default(), &from(Address::Unix("")), &CLAIMS);
    assert_eq!(all(&headers, "x-forwarded-for"), [""; 0]);
}

#[test]
fn proxies_are_believed_in_the_fields_that_are_named() {
    for peer in [at("10.0.0.1:4711"), at("[::ffff:10.0.0.1]:4711")] {
        let (origin, headers) = marked(&usual(), &peer, &CLAIMS);
        let client = Address::Ip("192.0.2.7:0".parse().unwrap());
        assert_eq!(origin, Origin { client, scheme: Scheme::HTTPS, malformed: false });
        assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7, 10.0.0.1"]);
        for (name, value) in &CLAIMS[1..4] {
            assert_eq!(all(&headers, name), [*value]);
        }
        for (name, _) in &CLAIMS[4..] {
            assert_eq!(all(&headers, name), [""; 0], "{name}");
        }
    }
    let others = believing(&["x-forwarded-client-cert", "x-forwarded-user", "forwarded", "x-meshgate-route"]);
    let (origin, headers) = marked(&others, &at("10.0.0.1:4711"), &CLAIMS);
    let client = Address::Ip("10.0.0.1:4711".parse().unwrap());
    assert_eq!(origin, Origin { client, scheme: Scheme::HTTP, malformed: false });
    assert_eq!(all(&headers, "x-forwarded-for"), ["10.0.0.1"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
    for (name, value) in &CLAIMS[4..] {
        assert_eq!(all(&headers, name), [*value]);
    }
    let (_, headers) = marked(&others, &at("10.0.0.1:4711"), &[("accept", "*/*")]);
    assert_eq!(all(&headers, "x-forwarded-for"), ["10.0.0.1"]);
}

#[test]
fn a_clients_own_certificate_goes_before_what_its_proxy_says() {
    let facts = Rc::new(Connection::cleartext(1, "10.0.0.1:1".parse::<SocketAddr>().unwrap(), {
        SocketAddr::from(([127, 0, 0, 1], 443))
    }));
    let forwarding = believing(&["x-forwarded-client-cert"]);
    let own = || Some(HeaderValue::from_static("Hash=ab"));
    for (certificate, expected) in [
        (None, &["URI=spiffe://a/b"][..]),
        (Some(ForwardedCertificate { keep: false, add: own() }), &["Hash=ab"][..]),
        (Some(ForwardedCertificate { keep: true, add: own() }), &["URI=spiffe://a/b,Hash=ab"][..]),
    ] {
        let peer = Peer::secure(Rc::clone(&facts), None, certificate);
        let (_, headers) = marked(&forwarding, &peer, &CLAIMS);
        assert_eq!(all(&headers, "x-forwarded-client-cert"), expected);
    }
}

#[test]
fn the_client_is_the_last_address_that_is_no_proxy() {
    // The lines of the field; the client, and the line that goes on. The proxy itself is 10.9.9.9:5.
    let cases: &[(&[&str], &str, &str)] = &[
        (&["192.0.2.7"], "192.0.2.7:0", "192.0.2.7, 10.9.9.9"),
        (&["192.0.2.7:4711"], "192.0.2.7:4711", "192.0.2.7, 10.9.9.9"),
        (&["6.6.6.6, 192.0.2.7"], "192.0.2.7:0", "192.0.2.7, 10.9.9.9"),
        (&["10.6.6.6, 192.0.2.7"], "192.0.2.7:0", "192.0.2.7, 10.9.9.9"),
        (
            &["6.6.6.6, 192.0.2.7 ,10.0.0.3,\t10.0.0.4"],
            "192.0.2.7:0",
            "192.0.2.7, 10.0.0.3, 10.0.0.4, 10.9.9.9",
        ),
        (
            &["6.6.6.6", "192.0.2.7, 10.0.0.3", "10.0.0.4"],
            "192.0.2.7:0",
            "192.0.2.7, 10.0.0.3, 10.0.0.4, 10.9.9.9",
        ),
        (&["10.0.0.3, 10.0.0.4"], "10.0.0.3:0", "10.0.0.3, 10.0.0.4, 10.9.9.9"),
        (&["2001:db9::7, 2001:db8::1"], "[2001:db9::7]:0", "2001:db9::7, 2001:db8::1, 10.9.9.9"),
        (&["[2001:db9::7]"], "[2001:db9::7]:0", "2001:db9::7, 10.9.9.9"),
        (&["[2001:db9::7]:4711"], "[2001:db9::7]:4711", "2001:db9::7, 10.9.9.9"),
        (&["::ffff:192.0.2.7, ::ffff:10.0.0.3"], "192.0.2.7:0", "192.0.2.7, 10.0.0.3, 10.9.9.9"),
        (&["192.0.2.7, , ,"], "192.0.2.7:0", "192.0.2.7, 10.9.9.9"),
        (&["", ","], "10.9.9.9:5", "10.9.9.9"),
    ];
    for (lines, client, line) in cases {
        let fields: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let (origin, headers) = marked(&usual(), &at("10.9.9.9:5"), &fields);
        assert_eq!(origin.client, Address::Ip(client.parse().unwrap()), "{lines:?}");
        assert!(!origin.malformed, "{lines:?}");
        assert_eq!(all(&headers, "x-forwarded-for"), [*line], "{lines:?}");
    }
}

#[test]
fn what_is_no_address_ends_the_way() {
    let cases: &[(&str, &str, &str)] = &[
        ("unknown", "10.9.9.9:5", "10.9.9.9"),
        ("192.0.2.7, unknown, 10.0.0.3", "10.0.0.3:0", "10.0.0.3, 10.9.9.9"),
        ("192.0.2.7, _hidden", "10.9.9.9:5", "10.9.9.9"),
        ("192.0.2.7 10.0.0.3", "10.9.9.9:5", "10.9.9.9"),
        ("192.0.2.300", "10.9.9.9:5", "10.9.9.9"),
        ("192.0.2.07", "10.9.9.9:5", "10.9.9.9"),
        ("192.0.2.7:port", "10.9.9.9:5", "10.9.9.9"),
        ("[192.0.2.7]", "10.9.9.9:5", "10.9.9.9"),
        ("192.0.2.0/24", "10.9.9.9:5", "10.9.9.9"),
        ("for=192.0.2.7", "10.9.9.9:5", "10.9.9.9"),
        ("\"192.0.2.7\"", "10.9.9.9:5", "10.9.9.9"),
    ];
    for (line, client, left) in cases {
        let (origin, headers) = marked(&usual(), &at("10.9.9.9:5"), &[("x-forwarded-for", line)]);
        assert_eq!(origin.client, Address::Ip(client.parse().unwrap()), "{line}");
        assert!(origin.malformed, "{line}");
        assert_eq!(all(&headers, "x-forwarded-for"), [*left], "{line}");
    }
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", HeaderValue::from_bytes(b"192.0.2.7, \xff\xfe").unwrap());
    assert!(usual().mark(&mut headers, &at("10.9.9.9:5"), true).malformed);
    assert_eq!(all(&headers, "x-forwarded-for"), ["10.9.9.9"]);
}

#[test]
fn proxies_on_a_unix_socket_are_believed() {
    let forwarding =
        Forwarding(Some(Forwarded { from: Vec::new(), fields: vec!["x-forwarded-for".to_owned()] }));
    let peer = from(Address::Unix(""));
    let (origin, headers) = marked(&forwarding, &peer, &[("x-forwarded-for", "6.6.6.6, 192.0.2.7")]);
    assert_eq!(origin.client, Address::Ip("192.0.2.7:0".parse().unwrap()));
    assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7"]);
    let (origin, headers) = marked(&forwarding, &peer, &[("x-forwarded-for", "unknown")]);
    assert_eq!(origin.client, Address::Unix(""));
    assert_eq!(all(&headers, "x-forwarded-for"), [""; 0]);
}

#[test]
fn the_scheme_is_what_one_field_says() {
    for (said, scheme, left) in [
        (&["https"][..], Scheme::HTTPS, "https"),
        (&["HTTPS"], Scheme::HTTPS, "HTTPS"),
        (&["http"], Scheme::HTTP, "http"),
        (&["wss"], Scheme::HTTPS, "wss"),
        (&["ws"], Scheme::HTTP, "ws"),
        (&["https", "https"], Scheme::HTTP, "http"),
        (&["https, http"], Scheme::HTTP, "http"),
        (&["ftp"], Scheme::HTTP, "http"),
        (&[""], Scheme::HTTP, "http"),
        (&[], Scheme::HTTP, "http"),
    ] {
        let mut fields: Vec<_> = said.iter().map(|said| ("x-forwarded-proto", *said)).collect();
        fields.push(("x-forwarded-for", "192.0.2.7"));
        let (origin, headers) = marked(&usual(), &at("10.0.0.1:1"), &fields);
        assert_eq!(origin.scheme, scheme, "{said:?}");
        assert_eq!(all(&headers, "x-forwarded-proto"), [left], "{said:?}");
    }
}

/// What may stand between two commas, likely to be nearly an address.
const ENTRY: &str = "10\\.0\\.0\\.[0-9]{1,3}|192\\.0\\.2\\.[0-9]{1,3}|2001:db8::[0-9a-f]|2001:db9::[0-9a-f]|\
                     \\[2001:db9::1\\](:[0-9]{1,6})?|10\\.1\\.1\\.1:[0-9]{1,6}|unknown| |[ -~]{0,9}";

proptest::proptest! {
    /// Whatever a proxy passes on: the addresses that stay are the latest ones, all but the first are proxies', and whoever
    /// reads the line that goes on finds the same client.
    #[test]
    fn the_next_hop_finds_the_same_client(lines in proptest::collection::vec(proptest::collection::vec(ENTRY, 0..5), 0..4)) {
        let lines: Vec<String> = lines.iter().map(|entries| entries.join(",")).collect();
        let fields: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", line.as_str())).collect();
        let peer = at("10.9.9.9:5");
        let (origin, headers) = marked(&usual(), &peer, &fields);
        let left = all(&headers, "x-forwarded-for");
        proptest::prop_assert_eq!(left.len(), 1);
        let way: Vec<IpAddr> = left[0].split(", ").map(|entry| entry.parse().unwrap()).collect();
        let (proxy, before) = way.split_last().unwrap();
        proptest::prop_assert_eq!(proxy, &IpAddr::from([10, 9, 9, 9]));
        let Address::Ip(client) = origin.client else { panic!("{origin:?}") };
        proptest::prop_assert_eq!(client.ip(), *before.first().unwrap_or(proxy));
        let proxies = usual().0.unwrap();
        proptest::prop_assert!(before.iter().skip(1).all(|address| is_among(&proxies, *address)));
        let entries: Vec<&str> = lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty()).collect();
        let latest = &entries[entries.len() - before.len()..];
        for (entry, left) in latest.iter().zip(before) {
            proptest::prop_assert_eq!(address(entry.as_bytes()).map(|address| address.ip()), Some(*left));
        }
        let (again, _) = marked(&usual(), &at("10.8.8.8:5"), &[("x-forwarded-for", left[0].as_str())]);
        let Address::Ip(again) = again.client else { panic!("{again:?}") };
        proptest::prop_assert_eq!(again.ip(), client.ip());
    }

    /// Whatever bytes stand there, it ends well.
    #[test]
    fn any_bytes_may_stand_there(bytes in proptest::collection::vec(0x20_u8..=0xff, 0..200)) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, value);
        usual().mark(&mut headers, &at("10.9.9.9:5"), true);
        proptest::prop_assert!(all(&headers, "x-forwarded-for")[0].ends_with("10.9.9.9"));
    }
}
