//! Ticks: the periodic timer of a plugin.

use std::rc::{Rc, Weak};
use std::time::Instant;

use crate::contexts::Entry;
use crate::core::Core;
use crate::phase::Phase;

/// A plugin's timer, for the embedder to fire.
#[derive(Clone)]
pub struct TickHandle {
    key: u64,
    core: Weak<Core>,
}

impl TickHandle {
    pub(crate) fn new(core: &Rc<Core>) -> TickHandle {
        TickHandle { key: core.key, core: Rc::downgrade(core) }
    }

    /// Which timer this is: handles with an equal key are one timer.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Calls `proxy_on_tick`. False if the plugin has ended: forget the timer.
    ///
    /// If the plugin's VM failed, a fresh one is started; the plugin arms its timer again when it is configured.
    pub fn tick(&self) -> bool {
        let Some(core) = self.core.upgrade() else { return false };
        let failed = core.binding.borrow().as_ref().is_none_or(|binding| binding.vm.is_poisoned());
        if failed && core.ended.get() {
            return false;
        }
        // What fails here was told to the host; a plugin that cannot start now is tried again by the next tick.
        let Ok(binding) = core.bound() else { return true };
        let may = core.usage.share.is_calm() || core.usage.share.wait(Instant::now()).is_none();
        if let Some(tick) = binding.vm.exports.tick.as_ref().filter(|_| !failed && may) {
            let entry = Entry::Root(binding.root.clone());
            let _ = binding.vm.enter(&entry, Phase::Tick, false, tick, binding.root.id);
        }
        true
    }
}
