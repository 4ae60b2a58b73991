//! gRPC streams of a filter, and the servers that a test plays for them.

use std::time::{Duration, SystemTime};

use super::engine::{StreamDid, StreamPart};
use super::message::{Fields, Request};
use super::{Due, Proxy};

/// What a server of gRPC streams hears: see [`Proxy::grpc_streams`].
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Relay { rules: Cluster }
/// # #[filter]
/// # impl Filter for Relay {
/// #     fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { rules: "rules".into() }) }
/// #     async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
/// #         let mut stream = self.rules.grpc_stream("example.Rules", "Ask").open().await?;
/// #         stream.send_bytes(exchange.request().path())?;
/// #         stream.close()?;
/// #         let allowed = stream.message_bytes().await?;
/// #         if allowed.as_deref() == Some(b"yes") { Ok(()) } else { Reply::new(403).into() }
/// #     }
/// # }
/// # fn main() {
/// use meshgate_sdk::testing::{Proxy, Request, StreamEvent};
///
/// # let mut proxy = Proxy::new::<Relay>("");
/// proxy.grpc_streams("rules", |stream, event| match event {
///     StreamEvent::Opened(request) => assert_eq!(request.target(), "/example.Rules/Ask"),
///     StreamEvent::Message(path) => stream.send(if path == b"/open" { "yes" } else { "no" }),
///     StreamEvent::Ended => stream.end(),
///     StreamEvent::Cancelled => {}
/// });
/// assert_eq!(proxy.send(Request::get("/open")).status(), 200);
/// assert_eq!(proxy.send(Request::get("/private")).status(), 403);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum StreamEvent {
    /// The filter has opened a stream.
    Opened(Request),
    /// It has sent a message.
    Message(Vec<u8>),
    /// It has nothing more to send.
    Ended,
    /// It has cancelled the stream.
    Cancelled,
}

/// The server's end of a gRPC stream: what it says to what it has heard, in this order.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Relay { rules: Cluster }
/// # #[filter]
/// # impl Filter for Relay {
/// #     fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { rules: "rules".into() }) }
/// #     async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
/// #         let mut stream = self.rules.grpc_stream("example.Rules", "Ask").open().await?;
/// #         stream.send_bytes(exchange.request().path())?;
/// #         stream.close()?;
/// #         let version = stream.metadata().await.get("x-version").unwrap_or_default();
/// #         while let Some(rule) = stream.message_bytes().await? {
/// #             exchange.request().headers().add("x-rule", rule)?;
/// #         }
/// #         let rules = stream.trailers().get("x-rules").unwrap_or_default();
/// #         exchange.request().headers().set("x-rules", format!("{rules} of {version}"))?;
/// #         Ok(())
/// #     }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request, StreamEvent};
/// # let mut proxy = Proxy::new::<Relay>("");
/// proxy.grpc_streams("rules", |stream, event| match event {
///     StreamEvent::Opened(_) => {
///         stream.metadata("x-version", "7");
///         stream.begin();
///     }
///     StreamEvent::Message(path) if path == b"/broken" => stream.reset(),
///     StreamEvent::Message(path) if path == b"/private" => stream.fail(7, "not you"),
///     StreamEvent::Message(path) => stream.send(path),
///     StreamEvent::Ended => {
///         stream.after(Duration::from_millis(20));
///         stream.trailer("x-rules", "1");
///         stream.end();
///     }
///     StreamEvent::Cancelled => println!("the filter gives stream {} up", stream.number()),
/// });
/// # assert_eq!(proxy.send(Request::get("/broken")).status(), 503);
/// # assert_eq!(proxy.send(Request::get("/private")).status(), 502);
/// let done = proxy.send(Request::get("/a"));
/// assert_eq!(done.took(), Duration::from_millis(20));
/// # let upstream = done.upstream().unwrap();
/// # assert_eq!(upstream.field("x-rule").as_deref(), Some("/a"));
/// # assert_eq!(upstream.field("x-rules").as_deref(), Some("1 of 7"));
/// # }
/// ```
#[derive(Debug)]
pub struct ServerStream<'a> {
    id: u32,
    side: &'a mut Side,
    /// When it is said.
    at: SystemTime,
    said: Vec<(SystemTime, StreamPart)>,
}

/// What is kept of a stream between events.
#[derive(Debug)]
pub(super) struct Side {
    cluster: String,
    /// The fields of the head; none when it was sent.
    head: Option<Fields>,
    tail: Fields,
    over: bool,
    /// What was said last comes at this time: nothing overtakes it.
    last: SystemTime,
}

