//! One filter in one exchange: its stream context, and what it holds back in each direction. Its callbacks are
//! called here and nowhere else, so that a failure meets the filter's `on_error` in one place.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::rc::Rc;

use http::HeaderMap;
use meshgate_config::OnError;
use meshgate_wasm::{BodyBuffer, Callbacks, Exchange, Limit, StreamContext, VmError};

use super::failure::{FilterFailure, FilterFault, Stop};
use super::{Filter, Stream};
use crate::message::grpc::is_grpc;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the endpoint.
    Request,
    /// To the client.
    Response,
}

impl Direction {
    fn of(callback: Callbacks) -> Direction {
        let request =
            Callbacks::REQUEST_HEADERS.union(Callbacks::REQUEST_BODY).union(Callbacks::REQUEST_TRAILERS);
        if callback.intersects(request) { Direction::Request } else { Direction::Response }
    }
}

/// What a filter's last callback in one direction left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing: what comes passes.
    #[default]
    Open,
    /// What came is held, and more is wanted.
    Buffering,
    /// What came is held, and nothing more is wanted until the filter resumes.
    Blocked,
}

/// What one filter holds back in one direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    pub(super) hold: Cell<Hold>,
    /// The body's end is held back too.
    pub(super) end: Cell<bool>,
    /// The trailers are held back too.
    pub(super) trailers: Cell<bool>,
}

/// One filter in one exchange.
pub struct Run {
    filter: Rc<Filter>,
    place: u32,
    /// The callbacks worth calling in this exchange.
    callbacks: Callbacks,
    context: RefCell<Option<StreamContext>>,
    skipped: Cell<bool>,
    request: Half,
    response: Half,
}

impl Run {
    /// For an exchange whose request has these fields.
    pub(super) fn new(filter: &Rc<Filter>, place: usize, request: &HeaderMap) -> Run {
        let for_all = filter.grpc_only == Callbacks::default() || is_grpc(request);
        let callbacks = if for_all { filter.callbacks } else { filter.callbacks.without(filter.grpc_only) };
        Run {
            filter: Rc::clone(filter),
            place: u32::try_from(place).unwrap_or(u32::MAX),
            callbacks,
            context: RefCell::new(None),
            skipped: Cell::new(false),
            request: Half::default(),
            response: Half::default(),
        }
    }

    /// The filter's place in the chain.
    pub fn filter(&self) -> &Rc<Filter> {
        &self.filter
    }

    pub(super) fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }

    /// Whether one of these callbacks will be called.
    pub(super) fn wants(&self, callbacks: Callbacks) -> bool {
        !self.skipped.get() && self.callbacks.intersects(callbacks)
    }

    /// Calls the guest. `None`: the filter has no such callback, or is skipped since it failed.
    pub(super) fn call<T>(
        &self,
        stream: &Rc<Stream>,
        callback: Callbacks,
        call: impl FnOnce(&StreamContext) -> Result<T, VmError>,
    ) -> Result<Option<T>, Stop> {
        if !self.wants(callback) {
            return Ok(None);
        }
        if stream.is_finished() {
            return Err(Stop::Closed);
        }
        let called = self.enter(stream).and_then(|context| {
            // Only what the filter resumes in this callback, or after it, ends the pause that this callback asks for.
            match Direction::of(callback) {
                Direction::Request => context.take_resumed_request(),
                Direction::Response => context.take_resumed_response(),
            };
            let answer = call(&context).map_err(vm_fault)?;
            if context.take_closed() {
                stream.close();
            }
            Ok(answer)
        });
        match called {
            Ok(answer) => stream.check().map(|()| Some(answer)),
            Err(fault) => self.fail(fault).map(|()| None),
        }
    }

    /// Whether the filter asked to go on in this direction since the last time. A filter that is skipped always does.
    pub(super) fn take_resumed(&self, direction: Direction) -> Result<bool, Stop> {
        if self.skipped.get() {
            return Ok(true);
        }
        let context = self.context.borrow();
        let Some(context) = context.as_ref() else { return Ok(true) };
        let resumed = match direction {
            Direction::Request => context.take_resumed_request(),
            Direction::Response => context.take_resumed_response(),
        };
        if !resumed && context.is_poisoned() {
            let plugin = self.filter.plugin.spec().name.clone();
            return self.fail(vm_fault(VmError::Poisoned { plugin })).map(|()| true);
        }
        Ok(resumed)
    }

    /// What happens to the exchange when this filter fails: nothing more than a skipped filter, or its end.
    pub(super) fn fail(&self, fault: FilterFault) -> Result<(), Stop> {
        if let FilterFault::PauseTimeout = fault {
            self.filter.plugin.exceeded(Limit::Pause);
        }
        let failure = FilterFailure { filter: Rc::clone(&self.filter.name), fault };
        // Denied or skipped: it is not called again in this exchange.
        self.skipped.set(true);
        match self.filter.on_error {
            OnError::Skip => {
                tracing::debug!(%failure, "skipped for this exchange");
                Ok(())
            }
            OnError::Deny => Err(Stop::Failed(failure)),
        }
    }

    /// Whether the filter asked to close the stream since the last time. One that failed has no say any more.
    pub(super) fn take_closed(&self) -> bool {
        !self.skipped.get() && self.context.borrow().as_ref().is_some_and(StreamContext::take_closed)
    }

    /// The body bytes that the filter sees and holds, if it has a context.
    pub(super) fn buffer(&self, direction: Direction) -> Option<Buffer<'_>> {
        let context = Ref::filter_map(self.context.borrow(), Option::as_ref).ok()?;
        Some(Buffer { context, direction })
    }

    /// Ends the filter's part in the exchange: on_done, on_log, on_delete.
    pub(super) fn finish(&self, stream: &Rc<Stream>) {
        if self.callbacks.intersects(Callbacks::LOG) && !self.skipped.get() {
            // A filter that only logs meets the exchange here for the first time. Failures are the VM's to report:
            // the exchange is over.
            let _ = self.enter(stream);
        }
        if let Some(context) = self.context.borrow_mut().take() {
            context.finish();
        }
    }

    fn enter(&self, stream: &Rc<Stream>) -> Result<Ref<'_, StreamContext>, FilterFault> {
        if let Ok(context) = Ref::filter_map(self.context.borrow(), Option::as_ref) {
            return Ok(context);
        }
        let exchange: Rc<dyn Exchange> = Rc::<Stream>::clone(stream);
        let context = self.filter.plugin.stream(exchange, self.place).map_err(vm_fault)?;
        *self.context.borrow_mut() = Some(context);
        Ref::filter_map(self.context.borrow(), Option::as_ref).map_err(|_| {
            // Cannot be: the line above put it there.
            vm_fault(VmError::Poisoned { plugin: self.filter.plugin.spec().name.clone() })
        })
    }
}

/// The body bytes of one filter in one direction.
pub(super) struct Buffer<'a> {
    context: Ref<'a, StreamContext>,
    direction: Direction,
}

impl Buffer<'_> {
    pub(super) fn borrow(&self) -> RefMut<'_, BodyBuffer> {
        match self.direction {
            Direction::Request => self.context.request_body(),
            Direction::Response => self.context.response_body(),
        }
    }
}

fn vm_fault(error: VmError) -> FilterFault {
    FilterFault::Vm(Rc::new(error))
}
