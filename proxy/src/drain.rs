//! Draining as two values you hold: the trigger starts it, and it is over when the last watch is dropped.
//!
//! The main thread keeps the trigger; each worker keeps a watch for as long as it has exchanges to finish. So the trigger also
//! learns of a holder that was lost: one that panicked takes its watch with it.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Stage {
    Running,
    Draining,
    Cut,
}

/// Starts a drain and waits for its end. Dropping it starts the drain too.
#[derive(Debug)]
pub struct DrainTrigger {
    stage: watch::Sender<Stage>,
    lost: Arc<Notify>,
}

/// Tells when a drain starts; its existence keeps the drain from being over.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    stage: watch::Receiver<Stage>,
    lost: Arc<Notify>,
}

impl DrainTrigger {
    /// A trigger and its first watch; more are clones of it.
    pub fn new() -> (DrainTrigger, DrainWatch) {
        let (sender, receiver) = watch::channel(Stage::Running);
        let lost = Arc::new(Notify::new());
        (DrainTrigger { stage: sender, lost: Arc::clone(&lost) }, DrainWatch { stage: receiver, lost })
    }

    /// Starts the drain. Once is enough; more do nothing.
    pub fn start(&self) {
        self.reach(Stage::Draining);
    }

    /// The patience is over: what is not finished is broken off.
    pub fn cut(&self) {
        self.reach(Stage::Cut);
    }

    fn reach(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let further = *now < stage;
            if further {
                *now = stage;
            }
            further
        });
    }

    /// Waits until somebody who holds a watch panics.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Waits until every watch is dropped: everybody is done.
    pub async fn finished(&self) {
        self.stage.closed().await;
    }
}

impl DrainWatch {
    /// Waits until the drain starts.
    pub async fn draining(&mut self) {
        // An error means that the trigger is gone, and with it the reason to go on.
        let _ = self.stage.wait_for(|stage| *stage >= Stage::Draining).await;
    }

    /// Waits until what is not finished is to be broken off.
    pub async fn cut(&mut self) {
        if self.stage.wait_for(|stage| *stage == Stage::Cut).await.is_err() {
            // The trigger is gone, and nobody can say so any more.
            std::future::pending().await
        }
    }

    /// Whether it has started.
    pub fn is_draining(&self) -> bool {
        *self.stage.borrow() >= Stage::Draining || self.stage.has_changed().is_err()
    }
}

impl Drop for DrainWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lost.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test(flavor = "current_thread")]
    async fn who_panics_is_missed() {
        let (trigger, watch) = DrainTrigger::new();
        drop(watch.clone());
        assert!(trigger.lost().now_or_never().is_none());
        let mut held = watch.clone();
        let holder = tokio::spawn(async move {
            tokio::task::yield_now().await;
            assert!(held.is_draining(), "a panic while it is held");
            held.draining().await;
        });
        trigger.lost().await;
        assert!(holder.await.unwrap_err().is_panic());
        assert!(trigger.lost().now_or_never().is_none());
        let thread = std::thread::spawn(move || assert!(watch.is_draining(), "a panic while it is held"));
        trigger.lost().await;
        assert!(thread.join().is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn everybody_hears_the_start_and_the_last_one_ends_it() {
        let (trigger, mut first) = DrainTrigger::new();
        let mut second = first.clone();
        assert!(!first.is_draining());
        assert!(first.draining().now_or_never().is_none());

        trigger.start();
        first.draining().await;
        second.draining().await;
        second.draining().await;
        assert!(first.is_draining() && second.is_draining());

        drop(first);
        assert!(trigger.finished().now_or_never().is_none());
        drop(second);
        trigger.finished().await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn patience_ends_after_the_drain_has_started() {
        let (trigger, mut watch) = DrainTrigger::new();
        trigger.start();
        assert!(watch.cut().now_or_never().is_none());
        trigger.cut();
        trigger.start();
        watch.cut().await;
        watch.draining().await;
        assert!(watch.is_draining());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_lost_trigger_is_a_start() {
        let (trigger, mut watch) = DrainTrigger::new();
        drop(trigger);
        watch.draining().await;
        assert!(watch.is_draining());
    }
}
