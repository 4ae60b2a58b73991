//! Sockets that bytes go over, whichever family they are of. What reads and writes one does not know which it is.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use meshgate_config::Address;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// Of TCP.
    Tcp(TcpStream),
    /// Of this machine.
    Unix(UnixStream),
}

/// An address as filters see it.
pub fn seen(address: Address) -> meshgate_wasm::Address {
    match address {
        Address::Ip(address) => meshgate_wasm::Address::Ip(address),
        Address::Unix(path) => meshgate_wasm::Address::Unix(path.as_str()),
    }
}

impl Socket {
    /// Connects, and has small writes go out at once.
    ///
    /// # Errors
    /// Nobody is there, or nobody answers.
    pub async fn connect(address: Address) -> io::Result<Socket> {
        match address {
            Address::Ip(address) => {
                let socket = TcpStream::connect(address).await?;
                // Without it the second of two small writes would wait for the peer's delayed acknowledgement.
                socket.set_nodelay(true)?;
                Ok(Socket::Tcp(socket))
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        }
    }

    /// Our side of it, if it has an address.
    pub fn local_address(&self) -> Option<meshgate_wasm::Address> {
        match self {
            Socket::Tcp(socket) => socket.local_addr().ok().map(meshgate_wasm::Address::Ip),
            Socket::Unix(_) => None,
        }
    }

    /// Waits until there may be something to read.
    ///
    /// # Errors
    /// The runtime is going away.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.readable().await,
            Socket::Unix(socket) => socket.readable().await,
        }
    }

    /// Reads what is there, and no byte beyond the buffer.
    ///
    /// # Errors
    /// Nothing is there (`WouldBlock`), or the connection is broken.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.try_read(buffer),
            Socket::Unix(socket) => socket.try_read(buffer),
        }
    }

    /// Looks at what is there without taking it.
    ///
    /// # Errors
    /// The connection is broken; or it is a Unix socket, on which nothing that needs this is allowed.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.peek(buffer).await,
            Socket::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Says that nothing more will be written.
    pub fn end_writing(&self) {
        // It fails only if the connection is gone already.
        let _ = SockRef::from(self).shutdown(Shutdown::Write);
    }

    /// Has it end by a reset when it is dropped, where there is such a thing: nobody is to take what came for the whole.
    pub fn break_off(&self) {
        if let Socket::Tcp(_) = self {
            // It fails only if the connection is gone already.
            let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Socket {
        Socket::Tcp(socket)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, pieces),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
