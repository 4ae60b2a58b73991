//! A filter that uses every part of the SDK, for tests in Meshgate and for comparison with other hosts.
//!
//! | key | what it does |
//! |---|---|
//! | `check` | a cluster: each request waits for `GET /check` to it, with the request's field `x-token` passed on. 200 lets the request go on, and the call's body becomes the request field `x-user`; any other status is answered with 401, no response with 503 |
//! | `timeout` | how long that call may take; `1s` if left out |
//! | `tick` | how often the gauge `tour_ticks` grows |
//!
//! It always does this:
//! * request field `x-deny: 1`: answers 403 with the body `denied`, the field `x-by: tour`, and the details `tour_denied`;
//! * request field `x-fail: 1`: fails, which the client sees as 500;
//! * request body: collected as a whole, then turned into upper case, with `<` and `>` around it;
//! * request trailers: adds `x-tour: trailers`;
//! * response: sets `x-method`, `x-path`, `x-query-q` (the parameter `q`), `x-source` (whether the client's address is known), and
//!   `x-seen` (how many callbacks this exchange had); adds the trailer `x-tour` if there are trailers;
//! * counts exchanges in `tour_exchanges_total{code}` and their durations in `tour_duration_seconds`.

use std::cell::Cell;

use meshgate_sdk::config::Duration;
use meshgate_sdk::metric::{Counter, Family, Gauge, Histogram};
use meshgate_sdk::{Body, Cluster, ConfigError, Exchange, Filter, Outcome, Reply, Stop, filter, tick_every};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The cluster that is asked about each request.
    check: Option<Cluster>,
    /// How long that may take.
    timeout: Option<Duration>,
    /// How often the gauge grows.
    tick: Option<Duration>,
}

struct Tour {
    check: Option<Cluster>,
    timeout: std::time::Duration,
    ticks: Gauge,
    counted: Cell<u64>,
    exchanges: Family<Counter, 1>,
    durations: Histogram,
}

#[derive(Default)]
struct State {
    callbacks: Cell<u32>,
}

impl State {
    fn count(&self) {
        self.callbacks.set(self.callbacks.get() + 1);
    }
}

#[filter]
impl Filter for Tour {
    type State = State;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        if let Some(period) = config.tick {
            tick_every(period)?;
        }
        Ok(Self {
            check: config.check,
            timeout: config.timeout.map_or(std::time::Duration::from_secs(1), Duration::as_std),
            ticks: Gauge::build("tour_ticks").help("Ticks so far.").define()?,
            counted: Cell::new(0),
            exchanges: Counter::build("tour_exchanges_total").family(["code"]),
            durations: Histogram::build("tour_duration_seconds").scale(1e-6).define()?,
        })
    }

    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.state.count();
        let headers = exchange.request().headers();
        if headers.get("x-deny").as_deref() == Some("1") {
            return Reply::new(403).body("denied").header("x-by", "tour").details("tour_denied").into();
        }
        if headers.get("x-fail").as_deref() == Some("1") {
            return Err(Stop::failed("asked to"));
        }
        // The body changes its length.
        headers.remove("content-length")?;
        let Some(check) = &self.check else { return Ok(()) };
        let token = headers.get("x-token").unwrap_or_default();
        let call = check.get("/check").header("x-token", token).timeout(self.timeout);
        let response = call.send().await.map_err(|_| Reply::new(503).body("no check"))?;
        if response.status() != 200 {
            return Reply::new(401).body(format!("check said {}", response.status())).into();
        }
        headers.set("x-user", response.text().trim().replace('\n', " "))?;
        Ok(())
    }

    async fn on_request_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
        exchange.state.count();
        let text = body.whole(1 << 20).await?;
        body.replace(text.to_ascii_uppercase())?;
        body.prepend("<")?;
        body.append(">")?;
        Ok(())
    }

    fn on_request_trailers(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.state.count();
        exchange.request().trailers().add("x-tour", "trailers")?;
        Ok(())
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.state.count();
        let (request, headers) = (exchange.request(), exchange.response().headers());
        let target = request.target();
        headers.set("x-method", request.method())?;
        headers.set("x-path", target.path())?;
        headers.set("x-query-q", target.parameter("q").unwrap_or_default().as_bytes())?;
        headers.set("x-source", if exchange.source_address().is_some() { "known" } else { "unknown" })?;
        headers.set("x-seen", exchange.state.callbacks.get().to_string())?;
        Ok(())
    }

    fn on_response_trailers(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.response().trailers().set("x-tour", "trailers")?;
        Ok(())
    }

    fn on_log(&self, exchange: &Exchange<Self>) {
        let code = exchange.response_code().unwrap_or(0).to_string();
        self.exchanges.with([&code]).add(1);
        if let Some(duration) = exchange.duration() {
            self.durations.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn on_tick(&self) -> Outcome {
        self.counted.set(self.counted.get() + 1);
        self.ticks.set(self.counted.get());
        Ok(())
    }
}
