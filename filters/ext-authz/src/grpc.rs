//! Services that speak gRPC: Envoy's protocol, `envoy.service.auth.v3.Authorization`. The messages have the fields that are used.

use std::collections::BTreeMap;
use std::time::Duration;

use meshgate_sdk::config::is_token;
use meshgate_sdk::credential::is_field_value;
use meshgate_sdk::{Request, property};
use prost::Message;

use crate::Fields;
use crate::config::GrpcConfig;
use crate::decision::Decision;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    pub(crate) source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    pub(crate) destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    pub(crate) request: Option<RequestAttributes>,
    #[prost(btree_map = "string, string", tag = "10")]
    pub(crate) context_extensions: BTreeMap<String, String>,
    #[prost(message, optional, tag = "12")]
    pub(crate) tls_session: Option<TlsSession>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Peer {
    #[prost(message, optional, tag = "1")]
    pub(crate) address: Option<Address>,
    #[prost(string, tag = "4")]
    pub(crate) principal: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Address {
    #[prost(message, optional, tag = "1")]
    pub(crate) socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SocketAddress {
    #[prost(string, tag = "2")]
    pub(crate) address: String,
    #[prost(uint32, tag = "3")]
    pub(crate) port_value: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestAttributes {
    #[prost(message, optional, tag = "2")]
    pub(crate) http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    pub(crate) path: String,
    #[prost(string, tag = "5")]
    pub(crate) host: String,
    #[prost(string, tag = "6")]
    pub(crate) scheme: String,
    #[prost(int64, tag = "9")]
    pub(crate) size: i64,
    #[prost(string, tag = "10")]
    pub(crate) protocol: String,
    #[prost(string, tag = "11")]
    pub(crate) body: String,
    #[prost(bytes = "vec", tag = "12")]
    pub(crate) raw_body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TlsSession {
    #[prost(string, tag = "1")]
    pub(crate) sni: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    pub(crate) denied_response: Option<DeniedHttpResponse>,
    #[prost(message, optional, tag = "3")]
    pub(crate) ok_response: Option<OkHttpResponse>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    pub(crate) body: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    pub(crate) headers_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<HeaderValue>,
    #[prost(message, optional, tag = "2")]
    pub(crate) append: Option<BoolValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) raw_value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct BoolValue {
    #[prost(bool, tag = "1")]
    pub(crate) value: bool,
}

/// Asks the service.
///
/// # Errors
/// Why there is no decision, in words for the log.
pub(crate) async fn ask(
    service: &GrpcConfig,
    timeout: Duration,
    fields: &Fields,
    request: &Request,
    body: Vec<u8>,
) -> Result<Decision, String> {
    let question = CheckRequest { attributes: Some(attributes(service, fields, request, body)) };
    let call = service.cluster.grpc("envoy.service.auth.v3.Authorization", "Check").timeout(timeout);
    let answer: CheckResponse = call.send(&question).await.map_err(|error| error.to_string())?;
    decision(fields, answer)
}

fn attributes(service: &GrpcConfig, fields: &Fields, request: &Request, body: Vec<u8>) -> AttributeContext {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in request.headers().pairs().iter() {
        if !name.starts_with(':') && fields.request.contains(name) {
            let value = String::from_utf8_lossy(value);
            headers
                .entry(name.to_owned())
                .and_modify(|all| {
                    all.push_str(if name == "cookie" { "; " } else { "," });
                    all.push_str(&value);
                })
                .or_insert_with(|| value.into_owned());
        }
    }
    for name in [":method", ":path", ":authority", ":scheme"] {
        headers.extend(request.header(name).map(|value| (name.to_owned(), value)));
    }
    let peer = |side: &str, identity: &str| {
        let address = property::text(&format!("{side}/address"))?.parse::<std::net::SocketAddr>().ok()?;
        let socket_address =
            SocketAddress { address: address.ip().to_string(), port_value: address.port().into() };
        let principal = property::text(&format!("connection/{identity}")).unwrap_or_default();
        Some(Peer { address: Some(Address { socket_address: Some(socket_address) }), principal })
    };
    let size = request.header("content-length").and_then(|length| length.parse().ok());
    // Text goes where services look for it, and everything else where it is not mangled.
    let (body, raw_body) = match String::from_utf8(body) {
        Ok(text) => (text, Vec::new()),
        Err(error) => (String::new(), error.into_bytes()),
    };
    let http = HttpRequest {
        id: property::text("request/id").unwrap_or_default(),
        method: request.method(),
        headers,
        path: request.target().as_str().to_owned(),
        host: request.authority(),
        scheme: request.scheme(),
        size: size.unwrap_or(if request.has_body() { -1 } else { 0 }),
        protocol: property::text("request/protocol").unwrap_or_default(),
        body,
        raw_body,
    };
    AttributeContext {
        source: peer("source", "uri_san_peer_certificate"),
        destination: peer("destination", "uri_san_local_certificate"),
        request: Some(RequestAttributes { http: Some(http) }),
        context_extensions: service.context.clone(),
        tls_session: property::text("connection/requested_server_name").map(|sni| TlsSession { sni }),
    }
}

fn decision(fields: &Fields, answer: CheckResponse) -> Result<Decision, String> {
    // Without a status it is OK, as in Protocol Buffers zero is left out.
    let code = answer.status.map_or(0, |status| status.code);
    if code == 0 {
        let ok = answer.ok_response.unwrap_or_default();
        let beside = |option: &HeaderValueOption| option.append.is_some_and(|append| append.value);
        let set = ok.headers.into_iter().filter_map(|option| {
            let beside = beside(&option);
            let (name, value) = field(option).filter(|(name, _)| fields.upstream.contains(name))?;
            Some((name, value, beside))
        });
        let may_go = |name: &String| is_token(name) && name != "host";
        let remove = ok.headers_to_remove.into_iter().map(|name| name.to_ascii_lowercase()).filter(may_go);
        return Ok(Decision::Allow { set: set.collect(), remove: remove.collect() });
    }
    let denied = answer.denied_response.unwrap_or_default();
    let status = denied.status.map_or(403, |status| status.code);
    let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status)).unwrap_or(403);
    let headers =
        denied.headers.into_iter().filter_map(field).filter(|(name, _)| fields.client.contains(name));
    Ok(Decision::Deny { status, headers: headers.collect(), body: denied.body.into_bytes() })
}

/// A field that may be set: what is none is left out, and the message's own lines are not the service's to write.
fn field(option: HeaderValueOption) -> Option<(String, Vec<u8>)> {
    let HeaderValue { key, value, raw_value } = option.header?;
    let name = key.to_ascii_lowercase();
    let own = matches!(name.as_str(), "host" | "content-length" | "transfer-encoding" | "connection");
    let value = if raw_value.is_empty() { value.into_bytes() } else { raw_value };
    (!own && is_token(&name) && is_field_value(&value)).then_some((name, value))
}
