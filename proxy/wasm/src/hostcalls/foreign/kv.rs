//! `meshgate.kv`: the shared data of `proxy_get_shared_data`, with expiry and with changes in one step.

use std::sync::Arc;
use std::time::Duration;

use meshgate_abi::{KvAdd, KvAnswer, KvOperation, KvRequest, function};
use prost::Message;

use crate::contexts::Stream;
use crate::core::Core;
use crate::shared::{Added, Hold, Namespace};
use crate::status::Status;

/// The foreign function's name.
pub(super) const FUNCTION: &str = function::KV;

/// Does what is asked for on behalf of a plugin, or of one of its streams.
pub(super) fn answer(
    argument: &[u8],
    namespace: &Arc<Namespace>,
    core: &Core,
    stream: Option<&Stream>,
) -> Result<Vec<u8>, Status> {
    let request = KvRequest::decode(argument).map_err(|_| Status::BadArgument)?;
    let (owner, limits) = (&core.usage.ledger, &core.spec.limits);
    let key = &request.key;
    let answer = match request.operation.ok_or(Status::BadArgument)? {
        KvOperation::Get(_) => match namespace.find_lasting(key) {
            Some((value, version, left)) => KvAnswer {
                done: true,
                value: value.into(),
                version,
                expires_ms: milliseconds(left),
                ..KvAnswer::default()
            },
            None => KvAnswer::default(),
        },
        KvOperation::Set(set) => {
            done(namespace.put(key, &set.value, set.version, lasting(set.expire_ms), owner, limits))?
        }
        KvOperation::Remove(remove) => done(namespace.remove(key, remove.version))?,
        KvOperation::Add(add) => {
            let added = if add.hold {
                hold(namespace, key, &add, core, stream)?
            } else {
                namespace.add(key, &add, lasting(add.expire_ms), owner, limits)?
            };
            KvAnswer { done: added.done, number: added.number, evicted: added.evicted, ..KvAnswer::default() }
        }
    };
    Ok(answer.encode_to_vec())
}

/// Adds what the host takes back when the stream's exchange is over.
fn hold(
    namespace: &Arc<Namespace>,
    key: &[u8],
    add: &KvAdd,
    core: &Core,
    stream: Option<&Stream>,
) -> Result<Added, Status> {
    let stream = stream.filter(|_| add.amount > 0 && add.expire_ms == 0).ok_or(Status::BadArgument)?;
    let (added, hold) = Hold::take(namespace, key, add, &core.usage.ledger, &core.spec.limits)?;
    stream.holds.borrow_mut().extend(hold);
    Ok(added)
}

/// Another version than the expected one is an answer, not a failure.
fn done(result: Result<(), Status>) -> Result<KvAnswer, Status> {
    match result {
        Ok(()) => Ok(KvAnswer { done: true, ..KvAnswer::default() }),
        Err(Status::CasMismatch) => Ok(KvAnswer::default()),
        Err(status) => Err(status),
    }
}

fn lasting(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

/// What is there still has a millisecond at least: 0 is for ever.
fn milliseconds(left: Option<Duration>) -> u64 {
    left.map_or(0, |left| u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1))
}
