//! A message that waits to be sent on a stream.

use bytes::Bytes;

use crate::ledger::Held;

/// A copy of these bytes for the embedder. What is held for them is given back when nobody has it any more, wherever it waits.
pub(crate) fn counted(bytes: &[u8], held: Held) -> Bytes {
    Bytes::from_owner(Message { bytes: bytes.to_vec(), _held: held })
}

struct Message {
    bytes: Vec<u8>,
    _held: Held,
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
