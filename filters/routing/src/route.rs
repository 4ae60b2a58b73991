//! One route: what becomes of its requests. Everything that does not depend on the request is done at configuration time.

use meshgate_conditions::{Incoming, Source};
use meshgate_sdk::config::is_token;
use meshgate_sdk::route::{Builder, Decision};
use meshgate_sdk::{ConfigError, Exchange, Outcome, Request, Target};

use crate::config::{AnswerConfig, RouteConfig, Targets};
use crate::draw::{Draw, Weights};
use crate::keys::{Keys, NewCookies};
use crate::mirror::Mirror;
use crate::redirect::Redirect;
use crate::rewrite::Rewrite;
use crate::{Alternative, Routing};

/// What becomes of a route's requests.
#[derive(Debug)]
pub(crate) enum Route {
    /// They are sent to a cluster.
    Forward(Forward),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The client is answered.
    Answer(Decision),
}

impl Route {
    /// A route as it is written. `alternatives` are what its `match` stands for.
    pub(crate) fn new(config: &RouteConfig, alternatives: &[Alternative]) -> Result<Self, ConfigError> {
        let route = match (&config.to, &config.redirect, &config.answer) {
            (Some(targets), None, None) => Self::Forward(Forward::new(config, targets)?),
            (None, Some(redirect), None) => {
                sends_nothing(config, "a redirect")?;
                let redirect = Redirect::new(redirect, &config.name, config.filters.as_ref());
                Self::Redirect(redirect.map_err(|error| error.within("redirect"))?)
            }
            (None, None, Some(answer)) => {
                sends_nothing(config, "an answer")?;
                Self::Answer(self::answer(config, answer).map_err(|error| error.within("answer"))?)
            }
            (None, None, None) => {
                return Err(ConfigError::new(
                    "the route leads nowhere: give it `to`, a `redirect` or an `answer`",
                ));
            }
            _ => return Err(ConfigError::new("a route has `to`, `redirect` or `answer`, not both")),
        };
        let (needs_prefix, place) = match &route {
            Self::Forward(forward) => {
                (forward.rewrite.as_ref().is_some_and(Rewrite::needs_prefix), "rewrite")
            }
            Self::Redirect(redirect) => (redirect.needs_prefix(), "redirect"),
            Self::Answer(_) => (false, "answer"),
        };
        if needs_prefix && alternatives.iter().any(|alternative| alternative.prefix(b"/").is_none()) {
            let message = "nothing says what the prefix is: let each `path` in `match` end in /**";
            return Err(ConfigError::new(message).at(format!("{place}/prefix")));
        }
        Ok(route)
    }

    /// Decides for a request that was found by these conditions.
    pub(crate) fn decide<S: Source>(
        &self,
        exchange: &Exchange<Routing>,
        incoming: &Incoming<S>,
        found_by: &Alternative,
        draw: &Draw,
    ) -> Outcome {
        let request = exchange.request();
        let prefix = |target: &Target| found_by.prefix(target.path().as_bytes());
        match self {
            Self::Forward(forward) => {
                match forward.more(&request, draw) {
                    (decision, None) => exchange.route(decision)?,
                    (decision, Some(more)) => exchange.route(&decision.and(&more))?,
                }
                let Some(rewrite) = &forward.rewrite else { return Ok(()) };
                let target = incoming.target();
                rewrite.apply(&request, target, prefix(target))
            }
            Self::Redirect(redirect) => {
                let target = incoming.target();
                Ok(exchange.route(&redirect.decide(&request, target, prefix(target)))?)
            }
            Self::Answer(decision) => Ok(exchange.route(decision)?),
        }
    }
}

/// A route to clusters.
#[derive(Debug)]
pub(crate) struct Forward {
    /// One decision for each cluster, ready to be sent.
    decisions: Weights<Decision>,
    sticky: Keys,
    hash: Keys,
    rewrite: Option<Rewrite>,
    mirrors: Vec<Mirror>,
}

