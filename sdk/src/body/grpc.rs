//! Bodies of gRPC: messages, each behind a flag and its length, which may be cut anywhere.

use prost::Message;

use super::{Arrived, Body, BodyError, Taken, Wants};
use crate::host::{self, Direction};

/// What stands before each message: a flag, and the length in four bytes.
const HEAD: usize = 5;

/// A message of gRPC in a body: see [`Body::grpc_message`].
///
/// ```
/// use meshgate_sdk::GrpcMessage;
///
/// let message = GrpcMessage::new("hello");
/// assert_eq!(message.frame(), b"\0\0\0\0\x05hello");
/// ```
#[derive(Clone, Debug)]
pub struct GrpcMessage {
    /// Whether it is compressed, in the way that the field `grpc-encoding` of the head says.
    pub compressed: bool,
    /// The message, encoded.
    pub bytes: Vec<u8>,
    /// Whether it came in a request.
    request: bool,
}

impl GrpcMessage {
    /// A message that is encoded already, and not compressed.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { compressed: false, bytes: bytes.into(), request: false }
    }

    /// A message of prost's.
    ///
    /// ```
    /// use meshgate_sdk::GrpcMessage;
    ///
    /// #[derive(Clone, PartialEq, prost::Message)]
    /// struct Note {
    ///     #[prost(string, tag = "1")]
    ///     text: String,
    /// }
    ///
    /// let message = GrpcMessage::of(&Note { text: "hello".to_owned() });
    /// assert_eq!(message.bytes, b"\x0a\x05hello");
    /// assert_eq!(message.decode::<Note>()?.text, "hello");
    /// # Ok::<(), meshgate_sdk::BodyError>(())
    /// ```
    pub fn of(message: &impl Message) -> Self {
        Self::new(message.encode_to_vec())
    }

    /// Reads it as a message of prost's.
    ///
    /// # Errors
    /// It is another one, or compressed. `?` in a callback then answers with 400 if it came in a request, else with 502.
    pub fn decode<T: Message + Default>(&self) -> Result<T, BodyError> {
        let malformed = |reason| BodyError::Malformed { reason, request: self.request };
        if self.compressed {
            return Err(malformed("a gRPC message is compressed".to_owned()));
        }
        T::decode(&*self.bytes).map_err(|error| malformed(error.to_string()))
    }

    /// As it stands in a body: with its flag and its length before it. For [`Body::replace`], [`Body::prepend`] and
    /// [`Body::append`].
    pub fn frame(&self) -> Vec<u8> {
        // A module has no room for a message whose length could not be said.
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        [&[u8::from(self.compressed)][..], &length.to_be_bytes()[..], &self.bytes[..]].concat()
    }
}

impl Body {
    /// The next message of a gRPC request or response, as soon as all of it is there; `None` at the body's end. What was given
    /// before goes on, and does not wait for the rest of this one.
    ///
    /// [`replace`](Self::replace) puts another one in its place, [`prepend`](Self::prepend) and [`append`](Self::append) put some
    /// beside it, all of them as [frames](GrpcMessage::frame).
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// use meshgate_sdk::GrpcMessage;
    ///
    /// # #[derive(Clone, PartialEq, prost::Message)]
    /// # struct Order { #[prost(string, tag = "1")] item: String, #[prost(string, tag = "2")] card: String }
    /// # struct Cards;
    /// # #[filter]
    /// # impl Filter for Cards {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// async fn on_response_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
    ///     while let Some(message) = body.grpc_message(64 << 10).await? {
    ///         let mut order: Order = message.decode()?;
    ///         if !order.card.is_empty() {
    ///             order.card.clear();
    ///             body.replace(GrpcMessage::of(&order).frame())?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request, Response};
    /// # let order = |item: &str, card: &str| {
    /// #     GrpcMessage::of(&Order { item: item.to_owned(), card: card.to_owned() }).frame()
    /// # };
    /// # let mut proxy = Proxy::new::<Cards>("");
    /// # let sent = [order("hat", "1234"), order("", ""), order("coat", "")].concat();
    /// # proxy.endpoint(move |_| Response::new(200).parts(sent.chunks(3)).trailer("grpc-status", "0"));
    /// # let expected = [order("hat", ""), order("", ""), order("coat", "")].concat();
    /// # assert_eq!(proxy.send(Request::get("/")).response().bytes(), expected);
    /// # }
    /// ```
    ///
    /// A message as it stands, compressed or not:
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Bounds;
    /// # #[filter]
    /// # impl Filter for Bounds {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// /// A hundred messages, of 1 KiB each.
    /// async fn on_request_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
    ///     let mut count = 0;
    ///     while body.grpc_message(1 << 10).await?.is_some() {
    ///         count += 1;
    ///         if count > 100 {
    ///             return Reply::new(429).into();
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::GrpcMessage;
    /// # use meshgate_sdk::testing::{Proxy, Request};
    /// # let mut proxy = Proxy::new::<Bounds>("");
    /// # let mut status = |body: Vec<u8>| proxy.send(Request::post("/", body)).status();
    /// # let one = GrpcMessage::new("one").frame();
    /// # assert_eq!((status(one.repeat(100)), status(one.repeat(101))), (200, 429));
    /// # assert_eq!(status(GrpcMessage::new(vec![7_u8; 1 << 11]).frame()), 413);
    /// # assert_eq!(status(one[..7].to_vec()), 400);
    /// # }
    /// ```
    ///
    /// # Errors
    /// The message is longer than `limit` bytes; it is not waited for. `?` then answers with 413 for a request and 502 for a
    /// response. Or it is none, which its first byte tells (gRPC-Web's trailers are none), or the body ends within it: with 400 and
    /// 502. Or the host gave no access to it, or does not let the body be changed.
    pub async fn grpc_message(&mut self, limit: usize) -> Result<Option<GrpcMessage>, BodyError> {
        self.arrived().give_back();
        loop {
            let (start, there) = (self.arrived().end.get(), self.arrived().unread());
            let mut size = HEAD;
            if there >= HEAD {
                let (compressed, length) = self.grpc_head(start, limit)?;
                size = HEAD.saturating_add(length);
                if there >= size {
                    let bytes = self.read(start + HEAD, start + size)?;
                    self.arrived().start.set(start);
                    self.arrived().end.set(start + size);
                    return Ok(Some(GrpcMessage { compressed, bytes, request: self.is_request() }));
                }
            }
            if !self.more(size).await? {
                return Ok(None);
            }
        }
    }

