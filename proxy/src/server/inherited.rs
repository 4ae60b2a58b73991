//! What a process gets from the one whose place it takes: the sockets that are listened on, and a way to say that it is ready.
//! `upgrade` is the other side.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use listenfd::ListenFd;
use meshgate_config::{Address, Listener};

use super::systemd;
use super::upgrade::{PASSED, Passed, READY};
use crate::downstream::{Bound, SocketFile};

/// The process before this one. Without it, everything here is empty.
#[derive(Default)]
pub(super) struct Predecessor {
    sockets: RefCell<VecDeque<(Passed, Bound)>>,
    admin: RefCell<Option<(String, TcpListener)>>,
    words: RefCell<Option<UnixStream>>,
}

/// What it had open for a listener.
pub(super) struct Inherited {
    /// At least one.
    pub(super) sockets: Vec<Bound>,
    /// The file of a Unix socket, to be removed in the end.
    pub(super) file: Option<SocketFile>,
}

impl Predecessor {
    /// The one that has started this process to take its place.
    ///
    /// # Errors
    /// There is one, and what it passes on cannot be used: then nobody should rely on this process.
    pub(super) fn take() -> io::Result<Option<Predecessor>> {
        let Ok(passed) = std::env::var(PASSED) else { return Ok(None) };
        let mut given = ListenFd::from_env();
        let passed: Vec<Passed> = serde_json::from_str(&passed)?;
        if given.len() == 0 && !passed.is_empty() {
            // It was meant for a process from which this one has the variable.
            return Ok(None);
        }
        if given.len() != passed.len() {
            return Err(io::Error::other(format!("{} sockets for {} names", given.len(), passed.len())));
        }
        let predecessor = Predecessor::default();
        for (index, passed) in passed.into_iter().enumerate() {
            let Some((_, socket)) = systemd::take(&mut given, index)? else { continue };
            match (&passed.listener, socket) {
                (None, Bound::Ip(socket)) => {
                    *predecessor.admin.borrow_mut() = Some((passed.address, socket));
                }
                (None, Bound::Unix(..)) => {}
                (Some(_), socket) => predecessor.sockets.borrow_mut().push_back((passed, socket)),
            }
        }
        let words = io::stdin().as_fd().try_clone_to_owned()?;
        *predecessor.words.borrow_mut() = Some(UnixStream::from(words));
        Ok(Some(predecessor))
    }

    /// Its sockets for a listener, if it had one with this name and address.
    pub(super) fn sockets_for(&self, listener: &Listener) -> io::Result<Option<Inherited>> {
        let address = listener.address.to_string();
        let is_meant =
            |passed: &Passed| passed.listener.as_ref() == Some(&listener.name) && passed.address == address;
        let (meant, others) =
            self.sockets.take().into_iter().partition::<VecDeque<_>, _>(|(passed, _)| is_meant(passed));
        *self.sockets.borrow_mut() = others;
        let owns_file = meant.iter().any(|(passed, _)| passed.owns_file);
        let file = match listener.address {
            Address::Unix(path) if owns_file => Some(SocketFile::adopt(path, listener.socket_mode)?),
            _ => None,
        };
        let sockets: Vec<Bound> = meant.into_iter().map(|(_, socket)| socket).collect();
        Ok((!sockets.is_empty()).then_some(Inherited { sockets, file }))
    }

    /// Its socket for the admin API, if that had this address.
    pub(super) fn admin(&self, address: &str) -> Option<TcpListener> {
        let (of, socket) = self.admin.take()?;
        (of == address).then_some(socket)
    }

    /// Says that this process accepts connections. What was not taken is let go.
    ///
    /// # Errors
    /// Nobody hears it: there is no place to take.
    pub(super) fn tell_ready(&self) -> io::Result<()> {
        for (passed, socket) in self.sockets.take() {
            if passed.owns_file
                && let Bound::Unix(_, seen) = &socket
                && let meshgate_wasm::Address::Unix(path) = seen
            {
                // Nobody listens there any more. It may be gone already.
                drop(SocketFile::of(Path::new(path)));
            }
        }
        self.admin.take();
        match self.words.take() {
            Some(mut words) => words.write_all(READY),
            None => Ok(()),
        }
    }
}
