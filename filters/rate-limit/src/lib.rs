//! The standard filter `rate-limit`: limits how many requests pass in a time. See its README.md.
//!
//! `config.rs` is what a user writes, `rate.rs` the arithmetic, `rule.rs` one rule, and this file lets all of them decide.

mod config;
mod rate;
mod rule;

use std::cell::Cell;
use std::time::UNIX_EPOCH;

use meshgate_conditions::Incoming;
use meshgate_sdk::{ConfigError, Exchange, Filter, Flag, Outcome, Refused, Reply, Stop, filter};

use crate::config::{Config, HeaderForm, IfUncounted};
use crate::rate::State;
use crate::rule::{Rule, Taken, Verdict};

/// What gRPC clients get: too many, and not "try again at once", which UNAVAILABLE would be.
const RESOURCE_EXHAUSTED: u8 = 8;

struct RateLimit {
    rules: Vec<Rule>,
    headers: HeaderForm,
    if_uncounted: IfUncounted,
}

impl RateLimit {
    /// Asks all rules. Of what they say, the client is told about the one that is the first to be used up.
    fn decide(&self, exchange: &Exchange<Self>) -> Result<Option<Told>, Stop> {
        let now = meshgate_sdk::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let mut taken = Vec::new();
        let mut tightest: Option<Told> = None;
        let request = exchange.request();
        let incoming = Incoming::new(&request);
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.is_for(&incoming)) {
            let verdict = match rule.take(exchange, now) {
                Ok(verdict) => verdict,
                Err(refused) => {
                    self.uncounted(exchange, rule, &refused, &mut taken)?;
                    continue;
                }
            };
            match verdict {
                Verdict::Unlimited => rule.count("passed"),
                Verdict::Pass(one, state) => {
                    rule.count("passed");
                    taken.push(one);
                    if !rule.dry_run
                        && tightest.is_none_or(|tightest| state.remaining < tightest.state.remaining)
                    {
                        tightest = Some(Told { rule: index, state });
                    }
                }
                Verdict::TooMany(_) if rule.dry_run => {
                    rule.count("would_limit");
                    exchange.log_field("rate_limit.would", &rule.name)?;
                }
                Verdict::TooMany(state) => {
                    rule.count("limited");
                    give_back(&mut taken);
                    exchange.state.set(Some(Told { rule: index, state }));
                    return Err(self.refuse(exchange, rule, state)?);
                }
            }
        }
        Ok(tightest)
    }

    fn refuse(&self, exchange: &Exchange<Self>, rule: &Rule, state: State) -> Result<Stop, Refused> {
        exchange.set_flag(Flag::RateLimited)?;
        exchange.log_field("rate_limit.rule", &rule.name)?;
        let mut reply = Reply::new(429).header("retry-after", state.next.to_string());
        if self.headers == HeaderForm::Envoy {
            reply = reply.header("x-envoy-ratelimited", "true");
        }
        let reply = reply.body("local_rate_limited").details("local_rate_limited");
        Ok(reply.grpc_status(RESOURCE_EXHAUSTED).into())
    }

    /// The host has no room for one more key, or cannot count at all.
    fn uncounted(
        &self,
        exchange: &Exchange<Self>,
        rule: &Rule,
        refused: &Refused,
        taken: &mut Vec<Taken<'_>>,
    ) -> Outcome {
        rule.count("uncounted");
        meshgate_sdk::debug!("rule {}: {refused}", rule.name);
        exchange.set_flag(Flag::RateLimitServiceError)?;
        if rule.dry_run || self.if_uncounted == IfUncounted::Allow {
            return Ok(());
        }
        give_back(taken);
        Reply::new(503).details("rate_limit_uncounted").into()
    }
}

/// What a client is told: the rule, by its place, and what it says.
#[derive(Clone, Copy)]
struct Told {
    rule: usize,
    state: State,
}

/// What the other rules have taken for a request that does not pass. If it cannot be given back, it is earned again.
fn give_back(taken: &mut Vec<Taken<'_>>) {
    for one in taken.drain(..) {
        if let Err(refused) = one.give_back() {
            meshgate_sdk::debug!("{refused}");
        }
    }
}

#[filter]
impl Filter for RateLimit {
    type State = Cell<Option<Told>>;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        config.check_names()?;
        let rules = config.rules.iter().enumerate();
        let rules = rules
            .map(|(index, rule)| Rule::new(rule).map_err(|error| error.within(&format!("rules/{index}"))));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            headers: config.headers,
            if_uncounted: config.if_uncounted,
        })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.state.set(self.decide(exchange)?);
        Ok(())
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        let Some(Told { rule, state }) = exchange.state.get() else { return Ok(()) };
        let Some(Rule { quoted, .. }) = self.rules.get(rule) else { return Ok(()) };
        let State { limit, remaining, reset, window, next } = state;
        let headers = exchange.response().headers();
        match self.headers {
            // Lists: what the service says of its own limits stays beside it.
            HeaderForm::Standard => {
                let until = if remaining == 0 { next } else { reset };
                headers.add("ratelimit-policy", format!("{quoted};q={limit};w={window}"))?;
                headers.add("ratelimit", format!("{quoted};r={remaining};t={until}"))?;
            }
            HeaderForm::Envoy => {
                headers.set("x-ratelimit-limit", limit.to_string())?;
                headers.set("x-ratelimit-remaining", remaining.to_string())?;
                headers.set("x-ratelimit-reset", reset.to_string())?;
            }
            HeaderForm::None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
