//! `meshgate.kv`: shared data with expiry and with changes in one step, where the host offers it. Used by `shared`.

use std::cell::Cell;
use std::time::Duration;

use meshgate_abi::{KvAdd, KvAnswer, KvOperation, KvRequest, KvSet, function};
use prost::Message;

use crate::host::{self, Status};

thread_local! {
    /// Other hosts are asked once.
    static OFFERED: Cell<bool> = const { Cell::new(true) };
}

/// Sets a value that is gone after a time, if the version is the right one or 0. `None`: the host has no such function.
pub(crate) fn set(key: &str, value: &[u8], version: u32, lasts: Duration) -> Option<Result<(), Status>> {
    let set = KvSet { value: value.to_vec(), version, expire_ms: milliseconds(lasts) };
    let answer = ask(key, KvOperation::Set(set))?;
    Some(answer.and_then(|answer| if answer.done { Ok(()) } else { Err(Status::CHANGED) }))
}

/// Changes a number. `None`: the host has no such function.
pub(crate) fn add(key: &str, add: KvAdd) -> Option<Result<KvAnswer, Status>> {
    ask(key, KvOperation::Add(add))
}

/// Rounded up: what lasts for a time lasts at least that long, and 0 would be for ever.
pub(crate) fn milliseconds(lasts: Duration) -> u64 {
    u64::try_from(lasts.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

fn ask(key: &str, operation: KvOperation) -> Option<Result<KvAnswer, Status>> {
    if !OFFERED.get() {
        return None;
    }
    let request = KvRequest { key: key.as_bytes().to_vec(), operation: Some(operation) };
    match host::call_foreign_function(function::KV, &request.encode_to_vec()) {
        Ok(answer) => Some(KvAnswer::decode(&*answer).map_err(|_| Status::INTERNAL_FAILURE)),
        Err(Status::NOT_FOUND) => {
            OFFERED.set(false);
            None
        }
        Err(status) => Some(Err(status)),
    }
}
