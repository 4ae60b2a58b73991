//! Testing a filter without a proxy: `cargo test` runs it natively, against servers, a clock and properties of the test's
//! making.
//!
//! ```
//! # use meshgate_sdk::prelude::*;
//! # #[derive(Deserialize, JsonSchema)]
//! # struct Config { tokens: Cluster }
//! # struct Auth { tokens: Cluster }
//! # #[filter]
//! # impl Filter for Auth {
//! #     fn configure(config: Config) -> Result<Self, ConfigError> { Ok(Self { tokens: config.tokens }) }
//! #     async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
//! #         let token = exchange.request().bearer_token().ok_or_else(|| Reply::new(401))?;
//! #         let user = self.tokens.get("/who").bearer_token(token).send().await?.success()?;
//! #         exchange.request().headers().set("x-user", user.text().as_bytes())?;
//! #         Ok(())
//! #     }
//! # }
//! # fn main() {
//! use meshgate_sdk::testing::{Proxy, Request, Response};
//!
//! // `Auth` asks the cluster `tokens` who a request comes from.
//! let mut proxy = Proxy::new::<Auth>(r#"{"tokens": "tokens"}"#);
//! proxy.upstream("tokens", |call| match call.field("authorization").as_deref() {
//!     Some("Bearer of-ann") => Response::new(200).body("ann"),
//!     _ => Response::new(404),
//! });
//!
//! let done = proxy.send(Request::get("/orders").header("authorization", "Bearer of-ann"));
//! assert_eq!(done.status(), 200);
//! assert_eq!(done.upstream().unwrap().field("x-user").as_deref(), Some("ann"));
//!
//! assert_eq!(proxy.send(Request::get("/orders")).status(), 401);
//! # }
//! ```
//!
//! Time stands still unless the test lets it go on ([`Proxy::advance`]), or an exchange has to wait: then it jumps to what
//! happens next. So nothing in a test takes real time, and a timeout of an hour is tested in microseconds.
//!
//! The simulation does what Meshgate's host does, as far as a filter can notice. The same test can run the compiled module in
//! that host: [`Proxy::with`] takes any [`Engine`].
#![expect(clippy::panic, reason = "a test fails by a panic")]

mod calls;
mod connected;
mod done;
mod engine;
mod message;
mod native;
mod shared;
mod simulated;
mod span;
mod streams;
mod tries;
pub(crate) mod world;

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::connected::Connected;
pub use self::done::{Begun, Done};
pub use self::engine::{Engine, Part, Said, StartedCall, StreamDid, StreamPart, Verdict, Way};
pub use self::message::{Client, Failure, Fields, Request, Response};
use self::native::Native;
pub use self::span::Span;
pub use self::streams::{ServerStream, StreamEvent};
use self::streams::{Side, StreamServer};
use crate::filter::Filter;
use crate::runtime::{Http, Tcp};
use crate::tcp::TcpFilter;

/// When tests begin, by the filter's clock: 2026-01-01.
const START: Duration = Duration::from_secs(1_767_225_600);

/// How long a filter may take for its end, as in Meshgate unless the configuration says otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

type Server = Box<dyn FnMut(&Request) -> Response>;

/// A proxy with one filter and one worker, between clients and servers that a test plays.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Asks { users: Cluster, asked: Counter }
/// # #[filter]
/// # impl Filter for Asks {
/// #     fn configure(_: Empty) -> Result<Self, ConfigError> {
/// #         Ok(Self { users: "users".into(), asked: Counter::build("asked_total").define()? })
/// #     }
/// #     async fn on_request(&self, _: &Exchange<Self>) -> Outcome {
/// #         self.asked.add(1);
/// #         let name = self.users.get("/me").send().await?.success()?;
/// #         meshgate_sdk::info!("it is {}", name.text());
/// #         Ok(())
/// #     }
/// # }
/// # fn main() {
/// use std::time::Duration;
///
/// use meshgate_sdk::testing::{Proxy, Request, Response};
///
/// let mut proxy = Proxy::new::<Asks>("");
/// proxy.upstream("users", |_| Response::new(200).body("ann").after(Duration::from_secs(1)));
/// proxy.endpoint(|request| Response::new(200).body(request.target()));
///
/// let before = proxy.now();
/// let begun = proxy.begin(Request::get("/a"));
/// let other = proxy.begin(Request::get("/b"));
/// proxy.give_up(other);                           // both in one: `proxy.abandon(Request::get("/b"))`
/// proxy.advance(Duration::from_millis(900));
/// assert!(proxy.logs().is_empty());               // `users` has not answered yet
/// assert_eq!(proxy.finish(begun).text(), "/a");   // now it has
/// assert_eq!(proxy.now(), before + Duration::from_secs(1));
///
/// assert_eq!(proxy.logs(), ["it is ann"]);
/// assert_eq!(proxy.calls("users")[1].target(), "/me");
/// assert_eq!(proxy.metric("asked_total", &[]), 2);
/// # }
/// ```
pub struct Proxy {
    engine: Box<dyn Engine>,
    configuration: String,
    servers: HashMap<String, Server>,
    stream_servers: HashMap<String, StreamServer>,
    endpoint: Server,
    now: SystemTime,
    /// When the filter is to be woken next, and how often.
    timer: Option<(SystemTime, Duration)>,
    /// What calls and streams are answered, and when it is there.
    waiting: Vec<(SystemTime, u32, Due)>,
    calls: Vec<(String, Request)>,
    /// The servers' sides of streams under way.
    streams: HashMap<u32, Side>,
}

