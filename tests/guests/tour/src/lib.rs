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

use meshgate_sdk::config::{ClusterName, Duration};
use meshgate_sdk::metric::{Counter, Gauge, Histogram};
use meshgate_sdk::{
    Body, Call, ConfigError, Exchange, Filter, Flow, Outcome, Reply, Stop, filter, tick_every,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The cluster that is asked about each request.
    check: Option<ClusterName>,
    /// How long that may take.
    timeout: Option<Duration>,
    /// How often the gauge grows.
    tick: Option<Duration>,
}

struct Tour {
    check: Option<ClusterName>,
    timeout: std::time::Duration,
    ticks: Gauge,
    counted: Cell<u64>,
    durations: Histogram,
}

#[derive(Default)]
struct State {
    callbacks: u32,
    token: Vec<u8>,
}

#[filter]
impl Filter for Tour {
    type Config = Config;
    type State = State;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        if let Some(period) = config.tick {
            tick_every(period.as_std())?;
        }
        Ok(Self {
            check: config.check,
            timeout: config.timeout.map_or(std::time::Duration::from_secs(1), Duration::as_std),
            ticks: Gauge::build("tour_ticks").help("Ticks so far.").define()?,
            counted: Cell::new(0),
            durations: Histogram::build("tour_duration_seconds").scale(1e-6).define()?,
        })
    }

    fn on_request_headers(&self, exchange: &mut Exchange<Self>, _: bool) -> Outcome {
        exchange.state.callbacks += 1;
        let headers = exchange.request().headers();
        if headers.first("x-deny").is_some_and(|value| value == "1") {
            return Err(Reply::new(403).body("denied").header("x-by", "tour").details("tour_denied").into());
        }
        if headers.first("x-fail").is_some_and(|value| value == "1") {
            return Err(Stop::failed("asked to"));
        }
        // The body changes its length.
        headers.remove("content-length")?;
        let Some(cluster) = &self.check else { return Ok(Flow::Continue) };
        exchange.state.token = headers.first("x-token").unwrap_or_default().into_bytes();
        let token = String::from_utf8_lossy(&exchange.state.token).into_owned();
        let call = Call::get(cluster, "/check").header("x-token", token).timeout(self.timeout);
        exchange.call(&call, |_, exchange, response| {
            let Ok(response) = response else { return Err(Reply::new(503).body("no check").into()) };
            if response.status() != 200 {
                return Err(Reply::new(401).body(format!("check said {}", response.status())).into());
            }
            let user = String::from_utf8_lossy(&response.body()?).trim().replace('\n', " ");
            exchange.request().headers().set("x-user", user)?;
            Ok(Flow::Continue)
        })?;
        Ok(Flow::Pause)
    }

    fn on_request_body(&self, exchange: &mut Exchange<Self>, body: &mut Body) -> Outcome {
        exchange.state.callbacks += 1;
        if !body.is_last() {
            return Ok(Flow::Pause);
        }
        embellish(body)
    }

    fn on_request_trailers(&self, exchange: &mut Exchange<Self>) -> Outcome {
        exchange.state.callbacks += 1;
        exchange.request().trailers().add("x-tour", "trailers")?;
        Ok(Flow::Continue)
    }

    fn on_response_headers(&self, exchange: &mut Exchange<Self>, _: bool) -> Outcome {
        exchange.state.callbacks += 1;
        let (request, headers) = (exchange.request(), exchange.response().headers());
        let target = request.target();
        headers.set("x-method", request.method())?;
        headers.set("x-path", target.path())?;
        headers.set("x-query-q", target.parameter("q").unwrap_or_default())?;
        headers.set("x-source", if exchange.source_address().is_some() { "known" } else { "unknown" })?;
        headers.set("x-seen", exchange.state.callbacks.to_string())?;
        Ok(Flow::Continue)
    }

    fn on_response_trailers(&self, exchange: &mut Exchange<Self>) -> Outcome {
        exchange.response().trailers().set("x-tour", "trailers")?;
        Ok(Flow::Continue)
    }

    fn on_log(&self, exchange: &mut Exchange<Self>) {
        let code = exchange.response_code().unwrap_or(0).to_string();
        match Counter::build("tour_exchanges_total").label("code", code).define() {
            Ok(counter) => counter.add(1),
            Err(refused) => meshgate_sdk::warn!("{refused}"),
        }
        if let Some(duration) = exchange.duration() {
            self.durations.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn on_tick(&self) {
        self.counted.set(self.counted.get() + 1);
        self.ticks.set(self.counted.get());
    }
}

fn embellish(body: &mut Body) -> Outcome {
    let text = body.bytes()?.to_ascii_uppercase();
    body.replace(text)?;
    body.prepend("<")?;
    body.append(">")?;
    Ok(Flow::Continue)
}
