//! Waiting with a deadline. Used by every part of the harness; a wait that runs out fails the test and says for what.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Far above what is needed, because test machines are busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks at something that can only be polled.
const POLL: Duration = Duration::from_millis(5);

/// Awaits `future`, or fails the test with `what` when the deadline passes.
pub async fn within<T>(what: impl Display, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("gave up after {DEADLINE:?}: {what}"),
    }
}

/// Looks again and again until `look` finds something, or fails the test with `what` when the deadline passes.
pub async fn until<T, F: Future<Output = Option<T>>>(what: impl Display, mut look: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "gave up after {DEADLINE:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
