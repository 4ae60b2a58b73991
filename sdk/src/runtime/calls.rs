//! Calls under way: which future waits for which token.

use std::cell::RefCell;
use std::future::{Future, poll_fn};

use super::ids::{self, IdMap};
use super::slot::Slot;
use crate::host;
use crate::host::{Buffer, Map};

/// What came back from an HTTP call, as the host gave it: no pairs at all mean that there was no response.
pub(crate) struct HttpReply {
    pub(crate) headers: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<u8>,
    /// Why there was none, where the host says so.
    pub(crate) reason: Option<Vec<u8>>,
}

/// What came back from a unary gRPC call: a message, or the status with which it was closed and the words beside it.
pub(crate) type GrpcReply = Result<Vec<u8>, (u32, Vec<u8>)>;

thread_local! {
    static HTTP: RefCell<IdMap<Slot<HttpReply>>> = const { RefCell::new(ids::map()) };
    static GRPC: RefCell<IdMap<Slot<GrpcReply>>> = const { RefCell::new(ids::map()) };
}

/// Waits for the response to this call. Whoever drops the future is told nothing any more.
pub(crate) fn http(token: u32) -> impl Future<Output = HttpReply> {
    let slot = Slot::new();
    HTTP.with_borrow_mut(|calls| calls.insert(token, slot.share()));
    let entry = Entry { token, forget: |token| drop(HTTP.with_borrow_mut(|calls| calls.remove(&token))) };
    wait(slot, entry)
}

/// Waits for the answer to this call. Whoever drops the future cancels the call.
pub(crate) fn grpc(token: u32) -> impl Future<Output = GrpcReply> {
    let slot = Slot::new();
    GRPC.with_borrow_mut(|calls| calls.insert(token, slot.share()));
    let forget = |token| {
        if GRPC.with_borrow_mut(|calls| calls.remove(&token)).is_some() {
            host::grpc_cancel(token);
        }
    };
    wait(slot, Entry { token, forget })
}

async fn wait<T>(slot: Slot<T>, entry: Entry) -> T {
    let value = poll_fn(|context| slot.poll(context)).await;
    drop(entry);
    value
}

/// A token's place in its table, left when the future is dropped.
struct Entry {
    token: u32,
    forget: fn(u32),
}

impl Drop for Entry {
    fn drop(&mut self) {
        (self.forget)(self.token);
    }
}

/// The callback `proxy_on_http_call_response`.
pub(crate) fn http_answered(token: u32, headers: u32, body: u32, trailers: u32) {
    let Some(slot) = HTTP.with_borrow_mut(|calls| calls.remove(&token)) else { return };
    let pairs = |map, count| if count == 0 { Vec::new() } else { host::pairs(map).unwrap_or_default() };
    slot.fill(HttpReply {
        headers: pairs(Map::CallHeaders, headers),
        body: if body == 0 { Vec::new() } else { buffer(Buffer::CallBody, body) },
        trailers: pairs(Map::CallTrailers, trailers),
        reason: if headers == 0 { host::header(Map::CallHeaders, ":dispatch_status").ok() } else { None },
    });
}

/// The callback `proxy_on_grpc_receive`.
pub(crate) fn grpc_answered(token: u32, size: u32) {
    if let Some(slot) = GRPC.with_borrow_mut(|calls| calls.remove(&token)) {
        slot.fill(Ok(buffer(Buffer::GrpcMessage, size)));
    }
}

/// The callback `proxy_on_grpc_close`. After an answer it says nothing new.
pub(crate) fn grpc_closed(token: u32, status: u32) {
    if let Some(slot) = GRPC.with_borrow_mut(|calls| calls.remove(&token)) {
        slot.fill(Err((status, host::status_message().unwrap_or_default())));
    }
}

fn buffer(buffer: Buffer, size: u32) -> Vec<u8> {
    host::buffer(buffer, 0, size as usize).unwrap_or_default()
}
