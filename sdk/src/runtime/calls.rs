//! Calls under way: which future waits for which token, and where calls may be made.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::time::Duration;

use meshgate_abi::{Cancel, function};
use prost::Message;

use super::ids::{self, IdMap};
use super::slot::Slot;
use super::{current, timers};
use crate::host::{self, BufferType, MapType, Status};

/// What came back from an HTTP call, as the host gave it: no pairs at all mean that there was no response.
#[derive(Default)]
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
    static HTTP: RefCell<IdMap<Waiting<HttpReply>>> = const { RefCell::new(ids::map()) };
    static GRPC: RefCell<IdMap<Waiting<GrpcReply>>> = const { RefCell::new(ids::map()) };
    /// Somebody waits, or has waited, for a call that another context made.
    static SHARED: Cell<bool> = const { Cell::new(false) };
    /// What the callbacks do. Whoever makes a call sets it, so that a module whose filter makes none does not have the code.
    static ON_HTTP: Cell<OnHttp> = const { Cell::new(|_, _, _, _| {}) };
    static ON_GRPC: Cell<OnGrpc> = const { Cell::new(|_, _, _| {}) };
    static ON_OVER: Cell<fn(u32)> = const { Cell::new(|_| {}) };
}

type OnHttp = fn(u32, usize, usize, usize);
type OnGrpc = fn(u32, u32, usize);

/// A call under way.
struct Waiting<T> {
    slot: Slot<T>,
    /// The context to which the response will be delivered.
    made_by: u32,
}

/// Waits until a call can be made: a task that another exchange has woken waits for the plugin's next tick, which is soon.
pub(crate) async fn place() -> Result<(), Status> {
    while !current::get().is_in_place() {
        timers::sleep(Duration::ZERO).await?;
    }
    Ok(())
}

/// Waits for the response to this call, which was made right now. It is cancelled when nobody waits for it any more.
pub(crate) fn http(token: u32) -> impl Future<Output = HttpReply> {
    ON_HTTP.set(take_http);
    ON_OVER.set(give_up);
    let (slot, waiting) = Waiting::new();
    HTTP.with_borrow_mut(|calls| calls.insert(token, waiting));
    let forget = |token| {
        if HTTP.with_borrow_mut(|calls| calls.remove(&token)).is_some() {
            cancel(token);
        }
    };
    wait(slot, Entry { token, forget })
}

/// As [`http`], for a gRPC call.
pub(crate) fn grpc(token: u32) -> impl Future<Output = GrpcReply> {
    ON_GRPC.set(take_grpc);
    ON_OVER.set(give_up);
    let (slot, waiting) = Waiting::new();
    GRPC.with_borrow_mut(|calls| calls.insert(token, waiting));
    let forget = |token| {
        if GRPC.with_borrow_mut(|calls| calls.remove(&token)).is_some() {
            cancel(token);
        }
    };
    wait(slot, Entry { token, forget })
}

async fn wait<T>(slot: Slot<T>, entry: Entry) -> T {
    let made_by = current::get().callback;
    let value = poll_fn(|context| {
        let now = current::get();
        if now.context != made_by && now.plugin != made_by {
            SHARED.set(true);
        }
        slot.poll(context)
    });
    let value = value.await;
    drop(entry);
    value
}

impl<T> Waiting<T> {
    fn new() -> (Slot<T>, Self) {
        let slot = Slot::new();
        let waiting = Self { slot: slot.share(), made_by: current::get().callback };
        (slot, waiting)
    }
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

/// Ends a call that nobody waits for any more, on hosts that tell of its end. On others it runs on until its timeout.
fn cancel(token: u32) {
    // What does not end now ends by itself.
    let _ = host::call_foreign_function(function::CANCEL, &Cancel { call: token }.encode_to_vec());
}

/// The callback `proxy_on_http_call_response`.
pub(crate) fn http_answered(token: u32, headers: usize, body: usize, trailers: usize) {
    ON_HTTP.get()(token, headers, body, trailers);
}

fn take_http(token: u32, headers: usize, body: usize, trailers: usize) {
    let Some(waiting) = HTTP.with_borrow_mut(|calls| calls.remove(&token)) else { return };
    let pairs = |map, count| if count == 0 { Vec::new() } else { host::pairs(map).unwrap_or_default() };
    let reason = || host::header(MapType::HttpCallResponseHeaders, ":dispatch_status").ok();
    waiting.slot.fill(HttpReply {
        headers: pairs(MapType::HttpCallResponseHeaders, headers),
        body: buffer(BufferType::HttpCallResponseBody, body),
        trailers: pairs(MapType::HttpCallResponseTrailers, trailers),
        reason: if headers == 0 { reason() } else { None },
    });
}

/// The callbacks `proxy_on_grpc_receive` (with a status of 0) and `proxy_on_grpc_close`, of a call.
pub(crate) fn grpc_answered(token: u32, status: u32, size: usize) {
    ON_GRPC.get()(token, status, size);
}

fn take_grpc(token: u32, status: u32, size: usize) {
    let Some(waiting) = GRPC.with_borrow_mut(|calls| calls.remove(&token)) else { return };
    waiting.slot.fill(match status {
        0 => Ok(buffer(BufferType::GrpcReceiveBuffer, size)),
        status => Err((status, host::status_message().unwrap_or_default())),
    });
}

/// The context is over: what it made and others still wait for has failed, since nobody will be told the response.
pub(crate) fn abandon(context: u32) {
    ON_OVER.get()(context);
}

fn give_up(context: u32) {
    const UNAVAILABLE: u32 = 14;
    if !SHARED.get() {
        return;
    }
    for waiting in take_all(&HTTP, context) {
        waiting.slot.fill(HttpReply::default());
    }
    for waiting in take_all(&GRPC, context) {
        waiting.slot.fill(Err((UNAVAILABLE, b"the exchange that made the call is over".to_vec())));
    }
}

fn take_all<T>(
    calls: &'static std::thread::LocalKey<RefCell<IdMap<Waiting<T>>>>,
    context: u32,
) -> Vec<Waiting<T>> {
    calls.with_borrow_mut(|calls| {
        calls.extract_if(|_, waiting| waiting.made_by == context).map(|(_, waiting)| waiting).collect()
    })
}

fn buffer(buffer: BufferType, size: usize) -> Vec<u8> {
    if size == 0 { Vec::new() } else { host::buffer(buffer, 0, size).unwrap_or_default() }
}
