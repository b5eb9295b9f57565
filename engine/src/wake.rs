//! Who must be woken when a flag turns.
//!
//! A blocked wait sits on its own lock, so whoever turns a flag that the wait looks at must reach that lock. The wait
//! subscribes before it looks at the flag for the last time; the one who turns the flag wakes the subscribers after.

use std::sync::{Arc, Weak};

use crate::sync::Mutex;

/// Something with blocked waits inside.
pub(crate) trait Wake: Send + Sync {
    /// Makes every blocked wait look again; takes the lock that the waits hold while they look.
    fn wake(&self);
}

/// The subscribers of one flag.
#[derive(Default)]
pub(crate) struct WakeSet {
    subscribers: Mutex<Subscribers>,
}

#[derive(Default)]
struct Subscribers {
    next_key: u64,
    wakes: Vec<(u64, Weak<dyn Wake>)>,
}

/// A place in a [`WakeSet`]; dropping it leaves.
pub(crate) struct Subscription {
    set: Arc<WakeSet>,
    key: u64,
}

impl WakeSet {
    /// Adds `wake` until the subscription is dropped.
    pub(crate) fn subscribe(self: &Arc<Self>, wake: Weak<dyn Wake>) -> Subscription {
        let mut subscribers = self.subscribers.lock();
        let key = subscribers.next_key;
        subscribers.next_key += 1;
        subscribers.wakes.push((key, wake));
        Subscription { set: self.clone(), key }
    }

    /// Wakes every subscriber; holds no lock of its own meanwhile.
    pub(crate) fn wake_all(&self) {
        let wakes: Vec<_> = self.subscribers.lock().wakes.iter().map(|(_, wake)| wake.clone()).collect();
        for wake in wakes.iter().filter_map(Weak::upgrade) {
            wake.wake();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.set.subscribers.lock().wakes.retain(|(key, _)| *key != self.key);
    }
}
