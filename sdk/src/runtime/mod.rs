//! Between the ABI's callbacks and the [`Filter`] trait. Used by the exports that `#[filter]` writes into a module, and by
//! the simulated host of tests.

pub(crate) mod calls;
pub(crate) mod half;
mod ids;
mod slot;
pub(crate) mod task;
pub(crate) mod timers;

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;

use self::half::Stage;
use self::ids::IdMap;
use self::task::{Task, Wakeup, has, now};
use crate::attempts;
use crate::body::{Arrived, Body};
use crate::config::{self, ConfigError};
use crate::error::{Outcome, Stop};
use crate::exchange::Exchange;
use crate::filter::Filter;
use crate::host::{self, Buffer, CONTINUE, Direction, PAUSE};
use crate::log::{Level, line};

/// A module's contexts: its plugins and their exchanges.
pub struct Module<F: Filter> {
    plugins: RefCell<IdMap<Rc<Plugin<F>>>>,
    exchanges: RefCell<IdMap<Rc<Exchange<F>>>>,
}

/// A root context: a filter with its configuration, as soon as it has one.
struct Plugin<F> {
    filter: RefCell<Option<Rc<F>>>,
    tick: RefCell<Option<Task>>,
}

/// Makes a callback of one way of an exchange: `$call` is what it runs. A callback without `.await` runs where it stands.
macro_rules! run {
    ($exchange:ident, $direction:expr, $name:literal, |$filter:ident, $of:ident| $call:expr) => {{
        timers::enter($exchange.plugin);
        match &$exchange.filter {
            None => Poll::Ready(Err(Stop::failed("the filter is not configured"))),
            Some(filter) if const { has(F::AWAITS, $name) } => {
                let (filter, of) = (Rc::clone(filter), Rc::clone($exchange));
                let wakeup = Wakeup { context: $exchange.context, direction: $direction };
                $exchange.half($direction).start(Task::new(wakeup, async move {
                    let ($filter, $of) = (&*filter, &*of);
                    $call.await
                }))
            }
            Some(filter) => {
                let ($filter, $of) = (&**filter, &**$exchange);
                Poll::Ready(now($call))
            }
        }
    }};
}

impl<F: Filter> Module<F> {
    /// A module without contexts.
    pub const fn new() -> Self {
        Self { plugins: RefCell::new(ids::map()), exchanges: RefCell::new(ids::map()) }
    }

    /// `proxy_on_context_create`
    pub fn create(&self, context: u32, plugin: u32) {
        if plugin == 0 {
            let plugin = Plugin { filter: RefCell::default(), tick: RefCell::default() };
            self.plugins.borrow_mut().insert(context, Rc::new(plugin));
            return;
        }
        let filter = self.plugins.borrow().get(&plugin).and_then(|plugin| plugin.filter.borrow().clone());
        self.exchanges.borrow_mut().insert(context, Rc::new(Exchange::new(context, plugin, filter)));
    }

    /// `proxy_on_configure`
    pub fn configure(&self, plugin: u32, size: usize) -> bool {
        timers::enter(plugin);
        let Some(known) = self.plugins.borrow().get(&plugin).cloned() else { return false };
        match configured::<F>(size) {
            Ok(filter) => {
                known.filter.replace(Some(Rc::new(filter)));
                true
            }
            Err(error) => {
                line(Level::Error, &format!("configuration refused: {error}"));
                false
            }
        }
    }

    /// `proxy_on_tick`
    pub fn tick(&self, plugin: u32) {
        timers::enter(plugin);
        let due = timers::fire(plugin);
        let known = self.plugins.borrow().get(&plugin).cloned();
        if due && let Some(known) = known {
            // One that still waits is left to it: ticks do not pile up.
            if known.tick.borrow().is_none()
                && let Some(filter) = known.filter.borrow().clone()
            {
                let wakeup = Wakeup { context: plugin, direction: Direction::Request };
                known.run(Task::new(wakeup, async move { filter.on_tick().await }));
            }
        }
        self.settle();
    }

    /// `proxy_on_request_headers`
    pub fn request_head(&self, context: u32, end: bool) -> u32 {
        let Some(exchange) = &self.exchange(context) else { return CONTINUE };
        exchange.request.has_more.set(!end);
        let outcome = run!(exchange, Direction::Request, "request_headers", |filter, exchange| filter
            .on_request(exchange));
        self.concluded(exchange, Direction::Request, outcome)
    }

    /// `proxy_on_response_headers`
    pub fn response_head(&self, context: u32, end: bool) -> u32 {
        let Some(exchange) = &self.exchange(context) else { return CONTINUE };
        exchange.response.has_more.set(!end);
        let outcome = run!(exchange, Direction::Response, "response_headers", |filter, exchange| filter
            .on_response(exchange));
        self.concluded(exchange, Direction::Response, outcome)
    }

