//! A store whose every call ends in time, whatever the one underneath does.
//!
//! A blocking call cannot be interrupted, so each runs on one of a few threads (*lanes*), and the
//! caller stops waiting for it. A lane that hangs is lost until its call returns; the number of lanes is
//! the bound. When all of them hang, calls time out in the queue without having begun, and leave it: the
//! queue holds only what somebody waits for. A call that was given up may still take effect, which
//! the ledger's objects bear.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::store::{Creation, ObjectEntry, ObjectLog, ObjectStore, StoreError, StoreErrorKind, StoreOperation};

/// Lanes where nothing else is said.
pub const LANES_MAX: usize = 8;

/// The slowest disk that time is allowed for: a call that writes gets a second more for every so many bytes.
const BYTES_PER_SECOND_MIN: usize = 1 << 20;

type Work = Box<dyn FnOnce() + Send>;
/// Work that is taken by a lane, or taken back by who no longer waits for it.
type Task = Arc<Mutex<Option<Work>>>;

/// A store whose calls end in time. Cheap to clone.
#[derive(Clone)]
pub struct TimeoutStore {
    inner: Arc<dyn ObjectStore>,
    lanes: Arc<Lanes>,
    timeout: Duration,
}

struct Lanes {
    queue: Sender<Task>,
    tasks: Receiver<Task>,
    count: Arc<Mutex<Count>>,
    lanes_max: usize,
}

/// Lanes that exist, and calls that are queued or run. Never more lanes than calls at once needed.
#[derive(Default)]
struct Count {
    lanes: usize,
    calls: usize,
}

impl TimeoutStore {
    /// Wraps a store; every call gets `timeout` of real time, the wait for a lane included, and a call that writes a
    /// second more for every MiB.
    ///
    /// # Panics
    /// If there is to be no lane.
    pub fn new(inner: Arc<dyn ObjectStore>, timeout: Duration, lanes_max: usize) -> Self {
        assert!(lanes_max > 0, "a store needs a lane");
        let (queue, tasks) = crossbeam_channel::unbounded();
        Self { inner, lanes: Arc::new(Lanes { queue, tasks, count: Arc::default(), lanes_max }), timeout }
    }

    fn call<T: Send + 'static>(
        &self,
        operation: StoreOperation,
        (key, written_bytes): (&str, usize),
        work: impl FnOnce(&dyn ObjectStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        self.lanes.call(operation, key, self.time_for(written_bytes), move || work(&*inner))
    }

    fn time_for(&self, written_bytes: usize) -> Duration {
        self.timeout + Duration::from_secs((written_bytes / BYTES_PER_SECOND_MIN) as u64)
    }
}

impl Lanes {
    fn call<T: Send + 'static>(
        &self,
        operation: StoreOperation,
        key: &str,
        timeout: Duration,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let error = |kind, message: String| StoreError::new(operation, kind, key, message);
        let (answer, answered) = crossbeam_channel::bounded(1);
        let work: Work = Box::new(move || drop(answer.send(work())));
        let task: Task = Arc::new(Mutex::new(Some(work)));
        self.admit().map_err(|spawn| error(StoreErrorKind::Transient, format!("no thread to call it on: {spawn}")))?;
        self.queue.send(task.clone()).expect("the lanes hold a receiver");
        match answered.recv_timeout(timeout) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => {
                Err(error(StoreErrorKind::Other, "the store panicked; see the log".to_owned()))
            }
            Err(RecvTimeoutError::Timeout) => {
                let begun = take(&task).is_none();
                let why = if begun { "no answer" } else { "every call before it hangs; not begun" };
                Err(error(StoreErrorKind::Timeout, format!("{why} within {timeout:?}")))
            }
        }
    }

    /// Counts a call in, and starts a lane where all are taken and there may be another.
    fn admit(&self) -> std::io::Result<()> {
        let mut count = lock(&self.count);
        if count.calls >= count.lanes && count.lanes < self.lanes_max {
            let (tasks, counted) = (self.tasks.clone(), self.count.clone());
            let name = format!("restyle-store-{}", count.lanes);
            std::thread::Builder::new().name(name).spawn(move || run_lane(&tasks, &counted))?;
            count.lanes += 1;
        }
        count.calls += 1;
        Ok(())
    }
}

