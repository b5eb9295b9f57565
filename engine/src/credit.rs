//! How much may be in flight: the one source of back-pressure.
//!
//! A credit is taken before an item's memory is, travels with the item through every hop and every retry, and comes back
//! when the item is dropped. Queues between stages may then be as long as they like: what is in them was paid for.
//!
//! Producers (decoders, a handful) wait here and nowhere else. Credits are granted strictly in the order they were asked
//! for, also when a later, lighter request would fit; so items that ask in plan order get credits in plan order (L2).

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use crate::cancel::{CancelToken, Cancelled};
use crate::clock::{Clock, SystemClock, micros};
use crate::sync::{Condvar, Mutex};
use crate::wake::Wake;

/// Most that may be in flight at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditLimit {
    /// Items; at least 1.
    pub items: usize,
    /// Bytes of their payloads. An item heavier than this is admitted when nothing else is in flight.
    pub bytes: u64,
}

/// What credits have seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreditStats {
    /// Items in flight now.
    pub items: usize,
    /// Bytes in flight now.
    pub bytes: u64,
    /// Most items that were ever in flight.
    pub items_peak: usize,
    /// Most bytes that were ever in flight.
    pub bytes_peak: u64,
    /// Credits granted.
    pub granted: u64,
    /// Credits given back.
    pub returned: u64,
    /// Time that producers stood waiting, summed.
    pub stall_micros: u64,
    /// Requests that wait now.
    pub waiting: usize,
}

/// The account that credits are drawn from; clones share it.
#[derive(Clone)]
pub struct Credits {
    account: Arc<Account>,
}

struct Account {
    limit: CreditLimit,
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
    changed: Condvar,
}

#[derive(Default)]
struct Book {
    /// `waiting` is not kept up to date here: `queue` is its truth.
    stats: CreditStats,
    next_ticket: u64,
    queue: VecDeque<u64>,
}

/// The right of one item to be in memory; gives itself back on drop.
pub struct Credit {
    account: Arc<Account>,
    bytes: u64,
}

impl Credits {
    /// An account with nothing in flight.
    ///
    /// # Panics
    /// If the limit admits no item at all.
    pub fn new(limit: CreditLimit) -> Credits {
        Credits::with_clock(limit, SystemClock::shared())
    }

    /// The same, measuring stall time with `clock`.
    ///
    /// # Panics
    /// If the limit admits no item at all.
    pub fn with_clock(limit: CreditLimit, clock: Arc<dyn Clock>) -> Credits {
        assert!(limit.items > 0, "credits for no item at all");
        let account = Account { limit, clock, book: Mutex::default(), changed: Condvar::default() };
        Credits { account: Arc::new(account) }
    }

    /// Takes a credit for an item of `bytes`; blocks until everyone who asked before was served and it fits.
    ///
    /// # Errors
    /// [`Cancelled`] as soon as `cancel` is, also where a credit would be free.
    pub fn acquire(&self, bytes: u64, cancel: &CancelToken) -> Result<Credit, Cancelled> {
        cancel.check()?;
        if let Some(credit) = self.try_acquire(bytes) {
            return Ok(credit);
        }
        let account = &self.account;
        let weak: Weak<dyn Wake> = Arc::downgrade(account) as Weak<dyn Wake>;
        let _subscription = cancel.subscribe(weak);
        let began = account.clock.now();
        let mut book = account.book.lock();
        let ticket = book.enqueue();
        let outcome = loop {
            if cancel.is_cancelled() {
                break Err(Cancelled);
            }
            if book.queue.front() == Some(&ticket) && book.fits(account.limit, bytes) {
                break Ok(());
            }
            book = account.changed.wait(book);
        };
        book.queue.retain(|queued| *queued != ticket);
        book.stats.stall_micros += micros(account.clock.now().saturating_sub(began));
        if outcome.is_ok() {
            book.grant(bytes);
        }
        drop(book);
        // The next in the queue may fit beside this one, or in the place that this one gave up.
        account.changed.notify_all();
        outcome.map(|()| Credit { account: account.clone(), bytes })
    }

    /// Takes a credit if nobody waits and it fits; never blocks.
    pub fn try_acquire(&self, bytes: u64) -> Option<Credit> {
        let mut book = self.account.book.lock();
        let free = book.queue.is_empty() && book.fits(self.account.limit, bytes);
        free.then(|| {
            book.grant(bytes);
            Credit { account: self.account.clone(), bytes }
        })
    }

    /// Items and bytes in flight now.
    pub fn in_use(&self) -> (usize, u64) {
        let book = self.account.book.lock();
        (book.stats.items, book.stats.bytes)
    }

