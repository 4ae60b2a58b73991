//! One filter in one session: its stream context, and what it holds back from each side. Its callbacks are called here
//! and nowhere else, so that a failure meets the filter's `on_error` in one place.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::rc::Rc;

use meshgate_config::OnError;
use meshgate_wasm::{BodyBuffer, Callbacks, Exchange, Limit, PeerType, StreamContext, VmError};

use super::{Session, Side};
use crate::filter::Filter;
use crate::filter::failure::{FilterFailure, FilterFault, Stop};

/// What one filter holds back of what one side sent.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// The filter paused: what comes is kept until it continues or is resumed.
    pub(super) held: Cell<bool>,
    /// The end is held back too.
    pub(super) end: Cell<bool>,
}

/// One filter in one session.
pub(super) struct Run {
    filter: Rc<Filter>,
    place: u32,
    context: RefCell<Option<StreamContext>>,
    skipped: Cell<bool>,
    told_upstream_closed: Cell<bool>,
    downstream: Half,
    upstream: Half,
}

impl Run {
    pub(super) fn new(filter: &Rc<Filter>, place: usize) -> Run {
        Run {
            filter: Rc::clone(filter),
            place: u32::try_from(place).unwrap_or(u32::MAX),
            context: RefCell::new(None),
            skipped: Cell::new(false),
            told_upstream_closed: Cell::new(false),
            downstream: Half::default(),
            upstream: Half::default(),
        }
    }

    pub(super) fn filter(&self) -> &Rc<Filter> {
        &self.filter
    }

    pub(super) fn half(&self, side: Side) -> &Half {
        match side {
            Side::Downstream => &self.downstream,
            Side::Upstream => &self.upstream,
        }
    }

    /// It failed, and is passed over.
    pub(super) fn is_skipped(&self) -> bool {
        self.skipped.get()
    }

    /// Whether one of these callbacks will be called.
    pub(super) fn wants(&self, callbacks: Callbacks) -> bool {
        !self.skipped.get() && self.filter.callbacks.intersects(callbacks)
    }

    /// Calls the guest. `None`: the filter has no such callback, or is skipped since it failed.
    pub(super) fn call<T>(
        &self,
        session: &Rc<Session>,
        callback: Callbacks,
        call: impl FnOnce(&StreamContext) -> Result<T, VmError>,
    ) -> Result<Option<T>, Stop> {
        if !self.wants(callback) {
            return Ok(None);
        }
        if session.is_finished() {
            return Err(Stop::Closed);
        }
        let called = self.enter(session).and_then(|context| {
            let answer = call(&context).map_err(vm_fault)?;
            if context.take_closed() {
                session.close();
            }
            Ok(answer)
        });
        match called {
            Ok(answer) => session.check().map(|()| Some(answer)),
            Err(fault) => self.fail(fault).map(|()| None),
        }
    }

    /// Whether the filter asked to go on with what this side sends since the last time. A filter that is skipped always
    /// does.
    pub(super) fn take_resumed(&self, side: Side) -> Result<bool, Stop> {
        if self.skipped.get() {
            return Ok(true);
        }
        let context = self.context.borrow();
        let Some(context) = context.as_ref() else { return Ok(true) };
        let resumed = match side {
            Side::Downstream => context.take_resumed_downstream(),
            Side::Upstream => context.take_resumed_upstream(),
        };
        if !resumed && context.is_poisoned() {
            let plugin = self.filter.plugin.spec().name.clone();
            return self.fail(vm_fault(VmError::Poisoned { plugin })).map(|()| true);
        }
        Ok(resumed)
    }

    /// What happens to the session when this filter fails: nothing more than a skipped filter, or its end.
    pub(super) fn fail(&self, fault: FilterFault) -> Result<(), Stop> {
        if let FilterFault::PauseTimeout = fault {
            self.filter.plugin.exceeded(Limit::Pause);
        }
        let failure = FilterFailure { filter: Rc::clone(&self.filter.name), fault };
        // Denied or skipped: it is not called again in this session.
        self.skipped.set(true);
        match self.filter.on_error {
            OnError::Skip => {
                tracing::debug!(%failure, "skipped for this connection");
                Ok(())
            }
            OnError::Deny => Err(Stop::Failed(failure)),
        }
    }

    /// Whether the filter asked to close the session since the last time.
    pub(super) fn take_closed(&self) -> bool {
        self.context.borrow().as_ref().is_some_and(StreamContext::take_closed)
    }

    /// The bytes of this side that the filter sees and holds, if it has a context.
    pub(super) fn buffer(&self, side: Side) -> Option<Buffer<'_>> {
        let context = Ref::filter_map(self.context.borrow(), Option::as_ref).ok()?;
        Some(Buffer { context, side })
    }

    /// Tells the filter, once, that the endpoint's connection is over or brings nothing more.
    pub(super) fn tell_upstream_closed(&self, session: &Rc<Session>, by: PeerType) -> Result<(), Stop> {
        if self.context.borrow().is_none() || self.told_upstream_closed.replace(true) {
            return Ok(());
        }
        self.call(session, Callbacks::UPSTREAM_CLOSE, |context| context.on_upstream_close(by)).map(drop)
    }

    /// Ends the filter's part: the client's connection is over, then on_done, on_log, on_delete.
    pub(super) fn finish(&self, session: &Rc<Session>, by: PeerType) {
        if self.context.borrow().is_some() {
            let _ =
                self.call(session, Callbacks::DOWNSTREAM_CLOSE, |context| context.on_downstream_close(by));
        }
        if let Some(context) = self.context.borrow_mut().take() {
            context.finish();
        }
    }

    fn enter(&self, session: &Rc<Session>) -> Result<Ref<'_, StreamContext>, FilterFault> {
        if let Ok(context) = Ref::filter_map(self.context.borrow(), Option::as_ref) {
            return Ok(context);
        }
        let exchange: Rc<dyn Exchange> = Rc::<Session>::clone(session);
        let context = self.filter.plugin.stream(exchange, self.place).map_err(vm_fault)?;
        *self.context.borrow_mut() = Some(context);
        Ref::filter_map(self.context.borrow(), Option::as_ref).map_err(|_| {
            // Cannot be: the line above put it there.
            vm_fault(VmError::Poisoned { plugin: self.filter.plugin.spec().name.clone() })
        })
    }
}

/// The bytes of one side before one filter.
pub(super) struct Buffer<'a> {
    context: Ref<'a, StreamContext>,
    side: Side,
}

impl Buffer<'_> {
    pub(super) fn borrow(&self) -> RefMut<'_, BodyBuffer> {
        match self.side {
            Side::Downstream => self.context.downstream_data(),
            Side::Upstream => self.context.upstream_data(),
        }
    }
}

fn vm_fault(error: VmError) -> FilterFault {
    FilterFault::Vm(Rc::new(error))
}
