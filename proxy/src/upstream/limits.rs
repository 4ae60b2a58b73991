//! How much of a cluster may be in use at a time. Counted by all workers together and exact: nothing is taken that is not
//! there, and what is taken is given back by `Drop`, whichever way an exchange ends.
//!
//! Connections are waited for in the order of arrival, whatever the worker. The other limits refuse at once.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use meshgate_config::ClusterLimits;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A cluster's limits and what of them is in use.
pub struct Limits {
    /// A permit for each connection that may still be opened.
    room: Arc<Semaphore>,
    /// Permits handed out under a higher limit: so many connections end without making room.
    excess: AtomicUsize,
    /// Milliseconds.
    pending_timeout: AtomicU64,
    connections: Usage,
    pending: Usage,
    requests: Usage,
    retries: Usage,
    /// Of one request; so none is ever in use.
    interim_responses: Usage,
    /// How many there were.
    retried: AtomicU64,
    /// Told when somebody begins to wait for a connection: idle ones are to make room.
    wanted: Notify,
}

/// One limit.
#[derive(Debug, Default)]
pub struct Usage {
    now: AtomicUsize,
    most: AtomicUsize,
    overflows: AtomicU64,
}

impl Usage {
    /// How many there are.
    pub fn now(&self) -> usize {
        self.now.load(Relaxed)
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.most.load(Relaxed)
    }

    /// How often there was one too many.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    fn overflow(&self) {
        self.overflows.fetch_add(1, Relaxed);
    }

    /// Counts one more, unless that is one too many.
    fn take(&self) -> bool {
        self.take_within(self.most())
    }

    fn take_within(&self, most: usize) -> bool {
        let one_more = |now: usize| (now < most).then_some(now + 1);
        let taken = self.now.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        if !taken {
            self.overflow();
        }
        taken
    }

    fn give_back(&self) {
        self.now.fetch_sub(1, Relaxed);
    }
}

impl Limits {
    pub(super) fn new(configuration: &ClusterLimits) -> Arc<Limits> {
        let limits = Limits {
            room: Arc::new(Semaphore::new(0)),
            excess: AtomicUsize::new(0),
            pending_timeout: AtomicU64::new(0),
            connections: Usage::default(),
            pending: Usage::default(),
            requests: Usage::default(),
            retries: Usage::default(),
            interim_responses: Usage::default(),
            retried: AtomicU64::new(0),
            wanted: Notify::new(),
        };
        limits.set(configuration);
        Arc::new(limits)
    }

    /// Changes the limits. What is in use beyond a lower one stays until it ends. Called by one thread at a time.
    pub fn set(&self, configuration: &ClusterLimits) {
        let ClusterLimits {
            connections,
            pending_requests,
            pending_timeout,
            active_requests,
            retries,
            interim_responses,
        } = *configuration;
        let before = self.connections.most.swap(connections, Relaxed);
        if connections > before {
            self.make_room(connections - before);
        } else {
            let less = before - connections;
            self.excess.fetch_add(less, Relaxed);
            self.make_room(self.room.forget_permits(less));
        }
        self.pending.most.store(pending_requests, Relaxed);
        self.requests.most.store(active_requests, Relaxed);
        self.retries.most.store(retries, Relaxed);
        self.interim_responses.most.store(interim_responses, Relaxed);
        let timeout = u64::try_from(pending_timeout.as_millis()).unwrap_or(u64::MAX);
        self.pending_timeout.store(timeout, Relaxed);
    }

    /// Lets so many connections more be opened, after those that are too many.
    fn make_room(&self, more: usize) {
        let paid = |excess: usize| Some(excess.saturating_sub(more));
        let excess = self.excess.fetch_update(Relaxed, Relaxed, paid).unwrap_or(0);
        self.room.add_permits(more - more.min(excess));
    }

    /// Connections that are open or being opened.
    pub fn connections(&self) -> &Usage {
        &self.connections
    }

    /// Requests that wait for a connection.
    pub fn pending(&self) -> &Usage {
        &self.pending
    }

    /// Requests on connections.
    pub fn requests(&self) -> &Usage {
        &self.requests
    }

    /// Requests that are sent again.
    pub fn retries(&self) -> &Usage {
        &self.retries
    }

    /// Interim responses to one request.
    pub fn interim_responses(&self) -> &Usage {
        &self.interim_responses
    }

    /// There was one too many of them.
    pub(super) fn count_interim_overflow(&self) {
        self.interim_responses.overflow();
    }

    /// How long a request waits for a connection.
    pub(super) fn pending_timeout(&self) -> Duration {
        Duration::from_millis(self.pending_timeout.load(Relaxed))
    }

