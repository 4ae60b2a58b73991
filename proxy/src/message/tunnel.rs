//! What follows a head that changes the protocol: no messages any more, but bytes both ways.
//!
//! An exchange makes a [`Tunnel`] and puts it in the place of its response's body; whoever has the client's connection takes
//! it out and gives that connection to it once the head is written.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// One side of a tunnel: bytes both ways. Shutting it down ends what goes to it; dropping it ends both.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    /// Has it end by a reset when it is dropped, where it can: nobody is to take what came for the whole.
    fn break_off(&self) {}
}

type Carrying = Pin<Box<dyn Future<Output = ()>>>;

/// The rest of an exchange, which waits for the client's connection. Dropped instead, the exchange is over.
pub struct Tunnel {
    carry: Box<dyn FnOnce(Box<dyn Duplex>, Bytes) -> Carrying>,
}

impl Tunnel {
    /// A tunnel that goes on with `carry`, given the client's connection and what was read ahead from it.
    pub fn new<F>(carry: impl FnOnce(Box<dyn Duplex>, Bytes) -> F + 'static) -> Tunnel
    where
        F: Future<Output = ()> + 'static,
    {
        Tunnel { carry: Box::new(move |client, ahead| Box::pin(carry(client, ahead))) }
    }

    /// Carries bytes until both sides have ended. `ahead` was read from the client after its request.
    pub fn carry(self, client: impl Duplex + 'static, ahead: Bytes) -> impl Future<Output = ()> {
        (self.carry)(Box::new(client), ahead)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}
