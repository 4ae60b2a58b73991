//! The shared data of the simulated host.

use std::collections::HashMap;

use meshgate_abi::{KvAnswer, KvOperation, KvRequest};
use prost::Message;

use crate::host::Status;

/// Keys are text: the SDK has no others.
#[derive(Default)]
pub(crate) struct SharedValues {
    values: HashMap<String, Kept>,
    last_version: u32,
}

/// What a stream holds of a number.
#[derive(Clone)]
pub(crate) struct Hold {
    key: String,
    amount: i64,
}

struct Kept {
    bytes: Vec<u8>,
    version: u32,
    /// When it is gone, in the clock's nanoseconds.
    expiry: Option<u64>,
}

impl SharedValues {
    /// The value that is there now.
    fn live(&mut self, key: &str, now: u64) -> Option<&mut Kept> {
        if self.values.get(key).is_some_and(|kept| kept.expiry.is_some_and(|expiry| expiry <= now)) {
            self.values.remove(key);
        }
        self.values.get_mut(key)
    }

    pub(crate) fn find(&mut self, key: &str, now: u64) -> Result<(Vec<u8>, u32), Status> {
        let kept = self.live(key, now).ok_or(Status::NOT_FOUND)?;
        Ok((kept.bytes.clone(), kept.version))
    }

    pub(crate) fn set(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        version: u32,
        expiry: Option<u64>,
        now: u64,
    ) -> Result<(), Status> {
        let known = self.live(key, now).map(|kept| kept.version);
        if version != 0 && known.is_some_and(|known| known != version) {
            return Err(Status::CHANGED);
        }
        match value {
            Some(value) => {
                self.last_version += 1;
                let kept = Kept { bytes: value.to_vec(), version: self.last_version, expiry };
                self.values.insert(key.to_owned(), kept);
            }
            None => drop(self.values.remove(key)),
        }
        Ok(())
    }

    /// Gives back what a stream held.
    pub(crate) fn release(&mut self, hold: &Hold, now: u64) {
        let Some(kept) = self.live(&hold.key, now) else { return };
        let Ok(number) = kept.bytes.as_slice().try_into().map(i64::from_le_bytes) else { return };
        match number.saturating_sub(hold.amount) {
            ..=0 => drop(self.values.remove(&hold.key)),
            left => kept.bytes = left.to_le_bytes().to_vec(),
        }
    }

    /// `meshgate.kv`: the answer, and what the stream that asks holds from now on.
    pub(crate) fn answer(
        &mut self,
        argument: &[u8],
        of_stream: bool,
        now: u64,
    ) -> Result<(Vec<u8>, Option<Hold>), Status> {
        let mut hold = None;
        let request = KvRequest::decode(argument).map_err(|_| Status::BAD_ARGUMENT)?;
        let key = String::from_utf8(request.key).map_err(|_| Status::BAD_ARGUMENT)?;
        let after = |milliseconds: u64| {
            (milliseconds > 0).then(|| now.saturating_add(milliseconds.saturating_mul(1_000_000)))
        };
        let done = |result| match result {
            Ok(()) => Ok(KvAnswer { done: true, ..KvAnswer::default() }),
            Err(Status::CHANGED) => Ok(KvAnswer::default()),
            Err(status) => Err(status),
        };
        let answer = match request.operation.ok_or(Status::BAD_ARGUMENT)? {
            KvOperation::Get(_) => match self.live(&key, now) {
                Some(Kept { bytes, version, expiry }) => {
                    let left = expiry.map_or(0, |expiry| expiry.saturating_sub(now).div_ceil(1_000_000));
                    let (value, version) = (bytes.clone(), *version);
                    KvAnswer { done: true, value, version, expires_ms: left, ..KvAnswer::default() }
                }
                None => KvAnswer::default(),
            },
            KvOperation::Set(set) => {
                done(self.set(&key, Some(&set.value), set.version, after(set.expire_ms), now))?
            }
            KvOperation::Remove(remove) => done(self.set(&key, None, remove.version, None, now))?,
            KvOperation::Add(add) if add.hold && !(of_stream && add.amount > 0 && add.expire_ms == 0) => {
                return Err(Status::BAD_ARGUMENT);
            }
            KvOperation::Add(add) => {
                let known = self.live(&key, now);
                let expiry = after(add.expire_ms).or(known.as_ref().and_then(|kept| kept.expiry));
                let number = known.map_or(Ok(0), |kept| {
                    kept.bytes.as_slice().try_into().map(i64::from_le_bytes).map_err(|_| Status::BAD_ARGUMENT)
                })?;
                if let Some(sum) = add.of(number) {
                    self.set(&key, Some(&sum.to_le_bytes()), 0, expiry, now)?;
                    hold = add.hold.then_some(Hold { key, amount: add.amount });
                    KvAnswer { done: true, number: sum, ..KvAnswer::default() }
                } else {
                    KvAnswer { number: add.raised(number), ..KvAnswer::default() }
                }
            }
        };
        Ok((answer.encode_to_vec(), hold))
    }
}
