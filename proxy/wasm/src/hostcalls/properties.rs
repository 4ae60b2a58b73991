//! Properties: reading the host's, reading and writing the filters' own.

use std::cell::RefCell;

use bytes::Bytes;

use super::{Functions, functions};
use crate::limits::Limit;
use crate::memory::{Call, Outcome};
use crate::properties::{Place, find};
use crate::status::Status;

/// Bytes of a property's path.
const MAX_PATH: u32 = 1_024;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_get_property" => read[path: u32, length: u32, address_at: u32, size_at: u32];
        "proxy_set_property" => write[path: u32, length: u32, value: u32, size: u32];
    });
    Ok(())
}

fn read(call: &mut Call<'_>, path: u32, length: u32, address_at: u32, size_at: u32) -> Outcome {
    let root = call.root()?;
    let exchange = call.state().stream().and_then(|stream| stream.exchange.upgrade());
    // Longer paths name nothing.
    let (path, _) = call.read((path, length.min(MAX_PATH)))?;
    if !root.core.spec.may.may_read(path) {
        root.core.refuse(Limit::MayRead, &String::from_utf8_lossy(path).replace('\0', "."));
        return Err(Status::NotFound.into());
    }
    let exchange = exchange.as_deref();
    // Borrowed only by an embedder that breaks its contract.
    let http = exchange.and_then(|exchange| exchange.http()).map(RefCell::try_borrow).transpose();
    let http = http.map_err(|_| Status::InternalFailure)?;
    let tcp = exchange.and_then(|exchange| exchange.tcp()).map(RefCell::try_borrow).transpose();
    let tcp = tcp.map_err(|_| Status::InternalFailure)?;
    let http = http.as_deref();
    let attributes = http.map(|http| &http.attributes).or(tcp.as_deref());
    let place = Place { http, attributes, spec: &root.core.spec };
    let value = find(&place, path).ok_or(Status::NotFound)?;
    call.give(&value, address_at, size_at)
}

/// Anything the host does not serve itself; kept with the exchange, for later filters and the log.
fn write(call: &mut Call<'_>, path: u32, length: u32, value: u32, size: u32) -> Outcome {
    if length == 0 || length > MAX_PATH {
        return Err(Status::BadArgument.into());
    }
    let exchange = call.state().stream().and_then(|stream| stream.exchange.upgrade());
    let exchange = exchange.ok_or(Status::NotFound)?;
    let (path, value) = call.read_two((path, length), (value, size))?;
    let value = Bytes::copy_from_slice(value);
    let borrowed = |_| Status::InternalFailure;
    let kept = if let Some(http) = exchange.http() {
        http.try_borrow_mut().map_err(borrowed)?.attributes.custom.set(path, value)
    } else if let Some(attributes) = exchange.tcp() {
        attributes.try_borrow_mut().map_err(borrowed)?.custom.set(path, value)
    } else {
        false
    };
    if kept { Ok(()) } else { Err(Status::InternalFailure.into()) }
}
