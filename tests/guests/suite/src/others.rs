//! What one exchange waits for and another one does; and what is not waited for.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};

use meshgate_sdk::CallError;

/// Some wait for it, others ring it.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Cell<u32>,
    waiting: RefCell<Vec<Waker>>,
}

impl Bell {
    pub(crate) async fn rung(&self) {
        let before = self.rung.get();
        poll_fn(|context| {
            if self.rung.get() != before {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn ring(&self) {
        self.rung.set(self.rung.get() + 1);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

type Answer = Result<String, CallError>;
type Call = Pin<Box<dyn Future<Output = Answer>>>;

/// A call that one exchange makes and another one waits for, too.
#[derive(Clone, Default)]
pub(crate) struct Asked(Rc<RefCell<Option<Call>>>);

impl Asked {
    pub(crate) fn ask(&self, call: impl Future<Output = Answer> + 'static) {
        self.0.replace(Some(Box::pin(call)));
    }

    pub(crate) async fn answer(&self) -> Answer {
        poll_fn(|context| match &mut *self.0.borrow_mut() {
            Some(call) => call.as_mut().poll(context),
            None => Poll::Pending,
        })
        .await
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

/// Looks once whether something is ready, and gives it up if it is not.
pub(crate) async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
