//! A worker's seat in a pool: how it takes, steals, sleeps and leaves.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crossbeam_deque::{Steal, Worker};

use super::{Notify, Seat, Shared};
use crate::clock::micros;
use crate::item::Attempt;
use crate::lease::{Blame, Entry, Lease, Origin};
use crate::signal::{Signal, SignalState};
use crate::wake::Wake;

/// What [`Member::take`] brought.
#[derive(Debug)]
pub enum Taken<T> {
    /// A batch to work on, oldest first; never empty.
    Batch(Vec<Lease<T>>),
    /// The pool is closed and everything in it is committed or poisoned.
    Closed,
    /// The signal says something else than to run; or, `Stop`, this member was given up.
    Told(SignalState),
}

/// A worker's seat in a pool. Dropping it leaves what it did not begin to the others.
pub struct Member<T> {
    pub(super) shared: Arc<Shared<T>>,
    /// The same, as leases see it.
    pub(super) origin: Arc<dyn Origin<T>>,
    pub(super) seat: Arc<Seat<T>>,
    pub(super) deque: Worker<Entry<T>>,
}

/// Takes the items of a member that is dead, hung or taken away; can be used from any thread.
pub struct Revoker<T> {
    shared: Arc<Shared<T>>,
    seat: Arc<Seat<T>>,
}

impl<T: Send + Sync + 'static> Member<T> {
    /// Takes a batch of at most `items_max` items that are all `compatible` with its first; blocks while there is none.
    ///
    /// An item that failed before comes alone. Returns promptly when the signal turns, the pool is done or this member
    /// was revoked; then its deque is empty.
    ///
    /// # Panics
    /// If `items_max` is zero.
    pub fn take(&self, items_max: usize, compatible: &dyn Fn(&T, &T) -> bool, signal: &Signal) -> Taken<T> {
        assert!(items_max > 0, "a batch of no items");
        let mut subscription = None;
        let mut slept = false;
        loop {
            // The epoch first: whatever changes after is seen below, or has moved the epoch on.
            let (epoch, done) = {
                let gate = self.shared.gate.lock();
                (gate.epoch, gate.is_done())
            };
            if done {
                return Taken::Closed;
            }
            let order = signal.state();
            if order != SignalState::Running || self.seat.table.is_retired() {
                self.leave(slept);
                return Taken::Told(if order == SignalState::Running { SignalState::Stop } else { order });
            }
            if let Some(batch) = self.take_now(items_max, compatible) {
                return Taken::Batch(batch);
            }
            if subscription.is_none() {
                // The signal may have turned before: look again.
                let weak: Weak<dyn Wake> = Arc::downgrade(&self.shared) as Weak<dyn Wake>;
                subscription = Some(signal.subscribe(weak));
                continue;
            }
            self.sleep_while(epoch);
            slept = true;
        }
    }

    /// Takes a batch as [`take`](Member::take) does if there is one now; never blocks.
    pub fn take_now(&self, items_max: usize, compatible: &dyn Fn(&T, &T) -> bool) -> Option<Vec<Lease<T>>> {
        let hand = self.gather(items_max, compatible);
        if hand.entries.is_empty() {
            return None;
        }
        let batch = hand.lay_down();
        let batch_items = batch.len() as u64;
        match self.seat.table.grant(batch, &self.origin) {
            Ok(leases) => {
                let mut gate = self.shared.gate.lock();
                gate.stats.leased += batch_items;
                if !self.deque.is_empty() {
                    // A sibling may have looked while these were on their way here.
                    self.shared.turn(&mut gate, Notify::One);
                }
                Some(leases)
            }
            Err(batch) => {
                self.shared.put_back(batch);
                None
            }
        }
    }

    /// A handle that takes this member's items away.
    pub fn revoker(&self) -> Revoker<T> {
        Revoker { shared: self.shared.clone(), seat: self.seat.clone() }
    }

    fn gather(&self, items_max: usize, compatible: &dyn Fn(&T, &T) -> bool) -> Hand<'_, T> {
        let mut hand = Hand { shared: &self.shared, entries: Vec::new() };
        while hand.entries.len() < items_max {
            let Some(entry) = self.next(items_max - hand.entries.len(), hand.entries.is_empty()) else { break };
            let alone = entry.attempt > Attempt(0);
            hand.entries.push(entry);
            let [first, .., last] = hand.entries.as_slice() else {
                if alone {
                    break;
                }
                continue;
            };
            if alone || !compatible(&first.payload, &last.payload) {
                let other = hand.entries.pop();
                self.shared.put_back(other.into_iter().collect());
                break;
            }
        }
        hand
    }

    /// The oldest item within reach; siblings are asked only for a first one.
    fn next(&self, items_max: usize, first: bool) -> Option<Entry<T>> {
        let returned = self.shared.gate.lock().returned.pop_first();
        if let Some((_, entry)) = returned {
            return Some(entry);
        }
        if let Some(entry) = self.deque.pop() {
            return Some(entry);
        }
        let injector = &self.shared.injector;
        until_settled(|| injector.steal_batch_with_limit_and_pop(&self.deque, items_max))
            .or_else(|| if first { self.steal(items_max) } else { None })
    }

    /// Takes from the siblings' deques, beginning with the one that sits behind this one.
    fn steal(&self, items_max: usize) -> Option<Entry<T>> {
        let roster = self.shared.roster.lock().clone();
        let own = roster.iter().position(|seat| Arc::ptr_eq(seat, &self.seat)).unwrap_or(0);
        let siblings = (1..roster.len()).map(|step| &roster[(own + step) % roster.len()]);
        let stolen = siblings
            .filter(|seat| !Arc::ptr_eq(seat, &self.seat))
            .find_map(|seat| until_settled(|| seat.stealer.steal_batch_with_limit_and_pop(&self.deque, items_max)));
        if stolen.is_some() {
            self.shared.steals.fetch_add(1, Ordering::Relaxed);
        }
        stolen
    }

    fn sleep_while(&self, epoch: u64) {
        let shared = &*self.shared;
        let began = shared.clock.now();
        let mut gate = shared.gate.lock();
        while gate.epoch == epoch {
            gate.sleeping += 1;
            gate = shared.turned.wait(gate);
            gate.sleeping -= 1;
        }
        gate.stats.parked_micros += micros(shared.clock.now().saturating_sub(began));
    }

    /// Leaves what was not begun to the others, and the notification that a sleep may have used up.
    fn leave(&self, slept: bool) {
        self.shared.empty_deque(&self.seat);
        if slept {
            let gate = self.shared.gate.lock();
            self.shared.notify(&gate, Notify::One);
        }
    }
}

