//! What one TCP connection shares with its filters: the attributes, the filters' places, the cluster they chose, and the
//! waker of whoever waits for a paused filter. One worker, one thread: everything is `Rc` and `Cell`.

mod flow;
mod run;

use std::any::Any;
use std::cell::{Cell, Ref, RefCell, RefMut};
use std::rc::Rc;
use std::task::{Context, Waker};

use meshgate_wasm::{Attributes, Callbacks, Exchange, PeerType};

pub use self::flow::Flow;
use self::run::Run;
use super::failure::Stop;
use super::log_entry::Noted;
use super::{Chain, Target, Targets};
use crate::telemetry::LogFields;

/// The end of a session at which data comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Downstream,
    /// The endpoint.
    Upstream,
}

/// What a session is made of.
pub struct SessionParts {
    /// What is known of the connection.
    pub attributes: Attributes,
    /// The listener's chain.
    pub chain: Rc<Chain>,
    /// The clusters that a filter may choose.
    pub clusters: Targets,
}

/// A TCP connection of a client, joined with one to an endpoint, as its filters share it.
pub struct Session {
    attributes: RefCell<Attributes>,
    runs: Box<[Run]>,
    clusters: Targets,
    cluster: RefCell<Option<Rc<str>>>,
    connected: Cell<bool>,
    closed: Cell<bool>,
    finished: Cell<bool>,
    waker: Cell<Option<Waker>>,
    log_fields: RefCell<LogFields>,
}

impl Session {
    /// A session at its beginning. No filter has heard of it.
    pub fn new(parts: SessionParts) -> Rc<Session> {
        let runs = parts.chain.filters.iter().enumerate().map(|(place, filter)| Run::new(filter, place));
        Rc::new(Session {
            attributes: RefCell::new(parts.attributes),
            runs: runs.collect(),
            clusters: parts.clusters,
            cluster: RefCell::new(None),
            connected: Cell::new(false),
            closed: Cell::new(false),
            finished: Cell::new(false),
            waker: Cell::new(None),
            log_fields: RefCell::default(),
        })
    }

    /// What is known of the connection. Not to be borrowed while a filter runs.
    pub fn attributes(&self) -> &RefCell<Attributes> {
        &self.attributes
    }

    /// What filters added to the session's entry in the access log.
    pub fn log_fields(&self) -> Ref<'_, LogFields> {
        self.log_fields.borrow()
    }

    /// The flags and fields that filters set.
    pub(super) fn noted(&self) -> Noted<'_> {
        let flags = RefMut::map(self.attributes.borrow_mut(), |attributes| &mut attributes.response_flags);
        Noted { flags, fields: self.log_fields.borrow_mut() }
    }

    /// The cluster that a filter chose.
    pub fn cluster(&self) -> Option<Rc<str>> {
        self.cluster.borrow().clone()
    }

    /// A filter chooses the cluster, and gives the choice a name, which may be empty, or leaves it the one it has. `false`
    /// if there is no such cluster, or if it is too late: the endpoint's connection is there.
    pub(super) fn choose(&self, cluster: &str, route: Option<&str>) -> bool {
        let Some(target) = (self.clusters)(cluster).filter(|_| !self.connected.get()) else { return false };
        let Target { name, metadata } = target;
        let mut attributes = self.attributes.borrow_mut();
        if let Some(route) = route {
            attributes.route = (!route.is_empty()).then(|| Rc::from(route));
        }
        attributes.cluster = Some(Rc::clone(&name));
        attributes.cluster_metadata = metadata;
        *self.cluster.borrow_mut() = Some(name);
        true
    }

    /// The endpoint's connection is there: its end will be told to the filters.
    pub fn connected(&self) {
        self.connected.set(true);
    }

    /// From now on this task is woken when a filter is resumed, or closes the session, from outside of its callbacks, and when
    /// a callback for one side resumes the other.
    pub fn park(&self, cx: &Context<'_>) {
        if !self.runs.is_empty() {
            self.waker.set(Some(cx.waker().clone()));
        }
    }

    /// Whether a filter closed the session.
    ///
    /// # Errors
    /// It did.
    pub fn check(&self) -> Result<(), Stop> {
        if self.runs.iter().any(Run::take_closed) {
            self.closed.set(true);
        }
        if self.closed.get() { Err(Stop::Closed) } else { Ok(()) }
    }

    /// Ends every filter's part, first to last: it hears who ended the connections, then done, log, delete. What fails
    /// here is told by the VM: the session is over.
    pub fn finish(self: &Rc<Self>, downstream: PeerType, upstream: PeerType) {
        for run in &self.runs {
            if self.connected.get() {
                let _ = run.tell_upstream_closed(self, upstream);
            }
            run.finish(self, downstream);
        }
        self.finished.set(true);
    }

    fn is_finished(&self) -> bool {
        self.finished.get()
    }

    fn close(&self) {
        self.closed.set(true);
    }

    /// Whether any filter has one of these callbacks.
    fn wants(&self, callbacks: Callbacks) -> bool {
        self.runs.iter().any(|run| run.wants(callbacks))
    }
}

impl Exchange for Session {
    fn tcp(&self) -> Option<&RefCell<Attributes>> {
        Some(&self.attributes)
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
