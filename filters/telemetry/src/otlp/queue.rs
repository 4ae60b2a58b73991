//! What waits to be sent: batches of encoded records, and no more bytes than are allowed.

use std::collections::VecDeque;

use super::proto::{Writer, record};

/// A batch this large is full. Receivers take some MiB at once.
const FULL: usize = 256 << 10;
/// The field of a scope's records, of spans as of log records.
const RECORDS: u32 = 2;

/// Records that are sent together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Encoded, each with its field's number.
    pub(super) bytes: Vec<u8>,
    pub(super) records: u32,
    /// How often it was sent.
    pub(super) tries: u32,
}

/// Batches in the order of their records; the last one grows.
#[derive(Debug)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    bytes: usize,
    most: usize,
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, most }
    }

    /// Adds a record. False, and it is gone, if that were too much.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Writer<'_>)) -> bool {
        self.append(1, |bytes| record(bytes, RECORDS, write))
    }

    /// Adds so many records that are encoded already. False, and they are gone, if that were too much.
    pub(super) fn push_written(&mut self, records: &[u8], count: u32) -> bool {
        self.append(count, |bytes| bytes.extend_from_slice(records))
    }

    fn append(&mut self, records: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.bytes >= self.most {
            return false;
        }
        if self.batches.back().is_none_or(|batch| batch.tries > 0 || batch.bytes.len() >= FULL) {
            self.batches.push_back(Batch::default());
        }
        let Some(batch) = self.batches.back_mut() else { return false };
        let before = batch.bytes.len();
        write(&mut batch.bytes);
        let size = batch.bytes.len() - before;
        if self.bytes + size > self.most {
            batch.bytes.truncate(before);
            return false;
        }
        batch.records += records;
        self.bytes += size;
        true
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.iter().all(|batch| batch.records == 0)
    }

    /// Takes all that waits.
    pub(super) fn take(&mut self) -> VecDeque<Batch> {
        self.bytes = 0;
        let mut batches = std::mem::take(&mut self.batches);
        batches.retain(|batch| batch.records > 0);
        batches
    }

    /// Puts batches back before those that came since, as far as there is room; says how many records had none.
    pub(super) fn put_back(&mut self, batches: impl Iterator<Item = Batch>) -> u32 {
        let mut lost = 0;
        for (place, batch) in batches.enumerate() {
            if self.bytes + batch.bytes.len() > self.most {
                lost += batch.records;
                continue;
            }
            self.bytes += batch.bytes.len();
            self.batches.insert(place.min(self.batches.len()), batch);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue, bytes: usize) -> bool {
        queue.push(|record| record.bytes(1, &vec![1; bytes]))
    }

    #[test]
    fn what_is_too_much_is_not_kept() {
        let mut queue = Queue::new(100);
        assert!(push(&mut queue, 50) && push(&mut queue, 30));
        assert!(!push(&mut queue, 30) && push(&mut queue, 4), "{queue:?}");
        let batches = queue.take();
        assert_eq!(batches.iter().map(|batch| batch.records).sum::<u32>(), 3);
        assert!(push(&mut queue, 50), "there is room again");
    }

    #[test]
    fn what_was_not_taken_is_the_next_again() {
        let mut queue = Queue::new(100);
        assert!(push(&mut queue, 20));
        let first = queue.take();
        assert!(push(&mut queue, 30));
        let mut first = first.into_iter().map(|batch| Batch { tries: 1, ..batch });
        assert_eq!(queue.put_back(&mut first), 0);
        assert!(push(&mut queue, 10));
        let tries: Vec<_> = queue.take().iter().map(|batch| (batch.tries, batch.records)).collect();
        assert_eq!(tries, [(1, 1), (0, 2)]);
        let large = Batch { bytes: vec![0; 101], records: 7, tries: 1 };
        assert_eq!(queue.put_back([large].into_iter()), 7);
    }

    #[test]
    fn what_is_written_already_is_counted() {
        let mut written = Vec::new();
        for size in [1, 200] {
            record(&mut written, RECORDS, |record| record.bytes(1, &vec![1; size]));
        }
        assert_eq!(super::super::proto::count(&written), 2);
        let mut queue = Queue::new(300);
        assert!(push(&mut queue, 10) && queue.push_written(&written, 2));
        assert!(!queue.push_written(&written, 2), "too much");
        assert_eq!(queue.take().iter().map(|batch| batch.records).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn batches_are_not_endless() {
        let mut queue = Queue::new(usize::MAX);
        for _ in 0..300 {
            assert!(push(&mut queue, 2_048));
        }
        let batches = queue.take();
        assert_eq!(batches.len(), 3);
        assert!(batches.iter().all(|batch| batch.bytes.len() < FULL + 3_000));
    }
}
