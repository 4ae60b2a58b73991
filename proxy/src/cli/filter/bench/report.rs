//! What was measured, and how it is told.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The parts of an exchange that are measured each for itself.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Create,
    RequestHead,
    RequestBody,
    CallResponse,
    Grpc,
    Tick,
    ResponseHead,
    ResponseBody,
    End,
}

impl Part {
    const ALL: [(Part, &'static str); 9] = [
        (Part::Create, "context_create"),
        (Part::RequestHead, "request_headers"),
        (Part::RequestBody, "request_body"),
        (Part::CallResponse, "http_call_response"),
        (Part::Grpc, "grpc"),
        (Part::Tick, "tick"),
        (Part::ResponseHead, "response_headers"),
        (Part::ResponseBody, "response_body"),
        (Part::End, "done, log, delete"),
    ];
}

/// Times kept of each part: what comes after is counted, and adds to the mean.
const KEPT: usize = 1 << 20;

/// What one part took.
#[derive(Default)]
struct Times {
    nanoseconds: Vec<u32>,
    count: u64,
    copied: u64,
}

impl Times {
    fn add(&mut self, time: Duration, copied: u64) {
        self.count += 1;
        self.copied += copied;
        let nanoseconds = u32::try_from(time.as_nanos()).unwrap_or(u32::MAX);
        if self.nanoseconds.len() < KEPT {
            self.nanoseconds.push(nanoseconds);
        } else {
            // The latest so many: a part that slows down while it runs is seen.
            let at = usize::try_from(self.count).unwrap_or_default() % KEPT;
            self.nanoseconds[at] = nanoseconds;
        }
    }

    /// The time that this share of them did not exceed, less what the stopwatch takes.
    fn quantile(&self, share: f64, stopwatch: u32) -> Duration {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        let nanoseconds = sorted.get(at).copied().unwrap_or_default();
        Duration::from_nanos(nanoseconds.saturating_sub(stopwatch).into())
    }
}

/// The times of all exchanges.
pub(super) struct Measurements {
    parts: [Times; Part::ALL.len()],
    whole: Times,
    /// Of the exchange under way.
    current: Duration,
    clocks: u32,
    copied: u64,
    /// Exchanges that the filter answered itself.
    pub(super) answered: u64,
    stopwatch: u32,
}

impl Measurements {
    pub(super) fn new() -> Self {
        Self {
            parts: Default::default(),
            whole: Times::default(),
            current: Duration::ZERO,
            clocks: 0,
            copied: 0,
            answered: 0,
            stopwatch: stopwatch(),
        }
    }

    pub(super) fn add(&mut self, part: Part, begun: Instant, copied: u64) {
        let time = begun.elapsed();
        self.parts[part as usize].add(time, copied);
        self.current += time;
        self.clocks += 1;
        self.copied += copied;
    }

    /// The exchange took what its parts took.
    pub(super) fn end_exchange(&mut self) {
        let clocks = Duration::from_nanos(u64::from(self.stopwatch) * u64::from(self.clocks));
        self.whole.add(self.current.saturating_sub(clocks), self.copied);
        (self.current, self.clocks, self.copied) = (Duration::ZERO, 0, 0);
    }
}

/// What it takes to look at the clock twice.
fn stopwatch() -> u32 {
    let mut times: Vec<u32> = (0..1_000)
        .map(|_| Instant::now())
        .map(|begun| u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX))
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Everything that is told.
pub(super) struct Report {
    name: String,
    what: String,
    size: usize,
    compiled: Duration,
    starts: Vec<Duration>,
    pub(super) memory_before: u64,
    pub(super) memory_after: u64,
    pub(super) measured: Measurements,
}

impl Report {
    pub(super) fn new(name: &str, what: &str, size: usize, compiled: Duration) -> Self {
        Self {
            name: name.to_owned(),
            what: what.to_owned(),
            size,
            compiled,
            starts: Vec::new(),
            memory_before: 0,
            memory_after: 0,
            measured: Measurements::new(),
        }
    }

    pub(super) fn started(&mut self, time: Duration) {
        self.starts.push(time);
    }

    fn start(&self) -> Duration {
        let mut sorted = self.starts.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// The same for programs. Times are in nanoseconds, sizes in bytes.
    pub(super) fn json(&self) -> Value {
        let measured = &self.measured;
        let exchanges = measured.whole.count;
        let times = |times: &Times, stopwatch| {
            let nanoseconds = |share| times.quantile(share, stopwatch).as_nanos() as u64;
            json!({
                "count": times.count,
                "p50": nanoseconds(0.5),
                "p99": nanoseconds(0.99),
                "copied": times.copied.checked_div(times.count),
            })
        };
        let parts = Part::ALL.into_iter().filter_map(|(part, name)| {
            let part = &measured.parts[part as usize];
            (part.count > 0).then(|| (name.to_owned(), times(part, measured.stopwatch)))
        });
        json!({
            "filter": self.name,
            "case": self.what,
            "exchange": times(&measured.whole, 0),
            "callbacks": parts.collect::<serde_json::Map<_, _>>(),
            "answered": measured.answered as f64 / exchanges as f64,
            "memory": {"warm": self.memory_before, "end": self.memory_after},
            "module": {"size": self.size, "compiled": self.compiled.as_nanos() as u64},
            "start": self.start().as_nanos() as u64,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measured = &self.measured;
        let exchanges = measured.whole.count;
        writeln!(f, "{}: {}, {exchanges} times\n", self.name, self.what)?;
        let stopwatch = measured.stopwatch;
        writeln!(f, "{:<20}{:>12}{:>12}{:>12}{:>12}", "callback", "an exchange", "p50", "p99", "copied")?;
        for (part, name) in Part::ALL {
            let times = &measured.parts[part as usize];
            if times.count == 0 {
                continue;
            }
            let (often, copied) = (times.count as f64 / exchanges as f64, times.copied / times.count);
            let (p50, p99) = (times.quantile(0.5, stopwatch), times.quantile(0.99, stopwatch));
            let (p50, p99) = (format!("{p50:.2?}"), format!("{p99:.2?}"));
            let copied = if copied == 0 { String::new() } else { format!("{copied} B") };
            writeln!(f, "{name:<20}{often:>12.2}{p50:>12}{p99:>12}{copied:>12}")?;
        }
        let (p50, p99) = (measured.whole.quantile(0.5, 0), measured.whole.quantile(0.99, 0));
        let (p50, p99) = (format!("{p50:.2?}"), format!("{p99:.2?}"));
        let copied = measured.whole.copied.checked_div(exchanges).unwrap_or_default();
        let copied = if copied == 0 { String::new() } else { format!("{copied} B") };
        writeln!(f, "{:<20}{:>12}{p50:>12}{p99:>12}{copied:>12}\n", "the exchange", "")?;
        if measured.answered > 0 {
            writeln!(f, "answered by the filter itself: {} of {exchanges}", measured.answered)?;
        }
        let (before, after) = (self.memory_before >> 10, self.memory_after >> 10);
        writeln!(f, "memory    {before} KiB a VM when it was warm, {after} KiB after the last exchange")?;
        writeln!(f, "module    {} KiB, compiled in {:.1?}", self.size.div_ceil(1024), self.compiled)?;
        writeln!(f, "VM        started and configured in {:.1?}", self.start())
    }
}