impl<T> Drop for Member<T> {
    fn drop(&mut self) {
        self.shared.change_roster(|roster| roster.retain(|seat| !Arc::ptr_eq(seat, &self.seat)));
        self.shared.empty_deque(&self.seat);
    }
}

impl<T> fmt::Debug for Member<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("name", &self.seat.name).finish_non_exhaustive()
    }
}

impl<T: Send + Sync> Revoker<T> {
    /// Ends the member's leases and its membership: its items go back to the pool, with the same credits; later commits
    /// get `Revoked` and its next `take` is told to stop. Returns how many leases that concerned. Never blocks long.
    pub fn revoke(&self, blame: Blame) -> usize {
        let entries = self.seat.table.retire();
        let leases = entries.len();
        self.shared.gate.lock().stats.revoked += leases as u64;
        for entry in entries {
            self.shared.returned(entry, blame.clone());
        }
        self.shared.empty_deque(&self.seat);
        self.shared.wake();
        leases
    }
}

impl<T> fmt::Debug for Revoker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoker").field("name", &self.seat.name).finish_non_exhaustive()
    }
}

/// Items between two places; they go back if the code that compares them panics.
struct Hand<'a, T> {
    shared: &'a Shared<T>,
    entries: Vec<Entry<T>>,
}

impl<T> Hand<'_, T> {
    fn lay_down(mut self) -> Vec<Entry<T>> {
        std::mem::take(&mut self.entries)
    }
}

impl<T> Drop for Hand<'_, T> {
    fn drop(&mut self) {
        self.shared.put_back(std::mem::take(&mut self.entries));
    }
}

/// Tries again for as long as another thief is in the way.
fn until_settled<E>(steal: impl Fn() -> Steal<E>) -> Option<E> {
    loop {
        match steal() {
            Steal::Success(entry) => return Some(entry),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}
