//! A root context, and what it has in common with its streams.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Bound;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::half::{Half, Stage};
use super::ids::{self, IdMap};
use super::kind::{Kind, Subject};
use super::task::{self, Task, Wakeup};
use super::{calls, current, grpc_streams, timers};
use crate::body::{Body, Carries, Wants};
use crate::config::{self, ConfigError};
use crate::error::{Outcome, Stop};
use crate::host::{self, Action, BufferType, Direction};
use crate::log::{Level, line};
use crate::queue::SharedQueue;

/// A root context: a filter with its configuration, as soon as it has one.
pub(crate) struct Root<K: Kind>(pub(super) Rc<Plugin<K::Filter>>, PhantomData<K>);

/// What a root context shares with its streams.
pub(crate) struct Plugin<F> {
    pub(super) context: u32,
    pub(super) filter: RefCell<Option<Rc<F>>>,
    tick: RefCell<Option<Task>>,
    /// What takes something out of a queue.
    queue: RefCell<Option<Task>>,
    /// The filter's end.
    end: RefCell<Option<Task>>,
    /// The host waits for that.
    is_ending: Cell<bool>,
    /// The connections whose filter wants to hear of ticks.
    open: RefCell<BTreeMap<u32, Rc<dyn Ticks>>>,
    /// What tells them.
    round: RefCell<Option<Task>>,
    /// The queues that have something beside.
    ready: RefCell<Vec<u32>>,
    /// The exchanges or connections that have waited for something.
    waiting: RefCell<IdMap<Rc<dyn Waits>>>,
    /// Makes what tells the filter of a queue, if it wants to hear of any.
    on_queue: Option<OnQueue<F>>,
}

type OnQueue<F> = fn(Wakeup, Rc<F>, SharedQueue) -> Task;

/// Connections that hear of a tick in one callback. A host bounds what a callback may do.
const ROUND: usize = 64;
/// How long it takes until the next of them do.
const PAUSE: Duration = Duration::from_millis(10);

/// A connection whose filter wants to hear of ticks.
pub(super) trait Ticks {
    /// Some time has passed.
    fn tick(&self);
}

/// An exchange or a connection, as the plugin knows those that have waited for something.
trait Waits {
    /// Runs what waits on this way, outside of a callback for it.
    fn go_on(self: Rc<Self>, direction: Direction);
}

impl<K: Kind> Root<K> {
    /// `proxy_on_context_create`, for a root context.
    pub(crate) fn new(context: u32) -> Self {
        let plugin = Plugin {
            context,
            filter: RefCell::default(),
            tick: RefCell::default(),
            queue: RefCell::default(),
            end: RefCell::default(),
            is_ending: Cell::new(false),
            open: RefCell::default(),
            round: RefCell::default(),
            ready: RefCell::default(),
            waiting: RefCell::new(ids::map()),
            // What the filter does not have, is not in its module.
            on_queue: if const { K::QUEUES } {
                Some(|wakeup, filter, queue| Task::new(wakeup, K::on_queue(filter, queue)))
            } else {
                None
            },
        };
        Self(Rc::new(plugin), PhantomData)
    }

    /// `proxy_on_configure`
    pub(crate) fn configure(&self, size: usize) -> bool {
        self.enter();
        match configured::<K>(size) {
            Ok(filter) => {
                self.0.filter.replace(Some(Rc::new(filter)));
                true
            }
            Err(error) => {
                line(Level::Error, &format!("configuration refused: {error}"));
                false
            }
        }
    }

