//! Services: plugins that run without exchanges, on each worker or, singletons, on one.

use std::rc::Rc;
use std::sync::Arc;

use meshgate_config::Diagnostic;
use meshgate_wasm::{Plugin, Vms};

use super::{Seat, Snapshot};

/// The services of a snapshot, about to be started on one worker.
pub(super) struct Services<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) vms: &'a Vms,
    pub(super) seat: Seat,
}

impl Services<'_> {
    /// Starts those that run on this worker and adds them to its plugins, which keep them alive.
    pub(super) fn start(&self, plugins: &mut Vec<Rc<Plugin>>) -> Result<(), Diagnostic> {
        for (service, spec) in self.snapshot.services() {
            if service.singleton && !is_home(&service.name, self.seat) {
                continue;
            }
            let plugin = self.vms.plugin(Arc::clone(spec));
            let plugin = plugin.map_err(|error| self.snapshot.refusal(service.at, &error))?;
            plugin.supervise();
            if !plugins.iter().any(|known| Rc::ptr_eq(known, &plugin)) {
                plugins.push(plugin);
            }
        }
        Ok(())
    }
}

/// Whether the singleton of this name runs on this worker: the same one after every reload, and not the same one for
/// all singletons.
fn is_home(name: &str, seat: Seat) -> bool {
    let sum = name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    sum % seat.of.max(1) == seat.index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_singleton_has_one_home() {
        for name in ["warm", "sync", "a", ""] {
            let homes = (0..4).filter(|index| is_home(name, Seat { index: *index, of: 4 })).count();
            assert_eq!(homes, 1, "{name}");
        }
        assert!(is_home("any", Seat { index: 0, of: 1 }));
    }
}
