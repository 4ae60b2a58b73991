//! What a VM's store holds: the contexts, the callback that is running with its budgets, and the ways to the
//! world outside.

use std::cell::RefMut;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::{Memory, StoreContextMut, TypedFunc, UpdateDeadline};

use crate::body::BodyBuffer;
use crate::contexts::{Contexts, Entry, Root, Stream};
use crate::engine::{TICK, Ticks};
use crate::growth::Growth;
use crate::grpc::{GrpcEvent, GrpcTable};
use crate::host::{CallFailure, Host, HttpCallResponse};
use crate::limits::Limit;
use crate::module::AbiVersion;
use crate::phase::Phase;
use crate::remains::Data;
use crate::shared::{InstancePermit, KnownQueues, Mailbox, Namespace, Shared};
use crate::status::Status;
use crate::tables::MetricTable;
use crate::vm::Vm;

/// How many times its limit a callback may take without being stopped, before that is a failure.
const LATE: u32 = 2;
/// For so many ticks a VM's callbacks are measured after one that was late: a minute.
const MEASURED: u64 = 60_000;

/// The data of a VM's store.
pub(crate) struct VmState {
    pub(crate) vm: Weak<Vm>,
    pub(crate) host: Rc<dyn Host>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) abi: AbiVersion,
    pub(crate) environment: Vec<u8>,
    pub(crate) environment_count: u32,
    /// None while the module's `start` function runs.
    pub(crate) memory: Option<Memory>,
    /// The guest's allocator. To clone what is inside takes a dozen steps, some of them atomic.
    pub(crate) allocate: Option<Rc<TypedFunc<u32, u32>>>,
    pub(crate) contexts: Contexts,
    pub(crate) metrics: MetricTable,
    pub(crate) queues: KnownQueues,
    pub(crate) grpc: GrpcTable,
    pub(crate) running: Running,
    /// Contexts for which the guest called `proxy_done`; to be ended when the callback has returned.
    pub(crate) ended: Vec<u32>,
    pub(crate) growth: Growth,
    /// Of an instance for one exchange: its place among those that there may be.
    #[expect(dead_code, reason = "given back when the instance is dropped")]
    pub(crate) permit: Option<InstancePermit>,
}

/// The callback that is running.
pub(crate) struct Running {
    pub(crate) phase: Phase,
    /// The context the callback was made on.
    pub(crate) entered: Option<Entry>,
    /// The context hostcalls act on instead, if the guest chose one.
    effective: Option<Entry>,
    pub(crate) end_of_stream: bool,
    pub(crate) allocating: bool,
    hostcalls_left: u32,
    copied_left: u64,
    ticks: Arc<Ticks>,
    /// The tick at which the callback began.
    began: u64,
    /// The tick at which its deadline is to be looked at.
    look_at: u64,
    looks: Looks,
    /// The tick until which callbacks are measured.
    measured_until: u64,
    /// The thread's CPU time when the callback began, if it is measured.
    began_cpu: Option<Duration>,
    /// During `proxy_on_http_call_response`.
    pub(crate) call: Option<Result<Rc<HttpCallResponse>, CallFailure>>,
    /// During the callbacks of gRPC.
    pub(crate) grpc: Option<GrpcEvent>,
    /// During `proxy_on_foreign_function`: buffer 8.
    pub(crate) argument: Option<Bytes>,
}

/// A buffer that belongs to a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// The HTTP request's body.
    Request,
    /// The HTTP response's body.
    Response,
    /// What the client of a TCP connection sent.
    Downstream,
    /// What the endpoint of a TCP connection sent.
    Upstream,
}

/// Why the host stops a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overrun {
    #[error("deadline")]
    Deadline(Duration),
    #[error("more than {0} hostcalls in one callback")]
    Hostcalls(u32),
    #[error("more than {0} bytes copied in one callback")]
    Copied(u64),
    #[error("a hostcall from inside of the allocator")]
    Allocator,
}

impl Overrun {
    /// The limit, as it is counted when it was met in this phase.
    pub(crate) fn limit(self, phase: Phase) -> Limit {
        match self {
            Overrun::Deadline(_) => match phase {
                Phase::RequestBody | Phase::ResponseBody => Limit::BodyTime,
                phase if phase.is_start() => Limit::StartTime,
                _ => Limit::Time,
            },
            Overrun::Hostcalls(_) => Limit::Hostcalls,
            Overrun::Copied(_) => Limit::Copied,
            Overrun::Allocator => Limit::Allocator,
        }
    }
}

