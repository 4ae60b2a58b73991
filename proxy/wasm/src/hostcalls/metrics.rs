//! Metrics.

use super::{Functions, functions};
use crate::core::Core;
use crate::limits::Limit;
use crate::memory::{Call, Outcome};
use crate::metrics::MetricKind;
use crate::status::Status;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", InCallbacks, {
        "proxy_define_metric" => define[kind: u32, name: u32, length: u32, id_at: u32];
        "proxy_record_metric" => record[id: u32, value: u64];
        "proxy_increment_metric" => increment[id: u32, offset: i64];
        "proxy_get_metric" => value[id: u32, value_at: u32];
    });
    Ok(())
}

fn define(call: &mut Call<'_>, kind: u32, name: u32, length: u32, id_at: u32) -> Outcome {
    let kind = MetricKind::from_abi(kind).ok_or(Status::BadArgument)?;
    call.check((id_at, 4))?;
    let root = call.root()?;
    let (name, state) = call.read((name, length))?;
    let id = match state.metrics.defined(name, kind) {
        Some(id) => id,
        None => {
            let text = std::str::from_utf8(name).map_err(|_| Status::BadArgument)?;
            let admit = || admit(&root.core, Limit::Metrics);
            let series = state.shared.metrics().define(text, kind, admit)?;
            state.metrics.define(name, kind, series)?
        }
    };
    call.write_u32(id_at, id)
}

/// Whether plugins of this name may have one more series.
pub(super) fn admit(core: &Core, limit: Limit) -> bool {
    let (ledger, limits) = (&core.usage.ledger, &core.spec.limits);
    let admitted = match limit {
        Limit::Metrics => ledger.metrics.take(1, limits.metrics as usize),
        _ => ledger.series.take(1, limits.series as usize),
    };
    if !admitted {
        core.exceeded(limit);
    }
    admitted
}

fn record(call: &mut Call<'_>, id: u32, value: u64) -> Outcome {
    call.state().metrics.find(id)?.record(value);
    Ok(())
}

fn increment(call: &mut Call<'_>, id: u32, offset: i64) -> Outcome {
    Ok(call.state().metrics.find(id)?.increment(offset)?)
}

fn value(call: &mut Call<'_>, id: u32, value_at: u32) -> Outcome {
    let value = call.state().metrics.find(id)?.value()?;
    call.write_u64(value_at, value)
}
