//! The standard filter `admission`: keeps requests at a time to what a service can take. See its README.md.
//!
//! `config.rs` is what a user writes, `window.rs` what a worker measures, `controller.rs` how the limit follows from it, and this
//! file admits requests and turns others away.

mod config;
mod controller;
mod window;

use std::cell::{Cell, RefCell};
use std::time::UNIX_EPOCH;

use meshgate_conditions::{Incoming, Matcher};
use meshgate_sdk::metric::{Counter, Family, Gauge};
use meshgate_sdk::{
    ConfigError, Exchange, Filter, Flag, Outcome, Refused, Reply, Request, SharedCounter, SharedMap, Stop,
    filter,
};

use crate::config::{Config, micros};
use crate::controller::{Measured, Settings, State};
use crate::window::Window;

/// Come again later, elsewhere if possible: gRPC's UNAVAILABLE.
const UNAVAILABLE: u8 = 14;
/// The name of requests that no priority is for.
const OTHERS: &str = "others";

struct Admission {
    name: String,
    matcher: Matcher,
    priorities: Vec<Priority>,
    settings: Settings,
    /// In microseconds.
    interval: u64,
    samples: u32,
    retry_after: String,
    /// The requests under way, of all workers.
    active: SharedCounter,
    states: SharedMap<State>,
    /// The limit, and when it was looked up.
    limit: Cell<(f64, u64)>,
    window: RefCell<Window>,
    requests: Family<Counter, 3>,
    gauges: Gauges,
}

struct Priority {
    name: String,
    matcher: Matcher,
    share: f64,
}

struct Gauges {
    limit: Gauge,
    latency: Gauge,
    base: Gauge,
}

impl Admission {
    /// The request's priority and the share of the limit that it has.
    fn priority(&self, incoming: &Incoming<&Request>) -> (&str, f64) {
        let first = self.priorities.iter().find(|priority| priority.matcher.matches_incoming(incoming));
        first.map_or((OTHERS, 1.0), |priority| (priority.name.as_str(), priority.share))
    }

    /// The limit: what another worker made of it is known after a while.
    fn limit(&self, now: u64) -> Result<f64, Refused> {
        let (limit, at) = self.limit.get();
        if at != 0 && now >= at && now - at < self.interval {
            return Ok(limit);
        }
        let state = self.states.get(&self.name)?.unwrap_or_else(|| State::new(&self.settings));
        let limit = state.limit().clamp(self.settings.min, self.settings.max);
        self.limit.set((limit, now));
        self.gauges.limit.set(limit as u64);
        Ok(limit)
    }

    fn reject(&self, exchange: &Exchange<Self>, priority: &str) -> Result<Stop, Refused> {
        self.count(priority, "rejected");
        exchange.set_flag(Flag::DropOverload)?;
        let reply = Reply::new(503).header("retry-after", self.retry_after.as_str());
        // Those before who would try again at once know this field.
        let reply = reply.header("x-envoy-overloaded", "true").body("too many requests at a time");
        Ok(reply.details("admission_limited").grpc_status(UNAVAILABLE).into())
    }

    /// All workers learn from what this one has measured.
    fn learn(&self, measured: &Measured, now: u64) -> Result<(), Refused> {
        let change = |known: Option<State>| {
            known.unwrap_or_else(|| State::new(&self.settings)).after(measured, &self.settings, now)
        };
        let state = self.states.update(&self.name, change)?;
        self.limit.set((state.limit().clamp(self.settings.min, self.settings.max), now));
        self.gauges.limit.set(state.limit() as u64);
        self.gauges.latency.set(measured.latency.unwrap_or_default() as u64);
        self.gauges.base.set(state.base().unwrap_or_default() as u64);
        Ok(())
    }

    fn count(&self, priority: &str, result: &str) {
        self.requests.with([&self.name, priority, result]).add(1);
    }
}

#[filter]
impl Filter for Admission {
    /// When the request was admitted, if it was counted.
    type State = Cell<Option<u64>>;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        let settings = config.settings()?;
        let mut priorities: Vec<Priority> = Vec::new();
        for (index, priority) in config.priorities.iter().enumerate() {
            let refuse =
                |message: &str| Err(ConfigError::new(message).at(format!("priorities/{index}/name")));
            if priority.name.is_empty() || priority.name == OTHERS {
                return refuse("a name that is not empty and not `others`, which is that of all others");
            }
            if priorities.iter().any(|other| other.name == priority.name) {
                return refuse("another priority has this name already");
            }
            if !(1..=100).contains(&priority.share) {
                let error = ConfigError::new("a share is from 1 to 100 percent");
                return Err(error.at(format!("priorities/{index}/share")));
            }
            let matcher = Matcher::new(&priority.r#match);
            priorities.push(Priority {
                name: priority.name.clone(),
                matcher: matcher.map_err(|error| error.within(&format!("priorities/{index}")))?,
                share: f64::from(priority.share) / 100.0,
            });
        }
        let gauge =
            |name: &str, help: &str| Gauge::build(name).help(help).label("admission", &config.name).define();
        Ok(Self {
            matcher: Matcher::new(&config.r#match)?,
            priorities,
            settings,
            interval: micros(config.interval),
            samples: config.samples,
            // Rounded up: not before.
            retry_after: config.retry_after.as_std().as_secs_f64().ceil().to_string(),
            active: SharedCounter::new(format!("admission/{}/active", config.name)),
            states: SharedMap::new("admission/state"),
            limit: Cell::new((settings.initial, 0)),
            window: RefCell::default(),
            requests: Counter::build("meshgate_admission_requests_total")
                .help("Requests by priority: admitted, rejected, uncounted (and let through).")
                .family(["admission", "priority", "result"]),
            gauges: Gauges {
                limit: gauge("meshgate_admission_limit", "How many requests there may be at a time.")?,
                latency: gauge(
                    "meshgate_admission_latency_microseconds",
                    "What requests took when it was measured last.",
                )?,
                base: gauge(
                    "meshgate_admission_base_latency_microseconds",
                    "What requests take when they do not wait.",
                )?,
            },
            name: config.name,
        })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let request = exchange.request();
        let incoming = Incoming::new(&request);
        if !self.matcher.matches_incoming(&incoming) {
            return Ok(());
        }
        let now = now();
        let (priority, share) = self.priority(&incoming);
        let limit = self.limit(now)?;
        let most = (limit * share).floor().max(1.0);
        match exchange.hold(&self.active, most as i64) {
            Ok(Some(active)) => {
                self.window.borrow_mut().saw(active as f64, now);
                exchange.state.set(Some(now));
                self.count(priority, "admitted");
                Ok(())
            }
            Ok(None) => {
                // All that there is is in use, as far as this one is concerned.
                self.window.borrow_mut().saw(limit, now);
                Err(self.reject(exchange, priority)?)
            }
            Err(refused) => {
                meshgate_sdk::debug!("{refused}");
                self.count(priority, "uncounted");
                Ok(())
            }
        }
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        let Some(started) = exchange.state.take() else { return Ok(()) };
        let now = now();
        let status = exchange.response().status().unwrap_or_default();
        let mut window = self.window.borrow_mut();
        // What fails is often quick about it: that is not how long a request takes.
        window.add(started, now, status < 500, matches!(status, 503 | 504));
        if let Some(measured) = window.close(self.interval, self.samples, now) {
            drop(window);
            self.learn(&measured, now)?;
        }
        Ok(())
    }
}

/// In microseconds.
fn now() -> u64 {
    let since = meshgate_sdk::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
