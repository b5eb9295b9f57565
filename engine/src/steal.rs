//! The pool of items that workers share and steal from.
//!
//! Produced by whoever decodes, consumed by its members; bounded by the credits of what is in it and by nothing else (L4).
//!
//! An item lies in one of four places: the *injector* (new items, in order), a member's *deque* (what it took and did not
//! begin), the *returned set* (items that came back, oldest first), or a member's *lease table* (work in progress). A
//! member looks at the returned set first, since what came back is what the order downstream waits for; then at its own
//! deque, at the injector, and at its siblings' deques, and takes at most one batch at a time, so that nobody hoards.
//!
//! An item that failed before travels alone, so that a batch that took its worker down is tried again one by one and an
//! item that is poison is found without taking others with it.
//!
//! # Parking
//!
//! The gate is a lock around an epoch. Whoever makes work available, or ends a wait for another reason, moves the epoch
//! on and notifies, under the lock. A member notes the epoch, looks everywhere (also at its signal), and sleeps only if the
//! epoch still is what it noted. One push wakes one member; a member that leaves without work after it slept passes the notification on,
//! since it may have been meant for the work it did not take.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, Sender};
use crossbeam_deque::{Injector, Steal, Stealer, Worker};

use crate::clock::{Clock, micros};
use crate::item::{Attempt, Item, ItemId};
use crate::lease::{Blame, Entry, Lease, LeaseTable, Origin};
use crate::signal::{Signal, SignalState};
use crate::sync::{Condvar, Mutex};
use crate::wake::Wake;

/// How a pool treats what fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// Failed attempts after which an item is poisoned; at least 1.
    pub attempts_max: u32,
}

impl Default for PoolConfig {
    /// Three attempts.
    fn default() -> PoolConfig {
        PoolConfig { attempts_max: 3 }
    }
}

/// An item that failed too often, with its credit; the pool has given it up.
///
/// Whoever receives it must drop it in the end, else its credit is held for ever.
#[derive(Debug)]
pub struct Poisoned<T> {
    /// The item; `attempt` says how many attempts failed.
    pub item: Item<Arc<T>>,
    /// Why the last one failed.
    pub reason: String,
}

/// The pool was closed; holds the item that came too late.
pub struct PoolClosed<T>(pub Item<T>);

impl<T> fmt::Debug for PoolClosed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PoolClosed").field(&self.0.id).finish()
    }
}

/// What a pool has seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Items pushed.
    pub pushed: u64,
    /// Leases granted.
    pub leased: u64,
    /// Items committed.
    pub committed: u64,
    /// Items that came back without a failed attempt.
    pub given_back: u64,
    /// Failed attempts.
    pub failed: u64,
    /// Leases revoked; each is also counted as given back or failed.
    pub revoked: u64,
    /// Times that a member took from a sibling's deque.
    pub steals: u64,
    /// Items poisoned.
    pub poisoned: u64,
    /// Time that members stood without work, summed.
    pub parked_micros: u64,
    /// Items in the pool or under lease now.
    pub outstanding: usize,
    /// Members now.
    pub members: usize,
}

/// The pool; clones share it.
pub struct Pool<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    config: PoolConfig,
    clock: Arc<dyn Clock>,
    injector: Injector<Entry<T>>,
    gate: Mutex<Gate<T>>,
    turned: Condvar,
    roster: Mutex<Arc<Vec<Arc<Seat<T>>>>>,
    poison_in: Sender<Poisoned<T>>,
    poison_out: Receiver<Poisoned<T>>,
    steals: AtomicU64,
}

struct Gate<T> {
    epoch: u64,
    sleeping: usize,
    closed: bool,
    /// By plan order; the second key keeps apart what has the same identity.
    returned: BTreeMap<(ItemId, u64), Entry<T>>,
    next_return: u64,
    /// Items that were pushed and neither committed nor poisoned.
    outstanding: usize,
    /// Those of its numbers that change under the gate.
    stats: PoolStats,
}

/// What others see of a member.
struct Seat<T> {
    name: String,
    stealer: Stealer<Entry<T>>,
    table: Arc<LeaseTable<T>>,
}

