//! A stream context: one filter on one exchange.

mod tcp;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use wasmtime::TypedFunc;

use crate::action::{BodyAction, HeadersAction, TrailersAction};
use crate::body::BodyBuffer;
use crate::contexts::{Entry, Marks, Reach, Stream};
use crate::core::Binding;
use crate::error::VmError;
use crate::exchange::{Exchange, HttpStream};
use crate::exports::HeadersFn;
use crate::phase::Phase;
use crate::plugin::Plugin;
use crate::vm::Vm;

/// One filter on one exchange. Its methods are the guest's callbacks; a callback the module does not export
/// answers Continue without entering the guest. Dropping it ends the context as [`StreamContext::finish`] does.
///
/// After a callback in which the guest made a local response ([`HttpStream::local_response`]), the answer is
/// always to stop. While a callback runs, neither body may be borrowed. A guest that pauses and resumes within one callback has continued.
pub struct StreamContext {
    // Dropped in this order: the plugin outlives its streams.
    stream: Rc<Stream>,
    /// The same, as the VM takes it.
    entry: Entry,
    vm: Rc<Vm>,
    own: Option<Own>,
    /// It tries the plugin out.
    probe: bool,
    plugin: Rc<Plugin>,
}

/// An instance that serves one stream context. Dropping it ends the plugin's part there, as plugins end; the
/// instance goes with that.
pub(crate) struct Own(pub(crate) Binding);

impl Drop for Own {
    fn drop(&mut self) {
        let Binding { vm, root } = &self.0;
        vm.end(&Entry::Root(root.clone()));
    }
}

impl StreamContext {
    /// A context of the plugin in its VM, or in an instance of its own.
    pub(crate) fn create(
        plugin: &Rc<Plugin>,
        binding: Binding,
        own: Option<Own>,
        exchange: &Rc<dyn Exchange>,
        place: u32,
        probe: bool,
    ) -> Result<StreamContext, VmError> {
        let Binding { vm, root } = binding;
        let limit = usize::try_from(plugin.core.spec.limits.body).unwrap_or(usize::MAX);
        // Asked for before the rest is put together, which then goes where it stays at once.
        let tcp = exchange.tcp().is_some();
        let stream = |id| Stream {
            id,
            place,
            core: root.core.clone(),
            root,
            exchange: Reach::to(exchange),
            tcp,
            request_body: RefCell::new(BodyBuffer::new(limit)),
            response_body: RefCell::new(BodyBuffer::new(limit)),
            marks: Cell::default(),
            http_calls: Cell::new(0),
            grpc_calls: Cell::new(0),
            pending: Cell::new(false),
            holds: RefCell::default(),
            own: Cell::default(),
        };
        let (stream, entry) = vm.add_stream(stream, &plugin.core)?;
        Ok(StreamContext { stream, entry, vm, own, probe, plugin: plugin.clone() })
    }

    /// The plugin it belongs to.
    pub fn plugin(&self) -> &Rc<Plugin> {
        &self.plugin
    }

    /// Whether the VM it lives in failed: every callback answers [`VmError::Poisoned`].
    pub fn is_poisoned(&self) -> bool {
        self.vm.is_poisoned()
    }

    /// Bytes that the last callback of its VM copied between guest and host.
    pub fn copied(&self) -> u64 {
        let left = self.vm.with_state(|state| state.running.copied_left());
        left.map_or(0, |left| self.plugin.core.spec.limits.copied.saturating_sub(left))
    }

    /// `proxy_on_request_headers`
    ///
    /// # Errors
    /// The guest failed; so it is with all callbacks here.
    pub fn on_request_headers(&self, end_of_stream: bool) -> Result<HeadersAction, VmError> {
        let count = |http: &HttpStream| Some(http.request.count());
        self.headers(
            Phase::RequestHeaders,
            self.vm.exports.request_headers.as_ref(),
            count,
            end_of_stream,
            Marks::RESUMED_REQUEST,
        )
    }