    /// `proxy_on_tick`
    pub(crate) fn tick(&self) {
        self.enter();
        let filter = self.0.filter.borrow().clone();
        // One that still waits is left to it: ticks do not pile up.
        if timers::fire(self.0.context)
            && let Some(filter) = filter
        {
            if const { K::TICKS } && self.0.tick.borrow().is_none() {
                let task = Task::new(self.0.wakeup(Direction::Request), K::on_tick(filter));
                run(&self.0.tick, task, "on_tick");
            }
            if const { K::CONNECTION_TICKS }
                && !self.0.open.borrow().is_empty()
                && self.0.round.borrow().is_none()
            {
                let task = Task::new(self.0.wakeup(Direction::Request), round(Rc::clone(&self.0)));
                run(&self.0.round, task, "on_connection_tick");
            }
        }
        self.0.settle(self.0.context);
    }

    /// `proxy_on_done`, for a root context: whether there is nothing left to do.
    pub(crate) fn end(&self) -> bool {
        if const { !K::ENDS } {
            return true;
        }
        let Some(filter) = self.0.filter.borrow().clone() else { return true };
        self.enter();
        let task = Task::new(self.0.wakeup(Direction::Request), K::on_end(filter));
        run(&self.0.end, task, "on_end");
        self.0.settle(self.0.context);
        let waits = self.0.end.borrow().is_some();
        self.0.is_ending.set(waits);
        !waits
    }

    /// `proxy_on_queue_ready`
    pub(crate) fn queue_ready(&self, queue: u32) {
        self.enter();
        let mut ready = self.0.ready.borrow_mut();
        if !ready.contains(&queue) {
            ready.push(queue);
        }
        drop(ready);
        self.0.look_into_queues();
        self.0.settle(self.0.context);
    }

    /// `proxy_on_http_call_response`, of a call that was made in a callback of this context.
    pub(crate) fn http_call_response(&self, token: u32, headers: usize, body: usize, trailers: usize) {
        self.enter();
        calls::http_answered(token, headers, body, trailers);
        self.0.settle(self.0.context);
    }

    /// `proxy_on_grpc_receive` and `proxy_on_grpc_close`, of such a call.
    pub(crate) fn grpc_call_response(&self, token: u32, status: u32, size: usize) {
        self.enter();
        calls::grpc_answered(token, status, size);
        self.0.settle(self.0.context);
    }

    /// `proxy_on_grpc_receive` and its like, of a stream that was opened in a callback of this context.
    pub(crate) fn grpc_stream(&self, id: u32, part: grpc_streams::Part) {
        self.enter();
        grpc_streams::received(id, part);
        self.0.settle(self.0.context);
    }

    fn enter(&self) {
        current::enter(self.0.context, self.0.context);
    }
}

/// `proxy_on_delete`
impl<K: Kind> Drop for Root<K> {
    fn drop(&mut self) {
        drop((self.0.tick.take(), self.0.queue.take(), self.0.end.take(), self.0.round.take()));
        timers::forget(self.0.context);
    }
}

impl<K: Kind> std::fmt::Debug for Root<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("context", &self.0.context).finish_non_exhaustive()
    }
}

impl<F> Plugin<F> {
    /// A callback for a body, or for what one side of a connection sends; `begin` runs the filter's when it begins.
    pub(super) fn body<S: Subject>(
        &self,
        subject: &Rc<S>,
        direction: Direction,
        size: usize,
        end: bool,
        begin: impl FnOnce(Body) -> Poll<Outcome>,
    ) -> Action {
        let half = subject.half(direction);
        let is_busy = half.is_busy();
        if is_busy && half.stage.get() == Stage::Head {
            return Action::Pause;
        }
        if half.has_begun.get() && !is_busy {
            // What the filter wanted of this body it has had.
            return half.pass();
        }
        self.enter(&**subject);
        half.body.grew(size, end);
        let outcome = if half.has_begun.replace(true) {
            half.poll()
        } else {
            half.stage.set(Stage::Body);
            let carrier = Rc::clone(subject) as Rc<dyn Carries>;
            begin(Body::new(carrier, direction))
        };
        self.concluded(subject, direction, outcome)
    }