/// What is to come for a filter.
enum Due {
    /// Of a call.
    Answer(Response),
    /// Of a stream.
    Part(StreamPart),
}

impl Proxy {
    /// Starts a filter with this configuration: JSON, as it stands in the YAML. Requests go to an endpoint that answers 200.
    ///
    /// # Panics
    /// The filter refuses the configuration.
    pub fn new<F: Filter>(configuration: &str) -> Self {
        Self::with(Native::<Http<F>>::new(), configuration)
    }

    /// Starts a filter for TCP with this configuration.
    ///
    /// ```
    /// use meshgate_sdk::prelude::*;
    /// use meshgate_sdk::testing::{Client, Proxy};
    /// use meshgate_sdk::{Connection, TcpFilter};
    ///
    /// struct Shout;
    ///
    /// #[filter]
    /// impl TcpFilter for Shout {
    ///     fn configure(_: Empty) -> Result<Self, ConfigError> {
    ///         Ok(Self)
    ///     }
    ///
    ///     async fn on_downstream_data(&self, _: &Connection<Self>, data: &mut Body) -> Outcome {
    ///         while let Some(part) = data.next().await? {
    ///             data.replace(part.to_ascii_uppercase())?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() {
    /// let mut proxy = Proxy::tcp::<Shout>("");
    /// let mut connection = proxy.connect(&Client::new());
    /// assert_eq!(connection.client_sends("hello"), b"HELLO");
    /// assert_eq!(connection.endpoint_sends("you need not shout"), b"you need not shout");
    /// # }
    /// ```
    ///
    /// # Panics
    /// The filter refuses the configuration.
    pub fn tcp<F: TcpFilter>(configuration: &str) -> Self {
        Self::with(Native::<Tcp<F>>::new(), configuration)
    }

    /// As [`new`](Self::new), in another host.
    ///
    /// ```
    /// use meshgate_sdk::testing::{Engine, Proxy, Request};
    ///
    /// /// The same test for a module in any host.
    /// fn stamps(host: impl Engine + 'static) {
    ///     let mut proxy = Proxy::with(host, r#"{"header": "x-stamp", "value": "1"}"#);
    ///     let done = proxy.send(Request::get("/"));
    ///     assert_eq!(done.upstream().unwrap().field("x-stamp").as_deref(), Some("1"));
    /// }
    /// ```
    ///
    /// # Panics
    /// The filter refuses the configuration.
    pub fn with(engine: impl Engine + 'static, configuration: &str) -> Self {
        match Self::try_with(engine, configuration) {
            Ok(proxy) => proxy,
            Err(reason) => panic!("the filter does not start: {reason}"),
        }
    }

    /// What a filter says about a configuration that it refuses.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # use meshgate_sdk::testing::Proxy;
    /// # #[derive(Deserialize, JsonSchema)]
    /// # #[serde(deny_unknown_fields)]
    /// # struct Config { header: String }
    /// # struct Stamp { config: Config }
    /// # #[filter]
    /// # impl Filter for Stamp {
    /// #     fn configure(config: Config) -> Result<Self, ConfigError> { Ok(Self { config }) }
    /// #     fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
    /// #         Ok(exchange.request().headers().set(&self.config.header, "1")?)
    /// #     }
    /// # }
    /// # fn main() {
    /// let refusal = Proxy::refusal::<Stamp>(r#"{"hedder": "x-a"}"#);
    /// assert!(refusal.contains("hedder: unknown field `hedder`"), "{refusal}");
    /// # }
    /// ```
    ///
    /// # Panics
    /// It accepts it.
    pub fn refusal<F: Filter>(configuration: &str) -> String {
        match Self::try_with(Native::<Http<F>>::new(), configuration) {
            Ok(_) => panic!("the filter accepts this configuration"),
            Err(reason) => reason,
        }
    }

