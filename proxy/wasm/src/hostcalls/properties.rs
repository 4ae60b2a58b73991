//! Properties: reading the host's, reading and writing the filters' own.

use std::cell::RefCell;
use std::rc::Rc;

use super::{Declared, Functions, functions};
use crate::attributes::Attributes;
use crate::capabilities::PropertyGroup;
use crate::contexts::Root;
use crate::core::Core;
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
    let parts = call.parts();
    let root = Rc::clone(parts.state.root()?);
    let exchange = parts.state.stream().and_then(|stream| stream.exchange.upgrade());
    parts.check((path, length))?;
    // Longer paths name nothing.
    let (path, _) = parts.read((path, length.min(MAX_PATH)))?;
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
    call.give(&value.encode(root.core.spec.compatibility.properties), address_at, size_at)
}

/// Anything the host does not serve itself; kept with the exchange or its connection, for later filters and the log. What the host
/// serves is not changed by it, and neither is the filter state of foreign functions; as in Envoy, filters do not notice.
fn write(call: &mut Call<'_>, path: u32, length: u32, value: u32, size: u32) -> Outcome {
    let parts = call.parts();
    parts.check((path, length))?;
    if length == 0 || length > MAX_PATH {
        return Err(Status::BadArgument.into());
    }
    let exchange = parts.state.stream().and_then(|stream| stream.exchange.upgrade());
    let exchange = exchange.ok_or(Status::NotFound)?;
    let (path, value, state) = parts.read_two((path, length), (value, size))?;
    if PropertyGroup::is_of_host(path) || path.starts_with(b"filter_state\0") {
        return Ok(());
    }
    let Root { declarations, core, .. } = &**state.root()?;
    let declared = declarations.of(path);
    let borrowed = |_| Status::InternalFailure;
    if let Some(http) = exchange.http() {
        keep(core, &mut http.try_borrow_mut().map_err(borrowed)?.attributes, declared, path, value)
    } else if let Some(attributes) = exchange.tcp() {
        keep(core, &mut *attributes.try_borrow_mut().map_err(borrowed)?, declared, path, value)
    } else {
        Err(Status::InternalFailure.into())
    }
}

#[inline]
fn keep(core: &Core, attributes: &mut Attributes, declared: Declared, path: &[u8], value: &[u8]) -> Outcome {
    let mut of_connection;
    let kept = if declared.of_connection {
        of_connection = attributes.connection.custom.borrow_mut();
        &mut *of_connection
    } else {
        &mut attributes.custom
    };
    if declared.read_only && kept.find(path).is_some() {
        return Err(Status::BadArgument.into());
    }
    if !kept.set(path, value) {
        core.exceeded(Limit::Properties);
        return Err(Status::InternalFailure.into());
    }
    Ok(())
}
