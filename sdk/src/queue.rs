//! Shared queues: what one filter puts in, another one takes out, maybe on another worker.

use crate::error::Refused;
use crate::host::{self, Status};

/// A queue of the host, which every worker sees. Its items are bytes, and filters in any language can put them in.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// use meshgate_sdk::SharedQueue;
///
/// struct Audit {
///     events: SharedQueue,
///     collector: Cluster,
/// }
///
/// # #[derive(Deserialize, JsonSchema)]
/// # struct Config { collector: Cluster }
/// # #[filter]
/// # impl Filter for Audit {
/// fn configure(config: Config) -> Result<Self, ConfigError> {
///     Ok(Self { events: SharedQueue::open("audit")?, collector: config.collector })
/// }
///
/// fn on_log(&self, exchange: &Exchange<Self>) {
///     // A queue that is full is no reason to fail.
///     let _ = self.events.enqueue(exchange.request().path());
/// }
///
/// async fn on_queue(&self, queue: SharedQueue) -> Outcome {
///     while let Some(event) = queue.dequeue()? {
///         self.collector.post("/events", event).send().await?.success()?;
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SharedQueue {
    id: u32,
}

impl SharedQueue {
    /// The queue of this name, made if there is none. When something is put in, the filter's
    /// [`on_queue`](crate::Filter::on_queue) is called: on the worker that opened the queue last.
    ///
    /// # Errors
    /// There are too many queues.
    pub fn open(name: &str) -> Result<Self, Refused> {
        let id = host::register_queue(name);
        id.map(|id| Self { id }).map_err(|status| refused("open", name, status))
    }

    /// The queue of this name, if somebody has opened it; of another VM, by its `vm_id`, or of the own, by an empty one.
    ///
    /// ```
    /// use meshgate_sdk::{Refused, SharedQueue};
    ///
    /// fn report(event: &str) -> Result<(), Refused> {
    ///     match SharedQueue::find("audit-vm", "events")? {
    ///         Some(queue) => queue.enqueue(event),
    ///         None => Ok(()), // nobody wants to know
    ///     }
    /// }
    /// # assert!(report("started").is_ok());
    /// ```
    ///
    /// # Errors
    /// The host has no queues.
    pub fn find(vm_id: &str, name: &str) -> Result<Option<Self>, Refused> {
        match host::find_queue(vm_id, name) {
            Ok(id) => Ok(Some(Self { id })),
            Err(Status::NOT_FOUND) => Ok(None),
            Err(status) => Err(refused("find", name, status)),
        }
    }

    /// Puts an item in.
    ///
    /// # Errors
    /// The queue is full, or its owner's queues are.
    pub fn enqueue(&self, item: impl AsRef<[u8]>) -> Result<(), Refused> {
        host::enqueue(self.id, item.as_ref())
            .map_err(|status| Refused::new("cannot put an item into the queue", status))
    }

    /// Takes the oldest item out; `None` if there is none.
    ///
    /// # Errors
    /// There is no such queue any more.
    pub fn dequeue(&self) -> Result<Option<Vec<u8>>, Refused> {
        match host::dequeue(self.id) {
            Ok(item) => Ok(Some(item)),
            Err(Status::EMPTY) => Ok(None),
            Err(status) => Err(Refused::new("cannot take an item out of the queue", status)),
        }
    }

    pub(crate) fn of_host(id: u32) -> Self {
        Self { id }
    }
}

#[cold]
fn refused(what: &str, name: &str, status: Status) -> Refused {
    Refused::new(format!("cannot {what} the queue {name}"), status)
}
