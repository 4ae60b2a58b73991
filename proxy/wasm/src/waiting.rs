//! Contexts that are not done yet: their `proxy_on_done` returned false, so they stay until the guest calls
//! `proxy_done`, but not for ever.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::attributes::Attributes;
use crate::contexts::Entry;
use crate::exchange::{Exchange, HttpStream};
use crate::fields;
use crate::limits::Limit;
use crate::vm::Vm;

/// A turn of the sweep takes no longer, one callback apart: others of the worker come in between.
const TURN: Duration = Duration::from_millis(2);
/// Bytes of exchanges that are over which contexts of one worker keep. Those that end beyond them see nothing of theirs.
const MOST_KEPT: usize = 32 << 20;

/// The contexts of one worker that wait for their end.
#[derive(Default)]
pub(crate) struct Waiting {
    endings: RefCell<HashMap<Key, Ending>>,
    /// How many there were: the number of the next one.
    count: Cell<u64>,
    /// Bytes of their exchanges.
    kept: Cell<usize>,
    /// Who waits until nothing does any more.
    waker: Cell<Option<Waker>>,
}

/// A context's VM and number.
type Key = (*const Vm, u32);

struct Ending {
    /// Those that came first end first.
    number: u64,
    until: Instant,
    kept: usize,
    vm: Rc<Vm>,
    entry: Entry,
}

impl Waiting {
    pub(crate) fn add(&self, vm: &Rc<Vm>, entry: &Entry) {
        self.push(vm, entry, Instant::now() + entry.core().spec.limits.done);
    }

    /// For a context that could not be ended where it was dropped; ended at the next sweep.
    pub(crate) fn add_overdue(&self, vm: &Rc<Vm>, entry: &Entry) {
        self.push(vm, entry, Instant::now());
    }

    fn push(&self, vm: &Rc<Vm>, entry: &Entry, until: Instant) {
        let kept = self.keep_exchange(entry);
        self.kept.set(self.kept.get() + kept);
        let number = self.count.get();
        self.count.set(number + 1);
        let ending = Ending { number, until, kept, vm: vm.clone(), entry: entry.clone() };
        let before = self.endings.borrow_mut().insert((Rc::as_ptr(vm), entry.id()), ending);
        debug_assert!(before.is_none(), "a context ends once");
    }

    /// The exchange will be gone when the context is logged: it sees it as it is now. The bytes that this keeps.
    fn keep_exchange(&self, entry: &Entry) -> usize {
        let Entry::Stream(stream) = entry else { return 0 };
        let Some(exchange) = stream.exchange.upgrade() else { return 0 };
        let kept = bytes_of(&*exchange);
        if self.kept.get().saturating_add(kept) > MOST_KEPT {
            return 0;
        }
        stream.exchange.outlast();
        kept
    }

    /// The context ended by itself.
    pub(crate) fn forget(&self, vm: &Vm, id: u32) {
        drop(self.take((std::ptr::from_ref(vm), id)));
    }

    /// The context is done, but there is no time to end it now: the next sweep does.
    pub(crate) fn hurry(&self, vm: &Vm, id: u32) {
        if let Some(ending) = self.endings.borrow_mut().get_mut(&(std::ptr::from_ref(vm), id)) {
            ending.until = Instant::now();
        }
    }

    fn take(&self, key: Key) -> Option<Ending> {
        let ending = self.endings.borrow_mut().remove(&key)?;
        self.kept.set(self.kept.get().saturating_sub(ending.kept));
        self.wake();
        Some(ending)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.endings.borrow().is_empty()
    }

    /// Ready once nothing waits.
    pub(crate) fn poll_empty(&self, task: &mut Context<'_>) -> Poll<()> {
        if self.is_empty() {
            return Poll::Ready(());
        }
        self.waker.set(Some(task.waker().clone()));
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Ends those whose time is up, and those whose VM failed. True if its own time is up before: some are left.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let is_due = |ending: &Ending| ending.until <= now || ending.vm.is_poisoned();
        let endings = self.endings.borrow();
        let due = endings.iter().filter(|(_, ending)| is_due(ending));
        let mut due: Vec<(u64, Key)> = due.map(|(key, ending)| (ending.number, *key)).collect();
        drop(endings);
        due.sort_unstable();
        let began = Instant::now();
        for (_, key) in due {
            if began.elapsed() > TURN {
                return true;
            }
            // Another one's end may have been this one's, too.
            let Some(ending) = self.take(key) else { continue };
            if ending.entry.is_pending() && !ending.vm.is_poisoned() {
                ending.entry.core().exceeded(Limit::Done);
            }
            ending.vm.close(&ending.entry);
        }
        false
    }
}

/// The bytes of an exchange that filters made or could have made: of its fields and properties.
fn bytes_of(exchange: &dyn Exchange) -> usize {
    let http = exchange.http().and_then(|http| http.try_borrow().ok());
    http.map_or(0, |http| {
        let response = http.response.as_ref().map(|head| &head.headers);
        let maps = [
            Some(&http.request.headers),
            http.request_trailers.as_ref(),
            response,
            http.response_trailers.as_ref(),
        ];
        let fields = maps.into_iter().flatten().flat_map(fields::pairs);
        let size: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
        size + http.attributes.custom.bytes()
    })
}

/// An exchange that is over, as a context sees it that is not done yet. A copy: what the embedder has of an
/// exchange may hold much more, such as the plugins of its filters, whose end would have to wait as well.
pub(crate) struct Past {
    http: Option<RefCell<HttpStream>>,
    tcp: Option<RefCell<Attributes>>,
}

impl Past {
    /// The exchange as it is now.
    pub(crate) fn of(exchange: &dyn Exchange) -> Past {
        // Borrowed only by an embedder that breaks its contract.
        let http = exchange.http().and_then(|http| http.try_borrow().ok());
        let http = http.map(|http| RefCell::new(copy(&http)));
        let tcp = exchange.tcp().and_then(|tcp| Some(RefCell::new(tcp.try_borrow().ok()?.clone())));
        Past { http, tcp }
    }
}

fn copy(http: &HttpStream) -> HttpStream {
    HttpStream {
        request_trailers: http.request_trailers.clone(),
        response: http.response.clone(),
        response_trailers: http.response_trailers.clone(),
        // There is nobody left to be answered.
        answered: true,
        most_head_bytes: http.most_head_bytes,
        ..HttpStream::new(http.request.clone(), http.attributes.clone())
    }
}

impl Exchange for Past {
    fn http(&self) -> Option<&RefCell<HttpStream>> {
        self.http.as_ref()
    }

    fn tcp(&self) -> Option<&RefCell<Attributes>> {
        self.tcp.as_ref()
    }

    /// Nobody looks at its contexts any more.
    fn wake(&self) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}
