//! A file descriptor kept for the admin API: when the process has no other left, somebody wants to know why.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};

/// What is held open for nothing but its descriptor.
const NOTHING: &str = "/dev/null";

/// A file that is open only to be closed when there are no descriptors left: then there is one again, and a connection can be
/// accepted with it. Kept from the start, since clients of the listeners take all that there are.
pub(super) struct SpareFile(Mutex<Option<File>>);

impl SpareFile {
    pub(super) fn new() -> SpareFile {
        SpareFile(Mutex::new(open()))
    }

    /// Whether it is there to be closed.
    pub(super) fn is_there(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes a descriptor again, if it was closed and one is free.
    pub(super) fn restore(&self) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = open();
        }
    }

    /// Closes the file and accepts in its place. None: nobody waits, or a worker was faster.
    pub(super) async fn accept(&self, listener: &TcpListener) -> Option<TcpStream> {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        // The system says that there are no descriptors before it looks whether somebody waits. To wait here for somebody would
        // leave the descriptor to the workers.
        let accepted = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await;
        if let Poll::Ready(Ok((stream, _))) = accepted {
            return Some(stream);
        }
        self.restore();
        None
    }
}

fn open() -> Option<File> {
    File::open(NOTHING).ok()
}

/// Whether what failed failed because the process, or the system, has no descriptor left.
pub(super) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn accepts_in_its_place_whoever_waits_and_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let spare = SpareFile::new();
        assert!(spare.is_there());
        assert!(spare.accept(&listener).await.is_none(), "nobody waits");
        assert!(spare.is_there(), "and it waits for nobody");

        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut accepted = None;
        while accepted.is_none() {
            accepted = spare.accept(&listener).await;
            tokio::task::yield_now().await;
        }
        assert!(!spare.is_there());
        spare.restore();
        assert!(spare.is_there());
    }

    #[test]
    fn only_want_of_descriptors_is_one() {
        for (error, expected) in
            [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::NOBUFS, false), (Errno::AGAIN, false)]
        {
            assert_eq!(is_out_of_files(&error.into()), expected, "{error}");
        }
        assert!(!is_out_of_files(&io::Error::other("of no number")));
    }
}