/// Runs what is queued until the store is dropped.
fn run_lane(tasks: &Receiver<Task>, count: &Mutex<Count>) {
    while let Ok(task) = tasks.recv() {
        if let Some(work) = take(&task) {
            // A panic was reported by its hook; the caller sees that no answer can come.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
        lock(count).calls -= 1;
    }
}

fn take(task: &Task) -> Option<Work> {
    lock(task).take()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ObjectStore for TimeoutStore {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        let (owned, bytes) = (key.to_owned(), bytes.to_vec());
        self.call(StoreOperation::Create, (key, bytes.len()), move |store| store.create(&owned, &bytes))
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let owned = key.to_owned();
        self.call(StoreOperation::Get, (key, 0), move |store| store.get(&owned))
    }
    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let owned = key.to_owned();
        self.call(StoreOperation::Get, (key, 0), move |store| store.get_range(&owned, offset, bytes))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        let owned = prefix.to_owned();
        self.call(StoreOperation::List, (prefix, 0), move |store| store.list(&owned))
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let owned = key.to_owned();
        self.call(StoreOperation::Delete, (key, 0), move |store| store.delete(&owned))
    }
    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        let owned = key.to_owned();
        let log = self.call(StoreOperation::Append, (key, 0), move |store| store.open_log(&owned))?;
        Ok(log.map(|log| {
            let log = Arc::new(Mutex::new(Some(log)));
            Box::new(TimeoutLog { store: self.clone(), log, key: key.to_owned(), lost: false }) as Box<dyn ObjectLog>
        }))
    }
}

/// A log whose calls end in time. One that did not is lost: its tail is undefined.
struct TimeoutLog {
    store: TimeoutStore,
    log: Arc<Mutex<Option<Box<dyn ObjectLog>>>>,
    key: String,
    lost: bool,
}

impl TimeoutLog {
    fn call<T: Send + 'static>(
        &mut self,
        written_bytes: usize,
        work: impl FnOnce(Box<dyn ObjectLog>) -> (Option<Box<dyn ObjectLog>>, Result<T, StoreError>) + Send + 'static,
    ) -> Result<T, StoreError> {
        let key = self.key.clone();
        let gone =
            move || StoreError::new(StoreOperation::Append, StoreErrorKind::Timeout, key, "the log was given up");
        if self.lost {
            return Err(gone());
        }
        let log = self.log.clone();
        let time = self.store.time_for(written_bytes);
        let called = self.store.lanes.call(StoreOperation::Append, &self.key, time, move || {
            let taken = lock(&log).take().ok_or_else(gone)?;
            let (kept, done) = work(taken);
            *lock(&log) = kept;
            done
        });
        // Any other failure came back with the log, which knows best whether it can go on.
        self.lost = called.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Timeout);
        called
    }
}

