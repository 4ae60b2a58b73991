//! How near the process is to the end of its memory, and what is left undone because of it. The main thread looks (`Sampler`);
//! whoever is about to take something in asks. When more than half is used, those who take much in look themselves, because a flood
//! is faster than any clock (`took`). There is one of it in the process, as there is one memory.
//!
//! The stages build on each other: first nothing is read for which there is no room elsewhere, then no new requests are
//! served, then connections are closed. In all of them sockets are read in small pieces, and only while there is room for
//! those: see `intake`.

mod intake;
mod memory;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use meshgate_config::Overload;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

pub use self::intake::Intake;
use self::memory::Group;
use crate::telemetry::resident_memory;

/// Raised by whoever looks, lowered by the main thread alone.
static STAGE: AtomicU8 = AtomicU8::new(Stage::Calm as u8);
/// Written by the main thread alone.
static USED: AtomicU64 = AtomicU64::new(0);
static CEILING: AtomicU64 = AtomicU64::new(0);
/// Whether more than half of the ceiling is used, or memory is short already.
static WATCHED: AtomicBool = AtomicBool::new(false);
/// Bytes of the process's own that the main thread saw when it saw `USED`.
static OWN: AtomicU64 = AtomicU64::new(0);
/// Bytes in use from which the stages after `Calm` begin.
static LEVELS: [AtomicU64; 3] = [const { AtomicU64::new(u64::MAX) }; 3];
/// Bytes in use when somebody looked last.
static SEEN: AtomicU64 = AtomicU64::new(0);
/// Bytes taken in since then, more or less.
static FRESH: AtomicU64 = AtomicU64::new(0);
/// Bytes in use from which nothing is read at all.
static BRINK: AtomicU64 = AtomicU64::new(u64::MAX);
/// Bytes in use from which bodies of requests wait, those that have begun, too.
static BODIES: AtomicU64 = AtomicU64::new(u64::MAX);
/// Bodies of requests that may still go on until the main thread looks again, whatever else is read.
static TURNS: AtomicU32 = AtomicU32::new(0);
/// Added to by all threads, and only when memory is short.
static HELD: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
static CLOSED: AtomicU64 = AtomicU64::new(0);

/// Told at each change of the stage.
static CHANGED: Notify = Notify::const_new();

/// A stage that was reached is left when so many percent below it are free: it should not come and go with every response.
const MARGIN: u32 = 2;

/// How often is looked when there is plenty of memory, and when more than half of it is used.
const SELDOM: Duration = Duration::from_millis(100);
const OFTEN: Duration = Duration::from_millis(10);
/// While it is watched, somebody looks whenever so many bytes have been taken in.
const STEP: u64 = 1 << 20;
/// What a connection or an exchange takes at most, apart from bodies: an exchange may need another connection, to the endpoint.
pub const EXCHANGE: usize = 40 << 10;
/// As much as is read from a socket at once when memory is short.
const PIECE: usize = 16 << 10;
/// When new requests are refused: bodies of requests that go on for a piece between two looks of the main thread.
const TURNS_PER_LOOK: u32 = 2;
/// How often is looked for a ceiling when there is none.
const NO_CEILING: Duration = Duration::from_secs(1);

/// How short memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// There is enough.
    Calm,
    /// Nothing is read that would have to wait here.
    Hold,
    /// New requests are refused.
    Refuse,
    /// Connections are closed.
    Close,
}

impl Stage {
    /// All but `Calm`.
    const SHORT: [Stage; 3] = [Stage::Hold, Stage::Refuse, Stage::Close];

    /// The stage after this one, with so much in use.
    fn next(self, used: u64, ceiling: u64, config: &Overload) -> Stage {
        let is_reached = |stage: Stage| {
            let margin = if self >= stage { MARGIN } else { 0 };
            used >= stage.level(ceiling, config, margin)
        };
        Stage::SHORT.into_iter().rfind(|stage| is_reached(*stage)).unwrap_or(Stage::Calm)
    }

    /// Bytes in use from which it is this stage, with so many percent of the ceiling less.
    fn level(self, ceiling: u64, config: &Overload, margin: u32) -> u64 {
        let percent = match self {
            Stage::Calm => 0,
            Stage::Hold => config.hold_at,
            Stage::Refuse => config.refuse_at,
            Stage::Close => config.close_at,
        };
        let bytes = u128::from(ceiling) * u128::from(percent.saturating_sub(margin));
        u64::try_from(bytes.div_ceil(100)).unwrap_or(u64::MAX)
    }

    fn of(number: u8) -> Stage {
        Stage::SHORT.into_iter().find(|stage| *stage as u8 == number).unwrap_or(Stage::Calm)
    }
}

/// A quarter of the way from the last stage to the ceiling. What is beyond that is for what is not read from sockets, and for
/// what comes of what was.
fn brink(ceiling: u64, config: &Overload) -> u64 {
    let close = Stage::Close.level(ceiling, config, 0).min(ceiling);
    close + (ceiling - close) / 4
}