    /// What stands before the message that begins here: whether it is compressed, and its length.
    fn grpc_head(&self, start: usize, limit: usize) -> Result<(bool, usize), BodyError> {
        let head = <[u8; HEAD]>::try_from(self.read(start, start + HEAD)?);
        let Ok([flag @ (0 | 1), length @ ..]) = head else {
            return Err(self.malformed("no gRPC message begins where one should"));
        };
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > limit {
            return Err(BodyError::TooLong { limit, request: self.is_request() });
        }
        Ok((flag == 1, length))
    }

    /// Waits for more of a message, of which `size` bytes are needed next; false if the body has ended before it.
    async fn more(&self, size: usize) -> Result<bool, BodyError> {
        let arrived = self.arrived();
        let is_cut = || self.malformed("it ends within a gRPC message");
        if arrived.ended.get() {
            if arrived.unread() > 0 || arrived.taken.borrow().is_some() {
                return Err(is_cut());
            }
            arrived.start.set(arrived.end.get());
            return Ok(false);
        }
        if arrived.end.get() == 0 && arrived.unread() > 0 {
            // Nothing stands before it: it waits in the host.
            let is_there = |arrived: &Arrived| arrived.unread() >= size || arrived.ended.get();
            arrived.until(Wants::Whole, |arrived| is_there(arrived).then_some(())).await;
            return Ok(true);
        }
        // A host lets go all that it has or nothing: what is there of the message waits here. It is put back when more comes, and
        // then has nothing before it; so no byte is moved this way twice.
        self.take_out()?;
        let is_there = |arrived: &Arrived| arrived.unread() > 0 || arrived.ended.get();
        arrived.until(Wants::Next, |arrived| is_there(arrived).then_some(())).await;
        // Where nothing but trailers came, the host takes nothing back: no body is there any more.
        let is_missing = arrived.taken.borrow().is_some();
        if is_missing { Err(is_cut()) } else { Ok(true) }
    }

    /// Takes out of the host's buffer what is behind that which was given last.
    fn take_out(&self) -> Result<(), BodyError> {
        let (end, count) = (self.arrived().end.get(), self.arrived().unread());
        if count > 0 {
            let bytes = self.read(end, end + count)?;
            self.splice(end, count, &[]).map_err(BodyError::Refused)?;
            let buffer = self.carrier.buffer(self.direction);
            self.arrived().taken.replace(Some(Taken { bytes, buffer, put: host::set_buffer }));
        }
        Ok(())
    }

    fn is_request(&self) -> bool {
        self.direction == Direction::Request
    }

    #[cold]
    fn malformed(&self, reason: &str) -> BodyError {
        BodyError::Malformed { reason: reason.to_owned(), request: self.is_request() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_say_what_they_hold() {
        let mut message = GrpcMessage::new([7_u8; 0x0102]);
        assert_eq!(message.frame()[..6], [0, 0, 0, 1, 2, 7]);
        message.compressed = true;
        message.bytes.clear();
        assert_eq!(message.frame(), [1, 0, 0, 0, 0]);
    }

    #[test]
    fn what_cannot_be_decoded_is_malformed() {
        let mut message = GrpcMessage::new(b"\xff");
        message.request = true;
        assert!(matches!(message.decode::<()>(), Err(BodyError::Malformed { request: true, .. })));
        let compressed = GrpcMessage { compressed: true, ..GrpcMessage::new("") };
        let error = compressed.decode::<()>().unwrap_err();
        assert_eq!(error.to_string(), "the body is malformed: a gRPC message is compressed");
    }
}
