//! One measurement of one subject, and the order in which all of them are made.
//!
//! Every measurement starts its own process: memory at rest is that of a fresh start, nothing idles on the proxy's
//! core meanwhile, and what one start happens to get (addresses, page placement) averages out over the rounds.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::backend::Backend;
use crate::generator::Generator;
use crate::link::{Certificates, Link};
use crate::process::{Cores, Memory, Process, core_time, own_cpu};
use crate::subjects::{Places, Start, Subject};
use crate::workload::Workload;

/// How long a server may take until it answers; Meshgate and Envoy compile modules in that time.
const START: Duration = Duration::from_secs(60);

/// Memory is "at rest" once it has not changed for this long.
const SETTLED: Duration = Duration::from_millis(300);

/// What all measurements share.
pub(crate) struct Bench {
    pub(crate) places: Places,
    pub(crate) cores: Cores,
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) pattern: Arc<[u8]>,
    pub(crate) certificates: Certificates,
    pub(crate) backend: Backend,
    pub(crate) stop: Arc<AtomicBool>,
}

/// One measurement, as it stands in the JSON file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) round: usize,
    pub(crate) subject: &'static str,
    pub(crate) workload: Workload,
    pub(crate) responses: u64,
    pub(crate) seconds: f64,
    /// Processor time of the subject, all its processes and threads; None for the direct connection.
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) memory_at_rest: Option<Memory>,
    pub(crate) memory_after_load: Option<Memory>,
    /// Share of the load's core that the generator and the backend used: near 1, they are the bottleneck.
    pub(crate) load_busy: f64,
    /// Share of the proxy's core that others used or the hypervisor took: above a few percent, distrust the round.
    pub(crate) disturbed: f64,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Round {
    /// A measurement that came to nothing.
    pub(crate) fn failed(
        round: usize,
        subject: &'static str,
        workload: Workload,
        error: &anyhow::Error,
    ) -> Self {
        Self {
            round,
            subject,
            workload,
            responses: 0,
            seconds: 0.0,
            cpu_seconds: None,
            p50_us: 0.0,
            p99_us: 0.0,
            memory_at_rest: None,
            memory_after_load: None,
            load_busy: 0.0,
            disturbed: 0.0,
            errors: BTreeMap::from([(format!("{error:#}"), 1)]),
        }
    }

    /// Processor time per exchange, in microseconds.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        self.cpu_seconds.map(|seconds| seconds * 1e6 / self.responses as f64)
    }

    /// Exchanges per second.
    pub(crate) fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.responses as f64 / self.seconds } else { 0.0 }
    }

    /// Whether it may be counted.
    pub(crate) fn is_valid(&self) -> bool {
        self.errors.is_empty() && self.responses > 0
    }
}

/// A subject whose program was found.
pub(crate) struct Runner {
    pub(crate) subject: Subject,
    pub(crate) program: Option<PathBuf>,
    /// Numbers the directories of its starts.
    starts: usize,
}

impl Runner {
    /// Pairs a subject with its program.
    pub(crate) fn new(subject: Subject, program: Option<PathBuf>) -> Self {
        Self { subject, program, starts: 0 }
    }

    /// Starts the subject once and ends it again: it must answer, and modules are in the cache afterwards. Answers
    /// its version.
    pub(crate) fn try_out(&mut self, bench: &Bench) -> Result<String> {
        let (_process, address) = self.start(bench, Workload::Small)?;
        self.probe(bench, address, 1, Workload::Small)?;
        if let Some((complaint, _)) = bench.backend.take_complaints().into_iter().next() {
            bail!("{complaint}");
        }
        self.program.as_deref().map_or(Ok(String::new()), |program| self.subject.server.version(program))
    }

    /// Measures the subject once.
    pub(crate) fn measure(&mut self, bench: &Bench, round: usize, workload: Workload) -> Result<Round> {
        bench.backend.take_complaints();
        let (mut process, address) = self.start(bench, workload)?;
        let memory_at_rest = process.as_mut().map(|process| settle(process, &bench.stop)).transpose()?;

        let mut generator = self.connect(bench, address, bench.connections, workload)?;
        let warm_up = generator.run(bench.warm_up, &bench.stop).context("while warming up")?;
        let before = Usage::now(process.as_ref(), bench.cores)?;
        let mut sample = generator.run(bench.duration, &bench.stop)?;
        let used = Usage::now(process.as_ref(), bench.cores)?.since(&before);
        let memory_after_load = process.as_ref().map(Process::memory).transpose()?;
        generator.finish(&mut sample, &bench.stop)?;

        let mut errors = warm_up.errors;
        for (error, count) in sample.errors.into_iter().chain(bench.backend.take_complaints()) {
            *errors.entry(error).or_default() += count;
        }
        let seconds = sample.elapsed.as_secs_f64();
        let foreign = (used.core + used.stolen).saturating_sub(used.process.unwrap_or(used.core));
        Ok(Round {
            round,
            subject: self.subject.key,
            workload,
            responses: sample.responses,
            seconds,
            cpu_seconds: used.process.map(|time| time.as_secs_f64()),
            p50_us: percentile(&mut sample.latencies, 50),
            p99_us: percentile(&mut sample.latencies, 99),
            memory_at_rest,
            memory_after_load,
            load_busy: used.load.as_secs_f64() / seconds,
            disturbed: foreign.as_secs_f64() / seconds,
            errors,
        })
    }