/// Halfway between the first two stages: what is beyond that is for new requests.
fn bodies(ceiling: u64, config: &Overload) -> u64 {
    let [hold, refuse] = [Stage::Hold, Stage::Refuse].map(|stage| stage.level(ceiling, config, 0));
    hold + refuse.saturating_sub(hold) / 2
}

/// Whether nothing is to be read that would have to wait here.
pub fn holds() -> bool {
    STAGE.load(Relaxed) >= Stage::Hold as u8
}

/// Whether new requests are to be refused.
pub fn refuses() -> bool {
    STAGE.load(Relaxed) >= Stage::Refuse as u8
}

/// Whether connections are to be closed.
pub fn closes() -> bool {
    STAGE.load(Relaxed) >= Stage::Close as u8
}

/// Resolves when the stage changes after this was called.
pub fn changed() -> Notified<'static> {
    CHANGED.notified()
}

/// So many bytes, or what takes about as many, have been taken in.
pub fn took(bytes: usize) {
    if is_watched() {
        count(bytes as u64);
    }
}

/// Whether what is read from sockets is to be read by [`Intake`].
pub fn is_watched() -> bool {
    WATCHED.load(Relaxed)
}

#[cold]
fn count(bytes: u64) {
    if FRESH.fetch_add(bytes, Relaxed).saturating_add(bytes) >= STEP {
        raise();
    }
}

/// Looks between two looks of the main thread: what the process itself has grown by since then is what counts.
fn raise() {
    let fresh = FRESH.load(Relaxed);
    let grown = resident_memory().unwrap_or(0).saturating_sub(OWN.load(Relaxed));
    let used = USED.load(Relaxed).saturating_add(grown);
    saw(used, fresh);
    let stage = Stage::SHORT.into_iter().zip(&LEVELS).rfind(|(_, level)| used >= level.load(Relaxed));
    let Some((stage, _)) = stage else { return };
    if STAGE.fetch_max(stage as u8, Relaxed) < stage as u8 {
        CHANGED.notify_waiters();
    }
}

/// Notes what is in use, and that it includes what was taken in until then.
fn saw(used: u64, fresh: u64) {
    SEEN.store(used, Relaxed);
    // Two may look at once; then a little is forgotten.
    let _ = FRESH.fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_sub(fresh)));
}

/// Whether another piece stays below so many bytes.
fn has_room_below(level: u64) -> bool {
    SEEN.load(Relaxed).saturating_add(FRESH.load(Relaxed)).saturating_add(PIECE as u64) <= level
}

fn has_room_below_close() -> bool {
    let [_, _, close] = &LEVELS;
    has_room_below(close.load(Relaxed))
}

fn has_room_below_brink() -> bool {
    has_room_below(BRINK.load(Relaxed))
}

/// Whether nothing is read at all.
pub fn is_full() -> bool {
    holds() && !has_room_below_brink()
}

/// Whether the body of a request that has begun may go on while memory is short. It may be on its way to somebody who takes
/// nothing, and must not be what has new requests refused.
pub fn has_room_for_bodies() -> bool {
    has_room_below(BODIES.load(Relaxed))
}

/// Whether the body of a request may go on for a piece where there is no room: few may, so that what was begun is finished.
pub fn take_turn() -> bool {
    refuses() && TURNS.fetch_update(Relaxed, Relaxed, |turns| turns.checked_sub(1)).is_ok()
}

/// A body waits.
pub fn count_held() {
    HELD.fetch_add(1, Relaxed);
}

/// A request, or a TCP connection, was refused.
pub fn count_refused() {
    REFUSED.fetch_add(1, Relaxed);
}

/// A connection was closed.
pub fn count_closed() {
    CLOSED.fetch_add(1, Relaxed);
}

/// Looks at the memory. There is one, on the main thread.
#[derive(Debug)]
pub struct Sampler {
    group: Option<Group>,
    stage: Stage,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// How short memory was before, and is now.
    pub stages: (Stage, Stage),
    /// Bytes in use.
    pub used: u64,
    /// Bytes that may be; 0: any number.
    pub ceiling: u64,
    /// When to look again.
    pub again: Duration,
}

impl Sampler {
    /// Finds out what the system allows.
    #[must_use]
    pub fn new() -> Sampler {
        Sampler { group: Group::of_this_process(), stage: Stage::Calm }
    }

