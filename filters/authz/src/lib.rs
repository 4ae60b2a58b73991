//! The standard filter `authz`: lets requests and TCP connections in, or refuses them, by rules. See its README.md.
//!
//! `config.rs` is what a user writes, `pattern.rs` and `path.rs` are what it is compared by, `facts.rs` is what is known of a
//! request, `rule.rs` puts them together, and this file decides.

mod config;
mod facts;
mod path;
mod pattern;
mod rule;
#[cfg(test)]
mod tests;

use meshgate_sdk::prelude::*;
use meshgate_sdk::{Connection, Flag, TcpFilter};

use crate::config::{Config, Fallback, Rules};
use crate::facts::Facts;
use crate::rule::Prepared;

struct Authz {
    deny: Vec<Prepared>,
    allow: Vec<Prepared>,
    audit: Vec<Prepared>,
    fallback: Fallback,
    dry_run: bool,
    /// Some rule is on trial, or all of them are: what they would do is worked out as well.
    on_trial: bool,
    trusted_hops: u8,
    decisions: Family<Counter, 2>,
}

/// Whether something may come in, and the name of the rule that says so; none has said so if the name is empty.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Decision<'a> {
    allowed: bool,
    rule: &'a str,
}

#[filter(tcp)]
impl Filter for Authz {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        let prepare = |action: &str, rules: &Rules| {
            let prepared = rules.0.iter().map(|(name, rule)| {
                Prepared::new(name, rule).map_err(|error| error.within(&format!("{action}/{name}")))
            });
            prepared.collect::<Result<Vec<_>, _>>()
        };
        if !config.allow.0.is_empty() && config.default == Some(Fallback::Allow) {
            return Err(ConfigError::new("with rules under `allow`, what matches none of them is refused")
                .at("default"));
        }
        if let Some((name, _)) = config.audit.0.iter().find(|(_, rule)| rule.dry_run) {
            let error = ConfigError::new("a rule under `audit` never decides: it has no dry run");
            return Err(error.at(format!("audit/{name}/dry_run")));
        }
        let (deny, allow) = (prepare("deny", &config.deny)?, prepare("allow", &config.allow)?);
        let decisions = Counter::build("meshgate_authz_decisions_total")
            .help("Requests and connections by what became of them, and by the rule that decided.");
        Ok(Self {
            on_trial: config.dry_run || deny.iter().chain(&allow).any(|rule| rule.dry_run),
            deny,
            allow,
            audit: prepare("audit", &config.audit)?,
            fallback: config.default.unwrap_or(Fallback::Allow),
            dry_run: config.dry_run,
            trusted_hops: config.trusted_hops,
            decisions: decisions.family(["decision", "rule"]),
        })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let facts = Facts::of_request(exchange.request(), self.trusted_hops);
        let Decision { allowed, rule } = self.settle(&facts);
        if allowed {
            return Ok(());
        }
        exchange.set_flag(Flag::Unauthorized)?;
        let details = format!("authz_denied[{rule}]");
        Reply::new(403).body("access denied\n").details(details).grpc_status(PERMISSION_DENIED).into()
    }
}

#[filter(http)]
impl TcpFilter for Authz {
    fn on_connection(&self, connection: &Connection<Self>) -> Outcome {
        let Decision { allowed, rule } = self.settle(&Facts::default());
        if allowed {
            return Ok(());
        }
        connection.set_flag(Flag::Unauthorized)?;
        connection.log_field("authz.rule", rule)?;
        connection.close()
    }
}

/// gRPC's status for what a caller may not do.
const PERMISSION_DENIED: u8 = 7;

impl Authz {
    /// What becomes of a request or a connection, counted and logged.
    fn settle(&self, facts: &Facts) -> Decision<'_> {
        for rule in self.audit.iter().filter(|rule| rule.matches(facts, false)) {
            self.note("audited", &rule.name, facts);
        }
        let decision =
            if self.dry_run { Decision { allowed: true, rule: "" } } else { self.decide(facts, false) };
        if self.on_trial {
            let tried = self.decide(facts, true);
            if tried.allowed != decision.allowed {
                self.note(if tried.allowed { "would_allow" } else { "would_deny" }, tried.rule, facts);
            }
        }
        self.decisions.with([if decision.allowed { "allowed" } else { "denied" }, decision.rule]).add(1);
        decision
    }

    /// What the rules say; `with_trials`: those on trial, too.
    fn decide(&self, facts: &Facts, with_trials: bool) -> Decision<'_> {
        let counts = |rule: &&Prepared| with_trials || !rule.dry_run;
        // What is unclear is refused: it matches a rule that refuses, and none that lets in.
        if let Some(rule) = self.deny.iter().filter(counts).find(|rule| rule.matches(facts, true)) {
            return Decision { allowed: false, rule: &rule.name };
        }
        let mut allowing = self.allow.iter().filter(counts).peekable();
        if allowing.peek().is_none() {
            return Decision { allowed: self.fallback == Fallback::Allow, rule: "" };
        }
        match allowing.find(|rule| rule.matches(facts, false)) {
            Some(rule) => Decision { allowed: true, rule: &rule.name },
            None => Decision { allowed: false, rule: "" },
        }
    }

    /// Counts and logs what changes nothing.
    fn note(&self, what: &str, rule: &str, facts: &Facts) {
        self.decisions.with([what, rule]).add(1);
        meshgate_sdk::info!("{what} by rule {rule:?}: {}", facts.summary());
    }
}
