//! A worker's right to work on an item: committed, or given back.
//!
//! The item itself, with its credit, never leaves the table of the worker that leased it; the [`Lease`] holds a key and a
//! view of the payload. So a supervisor can take the items of a worker that is hung inside somebody's code and can not be
//! stopped: it empties the table, and whatever the worker does with its keys later finds nothing ([`Revoked`]). Taking a
//! key out of the table is the one way to an item's credit, which is why an item is committed at most once (L1).

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::item::{Attempt, Item, ItemId};
use crate::sync::Mutex;

/// An item as the pool holds it: a lease that was revoked may still be looking at its payload.
pub(crate) type Entry<T> = Item<Arc<T>>;

/// Whose fault it is that a lease ended without a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// The item may be at fault: the attempt counts, with this explanation.
    Item(String),
    /// The node was taken away: the attempt does not count.
    Node,
}

/// Where items come from and go back to.
pub(crate) trait Origin<T>: Send + Sync {
    /// A leased item was committed.
    fn committed(&self);
    /// A leased item comes back.
    fn returned(&self, entry: Entry<T>, blame: Blame);
}

/// The items that one worker holds.
pub(crate) struct LeaseTable<T> {
    held: Mutex<Held<T>>,
}

struct Held<T> {
    next_key: u64,
    retired: bool,
    /// A batch or two; searching it is cheaper than hashing.
    entries: Vec<(u64, Entry<T>)>,
}

impl<T> LeaseTable<T> {
    pub(crate) fn new() -> LeaseTable<T> {
        LeaseTable { held: Mutex::new(Held { next_key: 0, retired: false, entries: Vec::new() }) }
    }

    /// Puts a batch under lease; a retired table refuses it.
    pub(crate) fn grant(
        self: &Arc<Self>,
        batch: Vec<Entry<T>>,
        origin: &Arc<dyn Origin<T>>,
    ) -> Result<Vec<Lease<T>>, Vec<Entry<T>>> {
        let mut held = self.held.lock();
        if held.retired {
            return Err(batch);
        }
        let leases = batch.into_iter().map(|entry| {
            let key = held.next_key;
            held.next_key += 1;
            let lease = Lease {
                table: self.clone(),
                origin: origin.clone(),
                key: Some(key),
                id: entry.id,
                attempt: entry.attempt,
                payload: entry.payload.clone(),
            };
            held.entries.push((key, entry));
            lease
        });
        Ok(leases.collect())
    }

    /// Ends every lease and grants no more; the items, in the order they were leased.
    pub(crate) fn retire(&self) -> Vec<Entry<T>> {
        let mut held = self.held.lock();
        held.retired = true;
        std::mem::take(&mut held.entries).into_iter().map(|(_, entry)| entry).collect()
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.held.lock().retired
    }

    fn settle(&self, key: u64) -> Option<Entry<T>> {
        let mut held = self.held.lock();
        let position = held.entries.iter().position(|(other, _)| *other == key)?;
        Some(held.entries.remove(position).1)
    }
}

/// The right to work on one item; reads as its payload.
///
/// Dropping it gives the item back and counts the attempt, so unwinding is recovery; a worker that ends for no fault of
/// the item's says so with [`give_back`](Lease::give_back).
#[must_use = "dropping a lease counts as a failed attempt"]
pub struct Lease<T> {
    table: Arc<LeaseTable<T>>,
    origin: Arc<dyn Origin<T>>,
    /// `None` once settled.
    key: Option<u64>,
    id: ItemId,
    attempt: Attempt,
    payload: Arc<T>,
}

/// The lease ended before the commit: the worker was given up and another has the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("lease of item {id} (attempt {attempt}) was revoked: another worker has the item")]
pub struct Revoked {
    /// The item.
    pub id: ItemId,
    /// The attempt that came too late.
    pub attempt: Attempt,
}

impl<T> Lease<T> {
    /// Which item.
    pub fn id(&self) -> ItemId {
        self.id
    }

    /// How many attempts at it have failed.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Ends the lease with a result: the item goes on, with its credit.
    ///
    /// # Errors
    /// [`Revoked`] if the lease was taken away meanwhile; the result is dropped (L1).
    pub fn commit<U>(mut self, result: U) -> Result<Item<U>, Revoked> {
        let entry = self.settle().ok_or(Revoked { id: self.id, attempt: self.attempt })?;
        self.origin.committed();
        Ok(entry.map(|_| result))
    }

