//! HTTP calls.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::Functions;
use crate::callout::HttpCallReply;
use crate::contexts::Stream;
use crate::core::Core;
use crate::fields;
use crate::grpc::Class;
use crate::host::{CallError, HttpCall};
use crate::limits::Limit;
use crate::memory::{Allowed, Call, Outcome, Span, run};
use crate::pairs;
use crate::remains::Data;
use crate::status::Status;

/// Bytes of a cluster's name.
const MAX_CLUSTER: u32 = 1_024;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    type Caller<'a> = wasmtime::Caller<'a, Data>;
    #[expect(clippy::too_many_arguments, reason = "the ABI's")]
    fn send(
        c: Caller<'_>,
        u: u32,
        un: u32,
        h: u32,
        hn: u32,
        b: u32,
        bn: u32,
        t: u32,
        tn: u32,
        timeout: u32,
        id_at: u32,
    ) -> wasmtime::Result<u32> {
        let request =
            Request { cluster: (u, un), headers: (h, hn), body: (b, bn), trailers: (t, tn), timeout };
        run(c, Allowed::InCallbacks, |call| start(call, &request, id_at))
    }
    functions.define("env", "proxy_http_call", &['i'; 10], send)
}

/// The arguments.
struct Request {
    cluster: Span,
    headers: Span,
    body: Span,
    trailers: Span,
    timeout: u32,
}

impl Request {
    /// What it takes, as the guest has it.
    fn bytes(&self) -> usize {
        let parts = [self.cluster, self.headers, self.body, self.trailers];
        parts.iter().map(|(_, length)| *length as usize).sum()
    }
}

/// The plugin makes the call, whichever stream it is for; the answer comes on its root context.
fn start(call: &mut Call<'_>, request: &Request, id_at: u32) -> Outcome {
    call.check((id_at, 4))?;
    let root = call.root()?;
    let core = &root.core;
    let outgoing = parse(call, request, core)?;
    let stream = call.state().stream().cloned();
    let mut outgoing = HttpCall { depth: depth(stream.as_deref()) + 1, ended: core.ended.get(), ..outgoing };
    if let Some(limit) = refusal(core, stream.as_deref(), &outgoing) {
        core.exceeded(limit);
        return Err(Status::InternalFailure.into());
    }
    let held = core.hold_for_call(request.bytes()).ok_or(Status::InternalFailure)?;
    outgoing.body = Bytes::copy_from_slice(call.read(request.body)?.0);
    let state = call.state();
    let token = state.grpc.next(Class::Http);
    let host = Rc::clone(&state.host);
    let reply = HttpCallReply::new(token, &root, stream.as_ref(), held);
    match host.http_call(&core.spec, outgoing, reply) {
        Ok(()) => call.write_u32(id_at, token),
        Err(CallError::UnknownCluster) => Err(Status::BadArgument.into()),
        Err(CallError::CannotStart) => Err(Status::InternalFailure.into()),
    }
}

/// How many calls led to the exchange that the stream belongs to.
pub(super) fn depth(stream: Option<&Stream>) -> u32 {
    let exchange = stream.and_then(|stream| stream.exchange.upgrade());
    // Borrowed only by an embedder that breaks its contract.
    exchange.and_then(|exchange| Some(exchange.http()?.try_borrow().ok()?.attributes.call_depth)).unwrap_or(0)
}

/// The limit that stands against one more call.
fn refusal(core: &Core, stream: Option<&Stream>, outgoing: &HttpCall) -> Option<Limit> {
    let limits = &core.spec.limits;
    if outgoing.depth > limits.call_depth {
        return Some(Limit::CallDepth);
    }
    if core.usage.http_calls.get() >= limits.http_calls {
        return Some(Limit::HttpCalls);
    }
    stream
        .is_some_and(|stream| stream.http_calls.get() >= limits.stream_http_calls)
        .then_some(Limit::StreamHttpCalls)
}

/// The call without its body, which is not copied before it is clear that the call can be made.
fn parse(call: &mut Call<'_>, request: &Request, core: &Core) -> Result<HttpCall, crate::memory::Stop> {
    call.check(request.cluster)?;
    // Negative for a guest that takes it for signed.
    if i32::try_from(request.timeout).is_err() || request.cluster.1 > MAX_CLUSTER {
        return Err(Status::BadArgument.into());
    }
    let cluster = String::from_utf8(call.copy(request.cluster)?).map_err(|_| Status::BadArgument)?;
    if !core.spec.may.may_call(&cluster) {
        // As if there were no such cluster: guests survive that.
        core.refuse(Limit::MayCall, &cluster);
        return Err(Status::BadArgument.into());
    }
    let head = fields::call_head(&pairs::decode(call.read(request.headers)?.0)?)?;
    call.check(request.body)?;
    let trailers = fields::trailers(&pairs::decode(call.read(request.trailers)?.0)?)?;
    let limits = &core.spec.limits;
    let timeout = Duration::from_millis(request.timeout.into());
    if timeout > limits.call_time {
        core.exceeded(Limit::CallTime);
    }
    // 0 is "as long as it may".
    let timeout = Some(timeout).filter(|timeout| !timeout.is_zero()).unwrap_or(limits.call_time);
    let timeout = Some(timeout.min(limits.call_time));
    let most_body = limits.call_body;
    let body = Bytes::new();
    Ok(HttpCall { cluster, request: head, body, trailers, timeout, most_body, depth: 0, ended: false })
}
