//! What runs through a cell's proxy: callers and lines, counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use meshgate_tests::{Ask, Client, Reply, framed, until, within};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::line::{Failure, Line, content};
use super::world::{CALL, Protocol, World};

/// How many there are of each kind.
const CALLERS: usize = 2;
const LINES: usize = 2;
/// Between two calls, and two turns of a line: the traffic of all cells that run at a time must leave the machine room.
const PACE: Duration = Duration::from_millis(1);
/// Records on their way at a time.
const BURST: u32 = 3;
/// How much more each caller and line has to do before the traffic counts as going on.
const FURTHER: u64 = 4;

pub(super) struct Traffic {
    world: Arc<World>,
    no_more_calls: Arc<AtomicBool>,
    no_more_records: Arc<AtomicBool>,
    callers: Mutex<JoinSet<Called>>,
    lines: Mutex<JoinSet<Result<(), Failure>>>,
    called: Vec<Arc<AtomicU64>>,
    exchanged: Vec<Arc<AtomicU64>>,
}

/// What became of calls.
#[derive(Default)]
pub(super) struct Tally {
    /// Calls without a whole answer: their numbers, and what happened.
    pub(super) unanswered: Vec<(u32, Failure)>,
    /// Connections beyond the one of each caller.
    reconnected: u32,
    refused: usize,
}

impl Tally {
    /// Asserts that every call was answered, and that no connection had to be made anew.
    pub(super) fn all_good(&self) {
        assert!(
            self.unanswered.is_empty(),
            "{} calls, such as {:?}",
            self.unanswered.len(),
            self.unanswered[0]
        );
        assert_eq!((self.refused, self.reconnected), (0, 0), "refused, or made to connect anew");
    }
}

impl Traffic {
    /// Begins. All lines are open when it returns.
    pub(super) async fn start(world: &Arc<World>, proxy: SocketAddr) -> Traffic {
        let mut traffic = Traffic {
            world: Arc::clone(world),
            no_more_calls: Arc::default(),
            no_more_records: Arc::default(),
            callers: Mutex::default(),
            lines: Mutex::default(),
            called: Vec::new(),
            exchanged: Vec::new(),
        };
        let numbers = Arc::new(AtomicU32::new(1));
        // A unary call is over before anything can happen to it.
        let lines = if world.protocol() == Protocol::GrpcUnary { 0 } else { LINES };
        for _ in 0..lines {
            let line = Line::open(world, proxy, numbers.fetch_add(1, SeqCst)).await.unwrap().unwrap();
            let exchanged = Arc::<AtomicU64>::default();
            let end = Arc::clone(&traffic.no_more_records);
            traffic.lines.get_mut().spawn(keep(line, Arc::clone(&exchanged), end));
            traffic.exchanged.push(exchanged);
        }
        for _ in 0..CALLERS {
            let called = Arc::<AtomicU64>::default();
            let caller = Caller {
                world: Arc::clone(world),
                proxy,
                numbers: Arc::clone(&numbers),
                called: Arc::clone(&called),
                client: None,
                connections: 0,
            };
            traffic.callers.get_mut().spawn(caller.run(Arc::clone(&traffic.no_more_calls)));
            traffic.called.push(called);
        }
        traffic
    }

    /// Waits until each caller and each line has done more.
    pub(super) async fn goes_on(&self) {
        further(&self.called, "calls").await;
        self.lines_go_on().await;
    }

    /// Waits until each line has done more.
    pub(super) async fn lines_go_on(&self) {
        further(&self.exchanged, "records").await;
    }

    /// Ends all lines, each of which must have been whole all the time.
    pub(super) async fn end_lines(&self) {
        self.no_more_records.store(true, SeqCst);
        let mut lines = self.lines.lock().await;
        while let Some(ended) = within("the lines' ends", lines.join_next()).await {
            ended.unwrap().unwrap_or_else(|failure| panic!("{failure}"));
        }
    }

    /// Has the callers finish.
    pub(super) async fn end_callers(&self) -> Tally {
        self.no_more_calls.store(true, SeqCst);
        self.tally().await
    }

    /// Waits until every caller was refused: the proxy takes nobody in any more.
    pub(super) async fn refused(&self) -> Tally {
        let tally = self.tally().await;
        assert_eq!(tally.refused, CALLERS);
        tally
    }

