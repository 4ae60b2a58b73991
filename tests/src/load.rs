//! Load over keep-alive connections, without pause or at a rate, where every request is counted and every answer judged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ask::Ask;
use crate::client::{Client, ID, Reply};
use crate::deadline::within;

/// Running load; `stop` ends it and tells the result.
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<Count>,
    connections: JoinSet<()>,
}

#[derive(Default)]
struct Count {
    sent: AtomicU64,
    good: watch::Sender<u64>,
    refused: AtomicU64,
    bad: Mutex<Vec<String>>,
    unanswered: Mutex<Vec<Unanswered>>,
    times: Mutex<Vec<Timed>>,
}

/// What became of the requests.
#[derive(Debug)]
pub struct Tally {
    /// Requests sent.
    pub sent: u64,
    /// Answers that were judged good.
    pub good: u64,
    /// What was wrong with other answers, one line each.
    pub bad: Vec<String>,
    /// Requests without a whole answer.
    pub unanswered: Vec<Unanswered>,
    /// Connections that nobody accepted. Each ends its share of the load.
    pub refused: u64,
    /// How long each whole answer took, shortest first.
    pub times: Vec<Timed>,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// When it was sent, or due.
    pub began: Instant,
    /// How long the whole answer took.
    pub took: Duration,
}

/// A request that got no whole answer.
#[derive(Debug)]
pub struct Unanswered {
    /// The id it carried, which a backend that saw it knows: `Seen::id`.
    pub id: String,
    /// Nothing of an answer arrived: the connection ended before or after the request was written, so that HTTP/1.1 tells
    /// the client to send it again.
    pub untouched: bool,
    /// What happened.
    pub error: String,
}

impl Tally {
    /// Asserts that every request that was sent got a good answer, and says how many there were.
    pub fn all_good(&self) -> u64 {
        assert!(self.bad.is_empty(), "{} bad answers, such as {}", self.bad.len(), self.bad[0]);
        assert!(
            self.unanswered.is_empty(),
            "{} unanswered, such as {:?}",
            self.unanswered.len(),
            self.unanswered[0]
        );
        assert_eq!((self.good, self.refused), (self.sent, 0));
        self.good
    }
}

impl Load {
    /// Sends `ask()` over `connections` HTTP/1.1 connections without pause, and lets `judge` look at every answer.
    pub fn start<A, J>(address: SocketAddr, connections: usize, ask: A, judge: J) -> Load
    where
        A: Fn() -> Ask + Clone + Send + 'static,
        J: Fn(&Reply) -> Result<(), String> + Clone + Send + 'static,
    {
        Load::run(address, connections, None, ask, judge)
    }

    /// As [`Load::start`], with so many requests per second. One that had to wait for the answer before it is timed from
    /// when it was due: a server that stands still is not asked less.
    pub fn paced<A, J>(address: SocketAddr, connections: usize, per_second: u32, ask: A, judge: J) -> Load
    where
        A: Fn() -> Ask + Clone + Send + 'static,
        J: Fn(&Reply) -> Result<(), String> + Clone + Send + 'static,
    {
        Load::run(address, connections, Some(per_second), ask, judge)
    }

    fn run<A, J>(address: SocketAddr, connections: usize, per_second: Option<u32>, ask: A, judge: J) -> Load
    where
        A: Fn() -> Ask + Clone + Send + 'static,
        J: Fn(&Reply) -> Result<(), String> + Clone + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(Count::default());
        let mut running = JoinSet::new();
        for index in 0..connections {
            let pace = per_second.map(|rate| Pace::of(rate, index, connections));
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            running.spawn(one_connection(address, stop, count, pace, ask.clone(), judge.clone()));
        }
        Load { stop, count, connections: running }
    }

    /// Waits until `more` further answers were judged good.
    pub async fn wait_for_more(&self, more: u64) {
        let mut good = self.count.good.subscribe();
        let target = *good.borrow_and_update() + more;
        let _ = within(format!("{more} more good answers"), good.wait_for(|now| *now >= target)).await;
    }

    /// Lets the requests on their way finish and sends no more.
    pub async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        self.ended().await
    }

    /// Waits until every connection was refused: the server is gone.
    pub async fn ended(mut self) -> Tally {
        within("the load's last answers", async { while self.connections.join_next().await.is_some() {} })
            .await;
        let take = "nobody panics while pushing";
        let mut times = std::mem::take(&mut *self.count.times.lock().expect(take));
        times.sort_unstable_by_key(|timed: &Timed| timed.took);
        Tally {
            sent: self.count.sent.load(Ordering::SeqCst),
            good: *self.count.good.borrow(),
            bad: std::mem::take(&mut *self.count.bad.lock().expect(take)),
            unanswered: std::mem::take(&mut *self.count.unanswered.lock().expect(take)),
            refused: self.count.refused.load(Ordering::SeqCst),
            times,
        }
    }
}

/// When one connection's requests are due.
struct Pace {
    due: Instant,
    period: Duration,
}

impl Pace {
    /// The share of the connection with this index.
    fn of(rate: u32, index: usize, connections: usize) -> Pace {
        let period = Duration::from_secs_f64(connections as f64 / f64::from(rate));
        Pace { due: Instant::now() + period.mul_f64(index as f64 / connections as f64), period }
    }

    /// Waits for the next request's time. When it began: in the past, if the connection was busy then.
    async fn next(&mut self) -> Instant {
        let due = self.due;
        self.due += self.period;
        if due <= Instant::now() {
            return due;
        }
        tokio::time::sleep_until(due.into()).await;
        // The timer's own delay is nobody's answer.
        Instant::now()
    }
}

async fn one_connection<A, J>(
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    count: Arc<Count>,
    mut pace: Option<Pace>,
    ask: A,
    judge: J,
) where
    A: Fn() -> Ask,
    J: Fn(&Reply) -> Result<(), String>,
{
    let mut client = None;
    while !stop.load(Ordering::SeqCst) {
        let due = match &mut pace {
            Some(pace) => Some(pace.next().await),
            None => None,
        };
        // A server may end a connection after an answer, in order ("connection: close"); a new one is opened then.
        let mut open = match client.take() {
            Some(client) => client,
            None => match Client::try_http1(address).await {
                Ok(client) => client,
                Err(_) => {
                    count.refused.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            },
        };
        let sent = count.sent.fetch_add(1, Ordering::SeqCst);
        let id = format!("load-{address}-{sent}");
        let began = due.unwrap_or_else(Instant::now);
        match open.try_call(ask().header(ID, &id)).await {
            Ok(reply) => {
                let timed = Timed { began, took: began.elapsed() };
                count.times.lock().expect("nobody panics while pushing").push(timed);
                match judge(&reply) {
                    Ok(()) => count.good.send_modify(|good| *good += 1),
                    Err(wrong) => count.bad.lock().expect("nobody panics while pushing").push(wrong),
                }
                if reply.header("connection") != "close" {
                    client = Some(open);
                }
            }
            Err(error) => {
                let untouched = error.is_canceled() || error.is_incomplete_message() || error.is_closed();
                let unanswered = Unanswered { id, untouched, error: format!("{error:?}") };
                count.unanswered.lock().expect("nobody panics while pushing").push(unanswered);
            }
        }
    }
}
