//! The standard filter `jwt`: lets in who brings a valid JSON Web Token. See its README.md.
//!
//! `config.rs` is what a user writes, `token.rs` reads tokens and checks their claims, `keys.rs` and `remote.rs`
//! are the keys, `provider.rs` puts these together, `cache.rs` remembers, `failure.rs` says why not, and this file decides.

mod cache;
mod config;
mod failure;
mod keys;
mod object;
mod provider;
mod remote;
#[cfg(test)]
mod tests;
mod token;

use std::rc::Rc;

use meshgate_sdk::credential::Place;
use meshgate_sdk::prelude::*;
use meshgate_sdk::{Flag, Refused, Request, property};

use crate::cache::Verified;
use crate::config::Config;
use crate::failure::Failure;
use crate::provider::Provider;

/// How often a worker looks whether keys are due, or were fetched by another one.
const TICK: Duration = Duration::from_secs(1);
/// Where Envoy's filter for tokens leaves claims.
const ENVOYS: &str = "envoy.filters.http.jwt_authn";

struct Jwt {
    /// Those of whom tokens are wanted.
    providers: Vec<Provider>,
    /// A token of each of them, or of any.
    all: bool,
    allow_missing: bool,
    /// Fields that nobody but this filter may set.
    own_fields: Vec<String>,
    tokens: Family<Counter, 2>,
}

#[filter]
impl Filter for Jwt {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        let cache = config.cache.unwrap_or(1000);
        let fetches =
            Counter::build("meshgate_jwt_key_fetches_total").help("Calls for keys, by how they ended.");
        let fetches = Rc::new(fetches.family(["provider", "outcome"]));
        let mut providers = Vec::new();
        for (name, provider) in &config.providers {
            let provider = Provider::new(name, provider, cache, &fetches);
            providers.push(provider.map_err(|error| error.within(&format!("providers/{name}")))?);
        }
        if providers.is_empty() {
            return Err(ConfigError::new("nobody's tokens could be accepted").at("providers"));
        }
        let mut own_fields: Vec<String> =
            providers.iter().flat_map(Provider::fields).map(str::to_owned).collect();
        own_fields.sort();
        own_fields.dedup();
        let mut all = false;
        if let Some(require) = &config.require {
            let (names, each) = require.names().map_err(|error| error.at("require"))?;
            if let Some(unknown) = names.iter().find(|name| !config.providers.contains_key(*name)) {
                return Err(ConfigError::new(format_args!("there is no provider {unknown:?}")).at("require"));
            }
            all = each;
            providers.retain(|provider| names.contains(&provider.name));
            providers.sort_by_key(|provider| names.iter().position(|name| *name == provider.name));
        }
        if providers.iter().any(|provider| provider.remote.is_some()) {
            meshgate_sdk::tick_every(TICK)?;
        }
        let tokens = Counter::build("meshgate_jwt_tokens_total").help("Tokens, by what became of them.");
        Ok(Self {
            providers,
            all,
            allow_missing: config.allow_missing,
            own_fields,
            tokens: tokens.family(["provider", "outcome"]),
        })
    }

    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let request = exchange.request();
        for field in &self.own_fields {
            request.headers().remove(field)?;
        }
        let mut verified = Vec::new();
        let mut failure = Failure::Missing;
        for provider in &self.providers {
            match self.verify(provider, &request).await {
                Ok(token) => {
                    verified.push(token);
                    if !self.all {
                        break;
                    }
                }
                Err(Failure::Missing) if self.allow_missing || !self.all => {}
                Err(other) if self.all => return self.refuse(exchange, &other),
                // A provider that is the token's own has more to say about it than others.
                Err(other) if matches!(failure, Failure::Missing | Failure::Issuer) => failure = other,
                Err(_) => {}
            }
        }
        if verified.is_empty() && !(self.allow_missing && failure == Failure::Missing) {
            return self.refuse(exchange, &failure);
        }
        for (provider, place, token) in &verified {
            if !provider.forward {
                place.clear(&request)?;
            }
            for (field, value) in &token.fields {
                request.headers().set(field, value)?;
            }
        }
        let Some((provider, _, token)) = verified.first() else {
            return Ok(clear_properties()?);
        };
        property::set("jwt.provider", &provider.name)?;
        property::set("jwt.principal", &token.principal)?;
        property::set("jwt.claims", &token.claims)?;
        if let Some(name) = &provider.payload_in_metadata {
            property::set(ENVOYS, [b"{", name.as_bytes(), b":", &token.claims, b"}"].concat())?;
        }
        Ok(())
    }

    async fn on_tick(&self) -> Outcome {
        for refreshed in meshgate_sdk::join_all(self.providers.iter().map(Provider::refresh)).await {
            refreshed?;
        }
        Ok(())
    }
}

/// Without a token nobody is known: what others left under these names, such as for all of the connection, must not be believed.
fn clear_properties() -> Result<(), Refused> {
    for name in ["jwt.provider", "jwt.principal", "jwt.claims", ENVOYS] {
        if property::bytes(name).is_some_and(|left| !left.is_empty()) {
            property::set(name, "")?;
        }
    }
    Ok(())
}

impl Jwt {
    async fn verify<'a>(
        &self,
        provider: &'a Provider,
        request: &Request,
    ) -> Result<(&'a Provider, &'a Place, Rc<Verified>), Failure> {
        let (place, token) = provider.find(request)?;
        let outcome = provider.verify(&token).await;
        let word = outcome.as_ref().map_or_else(Failure::word, |_| "verified");
        self.tokens.with([&provider.name, word]).add(1);
        Ok((provider, place, outcome?))
    }

    fn refuse(&self, exchange: &Exchange<Self>, failure: &Failure) -> Outcome {
        if *failure == Failure::Missing {
            self.tokens.with(["", failure.word()]).add(1);
        }
        meshgate_sdk::debug!("{failure}");
        exchange.set_flag(Flag::Unauthorized)?;
        failure.reply().into()
    }
}
