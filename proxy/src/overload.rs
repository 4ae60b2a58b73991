//! How near the process is to the end of its memory, and what is left undone because of it. The main thread looks (`Sampler`);
//! whoever is about to take something in asks. When more than half is used, those who take much in look themselves, because a flood
//! is faster than any clock (`took`). There is one of it in the process, as there is one memory.
//!
//! The stages build on each other: first nothing is read for which there is no room elsewhere, then no new requests are
//! served, then connections are closed.

mod memory;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use meshgate_config::Overload;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use self::memory::Group;
use crate::telemetry::resident_memory;

/// Raised by whoever looks, lowered by the main thread alone.
static STAGE: AtomicU8 = AtomicU8::new(Stage::Calm as u8);
/// Written by the main thread alone.
static USED: AtomicU64 = AtomicU64::new(0);
static CEILING: AtomicU64 = AtomicU64::new(0);
/// Whether more than half of the ceiling is used.
static WATCHED: AtomicBool = AtomicBool::new(false);
/// Bytes of the process's own that the main thread saw when it saw `USED`.
static OWN: AtomicU64 = AtomicU64::new(0);
/// Bytes in use from which the stages after `Calm` begin.
static LEVELS: [AtomicU64; 3] = [const { AtomicU64::new(u64::MAX) }; 3];
/// Bytes taken in while `WATCHED`, more or less.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Bytes in use when somebody looked last.
static SEEN: AtomicU64 = AtomicU64::new(0);
/// Bytes that those who have a `Reservation` may still bring.
static PROMISED: AtomicU64 = AtomicU64::new(0);
/// Somebody found no room since the main thread looked.
static DENIED: AtomicBool = AtomicBool::new(false);
/// Added to by all threads, and only when memory is short.
static HELD: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
static CLOSED: AtomicU64 = AtomicU64::new(0);

/// Told at each change of the stage, and when there may be room again.
static CHANGED: Notify = Notify::const_new();

/// A stage that was reached is left when so many percent below it are free: it should not come and go with every response.
const MARGIN: u32 = 2;

/// How often is looked when there is plenty of memory, and when more than half of it is used.
const SELDOM: Duration = Duration::from_millis(100);
const OFTEN: Duration = Duration::from_millis(10);
/// While it is watched, somebody looks whenever so many bytes have been taken in.
const STEP: u64 = 1 << 20;
/// About what a connection or an exchange takes, apart from bodies.
pub const EXCHANGE: usize = 16 << 10;
/// What one piece of a body may bring: as much as is read from a connection at once.
const PIECE: u64 = 128 << 10;
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

/// Resolves when the stage, or the room, changes after this was called.
pub fn changed() -> Notified<'static> {
    CHANGED.notified()
}

/// So many bytes, or what takes about as many, have been taken in.
pub fn took(bytes: usize) {
    if WATCHED.load(Relaxed) {
        took_watched(bytes as u64);
    }
}

#[cold]
fn took_watched(bytes: u64) {
    let before = TAKEN.fetch_add(bytes, Relaxed);
    if before / STEP != before.wrapping_add(bytes) / STEP {
        raise();
    }
}

/// Looks between two looks of the main thread: what the process itself has grown by since then is what counts.
fn raise() {
    let grown = resident_memory().unwrap_or(0).saturating_sub(OWN.load(Relaxed));
    let used = USED.load(Relaxed).saturating_add(grown);
    SEEN.store(used, Relaxed);
    let stage = Stage::SHORT.into_iter().zip(&LEVELS).rfind(|(_, level)| used >= level.load(Relaxed));
    let Some((stage, _)) = stage else { return };
    if STAGE.fetch_max(stage as u8, Relaxed) < stage as u8 {
        CHANGED.notify_waiters();
    }
}

/// Room for one piece of a body that is about to be read while memory is short, for as long as nothing has come.
#[derive(Debug)]
pub struct Reservation(());

impl Reservation {
    /// None if everything below the stage where connections are closed is used, or promised to others. Whoever waits for room
    /// is told by [`changed`].
    pub fn make() -> Option<Reservation> {
        let promised = PROMISED.fetch_add(PIECE, Relaxed).saturating_add(PIECE);
        let reservation = Reservation(());
        let [_, _, close] = &LEVELS;
        if SEEN.load(Relaxed).saturating_add(promised) <= close.load(Relaxed) {
            return Some(reservation);
        }
        DENIED.store(true, Relaxed);
        None
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        PROMISED.fetch_sub(PIECE, Relaxed);
    }
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
        let own = resident_memory().unwrap_or(0);
        let used = if ceiling == 0 { 0 } else { self.used(own, config) };
        let (before, raised) = (self.stage, STAGE.load(Relaxed));
        self.stage = if ceiling == 0 { Stage::Calm } else { Stage::of(raised).next(used, ceiling, config) };
        CEILING.store(ceiling, Relaxed);
        USED.store(used, Relaxed);
        OWN.store(own, Relaxed);
        SEEN.store(used, Relaxed);
        for (stage, level) in Stage::SHORT.into_iter().zip(&LEVELS) {
            level.store(if ceiling == 0 { u64::MAX } else { stage.level(ceiling, config, 0) }, Relaxed);
        }
        WATCHED.store(ceiling > 0 && used > ceiling / 2, Relaxed);
        let is_other = STAGE.swap(self.stage as u8, Relaxed) != self.stage as u8;
        if DENIED.swap(false, Relaxed) || is_other {
            CHANGED.notify_waiters();
        }
        let again = match ceiling {
            0 => NO_CEILING,
            _ if used > ceiling / 2 => OFTEN,
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
