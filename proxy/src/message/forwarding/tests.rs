use http::uri::PathAndQuery;

use super::*;

fn head(method: Method, version: Version) -> RequestHead {
    let mut headers = HeaderMap::new();
    headers.insert("accept", HeaderValue::from_static("*/*"));
    RequestHead {
        method,
        scheme: Scheme::HTTP,
        authority: HeaderValue::from_static("a.example"),
        path: PathAndQuery::from_static("/x?y"),
        version,
        headers,
    }
}

#[test]
fn upstream_requests_are_in_origin_form() {
    for (version, via) in [
        (Version::HTTP_10, "1.0 meshgate"),
        (Version::HTTP_11, "1.1 meshgate"),
        (Version::HTTP_2, "2 meshgate"),
    ] {
        let head = head(Method::GET, version);
        let request = upstream_request(&head, head.headers.clone(), Body::empty());
        assert_eq!(request.uri(), "/x?y");
        assert_eq!(request.version(), Version::HTTP_11);
        assert_eq!(request.headers()["host"], "a.example");
        assert_eq!(request.headers()["via"], via);
        assert_eq!(request.headers()["accept"], "*/*");
        assert_eq!(request.headers().len(), 3);
    }
}

#[test]
fn via_is_appended() {
    let mut head = head(Method::GET, Version::HTTP_11);
    head.headers.insert("via", HeaderValue::from_static("1.0 fred"));
    let request = upstream_request(&head, head.headers.clone(), Body::empty());
    let via: Vec<_> = request.headers().get_all("via").iter().collect();
    assert_eq!(via, ["1.0 fred", "1.1 meshgate"]);
}

#[test]
fn a_get_with_a_body_of_unknown_length_says_so() {
    struct Endless;
    impl http_body::Body for Endless {
        type Data = bytes::Bytes;
        type Error = crate::message::BodyError;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
    let framing = |method: Method, body: Body| {
        let head = head(method, Version::HTTP_11);
        upstream_request(&head, head.headers.clone(), body).headers().contains_key("transfer-encoding")
    };
    assert!(framing(Method::GET, Body::stream(Endless)));
    assert!(!framing(Method::GET, Body::empty()));
    assert!(!framing(Method::GET, Body::full("x")));
    assert!(!framing(Method::POST, Body::stream(Endless)));
}

#[test]
fn responses_lose_what_ends_here() {
    // The fields as they came; those that are left, or a refusal.
    type Case<'c> = (&'c [(&'c str, &'c str)], Result<&'c [&'c str], ()>);
    let cases: &[Case<'_>] = &[
        (&[("content-type", "a/b")], Ok(&["content-type: a/b"])),
        (&[("connection", "close"), ("keep-alive", "timeout=5"), ("server", "x")], Ok(&["server: x"])),
        (&[("connection", "x-a"), ("x-a", "1"), ("x-b", "2")], Ok(&["x-b: 2"])),
        (&[("connection", "set-cookie"), ("set-cookie", "1")], Ok(&["set-cookie: 1"])),
        (&[("transfer-encoding", "chunked")], Ok(&[])),
        (&[("transfer-encoding", "gzip, chunked")], Err(())),
        (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(())),
        (&[("upgrade", "h2c"), ("te", "x"), ("proxy-authenticate", "Basic")], Ok(&[])),
        (&[("trailer", "x-sum, content-length")], Ok(&["trailer: x-sum"])),
        (&[("trailer", "x-sum"), ("connection", "trailer")], Ok(&[])),
    ];
    for (fields, expected) in cases {
        let mut headers = HeaderMap::new();
        for (name, value) in *fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let outcome = response_arrived(&mut headers).map_err(|_| ());
        let left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(outcome.is_ok(), expected.is_ok(), "{fields:?}");
        if let Ok(expected) = expected {
            assert_eq!(left, *expected, "{fields:?}");
        }
    }
}

#[test]
fn an_ipv4_client_on_an_ipv6_socket_is_written_as_ipv4() {
    assert_eq!(address_value("::ffff:192.0.2.7".parse().unwrap()), "192.0.2.7");
    assert_eq!(address_value("2001:db8::1".parse().unwrap()), "2001:db8::1");
}

proptest::proptest! {
    /// Whatever an endpoint writes: what passes holds no field of its hop, and what concerns security stays.
    #[test]
    fn nothing_of_the_endpoints_hop_passes(
        fields in proptest::collection::vec(
            (
                "connection|keep-alive|te|trailer|transfer-encoding|upgrade|set-cookie|x-a|server|proxy-authenticate",
                "x-a|set-cookie|te|close|upgrade|chunked|X-A, server|a;b|[ -~]{0,12}",
            ),
            0..10,
        )
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let cookies = headers.get_all("set-cookie").iter().count();
        if response_arrived(&mut headers).is_ok() {
            for name in headers.keys() {
                let of_hop = fields::is_hop_by_hop(name.as_str()) || name == "te" || name == "connection";
                proptest::prop_assert!(!of_hop, "{} is left", name);
            }
            proptest::prop_assert_eq!(headers.get_all("set-cookie").iter().count(), cookies);
        }
    }
}
