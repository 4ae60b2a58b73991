//! Unix sockets on either side.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::client::Client;

impl Client {
    /// Connects to a Unix socket and speaks HTTP/1.1, or HTTP/2 at once.
    pub async fn unix(path: &Path, http2: bool) -> Client {
        let stream =
            UnixStream::connect(path).await.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Client::over(stream, http2, "localhost").await
    }
}

/// Listens on a Unix socket in front of a backend that listens elsewhere.
pub struct UnixFront {
    folder: TempDir,
    accepting: AbortHandle,
}

impl UnixFront {
    /// In front of this address.
    pub async fn to(target: SocketAddr) -> UnixFront {
        let folder = TempDir::new().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join("backend.sock")).expect("a socket");
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("accept");
                connections.spawn(async move {
                    let mut backend = TcpStream::connect(target).await.expect("the backend");
                    // Either side may leave as it likes.
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut backend).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        UnixFront { folder, accepting: accepting.abort_handle() }
    }

    /// The path of its socket.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("backend.sock")
    }
}

impl Drop for UnixFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
