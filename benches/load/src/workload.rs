//! What is sent and answered: the kinds of exchange that the load consists of.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;

use crate::link::Link;

const SMALL: usize = 128;
const LARGE: usize = 1024 * 1024;

/// One kind of exchange, and what it is carried by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// GET, answered with 128 bytes.
    Small,
    /// GET, answered with 1 MiB.
    Download,
    /// POST of 1 MiB, answered with 128 bytes.
    Upload,
    /// GET over HTTP/2, answered with 128 bytes.
    Http2,
    /// GET through TLS, answered with 128 bytes.
    Tls,
    /// GET through mutual TLS on both sides, answered with 128 bytes.
    Mtls,
}

impl Workload {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Self; 6] =
        [Self::Small, Self::Download, Self::Upload, Self::Http2, Self::Tls, Self::Mtls];

    /// The longest body of all.
    pub(crate) const LONGEST_BODY: usize = LARGE;

    /// What the report says above its table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Small => "Small bodies: GET, answered with 128 bytes",
            Self::Download => "Download: GET, answered with 1 MiB",
            Self::Upload => "Upload: POST of 1 MiB, answered with 128 bytes",
            Self::Http2 => "HTTP/2: small bodies over HTTP/2 in cleartext, to the backend over HTTP/1.1",
            Self::Tls => "TLS: small bodies through TLS 1.3, to the backend in cleartext",
            Self::Mtls => "mTLS: small bodies through TLS 1.3 on both sides, with certificates of all sides",
        }
    }

    /// What carries it.
    pub(crate) fn link(self) -> Link {
        match self {
            Self::Small | Self::Download | Self::Upload => Link::Http1,
            Self::Http2 => Link::Http2,
            Self::Tls => Link::Tls,
            Self::Mtls => Link::Mtls,
        }
    }

    /// The request's path, which tells the backend what to answer.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Small | Self::Http2 | Self::Tls | Self::Mtls => "/small",
            Self::Download => "/download",
            Self::Upload => "/upload",
        }
    }

    /// The request's method.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Upload => "POST",
            _ => "GET",
        }
    }

    /// Bytes of the request's body.
    pub(crate) fn request_body(self) -> usize {
        match self {
            Self::Upload => LARGE,
            _ => 0,
        }
    }

    /// Bytes of the response's body.
    pub(crate) fn response_body(self) -> usize {
        match self {
            Self::Download => LARGE,
            _ => SMALL,
        }
    }

    /// Whether the table shows bytes per second, not requests.
    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Download | Self::Upload)
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
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Mtls => "mtls",
        })
    }
}

fn message(head: String, body: usize, pattern: &[u8]) -> Arc<[u8]> {
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(pattern.get(..body).unwrap_or(pattern));
    bytes.into()
}
