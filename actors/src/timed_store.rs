//! How much time the work store costs: the time inside its calls, over all threads.

use restyle_engine::clock::Clock;
use restyle_engine::ledger::{Creation, ObjectEntry, ObjectLog, ObjectStore, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A store that adds up the time its callers spend in it.
pub struct TimedStore<S> {
    inner: S,
    spent: Spent,
}

/// The sum; clones share it.
#[derive(Clone)]
pub struct Spent {
    clock: Arc<dyn Clock>,
    nanos: Arc<AtomicU64>,
}

impl Spent {
    /// Returns the time spent so far.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn time<T>(&self, call: impl FnOnce() -> T) -> T {
        let begun = self.clock.now();
        let result = call();
        let nanos = (self.clock.now() - begun).as_nanos();
        self.nanos.fetch_add(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
        result
    }
}

impl<S> TimedStore<S> {
    /// Wraps a store and returns the sum beside it.
    #[must_use]
    pub fn new(inner: S, clock: Arc<dyn Clock>) -> (Self, Spent) {
        let spent = Spent { clock, nanos: Arc::default() };
        (Self { inner, spent: spent.clone() }, spent)
    }
}

impl<S: ObjectStore> ObjectStore for TimedStore<S> {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        self.spent.time(|| self.inner.create(key, bytes))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.spent.time(|| self.inner.get(key))
    }

    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        self.spent.time(|| self.inner.get_range(key, offset, bytes))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        self.spent.time(|| self.inner.list(prefix))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.spent.time(|| self.inner.delete(key))
    }

    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        let log = self.spent.time(|| self.inner.open_log(key))?;
        Ok(log.map(|log| Box::new(TimedLog { log, spent: self.spent.clone() }) as Box<dyn ObjectLog>))
    }
}

struct TimedLog {
    log: Box<dyn ObjectLog>,
    spent: Spent,
}

impl ObjectLog for TimedLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.spent.time(|| self.log.append(bytes))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.spent.time(|| self.log.sync())
    }

    fn seal(self: Box<Self>, key: &str) -> Result<Creation, StoreError> {
        let Self { log, spent } = *self;
        spent.time(|| log.seal(key))
    }
}
