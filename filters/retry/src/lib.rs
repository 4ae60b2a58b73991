//! The standard filter `retry`: sends requests again that failed, within budgets. See its README.md.
//!
//! The host has the tries and asks how each is judged (`meshgate.attempts`). `config.rs` is what a user writes, `condition.rs`
//! is what a try is compared with, `back_off.rs` says how long to wait, `budget.rs` how many retries there may be, `hedge.rs`
//! when a try takes long, and this file puts them together.

mod back_off;
mod budget;
mod condition;
mod config;
mod hedge;

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use meshgate_sdk::attempts::{self, Attempt, Attempts, Ending, Retry, Verdict};
use meshgate_sdk::metric::{Counter, Family};
use meshgate_sdk::{ConfigError, Exchange, Filter, Outcome, Status, filter};

use crate::back_off::{BackOff, asked_pause};
use crate::budget::{Rate, most_retries};
use crate::condition::{Condition, RATE_LIMITED};
use crate::config::{BudgetConfig, ConcurrencyConfig, Config, HedgeConfig};
use crate::hedge::Latencies;

/// What HTTP calls idempotent (RFC 9110 section 9.2.2).
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
/// What an overloaded proxy says: it is not to be asked again.
const OVERLOADED: &str = "x-envoy-overloaded";

struct Retries {
    conditions: Vec<Condition>,
    attempts: u32,
    /// What the host is told of each request, but for the time of a hedge that depends on how long others took.
    watch: attempts::Builder,
    /// The same, ready to be said.
    watching: Attempts,
    back_off: BackOff,
    retry_after: Duration,
    methods: Option<Vec<String>>,
    budget: Budget,
    latencies: Option<Latencies>,
    retried: Family<Counter, 1>,
    given_up: Family<Counter, 1>,
    /// Whether it was said that the host cannot do it.
    told: Cell<bool>,
}

enum Budget {
    /// Nothing but the cluster's own limit.
    None,
    Concurrency(ConcurrencyConfig),
    Rate(Rate),
}

/// Why a try that fits a condition is delivered all the same; as the metric's label says it.
type Refusal = &'static str;

impl Retries {
    /// Whether, and how, a request is sent again. `None`: nothing speaks for it.
    fn judge(&self, exchange: &Exchange<Self>, attempt: &Attempt) -> Option<Result<Retry, Refusal>> {
        let slow = attempt.ending() == Ending::Slow;
        if !slow && self.reason(exchange, attempt).is_none() {
            return None;
        }
        Some(self.another(exchange, attempt, slow))
    }

    /// The first condition that fits.
    fn reason(&self, exchange: &Exchange<Self>, attempt: &Attempt) -> Option<&Condition> {
        let field = |name: &str| exchange.response().header(name);
        self.conditions.iter().find(|condition| condition.fits(attempt, field))
    }

    /// Whether a response is not to be asked for again: an overloaded endpoint's, or that of a rate limit, unless those are
    /// named.
    fn is_final(&self, exchange: &Exchange<Self>) -> bool {
        let has = |name: &str| exchange.response().header(name).is_some();
        has(OVERLOADED) || has(RATE_LIMITED) && !self.conditions.contains(&Condition::RateLimited)
    }

    fn another(&self, exchange: &Exchange<Self>, attempt: &Attempt, slow: bool) -> Result<Retry, Refusal> {
        let response = attempt.ending() == Ending::Response;
        if response && self.is_final(exchange) {
            return Err("overloaded");
        }
        if !attempt.can_retry() {
            return Err("body");
        }
        if !self.may_repeat(exchange, attempt.ending()) {
            return Err("method");
        }
        if !slow && attempt.others() > 0 {
            return Ok(Retry::now());
        }
        if attempt.number() > self.attempts {
            return Err("attempts");
        }
        let pause = if slow { Duration::ZERO } else { self.pause(exchange, attempt, response)? };
        let retry = Retry::after(pause).elsewhere();
        match &self.budget {
            Budget::None => Ok(retry),
            Budget::Concurrency(config) => match most_retries(config, attempt.active()) {
                most if attempt.retries() < most => Ok(retry.if_at_most(most)),
                _ => Err("budget"),
            },
            Budget::Rate(rate) => {
                let cluster = exchange.cluster_name().unwrap_or_default();
                if rate.withdraw(&cluster, meshgate_sdk::now()) { Ok(retry) } else { Err("budget") }
            }
        }
    }