    fn start(&mut self, bench: &Bench, workload: Workload) -> Result<(Option<Process>, SocketAddr)> {
        let link = workload.link();
        let Some(program) = &self.program else {
            let address = bench.backend.direct_address(link).context("the backend does not speak that")?;
            return Ok((None, address));
        };
        self.starts += 1;
        let directory = bench.places.scratch.join(format!("{}-{}", self.subject.key, self.starts));
        fs::create_dir_all(&directory)?;
        let listen = free_address()?;
        let command = self.subject.server.command(&Start {
            places: &bench.places,
            program,
            directory: &directory,
            listen,
            backend: bench.backend.address(link),
            link,
            certificates: &bench.certificates,
        })?;
        let mut process = Process::start(command, bench.cores, directory.join("log"))?;
        let begin = Instant::now();
        loop {
            process.check_alive()?;
            // Of HTTP/2, fields are not looked at: that the filters run, the same listener shows over HTTP/1.1.
            let first = match link {
                Link::Http2 if !self.subject.server.fields().is_empty() => Workload::Small,
                Link::Http1 => Workload::Small,
                _ => workload,
            };
            let probed = self.probe(bench, listen, 1, first);
            let Err(error) = probed.and_then(|()| self.probe(bench, listen, 1, workload)) else {
                return Ok((Some(process), listen));
            };
            if bench.stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if begin.elapsed() > START {
                bail!("does not answer as it should: {error:#}; it printed: {}", process.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn probe(
        &self,
        bench: &Bench,
        address: SocketAddr,
        connections: usize,
        workload: Workload,
    ) -> Result<()> {
        self.connect(bench, address, connections, workload)?.probe(Duration::from_secs(5), &bench.stop)
    }

    fn connect(
        &self,
        bench: &Bench,
        address: SocketAddr,
        count: usize,
        workload: Workload,
    ) -> Result<Generator> {
        let fields = self.subject.server.fields();
        Generator::connect(address, count, workload, &bench.certificates, &bench.pattern, &fields)
    }
}

/// Processor time at one moment, or between two.
struct Usage {
    process: Option<Duration>,
    load: Duration,
    core: Duration,
    stolen: Duration,
}

impl Usage {
    fn now(process: Option<&Process>, cores: Cores) -> Result<Self> {
        let (core, stolen) = core_time(cores.proxy)?;
        Ok(Self { process: process.map(Process::cpu).transpose()?, load: own_cpu()?, core, stolen })
    }

    fn since(self, before: &Self) -> Self {
        Self {
            process: self.process.zip(before.process).map(|(now, then)| now.saturating_sub(then)),
            load: self.load.saturating_sub(before.load),
            core: self.core.saturating_sub(before.core),
            stolen: self.stolen.saturating_sub(before.stolen),
        }
    }
}

/// Waits until the memory of a started process no longer changes, but not for ever.
fn settle(process: &mut Process, stop: &AtomicBool) -> Result<Memory> {
    let mut last = process.memory()?;
    for _ in 0..10 {
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        std::thread::sleep(SETTLED);
        process.check_alive()?;
        let now = process.memory()?;
        if now.rss == last.rss {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// An address that nobody listens on at the moment.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

/// In microseconds; 0 if there is nothing.
fn percentile(nanoseconds: &mut [u64], percent: usize) -> f64 {
    if nanoseconds.is_empty() {
        return 0.0;
    }
    let index = (nanoseconds.len() * percent / 100).min(nanoseconds.len() - 1);
    let (_, value, _) = nanoseconds.select_nth_unstable(index);
    *value as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_exact() {
        let mut values: Vec<u64> = (0..1000).rev().map(|value| value * 1000).collect();
        assert_eq!(percentile(&mut values, 50), 500.0);
        assert_eq!(percentile(&mut values, 99), 990.0);
        assert_eq!(percentile(&mut [], 99), 0.0);
        assert_eq!(percentile(&mut [7000], 99), 7.0);
    }
}