    /// `proxy_on_request_body`. Push what arrived into [`StreamContext::request_body`] first; the guest is told
    /// the size of the whole buffer.
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_request_body(&self, end_of_stream: bool) -> Result<BodyAction, VmError> {
        let size = self.stream.request_body.borrow().len();
        let callback = self.vm.exports.request_body.as_ref();
        self.body(Phase::RequestBody, callback, size, end_of_stream, Marks::RESUMED_REQUEST)
    }

    /// `proxy_on_request_trailers`
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_request_trailers(&self) -> Result<TrailersAction, VmError> {
        let count = |http: &HttpStream| http.request_trailers.as_ref().map(http::HeaderMap::len);
        let callback = self.vm.exports.request_trailers.as_ref();
        self.trailers(Phase::RequestTrailers, callback, count, Marks::RESUMED_REQUEST)
    }

    /// `proxy_on_response_headers`
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_response_headers(&self, end_of_stream: bool) -> Result<HeadersAction, VmError> {
        let count = |http: &HttpStream| http.response.as_ref().map(|response| response.headers.len() + 1);
        self.headers(
            Phase::ResponseHeaders,
            self.vm.exports.response_headers.as_ref(),
            count,
            end_of_stream,
            Marks::RESUMED_RESPONSE,
        )
    }

    /// `proxy_on_response_body`, as [`StreamContext::on_request_body`].
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_response_body(&self, end_of_stream: bool) -> Result<BodyAction, VmError> {
        let size = self.stream.response_body.borrow().len();
        let callback = self.vm.exports.response_body.as_ref();
        self.body(Phase::ResponseBody, callback, size, end_of_stream, Marks::RESUMED_RESPONSE)
    }

    /// `proxy_on_response_trailers`
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_response_trailers(&self) -> Result<TrailersAction, VmError> {
        let count = |http: &HttpStream| http.response_trailers.as_ref().map(http::HeaderMap::len);
        let callback = self.vm.exports.response_trailers.as_ref();
        self.trailers(Phase::ResponseTrailers, callback, count, Marks::RESUMED_RESPONSE)
    }

    /// `proxy_on_foreign_function`: an answer or event of a foreign function, which the guest reads as buffer 8.
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_foreign_function(&self, function: u32, argument: Bytes) -> Result<(), VmError> {
        let Some(callback) = &self.vm.exports.foreign_function else { return Ok(()) };
        let parameters = (self.stream.id, function, argument.len() as u32);
        self.vm.with_state(|state| state.running.argument = Some(argument));
        let outcome = self.vm.enter(&self.entry, Phase::ForeignFunction, false, callback, parameters);
        self.vm.with_state(|state| state.running.argument = None);
        // There is nothing here that a local response would stop: the filter's callbacks for that response go on.
        self.stream.take(Marks::ANSWERED);
        outcome
    }

