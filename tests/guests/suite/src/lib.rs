//! A filter on the SDK that does what an exchange asks for: the SDK's own tests run it natively and compiled, and both must
//! agree.
//!
//! The request's field `x-do` says what happens to the heads, the path what happens to the bodies, and `x-patience` how many
//! milliseconds its calls may take: 70, if it says nothing.

mod bodies;
mod facts;
mod heads;
mod others;
mod streams;

use std::cell::{Cell, OnceCell, RefCell};

use meshgate_sdk::attempts::{Attempt, Retry, Verdict};
use meshgate_sdk::config::{FilePath, FileText, SubChain};
use meshgate_sdk::metric::{Counter, Family, Gauge, Histogram};
use meshgate_sdk::prelude::*;
use meshgate_sdk::{
    GrpcStream, Request, SharedCounter, SharedCounters, SharedQueue, leave_out, leave_out_but_for_grpc,
    tick_every,
};

use self::others::{Asked, Bell};

/// What the filter is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How often it asks the cluster `keys`.
    tick: Option<meshgate_sdk::config::Duration>,
    /// It reads a stream of the cluster `talk` instead.
    #[serde(default)]
    follow: bool,
    /// It has callbacks left out.
    #[serde(default)]
    quiet: bool,
    /// What it tells of when it is asked: a list of filters.
    chain: Option<SubChain>,
    /// A file's path.
    file: Option<FilePath>,
    /// What is in a file.
    text: Option<FileText>,
}

impl Config {
    fn texts(&self) -> String {
        let Self { chain, file, text, .. } = self;
        let (chain, file) = (chain.as_ref().map(SubChain::as_str), file.as_ref().map(FilePath::as_str));
        format!("{chain:?} {file:?} {:?}", text.as_ref().map(FileText::as_str))
    }
}

/// The filter.
#[derive(Debug)]
pub struct Suite {
    fetched: Cell<u32>,
    follow: bool,
    lent: RefCell<Option<GrpcStream>>,
    notes: SharedMap<String>,
    visits: SharedCounter,
    bell: Bell,
    asked: Asked,
    events: SharedQueue,
    counters: SharedCounters,
    done: Family<Counter, 2>,
    sizes: Histogram,
    level: Gauge,
    waits: Histogram,
    texts: String,
}

/// What it keeps for an exchange.
#[derive(Debug, Default)]
pub struct State {
    callbacks: Cell<u32>,
    span: RefCell<Option<meshgate_sdk::trace::Span>>,
    wish: OnceCell<Wish>,
}

impl State {
    fn wish(&self) -> &Wish {
        self.wish.get_or_init(Wish::default)
    }
}

/// What a request's head asks for. It is kept, since hosts other than Meshgate let go of the head when it has gone on.
#[derive(Debug, Default)]
struct Wish {
    what: String,
    path: String,
    patience: Duration,
}

impl Wish {
    fn of(request: &Request) -> Self {
        let patience = request.header("x-patience").and_then(|digits| digits.parse().ok()).unwrap_or(70);
        Self {
            what: request.header("x-do").unwrap_or_default(),
            path: request.path(),
            patience: Duration::from_millis(patience),
        }
    }
}

#[filter]
impl Filter for Suite {
    type State = State;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        let texts = config.texts();
        if config.quiet {
            leave_out(&["response_headers"])?;
            leave_out_but_for_grpc(&["response_trailers"])?;
        }
        if let Some(period) = config.tick {
            if period == meshgate_sdk::config::Duration::default() {
                return Err(ConfigError::new("no time at all").at("tick"));
            }
            tick_every(period)?;
        }
        Ok(Self {
            fetched: Cell::new(0),
            follow: config.follow,
            lent: RefCell::default(),
            notes: SharedMap::new("notes"),
            visits: SharedCounter::new("visits"),
            bell: Bell::default(),
            asked: Asked::default(),
            events: SharedQueue::open("events")?,
            counters: SharedCounters::new("counters"),
            done: Counter::build("suite_exchanges_total").family(["method", "code"]),
            sizes: Histogram::build("suite_sizes").define()?,
            level: Gauge::build("suite_level").define()?,
            waits: Histogram::build("suite_waits_seconds").scale(0.001).buckets(&[0.005, 0.1]).define()?,
            texts,
        })
    }

    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.state.callbacks.set(exchange.state.callbacks.get() + 1);
        let (request, state) = (exchange.request(), &exchange.state);
        let wish = state.wish.get_or_init(|| Wish::of(&request));
        if request.has_body() && bodies::changes_request(&wish.path) {
            request.headers().remove("content-length")?;
        }
        self.request_head(exchange, wish).await
    }

    async fn on_request_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
        bodies::request(&exchange.state.wish().path, body).await
    }

    fn on_request_trailers(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.request().trailers().set("x-seen", "request trailers")?;
        Ok(())
    }

    async fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.state.callbacks.set(exchange.state.callbacks.get() + 1);
        let (response, wish) = (exchange.response(), exchange.state.wish());
        if response.has_body() && bodies::changes_response(&wish.path) {
            response.headers().remove("content-length")?;
        }
        self.response_head(exchange, wish).await
    }

    async fn on_response_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
        bodies::response(&exchange.state.wish().path, body).await
    }

    fn on_response_trailers(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.response().trailers().set("x-seen", "response trailers")?;
        Ok(())
    }

    fn on_attempt(&self, _: &Exchange<Self>, attempt: &Attempt) -> Verdict {
        meshgate_sdk::info!("try {}: {:?} {}", attempt.number(), attempt.ending(), attempt.status());
        if attempt.number() < 3 { Retry::after(Duration::from_millis(10)).into() } else { Verdict::Deliver }
    }

    fn on_log(&self, exchange: &Exchange<Self>) {
        let code = exchange.response_code().unwrap_or(0).to_string();
        self.done.with([&exchange.request().method(), &code]).add(1);
        self.sizes.record(7);
        if let Some(facts) = facts::of_the_past(exchange) {
            meshgate_sdk::info!("{facts}");
        }
    }

    async fn on_queue(&self, queue: SharedQueue) -> Outcome {
        while let Some(event) = queue.dequeue()? {
            let event = String::from_utf8_lossy(&event).into_owned();
            let answer = Cluster::from("fast").get(format!("/{event}")).send().await?.success()?;
            meshgate_sdk::info!("{}", answer.text(); known = queue == self.events);
        }
        Ok(())
    }

    async fn on_tick(&self) -> Outcome {
        if self.follow {
            return streams::follow(&self.fetched).await;
        }
        Cluster::from("keys").get("/").send().await?.success()?;
        self.fetched.set(self.fetched.get() + 1);
        Ok(())
    }

    async fn on_end(&self) -> Outcome {
        meshgate_sdk::sleep(Duration::from_millis(20)).await?;
        Cluster::from("keys").get("/end").timeout(Duration::from_secs(10)).send().await?.success()?;
        Ok(())
    }
}