    /// The limit.
    pub fn limit(&self) -> CreditLimit {
        self.account.limit
    }

    /// What was seen so far.
    pub fn stats(&self) -> CreditStats {
        let book = self.account.book.lock();
        CreditStats { waiting: book.queue.len(), ..book.stats }
    }
}

impl fmt::Debug for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credits").field("limit", &self.limit()).field("stats", &self.stats()).finish()
    }
}

impl Book {
    fn enqueue(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.push_back(ticket);
        ticket
    }

    /// Whether an item of `bytes` may join what is in flight; alone, every item may.
    fn fits(&self, limit: CreditLimit, bytes: u64) -> bool {
        let lighter = self.stats.bytes.checked_add(bytes).is_some_and(|sum| sum <= limit.bytes);
        self.stats.items == 0 || (self.stats.items < limit.items && lighter)
    }

    fn grant(&mut self, bytes: u64) {
        let stats = &mut self.stats;
        stats.items += 1;
        stats.granted += 1;
        stats.items_peak = stats.items_peak.max(stats.items);
        self.weigh(0, bytes);
    }

    fn weigh(&mut self, before: u64, after: u64) {
        let stats = &mut self.stats;
        stats.bytes = stats.bytes - before + after;
        stats.bytes_peak = stats.bytes_peak.max(stats.bytes);
    }
}

impl Wake for Account {
    fn wake(&self) {
        // Taking the lock makes sure that no wait is between its last look and its sleep.
        drop(self.book.lock());
        self.changed.notify_all();
    }
}

impl Credit {
    /// The weight it pays for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes the weight it pays for; never blocks.
    ///
    /// Growing may overdraw the account by the difference: the next request waits for that.
    pub fn resize(&mut self, bytes: u64) {
        let lighter = bytes < self.bytes;
        self.account.book.lock().weigh(self.bytes, bytes);
        self.bytes = bytes;
        if lighter {
            self.account.changed.notify_all();
        }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        let mut book = self.account.book.lock();
        book.weigh(self.bytes, 0);
        book.stats.items -= 1;
        book.stats.returned += 1;
        let waiting = !book.queue.is_empty();
        drop(book);
        if waiting {
            self.account.changed.notify_all();
        }
    }
}

