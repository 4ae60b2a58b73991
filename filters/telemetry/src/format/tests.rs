//! What is a text with operators, and what is none. What operators show is tested where texts are used.

use super::*;

/// Envoy's default line, and what it is in Istio.
const LINES: [&str; 2] = [
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
     %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
     \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
    "%RESPONSE_CODE_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
     %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%",
];

fn refusal(text: &str) -> String {
    Format::parse(text).map(|_| String::new()).unwrap_or_else(|message| message)
}

#[test]
fn envoys_texts_are_read() {
    for line in LINES {
        assert_eq!(refusal(line), "");
    }
    for text in [
        "",
        "100%%",
        "%REQ(a?b):10%",
        "%START_TIME(%Y-%m-%d %H:%M:%S.%3f)%",
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%:%UPSTREAM_REMOTE_PORT%%DOWNSTREAM_LOCAL_PORT%",
        "%GRPC_STATUS(NUMBER)%%GRPC_STATUS%%GRPC_STATUS_NUMBER%",
        "%DYNAMIC_METADATA(a.filter:key)%%METADATA(CLUSTER:a:b:c)%%FILTER_STATE(wasm.x:PLAIN)%",
        "%QUERY_PARAM(page)%",
    ] {
        assert_eq!(refusal(text), "", "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (text, expected) in [
        ("%DOWNSTREAM_REMOTE_ADDRESS_PORT%", "there is no operator %DOWNSTREAM_REMOTE_ADDRESS_PORT%"),
        ("%WHAT%", "there is no operator %WHAT%"),
        ("%UPSTREAM_PROTOCOL%", "the operator %UPSTREAM_PROTOCOL% is Envoy's, and is not offered here"),
        ("%REQ%", "the operator %REQ% needs an argument"),
        ("%REQ()%", "the operator %REQ% needs an argument"),
        ("%REQ(a b)%", "`a b` is not the name of a field"),
        ("%REQ(a):x%", "`x` is not a number of bytes"),
        ("%DURATION(ms)%", "the operator %DURATION% takes no argument, and has (ms)"),
        ("%GRPC_STATUS(LOUD)%", "LOUD is none of CAMEL_STRING, SNAKE_STRING and NUMBER"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
    for text in
        ["100%", "%", "%REQ(a", "%REQ(a)", "%DURATION", "% %", "%REQ(a)b%", "%duration%", "%START_TIME(%Q)%"]
    {
        assert_ne!(refusal(text), "", "{text}");
    }
}

#[test]
fn values_are_cut_between_letters() {
    assert_eq!(shortened("abc".as_bytes(), Some(2)), b"ab");
    assert_eq!(shortened("aé".as_bytes(), Some(2)), b"a");
    assert_eq!(shortened("aé".as_bytes(), Some(3)), "aé".as_bytes());
    assert_eq!(shortened("é".as_bytes(), Some(1)), b"");
    assert_eq!(shortened("é".as_bytes(), None), "é".as_bytes());
}
