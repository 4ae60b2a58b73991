//! What is known about an exchange, or a TCP connection, when it ends.

use std::time::{Duration, SystemTime};

use meshgate_wasm::Address;

use super::fields::LogFields;

/// One exchange or TCP connection, as the access log shows it. Borrows from the exchange: building one costs nothing but the copies of a few words.
///
/// Texts that come from the network are bytes: they are logged as they came, escaped. An absent value is `-` in the text format and `null` in JSON.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// When the request's head arrived.
    pub start: SystemTime,
    /// The request's method; empty for a TCP connection.
    pub method: &'a str,
    /// Path and query as the client sent them; empty for a TCP connection.
    pub path: &'a [u8],
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2` or `TCP`.
    pub protocol: &'a str,
    /// The status sent downstream; 0 when the client left before there was one, and for TCP.
    pub status: u16,
    /// Response flags, comma-separated (`UF`, `NR`, `WT` …); empty when all went well.
    pub flags: &'a str,
    /// Who made the response and why: `via_upstream`, `route_not_found` …
    pub details: &'a str,
    /// Body bytes received from the client.
    pub bytes_received: u64,
    /// Body bytes sent to the client.
    pub bytes_sent: u64,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// From the request sent upstream to the head of the upstream's response.
    pub upstream_time: Option<Duration>,
    /// The `x-forwarded-for` header.
    pub forwarded_for: Option<&'a [u8]>,
    /// The `user-agent` header.
    pub user_agent: Option<&'a [u8]>,
    /// The `x-request-id` header.
    pub request_id: Option<&'a [u8]>,
    /// The request's authority.
    pub authority: Option<&'a [u8]>,
    /// The server name that the client asked for by TLS. In the JSON format only.
    pub server_name: Option<&'a str>,
    /// The endpoint that answered, or failed to.
    pub upstream_address: Option<Address>,
    /// Why no connection to the endpoint could be made.
    pub upstream_failure: Option<&'a str>,
    /// The cluster the route named.
    pub cluster: Option<&'a str>,
    /// The route that was decided.
    pub route: Option<&'a str>,
    /// The client's address.
    pub downstream_address: Address,
    /// The listener that accepted the connection.
    pub listener: &'a str,
    /// What filters added.
    pub fields: &'a LogFields,
}