impl fmt::Debug for Credit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credit").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::clock::ManualClock;
    use crate::sync::model;

    fn credits(items: usize, bytes: u64) -> Credits {
        Credits::new(CreditLimit { items, bytes })
    }

    /// Spins until `queued` requests wait; the wait itself is what the test is about, so it has no time limit.
    fn until_waiting(credits: &Credits, queued: usize) {
        while credits.stats().waiting < queued {
            std::thread::yield_now();
        }
    }

    #[test]
    fn both_limits_hold_and_drop_gives_back() {
        let credits = credits(2, 100);
        let first = credits.try_acquire(60).unwrap();
        assert!(credits.try_acquire(41).is_none());
        let second = credits.try_acquire(40).unwrap();
        assert!(credits.try_acquire(0).is_none());
        assert_eq!(credits.in_use(), (2, 100));
        drop((first, second));
        assert_eq!(credits.in_use(), (0, 0));
    }

    #[test]
    fn an_item_heavier_than_the_limit_goes_alone() {
        let credits = credits(4, 100);
        let small = credits.try_acquire(1).unwrap();
        assert!(credits.try_acquire(101).is_none());
        drop(small);
        let giant = credits.try_acquire(u64::MAX).unwrap();
        assert!(credits.try_acquire(1).is_none());
        drop(giant);
        assert!(credits.try_acquire(1).is_some());
    }

    #[test]
    fn a_light_request_does_not_overtake_a_heavy_one() {
        let credits = credits(4, 100);
        let held = credits.try_acquire(60).unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let ask = |bytes| {
            let (credits, order) = (credits.clone(), order.clone());
            std::thread::spawn(move || {
                let credit = credits.acquire(bytes, &CancelToken::new()).unwrap();
                order.lock().push(bytes);
                drop(credit);
            })
        };
        let heavy = ask(80);
        until_waiting(&credits, 1);
        assert!(credits.try_acquire(1).is_none(), "somebody waits already");
        let light = ask(30);
        until_waiting(&credits, 2);
        drop(held);
        heavy.join().unwrap();
        light.join().unwrap();
        assert_eq!(*order.lock(), [80, 30]);
    }

    #[test]
    fn cancelling_ends_a_wait_and_lets_the_next_pass() {
        let credits = credits(4, 100);
        let held = credits.try_acquire(60).unwrap();
        let cancel = CancelToken::new();
        let ask = |bytes, cancel: &CancelToken| {
            let (credits, cancel) = (credits.clone(), cancel.clone());
            std::thread::spawn(move || credits.acquire(bytes, &cancel).map(drop))
        };
        let heavy = ask(80, &cancel);
        until_waiting(&credits, 1);
        let light = ask(30, &CancelToken::new());
        until_waiting(&credits, 2);
        cancel.cancel();
        assert_eq!(heavy.join().unwrap(), Err(Cancelled));
        assert_eq!(light.join().unwrap(), Ok(()));
        assert!(credits.acquire(1, &cancel).is_err(), "a cancelled token gets nothing");
        drop(held);
        assert_eq!(credits.in_use(), (0, 0));
    }

    #[test]
    fn resizing_moves_the_weight_and_wakes() {
        let credits = credits(4, 100);
        let mut credit = credits.try_acquire(100).unwrap();
        let waiter = std::thread::spawn({
            let credits = credits.clone();
            move || credits.acquire(50, &CancelToken::new()).map(drop)
        });
        until_waiting(&credits, 1);
        credit.resize(50);
        assert_eq!(waiter.join().unwrap(), Ok(()));
        credit.resize(500);
        assert_eq!(credits.in_use(), (1, 500));
        drop(credit);
        assert_eq!(credits.in_use(), (0, 0));
    }

    #[test]
    fn stall_time_is_what_the_clock_says() {
        let clock = ManualClock::shared();
        let credits = Credits::with_clock(CreditLimit { items: 1, bytes: 1 }, clock.clone());
        let held = credits.try_acquire(1).unwrap();
        let waiter = std::thread::spawn({
            let credits = credits.clone();
            move || credits.acquire(1, &CancelToken::new()).map(drop)
        });
        until_waiting(&credits, 1);
        clock.advance(std::time::Duration::from_millis(7));
        drop(held);
        waiter.join().unwrap().unwrap();
        let stats = credits.stats();
        assert_eq!((stats.stall_micros, stats.granted, stats.returned, stats.items_peak), (7000, 2, 2, 1));
    }

    proptest! {
        /// Whatever is asked for and given back, the limits hold, but for one item alone.
        #[test]
        fn limits_hold(
            limit_items in 1usize..5,
            limit_bytes in 0u64..100,
            steps in prop::collection::vec((0u64..150, any::<prop::sample::Index>(), any::<bool>()), 1..60),
        ) {
            let credits = credits(limit_items, limit_bytes);
            let mut held: Vec<Credit> = Vec::new();
            for (bytes, which, give_back) in steps {
                let before = credits.in_use();
                if give_back && !held.is_empty() {
                    held.swap_remove(which.index(held.len()));
                } else {
                    let fits = held.is_empty() || (held.len() < limit_items && before.1 + bytes <= limit_bytes);
                    let got = credits.try_acquire(bytes);
                    prop_assert_eq!(got.is_some(), fits);
                    held.extend(got);
                }
                let weight: u64 = held.iter().map(Credit::bytes).sum();
                prop_assert_eq!(credits.in_use(), (held.len(), weight));
                prop_assert!(held.len() <= limit_items && (weight <= limit_bytes || held.len() == 1));
            }
        }
    }

    #[test]
    fn model_everyone_who_waits_is_served() {
        model(2000, || {
            let credits = credits(2, 10);
            let served = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = [6, 6, 15, 1]
                .map(|bytes| {
                    let (credits, served) = (credits.clone(), served.clone());
                    shuttle::thread::spawn(move || {
                        for _ in 0..2 {
                            let credit = credits.acquire(bytes, &CancelToken::new()).unwrap();
                            let (items, weight) = credits.in_use();
                            assert!(items <= 2 && (weight <= 10 || items == 1));
                            shuttle::thread::yield_now();
                            drop(credit);
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .into();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(served.load(Ordering::Relaxed), 8);
            assert_eq!(credits.in_use(), (0, 0));
        });
    }

    #[test]
    fn model_cancel_reaches_every_wait() {
        model(2000, || {
            let credits = credits(1, 10);
            let held = credits.try_acquire(1).unwrap();
            let cancel = CancelToken::new();
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (credits, cancel) = (credits.clone(), cancel.clone());
                    shuttle::thread::spawn(move || credits.acquire(5, &cancel).map(drop))
                })
                .collect();
            let canceller = shuttle::thread::spawn(move || cancel.cancel());
            threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Err(Cancelled)));
            canceller.join().unwrap();
            drop(held);
            assert_eq!(credits.stats().waiting, 0);
            assert_eq!(credits.in_use(), (0, 0));
        });
    }
}
