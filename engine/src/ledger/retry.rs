//! A store that tries again what may go well next time.
//!
//! What is tried again is what is harmless to do twice: create-once writes, reads, listings, removals.
//! A create whose answer was lost comes back as `Exists` to its own author, which every caller takes
//! as "read and verify". Growing a log is tried again only where there was no room, which leaves the log
//! as it was; any other failed append leaves its tail undefined, and after a failed sync the system may
//! have dropped what it could not write: the pack is abandoned and another begun.
//!
//! No room is waited for, by everybody at once and with one patience: once one caller has run out of it,
//! the others give up too, until something could be written again.
//!
//! Timeouts belong inside: wrap the store in a [`super::TimeoutStore`] first.

use std::fmt;
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
    /// Those of them that may be without any answer: each takes as long as a call may take. Once an operation was given up
    /// like this, others are not tried again either until something answers.
    pub timeouts_max: u32,
    /// Wait before the second attempt; doubles with each further one.
    pub wait_first: Duration,
    /// Longest wait between two attempts.
    pub wait_max: Duration,
    /// How long a store without room is waited for. Nothing is dropped meanwhile: whoever writes
    /// waits, and so does everything before it.
    pub room_patience: Duration,
}

impl Default for RetryPolicy {
    /// 10 attempts in about 9 s, 6 without an answer; a minute for room.
    fn default() -> Self {
        Self {
            attempts_max: 10,
            timeouts_max: 6,
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
            Status::Transient if kind == StoreErrorKind::Timeout => {
                (failed < self.attempts_max.min(self.timeouts_max)).then_some(wait)
            }
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

/// Whether a store has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is none: whoever writes waits.
    Gone,
    /// Something could be written again.
    Back,
}

/// Is told when room goes and when it comes back; must not block.
pub type Tell = dyn Fn(Room) + Send + Sync;

/// A store that tries again. Cheap to clone.
#[derive(Clone)]
pub struct RetryStore {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    wait: Arc<Wait>,
    tell: Option<Arc<Tell>>,
    seen: Arc<Seen>,
}

/// What is tried again, and what its success says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Needs no room.
    Reads,
    /// Needs room for a name at most.
    Names,
    /// Needs room, so its success shows that there is some.
    Writes,
}

#[derive(Default)]
struct Seen {
    jitter: Mutex<Random>,
    retries: AtomicU64,
    given_up: AtomicU64,
    waited_micros: AtomicU64,
    full_waits: AtomicU64,
    is_full: AtomicBool,
    /// Somebody ran out of patience with a full store, and nothing was written since.
    patience_over: AtomicBool,
    /// Somebody gave up on a store that hangs, and nothing was answered since.
    hangs: AtomicBool,
}

impl RetryStore {
    /// Wraps a store. `wait` blocks for a time, in real time or any other, and says whether to give
    /// up; `seed` decides the jitter.
    pub fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy, seed: u64, wait: Arc<Wait>) -> Self {
        let seen = Arc::new(Seen { jitter: Mutex::new(Random::new(seed)), ..Seen::default() });
        Self { inner, policy, wait, tell: None, seen }
    }

