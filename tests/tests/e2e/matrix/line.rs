//! A stream in both directions, of whatever protocol: numbered records go out and must come back, byte for byte.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meshgate_tests::{Ask, BodySender, Client, Message, framed, messages, streamed, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use super::world::{CALL, NAME, Protocol, Stream, World};

/// What went wrong.
pub(super) type Failure = String;

/// One open stream.
pub(super) struct Line {
    number: u32,
    sent: u32,
    received: u32,
    way: Way,
}

enum Way {
    Http(Http),
    WebSocket(Box<WebSocketStream<Box<dyn Stream>>>),
    Tcp(Box<dyn Stream>),
}

/// A request whose body is sent while its response comes.
struct Http {
    sender: BodySender,
    body: Incoming,
    read: BytesMut,
    /// Messages with their prefixes, and a status at the end.
    grpc: bool,
}

/// The record with this number on the line with that number: both numbers, a length, and as many bytes that follow from them.
fn record(line: u32, number: u32) -> Vec<u8> {
    let mut state = u64::from(line) << 32 | u64::from(number) | 1;
    let mut next = move || {
        // Xorshift: other bytes for each record, the same each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // Mostly short ones, and some that take several frames or packets.
    let length = if number % 16 == 7 { 40_000 } else { (next() % 1_500) as usize };
    let mut record = Vec::with_capacity(12 + length);
    record.extend(line.to_be_bytes());
    record.extend(number.to_be_bytes());
    record.extend(u32::try_from(length).unwrap().to_be_bytes());
    record.extend((0..length).map(|_| next() as u8));
    record
}

impl Line {
    /// Opens a line on a connection of its own.
    pub(super) async fn open(
        world: &World,
        proxy: SocketAddr,
        number: u32,
    ) -> io::Result<Result<Line, Failure>> {
        match world.protocol() {
            Protocol::WebSocket => {
                let stream = world.dial(proxy).await?;
                Ok(Line::websocket(stream, number).await)
            }
            Protocol::Tcp => Ok(Ok(Line::new(number, Way::Tcp(world.dial(proxy).await?)))),
            protocol => {
                let mut client = world.dial_http(proxy).await?;
                Ok(Line::http(&mut client, protocol, number).await)
            }
        }
    }

    /// Opens a line on a connection that is there.
    pub(super) async fn http(client: &mut Client, protocol: Protocol, number: u32) -> Result<Line, Failure> {
        let grpc = protocol == Protocol::GrpcStream;
        let (sender, body) = streamed();
        let path = if grpc { "/test.Echo/Stream" } else { "/echo" };
        let mut ask = Ask::new(Method::POST, path, body).header(CALL, &number.to_string());
        if grpc {
            ask = ask.header("content-type", "application/grpc").header("te", "trailers");
        }
        let response = within("a head", client.start(ask)).await.map_err(|error| format!("{error:?}"))?;
        if response.status() != 200 || response.headers().contains_key("grpc-status") {
            return Err(format!("line {number}: {response:?}"));
        }
        let http = Http { sender, body: response.into_body(), read: BytesMut::new(), grpc };
        Ok(Line::new(number, Way::Http(http)))
    }

    async fn websocket(stream: Box<dyn Stream>, number: u32) -> Result<Line, Failure> {
        let request =
            Request::builder().uri(format!("ws://{NAME}/")).header("host", NAME).header(CALL, number);
        let request = request.header("connection", "Upgrade").header("upgrade", "websocket");
        let request =
            request.header("sec-websocket-version", "13").header("sec-websocket-key", generate_key());
        let connecting = tokio_tungstenite::client_async(request.body(()).unwrap(), stream);
        let (stream, _) = within("a WebSocket", connecting).await.map_err(|error| format!("{error:?}"))?;
        Ok(Line::new(number, Way::WebSocket(Box::new(stream))))
    }

    fn new(number: u32, way: Way) -> Line {
        Line { number, sent: 0, received: 0, way }
    }

    /// Sends so many records, and expects them back.
    pub(super) async fn exchange(&mut self, records: u32) -> Result<(), Failure> {
        for _ in 0..records {
            let record = record(self.number, self.sent);
            within("room to send", self.way.send(record)).await.map_err(|error| self.said(&error))?;
            self.sent += 1;
        }
        for _ in 0..records {
            let expected = record(self.number, self.received);
            let got = within("a record", self.way.receive(expected.len())).await;
            let got = got.map_err(|error| self.said(&error))?;
            if got != expected {
                return Err(self.said("other bytes than were sent"));
            }
            self.received += 1;
        }
        Ok(())
    }

    /// Ends it, and expects the other side to do so, in order.
    pub(super) async fn end(self) -> Result<(), Failure> {
        let (number, received) = (self.number, self.received);
        let ended = within("the end of a line", self.way.end()).await;
        ended.map_err(|error| format!("line {number} at its end, after {received} records: {error}"))
    }

    fn said(&self, error: &str) -> Failure {
        format!("line {}, {} records sent, {} received: {error}", self.number, self.sent, self.received)
    }
}

impl Way {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Debug| format!("cannot send: {error:?}");
        match self {
            Way::Http(http) => {
                let bytes = if http.grpc { framed(&record) } else { record.into() };
                http.sender.send_data(bytes).await.map_err(|error| failed(&error))
            }
            Way::WebSocket(stream) => {
                stream.send(Message::binary(record)).await.map_err(|error| failed(&error))
            }
            Way::Tcp(stream) => {
                stream.write_all(&record).await.map_err(|error| failed(&error))?;
                stream.flush().await.map_err(|error| failed(&error))
            }
        }
    }

    async fn receive(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        match self {
            Way::Http(http) => http.receive(length).await,
            Way::WebSocket(stream) => match stream.next().await {
                Some(Ok(Message::Binary(bytes))) => Ok(bytes.to_vec()),
                other => Err(format!("no message but {other:?}")),
            },
            Way::Tcp(stream) => {
                let mut bytes = vec![0; length];
                stream.read_exact(&mut bytes).await.map_err(|error| format!("{error:?}"))?;
                Ok(bytes)
            }
        }
    }

    async fn end(self) -> Result<(), Failure> {
        match self {
            Way::Http(http) => http.end().await,
            Way::WebSocket(mut stream) => {
                stream.as_mut().close(None).await.map_err(|error| format!("{error:?}"))?;
                while let Some(message) = stream.next().await {
                    if !message.as_ref().is_ok_and(Message::is_close) {
                        return Err(format!("after the goodbye: {message:?}"));
                    }
                }
                Ok(())
            }
            Way::Tcp(mut stream) => {
                stream.shutdown().await.map_err(|error| format!("{error:?}"))?;
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.map_err(|error| format!("{error:?}"))?;
                if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes too many", rest.len())) }
            }
        }
    }
}

