//! Plain TCP from either end, step by step: a test holds the client's socket and the backend's, and tells an orderly end
//! from a reset.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::deadline::within;

/// One end of a connection.
pub struct Socket {
    stream: TcpStream,
}

/// How a connection ended, and what came before.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// All that was read until then.
    pub bytes: Vec<u8>,
    /// By a reset, not in order.
    pub reset: bool,
}

impl Ended {
    /// In order, after this.
    pub fn in_order(bytes: impl AsRef<[u8]>) -> Ended {
        Ended { bytes: bytes.as_ref().to_vec(), reset: false }
    }
}

impl Socket {
    /// Connects to a server. A connection that is reset as soon as it is made is still one.
    pub async fn connect(address: SocketAddr) -> Socket {
        // Unlike that of the runtime, the system's own `connect` leaves a reset for the first read to be found.
        let connecting = tokio::task::spawn_blocking(move || std::net::TcpStream::connect(address));
        let stream = within("a connection", connecting).await.expect("no panic").expect("connect");
        stream.set_nonblocking(true).expect("a socket");
        Socket::new(TcpStream::from_std(stream).expect("a socket"))
    }

    fn new(stream: TcpStream) -> Socket {
        let _ = stream.set_nodelay(true);
        Socket { stream }
    }

    /// Writes all of `bytes`; the peer may have left already.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("room to write", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Says that nothing more will be written, and goes on reading.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads exactly `length` bytes; fails the test when the connection ends before.
    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = within(format!("{length} bytes"), self.stream.read_exact(&mut bytes)).await;
        read.unwrap_or_else(|error| panic!("{length} bytes: {error}"));
        bytes
    }

    /// Reads exactly this text.
    pub async fn expect(&mut self, text: &str) {
        assert_eq!(String::from_utf8_lossy(&self.read(text.len()).await), text);
    }

    /// Reads until the connection ends.
    pub async fn end(&mut self) -> Ended {
        let mut bytes = Vec::new();
        match within("the end of the connection", self.stream.read_to_end(&mut bytes)).await {
            Ok(_) => Ended { bytes, reset: false },
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ended { bytes, reset: true },
            Err(error) => panic!("neither an end nor a reset: {error}"),
        }
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Both directions apart, for sending and receiving at once.
    pub fn split(self) -> (tokio::net::tcp::OwnedReadHalf, tokio::net::tcp::OwnedWriteHalf) {
        self.stream.into_split()
    }

    /// The address of this end.
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("connected")
    }
}

/// A server whose connections the test takes one by one.
pub struct SocketBackend {
    listener: TcpListener,
}

impl SocketBackend {
    /// On a free port.
    pub async fn start() -> SocketBackend {
        SocketBackend { listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port") }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    /// The next connection.
    pub async fn accept(&self) -> Socket {
        let (stream, _) =
            within("a connection to the backend", self.listener.accept()).await.expect("accept");
        Socket::new(stream)
    }

    /// Whether a connection waits to be taken.
    pub async fn is_waited_for(&self) -> bool {
        let accepting = tokio::time::timeout(std::time::Duration::ZERO, self.listener.accept());
        accepting.await.is_ok()
    }
}