impl Forward {
    fn new(config: &RouteConfig, targets: &Targets) -> Result<Self, ConfigError> {
        let rewrite = config.rewrite.as_ref().map(Rewrite::new).transpose();
        let rewrite = rewrite.map_err(|error| error.within("rewrite"))?;
        let mirrors = config.mirrors.iter().enumerate().map(|(index, mirror)| {
            Mirror::new(mirror).map_err(|error| error.within(&format!("mirrors/{index}")))
        });
        let mirrors = mirrors.collect::<Result<_, _>>()?;
        let endpoint_authority = rewrite.as_ref().is_some_and(|rewrite| rewrite.endpoint_authority);
        let decisions = targets.weighted().into_iter().map(|(cluster, weight)| {
            let mut decision = Decision::to(cluster).name(&config.name);
            decision = match config.timeout {
                None => decision,
                Some(timeout) if timeout.as_std().is_zero() => decision.no_timeout(),
                Some(timeout) => decision.timeout(timeout),
            };
            if let Some(chain) = &config.filters {
                decision = decision.chain(chain);
            }
            if endpoint_authority {
                decision = decision.endpoint_authority();
            }
            (decision.build(), weight)
        });
        let decisions = Weights::new(decisions).ok_or_else(|| {
            ConfigError::new("no cluster has a weight above 0: nothing could be sent").at("to")
        })?;
        Ok(Self {
            decisions,
            sticky: Keys::new(config.sticky.as_ref()).map_err(|error| error.within("sticky"))?,
            hash: Keys::new(config.hash.as_ref()).map_err(|error| error.within("hash"))?,
            rewrite,
            mirrors,
        })
    }

    /// The decision for a request, and what is to be added to it.
    fn more(&self, request: &Request, draw: &Draw) -> (&Decision, Option<Builder>) {
        if self.sticky.is_empty() && self.hash.is_empty() && self.mirrors.is_empty() {
            return (self.decisions.pick(draw), None);
        }
        let mut cookies = NewCookies::default();
        let decision = match self.sticky.find(request, draw, &mut cookies) {
            Some(key) => self.decisions.pick_by(&key),
            None => self.decisions.pick(draw),
        };
        let mut more = None;
        if let Some(key) = self.hash.find(request, draw, &mut cookies) {
            more = Some(Decision::part().hash_key(key));
        }
        for cookie in cookies.fields {
            let part = more.unwrap_or_else(Decision::part);
            more = Some(part.response_header("set-cookie", cookie));
        }
        for mirror in self.mirrors.iter().filter(|mirror| mirror.takes(draw)) {
            more = Some(match more {
                None => mirror.part.clone(),
                Some(part) => part.and(&mirror.part),
            });
        }
        (decision, more)
    }
}

/// Refuses what means something only where requests are sent somewhere.
fn sends_nothing(config: &RouteConfig, what: &str) -> Result<(), ConfigError> {
    let keys = [
        ("timeout", config.timeout.is_some(), "that could take its time"),
        ("sticky", config.sticky.is_some(), "that could stay anywhere"),
        ("hash", config.hash.is_some(), "for a load balancer"),
        ("rewrite", config.rewrite.is_some(), "that could be changed"),
        ("mirrors", !config.mirrors.is_empty(), "that could be copied"),
    ];
    match keys.into_iter().find(|(_, given, _)| *given) {
        Some((key, _, why)) => Err(ConfigError::new(format_args!("{what} sends nothing {why}")).at(key)),
        None => Ok(()),
    }
}

fn answer(config: &RouteConfig, answer: &AnswerConfig) -> Result<Decision, ConfigError> {
    let status = answer.status.unwrap_or(200);
    if !(200..600).contains(&status) {
        return Err(ConfigError::new(format_args!("{status} is not among 200 to 599")).at("status"));
    }
    let mut decision = Decision::answer(status, answer.body.as_str()).name(&config.name);
    for (name, value) in &answer.headers {
        let sound = value.bytes().all(|byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f));
        if !is_token(name) || !sound {
            let message = format!("{name:?}: {value:?} is not a field");
            return Err(ConfigError::new(message).at(format!("headers/{name}")));
        }
        decision = decision.header(name.to_ascii_lowercase(), value.as_bytes());
    }
    if let Some(chain) = &config.filters {
        decision = decision.chain(chain);
    }
    Ok(decision.build())
}
