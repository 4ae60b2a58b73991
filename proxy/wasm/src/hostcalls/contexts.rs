//! Contexts: which one hostcalls act on, and its end.

use super::{Functions, functions};
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

/// Of the last call: 11 "reset" for an HTTP call that failed, as Envoy has it.
fn status(call: &mut Call<'_>, code_at: u32, address_at: u32, size_at: u32) -> Outcome {
    let failed = matches!(call.state().running.call, Some(Err(_)));
    let (code, message): (u32, &[u8]) = if failed { (11, b"reset") } else { (0, b"") };
    call.check((code_at, 4))?;
    call.give(message, address_at, size_at)?;
    call.write_u32(code_at, code)
}