    async fn tally(&self) -> Tally {
        let mut callers = self.callers.lock().await;
        let mut tally = Tally::default();
        // Where each call has a connection of its own, there is nothing to keep.
        let keeps = !matches!(self.world.protocol(), Protocol::WebSocket | Protocol::Tcp);
        while let Some(called) = within("the callers' last calls", callers.join_next()).await {
            let called = called.unwrap();
            tally.unanswered.extend(called.unanswered);
            tally.refused += usize::from(called.refused);
            tally.reconnected += if keeps { called.connections.saturating_sub(1) } else { 0 };
        }
        tally
    }
}

/// Waits until each of the counts is larger.
async fn further(counts: &[Arc<AtomicU64>], what: &str) {
    let goals: Vec<u64> = counts.iter().map(|count| count.load(SeqCst) + FURTHER).collect();
    until(format!("more {what} are through"), || async {
        counts.iter().zip(&goals).all(|(count, goal)| count.load(SeqCst) >= *goal).then_some(())
    })
    .await;
}

async fn keep(mut line: Line, exchanged: Arc<AtomicU64>, end: Arc<AtomicBool>) -> Result<(), Failure> {
    while !end.load(SeqCst) {
        line.exchange(BURST).await?;
        exchanged.fetch_add(u64::from(BURST), SeqCst);
        tokio::time::sleep(PACE).await;
    }
    line.end().await
}

/// What one caller met.
struct Called {
    unanswered: Vec<(u32, Failure)>,
    connections: u32,
    refused: bool,
}

struct Caller {
    world: Arc<World>,
    proxy: SocketAddr,
    numbers: Arc<AtomicU32>,
    called: Arc<AtomicU64>,
    client: Option<Client>,
    connections: u32,
}

impl Caller {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Called {
        let mut unanswered = Vec::new();
        let mut refused = false;
        while !stop.load(SeqCst) && !refused {
            let number = self.numbers.fetch_add(1, SeqCst);
            match self.call(number).await {
                Ok(Ok(())) => drop(self.called.fetch_add(1, SeqCst)),
                Ok(Err(failure)) => {
                    self.client = None;
                    unanswered.push((number, failure));
                }
                Err(error) => {
                    assert!(is_refusal(&error), "call {number}: no connection: {error:?}");
                    refused = true;
                }
            }
            tokio::time::sleep(PACE).await;
        }
        Called { unanswered, connections: self.connections, refused }
    }

    /// One call. An error is that of making a connection for it.
    async fn call(&mut self, number: u32) -> io::Result<Result<(), Failure>> {
        let protocol = self.world.protocol();
        if matches!(protocol, Protocol::WebSocket | Protocol::Tcp) {
            return Ok(match Line::open(&self.world, self.proxy, number).await? {
                Ok(line) => short(line).await,
                Err(failure) => Err(failure),
            });
        }
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                self.connections += 1;
                self.world.dial_http(self.proxy).await?
            }
        };
        let called = if protocol == Protocol::GrpcStream {
            match Line::http(&mut client, protocol, number).await {
                Ok(line) => short(line).await,
                Err(failure) => Err(failure),
            }
            .map(|()| false)
        } else {
            let asked = within("an answer", client.try_call(ask(protocol, number))).await;
            asked.map_err(|error| format!("{error:?}")).and_then(|reply| judge(protocol, number, &reply))
        };
        if called == Ok(false) {
            self.client = Some(client);
        }
        Ok(called.map(drop))
    }
}

/// A few records, and the end.
async fn short(mut line: Line) -> Result<(), Failure> {
    line.exchange(BURST).await?;
    line.end().await
}

fn ask(protocol: Protocol, number: u32) -> Ask {
    let content = content(number);
    let ask = match protocol {
        Protocol::GrpcUnary => Ask::post("/test.Echo/Unary", framed(&content))
            .header("content-type", "application/grpc")
            .header("te", "trailers"),
        _ => Ask::post("/echo", content),
    };
    ask.header(CALL, &number.to_string())
}

/// Whether the answer is the right one; then, whether the server ends the connection after it.
fn judge(protocol: Protocol, number: u32, reply: &Reply) -> Result<bool, Failure> {
    let content = content(number);
    let good = match protocol {
        Protocol::GrpcUnary => {
            let status = reply.trailers.get("grpc-status").map(|status| status.as_bytes());
            reply.body == framed(&[b"echo: ", &*content].concat()) && status == Some(b"0")
        }
        _ => reply.body == content,
    };
    if reply.status != 200 || !good || reply.header("x-version").is_empty() {
        return Err(format!("{reply:?}"));
    }
    Ok(reply.header("connection") == "close")
}

/// Nobody accepted the connection, or it went with the listening socket.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | UnexpectedEof
    )
}
