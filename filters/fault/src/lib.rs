//! The standard filter `fault`: delays and fails requests on purpose. See its README.md.
//!
//! `config.rs` is what a user writes, `asked.rs` what a request may ask for by its headers, and this file does it.

mod asked;
mod config;

use std::time::Duration;

use meshgate_conditions::Matcher;
use meshgate_sdk::config::Percent;
use meshgate_sdk::metric::{Counter, Family};
use meshgate_sdk::{
    ConfigError, Dice, Exchange, Filter, Flag, Outcome, Refused, Reply, SharedCounter, Stop, filter, sleep,
};

use crate::asked::Asked;
use crate::config::{Abort, ByHeader, Config};

struct Fault {
    matcher: Matcher,
    delay: Option<(Percent, Duration)>,
    abort: Option<(Percent, Abort)>,
    rate: Option<(Percent, u64)>,
    by_header: Option<ByHeader>,
    active: Option<Bound>,
    dice: Dice,
    injected: Family<Counter, 1>,
}

/// The most requests that may have a fault at a time, and how many have.
struct Bound {
    most: i64,
    active: SharedCounter,
}

/// What one request gets.
struct Plan {
    delay: Option<Duration>,
    abort: Option<Abort>,
    rate: Option<u64>,
}

impl Plan {
    fn is_nothing(&self) -> bool {
        self.delay.is_none() && self.abort.is_none() && self.rate.is_none()
    }
}

impl Fault {
    /// Draws what a request gets. Each draw is one of its own.
    fn draw(&self, asked: &Asked) -> Plan {
        let delay = asked.delay.or(self.delay).filter(|(percent, _)| percent.hits(&self.dice));
        let abort = asked.abort.or(self.abort).filter(|(percent, _)| percent.hits(&self.dice));
        let rate = asked.rate.or(self.rate).filter(|(percent, _)| percent.hits(&self.dice));
        Plan {
            delay: delay.map(|(_, delay)| delay),
            abort: abort.map(|(_, abort)| abort),
            rate: rate.map(|(_, rate)| rate),
        }
    }

    /// Takes a place among the requests that have a fault; false if there is none left.
    fn admit(&self, exchange: &Exchange<Self>) -> Result<bool, Refused> {
        let Some(Bound { most, active }) = &self.active else { return Ok(true) };
        let admitted = exchange.hold(active, *most)?.is_some();
        if !admitted {
            self.injected.with(["none_left"]).add(1);
        }
        Ok(admitted)
    }

    fn abort(&self, exchange: &Exchange<Self>, abort: Abort) -> Result<Stop, Refused> {
        exchange.set_flag(Flag::FaultInjected)?;
        self.injected.with(["abort"]).add(1);
        let reply = match abort {
            Abort::Http(status) => Reply::new(status),
            Abort::Grpc(status) => Reply::new(status.http()).grpc_status(status as u8),
            Abort::Reset => return Ok(Stop::Reset),
        };
        Ok(reply.body("fault filter abort").details("fault_filter_abort").into())
    }
}

