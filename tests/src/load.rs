//! Closed-loop load over keep-alive connections, where every request is counted and every answer judged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ask::Ask;
use crate::client::{Client, Reply};
use crate::deadline::within;

/// Running load; `stop` ends it and tells the result.
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<Count>,
    connections: JoinSet<()>,
}

struct Count {
    sent: AtomicU64,
    good: watch::Sender<u64>,
    bad: Mutex<Vec<String>>,
}

/// What became of the requests.
#[derive(Debug)]
pub struct Tally {
    /// Requests sent.
    pub sent: u64,
    /// Answers that were judged good.
    pub good: u64,
    /// What was wrong with the others, one line each.
    pub bad: Vec<String>,
}

impl Load {
    /// Sends `ask()` over `connections` HTTP/1.1 connections without pause, and lets `judge` look at every answer.
    pub fn start<A, J>(address: SocketAddr, connections: usize, ask: A, judge: J) -> Load
    where
        A: Fn() -> Ask + Clone + Send + 'static,
        J: Fn(&Reply) -> Result<(), String> + Clone + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let count =
            Arc::new(Count { sent: AtomicU64::new(0), good: watch::Sender::new(0), bad: Mutex::default() });
        let mut running = JoinSet::new();
        for _ in 0..connections {
            running.spawn(one_connection(
                address,
                Arc::clone(&stop),
                Arc::clone(&count),
                ask.clone(),
                judge.clone(),
            ));
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
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        within("the load's last answers", async { while self.connections.join_next().await.is_some() {} })
            .await;
        let bad = std::mem::take(&mut *self.count.bad.lock().expect("nobody panics while pushing"));
        Tally { sent: self.count.sent.load(Ordering::SeqCst), good: *self.count.good.borrow(), bad }
    }
}

async fn one_connection<A, J>(address: SocketAddr, stop: Arc<AtomicBool>, count: Arc<Count>, ask: A, judge: J)
where
    A: Fn() -> Ask,
    J: Fn(&Reply) -> Result<(), String>,
{
    let mut client = None;
    while !stop.load(Ordering::SeqCst) {
        // A server may end a connection after an answer, in order ("connection: close"); a new one is opened then.
        let mut open = match client.take() {
            Some(client) => client,
            None => match Client::try_http1(address).await {
                Ok(client) => client,
                Err(error) => return count.bad(format!("connect: {error}")),
            },
        };
        count.sent.fetch_add(1, Ordering::SeqCst);
        match open.try_call(ask()).await {
            Ok(reply) => {
                match judge(&reply) {
                    Ok(()) => count.good.send_modify(|good| *good += 1),
                    Err(wrong) => count.bad(wrong),
                }
                if reply.header("connection") != "close" {
                    client = Some(open);
                }
            }
            Err(error) => count.bad(format!("no whole answer: {error:?}")),
        }
    }
}

impl Count {
    fn bad(&self, what: String) {
        self.bad.lock().expect("nobody panics while pushing").push(what);
    }
}
