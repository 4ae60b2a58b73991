//! gRPC calls and streams. The plugin makes them, whichever stream context they are for.
//!
//! The Rust SDK panics on statuses it does not expect: PARSE_FAILURE and INTERNAL_FAILURE are all that may be answered
//! to what opens a call or stream, so what cannot be parsed and what does not exist are one.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

use super::{Functions, functions};
use crate::contexts::Stream;
use crate::core::Core;
use crate::fields;
use crate::grpc::{
    Class, Counted, GrpcEvents, GrpcKind, GrpcRequest, GrpcSendError, Service, UnderWay, counted,
};
use crate::host::CallError;
use crate::hostcalls::http_calls::depth;
use crate::limits::Limit;
use crate::memory::{Allowed, Call, Outcome, Span, Stop, run};
use crate::pairs::{self, Pair};
use crate::remains::Data;
use crate::status::Status;

/// Bytes of what says where a call goes.
const MAX_UPSTREAM: u32 = 16 << 10;
/// Bytes of a service's or method's name.
const MAX_NAME: u32 = 1_024;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_grpc_send" => send[id: u32, text: u32, size: u32, end: u32];
        "proxy_grpc_cancel" => cancel[id: u32];
        "proxy_grpc_close" => close[id: u32];
    });
    type Caller<'a> = wasmtime::Caller<'a, Data>;
    #[expect(clippy::too_many_arguments, reason = "the ABI's")]
    #[rustfmt::skip]
    fn call(
        c: Caller<'_>, u: u32, un: u32, s: u32, sn: u32, m: u32, mn: u32, f: u32, fl: u32, t: u32, tn: u32,
        timeout: u32, id_at: u32,
    ) -> wasmtime::Result<u32> {
        let [upstream, service, method, metadata, message] = [(u, un), (s, sn), (m, mn), (f, fl), (t, tn)];
        let wanted = Wanted { upstream, service, method, metadata, message };
        run(c, Allowed::InCallbacks, |call| {
            call.check((id_at, 4))?;
            call.check(message)?;
            // Negative for a guest that takes it for signed.
            let timeout = i32::try_from(timeout).map_err(|_| Status::ParseFailure)?.unsigned_abs();
            let timeout = Duration::from_millis(timeout.into());
            let core = call.root()?.core.clone();
            let most = core.spec.limits.call_time;
            if timeout > most {
                core.exceeded(Limit::CallTime);
            }
            let timeout = Some(timeout.min(most)).filter(|timeout| !timeout.is_zero());
            start(call, &wanted, GrpcKind::Call { message: Bytes::new(), timeout }, id_at)
        })
    }
    #[expect(clippy::too_many_arguments, reason = "the ABI's")]
    #[rustfmt::skip]
    fn stream(
        c: Caller<'_>, u: u32, un: u32, s: u32, sn: u32, m: u32, mn: u32, f: u32, fl: u32, id_at: u32,
    ) -> wasmtime::Result<u32> {
        let [upstream, service, method, metadata] = [(u, un), (s, sn), (m, mn), (f, fl)];
        let wanted = Wanted { upstream, service, method, metadata, message: (0, 0) };
        run(c, Allowed::InCallbacks, |call| {
            call.check((id_at, 4))?;
            start(call, &wanted, GrpcKind::Stream, id_at)
        })
    }
    functions.define("env", "proxy_grpc_call", &['i'; 12], call)?;
    functions.define("env", "proxy_grpc_stream", &['i'; 9], stream)
}

/// The arguments that say what is to be sent where.
struct Wanted {
    upstream: Span,
    service: Span,
    method: Span,
    metadata: Span,
    /// A call's.
    message: Span,
}

impl Wanted {
    /// What it takes, as the guest has it.
    fn bytes(&self) -> usize {
        let parts = [self.upstream, self.service, self.method, self.metadata, self.message];
        parts.iter().map(|(_, length)| *length as usize).sum()
    }
}

fn start(call: &mut Call<'_>, wanted: &Wanted, kind: GrpcKind, id_at: u32) -> Outcome {
    let class = match kind {
        GrpcKind::Call { .. } => Class::GrpcCall,
        GrpcKind::Stream => Class::GrpcStream,
    };
    let root = call.root()?;
    let core = &root.core;
    let request = parse(call, wanted, kind, core)?;
    let stream = call.state().stream().cloned();
    let mut request = GrpcRequest { depth: depth(stream.as_deref()) + 1, ended: core.ended.get(), ..request };
    if let Some(limit) = refusal(core, stream.as_deref(), &request) {
        core.exceeded(limit);
        return Err(Status::InternalFailure.into());
    }
    let held = core.hold_for_call(wanted.bytes()).ok_or(Status::InternalFailure)?;
    if let GrpcKind::Call { message, .. } = &mut request.kind {
        // Not before it is clear that the call can be made.
        *message = Bytes::copy_from_slice(call.read(wanted.message)?.0);
    }
    let state = call.state();
    let id = state.grpc.next(class);
    let host = Rc::clone(&state.host);
    match host.grpc(&core.spec, request, GrpcEvents::new(id, &root, held)) {
        Ok(sender) => {
            let counted = Counted::new(&root, stream.as_ref());
            let cancelled = Cell::new(false);
            let under_way = UnderWay { root: Rc::downgrade(&root), sender, cancelled, _counted: counted };
            state.grpc.insert(id, under_way);
            call.write_u32(id_at, id)
        }
        Err(CallError::UnknownCluster) => Err(Status::ParseFailure.into()),
        Err(CallError::CannotStart) => Err(Status::InternalFailure.into()),
    }
}

