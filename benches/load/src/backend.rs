//! The backend that every subject forwards to: one thread, prebuilt answers, every request checked.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use rustls::{ServerConfig, ServerConnection};

use crate::link::{Certificates, Link};
use crate::wire::{Head, Incoming, READ_SIZE, Received, Wire, content_length};
use crate::workload::Workload;

/// What it speaks, each on a port of its own. The first tokens are those of the listening sockets.
const LINKS: [Link; 3] = [Link::Http1, Link::Tls, Link::Mtls];

/// A running backend. Dropping it stops its thread.
pub(crate) struct Backend {
    /// In the order of [`LINKS`].
    addresses: [SocketAddr; LINKS.len()],
    complaints: Complaints,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

type Complaints = Arc<Mutex<BTreeMap<String, u64>>>;

impl Backend {
    /// Starts the thread; it inherits the caller's core.
    pub(crate) fn start(pattern: Arc<[u8]>, certificates: &Certificates) -> Result<Self> {
        let mut listeners = Vec::with_capacity(LINKS.len());
        let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); LINKS.len()];
        for (link, address) in LINKS.into_iter().zip(&mut addresses) {
            let socket = TcpListener::bind(*address).context("backend cannot listen")?;
            socket.set_nonblocking(true)?;
            *address = socket.local_addr()?;
            listeners.push(Listener { socket, tls: certificates.server(link).cloned() });
        }
        let complaints = Complaints::default();
        let stop = Arc::new(AtomicBool::new(false));
        let mut serving = Serving {
            replies: Workload::ALL.iter().map(|workload| workload.reply(&pattern)).collect(),
            pattern,
            connections: HashMap::new(),
            complaints: Arc::clone(&complaints),
        };
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("backend".into()).spawn(move || {
            if let Err(error) = serving.run(&listeners, &stopping) {
                complain(&serving.complaints, format!("backend stopped: {error:#}"));
            }
        })?;
        Ok(Self { addresses, complaints, stop, thread: Some(thread) })
    }

    /// Where it listens for a subject that is spoken to over this link.
    pub(crate) fn address(&self, link: Link) -> SocketAddr {
        let [plain, _, mutual] = self.addresses;
        if link == Link::Mtls { mutual } else { plain }
    }

    /// Where it listens for the generator itself; None if it does not speak that.
    pub(crate) fn direct_address(&self, link: Link) -> Option<SocketAddr> {
        let mut spoken = LINKS.into_iter().zip(self.addresses);
        spoken.find(|(spoken, _)| *spoken == link).map(|(_, address)| address)
    }

    /// What was wrong with the requests since the last call, each with its count.
    pub(crate) fn take_complaints(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.complaints.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already, and the rows without answers say the rest.
            drop(thread.join());
        }
    }
}

struct Listener {
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

struct Serving {
    pattern: Arc<[u8]>,
    /// In the order of [`Workload::ALL`].
    replies: Vec<Arc<[u8]>>,
    connections: HashMap<u64, Connection>,
    complaints: Complaints,
}

struct Connection {
    wire: Wire,
    incoming: Incoming<usize>,
}

impl Serving {
    fn run(&mut self, listeners: &[Listener], stop: &AtomicBool) -> Result<()> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (token, listener) in (0..).zip(listeners) {
            let data = epoll::EventData::new_u64(token);
            epoll::add(&epoll, &listener.socket, data, epoll::EventFlags::IN)?;
        }
        let mut events = Vec::with_capacity(256);
        let mut buffer = vec![0; READ_SIZE];
        let mut next_token = listeners.len() as u64;
        let wait = Duration::from_millis(100).try_into()?;
        while !stop.load(Ordering::Relaxed) {
            match epoll::wait(&epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let token = event.data.u64();
                match usize::try_from(token).ok().and_then(|index| listeners.get(index)) {
                    Some(listener) => self.accept(listener, &epoll, &mut next_token)?,
                    None => self.drive(token, &mut buffer),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, listener: &Listener, epoll: &OwnedFd, next_token: &mut u64) -> Result<()> {
        loop {
            let stream = match listener.socket.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accept"),
            };
            let tls = listener.tls.as_ref().map(|tls| ServerConnection::new(Arc::clone(tls))).transpose()?;
            let wire = Wire::register(stream, tls.map(Into::into), epoll, *next_token)?;
            self.connections.insert(*next_token, Connection { wire, incoming: Incoming::new() });
            *next_token += 1;
        }
    }

    /// Serves one connection until it has nothing more; a faulty one is closed, which the generator will see too.
    fn drive(&mut self, token: u64, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match serve(connection, buffer, &self.pattern, &self.replies) {
            Ok(true) => {}
            Ok(false) => drop(self.connections.remove(&token)),
            Err(error) => {
                complain(&self.complaints, format!("backend: {error:#}"));
                self.connections.remove(&token);
            }
        }
    }
}

/// Answers the requests that have arrived. False: the peer closed the connection.
fn serve(
    connection: &mut Connection,
    buffer: &mut [u8],
    pattern: &[u8],
    replies: &[Arc<[u8]>],
) -> Result<bool> {
    let Connection { wire, incoming } = connection;
    wire.flush()?;
    loop {
        match wire.receive(buffer) {
            Ok(Received::Nothing) => return Ok(true),
            Ok(Received::Closed) if incoming.is_mid_message() => bail!("a request was cut off"),
            // A reset between requests is one way to close an idle connection.
            Ok(Received::Closed) | Err(_) => return Ok(false),
            Ok(Received::Bytes(read)) => {
                let bytes = buffer.get(..read).unwrap_or_default();
                incoming.feed(bytes, pattern, parse_request, |reply| {
                    if !wire.is_sent() {
                        bail!("a request before the answer to the last one was taken");
                    }
                    let reply = replies.get(reply).context("no such reply")?;
                    Ok(wire.send(reply)?)
                })?;
                if wire.is_drained(read, buffer.len()) {
                    return Ok(true);
                }
            }
        }
    }
}

/// Reads a request head: its meaning is the index of the reply.
fn parse_request(bytes: &[u8]) -> Result<Option<Head<usize>>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(bytes)? else { return Ok(None) };
    let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let position =
        Workload::ALL.iter().position(|workload| workload.path() == path && workload.method() == method);
    let Some(reply) = position else { bail!("request for {method} {path}") };
    let body = match content_length(request.headers)? {
        Some(length) => length,
        None if request.headers.iter().any(|field| field.name.eq_ignore_ascii_case("transfer-encoding")) => {
            bail!("a chunked request body, sent with content-length")
        }
        None => 0,
    };
    let expected = Workload::ALL.get(reply).map_or(0, |workload| workload.request_body());
    if body != expected {
        bail!("{method} {path} with a body of {body} bytes, {expected} were sent");
    }
    Ok(Some(Head { length, body, meaning: reply }))
}

fn complain(complaints: &Complaints, what: String) {
    *complaints.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
}
