//! The TLS handshake of one connection, in the connection's own task: the accept loop never waits for it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use meshgate_wasm::Address;
use rustls::HandshakeKind;
use tokio_rustls::TlsAcceptor;

use super::ListenerStats;
use super::connection::linger;
use super::preface::Protocol;
use super::slots::{Order, Slot};
use crate::socket::Socket;
use crate::tls::{ServerTls, Settled, Transport, said};

/// The first byte of TLS: a record of a handshake. No text begins with it.
const HANDSHAKE_RECORD: u8 = 0x16;

/// A connection whose client has begun to speak.
pub(super) enum Shaken {
    /// Through TLS, and what the handshake settled.
    Secured {
        transport: Transport,
        /// By ALPN; a client that does not use it speaks HTTP/1.1.
        protocol: Protocol,
        settled: Settled,
    },
    /// In cleartext, where that is allowed.
    Cleartext(Socket),
}

/// One handshake.
pub(super) struct Handshake<'a> {
    pub(super) tls: &'a ServerTls,
    pub(super) client: Address,
    pub(super) slot: &'a Rc<Slot>,
    pub(super) stats: &'a ListenerStats,
    /// The server may have to speak first: a client that says nothing in time is not late.
    pub(super) may_be_silent: bool,
}

impl Handshake<'_> {
    /// Shakes hands. None if nothing came of it.
    pub(super) async fn run(self, stream: Socket) -> Option<Shaken> {
        if self.tls.is_permissive() && !self.begins_with_tls(&stream).await? {
            self.slot.is_shaken();
            return Some(Shaken::Cleartext(stream));
        }
        let mut shaking = pin!(TlsAcceptor::from(self.tls.config().clone()).accept(stream).into_fallible());
        let shaken = poll_fn(|cx| match self.slot.order(cx) {
            Some(Order::Late(_)) => {
                self.stats.count_handshake_timed_out();
                Poll::Ready(None)
            }
            Some(Order::Finish | Order::Abuse) => Poll::Ready(None),
            None => shaking.as_mut().poll(cx).map(Some),
        })
        .await?;
        match shaken {
            Ok(stream) => self.shaken(stream).map_err(|reason| self.failed(&reason)).ok(),
            Err((error, socket)) => {
                self.failed(&said(&error));
                self.slot.is_shaken();
                // The client is to read why; it may be in the middle of sending, and must not meet a reset.
                socket.end_writing();
                linger(Transport::from(socket)).await;
                None
            }
        }
    }

    fn failed(&self, reason: &str) {
        self.stats.count_handshake_failed();
        tracing::debug!(client = %self.client, reason, "TLS handshake failed");
    }

    /// Looks at the first byte without taking it.
    async fn begins_with_tls(&self, stream: &Socket) -> Option<bool> {
        let first = async {
            let mut first = [0];
            (stream.peek(&mut first).await.ok()? == 1).then_some(first[0])
        };
        let mut first = pin!(first);
        let peeked = poll_fn(|cx| match self.slot.order(cx) {
            Some(Order::Late(_)) if self.may_be_silent => Poll::Ready(Some(None)),
            Some(Order::Late(_)) => {
                self.stats.count_handshake_timed_out();
                Poll::Ready(None)
            }
            Some(Order::Finish | Order::Abuse) => Poll::Ready(None),
            None => first.as_mut().poll(cx).map(Some),
        })
        .await?;
        // A client that left, or broke off, is for whoever serves cleartext to deal with.
        Some(peeked == Some(HANDSHAKE_RECORD))
    }

    fn shaken(&self, stream: tokio_rustls::server::TlsStream<Socket>) -> Result<Shaken, String> {
        let connection = stream.get_ref().1;
        let settled = self.tls.settled(connection)?;
        let protocol =
            if connection.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        self.stats.count_handshake(connection.handshake_kind() == Some(HandshakeKind::Resumed));
        self.slot.is_shaken();
        Ok(Shaken::Secured { transport: Transport::from(stream), protocol, settled })
    }
}
