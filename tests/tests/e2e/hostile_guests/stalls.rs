//! When the machine itself stood still, as virtual machines do: what latency measurements leave out, since it is no proxy's
//! doing. A thread for each core wakes up every millisecond, before everything else on that core; when it comes late, the core
//! did not run.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use meshgate_tests::Timed;

use super::latency::say;

const STEP: Duration = Duration::from_millis(1);
/// A core that comes later than this was away.
const LATE: Duration = Duration::from_millis(1);
/// What had to wait is worked off for so long.
const AROUND: Duration = Duration::from_millis(5);

/// Watches all cores until it ends.
pub(super) struct Stalls {
    over: Arc<AtomicBool>,
    watches: Vec<JoinHandle<Vec<Moment>>>,
}

/// From and until.
type Moment = (Instant, Instant);

impl Stalls {
    pub(super) fn watch() -> Stalls {
        let over = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let watch = |core| {
            let over = over.clone();
            std::thread::spawn(move || if comes_first(core) { moments(&over) } else { Vec::new() })
        };
        Stalls { watches: (0..cores).map(watch).collect(), over }
    }

    pub(super) fn end(self) -> Stood {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.watches.into_iter().map(|watch| watch.join().expect("a watch does not panic"));
        Stood(ended.flatten().collect())
    }
}

/// The moments in which a core stood still.
pub(super) struct Stood(Vec<Moment>);

impl Stood {
    /// Leaves out what was under way then.
    pub(super) fn leave_out(&self, times: &mut Vec<Timed>) {
        let overlaps = |timed: &Timed, (from, until): &Moment| {
            timed.began <= *until && timed.began + timed.took >= *from
        };
        times.retain(|timed| !self.0.iter().any(|moment| overlaps(timed, moment)));
    }
}

/// Binds this thread to a core and has it come before all others there. Without that its lateness could be the proxy's doing, so
/// that nothing may be left out.
fn comes_first(core: usize) -> bool {
    let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let Some(id) = thread.file_name().and_then(|id| id.to_str()) else { return false };
    let done = |command: &str, arguments: [&str; 4]| {
        Command::new(command).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    let bound = done("taskset", ["-p", "-c", &core.to_string(), id]) && done("chrt", ["-f", "-p", "1", id]);
    if !bound {
        say("no `taskset` and `chrt` for the watch of the cores: nothing is left out");
    }
    bound
}

fn moments(over: &AtomicBool) -> Vec<Moment> {
    let mut moments = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        std::thread::sleep(STEP);
        let now = Instant::now();
        if now - began > STEP + LATE {
            moments.push((began, now + AROUND));
        }
    }
    moments
}
