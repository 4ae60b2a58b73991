use std::rc::Rc;

use http::Request;
use meshgate_wasm::Connection;

use super::*;

fn peer() -> Peer {
    let address = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    Peer::cleartext(Rc::new(Connection::cleartext(1, address("192.0.2.7:4711"), address("127.0.0.1:80"))))
}

/// More than most tests need.
const MOST_FIELDS: usize = 20;

fn arrive(request: Request<()>, forwarding: Forwarding) -> Result<RequestHead, Rejection> {
    let arrived = request_arrived(request.into_parts().0, &peer(), &forwarding, MOST_FIELDS, &[]);
    arrived.map(|arrived| arrived.head).map_err(|(rejection, _)| rejection)
}

fn request(method: &str, target: &str, version: Version, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(target).version(version);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn get(fields: &[(&str, &str)]) -> Result<RequestHead, Rejection> {
    let fields = [&[("host", "a.example")], fields].concat();
    arrive(request("GET", "/", Version::HTTP_11, &fields), Forwarding::default())
}

fn status(outcome: Result<RequestHead, Rejection>) -> u16 {
    outcome.map_or_else(|rejection| rejection.status.as_u16(), |_| 200)
}

#[test]
fn number_of_fields_is_bounded() {
    // Lines of one name count as those of several do: a client may send a cookie in pieces.
    for one_name in [true, false] {
        for (number, expected) in [(MOST_FIELDS, 200), (MOST_FIELDS + 1, 431)] {
            let names: Vec<_> = (0..number).map(|number| format!("x-{number}")).collect();
            let fields: Vec<_> =
                names.iter().map(|name| (if one_name { "cookie" } else { name.as_str() }, "a=b")).collect();
            let request = request("GET", "http://a.example/", Version::HTTP_2, &fields);
            assert_eq!(status(arrive(request, Forwarding::default())), expected, "{number} fields");
        }
    }
}

#[test]
fn targets_and_authorities() {
    const V10: Version = Version::HTTP_10;
    const V11: Version = Version::HTTP_11;
    const V2: Version = Version::HTTP_2;
    // method, target, version, host fields; expected: authority and path, or the status
    type Case<'c> = (&'c str, &'c str, Version, &'c [&'c str], Result<(&'c str, &'c str), u16>);
    let cases: &[Case<'_>] = &[
        ("GET", "/x?y=%z", V11, &["a.example:80"], Ok(("a.example:80", "/x?y=%z"))),
        ("GET", "/x", V11, &[], Err(400)),
        ("GET", "/x", V10, &[], Ok(("", "/x"))),
        ("GET", "/x", V11, &["a", "a"], Err(400)),
        ("GET", "/x", V11, &["a", "b"], Err(400)),
        ("GET", "/x", V11, &["a,b"], Err(400)),
        ("GET", "/x", V11, &["u@a"], Err(400)),
        ("GET", "/x", V11, &[""], Err(400)),
        ("GET", "http://b.example/x", V11, &["a.example"], Ok(("b.example", "/x"))),
        ("GET", "http://b.example", V11, &["a.example"], Ok(("b.example", "/"))),
        ("GET", "http://b.example?x", V11, &["a.example"], Ok(("b.example", "/?x"))),
        ("GET", "http://b.example?", V11, &["a.example"], Ok(("b.example", "/?"))),
        ("GET", "http://b.example#x", V11, &["a.example"], Ok(("b.example", "/"))),
        ("GET", "http://b.example/x", V11, &[], Err(400)),
        ("GET", "http://u@b.example/x", V11, &["b.example"], Err(400)),
        ("GET", "ftp://b.example/x", V11, &["b.example"], Err(400)),
        ("GET", "b.example:80", V11, &["b.example"], Err(400)),
        ("GET", "http://b.example/x", V2, &[], Ok(("b.example", "/x"))),
        ("GET", "http://b.example/x", V2, &["B.example"], Ok(("B.example", "/x"))),
        ("GET", "http://b.example/x", V2, &["a.example"], Err(400)),
        ("GET", "/x", V2, &[], Err(400)),
        ("GET", "/x", V2, &["a.example"], Ok(("a.example", "/x"))),
        ("OPTIONS", "*", V11, &["a"], Ok(("a", "*"))),
        ("GET", "*", V11, &["a"], Err(400)),
        ("CONNECT", "a:80", V11, &["a:80"], Err(405)),
        ("TRACE", "/", V11, &["a"], Err(405)),
        ("PURGE", "/", V11, &["a"], Ok(("a", "/"))),
        ("get", "/", V11, &["a"], Ok(("a", "/"))),
        ("GET", "/a/../b?c=/../d", V11, &["a"], Ok(("a", "/b?c=/../d"))),
        ("GET", "/..", V11, &["a"], Err(400)),
        ("GET", "/%00", V11, &["a"], Err(400)),
        ("GET", "/a%2fb", V11, &["a"], Err(400)),
    ];
    for (method, target, version, hosts, expected) in cases {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let outcome = arrive(request(method, target, *version, &fields), Forwarding::default());
        let outcome = match &outcome {
            Ok(head) => Ok((head.authority.to_str().unwrap(), head.path.as_str())),
            Err(rejection) => Err(rejection.status.as_u16()),
        };
        assert_eq!(outcome, *expected, "{method} {target} {version:?} {hosts:?}");
    }
}

#[test]
fn too_long() {
    let long = format!("/{}", "a".repeat(MAX_TARGET));
    let host = [("host", "a")];
    let outcome = arrive(request("GET", &long, Version::HTTP_11, &host), Forwarding::default());
    assert_eq!(status(outcome), 414);
    let outcome = arrive(request(&"M".repeat(33), "/", Version::HTTP_11, &host), Forwarding::default());
    assert_eq!(status(outcome), 501);
}

#[test]
fn framing_must_be_plain() {
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[("transfer-encoding", "chunked")], 200),
        (&[("transfer-encoding", "Chunked")], 200),
        (&[("transfer-encoding", "gzip, chunked")], 501),
        (&[("transfer-encoding", ",chunked")], 501),
        (&[("transfer-encoding", "chunked, chunked")], 501),
        (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 501),
        (&[("transfer-encoding", "chunked"), ("content-length", "3")], 400),
        (&[("expect", "100-continue")], 200),
        (&[("expect", "200-ok")], 417),
        (&[("expect", "100-continue"), ("expect", "x")], 417),
    ];
    for (fields, expected) in cases {
        assert_eq!(status(get(fields)), *expected, "{fields:?}");
    }
    let old = request("GET", "/", Version::HTTP_10, &[("transfer-encoding", "chunked")]);
    assert_eq!(status(arrive(old, Forwarding::default())), 400);
}

