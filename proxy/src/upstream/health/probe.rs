//! One health check: what is asked, and whether the answer is good. The endpoint's answer is bounded like any other bytes
//! from the network, and the time by whoever asks.

use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshgate_config::{Address, ClusterProtocol, HealthCheck, HttpProbe, Probe};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Speaks;
use crate::message::proxy_protocol;
use crate::tls::{Speak, Transport};
use crate::upstream::cluster::version_of;
use crate::upstream::dial::Dialer;

/// Most bytes of an answer that are looked at.
const MOST_ANSWER: usize = 64 * 1024;
/// A request's `user-agent`, by which a server's log tells checks from requests.
const AGENT: HeaderValue = HeaderValue::from_static("meshgate-health-check");
/// Bytes before a gRPC message: a flag and a length.
const GRPC_PREFIX: usize = 5;

/// Asks one endpoint.
pub(super) struct Prober {
    address: Address,
    dialer: Dialer,
    /// What a connection begins with; mostly nothing.
    greeting: Option<Vec<u8>>,
    question: Question,
}

/// What is asked, prepared.
enum Question {
    Http { request: Request<()>, protocol: ClusterProtocol, statuses: Vec<(u16, u16)> },
    Tcp { send: Bytes, expect: Bytes },
    Grpc { request: Request<()>, message: Bytes },
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Message)]
struct GrpcQuestion {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Message)]
struct GrpcAnswer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i32 = 1;

