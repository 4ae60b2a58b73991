//! HTTP/1.1 byte by byte, from either end: what hyper would never send, and exactly what was received.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::deadline::within;

/// A connection on which a test reads and writes bytes itself.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

/// A response as it stood on the wire.
#[derive(Debug)]
pub struct RawReply {
    /// Status line and header fields, lines divided by CRLF, without the empty line.
    pub head: String,
    /// The body, decoded if it was chunked.
    pub body: Vec<u8>,
}

impl RawReply {
    /// The status code.
    pub fn status(&self) -> u16 {
        let code = self.head.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status line: {:?}", self.head))
    }

    /// The first value of a header field, "" when it is absent.
    pub fn header(&self, name: &str) -> &str {
        field(&self.head, name).unwrap_or_default()
    }
}

/// A chunked body, decoded.
#[derive(Debug)]
pub struct Chunked {
    /// The chunks, joined.
    pub content: Vec<u8>,
    /// The trailer fields as they stood, lines divided by CRLF.
    pub trailers: String,
}

/// The first value of field `name` in a raw head.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl Wire {
    /// Connects to a server.
    pub async fn connect(address: SocketAddr) -> Wire {
        Wire::new(TcpStream::connect(address).await.expect("connect"))
    }

    fn new(stream: TcpStream) -> Wire {
        let _ = stream.set_nodelay(true);
        Wire { stream: BufReader::new(stream) }
    }

    /// Writes all of `bytes`; the peer may have left already.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("room to write", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Writes as many of `bytes` as there is room for, at least one, and says how many.
    pub async fn write_some(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes).await
    }

    /// Says that nothing more will be written, and goes on reading.
    pub async fn finish_writing(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads a head up to its empty line (not included); `None` when the connection ends before.
    pub async fn read_head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        within("a message head", async {
            loop {
                let before = head.len();
                match self.stream.read_until(b'\n', &mut head).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) if &head[before..] == b"\r\n" => {
                        head.truncate(before.saturating_sub(2));
                        return Some(String::from_utf8_lossy(&head).into_owned());
                    }
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// Reads exactly `length` bytes; fails the test when the connection ends before.
    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        within(format!("{length} bytes"), self.stream.read_exact(&mut bytes)).await.expect("as many bytes");
        bytes
    }

    /// Reads until the peer ends the connection, in order or by a reset.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = within("the end of the connection", self.stream.read_to_end(&mut bytes)).await;
        bytes
    }

    /// Reads a chunked body to the end of its trailer section.
    pub async fn read_chunked(&mut self) -> Chunked {
        let mut content = Vec::new();
        loop {
            let size = self.read_line().await;
            let size =
                usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("not a chunk size: {size:?}"));
            if size == 0 {
                break;
            }
            content.extend(self.read(size).await);
            assert_eq!(self.read(2).await, b"\r\n", "a chunk ends with CRLF");
        }
        let mut trailers = Vec::new();
        loop {
            match self.read_line().await {
                end if end.is_empty() => return Chunked { content, trailers: trailers.join("\r\n") },
                field => trailers.push(field),
            }
        }
    }

    async fn read_line(&mut self) -> String {
        let mut line = String::new();
        within("a line", self.stream.read_line(&mut line)).await.expect("a line of ASCII");
        let end = line.strip_suffix("\r\n").map(str::len);
        line.truncate(end.unwrap_or_else(|| panic!("the connection ended inside a line: {line:?}")));
        line
    }

    /// Reads one response with its body, which ends by length, last chunk or the end of the connection.
    pub async fn read_reply(&mut self) -> RawReply {
        let head = self.read_head().await.expect("a response before the connection ends");
        let chunked = field(&head, "transfer-encoding").is_some_and(|coding| coding.ends_with("chunked"));
        let length = field(&head, "content-length").map(|length| length.parse().expect("a length"));
        let body = match length {
            _ if chunked => self.read_chunked().await.content,
            Some(length) => self.read(length).await,
            None => self.read_to_end().await,
        };
        RawReply { head, body }
    }

    /// Ends the connection by a reset instead of an orderly close.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(self.stream.get_ref()).set_linger(Some(std::time::Duration::ZERO));
    }
}

/// A server that hands every accepted connection to the test, as bytes.
pub struct RawBackend {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl RawBackend {
    /// Runs `script` for every connection, with the connection's number counted from 1.
    pub async fn start<S, F>(script: S) -> RawBackend
    where
        S: Fn(usize, Wire) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                connections.spawn(script(number, Wire::new(stream)));
            }
        });
        RawBackend { address, accepted, accepting: accepting.abort_handle() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted until now.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for RawBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
