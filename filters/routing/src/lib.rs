//! The standard filter `routing`: decides where a request goes. See its README.md.
//!
//! `config.rs` is what a user writes. How a request is compared with it is `meshgate_conditions`, and `hosts.rs` for virtual
//! hosts; `table.rs` is which route is found. `route.rs` is what a route does, with `draw.rs` for one of several clusters,
//! `keys.rs` for what a client stays with, `rewrite.rs`, `redirect.rs` and `mirror.rs`. This file puts them together.

mod config;
mod draw;
mod hosts;
mod keys;
mod mirror;
mod redirect;
mod rewrite;
mod route;
mod table;

use meshgate_conditions::{Incoming, WholeText};
use meshgate_sdk::{ConfigError, Exchange, Filter, Outcome, filter};

use crate::config::Config;
use crate::draw::Draw;
use crate::table::Table;

/// Conditions of a route, regular expressions among them.
type Alternative = meshgate_conditions::Alternative<WholeText>;

struct Routing {
    table: Table,
    draw: Draw,
}

#[filter]
impl Filter for Routing {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        Ok(Self { table: Table::new(&config)?, draw: Draw::seeded() })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let request = exchange.request();
        let incoming = Incoming::new(&request);
        // Without a match there is no decision: the listener's own cluster takes the request, or nobody does (404).
        match self.table.find(&incoming) {
            Some((route, alternative)) => route.decide(exchange, &incoming, alternative, &self.draw),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
