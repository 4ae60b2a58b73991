//! An endpoint's HTTP/2 connections on one worker: who gets a stream on which, and who waits.
//!
//! The oldest connection with room is used first, so the others grow idle and are closed when the load lessens.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use meshgate_config::Address;

use super::connection::{Connection, Crowd};
use crate::upstream::attempt::Queued;
use crate::upstream::dial::Dialer;
use crate::upstream::error::{UpstreamError, UpstreamErrorKind};
use crate::upstream::limits::{ConnectionSlot, Limits};
use crate::upstream::sweep::{self, Sweeps, Swept};

/// Most connections per endpoint and worker: a peer that allows one request at a time on each gets no more of them.
const MAX_CONNECTIONS: usize = 64;

/// An endpoint's connections.
pub(in crate::upstream) struct Connections {
    address: Address,
    dialer: Rc<Dialer>,
    open: RefCell<Vec<Rc<Connection>>>,
    crowd: Rc<Crowd>,
    /// One is being opened; another one at the same time would only be more than needed.
    opening: Cell<bool>,
    /// How often opening one failed, and why the last time.
    failures: Cell<u64>,
    failure: RefCell<Option<UpstreamError>>,
    limits: Arc<Limits>,
    sweeps: Sweeps,
}

/// Room for one request on a connection, for as long as it is held.
pub(super) struct Room {
    pub(super) connection: Rc<Connection>,
    connections: Rc<Connections>,
}

impl Connections {
    pub(in crate::upstream) fn new(
        address: Address,
        dialer: &Rc<Dialer>,
        idle_timeout: Duration,
        limits: &Arc<Limits>,
    ) -> Rc<Connections> {
        Rc::new(Connections {
            address,
            dialer: Rc::clone(dialer),
            open: RefCell::default(),
            crowd: Rc::default(),
            opening: Cell::new(false),
            failures: Cell::new(0),
            failure: RefCell::new(None),
            limits: Arc::clone(limits),
            sweeps: Sweeps::new(idle_timeout, limits),
        })
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// The limits of their cluster.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether they are made through TLS.
    pub(super) fn are_secure(&self) -> bool {
        self.dialer.is_secure()
    }

    /// Those on which nothing happens.
    pub(in crate::upstream) fn idle(&self) -> usize {
        self.open.borrow().iter().filter(|connection| connection.streams.get() == 0).count()
    }

    /// All of them.
    #[cfg(test)]
    pub(in crate::upstream) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Room for a request, on a connection that is there or on a new one, which is opened in the time that connecting may take.
    pub(super) async fn room(self: &Rc<Self>, queued: &Queued) -> Result<Room, UpstreamError> {
        match self.take() {
            Some(room) => Ok(room),
            None => {
                let _waiting = Waiting::new(&self.crowd);
                Box::pin(self.wait(queued)).await
            }
        }
    }

    async fn wait(self: &Rc<Self>, queued: &Queued) -> Result<Room, UpstreamError> {
        let failures = self.failures.get();
        let mut late = pin!(tokio::time::sleep(self.limits.pending_timeout()));
        let mut pending = None;
        let mut leave = None;
        loop {
            let changed = self.crowd.changed.notified();
            queued.end();
            if let Some(room) = self.take() {
                return Ok(room);
            }
            // Whoever waited while opening one failed has failed too: a queue of timeouts helps nobody.
            if self.failures.get() != failures
                && let Some(error) = self.failure.borrow().clone()
            {
                return Err(error);
            }
            let opening = self.opening.get();
            let may_open = !opening && self.open.borrow().len() < MAX_CONNECTIONS;
            if may_open && let Some(slot) = leave.take().or_else(|| self.limits.connection()) {
                self.add(slot).await?;
                // Nothing was waited for since it opened. A peer that closes it at once is not tried again and again.
                let closed =
                    || self.failed(UpstreamErrorKind::ConnectFailed, "closed as soon as it was open");
                return self.take().ok_or_else(closed);
            }
            if !opening {
                if pending.is_none() {
                    let too_many = || self.failed(UpstreamErrorKind::Overflow, "too many requests wait");
                    pending = Some(self.limits.wait().ok_or_else(too_many)?);
                }
                queued.begin();
            }
            tokio::select! {
                () = changed => {}
                slot = self.limits.next_connection(), if may_open => leave = Some(slot),
                () = &mut late => {
                    return Err(self.failed(UpstreamErrorKind::Overflow, "no room was free in time"));
                }
            }
        }
    }

    /// Opens a connection. If this is given up, the next one who waits opens it.
    async fn add(self: &Rc<Self>, slot: ConnectionSlot) -> Result<(), UpstreamError> {
        let _opening = Opening::new(self);
        let timeout = self.dialer.timeout();
        let opening = Connection::open(self.address, &self.crowd, &self.dialer, slot);
        let opened = tokio::time::timeout(timeout, opening).await;
        let late =
            || self.failed(UpstreamErrorKind::ConnectTimeout, &format!("no answer within {timeout:?}"));
        match opened.unwrap_or_else(|_| Err(late())) {
            Ok(connection) => {
                connection.idle_since.set(self.sweeps.now());
                self.open.borrow_mut().push(connection);
                sweep::start(self);
                Ok(())
            }
            Err(error) => {
                self.failures.set(self.failures.get() + 1);
                self.failure.replace(Some(error.clone()));
                Err(error)
            }
        }
    }

    /// Room on a connection that is there, if there is any. Forgets those that are closed.
    fn take(self: &Rc<Self>) -> Option<Room> {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| !connection.is_closed());
        let connection = open.iter().find(|connection| connection.has_room())?;
        connection.streams.set(connection.streams.get() + 1);
        Some(Room { connection: Rc::clone(connection), connections: Rc::clone(self) })
    }

    fn failed(&self, kind: UpstreamErrorKind, details: &str) -> UpstreamError {
        UpstreamError::new(kind, Some(self.address), details)
    }
}

impl Swept for Connections {
    fn sweeps(&self) -> &Sweeps {
        &self.sweeps
    }

    fn close_expired(&self) -> bool {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| {
            let expired = self.sweeps.expired(connection.idle_since.get());
            !connection.is_closed() && (connection.streams.get() > 0 || !expired)
        });
        !open.is_empty()
    }

    fn make_room(&self) -> bool {
        let mut wanted = if self.crowd.waiting.get() > 0 { 0 } else { self.limits.shortage() };
        let mut open = self.open.borrow_mut();
        open.retain(|connection| {
            let goes = wanted > 0 && connection.streams.get() == 0;
            wanted -= usize::from(goes);
            !goes
        });
        !open.is_empty()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get().saturating_sub(1));
        connection.idle_since.set(self.connections.sweeps.now());
        self.connections.crowd.one();
        // An idle connection may be what others wait for.
        if connection.streams.get() == 0 && self.connections.limits.pending().now() > 0 {
            self.connections.make_room();
        }
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a Crowd);

impl Waiting<'_> {
    fn new(crowd: &Crowd) -> Waiting<'_> {
        crowd.waiting.set(crowd.waiting.get() + 1);
        Waiting(crowd)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

/// Marks that a connection is being opened.
struct Opening<'a>(&'a Connections);

impl Opening<'_> {
    fn new(connections: &Connections) -> Opening<'_> {
        connections.opening.set(true);
        Opening(connections)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.set(false);
        self.0.crowd.all();
    }
}
