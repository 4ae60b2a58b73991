//! How near the process is to the end of its memory, and what is left undone because of it. The main thread looks (`Sampler`);
//! whoever is about to take something in asks. There is one of it in the process, as there is one memory.
//!
//! The stages build on each other: first nothing is read for which there is no room elsewhere, then no new requests are
//! served, then connections are closed.

mod memory;

use std::fmt::Write;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use meshgate_config::Overload;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use self::memory::Group;
use crate::telemetry::resident_memory;

/// Written by the main thread alone.
static STAGE: AtomicU8 = AtomicU8::new(Stage::Calm as u8);
static USED: AtomicU64 = AtomicU64::new(0);
static CEILING: AtomicU64 = AtomicU64::new(0);
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
    /// The stage after this one, with so much in use.
    fn next(self, used: u64, ceiling: u64, config: &Overload) -> Stage {
        let percent = u128::from(used) * 100 / u128::from(ceiling.max(1));
        let is_reached = |stage: Stage, at: u32| {
            let at = if self >= stage { at.saturating_sub(MARGIN) } else { at };
            percent >= u128::from(at)
        };
        let stages = [
            (Stage::Close, config.close_at),
            (Stage::Refuse, config.refuse_at),
            (Stage::Hold, config.hold_at),
        ];
        stages.into_iter().find(|(stage, at)| is_reached(*stage, *at)).map_or(Stage::Calm, |(stage, _)| stage)
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

/// Resolves when the stage changes after this was called.
pub fn changed() -> Notified<'static> {
    CHANGED.notified()
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
        let ceiling = config.memory.or_else(|| self.group.as_ref().map(Group::limit)).unwrap_or(0);
        let used = if ceiling == 0 { 0 } else { self.used(config) };
        let before = self.stage;
        self.stage = if ceiling == 0 { Stage::Calm } else { before.next(used, ceiling, config) };
        if STAGE.swap(self.stage as u8, Relaxed) != self.stage as u8 {
            CHANGED.notify_waiters();
        }
        USED.store(used, Relaxed);
        CEILING.store(ceiling, Relaxed);
        let again = match ceiling {
            0 => NO_CEILING,
            _ if used > ceiling / 2 => OFTEN,
            _ => SELDOM,
        };
        Look { stages: (before, self.stage), used, ceiling, again }
    }

    /// What counts against the ceiling: of the group's what cannot be given back at once, of one's own what is resident.
    fn used(&mut self, config: &Overload) -> u64 {
        let own = resident_memory().unwrap_or(0);
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
    fn stages_that_begin_together_are_reached_together() {
        let config = Overload { memory: None, hold_at: 50, refuse_at: 50, close_at: 50 };
        assert_eq!(Stage::Calm.next(49, 100, &config), Stage::Calm);
        assert_eq!(Stage::Calm.next(50, 100, &config), Stage::Close);
        assert_eq!(Stage::Calm.next(u64::MAX, u64::MAX, &config), Stage::Close);
    }
}
