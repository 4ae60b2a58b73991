//! The lines a process prints, collected while it runs. `Meshgate` keeps one for the log and one for the access log.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

use crate::deadline::within;

/// All lines printed so far, with a way to wait for the next ones.
#[derive(Clone)]
pub struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

impl Lines {
    /// Collects from `source` in a task that ends with it.
    pub fn collect(source: impl AsyncRead + Unpin + Send + 'static) -> Lines {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (grown, count) = watch::channel(0);
        let collected = Arc::clone(&lines);
        tokio::spawn(async move {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while let Ok(1..) = source.read_until(b'\n', &mut line).await {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                let mut all = collected.lock().expect("nobody panics while pushing");
                all.push(text);
                grown.send_replace(all.len());
                line.clear();
            }
        });
        Lines { lines, count }
    }

    /// A copy of what was printed until now.
    pub fn all(&self) -> Vec<String> {
        self.lines.lock().expect("nobody panics while pushing").clone()
    }

    /// Waits until `pick` finds what it looks for in a line, old or new; fails with `what` at the deadline.
    pub async fn wait<T>(&self, what: &str, pick: impl FnMut(&str) -> Option<T>) -> T {
        match within(what, self.find(pick)).await {
            Some(found) => found,
            None => {
                panic!("the process ended without this line: {what}; it printed:\n{}", self.all().join("\n"))
            }
        }
    }

    /// Waits until `pick` finds what it looks for; `None` when the process ended without it.
    pub(crate) async fn find<T>(&self, mut pick: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let mut count = self.count.clone();
        let mut looked_at = 0;
        loop {
            let total = *count.borrow_and_update();
            let fresh = self.lines.lock().expect("nobody panics while pushing")[looked_at..total].to_vec();
            looked_at = total;
            if let Some(found) = fresh.iter().find_map(|line| pick(line)) {
                return Some(found);
            }
            if count.changed().await.is_err() && *count.borrow() == looked_at {
                return None;
            }
        }
    }

    /// Waits until the process closed the stream: nothing can be printed any more.
    pub(crate) async fn closed(&self) {
        let mut count = self.count.clone();
        within("the process closes its output", async { while count.changed().await.is_ok() {} }).await;
    }
}
