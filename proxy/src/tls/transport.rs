//! A connection as bytes go over it: in cleartext, or through TLS. One type for both sides and for all protocols; what
//! reads and writes it does not know which it is.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::overload::{self, Intake};
use crate::socket::Socket;

/// A connection.
#[derive(Debug)]
pub struct Transport {
    way: Way,
    intake: Intake,
}

#[derive(Debug)]
enum Way {
    /// In cleartext.
    Plain(Socket),
    /// Through TLS, whose state is large and is not to be moved about.
    Tls(Box<TlsStream<Socket>>),
}

impl Way {
    fn socket(&self) -> &Socket {
        match self {
            Way::Plain(socket) => socket,
            Way::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsFd for Way {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Transport {
    /// The socket below.
    pub fn socket(&self) -> &Socket {
        self.way.socket()
    }

    /// The socket below alone: what is still under way in TLS is lost.
    pub fn into_socket(self) -> Socket {
        match self.way {
            Way::Plain(socket) => socket,
            Way::Tls(stream) => match *stream {
                TlsStream::Client(stream) => stream.into_inner().0,
                TlsStream::Server(stream) => stream.into_inner().0,
            },
        }
    }

    /// Writes a few last words and ends the connection, as far as the socket takes them without waiting.
    pub fn say_at_once(mut self, words: &[u8]) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // The peer may never read it, and the connection ends either way.
        let _ = Pin::new(&mut self).poll_write(&mut cx, words);
        let _ = Pin::new(&mut self).poll_shutdown(&mut cx);
    }
}

impl From<Way> for Transport {
    fn from(way: Way) -> Transport {
        Transport { way, intake: Intake::default() }
    }
}

impl From<Socket> for Transport {
    fn from(socket: Socket) -> Transport {
        Way::Plain(socket).into()
    }
}

impl From<tokio_rustls::server::TlsStream<Socket>> for Transport {
    fn from(stream: tokio_rustls::server::TlsStream<Socket>) -> Transport {
        Way::Tls(Box::new(TlsStream::Server(stream))).into()
    }
}

impl From<tokio_rustls::client::TlsStream<Socket>> for Transport {
    fn from(stream: tokio_rustls::client::TlsStream<Socket>) -> Transport {
        Way::Tls(Box::new(TlsStream::Client(stream))).into()
    }
}

impl AsyncRead for Way {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Way::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Way::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Transport { way, intake } = self.get_mut();
        if overload::is_watched() { intake.poll_read(way, cx, buf) } else { Pin::new(way).poll_read(cx, buf) }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Way::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, pieces),
            Way::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Way::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Way::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