pub(super) type StreamServer = Box<dyn FnMut(&mut ServerStream<'_>, StreamEvent)>;

impl ServerStream<'_> {
    /// A number by which one stream is told from another.
    pub fn number(&self) -> u32 {
        self.id
    }

    /// Lets what follows take so long.
    pub fn after(&mut self, time: Duration) {
        self.at += time;
    }

    /// Adds a field to the metadata before the first message. It comes with what is said first.
    pub fn metadata(&mut self, name: &str, value: impl AsRef<[u8]>) {
        if let Some(head) = &mut self.side.head {
            head.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        }
    }

    /// Adds a field to the metadata after the last message.
    pub fn trailer(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.side.tail.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
    }

    /// Sends the metadata, if that has not been done.
    pub fn begin(&mut self) {
        if let Some(head) = self.side.head.take() {
            self.say(StreamPart::Metadata(head));
        }
    }

    /// Sends a message, encoded.
    pub fn send(&mut self, message: impl Into<Vec<u8>>) {
        self.begin();
        self.say(StreamPart::Message(message.into()));
    }

    /// Ends the stream well.
    pub fn end(&mut self) {
        self.begin();
        self.finish(0, "");
    }

    /// Ends the stream with this status and these words.
    pub fn fail(&mut self, status: u32, words: &str) {
        self.skip_head();
        self.finish(status, words);
    }

    /// Breaks the connection.
    pub fn reset(&mut self) {
        self.skip_head();
        self.say(StreamPart::Trailers(Fields::new()));
        self.close(14, "upstream connection ended");
    }

    /// As the proxy tells of a response without a head of its own.
    fn skip_head(&mut self) {
        if self.side.head.take().is_some() {
            self.say(StreamPart::Metadata(Fields::new()));
        }
    }

    fn finish(&mut self, status: u32, words: &str) {
        let mut tail = std::mem::take(&mut self.side.tail);
        tail.push(("grpc-status".to_owned(), status.to_string().into_bytes()));
        if !words.is_empty() {
            tail.push(("grpc-message".to_owned(), words.as_bytes().to_vec()));
        }
        self.say(StreamPart::Trailers(tail));
        self.close(status, words);
    }

    fn close(&mut self, status: u32, words: &str) {
        self.say(StreamPart::Closed(status, words.to_owned()));
        self.side.over = true;
    }

    fn say(&mut self, part: StreamPart) {
        if !self.side.over {
            self.side.last = self.side.last.max(self.at);
            self.said.push((self.side.last, part));
        }
    }
}

impl Proxy {
    /// Says how a cluster answers gRPC streams of the filter. Without it they end with `UNIMPLEMENTED`.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Relay { rules: Cluster }
    /// # #[filter]
    /// # impl Filter for Relay {
    /// #     fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { rules: "rules".into() }) }
    /// #     async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
    /// #         let mut stream = self.rules.grpc_stream("example.Rules", "Ask").open().await?;
    /// #         stream.send_bytes(exchange.request().path())?;
    /// #         let allowed = stream.message_bytes().await?;
    /// #         if allowed.as_deref() == Some(b"yes") { Ok(()) } else { Reply::new(403).into() }
    /// #     }
    /// # }
    /// # fn main() {
    /// use meshgate_sdk::testing::{Proxy, Request, StreamEvent};
    ///
    /// let mut proxy = Proxy::new::<Relay>("");
    /// proxy.grpc_streams("rules", |stream, event| match event {
    ///     StreamEvent::Message(path) if path == b"/private" => stream.fail(7, "not you"),
    ///     StreamEvent::Message(_) => {
    ///         stream.after(Duration::from_millis(20));
    ///         stream.send("yes");
    ///     }
    ///     _ => {}
    /// });
    /// assert_eq!(proxy.send(Request::get("/private")).status(), 502);
    /// assert_eq!(proxy.send(Request::get("/open")).took(), Duration::from_millis(20));
    /// # }
    /// ```
    pub fn grpc_streams(
        &mut self,
        cluster: &str,
        server: impl FnMut(&mut ServerStream<'_>, StreamEvent) + 'static,
    ) {
        self.stream_servers.insert(cluster.to_owned(), Box::new(server));
        self.tell_clusters();
    }

    /// Tells servers what the filter did with its streams.
    pub(super) fn look_at_streams(&mut self) {
        for (id, did) in self.engine.streams() {
            let event = match did {
                StreamDid::Opened { cluster, request } => {
                    let head = [(":status", "200"), ("content-type", "application/grpc")];
                    let head = head.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
                    let (head, last) = (Some(head.to_vec()), self.now);
                    self.calls.push((cluster.clone(), request.clone()));
                    let side = Side { cluster, head, tail: Fields::new(), over: false, last };
                    self.streams.insert(id, side);
                    StreamEvent::Opened(request)
                }
                StreamDid::Sent(message) => StreamEvent::Message(message),
                StreamDid::Ended => StreamEvent::Ended,
                StreamDid::Cancelled => {
                    self.waiting.retain(|(_, waiting, _)| *waiting != id);
                    StreamEvent::Cancelled
                }
            };
            self.tell_server(id, event);
        }
    }

    fn tell_server(&mut self, id: u32, event: StreamEvent) {
        let cancelled = event == StreamEvent::Cancelled;
        if let Some(side) = self.streams.get_mut(&id).filter(|side| !side.over) {
            let server = self.stream_servers.get_mut(&side.cluster);
            let mut stream = ServerStream { id, side, at: self.now, said: Vec::new() };
            match server {
                Some(server) => server(&mut stream, event),
                None => stream.fail(12, "no such method"),
            }
            if !cancelled {
                let said = stream.said.into_iter().map(|(at, part)| (at, id, Due::Part(part)));
                self.waiting.extend(said);
            }
        }
        if cancelled {
            self.streams.remove(&id);
        }
    }
}
