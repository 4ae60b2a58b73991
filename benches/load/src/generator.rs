//! The load generator: a fixed number of requests in flight on keep-alive connections, on one thread. Over HTTP/1.1 each
//! connection has one of them, over HTTP/2 several.
//!
//! Every response is checked: status, length, each byte of the body, and the fields that the subject's filters add.
//! Anything else is counted as an error, and one error makes the whole row invalid.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::http2::{Http2, STREAMS};
use crate::link::{Certificates, Link, NAME};
use crate::wire::{Head, Incoming, READ_SIZE, Received, Wire, content_length};
use crate::workload::Workload;

/// With so many errors a row says nothing any more, and going on may never end.
const MAX_ERRORS: u64 = 100;

/// How long the last responses may take once the measurement is over.
const DRAIN: Duration = Duration::from_secs(10);

/// What a stretch of load came to.
#[derive(Default)]
pub(crate) struct Sample {
    /// Complete, correct responses.
    pub(crate) responses: u64,
    /// From the request's first byte written to the response's last byte read, in nanoseconds, one per response.
    pub(crate) latencies: Vec<u64>,
    /// What went wrong, each with its count.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The time really taken.
    pub(crate) elapsed: Duration,
}

/// What every response must be.
#[derive(Clone)]
pub(crate) struct Expectation {
    /// Bytes of the body.
    pub(crate) body: usize,
    /// Response fields that the subject's filters add.
    pub(crate) fields: Vec<String>,
}

