//! The simulated host: calls and gRPC streams of a filter.

use std::time::Duration;

use super::engine::{StartedCall, StreamDid};
use super::message::{Fields, Request};
use super::world::{World, canonical, next_id};
use crate::host::{GrpcCall, GrpcOpening, HttpCall, Status};

/// A gRPC stream that has not ended.
pub(super) struct OpenStream {
    /// The context to which what comes is delivered.
    made_by: u32,
    /// The filter's side has ended.
    closed: bool,
    /// Bytes that were sent since somebody looked.
    queued: usize,
}

/// Calls of each kind that one exchange may have under way, and the bytes that may wait on a stream, as in Meshgate's defaults.
const MOST_CALLS: usize = 8;
const MOST_QUEUED: usize = 1 << 20;
/// What a message that waits is counted with.
const MESSAGE_COST: usize = 64;

impl World {
    pub(crate) fn http_call(&mut self, call: HttpCall<'_>) -> Result<u32, Status> {
        let head: Fields =
            call.headers.iter().map(|(name, value)| (canonical(name), value.as_bytes().to_vec())).collect();
        let complete =
            [":method", ":path", ":authority"].iter().all(|name| head.iter().any(|(known, _)| known == name));
        if !complete || !self.clusters.iter().any(|name| name == call.cluster) {
            return Err(Status::BAD_ARGUMENT);
        }
        let of_http = self.made_by.keys().filter(|id| !self.grpc_calls.contains(id));
        if of_http.filter(|id| self.is_of_current(**id)).count() >= MOST_CALLS {
            return Err(Status::INTERNAL_FAILURE);
        }
        Ok(self.begin(call.cluster, Request::received(head, call.body.to_vec(), Vec::new()), call.timeout))
    }

    pub(crate) fn grpc_call(&mut self, call: GrpcCall<'_>) -> Result<u32, Status> {
        if !self.clusters.iter().any(|name| name == call.cluster) {
            return Err(Status::new(4));
        }
        self.check_grpc()?;
        let request =
            grpc_request(call.cluster, call.service, call.method, &call.metadata).body(call.message);
        let id = self.begin(call.cluster, request, call.timeout);
        self.grpc_calls.insert(id);
        Ok(id)
    }

    pub(crate) fn grpc_stream(&mut self, opening: GrpcOpening<'_>) -> Result<u32, Status> {
        if !self.clusters.iter().any(|name| name == opening.cluster) {
            return Err(Status::new(4));
        }
        self.check_grpc()?;
        let request = grpc_request(opening.cluster, opening.service, opening.method, &opening.metadata);
        let id = next_id();
        self.made_for.insert(id, self.effective);
        self.grpc_streams.insert(id, OpenStream { made_by: self.active, closed: false, queued: 0 });
        self.streams_did.push((id, StreamDid::Opened { cluster: opening.cluster.to_owned(), request }));
        Ok(id)
    }

    pub(crate) fn grpc_send(&mut self, id: u32, message: &[u8]) -> Result<(), Status> {
        let stream = self.grpc_streams.get_mut(&id).ok_or(Status::NOT_FOUND)?;
        let queued = stream.queued + message.len() + MESSAGE_COST;
        if stream.closed || queued > MOST_QUEUED {
            return Err(Status::BAD_ARGUMENT);
        }
        stream.queued = queued;
        self.streams_did.push((id, StreamDid::Sent(message.to_vec())));
        Ok(())
    }

    pub(crate) fn grpc_close(&mut self, id: u32) -> Result<(), Status> {
        let stream = self.grpc_streams.get_mut(&id).ok_or(Status::NOT_FOUND)?;
        if !std::mem::replace(&mut stream.closed, true) {
            self.streams_did.push((id, StreamDid::Ended));
        }
        Ok(())
    }

    pub(crate) fn grpc_cancel(&mut self, id: u32) -> Result<(), Status> {
        self.grpc_streams.remove(&id).ok_or(Status::NOT_FOUND)?;
        self.streams_did.push((id, StreamDid::Cancelled));
        Ok(())
    }

    /// `meshgate.cancel`. The SDK is the only one that asks for it, and does not listen to the end that is told.
    pub(super) fn cancel(&mut self, id: u32) -> Result<(), Status> {
        if self.made_by.remove(&id).is_some() {
            self.grpc_calls.remove(&id);
            return Ok(());
        }
        self.grpc_cancel(id).map_err(|_| Status::BAD_ARGUMENT)
    }

    /// What was done with streams since somebody looked.
    pub(crate) fn take_streams(&mut self) -> Vec<(u32, StreamDid)> {
        self.grpc_streams.values_mut().for_each(|stream| stream.queued = 0);
        std::mem::take(&mut self.streams_did)
    }

    /// The context that is told what comes on a stream, which is over with the last of it.
    pub(crate) fn receives(&mut self, id: u32, last: bool) -> Option<u32> {
        let made_by = self.grpc_streams.get(&id).map(|stream| stream.made_by);
        if last {
            self.grpc_streams.remove(&id);
        }
        made_by
    }

    /// Whether one more gRPC call or stream may begin.
    fn check_grpc(&self) -> Result<(), Status> {
        let ids = self.grpc_calls.iter().chain(self.grpc_streams.keys());
        let under_way = ids.filter(|id| self.is_of_current(**id)).count();
        if under_way < MOST_CALLS { Ok(()) } else { Err(Status::INTERNAL_FAILURE) }
    }

    /// Whether a call or stream counts for the exchange or connection that hostcalls act for.
    fn is_of_current(&self, id: u32) -> bool {
        self.made_for.get(&id) == Some(&self.effective) && self.streams.contains_key(&self.effective)
    }

    fn begin(&mut self, cluster: &str, request: Request, timeout: Duration) -> u32 {
        let id = next_id();
        self.made_by.insert(id, self.active);
        self.made_for.insert(id, self.effective);
        self.calls.push(StartedCall { id, cluster: cluster.to_owned(), request, timeout: Some(timeout) });
        id
    }

    pub(crate) fn status_message(&self) -> Vec<u8> {
        let message = self.reply.as_ref().and_then(|reply| reply.field("grpc-message"));
        message.unwrap_or_default().into_bytes()
    }
}

/// As Meshgate sends it.
fn grpc_request(cluster: &str, service: &str, method: &str, metadata: &[(&str, &[u8])]) -> Request {
    let request = Request::new("POST", &format!("/{service}/{method}")).header(":authority", cluster);
    let mut request = request.header("content-type", "application/grpc");
    request.head.extend(metadata.iter().map(|(name, value)| (canonical(name), value.to_vec())));
    request
}
