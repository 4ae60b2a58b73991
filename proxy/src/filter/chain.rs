//! What a chain is made of: the filters that `snapshot` puts in order, shared by all exchanges of a worker.

use std::rc::Rc;
use std::time::Duration;

use meshgate_config::OnError;
use meshgate_wasm::{Callbacks, Plugin};

/// Filters in order: requests run down the list, responses run back up.
pub struct Chain {
    /// Its name in the configuration.
    pub name: Rc<str>,
    /// First to last.
    pub filters: Box<[Rc<Filter>]>,
}

/// A filter's place in a chain: a plugin, and what the place adds to it.
pub struct Filter {
    /// The filter's name in the configuration.
    pub name: Rc<str>,
    /// The module with its configuration; shared by every place that configures the module alike.
    pub plugin: Rc<Plugin>,
    /// The callbacks worth calling.
    pub callbacks: Callbacks,
    /// Those of them that are worth it only where the request is one of gRPC.
    pub grpc_only: Callbacks,
    /// What an exchange gets when the filter fails.
    pub on_error: OnError,
    /// How long it may hold an exchange.
    pub pause: Duration,
    /// Most body bytes held back for it, per exchange and direction.
    pub body_limit: usize,
    /// The chains that its configuration holds, by their key there.
    pub chains: Vec<(String, Rc<Chain>)>,
}

impl Filter {
    /// The chain with this key in the filter's configuration.
    pub fn chain(&self, key: &str) -> Option<&Rc<Chain>> {
        self.chains.iter().find(|(name, _)| name == key).map(|(_, chain)| chain)
    }
}