impl<T: Send + Sync + 'static> Pool<T> {
    /// An empty, open pool without members.
    ///
    /// # Panics
    /// If items are allowed no attempt.
    pub fn new(config: PoolConfig, clock: Arc<dyn Clock>) -> Pool<T> {
        assert!(config.attempts_max > 0, "items need an attempt");
        let (poison_in, poison_out) = crossbeam_channel::unbounded();
        let gate = Gate {
            epoch: 0,
            sleeping: 0,
            closed: false,
            returned: BTreeMap::new(),
            next_return: 0,
            outstanding: 0,
            stats: PoolStats::default(),
        };
        let shared = Shared {
            config,
            clock,
            injector: Injector::new(),
            gate: Mutex::new(gate),
            turned: Condvar::default(),
            roster: Mutex::default(),
            poison_in,
            poison_out,
            steals: AtomicU64::new(0),
        };
        Pool { shared: Arc::new(shared) }
    }

    /// Adds an item behind all others; never blocks, since its credit was waited for.
    ///
    /// # Errors
    /// The item comes back if the pool is closed.
    pub fn push(&self, item: Item<T>) -> Result<(), PoolClosed<T>> {
        let shared = &*self.shared;
        let mut gate = shared.gate.lock();
        if gate.closed {
            return Err(PoolClosed(item));
        }
        gate.outstanding += 1;
        gate.stats.pushed += 1;
        shared.injector.push(item.map(Arc::new));
        shared.turn(&mut gate, Notify::One);
        Ok(())
    }

    /// Says that nothing more will be pushed: members end when everything is committed or poisoned.
    pub fn close(&self) {
        let mut gate = self.shared.gate.lock();
        gate.closed = true;
        self.shared.turn(&mut gate, Notify::All);
    }

    /// Takes a seat for the calling worker; `name` is for people.
    pub fn join(&self, name: impl Into<String>) -> Member<T> {
        let deque = Worker::new_fifo();
        let seat = Seat { name: name.into(), stealer: deque.stealer(), table: Arc::new(LeaseTable::new()) };
        let seat = Arc::new(seat);
        self.shared.change_roster(|roster| roster.push(seat.clone()));
        Member { origin: self.shared.clone(), shared: self.shared.clone(), seat, deque }
    }

    /// Where items go that failed too often. Its consumer is the pass; its bound are the credits of what is in it.
    pub fn poisoned(&self) -> Receiver<Poisoned<T>> {
        self.shared.poison_out.clone()
    }

    /// What was seen so far.
    pub fn stats(&self) -> PoolStats {
        let members = self.shared.roster.lock().len();
        let gate = self.shared.gate.lock();
        let steals = self.shared.steals.load(Ordering::Relaxed);
        PoolStats { steals, outstanding: gate.outstanding, members, ..gate.stats }
    }

    /// Names of the members.
    pub fn members(&self) -> Vec<String> {
        self.shared.roster.lock().iter().map(|seat| seat.name.clone()).collect()
    }
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Pool<T> {
        Pool { shared: self.shared.clone() }
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gate = self.shared.gate.lock();
        f.debug_struct("Pool").field("outstanding", &gate.outstanding).field("closed", &gate.closed).finish()
    }
}

/// How many sleepers a turn of the gate concerns.
#[derive(Clone, Copy)]
enum Notify {
    One,
    All,
}

impl<T> Shared<T> {
    /// Moves the epoch on, so that whoever is about to sleep looks again, and wakes who sleeps.
    fn turn(&self, gate: &mut Gate<T>, notify: Notify) {
        gate.epoch += 1;
        self.notify(gate, notify);
    }

    fn notify(&self, gate: &Gate<T>, notify: Notify) {
        match notify {
            _ if gate.sleeping == 0 => {}
            Notify::One => self.turned.notify_one(),
            Notify::All => self.turned.notify_all(),
        }
    }

    fn change_roster(&self, change: impl FnOnce(&mut Vec<Arc<Seat<T>>>)) {
        let mut roster = self.roster.lock();
        let mut seats = Vec::clone(&roster);
        change(&mut seats);
        *roster = Arc::new(seats);
    }

    /// Puts items among those that came back.
    fn put_back(&self, entries: Vec<Entry<T>>) {
        if entries.is_empty() {
            return;
        }
        let notify = if entries.len() == 1 { Notify::One } else { Notify::All };
        let mut gate = self.gate.lock();
        for entry in entries {
            gate.insert_returned(entry);
        }
        self.turn(&mut gate, notify);
    }

    /// Takes every item off a seat's deque.
    fn empty_deque(&self, seat: &Seat<T>) {
        let mut entries = Vec::new();
        loop {
            match seat.stealer.steal() {
                Steal::Success(entry) => entries.push(entry),
                Steal::Retry => {}
                Steal::Empty => break,
            }
        }
        self.put_back(entries);
    }

    fn settled(&self, gate: &mut Gate<T>) {
        gate.outstanding -= 1;
        if gate.is_done() {
            self.turn(gate, Notify::All);
        }
    }
}

impl<T> Gate<T> {
    fn is_done(&self) -> bool {
        self.closed && self.outstanding == 0
    }

    fn insert_returned(&mut self, entry: Entry<T>) {
        self.next_return += 1;
        self.returned.insert((entry.id, self.next_return), entry);
    }
}

impl<T: Send + Sync> Origin<T> for Shared<T> {
    fn committed(&self) {
        let mut gate = self.gate.lock();
        gate.stats.committed += 1;
        self.settled(&mut gate);
    }

    fn returned(&self, mut entry: Entry<T>, blame: Blame) {
        let mut gate = self.gate.lock();
        let reason = match blame {
            Blame::Node => {
                gate.stats.given_back += 1;
                gate.insert_returned(entry);
                return self.turn(&mut gate, Notify::One);
            }
            Blame::Item(reason) => reason,
        };
        gate.stats.failed += 1;
        entry.attempt = entry.attempt.next();
        if entry.attempt.0 < self.config.attempts_max {
            gate.insert_returned(entry);
            return self.turn(&mut gate, Notify::One);
        }
        gate.stats.poisoned += 1;
        // Sent before the gate opens: whoever sees the pool done finds the report in the channel.
        self.poison_in.send(Poisoned { item: entry, reason }).expect("the pool holds a receiver");
        self.settled(&mut gate);
    }
}

/// A turned signal concerns one member, but the gate cannot tell which sleeper that is.
impl<T: Send + Sync> Wake for Shared<T> {
    fn wake(&self) {
        let mut gate = self.gate.lock();
        self.turn(&mut gate, Notify::All);
    }
}

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
    shared: Arc<Shared<T>>,
    /// The same, as leases see it.
    origin: Arc<dyn Origin<T>>,
    seat: Arc<Seat<T>>,
    deque: Worker<Entry<T>>,
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

#[cfg(test)]
mod tests;
