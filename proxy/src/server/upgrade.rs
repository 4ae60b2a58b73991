//! Another binary in the place of this one, without a lost connection: the new process gets the sockets that are listened on,
//! becomes ready, and then this one drains. A new process that does not become ready changes nothing.
//!
//! The sockets are never closed and bound again: connections that wait in the kernel to be accepted would be reset with
//! them. They are the same sockets, of which two processes have handles for a while. `inherited` is the other side.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};

use super::rollout::Rollout;
use crate::telemetry::Registry;

/// What says to a new process which sockets it is given: a list of [`Passed`], as JSON.
pub(super) const PASSED: &str = "MESHGATE_UPGRADE";
/// What a new process says when it accepts connections.
pub(super) const READY: &[u8] = b"ready\n";

/// How often it is tried to give the sockets numbers that follow each other, while other threads open files.
const NUMBERINGS: usize = 16;

/// A socket that is passed on.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Passed {
    /// Its listener; none for the admin API.
    pub(super) listener: Option<String>,
    /// The address in the configuration that it stands for.
    pub(super) address: String,
    /// Its file is the process's to remove.
    pub(super) owns_file: bool,
}

/// Starts new processes.
pub(super) struct Upgrade {
    /// The file that this process was started from, or what is in its place now.
    binary: io::Result<PathBuf>,
    admin: RefCell<Option<(String, OwnedFd)>>,
    failures: Arc<AtomicU64>,
}

impl Upgrade {
    pub(super) fn new(registry: &Registry) -> Upgrade {
        let failures = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&failures);
        registry.append(move |out| {
            let failed = shown.load(Relaxed);
            let name = "meshgate_upgrades_failed_total";
            let help = "New processes that did not become ready";
            out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {failed}\n"));
        });
        Upgrade { binary: binary(), admin: RefCell::default(), failures }
    }

    /// Notes the admin API's socket.
    pub(super) fn note_admin(&self, address: &str, socket: &TcpListener) -> io::Result<()> {
        *self.admin.borrow_mut() = Some((address.to_owned(), socket.as_fd().try_clone_to_owned()?));
        Ok(())
    }

    /// Starts a new process, and waits until it is ready. Its id; or why this process goes on.
    pub(super) async fn attempt(&self, rollout: &Rollout) -> Result<u32, String> {
        let outcome = self.try_once(rollout).await;
        match &outcome {
            Ok(pid) => tracing::info!(pid, "a new process is ready and takes over"),
            Err(reason) => {
                self.failures.fetch_add(1, Relaxed);
                tracing::error!(%reason, "no new process takes over: this one goes on");
            }
        }
        outcome
    }

    async fn try_once(&self, rollout: &Rollout) -> Result<u32, String> {
        let binary =
            self.binary.as_ref().map_err(|error| format!("the binary's path is unknown: {error}"))?;
        let (mut passed, mut sockets): (Vec<Passed>, Vec<OwnedFd>) =
            rollout.sockets().await?.into_iter().unzip();
        if let Some((address, socket)) = &*self.admin.borrow() {
            passed.push(Passed { listener: None, address: address.clone(), owns_file: false });
            sockets.push(socket.try_clone().map_err(|error| format!("the admin API's socket: {error}"))?);
        }
        tracing::info!(binary = %binary.display(), sockets = sockets.len(), "starting a new process");
        let (heir, mut words) = Heir::start(binary, &passed, &sockets)
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        drop(sockets);
        let patience = rollout.upgrade_timeout();
        match tokio::time::timeout(patience, heard(&mut words)).await {
            Ok(true) => Ok(heir.take_over()),
            Ok(false) => Err(heir.end().await),
            Err(_) => Err(format!("the new process was not ready within {patience:?}")),
        }
    }
}

/// Whether a new process says that it is ready, before it ends.
async fn heard(words: &mut UnixStream) -> bool {
    let mut said = [0; READY.len()];
    words.read_exact(&mut said).await.is_ok() && said == READY
}

/// The path by which this process was started, as it stands: links in it may lead elsewhere now.
fn binary() -> io::Result<PathBuf> {
    match std::env::args_os().next().map(PathBuf::from) {
        Some(path) if path.components().count() > 1 => std::path::absolute(path),
        _ => std::env::current_exe(),
    }
}

/// A new process. Dropped before it takes over, it is killed.
struct Heir {
    child: Option<Child>,
}

impl Heir {
    /// Starts it with the sockets, and a way to hear from it.
    fn start(binary: &Path, passed: &[Passed], sockets: &[OwnedFd]) -> io::Result<(Heir, UnixStream)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let words = UnixStream::from_std(ours)?;
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        let (first, numbered) = numbered(sockets)?;
        let mut command = Command::new(binary);
        command.args(arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        command.env(PASSED, serde_json::to_string(passed)?);
        command.env("LISTEN_FDS", numbered.len().to_string()).env("LISTEN_FDS_FIRST_FD", first.to_string());
        for other in ["LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(other);
        }
        for socket in &numbered {
            fcntl_setfd(socket, FdFlags::empty())?;
        }
        let child = command.spawn()?;
        Ok((Heir { child: Some(child) }, words))
    }

    /// It goes on when this process has ended.
    fn take_over(mut self) -> u32 {
        self.child.take().and_then(|child| child.id()).unwrap_or_default()
    }

    /// How it ended.
    async fn end(mut self) -> String {
        let Some(mut child) = self.child.take() else { return String::new() };
        let _ = child.start_kill();
        match child.wait().await {
            Ok(status) => format!("the new process was not ready when it ended ({status}); its log says why"),
            Err(error) => format!("the new process was lost: {error}"),
        }
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It fails only if the process has ended.
            let _ = child.start_kill();
        }
    }
}

/// Handles to the sockets whose numbers follow each other, which is how a process is told of them. The first number.
fn numbered(sockets: &[OwnedFd]) -> io::Result<(RawFd, Vec<OwnedFd>)> {
    for _ in 0..NUMBERINGS {
        let first = highest()? + 1;
        let numbers = first..;
        let copies: Vec<OwnedFd> = sockets
            .iter()
            .zip(numbers.clone())
            .map(|(socket, number)| copy(socket.as_fd(), number))
            .collect::<io::Result<_>>()?;
        if copies.iter().map(AsRawFd::as_raw_fd).eq(numbers.take(copies.len())) {
            return Ok((first, copies));
        }
    }
    Err(io::Error::other("no numbers that follow each other are free"))
}

fn copy(socket: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(socket, number)?)
}

/// The highest number of an open file.
fn highest() -> io::Result<RawFd> {
    let numbers = fs::read_dir("/proc/self/fd")?;
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // The three that every process begins with are never meant.
    Ok(numbers.max().unwrap_or(0).max(2))
}

/// How long a new process may take, if the configuration does not say.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_each_other_and_are_those_of_the_sockets() {
        let sockets: Vec<OwnedFd> =
            (0..5).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().into()).collect();
        let (first, copies) = numbered(&sockets).unwrap();
        assert_eq!(copies.len(), 5);
        for (index, (copy, socket)) in copies.iter().zip(&sockets).enumerate() {
            assert_eq!(copy.as_raw_fd(), first + index as RawFd);
            let address =
                |fd: &OwnedFd| std::net::TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap();
            assert_eq!(address(copy), address(socket));
        }
        let (_, none) = numbered(&[]).unwrap();
        assert!(none.is_empty());
    }
}