impl ObjectLog for TimeoutLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let bytes = bytes.to_vec();
        self.call(bytes.len(), move |mut log| {
            let done = log.append(&bytes);
            (Some(log), done)
        })
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.call(0, |mut log| {
            let done = log.sync();
            (Some(log), done)
        })
    }

    fn seal(mut self: Box<Self>, key: &str) -> Result<Creation, StoreError> {
        let key = key.to_owned();
        self.call(0, move |log| (None, log.seal(&key)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::faulty::FaultyStore;
    use super::super::store::MemoryStore;
    use super::*;

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(60);

    fn hanging(script: &str, timeout: Duration, lanes_max: usize) -> (FaultyStore, TimeoutStore) {
        let faulty = FaultyStore::new(Arc::new(MemoryStore::new()), script, 1).unwrap();
        (faulty.clone(), TimeoutStore::new(Arc::new(faulty), timeout, lanes_max))
    }

    #[test]
    fn a_store_that_answers_is_as_it_was() {
        let (_, store) = hanging("", LONG, 2);
        assert_eq!(store.create("a/b", b"xyz").unwrap(), Creation::Created);
        assert_eq!(store.create("a/b", b"q").unwrap(), Creation::Exists);
        assert_eq!(store.get("a/b").unwrap().unwrap(), b"xyz");
        assert_eq!(store.get_range("a/b", 1, 1).unwrap().unwrap(), b"y");
        assert_eq!(store.list("a/").unwrap().len(), 1);
        store.delete("a/b").unwrap();
        let mut log = store.open_log("l.open").unwrap().unwrap();
        log.append(b"1").unwrap();
        log.sync().unwrap();
        assert_eq!(log.seal("l").unwrap(), Creation::Created);
        assert_eq!(store.get("l").unwrap().unwrap(), b"1");
    }

    #[test]
    fn hung_calls_time_out_and_never_take_more_than_their_lanes() {
        let (faulty, store) = hanging("create:h=hang", SHORT, 2);
        for n in 0..4 {
            let error = store.create(&format!("h{n}"), &[0; 1000]).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
            assert_eq!(error.to_string().contains("not begun"), n >= 2, "{error}");
        }
        assert_eq!(faulty.hanging(), 2);
        assert_eq!(store.get("x").unwrap_err().kind(), StoreErrorKind::Timeout);
        faulty.release();
        // The lanes come back; what was given up before it began was never done.
        let store = TimeoutStore { timeout: LONG, ..store };
        assert_eq!(store.create("x", b"x").unwrap(), Creation::Created);
        assert!(store.list("h").unwrap().iter().all(|entry| entry.key == "h0" || entry.key == "h1"));
    }

    #[test]
    fn a_hung_log_is_given_up() {
        let (faulty, store) = hanging("append:l=hang", SHORT, 2);
        let mut log = store.open_log("l").unwrap().unwrap();
        assert_eq!(log.append(b"1").unwrap_err().kind(), StoreErrorKind::Timeout);
        faulty.release();
        assert_eq!(log.append(b"2").unwrap_err().kind(), StoreErrorKind::Timeout);
        assert_eq!(log.seal("m").unwrap_err().kind(), StoreErrorKind::Timeout);
    }

    #[test]
    fn a_log_without_room_goes_on_when_there_is_some() {
        let (_, store) = hanging("append:l@1=before(full)", LONG, 2);
        let mut log = store.open_log("l").unwrap().unwrap();
        assert_eq!(log.append(b"1").unwrap_err().kind(), StoreErrorKind::DiskFull);
        log.append(b"1").unwrap();
        log.seal("m").unwrap();
        assert_eq!(store.get("m").unwrap().unwrap(), b"1");
    }

    #[test]
    fn what_is_large_has_time_to_be_written() {
        let (_, store) = hanging("", SHORT, 1);
        assert_eq!(store.time_for(1000), SHORT);
        assert_eq!(store.time_for(30 << 20), SHORT + Duration::from_secs(30));
    }

    struct Panics;
    impl ObjectStore for Panics {
        fn create(&self, _: &str, _: &[u8]) -> Result<Creation, StoreError> {
            panic!("as told")
        }
        fn get(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(None)
        }
        fn list(&self, _: &str) -> Result<Vec<ObjectEntry>, StoreError> {
            Ok(Vec::new())
        }
        fn delete(&self, _: &str) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_below_is_an_error_and_the_lane_lives_on() {
        let store = TimeoutStore::new(Arc::new(Panics), LONG, 1);
        assert_eq!(store.create("a", b"").unwrap_err().kind(), StoreErrorKind::Other);
        assert_eq!(store.get("a").unwrap(), None);
    }
}
