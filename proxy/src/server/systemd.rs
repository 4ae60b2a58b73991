//! What systemd tells a service and wants to hear from it: sockets that it has bound already, and the state of the process.
//! Without systemd, none of it does anything.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use meshgate_config::{Address, UnixPath};

use crate::downstream::Bound;

/// The sockets that systemd has bound for this process (`man sd_listen_fds`).
pub(super) struct ActivationSockets {
    sockets: Vec<Activated>,
}

struct Activated {
    /// `FileDescriptorName=` of its unit; the unit's own name if it has none.
    name: String,
    address: Address,
    socket: Bound,
}

impl ActivationSockets {
    /// Takes them; there are none if the process was not started by one.
    pub(super) fn take() -> ActivationSockets {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..given.len() {
            let name = names.next().unwrap_or_default().to_owned();
            match take(&mut given, index) {
                Ok(Some((address, socket))) => sockets.push(Activated { name, address, socket }),
                Ok(None) => {}
                Err(error) => tracing::warn!(%name, %error, "socket of systemd left out"),
            }
        }
        ActivationSockets { sockets }
    }

    /// The socket for a listener: the one of its name, or else of its address. Each is there for one listener; all workers
    /// accept from it.
    pub(super) fn socket_for(&self, name: &str, address: Address) -> Option<io::Result<Bound>> {
        let by_name = self.sockets.iter().find(|given| given.name == name);
        let given = by_name.or_else(|| self.sockets.iter().find(|given| given.address == address))?;
        Some(given.socket.try_clone())
    }
}

/// One of them, if it is of TCP or a Unix socket.
pub(super) fn take(given: &mut ListenFd, index: usize) -> io::Result<Option<(Address, Bound)>> {
    if let Ok(Some(socket)) = given.take_unix_listener(index) {
        let address = socket.local_addr()?;
        let path = address.as_pathname().and_then(|path| path.to_str());
        let path = UnixPath::new(path.ok_or_else(|| io::Error::other("it has no path"))?);
        return Ok(Some((Address::Unix(path), Bound::given(socket, path)?)));
    }
    let Some(socket) = given.take_tcp_listener(index)? else { return Ok(None) };
    socket.set_nonblocking(true)?;
    Ok(Some((socket.local_addr()?.into(), Bound::Ip(socket))))
}

/// Tells systemd how the process does (`man sd_notify`).
pub(super) struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// To where the environment says, if it does.
    pub(super) fn from_environment() -> Notifier {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| match connect(&path) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(?path, %error, "cannot notify systemd");
                None
            }
        });
        Notifier { socket, watchdog: watchdog() }
    }

    /// The configuration is in force, and connections are accepted.
    pub(super) fn ready(&self) {
        self.say("READY=1");
    }

    /// A reload begins; `ready` follows, whatever comes of it.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Another process takes this one's place.
    pub(super) fn replaced_by(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}\nREADY=1"));
    }

    /// The drain begins, which may take so long.
    pub(super) fn stopping(&self, patience: Duration) {
        let micros = patience.as_micros().saturating_add(5_000_000);
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}"));
    }

    /// Says that the process lives, again and again, if systemd wants to hear it. Never ends.
    pub(super) async fn keep_alive(&self) -> Infallible {
        let Some(interval) = self.watchdog.filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        loop {
            self.say("WATCHDOG=1");
            tokio::time::sleep(interval / 2).await;
        }
    }

    fn say(&self, state: &str) {
        // A manager that does not listen is not our failure.
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::debug!(%error, state, "systemd not notified");
        }
    }
}

fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let bytes = path.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => UnixAddress::from_abstract_name(name)?,
        None => UnixAddress::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// How often systemd wants to hear from this process, if at all.
fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}
