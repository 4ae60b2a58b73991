//! The standard filter `cors`: lets pages of other origins use a service. See its README.md.
//!
//! `config.rs` is what a user writes, `origin.rs` tells whose page it is, and this file says so to browsers.

mod config;
mod origin;

use std::cell::RefCell;

use meshgate_sdk::metric::{Counter, Family};
use meshgate_sdk::{ConfigError, Exchange, Filter, Headers, Outcome, Refused, Reply, Request, Stop, filter};

use crate::config::Config;
use crate::origin::OriginPattern;

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSE_HEADERS: &str = "access-control-expose-headers";
const REQUEST_HEADERS: &str = "access-control-request-headers";
const REQUEST_NETWORK: &str = "access-control-request-private-network";

struct Cors {
    origins: Vec<OriginPattern>,
    /// Everybody gets the same answer, so that caches need not tell origins apart.
    same_for_all: bool,
    methods: String,
    /// `None`: any.
    headers: Option<String>,
    expose: String,
    max_age: Option<String>,
    credentials: bool,
    private_network: bool,
    reject: bool,
    requests: Family<Counter, 1>,
}

/// What became of an exchange's request. Hosts may have let go of it when the response comes.
#[derive(Default)]
enum Seen {
    /// It did not come from a page, or from one of the service's own.
    #[default]
    NoOrigin,
    /// A preflight that is answered: nothing is to be done to the answer.
    Answered,
    /// From an origin that may use the service.
    Allowed(String),
    /// From another one.
    NotAllowed,
}

impl Cors {
    /// The answer to a preflight.
    fn preflight(&self, request: &Request, origin: &str) -> Stop {
        let mut vary = Vec::new();
        let mut reply = Reply::new(204).header(ALLOW_ORIGIN, self.shown(origin)).details("cors_preflight");
        if !self.same_for_all {
            vary.push("origin");
        }
        if self.credentials {
            reply = reply.header(ALLOW_CREDENTIALS, "true");
        }
        reply = reply.header("access-control-allow-methods", self.methods.as_str());
        match (&self.headers, request.header(REQUEST_HEADERS)) {
            (Some(names), _) if names.is_empty() => {}
            (Some(names), _) => reply = reply.header("access-control-allow-headers", names.as_str()),
            // Named, as * means nothing with credentials.
            (None, asked) => {
                vary.push(REQUEST_HEADERS);
                if let Some(asked) = asked {
                    reply = reply.header("access-control-allow-headers", asked);
                }
            }
        }
        if self.private_network {
            vary.push(REQUEST_NETWORK);
            if request.header(REQUEST_NETWORK).as_deref() == Some("true") {
                reply = reply.header("access-control-allow-private-network", "true");
            }
        }
        if let Some(seconds) = &self.max_age {
            reply = reply.header("access-control-max-age", seconds.as_str());
        }
        if !vary.is_empty() {
            reply = reply.header("vary", vary.join(", "));
        }
        reply.into()
    }

    /// The origin as it is allowed.
    fn shown<'a>(&self, origin: &'a str) -> &'a str {
        if self.same_for_all { "*" } else { origin }
    }

    fn count(&self, result: &str) {
        self.requests.with([result]).add(1);
    }
}

/// Whether a page of this origin asks for something of its own: browsers name the origin of most such requests, too.
fn is_own(request: &Request, origin: &str) -> bool {
    let authority = request.authority();
    origin.split_once("://").is_some_and(|(_, host)| host.eq_ignore_ascii_case(&authority))
}

/// Tells caches that the response depends on the origin, unless it says so already.
fn vary_by_origin(headers: Headers) -> Result<(), Refused> {
    let named = |line: &[u8]| {
        line.split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    };
    if headers.pairs().all("vary").any(named) { Ok(()) } else { headers.add("vary", "origin") }
}

#[filter]
impl Filter for Cors {
    type State = RefCell<Seen>;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        let origins = config.patterns()?;
        config.check_names()?;
        Ok(Self {
            same_for_all: origins.contains(&OriginPattern::Every),
            origins,
            methods: config.methods.join(", "),
            headers: (!config.headers.iter().any(|name| name == "*")).then(|| config.headers.join(", ")),
            expose: config.expose.join(", "),
            max_age: config.max_age.map(|age| age.as_std().as_secs().to_string()),
            credentials: config.credentials,
            private_network: config.private_network,
            reject: config.reject,
            requests: Counter::build("meshgate_cors_requests_total")
                .help("Requests of pages of other origins: preflight, allowed, not_allowed.")
                .family(["result"]),
        })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let request = exchange.request();
        let Some(origin) = request.header("origin") else { return Ok(()) };
        if !self.origins.iter().any(|pattern| pattern.matches(&origin)) {
            if is_own(&request, &origin) {
                return Ok(());
            }
            self.count("not_allowed");
            exchange.state.replace(Seen::NotAllowed);
            if self.reject {
                return Reply::new(403).body("origin not allowed").details("cors_origin_not_allowed").into();
            }
            return Ok(());
        }
        if request.method() == "OPTIONS" && request.headers().contains("access-control-request-method") {
            self.count("preflight");
            exchange.state.replace(Seen::Answered);
            return Err(self.preflight(&request, &origin));
        }
        self.count("allowed");
        exchange.state.replace(Seen::Allowed(origin));
        Ok(())
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        let headers = exchange.response().headers();
        let seen = exchange.state.take();
        if matches!(seen, Seen::Answered) {
            return Ok(());
        }
        if !self.same_for_all {
            vary_by_origin(headers)?;
        }
        if matches!(seen, Seen::NoOrigin) {
            return Ok(());
        }
        // What the service itself says of it does not count beside this filter: two answers would be none.
        for name in [ALLOW_ORIGIN, ALLOW_CREDENTIALS, EXPOSE_HEADERS] {
            headers.remove(name)?;
        }
        let Seen::Allowed(origin) = seen else { return Ok(()) };
        headers.set(ALLOW_ORIGIN, self.shown(&origin))?;
        if self.credentials {
            headers.set(ALLOW_CREDENTIALS, "true")?;
        }
        if !self.expose.is_empty() {
            headers.set(EXPOSE_HEADERS, &self.expose)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