    /// Starts a filter in a host, or says what it logged when it refused its configuration.
    ///
    /// ```
    /// use meshgate_sdk::testing::{Engine, Proxy};
    ///
    /// fn refuses_nonsense(host: impl Engine + 'static) {
    ///     let reason = Proxy::try_with(host, "[]").unwrap_err();
    ///     assert!(reason.contains("configuration refused"), "{reason}");
    /// }
    /// ```
    ///
    /// # Errors
    /// The filter refuses the configuration.
    pub fn try_with(engine: impl Engine + 'static, configuration: &str) -> Result<Self, String> {
        let mut proxy = Self {
            engine: Box::new(engine),
            configuration: configuration.to_owned(),
            servers: HashMap::new(),
            stream_servers: HashMap::new(),
            endpoint: Box::new(|_| Response::new(200)),
            now: UNIX_EPOCH + START,
            timer: None,
            waiting: Vec::new(),
            calls: Vec::new(),
            streams: HashMap::new(),
        };
        proxy.engine.set_time(proxy.now);
        proxy.engine.start(configuration)?;
        Ok(proxy)
    }

    /// A new worker begins where this one was: the filter starts again, and only shared data is still there.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # use meshgate_sdk::SharedCounter;
    /// # struct Count { requests: SharedCounter }
    /// # #[filter]
    /// # impl Filter for Count {
    /// #     fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { requests: SharedCounter::new("requests") }) }
    /// #     fn on_request(&self, _: &Exchange<Self>) -> Outcome {
    /// #         Reply::new(200).body(self.requests.add(1)?.to_string()).into()
    /// #     }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request};
    /// // `Count` answers how many requests there have been, on all workers.
    /// let mut proxy = Proxy::new::<Count>("");
    /// assert_eq!(proxy.send(Request::get("/")).text(), "1");
    /// proxy.restart();
    /// assert_eq!(proxy.send(Request::get("/")).text(), "2");
    /// # }
    /// ```
    ///
    /// # Panics
    /// The filter refuses its configuration now.
    pub fn restart(&mut self) {
        self.waiting.clear();
        self.streams.clear();
        if let Err(reason) = self.engine.start(&self.configuration) {
            panic!("the filter does not start again: {reason}");
        }
    }

    /// The filter ends: its module or configuration is replaced, or the proxy stops. It has five seconds by its clock for what it
    /// has left to do; whether they were enough.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Last { audit: Cluster }
    /// # #[filter]
    /// # impl Filter for Last {
    /// #     fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { audit: "audit".into() }) }
    /// #     async fn on_end(&self) -> Outcome {
    /// #         self.audit.post("/", "it was me").timeout(Duration::from_secs(60)).send().await?;
    /// #         Ok(())
    /// #     }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Response};
    /// // `Last` tells `audit` when it ends.
    /// let mut proxy = Proxy::new::<Last>("");
    /// proxy.upstream("audit", |_| Response::new(204).after(Duration::from_secs(1)));
    /// assert!(proxy.end());
    /// assert_eq!(proxy.calls("audit")[0].text(), "it was me");
    ///
    /// let mut proxy = Proxy::new::<Last>("");
    /// proxy.upstream("audit", |_| Response::new(204).after(Duration::from_secs(30)));
    /// assert!(!proxy.end());
    /// # }
    /// ```
    pub fn end(&mut self) -> bool {
        let until = self.now + PATIENCE;
        self.engine.end();
        while !self.engine.has_ended() {
            let Some(next) = self.next_event().filter(|next| *next <= until) else { return false };
            self.run(next);
        }
        true
    }

    /// Says how a cluster answers, both the filter's calls and requests that the filter routes there.
    pub fn upstream(&mut self, cluster: &str, server: impl FnMut(&Request) -> Response + 'static) {
        self.servers.insert(cluster.to_owned(), Box::new(server));
        self.tell_clusters();
    }