    /// Gives the item back as if it had never been leased.
    pub fn give_back(mut self) {
        self.end(Blame::Node);
    }

    /// Gives the item back and counts the attempt against it.
    pub fn fail(mut self, reason: impl Into<String>) {
        self.end(Blame::Item(reason.into()));
    }

    fn end(&mut self, blame: Blame) {
        if let Some(entry) = self.settle() {
            self.origin.returned(entry, blame);
        }
    }

    fn settle(&mut self) -> Option<Entry<T>> {
        self.key.take().and_then(|key| self.table.settle(key))
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.payload
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        if self.key.is_some() {
            let how = if std::thread::panicking() { "by a panic" } else { "without a commit" };
            self.end(Blame::Item(format!("lease dropped {how}")));
        }
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", &self.id).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::{CreditLimit, Credits};

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Origin<u32> for Log {
        fn committed(&self) {
            self.0.lock().push("committed".into());
        }
        fn returned(&self, entry: Entry<u32>, blame: Blame) {
            self.0.lock().push(format!("returned {} {blame:?}", entry.id));
        }
    }

    struct Fixture {
        credits: Credits,
        table: Arc<LeaseTable<u32>>,
        log: Arc<Log>,
    }

    impl Fixture {
        fn new() -> Fixture {
            let credits = Credits::new(CreditLimit { items: 9, bytes: 99 });
            Fixture { credits, table: Arc::new(LeaseTable::new()), log: Arc::default() }
        }

        fn lease(&self, index: u32) -> Result<Lease<u32>, usize> {
            let credit = self.credits.try_acquire(1).unwrap();
            let entry = Item::new(ItemId::new(0, index), Arc::new(index * 10), credit);
            let origin: Arc<dyn Origin<u32>> = self.log.clone();
            let granted = self.table.grant(vec![entry], &origin).map_err(|batch| batch.len())?;
            Ok(granted.into_iter().next().unwrap())
        }

        fn log(&self) -> Vec<String> {
            std::mem::take(&mut self.log.0.lock())
        }
    }

    #[test]
    fn a_commit_carries_the_credit_on() {
        let fixture = Fixture::new();
        let lease = fixture.lease(3).unwrap();
        assert_eq!((*lease, lease.id(), lease.attempt()), (30, ItemId::new(0, 3), Attempt(0)));
        let item = lease.commit("done").unwrap();
        assert_eq!((item.id, item.payload), (ItemId::new(0, 3), "done"));
        assert_eq!(fixture.credits.in_use().0, 1);
        drop(item);
        assert_eq!(fixture.credits.in_use().0, 0);
        assert_eq!(fixture.log(), ["committed"]);
    }

    #[test]
    fn every_other_end_gives_back_once() {
        let fixture = Fixture::new();
        drop(fixture.lease(0).unwrap());
        fixture.lease(1).unwrap().give_back();
        fixture.lease(2).unwrap().fail("bad");
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _lease = fixture.lease(3).unwrap();
            std::panic::resume_unwind(Box::new("stop"));
        }));
        assert!(unwound.is_err());
        assert_eq!(
            fixture.log(),
            [
                "returned 0:0 Item(\"lease dropped without a commit\")",
                "returned 0:1 Node",
                "returned 0:2 Item(\"bad\")",
                "returned 0:3 Item(\"lease dropped by a panic\")",
            ]
        );
    }

    #[test]
    fn a_revoked_lease_can_do_nothing_more() {
        let fixture = Fixture::new();
        let (first, second) = (fixture.lease(0).unwrap(), fixture.lease(1).unwrap());
        let taken = fixture.table.retire();
        assert_eq!(taken.iter().map(|entry| entry.id.index.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(*first, 0, "the payload can still be read");
        assert_eq!(first.commit(()).unwrap_err(), Revoked { id: ItemId::new(0, 0), attempt: Attempt(0) });
        drop(second);
        assert!(fixture.log().is_empty());
        assert_eq!(fixture.lease(2).unwrap_err(), 1, "a retired table grants nothing");
    }
}
