//! A store that tries again what may go well next time.
//!
//! What is tried again is what is harmless to do twice: create-once writes, reads, listings, removals.
//! A create whose answer was lost comes back as `Exists` to its own author, which every caller takes
//! as "read and verify". Growing a log is not tried again, since a failed append leaves its tail
//! undefined, nor a failed sync, since the system may have dropped what it could not write: the pack is
//! abandoned and another begun.
//!
//! Timeouts belong inside: wrap the store in a [`super::TimeoutStore`] first.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::store::{Creation, ObjectEntry, ObjectLog, ObjectStore, StoreError, StoreErrorKind};
use crate::cancel::CancelToken;
use crate::metrics::Measured;
use crate::random::Random;
use crate::stage::Status;

/// How long a store is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts at one operation that fails for a moment; at least 1.
    pub attempts_max: u32,
    /// Wait before the second attempt; doubles with each further one.
    pub wait_first: Duration,
    /// Longest wait between two attempts.
    pub wait_max: Duration,
    /// How long a store without room is waited for. Nothing is dropped meanwhile: whoever writes
    /// waits, and so does everything before it.
    pub room_patience: Duration,
}

impl Default for RetryPolicy {
    /// 10 attempts in about 9 s; a minute for room.
    fn default() -> Self {
        Self {
            attempts_max: 10,
            wait_first: Duration::from_millis(50),
            wait_max: Duration::from_secs(2),
            room_patience: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// How long to wait after the `failed`-th failure in a row, the operation having waited `waited`
    /// so far; `None` to give up. `jitter` is any number.
    pub fn wait(&self, kind: StoreErrorKind, failed: u32, waited: Duration, jitter: u64) -> Option<Duration> {
        let doubled = self.wait_first.saturating_mul(1 << failed.saturating_sub(1).min(20)).min(self.wait_max);
        // Between half of it and all of it, so that many writers do not come back at once.
        let wait = doubled / 2 + (doubled / 2).mul_f64((jitter % 1024) as f64 / 1023.0);
        match kind.status() {
            Status::Transient if kind == StoreErrorKind::DiskFull => (waited < self.room_patience).then_some(wait),
            Status::Transient => (failed < self.attempts_max).then_some(wait),
            Status::Poison | Status::Fatal | Status::DeviceLost => None,
        }
    }
}

/// What a [`RetryStore`] has seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryStats {
    /// Attempts after the first.
    pub retries: u64,
    /// Operations given up after they could have been tried again.
    pub given_up: u64,
    /// Time waited between attempts.
    pub waited_micros: u64,
    /// Waits because there was no room.
    pub full_waits: u64,
    /// Whether an operation is waiting for room now.
    pub is_full: bool,
}

impl Measured for RetryStats {
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("retried_operations", self.retries),
            ("given_up_operations", self.given_up),
            ("retry_wait_micros", self.waited_micros),
            ("storage_full_waits", self.full_waits),
        ]
    }
}

/// Waits between attempts; true when the wait was ended because everything is to end.
pub type Wait = dyn Fn(Duration) -> bool + Send + Sync;

/// A store that tries again. Cheap to clone.
#[derive(Clone)]
pub struct RetryStore {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    wait: Arc<Wait>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    jitter: Mutex<Random>,
    retries: AtomicU64,
    given_up: AtomicU64,
    waited_micros: AtomicU64,
    full_waits: AtomicU64,
    is_full: AtomicBool,
}

impl RetryStore {
    /// Wraps a store. `wait` blocks for a time, in real time or any other, and says whether to give
    /// up; `seed` decides the jitter.
    pub fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy, seed: u64, wait: Arc<Wait>) -> Self {
        let seen = Arc::new(Seen { jitter: Mutex::new(Random::new(seed)), ..Seen::default() });
        Self { inner, policy, wait, seen }
    }

    /// Wraps a store; waits in real time, at most until `cancel` is cancelled.
    pub fn cancellable(inner: Arc<dyn ObjectStore>, policy: RetryPolicy, seed: u64, cancel: CancelToken) -> Self {
        Self::new(inner, policy, seed, Arc::new(move |time| cancel.wait_timeout(time)))
    }

    /// What was seen so far.
    pub fn stats(&self) -> RetryStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RetryStats {
            retries: read(&self.seen.retries),
            given_up: read(&self.seen.given_up),
            waited_micros: read(&self.seen.waited_micros),
            full_waits: read(&self.seen.full_waits),
            is_full: self.seen.is_full.load(Ordering::Relaxed),
        }
    }

    fn again<T>(&self, operation: impl Fn(&dyn ObjectStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut waited = Duration::ZERO;
        for failed in 1.. {
            let error = match operation(&*self.inner) {
                Err(error) if error.status() == Status::Transient => error,
                done => {
                    self.seen.is_full.store(false, Ordering::Relaxed);
                    return done;
                }
            };
            let Some(wait) = self.policy.wait(error.kind(), failed, waited, self.jitter()) else {
                self.seen.given_up.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            };
            self.note(&error, wait);
            if (self.wait)(wait) {
                return Err(error);
            }
            waited += wait;
        }
        unreachable!("a policy gives up before the attempts are used up")
    }

    fn note(&self, error: &StoreError, wait: Duration) {
        tracing::debug!(%error, wait_millis = wait.as_millis() as u64, "store operation is tried again");
        self.seen.retries.fetch_add(1, Ordering::Relaxed);
        self.seen.waited_micros.fetch_add(wait.as_micros() as u64, Ordering::Relaxed);
        if error.kind() == StoreErrorKind::DiskFull {
            self.seen.full_waits.fetch_add(1, Ordering::Relaxed);
            if !self.seen.is_full.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "no room in the work store; waiting for some");
            }
        }
    }

    fn jitter(&self) -> u64 {
        self.seen.jitter.lock().unwrap_or_else(PoisonError::into_inner).bits()
    }
}