/// The limit that stands against one more call or stream.
fn refusal(core: &Core, stream: Option<&Stream>, request: &GrpcRequest) -> Option<Limit> {
    let limits = &core.spec.limits;
    if request.depth > limits.call_depth {
        return Some(Limit::CallDepth);
    }
    if core.usage.grpc_calls.get() >= limits.grpc_calls {
        return Some(Limit::GrpcCalls);
    }
    stream
        .is_some_and(|stream| stream.grpc_calls.get() >= limits.stream_grpc_calls)
        .then_some(Limit::StreamGrpcCalls)
}

fn parse(call: &mut Call<'_>, wanted: &Wanted, kind: GrpcKind, core: &Core) -> Result<GrpcRequest, Stop> {
    for name in [wanted.upstream, wanted.service, wanted.method] {
        call.check(name)?;
    }
    if wanted.upstream.1 > MAX_UPSTREAM || wanted.service.1 > MAX_NAME || wanted.method.1 > MAX_NAME {
        return Err(Status::ParseFailure.into());
    }
    let mut path = b"/".to_vec();
    path.extend_from_slice(call.read(wanted.service)?.0);
    path.push(b'/');
    path.extend_from_slice(call.read(wanted.method)?.0);
    let upstream = call.copy(wanted.upstream)?;
    let service = Service::parse(&upstream).ok_or(Status::ParseFailure)?;
    if !core.spec.may.may_call(service.cluster) {
        // As if there were no such cluster: guests survive that.
        core.refuse(Limit::MayCall, service.cluster);
        return Err(Status::ParseFailure.into());
    }
    let (own, _) = call.read(wanted.metadata)?;
    let own = pairs::decode(own).map_err(|_| Status::ParseFailure)?;
    let authority = if service.authority.is_empty() { service.cluster } else { service.authority };
    Ok(GrpcRequest {
        cluster: service.cluster.to_owned(),
        authority: HeaderValue::from_str(authority).map_err(|_| Status::ParseFailure)?,
        path: path_of(path)?,
        metadata: metadata(&[service.metadata, own].concat())?,
        kind,
        most_message: core.spec.limits.call_body,
        most_queued: core.spec.limits.grpc_queue,
        depth: 0,
        ended: false,
    })
}

/// Service and method are names, nothing that would make another path of it.
fn path_of(path: Vec<u8>) -> Result<PathAndQuery, Status> {
    let is_name = |byte: &u8| matches!(byte, 0x21..=0x7e) && !matches!(byte, b'#' | b'?');
    if !path.iter().all(is_name) {
        return Err(Status::ParseFailure);
    }
    PathAndQuery::try_from(path).map_err(|_| Status::ParseFailure)
}

/// What belongs to gRPC itself or to HTTP is the host's and passed over.
fn metadata(given: &[Pair<'_>]) -> Result<HeaderMap, Status> {
    const RESERVED: [&str; 4] = ["te", "content-type", "content-length", "host"];
    let reserved = |name: &[u8]| {
        name.starts_with(b":")
            || name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"grpc-"))
            || RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved.as_bytes()))
    };
    let mut metadata = HeaderMap::with_capacity(given.len());
    for (name, value) in given.iter().filter(|(name, _)| !reserved(name)) {
        fields::write(&mut metadata, (name, value), false, usize::MAX).map_err(|_| Status::ParseFailure)?;
    }
    Ok(metadata)
}

/// Only streams: a call has one message, and has sent it.
fn send(call: &mut Call<'_>, id: u32, text: u32, size: u32, end: u32) -> Outcome {
    let root = call.root()?;
    let (message, state) = call.read((text, size))?;
    let under_way = state.grpc.find(id, &root).ok_or(Status::NotFound)?;
    if !Class::GrpcStream.is_of(id) {
        return Err(Status::BadArgument.into());
    }
    // SDKs expect no other status when there is no room, whatever for.
    let bytes = message.len() + GrpcRequest::MESSAGE_COST as usize;
    let held = root.core.hold_for_call(bytes).ok_or(Status::BadArgument)?;
    under_way.sender.send(Some(counted(message, held)), end != 0).map_err(|error| refused(&root.core, error))
}

/// Ends our side of a stream; what the other side sends still comes. A call is cancelled.
fn close(call: &mut Call<'_>, id: u32) -> Outcome {
    if !Class::GrpcStream.is_of(id) {
        return cancel(call, id);
    }
    let root = call.root()?;
    let under_way = call.state().grpc.find(id, &root).ok_or(Status::NotFound)?;
    match under_way.sender.send(None, true) {
        // Closed twice is closed.
        Ok(()) | Err(GrpcSendError::Ended) => Ok(()),
        Err(error) => Err(refused(&root.core, error)),
    }
}

/// Nothing more comes of it.
fn cancel(call: &mut Call<'_>, id: u32) -> Outcome {
    let root = call.root()?;
    let state = call.state();
    state.grpc.find(id, &root).ok_or(Status::NotFound)?;
    drop(state.grpc.remove(id));
    Ok(())
}

fn refused(core: &Core, error: GrpcSendError) -> Stop {
    if error == GrpcSendError::Full {
        core.exceeded(Limit::GrpcQueue);
    }
    Status::BadArgument.into()
}