#[filter]
impl Filter for Fault {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        if config.rate.as_ref().is_some_and(|rate| rate.bytes_per_second == 0) {
            return Err(ConfigError::new("a body that never comes is a delay: say how long")
                .at("rate/bytes_per_second"));
        }
        let abort = config.abort.as_ref().map(|abort| {
            let answer = abort.answer().map_err(|error| error.within("abort"))?;
            Ok::<_, ConfigError>((abort.percent, answer))
        });
        let active = config
            .max_active
            .map(|most| Bound { most: most.into(), active: SharedCounter::new("fault/active") });
        Ok(Self {
            matcher: Matcher::new(&config.r#match)?,
            delay: config.delay.map(|delay| (delay.percent, delay.duration.as_std())),
            abort: abort.transpose()?,
            rate: config.rate.map(|rate| (rate.percent, rate.bytes_per_second)),
            by_header: config.by_header,
            active,
            dice: Dice::new("fault"),
            injected: Counter::build("meshgate_faults_total")
                .help("Faults by what was done: delay, abort, rate; none_left: there were as many as there may be.")
                .family(["fault"]),
        })
    }

    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        if !self.matcher.matches(&exchange.request()) {
            return Ok(());
        }
        let asked = match &self.by_header {
            Some(allowed) => Asked::take(exchange.request().headers(), allowed)?,
            None => Asked::default(),
        };
        let plan = self.draw(&asked);
        if plan.is_nothing() || !self.admit(exchange)? {
            return Ok(());
        }
        if let Some(delay) = plan.delay {
            exchange.set_flag(Flag::DelayInjected)?;
            exchange.log_field("fault.delay", format!("{}ms", delay.as_millis()))?;
            self.injected.with(["delay"]).add(1);
            sleep(delay).await?;
        }
        if let Some(abort) = plan.abort {
            return Err(self.abort(exchange, abort)?);
        }
        if let Some(rate) = plan.rate {
            exchange.set_flag(Flag::DelayInjected)?;
            exchange.log_field("fault.rate", rate.to_string())?;
            self.injected.with(["rate"]).add(1);
            exchange.throttle_response(rate)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use meshgate_sdk::testing::{Proxy, Request};

    use super::*;

    fn count(proxy: &Proxy, fault: &str) -> i64 {
        proxy.metric("meshgate_faults_total", &[("fault", fault)])
    }

    #[test]
    fn never_is_never_and_always_is_always() {
        let mut proxy = Proxy::new::<Fault>(
            r#"{"delay": {"percent": 0, "duration": "1s"}, "abort": {"percent": 0, "status": 503}}"#,
        );
        for _ in 0..1_000 {
            let done = proxy.send(Request::get("/"));
            assert_eq!((done.status(), done.took()), (200, Duration::ZERO));
            assert!(done.flags().is_empty());
        }
        let mut proxy = Proxy::new::<Fault>(
            r#"{"delay": {"percent": 100, "duration": "250ms"}, "abort": {"percent": 100, "status": 503}}"#,
        );
        for _ in 0..100 {
            let done = proxy.send(Request::get("/"));
            assert_eq!((done.status(), done.took()), (503, Duration::from_millis(250)));
            assert_eq!((done.text().as_str(), done.flags()), ("fault filter abort", vec!["DI", "FI"]));
            assert!(done.upstream().is_none());
        }
        assert_eq!((count(&proxy, "delay"), count(&proxy, "abort")), (100, 100));
    }

    #[test]
    fn delay_and_abort_are_drawn_apart() {
        const DRAWS: i64 = 20_000;
        let mut proxy = Proxy::new::<Fault>(
            r#"{"delay": {"percent": 50, "duration": "1ms"}, "abort": {"percent": 50, "grpc": "UNAVAILABLE"}}"#,
        );
        let mut both = 0;
        for _ in 0..DRAWS {
            let done = proxy.send(Request::get("/"));
            both += i64::from(done.flags() == ["DI", "FI"]);
        }
        // Seven standard deviations and more of each.
        let close = |hits: i64, share: f64| (hits as f64 - DRAWS as f64 * share).abs() < 500.0;
        assert!(close(count(&proxy, "delay"), 0.5), "{}", count(&proxy, "delay"));
        assert!(close(count(&proxy, "abort"), 0.5), "{}", count(&proxy, "abort"));
        assert!(close(both, 0.25), "{both} of {DRAWS} had both");
    }

    #[test]
    fn requests_ask_by_headers_where_they_may() {
        let asking = || {
            let request = Request::get("/").header("x-fault-delay", "9s");
            request.header("x-fault-abort", "NOT_FOUND").header("x-fault-delay-percent", "100")
        };
        let mut proxy = Proxy::new::<Fault>("{}");
        let done = proxy.send(asking());
        assert_eq!((done.status(), done.took()), (200, Duration::ZERO));
        assert!(done.upstream().unwrap().field("x-fault-delay").is_some());

        let mut proxy = Proxy::new::<Fault>(r#"{"by_header": {"max_delay": "2s"}}"#);
        let done = proxy.send(asking());
        assert_eq!((done.status(), done.took()), (404, Duration::from_secs(2)));
        let done = proxy.send(asking().header(":path", "/x").header("x-fault-abort-percent", "0"));
        assert_eq!(done.status(), 200);
        let seen = done.upstream().unwrap().head().iter();
        assert_eq!(seen.filter(|(name, _)| name.starts_with("x-fault")).count(), 0);
        for (name, value) in [
            ("delay", "soon"),
            ("abort", "700"),
            ("abort", "199"),
            ("abort", "not_found"),
            ("delay-percent", "1s"),
        ] {
            let done = proxy.send(Request::get("/").header(&format!("x-fault-{name}"), value));
            assert_eq!((done.status(), done.took()), (200, Duration::ZERO), "{name}: {value}");
        }
    }

    #[test]
    fn what_is_asked_for_takes_the_place_of_what_is_configured() {
        let mut proxy = Proxy::new::<Fault>(r#"{"by_header": {}, "abort": {"percent": 100, "status": 500}}"#);
        assert_eq!(proxy.send(Request::get("/")).status(), 500);
        let asked = Request::get("/").header("x-fault-abort", "418");
        assert_eq!(proxy.send(asked.clone()).status(), 418);
        assert_eq!(proxy.send(asked.header("x-fault-abort-percent", "0")).status(), 200);
    }

    #[test]
    fn responses_are_slowed_down() {
        let mut proxy =
            Proxy::new::<Fault>(r#"{"by_header": {}, "rate": {"percent": 100, "bytes_per_second": 1000}}"#);
        let done = proxy.send(Request::get("/"));
        assert_eq!((done.status(), done.throttle(), done.flags()), (200, 1000, vec!["DI"]));
        let asked = Request::get("/").header("x-fault-rate", "7");
        assert_eq!(proxy.send(asked.clone()).throttle(), 7);
        assert_eq!(proxy.send(asked.header("x-fault-rate-percent", "0")).throttle(), 0);
        assert_eq!(count(&proxy, "rate"), 2);
    }

    #[test]
    fn exchanges_are_broken_off() {
        let mut proxy = Proxy::new::<Fault>(
            r#"{"by_header": {}, "delay": {"percent": 100, "duration": "1s"}, "abort": {"percent": 100, "reset": true}}"#,
        );
        let done = proxy.send(Request::get("/"));
        assert!(done.was_reset() && done.upstream().is_none());
        assert_eq!((done.flags(), done.took()), (vec!["DI", "FI"], Duration::from_secs(1)));
        let asked = |what| Request::get("/").header("x-fault-abort", what);
        assert_eq!(proxy.send(asked("503")).status(), 503);
        assert!(proxy.send(asked("reset")).was_reset());
        assert!(!proxy.send(asked("reset").header("x-fault-abort-percent", "0")).was_reset());
    }

    #[test]
    fn only_those_that_are_meant_get_a_fault() {
        let mut proxy = Proxy::new::<Fault>(
            r#"{"match": {"path": "/a/**", "identity": {"prefix": "spiffe://mesh/"}}, "by_header": {},
                "abort": {"percent": 100, "status": 503}}"#,
        );
        let get = |path: &str| Request::get(path).peer_identity("spiffe://mesh/ann");
        assert_eq!(proxy.send(get("/a/b?c")).status(), 503);
        let asking = get("/b").header("x-fault-abort", "418");
        let done = proxy.send(asking);
        assert_eq!(done.status(), 200);
        assert!(done.upstream().unwrap().field("x-fault-abort").is_some(), "it is none of ours");
        assert_eq!(proxy.send(Request::get("/a/b")).status(), 200);
        assert_eq!(count(&proxy, "abort"), 1);
    }

    #[test]
    fn places_are_given_back() {
        let mut proxy = Proxy::new::<Fault>(r#"{"max_active": 1, "abort": {"percent": 100, "status": 503}}"#);
        for _ in 0..3 {
            assert_eq!(proxy.send(Request::get("/")).status(), 503);
        }
        proxy.abandon(Request::get("/"));
        assert_eq!(proxy.send(Request::get("/")).status(), 503);
        let mut proxy = Proxy::new::<Fault>(r#"{"max_active": 0, "abort": {"percent": 100, "status": 503}}"#);
        assert_eq!(proxy.send(Request::get("/")).status(), 200);
        assert_eq!(count(&proxy, "none_left"), 1);
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        for (config, said) in [
            (r#"{"abort": {"percent": 1}}"#, "abort: say what to answer with: `status`, `grpc` or `reset`"),
            (r#"{"abort": {"percent": 1, "status": 500, "grpc": "ABORTED"}}"#, "abort: an abort has one of"),
            (r#"{"abort": {"percent": 1, "status": 500, "reset": true}}"#, "abort: an abort has one of"),
            (r#"{"match": {"method": "G T"}}"#, "match/method: "),
            (
                r#"{"match": {"headers": {"a": {"regex": "b"}}}}"#,
                "match/headers/a/regex: this filter knows no",
            ),
            (r#"{"abort": {"percent": 1, "status": 600}}"#, "abort/status: a status is from 200 to 599"),
            (
                r#"{"rate": {"percent": 1, "bytes_per_second": 0}}"#,
                "rate/bytes_per_second: a body that never comes",
            ),
            (r#"{"delay": {"percent": 101, "duration": "1s"}}"#, "delay/percent: invalid value"),
            (r#"{"delay": {"percent": 0.00001, "duration": "1s"}}"#, "delay/percent: invalid value"),
            (r#"{"abort": {"percent": 1, "grpc": "OK"}}"#, "abort/grpc: unknown variant `OK`"),
        ] {
            let refusal = Proxy::refusal::<Fault>(config);
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
