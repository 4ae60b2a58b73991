//! The TLS handshake of one connection, in the connection's own task: the accept loop never waits for it.

use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::Poll;

use meshgate_wasm::Connection;
use rustls::HandshakeKind;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::ListenerStats;
use super::preface::Protocol;
use super::slots::{Order, Slot};
use crate::tls::{ServerTls, Transport};

/// A connection whose handshake is done.
pub(super) struct Secured {
    pub(super) transport: Transport,
    /// What ALPN settled; a client that does not use it speaks HTTP/1.1.
    pub(super) protocol: Protocol,
}

/// Shakes hands, and notes in the connection's facts what came of it. None if nothing did.
pub(super) async fn shake_hands(
    stream: TcpStream,
    tls: &ServerTls,
    facts: &mut Connection,
    slot: &Rc<Slot>,
    stats: &ListenerStats,
) -> Option<Secured> {
    let mut shaking = std::pin::pin!(TlsAcceptor::from(tls.config().clone()).accept(stream));
    let shaken = poll_fn(|cx| match slot.order(cx) {
        Some(Order::Late(_)) => {
            stats.count_handshake_timed_out();
            Poll::Ready(None)
        }
        Some(Order::Finish | Order::Abuse) => Poll::Ready(None),
        None => shaking.as_mut().poll(cx).map(Some),
    })
    .await?;
    let settled = shaken.map_err(|error| said(&error)).and_then(|stream| {
        let connection = stream.get_ref().1;
        let settled = tls.settled(connection)?;
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let protocol =
            if connection.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        Ok((stream, settled, resumed, protocol))
    });
    match settled {
        Ok((stream, settled, resumed, protocol)) => {
            stats.count_handshake(resumed);
            slot.is_shaken();
            facts.tls = Some(settled);
            Some(Secured { transport: Transport::from(stream), protocol })
        }
        Err(reason) => {
            stats.count_handshake_failed();
            tracing::debug!(client = %facts.source, reason, "TLS handshake failed");
            None
        }
    }
}

/// What went wrong; an error of TLS without the words around it.
fn said(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}
