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

mod member;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use crossbeam_deque::{Injector, Steal, Stealer, Worker};

use crate::clock::Clock;
use crate::item::{Item, ItemId};
use crate::lease::{Blame, Entry, LeaseTable, Origin};
use crate::sync::{Condvar, Mutex};
use crate::wake::Wake;

pub use member::{Member, Revoker, Taken};

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

#[cfg(test)]
mod tests;
