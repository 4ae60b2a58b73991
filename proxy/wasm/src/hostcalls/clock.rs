//! Clock and timer.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Functions, functions};
use crate::limits::Limit;
use crate::memory::{Call, Outcome};
use crate::tick::TickHandle;

pub(super) fn link(functions: &mut Functions) -> wasmtime::Result<()> {
    functions!(functions, "env", Always, {
        "proxy_get_current_time_nanoseconds" => current_time[nanoseconds_at: u32];
    });
    functions!(functions, "env", InCallbacks, {
        "proxy_set_tick_period_milliseconds" => set_tick_period[milliseconds: u32];
    });
    Ok(())
}

fn current_time(call: &mut Call<'_>, nanoseconds_at: u32) -> Outcome {
    let now = call.state().host.now();
    let now = call.moment(nanoseconds(now));
    call.write_u64(nanoseconds_at, now)
}

/// One timer per plugin, also when set from a stream. 0 stops it.
fn set_tick_period(call: &mut Call<'_>, milliseconds: u32) -> Outcome {
    let root = call.root()?;
    let core = &root.core;
    let shortest = core.spec.limits.tick;
    let period = Some(Duration::from_millis(milliseconds.into())).filter(|period| !period.is_zero());
    if period.is_some_and(|period| period < shortest) {
        core.exceeded(Limit::Tick);
    }
    let host = Rc::clone(&call.state().host);
    core.ticking.set(period.is_some());
    host.tick(TickHandle::new(core), period.map(|period| period.max(shortest)));
    Ok(())
}

/// Since 1970; a clock before that reads 0.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
