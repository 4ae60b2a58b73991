//! Between the fields of tests and the messages of the host.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use meshgate_abi::DirectResponse;
use meshgate_sdk::testing::{Fields, Response};
use meshgate_wasm::{HttpCallResponse, LocalResponse, RequestHead, ResponseHead};

pub(crate) fn fields(headers: &HeaderMap) -> Fields {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

/// What HTTP does not allow is left out, and so are pseudo-headers.
pub(crate) fn headers(fields: &Fields) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(':')) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

pub(crate) fn request_head(given: &Fields) -> RequestHead {
    let pseudo = |name: &str| {
        let found = given.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice()).unwrap_or_default()
    };
    RequestHead {
        method: Method::from_bytes(pseudo(":method")).unwrap_or_default(),
        scheme: pseudo(":scheme").try_into().unwrap_or(http::uri::Scheme::HTTP),
        authority: HeaderValue::from_bytes(pseudo(":authority")).unwrap_or(HeaderValue::from_static("")),
        path: pseudo(":path").try_into().unwrap_or(http::uri::PathAndQuery::from_static("/")),
        version: Version::HTTP_11,
        headers: headers(given),
    }
}

pub(crate) fn request_fields(head: &RequestHead) -> Fields {
    let pseudo = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let mut all = vec![
        pseudo(":method", head.method.as_str().as_bytes()),
        pseudo(":scheme", head.scheme.as_str().as_bytes()),
        pseudo(":authority", head.authority.as_bytes()),
        pseudo(":path", head.path.as_str().as_bytes()),
    ];
    all.extend(fields(&head.headers));
    all
}

pub(crate) fn response_head(given: &Fields) -> ResponseHead {
    let status = given.iter().find(|(name, _)| name == ":status");
    let status = status.and_then(|(_, value)| StatusCode::from_bytes(value).ok());
    ResponseHead { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), headers: headers(given) }
}

pub(crate) fn response_fields(head: &ResponseHead) -> Fields {
    let mut all = vec![(":status".to_owned(), head.status.as_str().as_bytes().to_vec())];
    all.extend(fields(&head.headers));
    all
}

pub(crate) fn answer(answer: LocalResponse) -> Response {
    let mut head = ResponseHead { status: answer.status, headers: answer.headers };
    // As the proxy does for an answer that does not say what it is.
    if !answer.body.is_empty() && !head.headers.contains_key(http::header::CONTENT_TYPE) {
        head.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    Response::received(response_fields(&head), answer.body.to_vec(), Fields::new())
}

pub(crate) fn direct(direct: &DirectResponse) -> Response {
    let status = u16::try_from(direct.status).unwrap_or(500);
    direct.headers.iter().fold(Response::new(status).body(direct.body.clone()), |response, header| {
        response.header(&header.name, &header.value)
    })
}

pub(crate) fn call_response(response: &Response) -> HttpCallResponse {
    HttpCallResponse {
        head: response_head(response.head()),
        body: Bytes::from(response.bytes()),
        trailers: (!response.trailers().is_empty()).then(|| headers(response.trailers())),
    }
}

/// The value of a series in the text that `/metrics` shows; of a histogram the number of values.
pub(crate) fn sample(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
    let mut wanted: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    wanted.sort();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (known, inside) = match series.split_once('{') {
            Some((known, inside)) => (known, inside.trim_end_matches('}')),
            None => (series, ""),
        };
        let mut given: Vec<_> =
            inside.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        given.sort();
        let of_name = known == name || known.strip_suffix("_count") == Some(name);
        (of_name && given == wanted).then(|| value.parse().ok())?
    })
}