impl Http {
    async fn receive(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        const PREFIX: &[u8] = b"echo: ";
        let length = if self.grpc { 5 + PREFIX.len() + length } else { length };
        while self.read.len() < length {
            let frame =
                self.body.frame().await.ok_or("the response ended")?.map_err(|error| format!("{error:?}"))?;
            self.read.extend_from_slice(frame.data_ref().ok_or("trailers")?);
        }
        let mut bytes = self.read.split_to(length);
        if !self.grpc {
            return Ok(bytes.to_vec());
        }
        let message = messages(&mut bytes).pop().ok_or("no whole message")?;
        message.strip_prefix(PREFIX).map(<[u8]>::to_vec).ok_or_else(|| "no echo".to_owned())
    }

    async fn end(self) -> Result<(), Failure> {
        let Http { sender, body, read, grpc } = self;
        drop(sender);
        let rest = body.collect().await.map_err(|error| format!("{error:?}"))?;
        let status = rest.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        let rest = read.len() + rest.to_bytes().len();
        match status {
            _ if rest > 0 => Err(format!("{rest} bytes too many")),
            Some(status) if grpc && status == "0" => Ok(()),
            None if !grpc => Ok(()),
            other => Err(format!("ended with {other:?}")),
        }
    }
}

/// The bytes of a whole call.
pub(super) fn content(number: u32) -> Vec<u8> {
    record(number, 7 * (number % 16 / 8))
}
