//! Looks at the memory of the process for as long as it runs, and says in the log and in `/ready` when it is short.

use std::sync::Arc;

use super::rollout::Rollout;
use crate::admin;
use crate::overload::{self, Sampler};

/// Looks again and again; never ends.
pub(super) async fn watch(state: Arc<admin::State>, rollout: Rollout) {
    let mut sampler = Sampler::new();
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
        tokio::time::sleep(look.again).await;
    }
}