impl ObjectStore for RetryStore {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        self.again(|store| store.create(key, bytes))
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.again(|store| store.get(key))
    }
    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        self.again(|store| store.get_range(key, offset, bytes))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        self.again(|store| store.list(prefix))
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.again(|store| store.delete(key))
    }
    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        self.again(|store| store.open_log(key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::faulty::FaultyStore;
    use super::super::store::MemoryStore;
    use super::*;

    fn retrying(script: &str) -> (RetryStore, Arc<Mutex<Vec<Duration>>>) {
        let waits: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let noted = waits.clone();
        let wait = move |time| {
            noted.lock().unwrap().push(time);
            false
        };
        let faulty = FaultyStore::new(Arc::new(MemoryStore::new()), script, 1).unwrap();
        (RetryStore::new(Arc::new(faulty), RetryPolicy::default(), 7, Arc::new(wait)), waits)
    }

    #[test]
    fn what_fails_for_a_moment_is_tried_again_with_growing_waits() {
        let (store, waits) = retrying("create@1-6=before(503)");
        assert_eq!(store.create("a", b"x").unwrap(), Creation::Created);
        let waits = waits.lock().unwrap();
        assert_eq!(waits.len(), 6);
        for (n, wait) in waits.iter().enumerate() {
            let full = Duration::from_millis(50 << n).min(Duration::from_secs(2));
            assert!(*wait >= full / 2 && *wait <= full, "{n}: {wait:?}");
        }
        assert_eq!(store.stats().retries, 6);
    }

    #[test]
    fn attempts_are_bounded_and_other_errors_are_final() {
        let (store, waits) = retrying("create=before(429);get=before(permission)");
        assert_eq!(store.create("a", b"x").unwrap_err().kind(), StoreErrorKind::Transient);
        assert_eq!(waits.lock().unwrap().len(), 9);
        assert_eq!(store.get("a").unwrap_err().kind(), StoreErrorKind::Permission);
        assert_eq!((waits.lock().unwrap().len(), store.stats().given_up), (9, 1));
    }

    #[test]
    fn a_create_whose_answer_was_lost_exists_to_its_author() {
        let (store, _) = retrying("create@1=after(timeout)");
        assert_eq!(store.create("a", b"x").unwrap(), Creation::Exists);
        assert_eq!(store.get("a").unwrap().unwrap(), b"x");
    }

    #[test]
    fn room_is_waited_for_and_then_given_up() {
        let (store, waits) = retrying("create:a@1-20=before(full);create:b=before(full)");
        assert_eq!(store.create("a", b"x").unwrap(), Creation::Created);
        assert_eq!((waits.lock().unwrap().len(), store.stats().is_full), (20, false));
        assert_eq!(store.create("b", b"x").unwrap_err().kind(), StoreErrorKind::DiskFull);
        let waited: Duration = waits.lock().unwrap()[20..].iter().sum();
        assert!(waited >= Duration::from_secs(60) && waited < Duration::from_secs(63), "{waited:?}");
        assert!(store.stats().is_full);
    }

    #[test]
    fn cancelling_ends_the_waits() {
        let faulty = FaultyStore::new(Arc::new(MemoryStore::new()), "create=before(full)", 1).unwrap();
        let cancel = CancelToken::new();
        let store = RetryStore::cancellable(Arc::new(faulty), RetryPolicy::default(), 7, cancel.clone());
        cancel.cancel();
        assert_eq!(store.create("a", b"x").unwrap_err().kind(), StoreErrorKind::DiskFull);
        assert_eq!(store.stats().retries, 1);
    }
}