    /// The request body before this filter.
    pub fn request_body(&self) -> RefMut<'_, BodyBuffer> {
        self.stream.request_body.borrow_mut()
    }

    /// The response body before this filter.
    pub fn response_body(&self) -> RefMut<'_, BodyBuffer> {
        self.stream.response_body.borrow_mut()
    }

    /// Whether the guest resumed the request since the last call. After a pause: release what is held. When it
    /// was not paused, there is nothing to do.
    pub fn take_resumed_request(&self) -> bool {
        self.stream.take(Marks::RESUMED_REQUEST)
    }

    /// Whether the guest resumed the response since the last call.
    pub fn take_resumed_response(&self) -> bool {
        self.stream.take(Marks::RESUMED_RESPONSE)
    }

    /// Whether the guest asked to close the stream (reset it downstream) since the last call.
    pub fn take_closed(&self) -> bool {
        self.stream.take(Marks::CLOSED)
    }

    /// Ends the context: `proxy_on_done`, `proxy_on_log`, `proxy_on_delete`. The attributes should be complete: as
    /// long as the guest is not done, it sees the exchange as it is now.
    /// Does nothing if the VM failed; what fails here is told by [`crate::Host::failed`].
    pub fn finish(self) {}

    fn count(&self, of: impl Fn(&HttpStream) -> Option<usize>) -> u32 {
        let exchange = self.stream.exchange.upgrade();
        exchange.and_then(|exchange| of(&exchange.http()?.borrow())).unwrap_or(0) as u32
    }

    fn headers(
        &self,
        phase: Phase,
        callback: Option<&HeadersFn>,
        count: impl Fn(&HttpStream) -> Option<usize>,
        end_of_stream: bool,
        resumed: Marks,
    ) -> Result<HeadersAction, VmError> {
        let Some(callback) = callback else { return Ok(HeadersAction::Continue) };
        let (id, count) = (self.stream.id, self.count(count));
        self.stream.take(resumed);
        let number = match callback {
            HeadersFn::Three(callback) => {
                let parameters = (id, count, u32::from(end_of_stream));
                self.vm.enter(&self.entry, phase, end_of_stream, callback, parameters)
            }
            HeadersFn::Two(callback) => {
                self.vm.enter(&self.entry, phase, end_of_stream, callback, (id, count))
            }
        }?;
        Ok(match self.overruled(resumed) {
            Some(Overruled::Answered) => HeadersAction::StopAllWatermark,
            Some(Overruled::Resumed) => HeadersAction::Continue,
            None => HeadersAction::from_abi(number, self.plugin.core.spec.compatibility.stop_iteration),
        })
    }

    fn body(
        &self,
        phase: Phase,
        callback: Option<&TypedFunc<(u32, u32, u32), u32>>,
        size: usize,
        end_of_stream: bool,
        resumed: Marks,
    ) -> Result<BodyAction, VmError> {
        let Some(callback) = callback else { return Ok(BodyAction::Continue) };
        self.stream.take(resumed);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let parameters = (self.stream.id, size, u32::from(end_of_stream));
        let number = self.vm.enter(&self.entry, phase, end_of_stream, callback, parameters)?;
        Ok(match self.overruled(resumed) {
            Some(Overruled::Answered) => BodyAction::Watermark,
            Some(Overruled::Resumed) => BodyAction::Continue,
            None => BodyAction::from_abi(number),
        })
    }

    fn trailers(
        &self,
        phase: Phase,
        callback: Option<&TypedFunc<(u32, u32), u32>>,
        count: impl Fn(&HttpStream) -> Option<usize>,
        resumed: Marks,
    ) -> Result<TrailersAction, VmError> {
        let Some(callback) = callback else { return Ok(TrailersAction::Continue) };
        self.stream.take(resumed);
        let parameters = (self.stream.id, self.count(count));
        let number = self.vm.enter(&self.entry, phase, true, callback, parameters)?;
        Ok(match self.overruled(resumed) {
            Some(Overruled::Answered) => TrailersAction::Pause,
            Some(Overruled::Resumed) => TrailersAction::Continue,
            None => TrailersAction::from_abi(number),
        })
    }

    /// What hostcalls said during the callback counts for more than its return value.
    fn overruled(&self, resumed: Marks) -> Option<Overruled> {
        if self.stream.marks.get() == Marks::default() {
            return None;
        }
        if self.stream.take(Marks::ANSWERED) {
            return Some(Overruled::Answered);
        }
        self.stream.take(resumed).then_some(Overruled::Resumed)
    }
}

enum Overruled {
    Answered,
    Resumed,
}

impl Drop for StreamContext {
    fn drop(&mut self) {
        self.vm.end(&self.entry);
        // Now, and not with the stream: a failed VM keeps its streams for as long as any of them lasts.
        drop(self.stream.holds.take());
        if self.entry.is_pending() {
            // The instance stays for as long as its stream is not done, and no longer.
            self.stream.own.set(self.own.take());
        }
        if self.probe {
            // Its end is a part of the trial.
            drop(self.own.take());
            // If it failed, the plugin is in quarantine again, and this changes nothing.
            self.plugin.core.usage.quarantine.tried(Instant::now(), true);
        }
    }
}