impl Running {
    pub(crate) fn new(ticks: Arc<Ticks>) -> Running {
        Running {
            phase: Phase::Initialize,
            entered: None,
            effective: None,
            end_of_stream: false,
            allocating: false,
            hostcalls_left: u32::MAX,
            copied_left: u64::MAX,
            ticks,
            began: 0,
            look_at: u64::MAX,
            looks: Looks::default(),
            measured_until: 0,
            began_cpu: None,
            call: None,
            grpc: None,
            argument: None,
        }
    }

    /// Sets the callback up; returns the epoch ticks until its deadline is to be looked at.
    pub(crate) fn begin(&mut self, phase: Phase, entry: &Entry, end_of_stream: bool) -> u64 {
        let core = entry.core();
        let first = core.deadline(phase, is_starting(phase, entry)).first;
        self.phase = phase;
        self.end_of_stream = end_of_stream;
        self.allocating = false;
        self.hostcalls_left = core.hostcalls;
        self.copied_left = core.copied;
        self.entered = Some(entry.clone());
        self.began = self.ticks.now();
        self.look_at = self.began + first;
        self.looks = Looks::default();
        self.began_cpu = (self.began < self.measured_until).then(thread_time);
        first
    }

    /// Stops the guest if its time is over, as the epoch does. For hostcalls: the epoch is looked at in loops and where
    /// functions begin, but not around calls of the host, of which ten thousand can stand one behind the other.
    pub(crate) fn in_time(&mut self) -> Result<(), Overrun> {
        if self.ticks.now() < self.look_at { Ok(()) } else { self.look().map(drop) }
    }

    /// The ticks until the deadline is to be looked at again. By the epoch and by hostcalls: whoever comes first.
    #[cold]
    fn look(&mut self) -> Result<u64, Overrun> {
        let now = self.ticks.now();
        if now >= self.look_at {
            self.look_at = now + self.deadline().expired(&mut self.looks)?;
        }
        Ok(self.look_at - now)
    }

    /// The ticks since the callback began.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks.now() - self.began
    }

    fn deadline(&self) -> Deadline {
        let of = |entry: &Entry| entry.core().deadline(self.phase, is_starting(self.phase, entry));
        self.entered.as_ref().map_or(Deadline::new(Duration::ZERO), of)
    }

    /// What a callback returned by itself after so many ticks. If that took far too long, in a hostcall behind which nobody
    /// looked, it has failed like one that was stopped.
    pub(crate) fn returned<T>(&mut self, result: T, ticks: u64) -> wasmtime::Result<T> {
        if self.began + ticks >= self.look_at {
            self.returned_late(ticks).map_err(wasmtime::Error::new)?;
        }
        Ok(result)
    }

    /// The ticks do not tell a thread that ran from one that was not let run, and asking for its CPU time at the beginning
    /// would cost each callback as much as it takes itself. So the first that is late only has the next ones measured, unless
    /// its deadline was looked at meanwhile.
    #[cold]
    fn returned_late(&mut self, ticks: u64) -> Result<(), Overrun> {
        let deadline = self.deadline();
        if ticks <= deadline.far_over() {
            return Ok(());
        }
        self.measured_until = self.began + ticks + MEASURED;
        let since = self.began_cpu.or(self.looks.noted);
        let used = since.map_or(Duration::ZERO, |since| thread_time().saturating_sub(since));
        let limit = deadline.limit;
        if used > limit.saturating_mul(LATE) { Err(Overrun::Deadline(limit)) } else { Ok(()) }
    }

    /// The context hostcalls act on.
    pub(crate) fn effective(&self) -> Option<&Entry> {
        self.effective.as_ref().or(self.entered.as_ref())
    }

    /// Until the callback returns.
    pub(crate) fn set_effective(&mut self, entry: Entry) {
        self.effective = Some(entry);
    }

    pub(crate) fn finish(&mut self) {
        self.entered = None;
        self.effective = None;
    }

    /// Counts one hostcall.
    pub(crate) fn charge_call(&mut self) -> Result<(), Overrun> {
        match self.hostcalls_left.checked_sub(1) {
            Some(left) => {
                self.hostcalls_left = left;
                Ok(())
            }
            None => Err(Overrun::Hostcalls(self.limit(|limits| limits.hostcalls))),
        }
    }

    /// Counts bytes copied between guest and host.
    pub(crate) fn charge_bytes(&mut self, bytes: usize) -> Result<(), Overrun> {
        match self.copied_left.checked_sub(bytes as u64) {
            Some(left) => {
                self.copied_left = left;
                Ok(())
            }
            None => Err(Overrun::Copied(self.limit(|limits| limits.copied))),
        }
    }

    /// Bytes that may still be copied.
    pub(crate) fn copied_left(&self) -> u64 {
        self.copied_left
    }

    fn limit<T: Default>(&self, of: impl Fn(&crate::Limits) -> T) -> T {
        self.entered.as_ref().map(|entry| of(&entry.core().spec.limits)).unwrap_or_default()
    }
}

