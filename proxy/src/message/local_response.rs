//! Responses that we make ourselves, as the client gets them.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use meshgate_wasm::LocalResponse;

use super::grpc::{self, GRPC_MESSAGE, GRPC_STATUS};
use super::{Body, fields};

/// Bytes of a local response's body that become `grpc-message`: it is a field, and fields have their limits.
const MAX_MESSAGE: usize = 1_024;

/// A local response in the form that a request of this method and with these fields understands: plain HTTP, or a gRPC
/// status without a body.
pub fn local_response(method: &Method, headers: &HeaderMap, local: LocalResponse) -> Response<Body> {
    if grpc::is_grpc(headers) { trailers_only(local) } else { plain(method, local) }
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

/// What gRPC calls so: a head that holds the status and ends the response.
fn trailers_only(local: LocalResponse) -> Response<Body> {
    let LocalResponse { status, mut headers, mut body, grpc_status, .. } = local;
    remove_framing(&mut headers);
    let code = grpc_status.unwrap_or_else(|| grpc::status_of(status));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    body.truncate(MAX_MESSAGE);
    if !body.is_empty()
        && let Ok(message) = HeaderValue::from_str(&grpc::percent_encode(&body))
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::BodyExt;

    fn answer(method: Method, content_type: Option<&'static str>, local: LocalResponse) -> Response<Body> {
        let mut headers = HeaderMap::new();
        headers.extend(content_type.map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))));
        local_response(&method, &headers, local)
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
        let response = answer(Method::GET, None, local(503, "no"));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["content-length"], "2");
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(bytes(response).await, "no");

        let response = answer(Method::GET, None, local(404, ""));
        assert_eq!(response.headers()["content-length"], "0");
        assert!(!response.headers().contains_key("content-type"));

        let response = answer(Method::HEAD, None, local(403, "denied"));
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
        let response = answer(Method::GET, None, denied);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["content-length"], "2");
        assert_eq!(response.headers()["www-authenticate"], "Basic");
        assert!(!response.headers().contains_key("transfer-encoding"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn statuses_without_a_body_get_none() {
        for status in [204, 205, 304] {
            let response = answer(Method::GET, None, local(status, "x"));
            assert!(!response.headers().contains_key("content-length"), "{status}");
            assert_eq!(bytes(response).await, "", "{status}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn grpc_requests_get_a_grpc_status() {
        for (status, grpc_status, expected) in
            [(503, None, "14"), (403, None, "7"), (418, None, "2"), (200, None, "0"), (503, Some(8), "8")]
        {
            let mut given = local(status, "na\u{ef}ve 100%\n");
            given.grpc_status = grpc_status;
            let response = answer(Method::POST, Some("application/grpc+proto"), given);
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], expected);
            assert_eq!(response.headers()["grpc-message"], "na%C3%AFve 100%25%0A");
            assert_eq!(response.headers()["content-type"], "application/grpc");
            assert_eq!(bytes(response).await, "");
        }
        for other in ["application/grpc-web", "application/json", "application/grpcx"] {
            let response = answer(Method::POST, Some(other), local(503, "x"));
            assert_eq!(response.status(), 503, "{other}");
        }
    }
}
