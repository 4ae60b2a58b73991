//! A message's body, as a filter's callback for it sees it: a sequence of parts that can be awaited, read and changed.
//! `grpc.rs` divides it into gRPC's messages instead.

mod grpc;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Poll, Waker};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::grpc::GrpcMessage;
use crate::error::{Refused, Stop};
use crate::host::{self, BufferType, Direction, Status};
use crate::reply::Reply;

/// What a body's task waits for, of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wants {
    /// Nothing: it waits for something else, or runs.
    Nothing,
    /// The next part; what it has seen may go on.
    Next,
    /// All of it; nothing goes on.
    Whole,
}

/// What the host holds of a body, and how far the filter is with it. Positions count from the start of the host's buffer.
pub(crate) struct Arrived {
    /// Bytes in the host's buffer.
    size: Cell<usize>,
    /// Where the part begins that the filter was given last.
    start: Cell<usize>,
    /// Where it ends.
    end: Cell<usize>,
    /// Nothing more comes.
    ended: Cell<bool>,
    wants: Cell<Wants>,
    waker: RefCell<Option<Waker>>,
    /// What was taken out of the host's buffer, from its end, so that what stands before it can go on.
    taken: RefCell<Option<Taken>>,
}

/// Bytes that are to be put back into the host's buffer.
struct Taken {
    bytes: Vec<u8>,
    buffer: BufferType,
    /// The hostcall. Whoever takes something out says it, so that modules whose filters take nothing out need not import it.
    put: fn(BufferType, usize, usize, &[u8]) -> Result<(), Status>,
}

/// Where a [`Body`] finds what has arrived of it: an exchange or a connection.
pub(crate) trait Carries {
    fn arrived(&self, direction: Direction) -> &Arrived;

    /// The host's buffer with it.
    fn buffer(&self, direction: Direction) -> BufferType;
}

impl Arrived {
    pub(crate) const fn new() -> Self {
        Self {
            size: Cell::new(0),
            start: Cell::new(0),
            end: Cell::new(0),
            ended: Cell::new(false),
            wants: Cell::new(Wants::Nothing),
            waker: RefCell::new(None),
            taken: RefCell::new(None),
        }
    }

    /// The host's buffer has so many bytes.
    pub(crate) fn grew(&self, size: usize, ended: bool) {
        // What was taken out stands before what has come now.
        let given_back = self.give_back();
        self.size.set(size + given_back);
        self.ended.set(self.ended.get() || ended);
        self.wake();
    }

    /// Trailers have arrived: the body has ended before them.
    pub(crate) fn ended(&self) {
        self.ended.set(true);
        self.wake();
    }

    /// What is in the host's buffer goes on.
    pub(crate) fn released(&self) {
        // Whoever waits for the next part gets what was taken out with that one. Nobody else knows of it any more.
        if self.wants.get() != Wants::Next {
            self.give_back();
        }
        self.size.set(0);
        self.start.set(0);
        self.end.set(0);
    }

    pub(crate) fn wants(&self) -> Wants {
        self.wants.get()
    }

    /// Bytes in the host's buffer behind what the filter was given last.
    fn unread(&self) -> usize {
        self.size.get().saturating_sub(self.end.get())
    }

