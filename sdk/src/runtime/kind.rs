//! The kinds of filters, of HTTP, of TCP and of both: what their plugins and stream contexts need of each.

use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::task::Poll;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::half::{Half, Stage};
use super::task::has;
use crate::body::Carries;
use crate::config::ConfigError;
use crate::error::{Outcome, Stop};
use crate::filter::Filter;
use crate::host::{Direction, Status};
use crate::queue::SharedQueue;
use crate::tcp::TcpFilter;

/// A kind of filters.
pub(crate) trait Kind: Sized + 'static {
    /// The filter.
    type Filter: 'static;
    /// What it is configured by.
    type Config: DeserializeOwned + JsonSchema + 'static;
    /// The callbacks that the filter has for HTTP and for TCP, as the ABI calls them; for the manifest, and for the simulated
    /// host.
    #[cfg(not(target_arch = "wasm32"))]
    const CALLBACKS: [&'static [&'static str]; 2];
    /// Those of them that wait for something.
    #[cfg(not(target_arch = "wasm32"))]
    const AWAITS: [&'static [&'static str]; 2];
    /// The filter has something to do at its end.
    const ENDS: bool;
    /// It has a tick of its own.
    const TICKS: bool;
    /// Its connections have.
    const CONNECTION_TICKS: bool;
    /// It takes something out of queues.
    const QUEUES: bool;

    /// Makes the filter.
    ///
    /// # Errors
    /// The configuration makes no sense.
    fn configure(config: Self::Config) -> Result<Self::Filter, ConfigError>;

    /// The filter's own tick.
    async fn on_tick(filter: Rc<Self::Filter>) -> Outcome;

    /// Something is in a queue.
    async fn on_queue(filter: Rc<Self::Filter>, queue: SharedQueue) -> Outcome;

    /// The filter's end.
    async fn on_end(filter: Rc<Self::Filter>) -> Outcome;
}

/// What a stream context is about: an exchange or a connection.
pub(crate) trait Subject: Carries + 'static {
    /// The stream context's number.
    fn context(&self) -> u32;

    /// One way of it.
    fn half(&self, direction: Direction) -> &Half;

    /// Whether its plugin knows it, since it has waited for something.
    fn has_waited(&self) -> &Cell<bool>;

    /// Lets go what the host holds.
    ///
    /// # Errors
    /// The host does not.
    fn resume(&self, direction: Direction) -> Result<(), Status>;

    /// It does not go on.
    fn stop(&self, stop: Stop, callback: &str);

    /// What comes after a body, when its callback is done.
    fn after_body(self: &Rc<Self>, direction: Direction) -> Poll<Outcome>;

    /// The callback's name, for the log.
    fn callback(direction: Direction, stage: Stage) -> &'static str;

    /// What waits is dropped where it stands.
    fn cancel(&self) {
        self.half(Direction::Request).cancel();
        self.half(Direction::Response).cancel();
    }
}

/// Filters of HTTP exchanges.
#[derive(Debug)]
pub(crate) struct Http<F>(PhantomData<F>);

impl<F: Filter> Kind for Http<F> {
    type Filter = F;
    type Config = F::Config;
    #[cfg(not(target_arch = "wasm32"))]
    const CALLBACKS: [&'static [&'static str]; 2] = [F::CALLBACKS, &[]];
    #[cfg(not(target_arch = "wasm32"))]
    const AWAITS: [&'static [&'static str]; 2] = [F::AWAITS, &[]];
    const ENDS: bool = has(F::CALLBACKS, "done");
    const TICKS: bool = has(F::CALLBACKS, "tick");
    const CONNECTION_TICKS: bool = false;
    const QUEUES: bool = has(F::CALLBACKS, "queue_ready");

    fn configure(config: F::Config) -> Result<F, ConfigError> {
        F::configure(config)
    }

    async fn on_tick(filter: Rc<F>) -> Outcome {
        filter.on_tick().await
    }

    async fn on_queue(filter: Rc<F>, queue: SharedQueue) -> Outcome {
        filter.on_queue(queue).await
    }

    async fn on_end(filter: Rc<F>) -> Outcome {
        filter.on_end().await
    }
}

/// Filters of TCP connections.
#[derive(Debug)]
pub(crate) struct Tcp<F>(PhantomData<F>);

impl<F: TcpFilter> Kind for Tcp<F> {
    type Filter = F;
    type Config = F::Config;
    #[cfg(not(target_arch = "wasm32"))]
    const CALLBACKS: [&'static [&'static str]; 2] = [&[], F::CALLBACKS];
    #[cfg(not(target_arch = "wasm32"))]
    const AWAITS: [&'static [&'static str]; 2] = [&[], F::AWAITS];
    const ENDS: bool = has(F::CALLBACKS, "done");
    const TICKS: bool = has(F::CALLBACKS, "tick");
    const CONNECTION_TICKS: bool = has(F::CALLBACKS, "connection_tick");
    const QUEUES: bool = has(F::CALLBACKS, "queue_ready");

    fn configure(config: F::Config) -> Result<F, ConfigError> {
        F::configure(config)
    }

    async fn on_tick(filter: Rc<F>) -> Outcome {
        filter.on_tick().await
    }

    async fn on_queue(filter: Rc<F>, queue: SharedQueue) -> Outcome {
        filter.on_queue(queue).await
    }

    async fn on_end(filter: Rc<F>) -> Outcome {
        filter.on_end().await
    }
}

/// Filters of both: what is not of one exchange or one connection, they have as filters of HTTP.
#[derive(Debug)]
pub(crate) struct Both<F>(PhantomData<F>);

impl<F: Filter + TcpFilter> Kind for Both<F> {
    type Filter = F;
    type Config = <F as Filter>::Config;
    #[cfg(not(target_arch = "wasm32"))]
    const CALLBACKS: [&'static [&'static str]; 2] = [<F as Filter>::CALLBACKS, <F as TcpFilter>::CALLBACKS];
    #[cfg(not(target_arch = "wasm32"))]
    const AWAITS: [&'static [&'static str]; 2] = [<F as Filter>::AWAITS, <F as TcpFilter>::AWAITS];
    const ENDS: bool = has(<F as Filter>::CALLBACKS, "done");
    const TICKS: bool = has(<F as Filter>::CALLBACKS, "tick");
    const CONNECTION_TICKS: bool = has(<F as TcpFilter>::CALLBACKS, "connection_tick");
    const QUEUES: bool = has(<F as Filter>::CALLBACKS, "queue_ready");

    fn configure(config: Self::Config) -> Result<F, ConfigError> {
        <F as Filter>::configure(config)
    }

    async fn on_tick(filter: Rc<F>) -> Outcome {
        Filter::on_tick(&*filter).await
    }

    async fn on_queue(filter: Rc<F>, queue: SharedQueue) -> Outcome {
        Filter::on_queue(&*filter, queue).await
    }

    async fn on_end(filter: Rc<F>) -> Outcome {
        Filter::on_end(&*filter).await
    }
}