impl VmState {
    /// What is left is of no instance any more. The memory that it had.
    pub(crate) fn forget_instance(&mut self) -> Option<Memory> {
        self.growth.give_all_back();
        self.allocate = None;
        self.memory.take()
    }

    /// The root context of the effective one. There is one in every callback.
    pub(crate) fn root(&self) -> Result<&Rc<Root>, Status> {
        self.running.effective().map(Entry::root).ok_or(Status::InternalFailure)
    }

    /// The stream that is the effective context.
    pub(crate) fn stream(&self) -> Option<&Rc<Stream>> {
        match self.running.effective() {
            Some(Entry::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    /// Whether hostcalls act on another context than the one the callback was made on: the embedder is then not
    /// about to look at it.
    pub(crate) fn acts_on_another(&self) -> bool {
        match (&self.running.entered, self.running.effective()) {
            (Some(entered), Some(effective)) => entered.id() != effective.id(),
            _ => false,
        }
    }

    /// The effective stream's body or data with this number, if it is there to be read: during the callback for it, which is that
    /// of this phase, or while something is held.
    pub(crate) fn body(stream: &Stream, phase: Option<Phase>, body: Body) -> Option<RefMut<'_, BodyBuffer>> {
        let (tcp, buffer, callback) = match body {
            Body::Request => (false, &stream.request_body, Phase::RequestBody),
            Body::Response => (false, &stream.response_body, Phase::ResponseBody),
            Body::Downstream => (true, &stream.request_body, Phase::DownstreamData),
            Body::Upstream => (true, &stream.response_body, Phase::UpstreamData),
        };
        if tcp != stream.tcp {
            return None;
        }
        // Held by the embedder only if it broke its contract.
        let buffer = buffer.try_borrow_mut().ok()?;
        (phase == Some(callback) || !buffer.is_empty()).then_some(buffer)
    }
}

/// How long a callback may run, in two parts: when the first is over, the thread's CPU time is noted; when the second is
/// over, the guest is stopped if it really ran. A thread that the machine did not let run gets more time, tick by tick, up
/// to [`Deadline::STRETCH`] times the limit, so that a busy machine does not kill innocent filters.
///
/// Both parts together are the limit and one tick, since the tick that runs at the start has begun already: a guest that
/// loops is stopped after its limit and before a tick more.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    limit: Duration,
    /// Ticks until the first look.
    first: u64,
    /// Ticks from there to the second.
    second: u64,
}

/// What was found by looking at a callback's deadline.
#[derive(Default)]
struct Looks {
    /// The thread's CPU time at the first look.
    noted: Option<Duration>,
    /// Ticks given beyond the second.
    more: u64,
}

impl Deadline {
    const STRETCH: u64 = 20;

    pub(crate) fn new(limit: Duration) -> Deadline {
        let ticks = limit.as_micros().div_ceil(TICK.as_micros()) + 1;
        // The longest that can be added to an epoch without wrapping, stretched.
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX).clamp(2, u64::MAX / 64);
        let second = ticks / 2;
        Deadline { limit, first: ticks - second, second }
    }

