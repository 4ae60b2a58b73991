//! Sockets that accept: bound to an IP address for each worker, or to a path for all of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use meshgate_config::{Address as Configured, SocketMode};
use meshgate_wasm::Address;
use socket2::{Domain, SockAddr, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::socket::{self, Socket};

/// Connections that wait in the kernel to be accepted; the system's own limit may be lower.
const BACKLOG: i32 = 1024;

/// A socket that listens, and that no worker has yet.
#[derive(Debug)]
pub enum Bound {
    /// On an IP address. All workers bind the same one: the kernel spreads the connections over them.
    Ip(std::net::TcpListener),
    /// On a path. There is one socket, of which each worker has a handle.
    Unix(std::os::unix::net::UnixListener, Address),
}

/// The file of a Unix socket. Dropping it removes the file, if it is still the same one.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Binds a socket to an IP address, for one worker.
///
/// # Errors
/// The address is taken by another process, is not ours, or may not be bound.
pub fn bind(address: std::net::SocketAddr) -> io::Result<Bound> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Bound::Ip(socket.into()))
}

/// Binds a socket to a path, for all workers. A file that a process has left there which is gone is replaced.
///
/// # Errors
/// Somebody listens there, something else is there, or the folder may not be written to.
pub fn bind_unix(path: meshgate_config::UnixPath, mode: SocketMode) -> io::Result<(Bound, SocketFile)> {
    let path: &'static str = path.as_str();
    let file = Path::new(path);
    remove_stale(file)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(file)?)?;
    let socket_file = SocketFile::of(file)?;
    // Nobody can connect before it listens, so nobody slips in between.
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode.0))?;
    socket.listen(BACKLOG)?;
    Ok((Bound::Unix(socket.into(), Address::Unix(path)), socket_file))
}

/// Removes the file of a socket that nobody listens on.
fn remove_stale(file: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(file) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // Without waiting: a listener that is busy is one, too.
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(file)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Ok(()) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there")),
    }
}

impl SocketFile {
    /// Changes who may connect.
    pub fn set_mode(&self, mode: SocketMode) {
        let permissions = std::fs::Permissions::from_mode(mode.0);
        if let Err(error) = std::fs::set_permissions(&self.path, permissions) {
            tracing::warn!(path = %self.path.display(), %error, "cannot change who may connect to a socket");
        }
    }

    /// The file of a socket that somebody else has bound and leaves to us.
    ///
    /// # Errors
    /// It is not there.
    pub fn adopt(path: meshgate_config::UnixPath, mode: SocketMode) -> io::Result<SocketFile> {
        let file = SocketFile::of(Path::new(path.as_str()))?;
        file.set_mode(mode);
        Ok(file)
    }

    /// Leaves the file to somebody else.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }

    /// The file of a socket, as it is.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(path: &Path) -> io::Result<SocketFile> {
        let identity = identity(path)?;
        Ok(SocketFile { path: path.to_owned(), identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the file of a socket");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Bound {
    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Bound::Ip(socket) => socket.local_addr().map(Address::Ip),
            Bound::Unix(_, address) => Ok(*address),
        }
    }

    /// Another handle to the same socket, for another worker.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn try_clone(&self) -> io::Result<Bound> {
        match self {
            Bound::Ip(socket) => socket.try_clone().map(Bound::Ip),
            Bound::Unix(socket, address) => Ok(Bound::Unix(socket.try_clone()?, *address)),
        }
    }

    /// The socket itself.
    pub fn into_fd(self) -> OwnedFd {
        match self {
            Bound::Ip(socket) => socket.into(),
            Bound::Unix(socket, _) => socket.into(),
        }
    }

    /// A socket on a path that somebody else has bound.
    ///
    /// # Errors
    /// It cannot be made not to block.
    pub fn given(
        socket: std::os::unix::net::UnixListener,
        path: meshgate_config::UnixPath,
    ) -> io::Result<Bound> {
        socket.set_nonblocking(true)?;
        Ok(Bound::Unix(socket, socket::seen(Configured::Unix(path))))
    }
}

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) socket: Socket,
    pub(super) source: Address,
    pub(super) destination: Address,
}

/// A socket that a worker accepts from.
pub(super) enum Listening {
    Ip(TcpListener),
    Unix(UnixListener, Address),
}

impl Listening {
    pub(super) fn new(socket: Bound) -> io::Result<Listening> {
        Ok(match socket {
            Bound::Ip(socket) => Listening::Ip(TcpListener::from_std(socket)?),
            Bound::Unix(socket, address) => Listening::Unix(UnixListener::from_std(socket)?, address),
        })
    }

    /// The next connection. Dropping the future loses none.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listening::Ip(socket) => {
                let (socket, source) = socket.accept().await?;
                accepted(socket, source)
            }
            Listening::Unix(socket, address) => {
                let (socket, _) = socket.accept().await?;
                Ok(local(socket, *address))
            }
        }
    }

    /// Another handle to it.
    pub(super) fn handle(&self) -> io::Result<Bound> {
        match self {
            Listening::Ip(socket) => Ok(Bound::Ip(socket.as_fd().try_clone_to_owned()?.into())),
            Listening::Unix(socket, address) => {
                Ok(Bound::Unix(socket.as_fd().try_clone_to_owned()?.into(), *address))
            }
        }
    }

    /// The connections that wait to be accepted; the last ones, of a socket for this worker alone.
    pub(super) fn waiting(self) -> impl Iterator<Item = Accepted> {
        let next: Box<dyn FnMut() -> Option<Accepted>> = match self {
            Listening::Ip(socket) => {
                let socket = socket.into_std().ok();
                Box::new(move || {
                    loop {
                        let (socket, source) = socket.as_ref()?.accept().ok()?;
                        let socket = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
                        if let Ok(accepted) = socket.and_then(|socket| accepted(socket, source)) {
                            return Some(accepted);
                        }
                    }
                })
            }
            Listening::Unix(socket, address) => {
                let socket = socket.into_std().ok();
                Box::new(move || {
                    let (socket, _) = socket.as_ref()?.accept().ok()?;
                    let socket = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
                    Some(local(socket.ok()?, address))
                })
            }
        };
        std::iter::from_fn(next)
    }
}

/// An error is about a client that is gone already.
fn accepted(socket: TcpStream, source: std::net::SocketAddr) -> io::Result<Accepted> {
    let gone = |error| io::Error::new(io::ErrorKind::ConnectionAborted, error);
    let destination = socket.local_addr().map_err(gone)?;
    socket.set_nodelay(true).map_err(gone)?;
    Ok(Accepted { socket: socket.into(), source: source.into(), destination: destination.into() })
}

/// Clients on a Unix socket have no address; what they connected to has.
fn local(socket: UnixStream, destination: Address) -> Accepted {
    Accepted { socket: Socket::Unix(socket), source: Address::Unix(""), destination }
}
