//! Files that may change while the process runs: what they held when they were last looked at, and the notice that this may
//! be different now. Used by `reload` for the configuration, and by `upstream` for files of endpoints.

mod fingerprint;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;

pub use fingerprint::Fingerprint;
pub use watch::{Notice, Watch};

/// [`Fingerprint::renewed`] on a thread that may block.
pub async fn look_at_few(last: &Fingerprint, few: BTreeSet<PathBuf>) -> Option<Fingerprint> {
    let last = last.clone();
    tokio::task::spawn_blocking(move || last.renewed(&few)).await.ok().flatten()
}

/// Fingerprints the files on a thread that may block.
pub async fn look(last: &Fingerprint, files: BTreeSet<PathBuf>) -> Fingerprint {
    let last = last.clone();
    let fallback = last.clone();
    // The blocking task only fails to finish when the runtime is being torn down.
    tokio::task::spawn_blocking(move || last.retake(&files)).await.unwrap_or(fallback)
}
