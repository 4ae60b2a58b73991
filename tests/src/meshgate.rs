//! A running `meshgate` process: its addresses, its output, its files, its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;

use crate::ask::Ask;
use crate::client::{Client, Reply};
use crate::deadline::{until, within};
use crate::lines::Lines;
use crate::setup::{FILE, Setup};

/// A proxy that is killed when dropped. Tests that look at its end use `stop`, or `signal` and `wait`.
pub struct Meshgate {
    setup: Setup,
    folder: TempDir,
    child: Child,
    web: SocketAddr,
    admin: SocketAddr,
    log: Lines,
    access_log: Lines,
}

/// What an ended proxy left.
pub struct Stopped {
    /// How it ended.
    pub status: ExitStatus,
    /// All lines of its log.
    pub log: Vec<String>,
    /// All entries of its access log.
    pub access_log: Vec<Value>,
}

impl Meshgate {
    /// A proxy with this file as its configuration. It must have an admin API and a listener.
    pub fn with(yaml: &str) -> Setup {
        Setup::whole(yaml)
    }

    /// A proxy with one listener, `web`, and this chain; everything else is written around it.
    pub fn chain(chain: &str) -> Setup {
        Setup::chain(chain)
    }

    pub(crate) async fn start(setup: Setup, folder: TempDir) -> Meshgate {
        let mut command = setup.command();
        command.args(["run", "-c", FILE]).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the binary starts");
        let log = Lines::collect(child.stderr.take().expect("piped"));
        let access_log = Lines::collect(child.stdout.take().expect("piped"));
        let admin = log.wait("admin listening", |line| address_in(line, "admin listening ")).await;
        let web = log.wait("listening", |line| address_in(line, " listening listener=")).await;
        let gate = Meshgate { setup, folder, child, web, admin, log, access_log };
        until("GET /ready is answered by 200", || async {
            (gate.admin("/ready").await.status == 200).then_some(())
        })
        .await;
        gate
    }

    /// What it was started with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Where its (first) listener listens.
    pub fn address(&self) -> SocketAddr {
        self.web
    }

    /// Where the listener of this name listens.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let words = format!("listening listener={name} ");
        let found = self.log.all().iter().find_map(|line| address_in(line, &words));
        found.unwrap_or_else(|| panic!("no listener {name} in the log"))
    }

    /// Where the admin API listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// A path in its configuration's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new connection to the listener.
    pub async fn client(&self) -> Client {
        Client::http1(self.web).await
    }

    /// A GET on a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        self.client().await.get(path).await
    }

    /// A request on a connection of its own.
    pub async fn call(&self, ask: Ask) -> Reply {
        self.client().await.call(ask).await
    }

    /// A GET from the admin API.
    pub async fn admin(&self, path: &str) -> Reply {
        Client::http1(self.admin).await.get(path).await
    }

    /// Its log.
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// Waits for the access log entry of the request with this path (and query).
    pub async fn access(&self, path: &str) -> Value {
        let what = format!("an access log entry with path {path}");
        self.access_log.wait(&what, |line| Some(entry(line)).filter(|entry| entry["path"] == path)).await
    }

    /// All access log entries until now.
    pub fn access_log(&self) -> Vec<Value> {
        self.access_log.all().iter().map(|line| entry(line)).collect()
    }

    /// The lines of standard output until now.
    pub fn stdout(&self) -> &Lines {
        &self.access_log
    }

    /// Writes a file of its folder in one go, as `std::fs::write` does: truncate, then write.
    pub fn edit(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("a file of the test's own folder");
    }

    /// Replaces a file of its folder by renaming another one over it, as editors do.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let fresh = self.path(&format!(".{name}.new"));
        std::fs::write(&fresh, content).expect("a file of the test's own folder");
        std::fs::rename(&fresh, self.path(name)).expect("a rename inside the folder");
    }

    /// Resident memory of the process in bytes: now, and at its highest.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(self.proc().join("status")).expect("the process lives");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// How many file descriptors the process has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(self.proc().join("fd")).expect("the process lives").count()
    }

    /// Lets it have files open with numbers below this one only.
    pub fn limit_open_files(&self, files: u64) {
        use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        prlimit(Some(self.pid()), Resource::Nofile, Rlimit { current: Some(files), maximum })
            .expect("prlimit");
    }

    /// Asks the process to end, as `kill` does.
    pub fn terminate(&self) {
        let _ = rustix::process::kill_process(self.pid(), Signal::TERM);
    }

    /// Sends the signal by which logs are reopened.
    pub fn hang_up(&self) {
        let _ = rustix::process::kill_process(self.pid(), Signal::HUP);
    }

    /// Keeps the process from running until [`Meshgate::release`].
    pub fn hold(&self) {
        let _ = rustix::process::kill_process(self.pid(), Signal::STOP);
    }

    /// Lets the process run again.
    pub fn release(&self) {
        let _ = rustix::process::kill_process(self.pid(), Signal::CONT);
    }

    /// Waits until the process itself has ended. Others that it has started may live on.
    pub async fn exited(&mut self) -> ExitStatus {
        within("the process ends", self.child.wait()).await.expect("a child of ours")
    }

    /// Waits until the process has ended.
    pub async fn wait(mut self) -> Stopped {
        let status = within("the process ends", self.child.wait()).await.expect("a child of ours");
        self.log.closed().await;
        self.access_log.closed().await;
        Stopped { status, log: self.log.all(), access_log: self.access_log() }
    }

    /// SIGTERM, and the assertion that the process ends in order.
    pub async fn stop(self) -> Stopped {
        self.terminate();
        let stopped = self.wait().await;
        assert!(stopped.status.success(), "{}\n{}", stopped.status, stopped.log.join("\n"));
        stopped
    }

    fn pid(&self) -> Pid {
        let id = self.child.id().expect("not waited for yet");
        i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id")
    }

    fn proc(&self) -> PathBuf {
        Path::new("/proc").join(self.child.id().expect("not waited for yet").to_string())
    }
}

impl Drop for Meshgate {
    /// A test that fails shows the proxy's last words.
    fn drop(&mut self) {
        const LAST_LINES: usize = 40;
        if std::thread::panicking() {
            let log = self.log.all();
            let last = log.len().saturating_sub(LAST_LINES);
            #[expect(clippy::print_stderr, reason = "cargo shows it together with the failed assertion")]
            {
                eprintln!("the proxy's log ({} lines) ends:\n{}", log.len(), log[last..].join("\n"));
            }
        }
    }
}

fn entry(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("not a JSON access log entry ({error}): {line}"))
}

/// The value of `address=` in a line that contains `words`.
fn address_in(line: &str, words: &str) -> Option<SocketAddr> {
    let (_, fields) = line.split_once(words)?;
    let (_, address) = line[line.len() - fields.len()..].split_once("address=")?;
    address.split(' ').next()?.trim_matches('"').parse().ok()
}