    /// Looks, and says what is to be left undone from now on.
    pub fn look(&mut self, config: &Overload) -> Look {
        // A flood can outrun the stages by a few percent: what the kernel would end the process for is further away.
        let group = || self.group.as_ref().map(|group| group.limit() / 10 * 9);
        let ceiling = config.memory.or_else(group).unwrap_or(0);
        let fresh = FRESH.load(Relaxed);
        let own = resident_memory().unwrap_or(0);
        let used = if ceiling == 0 { 0 } else { self.used(own, config) };
        let (before, raised) = (self.stage, STAGE.load(Relaxed));
        self.stage = if ceiling == 0 { Stage::Calm } else { Stage::of(raised).next(used, ceiling, config) };
        CEILING.store(ceiling, Relaxed);
        USED.store(used, Relaxed);
        OWN.store(own, Relaxed);
        saw(used, fresh);
        TURNS.store(TURNS_PER_LOOK, Relaxed);
        for (stage, level) in Stage::SHORT.into_iter().zip(&LEVELS) {
            level.store(if ceiling == 0 { u64::MAX } else { stage.level(ceiling, config, 0) }, Relaxed);
        }
        BRINK.store(if ceiling == 0 { u64::MAX } else { brink(ceiling, config) }, Relaxed);
        BODIES.store(if ceiling == 0 { u64::MAX } else { bodies(ceiling, config) }, Relaxed);
        let watched = ceiling > 0 && (used > ceiling / 2 || self.stage > Stage::Calm);
        WATCHED.store(watched, Relaxed);
        if STAGE.swap(self.stage as u8, Relaxed) != self.stage as u8 {
            CHANGED.notify_waiters();
        }
        let again = match ceiling {
            0 => NO_CEILING,
            _ if watched => OFTEN,
            _ => SELDOM,
        };
        Look { stages: (before, self.stage), used, ceiling, again }
    }

    /// What counts against the ceiling: of the group's what cannot be given back at once, of one's own what is resident.
    fn used(&mut self, own: u64, config: &Overload) -> u64 {
        match &mut self.group {
            Some(group) if config.memory.is_none() => own.max(group.used()),
            _ => own,
        }
    }
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler::new()
    }
}

/// Has the allocator give what nobody uses to the system. It does so by itself only as memory comes and goes; after a flood,
/// nothing may, because too much seems to be in use.
pub fn give_back() {
    #[expect(unsafe_code, reason = "a function of the allocator, which is not of Rust")]
    // SAFETY: it may be called at any time on any thread, takes no pointers, and leaves alone what is in use.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

/// Appends the metrics.
pub fn metrics(out: &mut String) {
    let load = |value: &AtomicU64| value.load(Relaxed);
    let metrics = [
        ("overload_stage", "gauge", "How short memory is: 0 to 3", STAGE.load(Relaxed).into()),
        ("memory_used_bytes", "gauge", "Memory that counts against the ceiling", load(&USED)),
        ("memory_ceiling_bytes", "gauge", "Memory that may be used; 0: any amount", load(&CEILING)),
        ("overload_held_bodies_total", "counter", "Bodies that waited for memory", load(&HELD)),
        (
            "overload_refused_total",
            "counter",
            "Requests and TCP connections refused for want of memory",
            load(&REFUSED),
        ),
        (
            "overload_closed_connections_total",
            "counter",
            "Connections closed for want of memory",
            load(&CLOSED),
        ),
    ];
    for (name, kind, help, value) in metrics {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "# HELP meshgate_{name} {help}\n# TYPE meshgate_{name} {kind}\nmeshgate_{name} {value}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_reached_at_its_share_and_left_a_little_below() {
        let config = Overload::default();
        let mut stage = Stage::Calm;
        for (used, expected) in [
            (0, Stage::Calm),
            (799, Stage::Calm),
            (800, Stage::Hold),
            (780, Stage::Hold),
            (779, Stage::Calm),
            (950, Stage::Close),
            (930, Stage::Close),
            (929, Stage::Refuse),
            (880, Stage::Refuse),
            (879, Stage::Hold),
            (2_000, Stage::Close),
            (1, Stage::Calm),
        ] {
            stage = stage.next(used, 1_000, &config);
            assert_eq!(stage, expected, "{used}");
        }
    }

    #[test]
    fn something_is_left_beyond_the_brink() {
        let config = Overload::default();
        assert_eq!((brink(1_000, &config), brink(0, &config), brink(1, &config)), (962, 0, 1));
        let all = Overload { close_at: 100, ..config };
        assert_eq!((brink(1_000, &all), brink(u64::MAX, &all)), (1_000, u64::MAX));
        assert_eq!((bodies(1_000, &config), bodies(0, &config)), (850, 0));
    }

    #[test]
    fn a_stage_is_what_its_number_says() {
        for stage in [Stage::Calm, Stage::Hold, Stage::Refuse, Stage::Close] {
            assert_eq!(Stage::of(stage as u8), stage);
        }
    }

    #[test]
    fn stages_that_begin_together_are_reached_together() {
        let config = Overload { memory: None, hold_at: 50, refuse_at: 50, close_at: 50 };
        assert_eq!(Stage::Calm.next(49, 100, &config), Stage::Calm);
        assert_eq!(Stage::Calm.next(50, 100, &config), Stage::Close);
        assert_eq!(Stage::Calm.next(u64::MAX, u64::MAX, &config), Stage::Close);
    }
}
