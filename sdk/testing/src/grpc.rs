//! The gRPC calls and streams of a filter, with the servers' side played by a test.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use meshgate_sdk::testing::{Request, StartedCall, StreamDid, StreamPart};
use meshgate_wasm::{
    GrpcEvents, GrpcKind, GrpcMetadata, GrpcRequest, GrpcSendError, GrpcSender, GrpcStatus, ResponseHead,
};

use crate::convert;

/// All that are under way.
#[derive(Default)]
pub(crate) struct Grpc {
    events: HashMap<u32, GrpcEvents>,
    /// What the filter did with streams since somebody looked.
    did: Vec<(u32, StreamDid)>,
    /// Those that the filter gave up, and that it is to be told of.
    cancelled: Vec<u32>,
    /// Bytes sent on each stream since somebody looked.
    queued: HashMap<u32, u64>,
}

/// What comes of a call's request.
pub(crate) enum Begun {
    Call(StartedCall),
    Stream,
}

impl Grpc {
    /// Begins a call or a stream.
    pub(crate) fn begin(
        grpc: &Rc<RefCell<Grpc>>,
        id: u32,
        request: GrpcRequest,
        events: GrpcEvents,
    ) -> (Begun, Box<dyn GrpcSender>) {
        let GrpcRequest { cluster, authority, path, metadata, kind, most_queued, .. } = request;
        let mut asked = Request::new("POST", path.as_str()).header(":authority", authority);
        asked = asked.header("content-type", "application/grpc");
        for (name, value) in &metadata {
            asked = asked.header(name.as_str(), value);
        }
        let mut under_way = grpc.borrow_mut();
        let begun = match kind {
            GrpcKind::Call { message, timeout } => {
                Begun::Call(StartedCall { id, cluster, request: asked.body(message), timeout })
            }
            GrpcKind::Stream => {
                under_way.did.push((id, StreamDid::Opened { cluster, request: asked }));
                under_way.queued.insert(id, 0);
                Begun::Stream
            }
        };
        under_way.events.insert(id, events);
        let sender = Sender { id, most_queued, ended: RefCell::new(false), grpc: Rc::clone(grpc) };
        (begun, Box::new(sender))
    }

    /// What is to be answered.
    pub(crate) fn take(&mut self, id: u32) -> Option<GrpcEvents> {
        self.queued.remove(&id);
        self.events.remove(&id)
    }

    /// What the filter did with streams.
    pub(crate) fn take_did(&mut self) -> Vec<(u32, StreamDid)> {
        self.queued.values_mut().for_each(|bytes| *bytes = 0);
        std::mem::take(&mut self.did)
    }

    fn is_open(&self, id: u32) -> bool {
        self.queued.contains_key(&id)
    }
}

/// Tells the filter of the end of what it gave up.
pub(crate) fn tell_cancelled(grpc: &RefCell<Grpc>) {
    let cancelled = std::mem::take(&mut grpc.borrow_mut().cancelled);
    for (id, is_stream) in cancelled.into_iter().map(|id| (id, grpc.borrow().is_open(id))) {
        let events = grpc.borrow_mut().take(id);
        match events {
            Some(events) if is_stream => events.close(GrpcStatus::cancelled()),
            Some(events) => events.answer(Err(GrpcStatus::cancelled())),
            None => {}
        }
    }
}

/// Delivers what comes on a stream.
pub(crate) fn receive(grpc: &RefCell<Grpc>, id: u32, part: &StreamPart) {
    let last = matches!(part, StreamPart::Closed(..));
    // Out of the table while it is told: it may do something with this stream or another.
    let Some(events) = grpc.borrow_mut().events.remove(&id) else { return };
    match part {
        StreamPart::Metadata(fields) if fields.is_empty() => {
            events.initial_metadata(GrpcMetadata::Fields(http::HeaderMap::new()));
        }
        StreamPart::Metadata(fields) => {
            let ResponseHead { status, headers } = convert::response_head(fields);
            events.initial_metadata(GrpcMetadata::Head(ResponseHead { status, headers }));
        }
        StreamPart::Message(message) => {
            events.message(Bytes::copy_from_slice(message));
        }
        StreamPart::Trailers(fields) => {
            events.trailing_metadata(GrpcMetadata::Fields(convert::headers(fields)));
        }
        StreamPart::Closed(status, words) => {
            grpc.borrow_mut().queued.remove(&id);
            events.close(GrpcStatus { code: *status, message: words.clone().into() });
            return;
        }
    }
    if !last && grpc.borrow().is_open(id) {
        grpc.borrow_mut().events.insert(id, events);
    }
}

/// The filter's side. Dropping it cancels, if it is not over.
struct Sender {
    id: u32,
    most_queued: u64,
    ended: RefCell<bool>,
    grpc: Rc<RefCell<Grpc>>,
}

impl GrpcSender for Sender {
    fn send(&self, message: Option<Bytes>, last: bool) -> Result<(), GrpcSendError> {
        if *self.ended.borrow() {
            return Err(GrpcSendError::Ended);
        }
        let mut grpc = self.grpc.borrow_mut();
        if let Some(message) = message {
            let queued = grpc.queued.entry(self.id).or_default();
            let bytes = *queued + message.len() as u64 + GrpcRequest::MESSAGE_COST;
            if bytes > self.most_queued {
                return Err(GrpcSendError::Full);
            }
            *queued = bytes;
            grpc.did.push((self.id, StreamDid::Sent(message.to_vec())));
        }
        if last {
            self.ended.replace(true);
            grpc.did.push((self.id, StreamDid::Ended));
        }
        Ok(())
    }

    fn cancel(&self) {
        let mut grpc = self.grpc.borrow_mut();
        grpc.cancelled.push(self.id);
        if grpc.is_open(self.id) {
            grpc.did.push((self.id, StreamDid::Cancelled));
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut grpc = self.grpc.borrow_mut();
        grpc.events.remove(&self.id);
        let told = grpc.cancelled.contains(&self.id);
        if grpc.queued.remove(&self.id).is_some() && !told {
            grpc.did.push((self.id, StreamDid::Cancelled));
        }
    }
}