#[test]
fn connection_may_not_name_protected_fields() {
    for name in [
        "host",
        "Authorization",
        "cookie",
        "x-forwarded-for",
        "X-Forwarded-Proto",
        "content-length",
        "forwarded",
        "transfer-encoding",
        "x-request-id",
        "via",
        "x-meshgate-anything",
    ] {
        assert_eq!(status(get(&[("connection", name)])), 400, "{name}");
        assert_eq!(status(get(&[("connection", &format!("close, x-own,{name}"))])), 400, "{name}");
    }
    for harmless in ["close", "keep-alive", "Keep-Alive, x-own", "upgrade, http2-settings", "te", "", ",,"] {
        assert_eq!(status(get(&[("connection", harmless)])), 200, "{harmless}");
    }
    assert_eq!(status(get(&[("connection", "a b")])), 400);
}

/// The fields that are left, without those that we add.
fn left(fields: &[(&str, &str)]) -> Vec<String> {
    let head = get(fields).unwrap();
    let ours = ["x-forwarded-for", "x-forwarded-proto", "x-request-id"];
    let kept = head.headers.iter().filter(|(name, _)| !ours.contains(&name.as_str()));
    kept.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn fields_of_this_hop_end_here() {
    // The fields as they came, and those that are left.
    type Case<'c> = (&'c [(&'c str, &'c str)], &'c [&'c str]);
    let cases: &[Case<'_>] = &[
        (&[("connection", "close"), ("accept", "*/*")], &["accept: */*"]),
        (&[("connection", "x-a, X-B"), ("x-a", "1"), ("x-b", "2"), ("x-c", "3")], &["x-c: 3"]),
        (&[("connection", "x-a"), ("connection", "x-b"), ("x-a", "1"), ("x-b", "2")], &[]),
        (&[("keep-alive", "5"), ("proxy-connection", "x"), ("proxy-authorization", "x")], &[]),
        (&[("connection", "Upgrade"), ("upgrade", "websocket")], &[]),
        (&[("upgrade", "h2c"), ("http2-settings", "x"), ("connection", "upgrade, http2-settings")], &[]),
        (&[("te", "trailers"), ("connection", "te")], &["te: trailers"]),
        (&[("te", "gzip;q=0.5, Trailers;q=1")], &["te: trailers"]),
        (&[("te", "gzip")], &[]),
        (&[("trailer", "x-sum, host")], &["trailer: x-sum"]),
        (&[("expect", "100-continue")], &[]),
        (&[("transfer-encoding", "chunked")], &[]),
        (&[("x_forwarded_for", "1.1.1.1"), ("my_field", "x")], &["my_field: x"]),
    ];
    for (fields, expected) in cases {
        assert_eq!(left(fields), *expected, "{fields:?}");
    }
}

