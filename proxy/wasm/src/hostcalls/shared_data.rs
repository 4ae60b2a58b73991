//! Shared data.

use super::{Functions, functions};
use crate::memory::{Call, Outcome};
use crate::status::Status;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_get_shared_data" => read[key: u32, length: u32, address_at: u32, size_at: u32, version_at: u32];
        "proxy_set_shared_data" => write[key: u32, length: u32, value: u32, size: u32, version: u32];
    });
    Ok(())
}

fn read(
    call: &mut Call<'_>,
    key: u32,
    length: u32,
    address_at: u32,
    size_at: u32,
    version_at: u32,
) -> Outcome {
    call.check((version_at, 4))?;
    let (key, state) = call.read((key, length))?;
    let (value, version) = state.namespace.find(key).ok_or(Status::NotFound)?;
    call.give(&value, address_at, size_at)?;
    call.write_u32(version_at, version)
}

/// A null pointer for the value removes the key: it is how the Rust SDK says so. Others mean an empty value by it.
fn write(call: &mut Call<'_>, key: u32, length: u32, value: u32, size: u32, version: u32) -> Outcome {
    let namespace = call.state().namespace.clone();
    let core = call.root()?.core.clone();
    let removes = value == 0 && size == 0 && !core.spec.compatibility.store_null;
    let (key, value) = call.read_two((key, length), (value, size))?;
    if removes {
        namespace.remove(key, version)?;
    } else {
        namespace.set(key, value, version, &core.usage.ledger, &core.spec.limits)?;
    }
    Ok(())
}
