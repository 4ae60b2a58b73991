//! For whom a connection was made, where proxies in front say so before anything else (the PROXY protocol).

use std::io;
use std::net::IpAddr;

use meshgate_config::ProxyProtocol;

use super::ListenerStats;
use crate::message::proxy_protocol::{Addresses, Malformed, Progress, read};
use crate::socket::Socket;

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it does not come from a proxy that is believed")]
    Stranger,
    #[error("no PROXY protocol header: {0}")]
    Malformed(#[from] Malformed),
    #[error("no PROXY protocol header in time")]
    Late,
    #[error("it ended before its PROXY protocol header did: {0}")]
    Cut(io::Error),
}

/// Takes the header off a connection that comes from this address. The outer `None`: it has none that counts, and is to be
/// closed. The inner: it is the proxy's own.
pub(super) async fn addresses(
    stream: &Socket,
    from: IpAddr,
    trusted: &ProxyProtocol,
    stats: &ListenerStats,
) -> Option<Option<Addresses>> {
    let header = async {
        if !trusted.from.iter().any(|range| range.contains(from)) {
            return Err(Refused::Stranger);
        }
        tokio::time::timeout(trusted.timeout, receive(stream)).await.unwrap_or(Err(Refused::Late))
    };
    match header.await {
        Ok(addresses) => Some(addresses),
        Err(refused) => {
            stats.count_unproxied();
            tracing::debug!(client = %from, %refused, "connection closed");
            None
        }
    }
}

/// Reads the header and not a byte more: what follows is for others to read.
async fn receive(stream: &Socket) -> Result<Option<Addresses>, Refused> {
    let mut header = Vec::with_capacity(64);
    loop {
        let wanted = match read(&header)? {
            Progress::Whole(addresses) => return Ok(addresses),
            Progress::More(bytes) => bytes,
            Progress::Line(most) => {
                let mut ahead = [0; 128];
                let seen = stream.peek(&mut ahead[..most.min(128)]).await.map_err(Refused::Cut)?;
                let end = ahead[..seen].iter().position(|byte| *byte == b'\n');
                end.map_or(seen, |end| end + 1)
            }
        };
        take(stream, &mut header, wanted).await.map_err(Refused::Cut)?;
    }
}

/// Moves at most so many bytes, and at least one.
async fn take(stream: &Socket, to: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let before = to.len();
    to.resize(before + most, 0);
    loop {
        stream.readable().await?;
        match stream.try_read(&mut to[before..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(taken) => {
                to.truncate(before + taken);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
