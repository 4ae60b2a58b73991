//! A `match` as a whole.

use meshgate_sdk::{ConfigError, Request};

use crate::alternative::{Alternative, Incoming, Source};
use crate::config::Matches;
use crate::expression::{Expression, NoExpressions};

/// All that a `match` says, prepared.
#[derive(Debug)]
pub struct Matcher<E = NoExpressions>(Vec<Alternative<E>>);

impl<E: Expression> Matcher<E> {
    /// Reads what a user writes under `match`.
    ///
    /// # Errors
    /// Something in it cannot be meant; its place begins with `match`.
    pub fn new(config: &Matches) -> Result<Self, ConfigError> {
        Alternative::all(config).map(Self)
    }

    /// Whether a request is meant.
    pub fn matches(&self, request: &Request) -> bool {
        self.matches_incoming(&Incoming::new(request))
    }

    /// As [`matches`](Self::matches), for several that look at one request.
    pub fn matches_incoming<S: Source>(&self, incoming: &Incoming<S>) -> bool {
        self.0.iter().any(|alternative| alternative.matches(incoming))
    }
}
