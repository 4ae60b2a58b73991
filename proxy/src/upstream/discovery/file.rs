//! Endpoints from a file of their own: read again when it changes. A file with mistakes changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::files::{Fingerprint, Watch, look};
use crate::upstream::care::Task;
use crate::upstream::shared::SharedCluster;

/// Follows a file.
pub(super) fn follow(name: Rc<str>, path: PathBuf, checked: bool, cluster: Arc<SharedCluster>) -> Task {
    Task::spawn(async move {
        let files = BTreeSet::from([path.clone()]);
        let mut watch = Watch::start();
        let mut loaded = Fingerprint::default();
        loop {
            watch.arm(&files);
            let now = look(&loaded, files.clone()).await;
            if !loaded.same_content(&now) {
                load(&name, &path, checked, &cluster).await;
                let after = look(&now, files.clone()).await;
                if !now.same_content(&after) {
                    // It changed while it was read: which half was seen is not known, so once more.
                    watch.touch();
                }
            }
            loaded = now;
            watch.touched(&loaded).await;
            watch.settle().await;
        }
    })
}

async fn load(name: &str, path: &Path, checked: bool, cluster: &SharedCluster) {
    let reading = path.to_owned();
    // Names may have to be resolved, which takes its time.
    let read = tokio::task::spawn_blocking(move || meshgate_config::load_endpoints(&reading)).await;
    match read {
        Ok(Ok(endpoints)) => {
            tracing::info!(cluster = name, file = %path.display(), endpoints = endpoints.len(), "endpoints loaded");
            cluster.set_members(&endpoints, checked);
            cluster.source().succeeded();
        }
        Ok(Err(diagnostics)) => {
            let kept = cluster.members().len();
            tracing::error!(
                cluster = name,
                kept,
                "file of endpoints refused; the last list stands\n{diagnostics}"
            );
            cluster.source().failed(&diagnostics.to_string());
        }
        // Only when the runtime is being torn down.
        Err(_) => {}
    }
}
