//! WebSocket from either end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
pub use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server;

use crate::deadline::within;

/// One end of a WebSocket.
pub struct WebSocket {
    stream: WebSocketStream<TcpStream>,
}

impl WebSocket {
    /// Connects and changes to WebSocket; anything else than that fails the test.
    pub async fn connect(address: SocketAddr, path: &str) -> WebSocket {
        WebSocket::asking(address, path, &[]).await.0
    }

    /// As `connect`, with these fields; gives those of the answer too.
    pub async fn asking(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> (WebSocket, HeaderMap) {
        let stream = TcpStream::connect(address).await.expect("connect");
        let mut request = Request::builder()
            .uri(format!("ws://{address}{path}"))
            .header("host", address.to_string())
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", tungstenite::handshake::client::generate_key());
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request the test wrote");
        let connecting = tokio_tungstenite::client_async(request, stream);
        let (stream, answer) = within("a WebSocket", connecting).await.expect("a WebSocket");
        (WebSocket { stream }, answer.headers().clone())
    }

    /// Sends a message; the peer may have left already.
    pub async fn send(&mut self, message: impl Into<Message>) {
        let _ = within("room for a message", self.stream.send(message.into())).await;
    }

    /// The next message; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Message> {
        within("a message", self.stream.next()).await.and_then(Result::ok)
    }

    /// Sends a text and expects it to come back.
    pub async fn echo(&mut self, text: &str) {
        self.send(text).await;
        assert_eq!(self.next().await, Some(Message::text(text)));
    }

    /// Says goodbye, and waits until the peer has and the connection is closed.
    pub async fn close(mut self) {
        within("a closing handshake", self.stream.close(None)).await.expect("an open WebSocket");
        while let Some(message) = self.next().await {
            assert!(message.is_close(), "after the goodbye: {message:?}");
        }
    }
}

/// A WebSocket server that sends every text and every binary message back; on the text "bye" it closes.
pub struct WebSocketBackend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request<()>>>>,
    accepting: AbortHandle,
}

impl WebSocketBackend {
    /// On a free port.
    pub async fn start() -> WebSocketBackend {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                connections.spawn(echo(stream, Arc::clone(&heads)));
            }
        });
        WebSocketBackend { address, seen, accepting: accepting.abort_handle() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The heads of the requests until now.
    pub fn seen(&self) -> Vec<Request<()>> {
        self.seen.lock().expect("nobody panics while pushing").clone()
    }
}

impl Drop for WebSocketBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[expect(clippy::result_large_err, reason = "the form of the callback is tungstenite's")]
async fn echo(stream: TcpStream, heads: Arc<Mutex<Vec<Request<()>>>>) {
    let note = |request: &server::Request, mut response: server::Response| {
        heads.lock().expect("nobody panics while pushing").push(request.clone());
        if let Some(protocol) = request.headers().get("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
        }
        Ok(response)
    };
    let Ok(mut stream) = tokio_tungstenite::accept_hdr_async(stream, note).await else { return };
    while let Some(Ok(message)) = stream.next().await {
        let sent = match message {
            Message::Text(text) if text.as_str() == "bye" => stream.close(None).await,
            Message::Text(_) | Message::Binary(_) => stream.send(message).await,
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}
