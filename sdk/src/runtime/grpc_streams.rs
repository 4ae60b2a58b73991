//! gRPC streams under way: what has come on each, and who waits for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use meshgate_abi::{Cancel, function};
use prost::Message;

use super::current;
use super::ids::{self, IdMap};
use crate::host::{self, BufferType, MapType, Status};

thread_local! {
    static OPEN: RefCell<IdMap<Open>> = const { RefCell::new(ids::map()) };
    /// What the callbacks do. Whoever opens a stream sets it, so that a module whose filter opens none does not have the code.
    static ON_PART: Cell<fn(u32, Part)> = const { Cell::new(|_, _| {}) };
    static ON_OVER: Cell<fn(u32)> = const { Cell::new(|_| {}) };
}

/// A stream that has not ended.
struct Open {
    incoming: Rc<RefCell<Incoming>>,
    /// The context to which what comes is delivered.
    made_by: u32,
}

/// The status with which a stream ended, and the words beside it.
pub(crate) type End = (u32, Vec<u8>);

/// What has come on a stream.
#[derive(Default)]
struct Incoming {
    /// Serialized pairs, as soon as something has come.
    metadata: Option<Vec<u8>>,
    messages: VecDeque<Vec<u8>>,
    /// Bytes of them, and how many there may be.
    unread: usize,
    most_unread: usize,
    /// Serialized pairs.
    trailers: Vec<u8>,
    end: Option<End>,
    reader: Option<Waker>,
}

impl Incoming {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn over(&mut self, end: End) {
        self.end = Some(end);
        self.wake();
    }
}

/// A filter's end of a stream. Dropping it cancels the stream.
pub(crate) struct Handle {
    id: u32,
    incoming: Rc<RefCell<Incoming>>,
}

impl Handle {
    /// Of a stream that was opened right now.
    pub(crate) fn new(id: u32, most_unread: usize) -> Self {
        ON_PART.set(take);
        ON_OVER.set(give_up);
        let incoming = Rc::new(RefCell::new(Incoming { most_unread, ..Incoming::default() }));
        let open = Open { incoming: Rc::clone(&incoming), made_by: current::get().callback };
        OPEN.with_borrow_mut(|streams| streams.insert(id, open));
        Self { id, incoming }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The metadata that came first, once anything has come.
    pub(crate) fn poll_metadata(&self, context: &Context<'_>) -> Poll<Vec<u8>> {
        let mut incoming = self.incoming.borrow_mut();
        match &incoming.metadata {
            Some(metadata) => Poll::Ready(metadata.clone()),
            None if incoming.end.is_some() || !incoming.messages.is_empty() => Poll::Ready(Vec::new()),
            None => {
                incoming.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next message, or how the stream ended.
    pub(crate) fn poll_message(&self, context: &Context<'_>) -> Poll<Result<Vec<u8>, End>> {
        let mut incoming = self.incoming.borrow_mut();
        if let Some(message) = incoming.messages.pop_front() {
            incoming.unread = incoming.unread.saturating_sub(message.len());
            return Poll::Ready(Ok(message));
        }
        if let Some(end) = &incoming.end {
            return Poll::Ready(Err(end.clone()));
        }
        incoming.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// How it ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.incoming.borrow().end.clone()
    }

    /// The metadata that came last.
    pub(crate) fn trailers(&self) -> Vec<u8> {
        self.incoming.borrow().trailers.clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if OPEN.with_borrow_mut(|streams| streams.remove(&self.id)).is_some() {
            cancel(self.id);
        }
    }
}

/// Ends a stream whose end nobody waits for.
///
/// The `proxy-wasm` crate keeps a token until it hears of the end, which hosts do not tell of what was cancelled. So the SDK asks
/// for a cancellation whose end is told; where that does not exist, a few bytes of each cancelled stream stay.
fn cancel(id: u32) {
    let argument = Cancel { call: id }.encode_to_vec();
    if host::call_foreign_function(function::CANCEL, &argument) == Err(Status::NOT_FOUND) {
        // One that the host knows no more is what was wanted.
        let _ = host::grpc_cancel(id);
    }
}

/// What comes on a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Metadata before the first message: how many fields.
    Metadata(usize),
    /// A message of this size.
    Message(usize),
    /// Metadata after the last message: how many fields.
    Trailers(usize),
    /// The end, with its status.
    Closed(u32),
}

/// The callbacks `proxy_on_grpc_receive_initial_metadata`, `proxy_on_grpc_receive`,
/// `proxy_on_grpc_receive_trailing_metadata` and `proxy_on_grpc_close`, of a stream.
pub(crate) fn received(id: u32, part: Part) {
    ON_PART.get()(id, part);
}

fn take(id: u32, part: Part) {
    let Some(incoming) = find(id, part) else { return };
    let mut incoming = incoming.borrow_mut();
    let pairs = |map, count| if count == 0 { Vec::new() } else { host::pairs(map).unwrap_or_default() };
    match part {
        Part::Metadata(count) => {
            incoming.metadata = Some(pairs(MapType::GrpcReceiveInitialMetadata, count));
            incoming.wake();
        }
        Part::Message(size) => {
            if incoming.unread.saturating_add(size) > incoming.most_unread {
                const RESOURCE_EXHAUSTED: u32 = 8;
                OPEN.with_borrow_mut(|streams| streams.remove(&id));
                cancel(id);
                incoming.over((RESOURCE_EXHAUSTED, b"too much waits to be read".to_vec()));
                return;
            }
            let message = match size {
                0 => Vec::new(),
                size => host::buffer(BufferType::GrpcReceiveBuffer, 0, size).unwrap_or_default(),
            };
            incoming.unread += message.len();
            incoming.messages.push_back(message);
            incoming.wake();
        }
        Part::Trailers(count) => incoming.trailers = pairs(MapType::GrpcReceiveTrailingMetadata, count),
        Part::Closed(status) => incoming.over((status, host::status_message().unwrap_or_default())),
    }
}

/// What has come on this stream, which is no longer open after its end.
fn find(id: u32, part: Part) -> Option<Rc<RefCell<Incoming>>> {
    OPEN.with_borrow_mut(|streams| match part {
        Part::Closed(_) => streams.remove(&id).map(|open| open.incoming),
        _ => streams.get(&id).map(|open| Rc::clone(&open.incoming)),
    })
}

/// The context is over: nobody would be told what comes on the streams that it opened, and that others may still have.
pub(crate) fn abandon(context: u32) {
    ON_OVER.get()(context);
}

fn give_up(context: u32) {
    const UNAVAILABLE: u32 = 14;
    if OPEN.with_borrow(IdMap::is_empty) {
        return;
    }
    let of_context: Vec<_> =
        OPEN.with_borrow_mut(|streams| streams.extract_if(|_, open| open.made_by == context).collect());
    for (id, open) in of_context {
        cancel(id);
        let words = b"the exchange that opened the stream is over".to_vec();
        open.incoming.borrow_mut().over((UNAVAILABLE, words));
    }
}