#[test]
fn request_ids_are_kept_or_made() {
    let id =
        |fields: &[(&str, &str)]| get(fields).unwrap().headers["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(id(&[("x-request-id", "abc-1")]), "abc-1");
    for fields in [
        &[][..],
        &[("x-request-id", "a b")],
        &[("x-request-id", "")],
        &[("x-request-id", "a"), ("x-request-id", "b")],
    ] {
        assert_eq!(id(fields).len(), 36, "{fields:?}");
        assert_eq!(get(fields).unwrap().headers.get_all("x-request-id").iter().count(), 1);
    }
    assert_ne!(id(&[]), id(&[]));
}

proptest::proptest! {
    /// Whatever a client writes, what passes holds no field of its hop, none it named, and one of each mark.
    #[test]
    fn nothing_of_the_hop_passes(
        fields in proptest::collection::vec(
            (
                "connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|http2-settings|\
                 proxy-authorization|x-a|x-b|accept|x-forwarded-for|x_forwarded_for|forwarded|x-request-id|via",
                "x-a|x-b|te|close|keep-alive|upgrade|trailers|chunked|X-A, x-b|a;b|[ -~]{0,12}",
            ),
            0..12,
        )
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Ok(head) = get(&fields) {
            for name in head.headers.keys() {
                proptest::prop_assert!(!fields::is_hop_by_hop(name.as_str()), "{} is left", name);
            }
            let named = fields.iter().filter(|(name, _)| *name == "connection").flat_map(|(_, value)| value.split(','));
            for name in named.map(|name| name.trim().to_ascii_lowercase()) {
                let left = !name.is_empty() && name != "te" && head.headers.contains_key(name.as_str());
                proptest::prop_assert!(!left, "{} was named and is left", name);
            }
            for mark in ["x-forwarded-for", "x-forwarded-proto", "x-request-id"] {
                proptest::prop_assert_eq!(head.headers.get_all(mark).iter().count(), 1);
            }
            if let Some(te) = head.headers.get("te") {
                proptest::prop_assert_eq!(te, "trailers");
            }
            proptest::prop_assert!(!head.headers.contains_key("host"));
        }
    }

    /// Whatever the target and the authority are: what is accepted is in its one form, and accepted again as it is.
    #[test]
    fn accepted_targets_are_accepted_again(
        target in "(/|http://a|\\*)([/.;:@?#%a-z0-9]|%2[efEF]|%00|//|\\.\\./){0,12}",
        host in "[a-z0-9.:@,%\\[\\]]{0,10}",
    ) {
        let Ok(uri) = target.parse::<Uri>() else { return Ok(()) };
        let arrives = |uri: Uri| {
            let request = Request::builder().uri(uri).version(Version::HTTP_11).header("host", &host);
            arrive(request.body(()).unwrap(), Forwarding::default())
        };
        if let Ok(head) = arrives(uri) {
            proptest::prop_assert!(authority::is_valid(head.authority.as_bytes()));
            let again = arrives(Uri::from(head.path.clone())).unwrap();
            proptest::prop_assert_eq!(again.path, head.path);
        }
    }
}
