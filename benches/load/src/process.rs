//! The process under test: started on its core, watched through `/proc`, ended by its id whatever happens.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// `/proc` counts processor time in this unit on every Linux (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// The two cores that a comparison uses.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cores {
    /// Where the subject runs, alone.
    pub(crate) proxy: usize,
    /// Where the generator and the backend run.
    pub(crate) load: usize,
}

impl Cores {
    /// The given cores, else the first two that this process may use.
    pub(crate) fn choose(proxy: Option<usize>, load: Option<usize>) -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut free = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let first = free.next().context("no core to run on")?;
        let second = free.next().unwrap_or(first);
        let cores = Self { proxy: proxy.unwrap_or(first), load: load.unwrap_or(second) };
        if cores.proxy == cores.load {
            bail!("two cores are needed: one for the proxy, one for the load and the backend");
        }
        Ok(cores)
    }
}

/// Binds the calling thread, and what it starts from now on, to one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))
}

/// A child process with its own children. Dropping it ends all of them.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// Memory of a process and its children, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// Resident; what processes share is counted once for each.
    pub(crate) rss: u64,
    /// Proportional: what is shared is divided among those who share it.
    pub(crate) pss: u64,
}

impl Process {
    /// Starts `command` on the proxy's core; what it prints goes to the file `log`.
    pub(crate) fn start(mut command: Command, cores: Cores, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A child inherits the affinity of the thread that starts it.
        pin(cores.proxy)?;
        let child = command.spawn();
        pin(cores.load)?;
        let child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, log })
    }

    /// An error with the end of what the process printed, if it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("ended with {status}: {}", self.last_words()),
        }
    }

    /// The end of what it printed.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.reverse();
        lines.join(" / ")
    }

    /// Processor time used so far, by all threads of all its processes.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.tree().iter().map(|pid| cpu_of(*pid)).sum()
    }

    /// Memory in use now, summed over its processes.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let mut sum = Memory::default();
        for pid in self.tree() {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
                .with_context(|| format!("no memory figures of process {pid}"))?;
            sum.rss += kilobytes(&rollup, "Rss:")?;
            sum.pss += kilobytes(&rollup, "Pss:")?;
        }
        Ok(sum)
    }

    /// Its process id and those of its descendants.
    fn tree(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            next += 1;
            let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for thread in threads.flatten() {
                let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        pids
    }

    /// Asks the process to end, waits, and kills what is left.
    fn end(&mut self) {
        let others: Vec<(u32, Option<String>)> =
            self.tree().into_iter().skip(1).map(|pid| (pid, start_of(pid))).collect();
        signal(self.child.id(), Signal::TERM);
        let begin = Instant::now();
        while begin.elapsed() < GRACE {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(Some(_)) | Err(_) => break,
            }
        }
        for (pid, start) in others {
            // Only if the id still belongs to the process that was seen as a child.
            if start.is_some() && start_of(pid) == start {
                signal(pid, Signal::KILL);
            }
        }
        // Both fail only if the process is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Processor time used by this very process: the generator and the backend.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu_of(std::process::id())
}

/// Time during which `core` did anything at all, for whomever, and time that the hypervisor took from it.
pub(crate) fn core_time(core: usize) -> Result<(Duration, Duration)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = stat.lines().find(|line| line.starts_with(&name)).context("core not in /proc/stat")?;
    let ticks: Vec<u32> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest times are contained in the first two.
    let &[user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks.as_slice() else {
        bail!("/proc/stat has an unknown form");
    };
    Ok((TICK * (user + nice + system + irq + softirq), TICK * steal))
}

fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // The name, in parentheses, may contain spaces; utime and stime are the 12th and 13th fields after it.
    let after_name = stat.rsplit_once(')').context("/proc/PID/stat has an unknown form")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let &[utime, stime, ..] = fields.get(11..).unwrap_or_default() else {
        bail!("/proc/PID/stat has an unknown form");
    };
    Ok(TICK * (utime.parse::<u32>()? + stime.parse::<u32>()?))
}

/// When a process began, which with its id names it for good.
fn start_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It fails only if the process is gone already.
        let _ = kill_process(pid, signal);
    }
}

fn kilobytes(rollup: &str, name: &str) -> Result<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).context("no such figure")?;
    let number = line.trim().trim_end_matches("kB").trim();
    Ok(number.parse::<u64>()? * 1024)
}

/// Looks a program up in PATH and the directories where Debian puts servers.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    directories.into_iter().map(|directory| directory.join(name)).find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_child_is_measured_and_ended_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let cores = Cores { proxy: first_core(), load: first_core() };
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'while :; do :; done' & wait"]);
        let process = Process::start(command, cores, directory.path().join("log")).unwrap();
        let begin = Instant::now();
        while process.cpu().unwrap() < TICK * 3 {
            assert!(begin.elapsed() < Duration::from_secs(60), "the child's processor time was never seen");
            std::thread::yield_now();
        }
        let tree = process.tree();
        assert_eq!(tree.len(), 2);
        let memory = process.memory().unwrap();
        assert!(memory.pss > 0 && memory.pss <= memory.rss);
        let starts: Vec<_> = tree.iter().map(|pid| start_of(*pid)).collect();
        drop(process);
        for (pid, start) in tree.into_iter().zip(starts) {
            let begin = Instant::now();
            while start_of(pid) == start && !is_zombie(pid) {
                assert!(begin.elapsed() < Duration::from_secs(60), "process {pid} still runs");
                std::thread::yield_now();
            }
        }
    }

    /// A killed grandchild stays a zombie until init has collected it.
    fn is_zombie(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }

    fn first_core() -> usize {
        let allowed = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)).unwrap()
    }

    #[test]
    fn an_early_end_is_reported_with_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let cores = Cores { proxy: first_core(), load: first_core() };
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason; exit 3"]);
        let mut process = Process::start(command, cores, directory.path().join("log")).unwrap();
        let begin = Instant::now();
        let error = loop {
            if let Err(error) = process.check_alive() {
                break error.to_string();
            }
            assert!(begin.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        };
        assert!(error.contains("the reason") && error.contains('3'), "{error}");
    }
}
