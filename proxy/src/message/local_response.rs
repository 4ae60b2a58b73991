//! Responses that we make ourselves, as the client gets them.

use std::fmt::Write as _;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use meshgate_wasm::{LocalResponse, RequestHead};

use super::{Body, fields};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const APPLICATION_GRPC: &[u8] = b"application/grpc";

/// Whether a message is gRPC (not gRPC-Web, whose status is in the body), by its fields.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|content_type| {
        let content_type = content_type.as_bytes();
        content_type.starts_with(APPLICATION_GRPC)
            && matches!(content_type.get(APPLICATION_GRPC.len()), None | Some(b'+' | b';' | b' '))
    })
}

/// A local response in the form the request understands: plain HTTP, or a gRPC status without a body.
pub fn local_response(request: &RequestHead, local: LocalResponse) -> Response<Body> {
    if is_grpc(&request.headers) { grpc(local) } else { plain(&request.method, local) }
}

fn plain(method: &Method, local: LocalResponse) -> Response<Body> {
    let LocalResponse { status, mut headers, body, .. } = local;
    remove_framing(&mut headers);
    let bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
    let body = if bodiless {
        Body::empty()
    } else {
        if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if *method == Method::HEAD { Body::empty() } else { Body::full(body) }
    };
    finish(status, headers, body)
}

fn grpc(local: LocalResponse) -> Response<Body> {
    let LocalResponse { status, mut headers, body, grpc_status, .. } = local;
    remove_framing(&mut headers);
    let code = grpc_status.unwrap_or_else(|| grpc_status_of(status));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    if !body.is_empty()
        && let Ok(message) = HeaderValue::from_str(&percent_encode(&body))
    {
        headers.insert(GRPC_MESSAGE, message);
    }
    finish(StatusCode::OK, headers, Body::empty())
}

fn finish(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    // An interim status cannot be a final answer; nothing that makes local responses should give one.
    *response.status_mut() =
        if status.is_informational() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
    *response.headers_mut() = headers;
    response
}

fn remove_framing(headers: &mut HeaderMap) {
    let framing = |name: &str| name == "content-length" || fields::is_hop_by_hop(name);
    if headers.keys().any(|name| framing(name.as_str())) {
        let names: Vec<HeaderName> = headers.keys().filter(|name| framing(name.as_str())).cloned().collect();
        for name in &names {
            headers.remove(name);
        }
    }
}

/// The gRPC status for an HTTP status, by the gRPC specification's own table; OK stays OK.
fn grpc_status_of(status: StatusCode) -> i32 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// `grpc-message` is percent-encoded: everything but printable ASCII, and `%` itself.
fn percent_encode(message: &[u8]) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message {
        match byte {
            b'%' | 0..b' ' | 0x7f.. => {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::uri::{PathAndQuery, Scheme};
    use http_body_util::BodyExt;

    fn request(method: Method, content_type: Option<&'static str>) -> RequestHead {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        RequestHead {
            method,
            scheme: Scheme::HTTP,
            authority: HeaderValue::from_static("a"),
            path: PathAndQuery::from_static("/"),
            version: http::Version::HTTP_11,
            headers,
        }
    }

    fn local(status: u16, body: &'static str) -> LocalResponse {
        LocalResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
            grpc_status: None,
            details: "test".into(),
            place: 0,
        }
    }

    async fn bytes(response: Response<Body>) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn plain_responses_are_framed_and_typed() {
        let response = local_response(&request(Method::GET, None), local(503, "no"));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["content-length"], "2");
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(bytes(response).await, "no");

        let response = local_response(&request(Method::GET, None), local(404, ""));
        assert_eq!(response.headers()["content-length"], "0");
        assert!(!response.headers().contains_key("content-type"));

        let response = local_response(&request(Method::HEAD, None), local(403, "denied"));
        assert_eq!(response.headers()["content-length"], "6");
        assert_eq!(bytes(response).await, "");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_filters_fields_stay_but_framing_is_ours() {
        let mut denied = local(401, "{}");
        denied.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        denied.headers.insert("content-length", HeaderValue::from_static("99"));
        denied.headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
        denied.headers.insert("www-authenticate", HeaderValue::from_static("Basic"));
        let response = local_response(&request(Method::GET, None), denied);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["content-length"], "2");
        assert_eq!(response.headers()["www-authenticate"], "Basic");
        assert!(!response.headers().contains_key("transfer-encoding"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn statuses_without_a_body_get_none() {
        for status in [204, 205, 304] {
            let response = local_response(&request(Method::GET, None), local(status, "x"));
            assert!(!response.headers().contains_key("content-length"), "{status}");
            assert_eq!(bytes(response).await, "", "{status}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn grpc_requests_get_a_grpc_status() {
        for (status, grpc_status, expected) in
            [(503, None, "14"), (403, None, "7"), (418, None, "2"), (200, None, "0"), (503, Some(8), "8")]
        {
            let mut answer = local(status, "na\u{ef}ve 100%\n");
            answer.grpc_status = grpc_status;
            let response = local_response(&request(Method::POST, Some("application/grpc+proto")), answer);
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], expected);
            assert_eq!(response.headers()["grpc-message"], "na%C3%AFve 100%25%0A");
            assert_eq!(response.headers()["content-type"], "application/grpc");
            assert_eq!(bytes(response).await, "");
        }
        for other in ["application/grpc-web", "application/json", "application/grpcx"] {
            let response = local_response(&request(Method::POST, Some(other)), local(503, "x"));
            assert_eq!(response.status(), 503, "{other}");
        }
    }
}