/// Open connections to one subject.
pub(crate) struct Generator {
    address: SocketAddr,
    workload: Workload,
    tls: Option<Arc<ClientConfig>>,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    request: Arc<[u8]>,
    pattern: Arc<[u8]>,
    expectation: Expectation,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

struct Connection {
    wire: Wire,
    speech: Speech,
    /// Requests that it is to have in flight.
    share: usize,
}

/// How far a connection's messages have come.
enum Speech {
    Http1 {
        incoming: Incoming<()>,
        /// When the request in flight began; None: idle.
        started: Option<Instant>,
    },
    Http2(Box<Http2>),
}

impl Generator {
    /// Opens connections for `count` requests in flight, idle at first.
    pub(crate) fn connect(
        address: SocketAddr,
        count: usize,
        workload: Workload,
        certificates: &Certificates,
        pattern: &Arc<[u8]>,
        fields: &[String],
    ) -> Result<Self> {
        let link = workload.link();
        let mut generator = Self {
            address,
            workload,
            tls: certificates.client(link).cloned(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(count),
            request: workload.request(address, pattern),
            pattern: Arc::clone(pattern),
            expectation: Expectation { body: workload.response_body(), fields: fields.to_vec() },
            events: Vec::with_capacity(count.max(1)),
            buffer: vec![0; READ_SIZE],
        };
        let each = if link == Link::Http2 { STREAMS } else { 1 };
        for index in 0..count.div_ceil(each) {
            let connection = generator.open(index, each.min(count - index * each))?;
            generator.connections.push(connection);
        }
        Ok(generator)
    }

    /// One request on each connection, to learn whether the subject answers as it should.
    pub(crate) fn probe(&mut self, within: Duration, stop: &AtomicBool) -> Result<()> {
        let mut sample = Sample::default();
        self.start_idle(&mut sample);
        self.drain(&mut sample, within, stop)?;
        match sample.errors.pop_first() {
            Some((error, _)) => bail!("{error}"),
            None => Ok(()),
        }
    }

    /// Keeps every connection busy for `duration`. The requests in flight at the end stay in flight.
    pub(crate) fn run(&mut self, duration: Duration, stop: &AtomicBool) -> Result<Sample> {
        let mut sample = Sample::default();
        let begin = Instant::now();
        self.start_idle(&mut sample);
        loop {
            let elapsed = begin.elapsed();
            if elapsed >= duration {
                sample.elapsed = elapsed;
                return Ok(sample);
            }
            self.turn(duration - elapsed, true, &mut sample, stop)?;
        }
    }

    /// Waits for the responses still under way without sending more; what does not come is an error.
    pub(crate) fn drain(&mut self, sample: &mut Sample, within: Duration, stop: &AtomicBool) -> Result<()> {
        let begin = Instant::now();
        while self.in_flight() > 0 {
            let Some(left) = within.checked_sub(begin.elapsed()) else {
                *sample.errors.entry("no response in time".into()).or_default() += self.in_flight();
                return Ok(());
            };
            self.turn(left, false, sample, stop)?;
        }
        Ok(())
    }

    /// [`Generator::drain`] with the usual time limit, for the end of a measurement.
    pub(crate) fn finish(mut self, sample: &mut Sample, stop: &AtomicBool) -> Result<()> {
        let mut rest = Sample::default();
        self.drain(&mut rest, DRAIN, stop)?;
        for (error, count) in rest.errors {
            *sample.errors.entry(error).or_default() += count;
        }
        Ok(())
    }

    fn in_flight(&self) -> u64 {
        self.connections.iter().map(|connection| connection.speech.in_flight() as u64).sum()
    }

    fn open(&self, index: usize, share: usize) -> Result<Connection> {
        let stream =
            TcpStream::connect(self.address).with_context(|| format!("connect to {}", self.address))?;
        let name = ServerName::try_from(NAME)?;
        let tls = self.tls.as_ref().map(|tls| ClientConnection::new(Arc::clone(tls), name));
        let tls = tls.transpose()?.map(Into::into);
        let mut wire = Wire::register(stream, tls, &self.epoll, index as u64)?;
        let speech = match self.workload.link() {
            Link::Http2 => {
                Speech::Http2(Box::new(Http2::new(self.workload.path(), self.address, wire.frames())))
            }
            _ => Speech::Http1 { incoming: Incoming::new(), started: None },
        };
        Ok(Connection { wire, speech, share })
    }

    fn start_idle(&mut self, sample: &mut Sample) {
        for connection in &mut self.connections {
            if let Err(error) = connection.fill(&self.request) {
                *sample.errors.entry(format!("{error:#}")).or_default() += 1;
            }
        }
    }

    /// Waits for events, at most `wait`, and deals with them.
    fn turn(&mut self, wait: Duration, go_on: bool, sample: &mut Sample, stop: &AtomicBool) -> Result<()> {
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        // Never longer than this, so that an interruption is noticed.
        let wait = wait.min(Duration::from_millis(100)).try_into()?;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            let index = usize::try_from(event.data.u64())?;
            if let Err(error) = self.drive(index, go_on, sample) {
                *sample.errors.entry(format!("{error:#}")).or_default() += 1;
                let errors: u64 = sample.errors.values().sum();
                if errors > MAX_ERRORS {
                    bail!("more than {MAX_ERRORS} errors, the last: {error:#}");
                }
                self.reopen(index, go_on)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn drive(&mut self, index: usize, go_on: bool, sample: &mut Sample) -> Result<()> {
        let connection = self.connections.get_mut(index).context("no such connection")?;
        connection.wire.flush()?;
        loop {
            match connection.wire.receive(&mut self.buffer).context("read")? {
                Received::Nothing => return Ok(()),
                Received::Closed => bail!("connection closed by the subject"),
                Received::Bytes(read) => {
                    let bytes = self.buffer.get(..read).unwrap_or_default();
                    connection.take(bytes, &self.pattern, &self.expectation, sample)?;
                    if go_on {
                        connection.fill(&self.request)?;
                    }
                    connection.wire.flush()?;
                    if connection.wire.is_drained(read, self.buffer.len()) {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn reopen(&mut self, index: usize, go_on: bool) -> Result<()> {
        let Some(share) = self.connections.get(index).map(|connection| connection.share) else {
            return Ok(());
        };
        let mut connection = self.open(index, share)?;
        if go_on {
            connection.fill(&self.request)?;
        }
        if let Some(place) = self.connections.get_mut(index) {
            *place = connection;
        }
        Ok(())
    }
}

impl Speech {
    fn in_flight(&self) -> usize {
        match self {
            Self::Http1 { started, .. } => usize::from(started.is_some()),
            Self::Http2(http2) => http2.in_flight(),
        }
    }
}

impl Connection {
    /// Begins as many requests as the connection is to have in flight.
    fn fill(&mut self, request: &Arc<[u8]>) -> Result<()> {
        match &mut self.speech {
            Speech::Http1 { started: Some(_), .. } => Ok(()),
            Speech::Http1 { started, .. } => {
                *started = Some(Instant::now());
                self.wire.send(request).context("write")
            }
            Speech::Http2(http2) => {
                while http2.in_flight() < self.share {
                    http2.begin(self.wire.frames());
                }
                self.wire.flush().context("write")
            }
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        pattern: &[u8],
        expectation: &Expectation,
        sample: &mut Sample,
    ) -> Result<()> {
        let Self { speech, wire, .. } = self;
        let mut complete = |started: Instant| {
            sample.responses += 1;
            sample.latencies.push(started.elapsed().as_nanos().try_into()?);
            Ok(())
        };
        let (incoming, started) = match speech {
            Speech::Http1 { incoming, started } => (incoming, started),
            Speech::Http2(http2) => {
                return http2.feed(bytes, pattern, expectation.body, wire.frames(), complete);
            }
        };
        incoming.feed(
            bytes,
            pattern,
            |bytes| parse_response(bytes, expectation),
            |()| {
                let started = started.take().ok_or_else(|| anyhow!("a response that nobody asked for"))?;
                if !wire.is_sent() {
                    bail!("a response before the request was read");
                }
                complete(started)
            },
        )
    }
}

fn parse_response(bytes: &[u8], expectation: &Expectation) -> Result<Option<Head<()>>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
    let status = response.code.unwrap_or_default();
    if status != 200 {
        bail!("status {status}");
    }
    for name in &expectation.fields {
        if !response.headers.iter().any(|field| field.name.eq_ignore_ascii_case(name)) {
            bail!("no field {name} in the response: a filter did not run");
        }
    }
    match content_length(response.headers)? {
        Some(body) if body == expectation.body => Ok(Some(Head { length, body, meaning: () })),
        Some(body) => bail!("content-length {body}, expected {}", expectation.body),
        None => bail!("a response without content-length"),
    }
}
