//! What a stream holds of a shared number: taken back when the stream's exchange is over, whatever becomes of its VM. Made by
//! `meshgate.kv`, kept by the stream's context.

use std::sync::Arc;

use meshgate_abi::KvAdd;

use super::data::{Added, Namespace};
use crate::ledger::Ledger;
use crate::limits::{Limit, Limits};
use crate::status::Status;

/// A part of a number. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Hold {
    namespace: Arc<Namespace>,
    key: Box<[u8]>,
    amount: i64,
    owner: Arc<Ledger>,
    /// What it takes of the owner's quota.
    bytes: usize,
}

impl Hold {
    /// What one counts beside its key, so that many do not come for nothing.
    const COST: usize = 64;

    /// Adds to a number what is to be held; none if it was not added.
    pub(crate) fn take(
        namespace: &Arc<Namespace>,
        key: &[u8],
        add: &KvAdd,
        owner: &Arc<Ledger>,
        limits: &Limits,
    ) -> Result<(Added, Option<Hold>), Status> {
        let bytes = key.len() + Self::COST;
        if !owner.shared_bytes.take(bytes, usize::try_from(limits.shared_bytes).unwrap_or(usize::MAX)) {
            owner.count(Limit::SharedBytes);
            return Err(Status::InternalFailure);
        }
        let (namespace, owner) = (Arc::clone(namespace), Arc::clone(owner));
        let mut hold = Hold { namespace, key: key.into(), amount: 0, owner, bytes };
        let added = hold.namespace.add(key, add, None, &hold.owner, limits)?;
        if !added.done {
            return Ok((added, None));
        }
        hold.amount = add.amount;
        Ok((added, Some(hold)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.namespace.release(&self.key, self.amount);
        }
        self.owner.shared_bytes.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_given_back_and_leaves_nothing() {
        let namespace = Arc::new(Namespace::default());
        let (owner, limits) = (Arc::new(Ledger::new()), Limits { shared_bytes: 1_000, ..Limits::default() });
        let one = KvAdd { amount: 1, most: Some(2), hold: true, ..KvAdd::default() };
        let take = || Hold::take(&namespace, b"k", &one, &owner, &limits).map(|(_, hold)| hold);
        let (first, second) = (take().unwrap(), take().unwrap());
        assert!(first.is_some() && second.is_some() && take().unwrap().is_none());
        drop(first);
        assert_eq!(namespace.find(b"k").unwrap().0, &1_i64.to_le_bytes()[..]);
        assert!(take().unwrap().is_some(), "and it was dropped at once");
        drop(second);
        assert_eq!(namespace.find(b"k"), None);
        assert_eq!((owner.shared_bytes.used(), owner.shared_keys.used()), (0, 0));
    }

    #[test]
    fn a_number_that_is_gone_or_none_any_more_stays_so() {
        let namespace = Arc::new(Namespace::default());
        let (owner, limits) = (Arc::new(Ledger::new()), Limits::default());
        let one = KvAdd { amount: 1, hold: true, ..KvAdd::default() };
        let hold = Hold::take(&namespace, b"k", &one, &owner, &limits).unwrap().1;
        namespace.remove(b"k", 0).unwrap();
        drop(hold);
        assert_eq!(namespace.find(b"k"), None);
        let hold = Hold::take(&namespace, b"k", &one, &owner, &limits).unwrap().1;
        namespace.set(b"k", b"text", 0, &owner, &limits).unwrap();
        drop(hold);
        assert_eq!(namespace.find(b"k").unwrap().0, &b"text"[..]);
    }

    #[test]
    fn holds_are_bounded_by_the_filters_bytes() {
        let namespace = Arc::new(Namespace::default());
        let (owner, limits) = (Arc::new(Ledger::new()), Limits { shared_bytes: 300, ..Limits::default() });
        let one = KvAdd { amount: 1, hold: true, ..KvAdd::default() };
        let held: Vec<_> = std::iter::from_fn(|| Hold::take(&namespace, b"k", &one, &owner, &limits).ok())
            .take(100)
            .collect();
        assert_eq!((held.len(), owner.exceeded(Limit::SharedBytes)), (4, 1));
        assert_eq!(
            namespace.find(b"k").unwrap().0,
            &4_i64.to_le_bytes()[..],
            "what was refused is not added"
        );
    }
}