    /// Leave to open a connection, if there is room for one more and nobody has waited for it before.
    pub(super) fn connection(self: &Arc<Self>) -> Option<ConnectionSlot> {
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => Some(ConnectionSlot::new(self, permit)),
            Err(_) => {
                self.connections.overflow();
                None
            }
        }
    }

    /// Leave to open a connection, when there is room for one more.
    pub(super) async fn next_connection(self: &Arc<Self>) -> ConnectionSlot {
        match Arc::clone(&self.room).acquire_owned().await {
            Ok(permit) => ConnectionSlot::new(self, permit),
            // It is never closed.
            Err(_) => pending().await,
        }
    }

    /// Counts a request that waits for a connection, and asks idle connections to make room. None if too many wait.
    pub(super) fn wait(self: &Arc<Self>) -> Option<PendingSlot> {
        self.pending.take().then(|| {
            self.wanted.notify_waiters();
            PendingSlot(Arc::clone(self))
        })
    }

    /// Resolves when somebody begins to wait for a connection, if it was enabled before.
    pub(super) fn wanted(&self) -> tokio::sync::futures::Notified<'_> {
        self.wanted.notified()
    }

    /// How many idle connections should make room for others.
    pub(super) fn shortage(&self) -> usize {
        self.pending.now().saturating_sub(self.room.available_permits())
    }

    /// Counts a request on a connection; false if it is one too many.
    pub(super) fn begin_request(&self) -> bool {
        self.requests.take()
    }

    pub(super) fn end_request(&self) {
        self.requests.give_back();
    }

    /// How often requests were sent again.
    pub fn retried(&self) -> u64 {
        self.retried.load(Relaxed)
    }

    /// Leave to send a request again, for as long as the slot is held; none if too many are under way, of those that there
    /// may be or of so many as are wanted at most.
    pub fn retry(self: &Arc<Self>, at_most: Option<usize>) -> Option<RetrySlot> {
        let most = self.retries.most();
        let taken = self.retries.take_within(at_most.map_or(most, |wanted| wanted.min(most)));
        taken.then(|| {
            self.retried.fetch_add(1, Relaxed);
            RetrySlot(Arc::clone(self))
        })
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("connections", &self.connections)
            .field("pending", &self.pending)
            .field("requests", &self.requests)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// Room for one connection. Belongs to its socket.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    limits: Arc<Limits>,
    permit: Option<OwnedSemaphorePermit>,
}

impl ConnectionSlot {
    fn new(limits: &Arc<Limits>, permit: OwnedSemaphorePermit) -> ConnectionSlot {
        limits.connections.now.fetch_add(1, Relaxed);
        ConnectionSlot { limits: Arc::clone(limits), permit: Some(permit) }
    }

    /// The limits that it counts against.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.limits.connections.give_back();
        let one_less = |excess: usize| excess.checked_sub(1);
        if self.limits.excess.fetch_update(Relaxed, Relaxed, one_less).is_ok()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

/// A request that waits for a connection.
#[derive(Debug)]
pub(super) struct PendingSlot(Arc<Limits>);

impl Drop for PendingSlot {
    fn drop(&mut self) {
        self.0.pending.give_back();
    }
}

/// A request that is sent again.
#[derive(Debug)]
pub struct RetrySlot(Arc<Limits>);

impl Drop for RetrySlot {
    fn drop(&mut self) {
        self.0.retries.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(connections: usize) -> ClusterLimits {
        ClusterLimits { connections, ..ClusterLimits::default() }
    }

    #[test]
    fn no_more_is_taken_than_there_may_be_whoever_asks() {
        let settings = ClusterLimits { active_requests: 7, ..of(5) };
        let limits = Limits::new(&settings);
        let (most_requests, most_connections) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (requests, connections) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if limits.begin_request() {
                            most_requests.fetch_max(requests.fetch_add(1, Relaxed) + 1, Relaxed);
                            requests.fetch_sub(1, Relaxed);
                            limits.end_request();
                        }
                        if let Some(slot) = limits.connection() {
                            most_connections.fetch_max(connections.fetch_add(1, Relaxed) + 1, Relaxed);
                            connections.fetch_sub(1, Relaxed);
                            drop(slot);
                        }
                    }
                });
            }
        });
        assert!((1..=7).contains(&most_requests.load(Relaxed)) && limits.requests().now() == 0);
        assert!((1..=5).contains(&most_connections.load(Relaxed)) && limits.connections().now() == 0);
        let again: Vec<_> = (0..6).map_while(|_| limits.connection()).collect();
        assert_eq!(again.len(), 5, "all of them came back");
    }

    #[test]
    fn limits_change_while_they_are_in_use() {
        let limits = Limits::new(&of(4));
        let mut held: Vec<_> = (0..4).filter_map(|_| limits.connection()).collect();
        limits.set(&of(2));
        assert_eq!((limits.connections().now(), limits.connections().most()), (4, 2));
        held.truncate(2);
        assert!(limits.connection().is_none(), "two are as many as there may be");
        held.truncate(1);
        held.extend(limits.connection());
        assert_eq!(held.len(), 2);
        limits.set(&of(1));
        limits.set(&of(3));
        held.extend(limits.connection());
        assert_eq!((held.len(), limits.connection().is_none()), (3, true));
        held.clear();
        let all: Vec<_> = (0..9).map_while(|_| limits.connection()).collect();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn what_is_one_too_many_is_counted() {
        let settings = ClusterLimits { pending_requests: 1, retries: 2, ..of(1) };
        let limits = Limits::new(&settings);
        let waiting = limits.wait();
        assert!(waiting.is_some() && limits.wait().is_none());
        drop(waiting);
        assert!(limits.wait().is_some());
        let retries: Vec<_> =
            [Some(0), Some(1), Some(1), None, Some(9)].map(|most| limits.retry(most)).into();
        assert_eq!(
            retries.iter().map(Option::is_some).collect::<Vec<_>>(),
            [false, true, false, true, false]
        );
        assert_eq!((limits.pending().overflows(), limits.retries().overflows()), (1, 3));
        assert_eq!((limits.retries().now(), limits.retried()), (2, 2));
        drop(retries);
        assert_eq!(limits.retries().now(), 0);
    }
}