    /// Tells when there is no room and when there is some again.
    #[must_use]
    pub fn telling(self, tell: Arc<Tell>) -> Self {
        Self { tell: Some(tell), ..self }
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

    /// Runs what writes beside the store, on the same disk, and waits for room as the store's own writes do. `is_full`
    /// tells whether an error means that there was none; nothing else is tried again.
    ///
    /// # Errors
    /// The last error, once the patience is over or everything is to end.
    pub fn with_room<T, E: fmt::Display>(
        &self,
        is_full: impl Fn(&E) -> bool,
        act: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        self.attempt(Effect::Writes, |error| is_full(error).then_some(StoreErrorKind::DiskFull), act)
    }

    fn again<T>(
        &self,
        effect: Effect,
        operation: impl Fn(&dyn ObjectStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let passing = |error: &StoreError| (error.status() == Status::Transient).then_some(error.kind());
        self.attempt(effect, passing, || operation(&*self.inner))
    }

    /// Runs something as often as the policy says; `passing` names the kind of an error that may pass.
    fn attempt<T, E: fmt::Display>(
        &self,
        effect: Effect,
        passing: impl Fn(&E) -> Option<StoreErrorKind>,
        mut act: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut waited = Duration::ZERO;
        for failed in 1.. {
            let (error, kind) = match act() {
                Ok(done) => {
                    if self.seen.hangs.load(Ordering::Relaxed) {
                        self.seen.hangs.store(false, Ordering::Relaxed);
                    }
                    if effect == Effect::Writes {
                        self.note_room();
                    }
                    return Ok(done);
                }
                Err(error) => match passing(&error) {
                    Some(kind) => (error, kind),
                    None => return Err(error),
                },
            };
            let Some(wait) = self.next_wait(kind, failed, waited) else { return Err(error) };
            self.note(&error, kind, wait);
            if (self.wait)(wait) {
                return Err(error);
            }
            waited += wait;
        }
        unreachable!("a policy gives up before the attempts are used up")
    }

    fn next_wait(&self, kind: StoreErrorKind, failed: u32, waited: Duration) -> Option<Duration> {
        let over = match kind {
            StoreErrorKind::DiskFull => Some(&self.seen.patience_over),
            StoreErrorKind::Timeout => Some(&self.seen.hangs),
            _ => None,
        };
        let is_over = over.is_some_and(|over| over.load(Ordering::Relaxed));
        let wait = self.policy.wait(kind, failed, waited, self.jitter()).filter(|_| !is_over);
        if wait.is_none() {
            self.seen.given_up.fetch_add(1, Ordering::Relaxed);
            over.inspect(|over| over.store(true, Ordering::Relaxed));
        }
        wait
    }

    fn note(&self, error: &dyn fmt::Display, kind: StoreErrorKind, wait: Duration) {
        tracing::debug!(%error, wait_millis = wait.as_millis() as u64, "store operation is tried again");
        self.seen.retries.fetch_add(1, Ordering::Relaxed);
        self.seen.waited_micros.fetch_add(wait.as_micros() as u64, Ordering::Relaxed);
        if kind == StoreErrorKind::DiskFull {
            self.seen.full_waits.fetch_add(1, Ordering::Relaxed);
            if !self.seen.is_full.swap(true, Ordering::Relaxed) {
                let patience_seconds = self.policy.room_patience.as_secs();
                tracing::warn!(%error, patience_seconds, "no room in the work store; waiting for some");
                self.tell(Room::Gone);
            }
        }
    }

    /// Something was written.
    fn note_room(&self) {
        // Read first: this is the path of every write, and nearly always there is nothing to note.
        if self.seen.is_full.load(Ordering::Relaxed) && self.seen.is_full.swap(false, Ordering::Relaxed) {
            self.seen.patience_over.store(false, Ordering::Relaxed);
            tracing::warn!("there is room in the work store again");
            self.tell(Room::Back);
        }
    }

    fn tell(&self, room: Room) {
        if let Some(tell) = &self.tell {
            tell(room);
        }
    }

    fn jitter(&self) -> u64 {
        self.seen.jitter.lock().unwrap_or_else(PoisonError::into_inner).bits()
    }
}

impl ObjectStore for RetryStore {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        self.again(Effect::Writes, |store| store.create(key, bytes))
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.again(Effect::Reads, |store| store.get(key))
    }
    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        self.again(Effect::Reads, |store| store.get_range(key, offset, bytes))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        self.again(Effect::Reads, |store| store.list(prefix))
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.again(Effect::Names, |store| store.delete(key))
    }
    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        let log = self.again(Effect::Names, |store| store.open_log(key))?;
        Ok(log.map(|log| Box::new(RetryLog { store: self.clone(), log }) as Box<dyn ObjectLog>))
    }
}

