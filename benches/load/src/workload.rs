//! What is sent and answered: the kinds of exchange that the load consists of.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;

const SMALL: usize = 128;
const LARGE: usize = 1024 * 1024;

/// One kind of exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// GET, answered with 128 bytes.
    Small,
    /// GET, answered with 1 MiB.
    Download,
    /// POST of 1 MiB, answered with 128 bytes.
    Upload,
}

impl Workload {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Download, Self::Upload];

    /// The longest body of all.
    pub(crate) const LONGEST_BODY: usize = LARGE;

    /// What the report says above its table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Small => "Small bodies: GET, answered with 128 bytes",
            Self::Download => "Download: GET, answered with 1 MiB",
            Self::Upload => "Upload: POST of 1 MiB, answered with 128 bytes",
        }
    }

    /// The request's path, which tells the backend what to answer.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Small => "/small",
            Self::Download => "/download",
            Self::Upload => "/upload",
        }
    }

    /// The request's method.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Small | Self::Download => "GET",
            Self::Upload => "POST",
        }
    }

    /// Bytes of the request's body.
    pub(crate) fn request_body(self) -> usize {
        match self {
            Self::Small | Self::Download => 0,
            Self::Upload => LARGE,
        }
    }

    /// Bytes of the response's body.
    pub(crate) fn response_body(self) -> usize {
        match self {
            Self::Small | Self::Upload => SMALL,
            Self::Download => LARGE,
        }
    }

    /// Whether the table shows bytes per second, not requests.
    pub(crate) fn is_bulk(self) -> bool {
        self != Self::Small
    }

    /// The request as it goes over the wire.
    pub(crate) fn request(self, authority: SocketAddr, pattern: &[u8]) -> Arc<[u8]> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: meshgate-load\r\naccept: */*\r\n",
            self.method(),
            self.path()
        );
        if self.request_body() > 0 {
            head.push_str(&format!("content-length: {}\r\n", self.request_body()));
        }
        message(head, self.request_body(), pattern)
    }

    /// The response as it goes over the wire.
    pub(crate) fn reply(self, pattern: &[u8]) -> Arc<[u8]> {
        let head = format!(
            "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: application/octet-stream\r\n\
             content-length: {}\r\n",
            self.response_body()
        );
        message(head, self.response_body(), pattern)
    }
}

impl fmt::Display for Workload {
    /// Its name on the command line and in the JSON file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "small",
            Self::Download => "download",
            Self::Upload => "upload",
        })
    }
}

fn message(head: String, body: usize, pattern: &[u8]) -> Arc<[u8]> {
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(pattern.get(..body).unwrap_or(pattern));
    bytes.into()
}
