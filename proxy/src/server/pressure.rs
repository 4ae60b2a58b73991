//! Looks at the memory of the process for as long as it runs, says in the log and in `/ready` when it is short, and has what
//! nobody uses given back then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::rollout::Rollout;
use crate::admin;
use crate::overload::{self, Sampler, Stage};

/// How often memory that nobody uses is given back, as long as it is short.
const GIVE_BACK: Duration = Duration::from_millis(250);

/// Looks again and again; never ends.
pub(super) async fn watch(state: Arc<admin::State>, rollout: Rollout) {
    let mut sampler = Sampler::new();
    let mut due = Instant::now();
    loop {
        let look = sampler.look(&rollout.overload());
        let (before, now) = look.stages;
        if now != before {
            state.set_overloaded(overload::refuses());
            if now > before {
                tracing::warn!(stage = ?now, used = look.used, ceiling = look.ceiling, "memory is short");
            } else {
                tracing::info!(stage = ?now, used = look.used, ceiling = look.ceiling, "memory is less short");
            }
        }
        if now > Stage::Calm && Instant::now() >= due {
            overload::give_back();
            due = Instant::now() + GIVE_BACK;
        }
        tokio::time::sleep(look.again).await;
    }
}