/// A log that waits for room.
struct RetryLog {
    store: RetryStore,
    log: Box<dyn ObjectLog>,
}

impl ObjectLog for RetryLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let Self { store, log } = self;
        store.with_room(|error: &StoreError| error.kind() == StoreErrorKind::DiskFull, || log.append(bytes))
    }
    fn sync(&mut self) -> Result<(), StoreError> {
        self.log.sync()
    }
    fn seal(self: Box<Self>, key: &str) -> Result<Creation, StoreError> {
        self.log.seal(key)
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
        assert_eq!(store.stats().full_waits, 20);
        assert_eq!(store.create("b", b"x").unwrap_err().kind(), StoreErrorKind::DiskFull);
        let waited: Duration = waits.lock().unwrap()[20..].iter().sum();
        assert!(waited >= Duration::from_secs(60) && waited < Duration::from_secs(63), "{waited:?}");
        assert!(store.stats().is_full);
        // The patience is one for all: nobody waits a second minute.
        let waits_before = waits.lock().unwrap().len();
        assert_eq!(store.create("b", b"x").unwrap_err().kind(), StoreErrorKind::DiskFull);
        store.get("a").unwrap();
        assert_eq!(store.create("b", b"x").unwrap_err().kind(), StoreErrorKind::DiskFull);
        assert_eq!(waits.lock().unwrap().len(), waits_before);
        store.create("c", b"x").unwrap();
        assert!(!store.stats().is_full, "something could be written");
        store.create("b", b"x").unwrap_err();
        assert!(waits.lock().unwrap().len() > waits_before, "so room is waited for again");
    }

    #[test]
    fn a_log_waits_for_room_and_tells_of_it_once() {
        let (store, waits) = retrying("append:l@2-5=before(full)");
        let told: Arc<Mutex<Vec<Room>>> = Arc::default();
        let noted = told.clone();
        let store = store.telling(Arc::new(move |room| noted.lock().unwrap().push(room)));
        let mut log = store.open_log("l.open").unwrap().unwrap();
        log.append(b"one").unwrap();
        log.append(b"two").unwrap();
        assert_eq!((waits.lock().unwrap().len(), store.stats().full_waits), (4, 4));
        assert_eq!(*told.lock().unwrap(), [Room::Gone, Room::Back]);
        log.seal("l").unwrap();
        assert_eq!(store.get("l").unwrap().unwrap(), b"onetwo");
    }

    #[test]
    fn a_store_that_hangs_is_given_up_sooner_and_then_at_once() {
        let (store, waits) = retrying("create:a=before(timeout);get:b=before(timeout)");
        assert_eq!(store.create("a", b"x").unwrap_err().kind(), StoreErrorKind::Timeout);
        assert_eq!(waits.lock().unwrap().len(), 5);
        assert_eq!(store.get("b").unwrap_err().kind(), StoreErrorKind::Timeout);
        assert_eq!(waits.lock().unwrap().len(), 5, "nothing was answered since");
        store.get("c").unwrap();
        store.get("b").unwrap_err();
        assert_eq!(waits.lock().unwrap().len(), 10);
    }

    #[test]
    fn a_log_that_fails_otherwise_is_not_tried_again() {
        let (store, waits) = retrying("append:l@1=before(503)");
        let mut log = store.open_log("l.open").unwrap().unwrap();
        assert_eq!(log.append(b"one").unwrap_err().kind(), StoreErrorKind::Transient);
        assert!(waits.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_written_beside_the_store_waits_for_room_too() {
        let (store, waits) = retrying("");
        let mut attempts = 0;
        let written = store.with_room(
            |error: &&str| *error == "full",
            || {
                attempts += 1;
                if attempts < 4 { Err("full") } else { Ok(attempts) }
            },
        );
        assert_eq!((written, waits.lock().unwrap().len(), store.stats().full_waits), (Ok(4), 3, 3));
        assert_eq!(store.with_room(|error: &&str| *error == "full", || Err::<(), _>("torn")), Err("torn"));
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
