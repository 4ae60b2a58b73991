//! Whose code runs, and in whose callback.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current { plugin: 0, context: 0, callback: 0 }) };
}

/// All three are contexts, by the host's numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    /// The root context.
    pub(crate) plugin: u32,
    /// The one whose code runs.
    pub(crate) context: u32,
    /// The one whose callback it is.
    pub(crate) callback: u32,
}

impl Current {
    /// Whether what is begun here comes back. The `proxy-wasm` crate delivers the response to a call to the context in whose
    /// callback it was made. That may be over by then, if it is neither the one that waits nor the plugin.
    pub(crate) fn is_in_place(self) -> bool {
        self.callback == self.context || self.callback == self.plugin
    }
}

pub(crate) fn get() -> Current {
    CURRENT.get()
}

/// A callback of this context begins.
pub(crate) fn enter(plugin: u32, context: u32) {
    CURRENT.set(Current { plugin, context, callback: context });
}

/// In the same callback the code of this context runs.
pub(crate) fn act_for(context: u32) {
    CURRENT.set(Current { context, ..CURRENT.get() });
}

/// The host drops this context, outside of any callback that the `proxy-wasm` crate would know about.
pub(crate) fn leave(plugin: u32, context: u32) {
    CURRENT.set(Current { plugin, context, callback: 0 });
}
