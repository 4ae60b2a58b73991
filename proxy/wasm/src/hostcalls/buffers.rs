//! Buffers: bodies, configurations, responses to calls.

use std::rc::Rc;

use super::{Functions, functions};
use crate::contexts::Stream;
use crate::memory::{Call, Outcome, Stop};
use crate::state::VmState;
use crate::status::Status;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_get_buffer_bytes" => read[buffer: u32, start: u32, length: u32, address_at: u32, size_at: u32];
        "proxy_set_buffer_bytes" => write[buffer: u32, start: u32, length: u32, text: u32, size: u32];
        "proxy_get_buffer_status" => status[buffer: u32, size_at: u32, flags_at: u32];
        "proxy_get_configuration" => configuration[address_at: u32, size_at: u32];
    });
    Ok(())
}

/// A buffer's number.
const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_RESPONSE_BODY: u32 = 4;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;
const CALL_DATA: u32 = 8;
const LAST: u32 = 8;

fn read(call: &mut Call<'_>, buffer: u32, start: u32, length: u32, address_at: u32, size_at: u32) -> Outcome {
    if let REQUEST_BODY | RESPONSE_BODY = buffer {
        return read_body(call, buffer == REQUEST_BODY, (start, length), address_at, size_at);
    }
    let spec = call.root()?.core.spec.clone();
    let state = call.state();
    let bytes = match buffer {
        VM_CONFIGURATION => Some(&spec.vm_configuration[..]),
        PLUGIN_CONFIGURATION => Some(&spec.configuration[..]),
        _ => None,
    };
    if let Some(bytes) = bytes {
        return call.give(part(bytes, start, length), address_at, size_at);
    }
    let bytes = match buffer {
        CALL_RESPONSE_BODY => match &state.running.call {
            Some(Ok(response)) => response.body.clone(),
            _ => return Err(Status::NotFound.into()),
        },
        CALL_DATA => state.running.argument.clone().ok_or(Status::NotFound)?,
        _ => return Err(missing(buffer)),
    };
    call.give(part(&bytes, start, length), address_at, size_at)
}

fn read_body(
    call: &mut Call<'_>,
    request: bool,
    (start, length): (u32, u32),
    address_at: u32,
    size_at: u32,
) -> Outcome {
    let (stream, phase) = stream(call)?;
    let body = VmState::body(&stream, phase, request).ok_or(Status::NotFound)?;
    let (start, length) = (start as usize, length as usize);
    let size = body.len().saturating_sub(start).min(length);
    call.give_with(size, address_at, size_at, |out| {
        let mut at = 0;
        for slice in body.slices(start, size) {
            out[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        Ok(())
    })
}

/// Replaces `length` bytes from `start` on. Bodies only; what would exceed the plugin's limit is dropped, and the
/// embedder answers the exchange with an error.
fn write(call: &mut Call<'_>, buffer: u32, start: u32, length: u32, text: u32, size: u32) -> Outcome {
    let request = match buffer {
        REQUEST_BODY => true,
        RESPONSE_BODY => false,
        CALL_RESPONSE_BODY.. if buffer <= LAST => return Err(Status::BadArgument.into()),
        _ => return Err(missing(buffer)),
    };
    let (stream, phase) = stream(call)?;
    let mut body = VmState::body(&stream, phase, request).ok_or(Status::NotFound)?;
    let (bytes, _) = call.read((text, size))?;
    body.splice(start as usize, length as usize, bytes);
    Ok(())
}

fn status(call: &mut Call<'_>, buffer: u32, size_at: u32, flags_at: u32) -> Outcome {
    let size = match buffer {
        REQUEST_BODY | RESPONSE_BODY => {
            let (stream, phase) = stream(call)?;
            VmState::body(&stream, phase, buffer == REQUEST_BODY).ok_or(Status::NotFound)?.len()
        }
        VM_CONFIGURATION => call.root()?.core.spec.vm_configuration.len(),
        PLUGIN_CONFIGURATION => call.root()?.core.spec.configuration.len(),
        CALL_RESPONSE_BODY => match &call.state().running.call {
            Some(Ok(response)) => response.body.len(),
            _ => return Err(Status::NotFound.into()),
        },
        CALL_DATA => call.state().running.argument.as_ref().ok_or(Status::NotFound)?.len(),
        _ => return Err(missing(buffer)),
    };
    call.check((flags_at, 4))?;
    call.write_u32(size_at, u32::try_from(size).unwrap_or(u32::MAX))?;
    call.write_u32(flags_at, 0)
}

/// ABI 0.1.0: the plugin's configuration while it is configured, else the VM's.
fn configuration(call: &mut Call<'_>, address_at: u32, size_at: u32) -> Outcome {
    use crate::phase::Phase;
    let buffer = match call.state().running.phase {
        Phase::Configure | Phase::ContextCreate => PLUGIN_CONFIGURATION,
        _ => VM_CONFIGURATION,
    };
    read(call, buffer, 0, u32::MAX, address_at, size_at)
}

fn stream(call: &mut Call<'_>) -> Result<(Rc<Stream>, crate::phase::Phase), Stop> {
    let state = call.state();
    let stream = state.stream().cloned().ok_or(Status::NotFound)?;
    Ok((stream, state.running.phase))
}

/// A buffer that is not there: never heard of, or not now.
fn missing(buffer: u32) -> Stop {
    if buffer > LAST { Status::BadArgument.into() } else { Status::NotFound.into() }
}

fn part(bytes: &[u8], start: u32, length: u32) -> &[u8] {
    let start = (start as usize).min(bytes.len());
    let length = (length as usize).min(bytes.len() - start);
    &bytes[start..start + length]
}
