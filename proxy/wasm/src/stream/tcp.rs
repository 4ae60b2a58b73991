//! The callbacks of a TCP connection.

use std::cell::RefMut;

use wasmtime::TypedFunc;

use super::{Overruled, StreamContext};
use crate::action::{PeerType, TcpAction};
use crate::body::BodyBuffer;
use crate::contexts::Marks;
use crate::error::VmError;
use crate::phase::Phase;

impl StreamContext {
    /// `proxy_on_new_connection`
    ///
    /// # Errors
    /// The guest failed; so it is with all callbacks here.
    pub fn on_new_connection(&self) -> Result<TcpAction, VmError> {
        let Some(callback) = &self.vm.exports.new_connection else { return Ok(TcpAction::Continue) };
        self.stream.take(Marks::RESUMED_REQUEST);
        let id = self.stream.id;
        let number = self.vm.enter(&self.entry, Phase::NewConnection, false, callback, id)?;
        Ok(self.tcp_action(number, Marks::RESUMED_REQUEST))
    }

    /// `proxy_on_downstream_data`. Push what the client sent into [`StreamContext::downstream_data`] first; the guest is
    /// told the size of the whole buffer.
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_downstream_data(&self, end_of_stream: bool) -> Result<TcpAction, VmError> {
        let size = self.stream.request_body.borrow().len();
        let callback = self.vm.exports.downstream_data.as_ref();
        self.data(Phase::DownstreamData, callback, size, end_of_stream, Marks::RESUMED_REQUEST)
    }

    /// `proxy_on_upstream_data`, as [`StreamContext::on_downstream_data`].
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_upstream_data(&self, end_of_stream: bool) -> Result<TcpAction, VmError> {
        let size = self.stream.response_body.borrow().len();
        let callback = self.vm.exports.upstream_data.as_ref();
        self.data(Phase::UpstreamData, callback, size, end_of_stream, Marks::RESUMED_RESPONSE)
    }

    /// `proxy_on_downstream_connection_close`: the client's connection is over.
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_downstream_close(&self, by: PeerType) -> Result<(), VmError> {
        let Some(callback) = &self.vm.exports.downstream_close else { return Ok(()) };
        let parameters = (self.stream.id, by as u32);
        self.vm.enter(&self.entry, Phase::DownstreamClose, false, callback, parameters)
    }

    /// `proxy_on_upstream_connection_close`: the endpoint's connection is over, or brings nothing more.
    ///
    /// # Errors
    /// The guest failed.
    pub fn on_upstream_close(&self, by: PeerType) -> Result<(), VmError> {
        let Some(callback) = &self.vm.exports.upstream_close else { return Ok(()) };
        let parameters = (self.stream.id, by as u32);
        self.vm.enter(&self.entry, Phase::UpstreamClose, false, callback, parameters)
    }

    /// What the client sent, before this filter.
    pub fn downstream_data(&self) -> RefMut<'_, BodyBuffer> {
        self.stream.request_body.borrow_mut()
    }

    /// What the endpoint sent, before this filter.
    pub fn upstream_data(&self) -> RefMut<'_, BodyBuffer> {
        self.stream.response_body.borrow_mut()
    }

    /// Whether the guest resumed what comes from the client since the last call.
    pub fn take_resumed_downstream(&self) -> bool {
        self.stream.take(Marks::RESUMED_REQUEST)
    }

    /// Whether the guest resumed what comes from the endpoint since the last call.
    pub fn take_resumed_upstream(&self) -> bool {
        self.stream.take(Marks::RESUMED_RESPONSE)
    }

    fn data(
        &self,
        phase: Phase,
        callback: Option<&TypedFunc<(u32, u32, u32), u32>>,
        size: usize,
        end_of_stream: bool,
        resumed: Marks,
    ) -> Result<TcpAction, VmError> {
        let Some(callback) = callback else { return Ok(TcpAction::Continue) };
        self.stream.take(resumed);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let parameters = (self.stream.id, size, u32::from(end_of_stream));
        let number = self.vm.enter(&self.entry, phase, end_of_stream, callback, parameters)?;
        Ok(self.tcp_action(number, resumed))
    }

    /// A guest that pauses and resumes within one callback has continued.
    fn tcp_action(&self, number: u32, resumed: Marks) -> TcpAction {
        match self.overruled(resumed) {
            Some(Overruled::Resumed) => TcpAction::Continue,
            Some(Overruled::Answered) | None => TcpAction::from_abi(number),
        }
    }
}