    /// `proxy_on_http_call_response`, of a call that was made in a callback of this stream context.
    pub(super) fn http_call_response(
        &self,
        subject: &impl Subject,
        token: u32,
        headers: usize,
        body: usize,
        trailers: usize,
    ) {
        self.enter(subject);
        calls::http_answered(token, headers, body, trailers);
        self.settle(subject.context());
    }

    /// `proxy_on_grpc_receive` and `proxy_on_grpc_close`, of such a call.
    pub(super) fn grpc_call_response(&self, subject: &impl Subject, token: u32, status: u32, size: usize) {
        self.enter(subject);
        calls::grpc_answered(token, status, size);
        self.settle(subject.context());
    }

    /// A connection whose filter wants to hear of ticks has begun.
    pub(super) fn opened(&self, context: u32, connection: Rc<dyn Ticks>) {
        self.open.borrow_mut().insert(context, connection);
    }

    /// It is over.
    pub(super) fn closed(&self, context: u32) {
        drop(self.open.borrow_mut().remove(&context));
    }

    /// Tells the first connections after this one of a tick; which was the last of them, if there are more.
    fn tell_connections(&self, after: u32) -> Option<u32> {
        let next: Vec<_> = {
            let open = self.open.borrow();
            let after = open.range((Bound::Excluded(after), Bound::Unbounded));
            after.take(ROUND).map(|(context, connection)| (*context, Rc::clone(connection))).collect()
        };
        for (context, connection) in &next {
            host::set_effective_context(*context);
            current::act_for(*context);
            connection.tick();
        }
        host::set_effective_context(self.context);
        current::act_for(self.context);
        next.last().filter(|_| next.len() == ROUND).map(|(context, _)| *context)
    }

    /// `proxy_on_grpc_receive` and its like, of a stream that was opened in a callback of this stream context.
    pub(super) fn grpc_stream(&self, subject: &impl Subject, id: u32, part: grpc_streams::Part) {
        self.enter(subject);
        grpc_streams::received(id, part);
        self.settle(subject.context());
    }

    /// A callback that nobody waits for.
    pub(super) fn tell(&self, subject: &impl Subject, tell: impl FnOnce()) {
        self.enter(subject);
        tell();
        self.settle(subject.context());
    }

    /// `proxy_on_delete`, of a stream context. What waits owns the subject that owns it.
    pub(super) fn over(&self, subject: &impl Subject) {
        let context = subject.context();
        if subject.has_waited().get() {
            subject.cancel();
            self.waiting.borrow_mut().remove(&context);
            calls::abandon(context);
        }
        grpc_streams::abandon(context);
        current::leave(self.context, context);
        self.settle(context);
    }

    pub(super) fn enter(&self, subject: &impl Subject) {
        current::enter(self.context, subject.context());
    }

    /// What the host is told when a callback of a stream context returns.
    pub(super) fn concluded<S: Subject>(
        &self,
        subject: &Rc<S>,
        direction: Direction,
        outcome: Poll<Outcome>,
    ) -> Action {
        let half = subject.half(direction);
        let action = match outcome {
            Poll::Ready(Ok(())) => half.pass(),
            Poll::Ready(Err(stop)) => {
                subject.stop(stop, S::callback(direction, half.stage.get()));
                Action::Pause
            }
            Poll::Pending => {
                if !subject.has_waited().replace(true) {
                    self.waiting.borrow_mut().insert(subject.context(), Rc::clone(subject) as Rc<dyn Waits>);
                }
                // Trailers end the body: there is no next part to let through for.
                let holds_all = half.trailers_due.get() || half.stage.get() != Stage::Body;
                if holds_all { half.hold() } else { half.hold_body() }
            }
        };
        self.settle(subject.context());
        action
    }

    /// Runs what this callback has woken. Hostcalls act for the context `effective`, until told otherwise.
    fn settle(&self, mut effective: u32) {
        while let Some(Wakeup { context, direction, .. }) = task::next_woken(self.context) {
            let subject = self.waiting.borrow().get(&context).cloned();
            if subject.is_none() && context != self.context {
                // It is over.
                continue;
            }
            if context != effective {
                host::set_effective_context(context);
                effective = context;
            }
            current::act_for(context);
            match subject {
                Some(subject) => subject.go_on(direction),
                None => self.go_on(direction),
            }
        }
    }