    fn tell_clusters(&mut self) {
        let mut names: Vec<_> = self.servers.keys().chain(self.stream_servers.keys()).cloned().collect();
        names.sort();
        names.dedup();
        self.engine.set_clusters(names);
    }

    /// Says how the endpoint answers to which requests go that the filter routes nowhere else.
    pub fn endpoint(&mut self, server: impl FnMut(&Request) -> Response + 'static) {
        self.endpoint = Box::new(server);
    }

    /// Sends a request through the filter, and waits for the response.
    ///
    /// # Panics
    /// The filter waits for something that will never happen, or fails.
    pub fn send(&mut self, request: Request) -> Done {
        let begun = self.begin(request);
        self.finish(begun)
    }

    /// Begins an exchange: its request's head goes through the filter. While the filter holds it, others may go on.
    pub fn begin(&mut self, request: Request) -> Begun {
        let began = self.now;
        let exchange = self.engine.open(&request);
        let end = request.parts.is_empty() && request.tail.is_empty();
        let verdict = self.deliver(exchange, Way::Request, Part::RequestHead(end));
        Begun { exchange, request, verdict, began }
    }

    /// Waits for the response to a request that was begun.
    ///
    /// # Panics
    /// The filter waits for something that will never happen, or fails.
    pub fn finish(&mut self, begun: Begun) -> Done {
        let Begun { exchange, began, .. } = begun;
        let (response, upstream) = self.exchange(begun);
        let said = self.engine.close(exchange);
        self.run_until(self.now);
        let took = self.now.duration_since(began).unwrap_or_default();
        Done { response, upstream, took, said }
    }

    /// Ends an exchange that was begun: the client goes away.
    pub fn give_up(&mut self, begun: Begun) {
        self.engine.close(begun.exchange);
        self.run_until(self.now);
    }

    /// Begins an exchange and gives up after its request's head: the client goes away.
    pub fn abandon(&mut self, request: Request) {
        let begun = self.begin(request);
        self.give_up(begun);
    }

    /// Lets time pass.
    pub fn advance(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// The time, by the filter's clock.
    pub fn now(&self) -> SystemTime {
        self.now
    }

    /// The filter's calls to a cluster so far.
    pub fn calls(&mut self, cluster: &str) -> Vec<Request> {
        self.look_at_calls();
        self.calls.iter().filter(|(name, _)| name == cluster).map(|(_, request)| request.clone()).collect()
    }

    /// What the filter has logged so far.
    pub fn logs(&self) -> Vec<String> {
        self.engine.logs()
    }

    /// The value of a counter or gauge with these labels, or how many values a histogram has; 0 if nobody has recorded any.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        self.engine.metric(name, labels).unwrap_or(0)
    }

    fn exchange(&mut self, begun: Begun) -> (Response, Option<Request>) {
        let Begun { exchange, request, verdict, .. } = begun;
        let passed = self.pass(exchange, Way::Request, verdict, &request.parts, &request.tail);
        let (upstream, response) = match passed {
            Ok(_) if self.engine.direct(exchange).is_some() => {
                (None, self.engine.direct(exchange).unwrap_or_default())
            }
            Ok(body) => {
                let tail = if request.tail.is_empty() {
                    Fields::new()
                } else {
                    self.engine.trailers(exchange, Way::Request)
                };
                let sent = Request {
                    head: self.engine.head(exchange, Way::Request),
                    parts: body,
                    tail,
                    ..Request::default()
                };
                let response = self.serve(exchange, &sent);
                (Some(sent), response)
            }
            Err(answer) if answer.failure.is_some() => return (*answer, None),
            Err(answer) => (None, *answer),
        };
        let end = response.parts.is_empty() && response.tail.is_empty();
        let head = Part::ResponseHead(response.head.clone(), end);
        let head = self.deliver(exchange, Way::Response, head);
        let response = match self.pass(exchange, Way::Response, head, &response.parts, &response.tail) {
            Ok(parts) => {
                let tail = if response.tail.is_empty() {
                    Fields::new()
                } else {
                    self.engine.trailers(exchange, Way::Response)
                };
                let head = self.engine.head(exchange, Way::Response);
                Response { head, parts, tail, ..Response::default() }
            }
            Err(answer) => *answer,
        };
        (response, upstream)
    }