    /// `proxy_on_request_body`
    pub fn request_body(&self, context: u32, size: usize, end: bool) -> u32 {
        self.body(context, Direction::Request, size, end)
    }

    /// `proxy_on_response_body`
    pub fn response_body(&self, context: u32, size: usize, end: bool) -> u32 {
        self.body(context, Direction::Response, size, end)
    }

    fn body(&self, context: u32, direction: Direction, size: usize, end: bool) -> u32 {
        let Some(exchange) = &self.exchange(context) else { return CONTINUE };
        let half = exchange.half(direction);
        if half.is_busy() && half.stage.get() == Stage::Head {
            // Only with hosts that deliver the body while the head is held.
            return PAUSE;
        }
        let outcome = match half.body.get() {
            // What the filter wanted of this body it has had.
            Some(_) if !half.is_busy() => return half.pass(),
            Some(body) => {
                body.grew(size, end);
                timers::enter(exchange.plugin);
                half.poll()
            }
            None => {
                let body = half.body.get_or_init(|| Rc::new(Arrived::new(direction)));
                body.grew(size, end);
                half.stage.set(Stage::Body);
                let mut body = Body::new(Rc::clone(body));
                match direction {
                    Direction::Request => {
                        run!(exchange, Direction::Request, "request_body", |filter, exchange| {
                            filter.on_request_body(exchange, &mut body)
                        })
                    }
                    Direction::Response => {
                        run!(exchange, Direction::Response, "response_body", |filter, exchange| {
                            filter.on_response_body(exchange, &mut body)
                        })
                    }
                }
            }
        };
        self.concluded(exchange, direction, outcome)
    }

    /// `proxy_on_request_trailers`
    pub fn request_trailers(&self, context: u32) -> u32 {
        self.trailers(context, Direction::Request)
    }

    /// `proxy_on_response_trailers`
    pub fn response_trailers(&self, context: u32) -> u32 {
        self.trailers(context, Direction::Response)
    }

    fn trailers(&self, context: u32, direction: Direction) -> u32 {
        let Some(exchange) = &self.exchange(context) else { return CONTINUE };
        let half = exchange.half(direction);
        if half.is_busy() {
            // The body has ended; its callback may be done with that.
            half.trailers_due.set(true);
            if let Some(body) = half.body.get() {
                body.ended();
            }
            timers::enter(exchange.plugin);
            return match half.poll() {
                Poll::Ready(Ok(())) => {
                    let outcome = start_trailers(exchange, direction);
                    self.concluded(exchange, direction, outcome)
                }
                outcome => self.concluded(exchange, direction, outcome),
            };
        }
        let outcome = start_trailers(exchange, direction);
        self.concluded(exchange, direction, outcome)
    }

    /// `proxy_on_foreign_function`
    pub fn foreign_function(&self, context: u32, function: u32, size: usize) {
        let Some(exchange) = self.exchange(context) else { return };
        timers::enter(exchange.plugin);
        attempts::judge(&exchange, function, size);
        self.settle();
    }

    /// `proxy_on_log`
    pub fn log(&self, context: u32) {
        let Some(exchange) = self.exchange(context) else { return };
        cancel(&exchange);
        if let Some(filter) = &exchange.filter {
            timers::enter(exchange.plugin);
            filter.on_log(&exchange);
        }
        self.settle();
    }

    /// `proxy_on_delete`
    pub fn delete(&self, context: u32) {
        let exchange = self.exchanges.borrow_mut().remove(&context);
        if let Some(exchange) = exchange {
            // A task owns the exchange that owns it.
            cancel(&exchange);
            return;
        }
        let plugin = self.plugins.borrow_mut().remove(&context);
        if let Some(plugin) = plugin {
            drop(plugin.tick.take());
            timers::forget(context);
        }
    }

    /// `proxy_on_http_call_response`
    pub fn http_call_response(&self, token: u32, headers: u32, body: u32, trailers: u32) {
        calls::http_answered(token, headers, body, trailers);
        self.settle();
    }

    /// `proxy_on_grpc_receive`
    pub fn grpc_receive(&self, token: u32, size: u32) {
        calls::grpc_answered(token, size);
        self.settle();
    }

    /// `proxy_on_grpc_close`
    pub fn grpc_close(&self, token: u32, status: u32) {
        calls::grpc_closed(token, status);
        self.settle();
    }

    fn exchange(&self, context: u32) -> Option<Rc<Exchange<F>>> {
        self.exchanges.borrow().get(&context).cloned()
    }