    /// Ticks after which a callback that has returned is looked at.
    fn far_over(&self) -> u64 {
        (self.first + self.second) * u64::from(LATE)
    }

    /// The ticks until the next look.
    fn expired(&self, looks: &mut Looks) -> Result<u64, Overrun> {
        let cpu = thread_time();
        let Some(noted) = looks.noted else {
            looks.noted = Some(cpu);
            return Ok(self.second);
        };
        // Nearly all of the second part: a ticker that was late makes up for it by ticks that are too short.
        let wanted = (self.limit / 2).saturating_sub(TICK / 2).max(TICK / 2);
        let missing = wanted.saturating_sub(cpu.saturating_sub(noted));
        let most = (self.first + self.second) * (Deadline::STRETCH - 1);
        if missing.is_zero() || looks.more >= most {
            return Err(Overrun::Deadline(self.limit));
        }
        let ticks = u64::try_from(missing.as_micros().div_ceil(TICK.as_micros())).unwrap_or(self.second);
        let ticks = ticks.clamp(1, self.second);
        looks.more += ticks;
        Ok(ticks)
    }
}

/// Whether a callback is one of a plugin that starts.
fn is_starting(phase: Phase, entry: &Entry) -> bool {
    phase.is_start() || (phase == Phase::ContextCreate && matches!(entry, Entry::Root(_)))
}

/// What a store does when the epoch reaches its deadline.
pub(crate) fn epoch_reached(mut store: StoreContextMut<'_, Data>) -> wasmtime::Result<UpdateDeadline> {
    let ticks = store.data_mut().running.look().map_err(wasmtime::Error::new)?;
    Ok(UpdateDeadline::Continue(ticks))
}

/// CPU time of this thread.
pub(crate) fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_loops_is_stopped_within_its_limit_and_a_tick() {
        for micros in [0, 1, 999, 1_000, 1_001, 2_000, 5_000, 10_000, 20_000, 1_000_000] {
            let limit = Duration::from_micros(micros);
            let Deadline { first, second, .. } = Deadline::new(limit);
            // Entered just before a tick, or just after one.
            let (soonest, latest) = (first + second - 1, first + second);
            assert!(TICK * u32::try_from(soonest).unwrap() >= limit, "{limit:?}");
            assert!(TICK * u32::try_from(latest).unwrap() < limit + 2 * TICK + TICK / 500, "{limit:?}");
            assert!(first >= 1 && second >= 1);
        }
    }

    #[test]
    fn a_guest_that_was_not_let_run_gets_more_time_but_not_for_ever() {
        // The test's own CPU time is nothing beside a quarter of an hour.
        let hour = Duration::from_secs(3_600);
        let (deadline, mut looks) = (Deadline::new(hour), Looks::default());
        assert_eq!((deadline.first, deadline.expired(&mut looks)), (1_800_001, Ok(1_800_000)));
        let mut given = 3_600_001;
        let stopped = loop {
            match deadline.expired(&mut looks) {
                Ok(ticks) => given += ticks,
                Err(stopped) => break stopped,
            }
        };
        assert_eq!(stopped, Overrun::Deadline(hour));
        let most = 3_600_001 * Deadline::STRETCH;
        assert!((most..most + 1_800_001).contains(&given), "{given}");
    }

    #[test]
    fn a_guest_that_ran_is_stopped_at_the_second_look() {
        let limit = Duration::from_millis(1);
        let (deadline, mut looks) = (Deadline::new(limit), Looks::default());
        assert_eq!((deadline.first, deadline.expired(&mut looks)), (1, Ok(1)));
        let began = thread_time();
        // A ticker that made up for lost time.
        assert_eq!(deadline.expired(&mut looks), Ok(1));
        while thread_time() - began < limit {}
        assert_eq!(deadline.expired(&mut looks), Err(Overrun::Deadline(limit)));
    }

    #[test]
    fn no_limit_is_too_long() {
        let (deadline, mut looks) = (Deadline::new(Duration::MAX), Looks::default());
        assert!(deadline.first < u64::MAX / 32);
        assert_eq!(deadline.expired(&mut looks), Ok(deadline.second));
        assert_eq!(deadline.expired(&mut looks), Ok(deadline.second));
        assert_eq!(Deadline::new(Duration::ZERO).first, 1);
    }
}