    /// Runs the root context's own tasks that may have been woken.
    fn go_on(&self, direction: Direction) {
        let again = |place: &RefCell<Option<Task>>, name| {
            let task = place.take();
            task.into_iter().for_each(|task| run(place, task, name));
        };
        match direction {
            Direction::Request => {
                again(&self.tick, "on_tick");
                again(&self.round, "on_connection_tick");
                again(&self.end, "on_end");
            }
            Direction::Response => again(&self.queue, "on_queue"),
        }
        self.look_into_queues();
        if self.end.borrow().is_none() && self.is_ending.replace(false) {
            host::done();
        }
    }

    /// Tells the filter of a queue, and then of the next.
    fn look_into_queues(&self) {
        let Some(on_queue) = self.on_queue else { return };
        let next = || if self.queue.borrow().is_none() { self.ready.borrow_mut().pop() } else { None };
        while let Some(queue) = next() {
            let Some(filter) = self.filter.borrow().clone() else { return };
            let queue = SharedQueue::of_host(queue);
            run(&self.queue, on_queue(self.wakeup(Direction::Response), filter, queue), "on_queue");
        }
    }

    fn wakeup(&self, direction: Direction) -> Wakeup {
        Wakeup { plugin: self.context, context: self.context, direction }
    }
}

/// Tells all connections of a tick, some at a time.
async fn round<F>(plugin: Rc<Plugin<F>>) -> Outcome {
    let mut last = 0;
    while let Some(told) = plugin.tell_connections(last) {
        last = told;
        // Where there is no clock there are no ticks.
        let _ = timers::sleep(PAUSE).await;
    }
    Ok(())
}

/// Runs a root context's task until it waits.
fn run(place: &RefCell<Option<Task>>, mut task: Task, name: &str) {
    match task.poll() {
        Poll::Pending => drop(place.replace(Some(task))),
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(Stop::Failed(message))) => {
            line(Level::Error, &format!("{name} failed: {message}"));
        }
        Poll::Ready(Err(Stop::Reply(reply))) => {
            line(Level::Error, &format!("{name}: nobody to answer with {}", reply.status()));
        }
        Poll::Ready(Err(Stop::Reset)) => line(Level::Error, &format!("{name}: there is nothing to reset")),
    }
}

/// What becomes of a body that the filter has no callback for: a host may deliver it while the head is held.
pub(super) fn meanwhile(half: &Half) -> Action {
    if half.is_busy() { Action::Pause } else { Action::Continue }
}

impl<S: Subject> Waits for S {
    fn go_on(self: Rc<Self>, direction: Direction) {
        let half = self.half(direction);
        if !half.is_busy() {
            return;
        }
        let mut outcome = half.poll();
        if half.trailers_due.get() && matches!(outcome, Poll::Ready(Ok(()))) {
            outcome = self.after_body(direction);
        }
        let callback = S::callback(direction, half.stage.get());
        let lets_go = match outcome {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(stop)) => {
                self.stop(stop, callback);
                false
            }
            Poll::Pending => half.wants() == Wants::Next,
        };
        if lets_go
            && half.take_held()
            && let Err(status) = self.resume(direction)
        {
            line(Level::Error, &format!("{callback}: the host does not resume: {status}"));
        }
    }
}

fn configured<K: Kind>(size: usize) -> Result<K::Filter, ConfigError> {
    let bytes = match size {
        0 => Vec::new(),
        _ => host::buffer(BufferType::PluginConfiguration, 0, size).map_err(|status| {
            ConfigError::new(format_args!("the host gave no access to the configuration: {status}"))
        })?,
    };
    K::configure(config::parse(&bytes)?)
}