    /// Puts what was taken out of the host's buffer back to its end, as far as that was known until now: how many bytes. A host
    /// that holds nothing takes nothing outside of its callback for the body; it does in the next one.
    fn give_back(&self) -> usize {
        let Some(taken) = self.taken.take() else { return 0 };
        let (end, count) = (self.size.get(), taken.bytes.len());
        if (taken.put)(taken.buffer, end, 0, &taken.bytes).is_ok() {
            self.size.set(end + count);
            count
        } else {
            self.taken.replace(Some(taken));
            0
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits until `ready` finds something.
    async fn until<T>(&self, wants: Wants, ready: impl Fn(&Self) -> Option<T>) -> T {
        let waits = Waits(self);
        poll_fn(|context| match ready(waits.0) {
            Some(value) => Poll::Ready(value),
            None => {
                waits.0.wants.set(wants);
                waits.0.waker.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

/// A future that waits for something of a body. When it is done or dropped, nothing is wanted any more.
struct Waits<'a>(&'a Arrived);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.wants.set(Wants::Nothing);
    }
}

/// A message's body, or what one side of a TCP connection sends. A callback for it gets it once, when the body begins, and
/// waits for what it needs of it.
///
/// What it does not wait for passes by: a callback that returns after the first part leaves the rest alone.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Shout;
/// # #[filter]
/// # impl Filter for Shout {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// /// Part by part: nothing is held back.
/// async fn on_request_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
///     while let Some(part) = body.next().await? {
///         body.replace(part.to_ascii_uppercase())?;
///     }
///     Ok(())
/// }
///
/// /// The whole body, of 64 KiB at most; a longer one is answered with 413 (a request) or 502 (a response).
/// async fn on_response_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
///     let text = body.text(64 << 10).await?;
///     body.replace(text.replace("http://", "https://"))?;
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
///
/// A body of gRPC can be read message by message, too: [`grpc_message`](Self::grpc_message).
///
/// Where a body's length changes, Meshgate takes care of `content-length`. On other hosts the filter removes it from the
/// head, in [`on_request`](crate::Filter::on_request) or [`on_response`](crate::Filter::on_response).
pub struct Body {
    carrier: Rc<dyn Carries>,
    direction: Direction,
}

impl Body {
    pub(crate) fn new(carrier: Rc<dyn Carries>, direction: Direction) -> Self {
        Self { carrier, direction }
    }

    fn arrived(&self) -> &Arrived {
        self.carrier.arrived(self.direction)
    }

    /// The next part, as soon as there is one; `None` at the body's end. What was given before goes on.
    ///
    /// How a body is divided into parts means nothing: that is up to the network and the host.
    ///
    /// # Errors
    /// The host gave no access to it.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        match self.next_size().await {
            Some(size) => self.part(0..size).map(Some),
            None => Ok(None),
        }
    }

    /// As [`next`](Self::next), but the part stays in the host: how many bytes it has. [`part`](Self::part) reads what is wanted
    /// of them.
    pub async fn next_size(&mut self) -> Option<usize> {
        self.arrived().give_back();
        let part = self.arrived().until(Wants::Next, |arrived| {
            let (end, size) = (arrived.end.get(), arrived.size.get());
            if size > end {
                arrived.start.set(end);
                arrived.end.set(size);
                return Some(Some(size - end));
            }
            arrived.ended.get().then(|| {
                arrived.start.set(end);
                None
            })
        });
        part.await
    }

    /// Bytes of what was given last; as many as there are, if there are fewer.
    ///
    /// # Errors
    /// The host gave no access to it.
    pub fn part(&self, range: Range<usize>) -> Result<Vec<u8>, BodyError> {
        let (start, end) = (self.arrived().start.get(), self.arrived().end.get());
        let within = |place: usize| start.saturating_add(place).min(end);
        self.read(within(range.start), within(range.end.max(range.start)))
    }

    /// What has arrived, as soon as it is `size` bytes or more; at the body's end it may be less. Nothing of it goes on before.
    ///
    /// For a protocol that tells by its first bytes what it is:
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # use meshgate_sdk::{Connection, TcpFilter};
    /// # struct NoTls;
    /// # #[filter]
    /// # impl TcpFilter for NoTls {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// async fn on_downstream_data(&self, connection: &Connection<Self>, data: &mut Body) -> Outcome {
    ///     if data.at_least(3).await?.starts_with(&[0x16, 0x03]) {
    ///         return connection.close();
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// The host gave no access to it.
    pub async fn at_least(&mut self, size: usize) -> Result<Vec<u8>, BodyError> {
        self.arrived().give_back();
        let enough = self.arrived().until(Wants::Whole, |arrived| {
            let there = arrived.size.get();
            (there >= size || arrived.ended.get()).then_some(there)
        });
        let end = enough.await;
        self.arrived().start.set(0);
        self.arrived().end.set(end);
        self.read(0, end)
    }

    /// The whole body, as far as it was not given out by [`next`](Self::next). Nothing of it goes on before.
    ///
    /// # Errors
    /// It is longer than `limit` bytes. `?` then answers with 413 for a request and 502 for a response. Or the host gave
    /// no access to it.
    pub async fn whole(&mut self, limit: usize) -> Result<Vec<u8>, BodyError> {
        self.arrived().give_back();
        let size = self.arrived().until(Wants::Whole, |arrived| {
            let size = arrived.size.get();
            (arrived.ended.get() || size > limit).then_some(size)
        });
        let size = size.await;
        if size > limit {
            return Err(BodyError::TooLong { limit, request: self.direction == Direction::Request });
        }
        self.arrived().start.set(0);
        self.arrived().end.set(size);
        self.read(0, size)
    }

    /// The whole body as text; bytes that are not UTF-8 become `U+FFFD`.
    ///
    /// # Errors
    /// As for [`whole`](Self::whole).
    pub async fn text(&mut self, limit: usize) -> Result<String, BodyError> {
        Ok(crate::headers::text(self.whole(limit).await?))
    }

    /// The whole body, read as JSON.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Orders;
    /// # #[filter]
    /// # impl Filter for Orders {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// async fn on_request_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
    ///     #[derive(Deserialize)]
    ///     struct Order { customer: String }
    ///
    ///     let order: Order = body.json(1 << 20).await?;
    ///     exchange.request().headers().set("x-customer", &order.customer)?;
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As for [`whole`](Self::whole), and if it is not JSON of that form: `?` then answers with 400 for a request and 502
    /// for a response.
    pub async fn json<T: DeserializeOwned>(&mut self, limit: usize) -> Result<T, BodyError> {
        let bytes = self.whole(limit).await?;
        serde_json::from_slice(&bytes).map_err(|error| BodyError::Malformed {
            reason: error.to_string(),
            request: self.direction == Direction::Request,
        })
    }

    /// Puts `bytes` in the place of what was given last: a part, a message, or the whole body.
    ///
    /// # Errors
    /// The host does not let the body be changed.
    pub fn replace(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Refused> {
        let (start, end) = (self.arrived().start.get(), self.arrived().end.get());
        self.splice(start, end - start, bytes.as_ref())?;
        self.arrived().end.set(start + bytes.as_ref().len());
        Ok(())
    }

    /// Puts a value, written as JSON, in the place of what was given last.
    ///
    /// # Errors
    /// As for [`replace`](Self::replace), and if the value cannot be written as JSON.
    pub fn replace_json(&mut self, value: &impl Serialize) -> Result<(), Stop> {
        Ok(self.replace(serde_json::to_vec(value).map_err(Stop::failed)?)?)
    }

    /// Puts `bytes` before what was given last.
    ///
    /// # Errors
    /// As for [`replace`](Self::replace).
    pub fn prepend(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Refused> {
        self.splice(self.arrived().start.get(), 0, bytes.as_ref())?;
        self.arrived().end.set(self.arrived().end.get() + bytes.as_ref().len());
        Ok(())
    }

    /// Puts `bytes` behind what was given last; behind everything when the body has ended.
    ///
    /// # Errors
    /// As for [`replace`](Self::replace).
    pub fn append(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Refused> {
        let end = self.arrived().end.get();
        self.splice(end, 0, bytes.as_ref())?;
        self.arrived().end.set(end + bytes.as_ref().len());
        Ok(())
    }

    fn read(&self, start: usize, end: usize) -> Result<Vec<u8>, BodyError> {
        if start == end {
            return Ok(Vec::new());
        }
        host::buffer(self.carrier.buffer(self.direction), start, end - start)
            .map_err(|status| BodyError::Refused(Refused::new("cannot read the body", status)))
    }

    fn splice(&self, start: usize, length: usize, bytes: &[u8]) -> Result<(), Refused> {
        let (buffer, size) = (self.carrier.buffer(self.direction), self.arrived().size.get());
        let changed = match host::set_buffer(buffer, start, length, bytes) {
            // Envoy changes the beginning, the end or all of it, and nothing in between.
            Err(Status::BAD_ARGUMENT) => rewrite(buffer, size, start, length, bytes),
            changed => changed,
        };
        changed.map_err(|status| Refused::new("cannot change the body", status))?;
        self.arrived().size.set(size.saturating_sub(length) + bytes.len());
        Ok(())
    }
}

/// Puts `bytes` in the place of a part of what the host has, by writing all of it.
fn rewrite(buffer: BufferType, size: usize, start: usize, length: usize, bytes: &[u8]) -> Result<(), Status> {
    let whole = host::buffer(buffer, 0, size)?;
    let (before, after) = (whole.get(..start), whole.get(start.saturating_add(length)..));
    let (Some(before), Some(after)) = (before, after) else { return Err(Status::BAD_ARGUMENT) };
    host::set_buffer(buffer, 0, size, &[before, bytes, after].concat())
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arrived { size, ended, wants, .. } = self.arrived();
        f.debug_struct("Body")
            .field("size", &size.get())
            .field("ended", &ended.get())
            .field("wants", &wants.get())
            .finish()
    }
}

/// Why a filter does not get a body. `?` in a callback answers the exchange accordingly.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # use meshgate_sdk::BodyError;
/// # struct Lenient;
/// # #[filter]
/// # impl Filter for Lenient {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// async fn on_request_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
///     match body.text(1024).await {
///         Ok(text) => meshgate_sdk::info!("{text}"),
///         Err(BodyError::TooLong { .. }) => meshgate_sdk::info!("too long to show"),
///         Err(other) => return Err(other.into()),
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// It, or a message in it, is longer than the filter wants to hold.
    #[non_exhaustive]
    TooLong {
        /// How many bytes that may have.
        limit: usize,
        /// Whether it is a request's.
        request: bool,
    },
    /// It is not of the form that the filter expects.
    #[non_exhaustive]
    Malformed {
        /// What is wrong with it, and where.
        reason: String,
        /// Whether it is a request's.
        request: bool,
    },
    /// The host gave no access to it.
    Refused(Refused),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit, .. } => {
                write!(f, "the body, or a message in it, is longer than {limit} bytes")
            }
            Self::Malformed { reason, .. } => write!(f, "the body is malformed: {reason}"),
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}

impl std::error::Error for BodyError {}

impl From<BodyError> for Stop {
    #[cold]
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLong { request: true, .. } => Reply::new(413).details("body_too_long").into(),
            BodyError::TooLong { request: false, .. } => Reply::new(502).details("body_too_long").into(),
            BodyError::Malformed { request: true, reason } => {
                Reply::new(400).body(reason).details("body_malformed").into()
            }
            BodyError::Malformed { request: false, .. } => Reply::new(502).details("body_malformed").into(),
            BodyError::Refused(refused) => refused.into(),
        }
    }
}
