//! Where endpoints come from when they are not written in the configuration: from DNS, or from a file of their own. Each
//! follows its source for as long as its cluster is there, and keeps the last good list whatever becomes of the source.

mod dns;
mod file;

use std::rc::Rc;
use std::sync::Arc;

use meshgate_config::Discovery;

pub(super) use self::dns::Resolvers;
use super::care::Task;
use super::shared::SharedCluster;

/// Begins to follow a cluster's source of endpoints; none if they are written in the configuration.
pub(super) fn follow(
    name: &Rc<str>,
    discovery: &Discovery,
    checked: bool,
    cluster: &Arc<SharedCluster>,
    resolvers: &Resolvers,
) -> Option<Task> {
    let (name, cluster) = (Rc::clone(name), Arc::clone(cluster));
    match discovery {
        Discovery::Static => None,
        Discovery::Dns(settings) => Some(dns::follow(name, settings.clone(), checked, cluster, resolvers)),
        Discovery::File(path) => Some(file::follow(name, path.clone(), checked, cluster)),
    }
}
