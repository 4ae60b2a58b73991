//! Contexts: which one hostcalls act on, and its end.

use bytes::Bytes;

use super::{Functions, functions};
use crate::grpc::GrpcEvent;
use crate::memory::{Call, Outcome};
use crate::status::Status;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_set_effective_context" => set_effective[id: u32];
        "proxy_done" => done[];
        "proxy_get_status" => status[code_at: u32, address_at: u32, size_at: u32];
    });
    Ok(())
}

/// Until the callback returns. Only contexts of the running plugin: another in the same VM is none of its
/// business.
fn set_effective(call: &mut Call<'_>, id: u32) -> Outcome {
    let root = call.root()?;
    let state = call.state();
    let entry = state.contexts.find(id).cloned().ok_or(Status::BadArgument)?;
    if entry.root().id != root.id {
        return Err(Status::BadArgument.into());
    }
    state.running.set_effective(entry);
    Ok(())
}

fn done(call: &mut Call<'_>) -> Outcome {
    let entry = call.effective()?;
    if !entry.is_pending() {
        return Err(Status::NotFound.into());
    }
    call.state().ended.push(entry.id());
    Ok(())
}

/// Of the call that this callback is about: 11 "reset" for an HTTP call that failed, as Envoy has it; what a gRPC call
/// or stream was closed with.
fn status(call: &mut Call<'_>, code_at: u32, address_at: u32, size_at: u32) -> Outcome {
    let running = &call.state().running;
    let (code, message) = match (&running.call, &running.grpc) {
        (Some(Err(_)), _) => (11, Bytes::from_static(b"reset")),
        (_, Some(GrpcEvent::Closed(status))) => (status.code, status.message.clone()),
        _ => (0, Bytes::new()),
    };
    call.check((code_at, 4))?;
    call.give(&message, address_at, size_at)?;
    call.write_u32(code_at, code)
}