    /// Whether the endpoint cannot have begun with the request, or may do it twice.
    fn may_repeat(&self, exchange: &Exchange<Self>, ending: Ending) -> bool {
        if matches!(ending, Ending::ConnectFailure | Ending::Refused | Ending::ResetBeforeRequest) {
            return true;
        }
        let method = exchange.request().method();
        match &self.methods {
            Some(methods) => methods.contains(&method),
            None => IDEMPOTENT.contains(&method.as_str()),
        }
    }

    /// How long to wait: as long as we draw, or as the endpoint asks for, if there is so much time.
    fn pause(
        &self,
        exchange: &Exchange<Self>,
        attempt: &Attempt,
        response: bool,
    ) -> Result<Duration, Refusal> {
        let drawn = self.back_off.pause(attempt.number());
        let asked = exchange.response().header("retry-after").filter(|_| response);
        let Some(asked) = asked.and_then(|value| asked_pause(&value, meshgate_sdk::now())) else {
            return Ok(drawn);
        };
        let most = attempt.left().map_or(self.retry_after, |left| left.min(self.retry_after));
        if asked > most { Err("retry-after") } else { Ok(asked.max(drawn)) }
    }
}

#[filter]
impl Filter for Retries {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let lowest = config.conditions.iter().filter_map(|condition| condition.lowest_status()).min();
        let mut watch = Attempts::judge().from_status(lowest.unwrap_or(600)).replay(config.replay.bytes());
        if let Some(timeout) = config.per_try_timeout {
            watch = watch.per_try_timeout(timeout);
        }
        if config.attempt_count {
            watch = watch.numbered();
        }
        let mut latencies = None;
        match config.hedge {
            Some(HedgeConfig::After(hedge)) => watch = watch.hedge_after(hedge.after),
            Some(HedgeConfig::Percentile(hedge)) => {
                latencies = Some(Latencies::new(hedge.percentile, hedge.at_least.as_std()));
                watch = watch.from_status(0);
            }
            None => {}
        }
        let seed = meshgate_sdk::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        Ok(Self {
            attempts: config.attempts,
            watching: watch.build(),
            watch,
            back_off: BackOff::new(config.back_off.base(), config.back_off.max(), seed),
            retry_after: config.retry_after.as_std(),
            methods: config.methods,
            budget: match config.budget {
                None => Budget::None,
                Some(BudgetConfig::Concurrency(budget)) => Budget::Concurrency(budget),
                Some(BudgetConfig::Rate(budget)) => Budget::Rate(Rate::new(&budget)),
            },
            latencies,
            retried: Counter::build("meshgate_retries_total")
                .help("Tries after a request's first, by the condition that asked for them.")
                .family(["because"]),
            given_up: Counter::build("meshgate_retries_refused_total")
                .help("Tries that failed and were delivered, by what spoke against another one.")
                .family(["because"]),
            told: Cell::new(false),
            conditions: config.conditions,
        })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        if let Budget::Rate(rate) = &self.budget {
            rate.deposit(meshgate_sdk::now());
        }
        let bound = self.latencies.as_ref().and_then(Latencies::bound);
        let watched = match bound {
            Some(bound) => exchange.attempts(&self.watch.clone().hedge_after(bound).build()),
            None => exchange.attempts(&self.watching),
        };
        match watched {
            // Another host: requests are sent once, as they are without this filter.
            Err(refused) if [Status::NOT_FOUND, Status::UNIMPLEMENTED].contains(&refused.status()) => {
                if !self.told.replace(true) {
                    meshgate_sdk::warn!(
                        "this host cannot send requests again (meshgate.attempts): they pass once"
                    );
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn on_attempt(&self, exchange: &Exchange<Self>, attempt: &Attempt) -> Verdict {
        if let Some(latencies) = &self.latencies
            && attempt.ending() == Ending::Response
        {
            latencies.record(attempt.elapsed());
        }
        match self.judge(exchange, attempt) {
            None => Verdict::Deliver,
            Some(Err(refusal)) => {
                self.given_up.with([refusal]).add(1);
                Verdict::Deliver
            }
            Some(Ok(retry)) => {
                if attempt.ending() == Ending::Slow {
                    self.retried.with(["hedge"]).add(1);
                } else if attempt.others() == 0 {
                    let because = self.reason(exchange, attempt);
                    let because = because.map(Condition::to_string).unwrap_or_default();
                    self.retried.with([because.as_str()]).add(1);
                }
                Verdict::Retry(retry)
            }
        }
    }
}

#[cfg(test)]
mod tests;
