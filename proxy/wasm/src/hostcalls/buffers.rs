//! Buffers: bodies, configurations, responses to calls.

use std::rc::Rc;

use bytes::Bytes;

use super::{Functions, functions};
use crate::contexts::Stream;
use crate::grpc::GrpcEvent;
use crate::memory::{Call, Outcome, Stop};
use crate::phase::Phase;
use crate::state::{Body, VmState};
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
const CALL_RESPONSE_BODY: u32 = 4;
const GRPC_MESSAGE: u32 = 5;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;
const CALL_DATA: u32 = 8;
const LAST: u32 = 8;

fn read(call: &mut Call<'_>, buffer: u32, start: u32, length: u32, address_at: u32, size_at: u32) -> Outcome {
    if let Some(body) = body(buffer) {
        return read_body(call, body, (start, length), address_at, size_at);
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
        GRPC_MESSAGE => grpc_message(state).ok_or(Status::NotFound)?.clone(),
        CALL_DATA => state.running.argument.clone().ok_or(Status::NotFound)?,
        _ => return Err(missing(buffer)),
    };
    call.give(part(&bytes, start, length), address_at, size_at)
}

fn read_body(
    call: &mut Call<'_>,
    body: Body,
    (start, length): (u32, u32),
    address_at: u32,
    size_at: u32,
) -> Outcome {
    let (stream, phase) = stream(call)?;
    let body = VmState::body(&stream, phase, body).ok_or(Status::NotFound)?;
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

/// Replaces `length` bytes from `start` on. Bodies and TCP data only; what would exceed the plugin's limit is dropped,
/// and the embedder answers the exchange with an error.
fn write(call: &mut Call<'_>, buffer: u32, start: u32, length: u32, text: u32, size: u32) -> Outcome {
    // The others cannot be written, or do not exist.
    let body = body(buffer).ok_or(Status::BadArgument)?;
    let (stream, phase) = stream(call)?;
    let mut body = VmState::body(&stream, phase, body).ok_or(Status::NotFound)?;
    let (bytes, _) = call.read((text, size))?;
    body.splice(start as usize, length as usize, bytes);
    Ok(())
}

fn status(call: &mut Call<'_>, buffer: u32, size_at: u32, flags_at: u32) -> Outcome {
    if let Some(body) = body(buffer) {
        let (stream, phase) = stream(call)?;
        let size = VmState::body(&stream, phase, body).ok_or(Status::NotFound)?.len();
        return give_status(call, size, size_at, flags_at);
    }
    let size = match buffer {
        VM_CONFIGURATION => call.root()?.core.spec.vm_configuration.len(),
        PLUGIN_CONFIGURATION => call.root()?.core.spec.configuration.len(),
        CALL_RESPONSE_BODY => match &call.state().running.call {
            Some(Ok(response)) => response.body.len(),
            _ => return Err(Status::NotFound.into()),
        },
        GRPC_MESSAGE => grpc_message(call.state()).ok_or(Status::NotFound)?.len(),
        CALL_DATA => call.state().running.argument.as_ref().ok_or(Status::NotFound)?.len(),
        _ => return Err(missing(buffer)),
    };
    give_status(call, size, size_at, flags_at)
}

fn give_status(call: &mut Call<'_>, size: usize, size_at: u32, flags_at: u32) -> Outcome {
    call.check((flags_at, 4))?;
    call.write_u32(size_at, u32::try_from(size).unwrap_or(u32::MAX))?;
    call.write_u32(flags_at, 0)
}

/// ABI 0.1.0: the plugin's configuration while its root context is made and configured, else the VM's.
fn configuration(call: &mut Call<'_>, address_at: u32, size_at: u32) -> Outcome {
    use crate::phase::Phase;
    let state = call.state();
    let buffer = match state.running.phase {
        Phase::Configure => PLUGIN_CONFIGURATION,
        Phase::ContextCreate if state.stream().is_none() => PLUGIN_CONFIGURATION,
        _ => VM_CONFIGURATION,
    };
    read(call, buffer, 0, u32::MAX, address_at, size_at)
}

/// The effective stream, and the phase it is in if the callback is its own.
fn stream(call: &mut Call<'_>) -> Result<(Rc<Stream>, Option<Phase>), Stop> {
    let state = call.state();
    let stream = state.stream().cloned().ok_or(Status::NotFound)?;
    Ok((stream, (!state.acts_on_another()).then_some(state.running.phase)))
}

/// The message that `proxy_on_grpc_receive` is about.
fn grpc_message(state: &VmState) -> Option<&Bytes> {
    match &state.running.grpc {
        Some(GrpcEvent::Message(message)) => Some(message),
        _ => None,
    }
}

/// The buffers that are a stream's own.
fn body(buffer: u32) -> Option<Body> {
    match buffer {
        0 => Some(Body::Request),
        1 => Some(Body::Response),
        2 => Some(Body::Downstream),
        3 => Some(Body::Upstream),
        _ => None,
    }
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