impl Prober {
    pub(super) fn new(settings: &HealthCheck, speaks: &Speaks, endpoint: Address) -> Prober {
        let protocol = speaks.protocol;
        let secure = speaks.tls.is_some();
        let address = match (endpoint, settings.port) {
            (Address::Ip(endpoint), Some(port)) => SocketAddr::new(endpoint.ip(), port).into(),
            _ => endpoint,
        };
        let question = match &settings.probe {
            Probe::Http(probe) => Question::Http {
                request: http_request(probe, protocol, secure, address),
                protocol,
                statuses: probe.statuses.clone(),
            },
            Probe::Tcp { send, expect } => {
                Question::Tcp { send: Bytes::from(send.clone()), expect: Bytes::from(expect.clone()) }
            }
            Probe::Grpc { service, authority } => Question::Grpc {
                request: grpc_request(authority.as_deref(), secure, address),
                message: framed(&GrpcQuestion { service: service.clone() }),
            },
        };
        // Another port is another server's, which may know nothing of the PROXY protocol.
        let version = speaks.greets.filter(|_| settings.port.is_none());
        let greeting = version.map(|version| proxy_protocol::write(version_of(version), None));
        let dialer = Dialer::new(settings.timeout, speaks.tls.clone());
        Prober { address, dialer, greeting, question }
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why the answer is not good.
    pub(super) async fn ask(&self) -> Result<(), String> {
        let opened = self.dialer.open(self.address, self.speak(), self.greeting.as_deref()).await;
        let stream = opened.map_err(|error| error.to_string())?.transport;
        match &self.question {
            Question::Http { request, protocol, statuses } => {
                let request = request.clone().map(|()| Full::default());
                let response = match protocol {
                    ClusterProtocol::Http1 => over_http1(stream, request).await?,
                    ClusterProtocol::Http2 => over_http2(stream, request).await?,
                };
                let status = response.status().as_u16();
                let good = statuses.iter().any(|(from, to)| (*from..=*to).contains(&status));
                if good { Ok(()) } else { Err(format!("status {status}")) }
            }
            Question::Tcp { send, expect } => talk(stream, send, expect).await,
            Question::Grpc { request, message } => {
                let request = request.clone().map(|()| Full::new(message.clone()));
                serving(over_http2(stream, request).await?).await
            }
        }
    }

    /// What the endpoint is to agree to, where it is spoken to through TLS.
    fn speak(&self) -> Speak {
        match &self.question {
            Question::Http { protocol: ClusterProtocol::Http1, .. } => Speak::Http1,
            Question::Http { protocol: ClusterProtocol::Http2, .. } | Question::Grpc { .. } => Speak::Http2,
            Question::Tcp { .. } => Speak::Bytes,
        }
    }
}

/// Sends over HTTP/1.1.
async fn over_http1(stream: Transport, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_ANSWER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(words)?;
    // It ends when both ends of the request are dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(words)
}

/// Sends over HTTP/2.
async fn over_http2(stream: Transport, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(MOST_ANSWER as u32)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(words)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(words)
}

/// Sends, and waits for what is expected.
async fn talk(mut stream: Transport, send: &[u8], expect: &[u8]) -> Result<(), String> {
    stream.write_all(send).await.map_err(|error| error.to_string())?;
    // TLS may keep what is written until then.
    stream.flush().await.map_err(|error| error.to_string())?;
    let mut heard = Vec::new();
    while !holds(&heard, expect) {
        if heard.len() >= MOST_ANSWER {
            return Err("the expected bytes did not come".to_owned());
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) => return Err("closed before the expected bytes".to_owned()),
            Ok(read) => heard.extend_from_slice(&chunk[..read]),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

fn holds(heard: &[u8], expect: &[u8]) -> bool {
    expect.is_empty() || heard.windows(expect.len()).any(|part| part == expect)
}

/// Whether the answer to a gRPC check is SERVING.
async fn serving(response: Response<Incoming>) -> Result<(), String> {
    if response.status() != StatusCode::OK {
        return Err(format!("status {}", response.status().as_u16()));
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MOST_ANSWER).collect().await.map_err(|error| error.to_string())?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(code) => return Err(format!("grpc-status {}", String::from_utf8_lossy(code))),
        None => return Err("no grpc-status".to_owned()),
    }
    let mut bytes = body.to_bytes();
    if bytes.len() < GRPC_PREFIX || bytes[0] != 0 {
        return Err("no message".to_owned());
    }
    bytes.advance(1);
    let length = bytes.get_u32() as usize;
    let message = bytes.get(..length).ok_or("the message is cut short")?;
    match GrpcAnswer::decode(message).map_err(|error| error.to_string())?.status {
        SERVING => Ok(()),
        other => Err(format!("serving status {other}")),
    }
}

fn http_request(probe: &HttpProbe, protocol: ClusterProtocol, secure: bool, address: Address) -> Request<()> {
    let host = probe.host.clone().unwrap_or_else(|| host_of(address));
    let mut request = Request::new(());
    *request.method_mut() = probe.method.parse().unwrap_or(Method::GET);
    addressed(&mut request, (protocol, secure), &host, &probe.path);
    request.headers_mut().insert(USER_AGENT, AGENT);
    for (name, value) in &probe.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            request.headers_mut().insert(name, value);
        }
    }
    request
}

fn grpc_request(authority: Option<&str>, secure: bool, address: Address) -> Request<()> {
    let authority = authority.map_or_else(|| host_of(address), str::to_owned);
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    addressed(&mut request, (ClusterProtocol::Http2, secure), &authority, "/grpc.health.v1.Health/Check");
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, AGENT);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    request
}

/// What a request is for that does not say: a Unix socket is on this machine.
fn host_of(address: Address) -> String {
    address.ip().map_or_else(|| "localhost".to_owned(), |_| address.to_string())
}

/// Gives a request its target, in the form of the protocol, through TLS or not.
fn addressed(
    request: &mut Request<()>,
    (protocol, secure): (ClusterProtocol, bool),
    authority: &str,
    path: &str,
) {
    // What cannot be a target becomes `/`, and fails by its answer.
    match protocol {
        ClusterProtocol::Http1 => {
            *request.uri_mut() = path.parse().unwrap_or_default();
            if let Ok(host) = authority.parse() {
                request.headers_mut().insert(HOST, host);
            }
        }
        ClusterProtocol::Http2 => {
            let scheme = if secure { "https" } else { "http" };
            *request.uri_mut() = format!("{scheme}://{authority}{path}").parse().unwrap_or_default();
            *request.version_mut() = Version::HTTP_2;
        }
    }
}

/// A message as gRPC frames it.
fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    framed.extend_from_slice(&bytes);
    framed.into()
}