    /// What the host is told when a callback returns.
    fn concluded(&self, exchange: &Rc<Exchange<F>>, direction: Direction, outcome: Poll<Outcome>) -> u32 {
        let half = exchange.half(direction);
        let action = match outcome {
            Poll::Ready(Ok(())) => half.pass(),
            Poll::Ready(Err(stop)) => {
                stop.answer(name(direction, half.stage.get()));
                PAUSE
            }
            // Trailers end the body: there is no next part to let through for.
            Poll::Pending if half.trailers_due.get() || half.stage.get() != Stage::Body => half.hold(),
            Poll::Pending => half.hold_body(),
        };
        self.settle();
        action
    }

    /// Runs what this callback has woken.
    fn settle(&self) {
        while let Some(wakeup) = task::next_woken() {
            let Wakeup { context, direction } = wakeup;
            if let Some(exchange) = self.exchange(context) {
                host::set_effective_context(context);
                timers::enter(exchange.plugin);
                go_on(&exchange, direction);
                continue;
            }
            let plugin = self.plugins.borrow().get(&context).cloned();
            if let Some(plugin) = plugin {
                host::set_effective_context(context);
                timers::enter(context);
                let task = plugin.tick.take();
                task.into_iter().for_each(|task| plugin.run(task));
            }
        }
    }
}

impl<F: Filter> Default for Module<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Filter> std::fmt::Debug for Module<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("exchanges", &self.exchanges.borrow().len()).finish_non_exhaustive()
    }
}

impl<F: Filter> Plugin<F> {
    /// Runs the tick's task until it waits.
    fn run(&self, mut task: Task) {
        match task.poll() {
            Poll::Pending => drop(self.tick.replace(Some(task))),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Stop::Failed(message))) => {
                line(Level::Error, &format!("on_tick failed: {message}"));
            }
            Poll::Ready(Err(Stop::Reply(reply))) => {
                line(Level::Error, &format!("on_tick: nobody to answer with {}", reply.status()));
            }
        }
    }
}

fn configured<F: Filter>(size: usize) -> Result<F, ConfigError> {
    let bytes = match size {
        0 => Vec::new(),
        _ => host::buffer(Buffer::PluginConfiguration, 0, size).map_err(|status| {
            ConfigError::new(format_args!("the host gave no access to the configuration: {status}"))
        })?,
    };
    F::configure(config::parse(&bytes)?)
}

fn start_trailers<F: Filter>(exchange: &Rc<Exchange<F>>, direction: Direction) -> Poll<Outcome> {
    let half = exchange.half(direction);
    half.stage.set(Stage::Trailers);
    half.trailers_due.set(false);
    match direction {
        Direction::Request if const { has(F::CALLBACKS, "request_trailers") } => {
            run!(exchange, Direction::Request, "request_trailers", |filter, exchange| {
                filter.on_request_trailers(exchange)
            })
        }
        Direction::Response if const { has(F::CALLBACKS, "response_trailers") } => {
            run!(exchange, Direction::Response, "response_trailers", |filter, exchange| {
                filter.on_response_trailers(exchange)
            })
        }
        _ => Poll::Ready(Ok(())),
    }
}

/// Runs what waits on this way, outside of a callback for it.
fn go_on<F: Filter>(exchange: &Rc<Exchange<F>>, direction: Direction) {
    let half = exchange.half(direction);
    if !half.is_busy() {
        return;
    }
    let mut outcome = half.poll();
    if half.trailers_due.get() && matches!(outcome, Poll::Ready(Ok(()))) {
        outcome = start_trailers(exchange, direction);
    }
    let callback = name(direction, half.stage.get());
    match outcome {
        Poll::Ready(Ok(())) => half.let_go(direction, callback),
        Poll::Ready(Err(stop)) => stop.answer(callback),
        Poll::Pending if half.wants() == crate::body::Wants::Next => half.let_go(direction, callback),
        Poll::Pending => {}
    }
}

fn cancel<F: Filter>(exchange: &Exchange<F>) {
    exchange.request.cancel();
    exchange.response.cancel();
}

/// The callback's name, for the log.
fn name(direction: Direction, stage: Stage) -> &'static str {
    match (direction, stage) {
        (Direction::Request, Stage::Head) => "on_request",
        (Direction::Request, Stage::Body) => "on_request_body",
        (Direction::Request, Stage::Trailers) => "on_request_trailers",
        (Direction::Response, Stage::Head) => "on_response",
        (Direction::Response, Stage::Body) => "on_response_body",
        (Direction::Response, Stage::Trailers) => "on_response_trailers",
    }
}
