//! A stream context: one filter on one exchange.

use std::cell::{RefCell, RefMut};

use bytes::Bytes;

use crate::action::{BodyAction, HeadersAction, TrailersAction};
use crate::body::BodyBuffer;
use crate::error::VmError;

/// One filter on one exchange. Its methods are the guest's callbacks; a callback the module does not export
/// answers Continue without entering the guest. Dropping it ends the context as [`StreamContext::finish`] does.
pub struct StreamContext {
    request_body: RefCell<BodyBuffer>,
    response_body: RefCell<BodyBuffer>,
}

impl StreamContext {
    /// `proxy_on_request_headers`
    ///
    /// # Errors
    /// The guest failed; so it is with all callbacks here.
    pub fn on_request_headers(&self, end_of_stream: bool) -> Result<HeadersAction, VmError> {
        let _ = end_of_stream;
        Ok(HeadersAction::Continue)
    }

    /// `proxy_on_request_body`. Push what arrived into [`StreamContext::request_body`] first; the guest is told
    /// the size of the whole buffer.
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_request_body(&self, end_of_stream: bool) -> Result<BodyAction, VmError> {
        let _ = end_of_stream;
        Ok(BodyAction::Continue)
    }

    /// `proxy_on_request_trailers`
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_request_trailers(&self) -> Result<TrailersAction, VmError> {
        Ok(TrailersAction::Continue)
    }

    /// `proxy_on_response_headers`
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_response_headers(&self, end_of_stream: bool) -> Result<HeadersAction, VmError> {
        let _ = end_of_stream;
        Ok(HeadersAction::Continue)
    }

    /// `proxy_on_response_body`, as [`StreamContext::on_request_body`].
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_response_body(&self, end_of_stream: bool) -> Result<BodyAction, VmError> {
        let _ = end_of_stream;
        Ok(BodyAction::Continue)
    }

    /// `proxy_on_response_trailers`
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_response_trailers(&self) -> Result<TrailersAction, VmError> {
        Ok(TrailersAction::Continue)
    }

    /// `proxy_on_foreign_function`: an answer or event of a foreign function, which the guest reads as buffer 8.
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_foreign_function(&self, function: u32, argument: Bytes) -> Result<(), VmError> {
        let _ = (function, argument);
        Ok(())
    }

    /// The request body before this filter.
    pub fn request_body(&self) -> RefMut<'_, BodyBuffer> {
        self.request_body.borrow_mut()
    }

    /// The response body before this filter.
    pub fn response_body(&self) -> RefMut<'_, BodyBuffer> {
        self.response_body.borrow_mut()
    }

    /// Whether the guest resumed the request since the last call. After a pause: release what is held. When it
    /// was not paused, there is nothing to do.
    pub fn take_resumed_request(&self) -> bool {
        false
    }

    /// Whether the guest resumed the response since the last call.
    pub fn take_resumed_response(&self) -> bool {
        false
    }

    /// Whether the guest asked to close the stream (reset it downstream) since the last call.
    pub fn take_closed(&self) -> bool {
        false
    }

    /// Ends the context: `proxy_on_done`, `proxy_on_log`, `proxy_on_delete`. The attributes should be complete.
    /// Does nothing if the VM failed; what fails here is told by [`crate::Host::failed`].
    pub fn finish(self) {}
}
