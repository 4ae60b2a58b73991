//! `meshgate.log`: what filters say of an exchange, or of a TCP session, in its entry in the access log. Called by
//! `extensions`; `exchange` and `session` write what was said when it is over.

use std::cell::RefMut;

use bytes::Bytes;
use meshgate_abi::{LogEntry, is_log_field_name};
use meshgate_wasm::{ForeignCaller, Limit, Status};
use prost::Message;

use super::session::Session;
use super::stream::Stream;
use crate::message::ResponseFlag;
use crate::telemetry::LogFields;

/// What filters have said of an exchange so far.
pub(super) struct Noted<'a> {
    /// Response flags as bits.
    pub(super) flags: RefMut<'a, u64>,
    pub(super) fields: RefMut<'a, LogFields>,
}

/// Sets flags and adds fields: all of them, or, up to the one that is too much, those before it.
pub(super) fn add(caller: &ForeignCaller<'_>, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let exchange = caller.exchange().ok_or(Status::BadArgument)?.as_any();
    let place = caller.place().ok_or(Status::BadArgument)?;
    let entry = LogEntry::decode(argument).map_err(|_| Status::BadArgument)?;
    let claimed = |letters: &String| ResponseFlag::claimed(letters).map(ResponseFlag::bit);
    let flags: Option<Vec<u64>> = entry.flags.iter().map(claimed).collect();
    let flags = flags.ok_or(Status::BadArgument)?;
    if !entry.fields.iter().all(|field| is_log_field_name(&field.name)) {
        return Err(Status::BadArgument);
    }
    let Noted { flags: mut noted, mut fields } = match exchange.downcast_ref::<Stream>() {
        Some(stream) => stream.noted(),
        None => exchange.downcast_ref::<Session>().ok_or(Status::BadArgument)?.noted(),
    };
    *noted |= flags.into_iter().fold(0, |all, flag| all | flag);
    let most = usize::try_from(caller.plugin().limits.log_bytes).unwrap_or(usize::MAX);
    for field in entry.fields {
        if !fields.set(place, &field.name, Bytes::from(field.value), most) {
            caller.exceeded(Limit::LogBytes);
            return Err(Status::InternalFailure);
        }
    }
    if let Some(line) = entry.line
        && !fields.set_line(place, Bytes::from(line), most)
    {
        caller.exceeded(Limit::LogBytes);
        return Err(Status::InternalFailure);
    }
    Ok(Vec::new())
}