    /// Lets a message through the filter whose head was delivered: the parts of the body that come out, or the answer that
    /// takes its place.
    fn pass(
        &mut self,
        exchange: u32,
        way: Way,
        head: Verdict,
        parts: &[Vec<u8>],
        tail: &Fields,
    ) -> Result<Vec<Vec<u8>>, Box<Response>> {
        let mut out = Vec::new();
        self.take(exchange, way, head, true, &mut out)?;
        for (index, part) in parts.iter().enumerate() {
            let is_last = index + 1 == parts.len() && tail.is_empty();
            let verdict = self.deliver(exchange, way, Part::Body(way, part.clone(), is_last));
            self.take(exchange, way, verdict, is_last, &mut out)?;
        }
        if !tail.is_empty() {
            let verdict = self.deliver(exchange, way, Part::Trailers(way, tail.clone()));
            self.take(exchange, way, verdict, true, &mut out)?;
        }
        Ok(out)
    }

    /// Delivers a part, and lets happen what happens at once.
    fn deliver(&mut self, exchange: u32, way: Way, part: Part) -> Verdict {
        match self.engine.deliver(exchange, part) {
            Verdict::Held => {
                self.run_until(self.now);
                self.engine.released(exchange, way).unwrap_or(Verdict::Held)
            }
            other => other,
        }
    }

    /// Takes what came through; if nothing more follows, waits for it.
    fn take(
        &mut self,
        exchange: u32,
        way: Way,
        verdict: Verdict,
        wait: bool,
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), Box<Response>> {
        match verdict {
            Verdict::Passed(bytes) => {
                if !bytes.is_empty() {
                    out.push(bytes);
                }
                Ok(())
            }
            Verdict::Answered(answer) => Err(answer),
            Verdict::Closed(_) => Err(Box::new(Response::reset())),
            Verdict::Failed(reason) => panic!("the filter fails: {reason}"),
            Verdict::Held if wait => {
                let verdict = self.wait(exchange, way);
                self.take(exchange, way, verdict, true, out)
            }
            Verdict::Held => Ok(()),
        }
    }

    fn wait(&mut self, exchange: u32, way: Way) -> Verdict {
        loop {
            if let Some(verdict) = self.engine.released(exchange, way) {
                return verdict;
            }
            let Some(next) = self.next_event() else {
                panic!("the filter holds the {way:?} and waits for something that never happens");
            };
            self.run(next);
        }
    }

    /// Decides what becomes of calls that the filter has begun.
    fn look_at_calls(&mut self) {
        self.engine.tell_of_queues();
        if let Some(period) = self.engine.timer() {
            self.timer = period.map(|period| (self.now + period, period));
        }
        for call in self.engine.calls() {
            let StartedCall { id, cluster, request, timeout } = call;
            let mut response = match self.servers.get_mut(&cluster) {
                Some(server) => server(&request),
                None => Response::refused(),
            };
            let limit = timeout.unwrap_or(Duration::MAX);
            if response.failure == Some(Failure::Timeout) || response.after > limit {
                response = Response::timeout().after(timeout.unwrap_or_default());
            }
            self.calls.push((cluster, request));
            self.waiting.push((self.now + response.after, id, Due::Answer(response)));
        }
        self.look_at_streams();
    }

    /// When something happens next.
    fn next_event(&mut self) -> Option<SystemTime> {
        self.look_at_calls();
        let calls = self.waiting.iter().map(|(at, ..)| *at);
        calls.chain(self.timer.map(|(at, _)| at)).min()
    }

    /// Lets happen what happens up to this time.
    fn run_until(&mut self, time: SystemTime) {
        while let Some(next) = self.next_event().filter(|next| *next <= time) {
            self.run(next);
        }
        self.set_time(time);
    }

    /// Lets happen the one thing that happens at this time.
    fn run(&mut self, time: SystemTime) {
        self.set_time(time);
        if let Some(position) = self.waiting.iter().position(|(at, ..)| *at <= time) {
            let (_, id, due) = self.waiting.remove(position);
            match due {
                Due::Answer(response) => self.engine.answer(id, &response),
                Due::Part(part) => {
                    self.engine.receive(id, &part);
                    if matches!(part, StreamPart::Closed(..)) {
                        self.streams.remove(&id);
                    }
                }
            }
        } else if let Some((at, period)) = self.timer
            && at <= time
        {
            self.timer = Some((time + period, period));
            self.engine.tick();
        }
    }

    fn set_time(&mut self, time: SystemTime) {
        self.now = self.now.max(time);
        self.engine.set_time(self.now);
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("now", &self.now).finish_non_exhaustive()
    }
}
