//! A store that counts what it is asked for and how long that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::store::{Creation, ObjectEntry, ObjectLog, ObjectStore, StoreError};
use crate::clock::{Clock, micros};
use crate::metrics::Measured;

/// What was asked of a store so far, on all threads together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Calls, those of logs included.
    pub calls: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Bytes handed over to be written.
    pub written_bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Time inside calls.
    pub call_micros: u64,
}

impl StoreStats {
    /// Time inside calls.
    pub fn call_time(&self) -> Duration {
        Duration::from_micros(self.call_micros)
    }
}

impl Measured for StoreStats {
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("store_calls", self.calls),
            ("failed_store_calls", self.failed),
            ("written_bytes", self.written_bytes),
            ("read_bytes", self.read_bytes),
            ("store_call_micros", self.call_micros),
        ]
    }
}

/// A store that counts. Clones count together.
#[derive(Clone)]
pub struct MeteredStore {
    inner: Arc<dyn ObjectStore>,
    meter: Arc<Meter>,
}

struct Meter {
    clock: Arc<dyn Clock>,
    calls: AtomicU64,
    failed: AtomicU64,
    written_bytes: AtomicU64,
    read_bytes: AtomicU64,
    call_micros: AtomicU64,
}

impl MeteredStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Self {
        let zero = || AtomicU64::new(0);
        let (calls, failed, written_bytes, read_bytes, call_micros) = (zero(), zero(), zero(), zero(), zero());
        Self { inner, meter: Arc::new(Meter { clock, calls, failed, written_bytes, read_bytes, call_micros }) }
    }

    /// What was asked so far.
    pub fn stats(&self) -> StoreStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            calls: read(&self.meter.calls),
            failed: read(&self.meter.failed),
            written_bytes: read(&self.meter.written_bytes),
            read_bytes: read(&self.meter.read_bytes),
            call_micros: read(&self.meter.call_micros),
        }
    }
}

impl Meter {
    fn measure<T>(&self, written: usize, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let began = self.clock.now();
        let done = call();
        let took = self.clock.now().saturating_sub(began);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(done.is_err()), Ordering::Relaxed);
        self.written_bytes.fetch_add(written as u64, Ordering::Relaxed);
        self.call_micros.fetch_add(micros(took), Ordering::Relaxed);
        done
    }

    fn measure_read(
        &self,
        call: impl FnOnce() -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.measure(0, call)?;
        self.read_bytes.fetch_add(read.as_ref().map_or(0, |bytes| bytes.len() as u64), Ordering::Relaxed);
        Ok(read)
    }
}

impl ObjectStore for MeteredStore {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        self.meter.measure(bytes.len(), || self.inner.create(key, bytes))
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.meter.measure_read(|| self.inner.get(key))
    }
    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        self.meter.measure_read(|| self.inner.get_range(key, offset, bytes))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        self.meter.measure(0, || self.inner.list(prefix))
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.meter.measure(0, || self.inner.delete(key))
    }
    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        let log = self.meter.measure(0, || self.inner.open_log(key))?;
        Ok(log.map(|log| Box::new(MeteredLog { log, meter: self.meter.clone() }) as Box<dyn ObjectLog>))
    }
}

struct MeteredLog {
    log: Box<dyn ObjectLog>,
    meter: Arc<Meter>,
}

impl ObjectLog for MeteredLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.meter.measure(bytes.len(), || self.log.append(bytes))
    }
    fn sync(&mut self) -> Result<(), StoreError> {
        self.meter.measure(0, || self.log.sync())
    }
    fn seal(self: Box<Self>, key: &str) -> Result<Creation, StoreError> {
        let Self { log, meter } = *self;
        meter.measure(0, || log.seal(key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::MemoryStore;
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn calls_bytes_and_failures_are_counted() {
        let store = MeteredStore::new(Arc::new(MemoryStore::new()), ManualClock::shared());
        store.create("a", b"abc").unwrap();
        store.get("a").unwrap();
        store.get_range("a", 1, 1).unwrap();
        store.get("/").unwrap_err();
        let mut log = store.open_log("l").unwrap().unwrap();
        log.append(b"12").unwrap();
        log.sync().unwrap();
        log.seal("m").unwrap();
        store.list("").unwrap();
        store.delete("a").unwrap();
        let stats = store.stats();
        assert_eq!((stats.calls, stats.failed, stats.written_bytes, stats.read_bytes), (10, 1, 5, 4));
    }

    #[test]
    fn time_inside_calls_is_counted() {
        struct Slow(Arc<ManualClock>);
        impl ObjectStore for Slow {
            fn create(&self, _: &str, _: &[u8]) -> Result<Creation, StoreError> {
                Ok(Creation::Created)
            }
            fn get(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
                self.0.advance(std::time::Duration::from_millis(3));
                Ok(None)
            }
            fn list(&self, _: &str) -> Result<Vec<ObjectEntry>, StoreError> {
                Ok(Vec::new())
            }
            fn delete(&self, _: &str) -> Result<(), StoreError> {
                Ok(())
            }
        }
        let clock = ManualClock::shared();
        let store = MeteredStore::new(Arc::new(Slow(clock.clone())), clock);
        store.get("a").unwrap();
        store.get("b").unwrap();
        assert_eq!(store.stats().call_micros, 6000);
    }
}
