//! What a client says first on a connection whose TLS is passed through: the server that it asks for. All of it is kept, to
//! be passed on as it came.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use meshgate_wasm::Address;

use super::ListenerStats;
use super::slots::{Order, Slot};
use crate::socket::Socket;
use crate::tls::{Hello, HelloReader, NoHello};

/// Bytes read at a time: most clients say no more than that.
const PIECE: usize = 2048;

/// What a client said first, and all that was read to find out.
pub(super) struct Greeting {
    pub(super) hello: Hello,
    pub(super) bytes: Bytes,
}

/// Why a connection is not passed on.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    NoHello(#[from] NoHello),
    #[error("it ended before its first message did")]
    Ended,
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Reads what a client says first, `most` bytes of it and within the slot's time. None if nothing came of it.
pub(super) async fn read(
    stream: &Socket,
    client: Address,
    most: usize,
    slot: &Rc<Slot>,
    stats: &ListenerStats,
) -> Option<Greeting> {
    let mut receiving = pin!(receive(stream, most));
    let received = poll_fn(|cx| match slot.order(cx) {
        Some(Order::Late(_)) => {
            stats.count_handshake_timed_out();
            Poll::Ready(None)
        }
        Some(Order::Finish | Order::Abuse) => Poll::Ready(None),
        None => receiving.as_mut().poll(cx).map(Some),
    })
    .await?;
    match received {
        Ok(greeting) => {
            slot.is_shaken();
            Some(greeting)
        }
        Err(refused) => {
            stats.count_handshake_failed();
            tracing::debug!(%client, %refused, "connection closed before it was passed through");
            None
        }
    }
}

async fn receive(stream: &Socket, most: usize) -> Result<Greeting, Refused> {
    let mut reader = HelloReader::new(most);
    let mut bytes = Vec::new();
    loop {
        stream.readable().await?;
        let before = bytes.len();
        bytes.resize(before + reader.room().min(PIECE), 0);
        let read = match stream.try_read(&mut bytes[before..]) {
            Ok(0) => return Err(Refused::Ended),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        bytes.truncate(before + read);
        if let Some(hello) = reader.read(&bytes[before..])? {
            return Ok(Greeting { hello, bytes: bytes.into() });
        }
    }
}
