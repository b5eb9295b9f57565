//! A store that fails as a script says, for rehearsals, tests and simulation.
//!
//! A script is a list of rules, parted by `;`: `[operation][:part of the key][@when]=fault`.
//!
//! | operation | `create get list delete append`; none: any |
//! | when | `@3` the third matching call, `@2-5` the second to the fifth, `@%30` thirty in a thousand by the seed; none: every one |
//! | `before(kind)` | fails and does nothing |
//! | `after(kind)` | does it and fails: the answer was lost |
//! | `truncate(n)` | only the first `n` bytes are written or read; negative: all but so many |
//! | `flip(n)` | bit `n` of what is written or read is flipped, counted round |
//! | `hang` | blocks until released, then does it |
//!
//! A kind is `notfound exists full transient timeout permission other`, or `409 429 503`. The first
//! rule that applies to a call decides, and every rule counts every call it matches.
//!
//! ```text
//! create:seg@2=after(timeout);create:pack@1-20=before(full);get@%5=flip(12345)
//! ```

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::store::{Creation, ObjectEntry, ObjectLog, ObjectStore, StoreError, StoreErrorKind, StoreOperation};
use crate::random::Random;

/// A script that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store fault script: expected [operation][:key][@when]=fault, got {entry:?}")]
pub struct StoreScriptError {
    /// The entry at fault.
    pub entry: String,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreFault {
    Before(StoreErrorKind),
    After(StoreErrorKind),
    Truncate(i64),
    Flip(u64),
    Hang,
}

/// To which of the matching calls it happens, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Between(u64, u64),
    PerMille(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    operation: Option<StoreOperation>,
    key_part: String,
    when: When,
    fault: StoreFault,
    matched: u64,
}

/// A store that fails as a script says. Clones share script and counts.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Script>,
}

struct Script {
    state: Mutex<State>,
    turned: Condvar,
}

struct State {
    rules: Vec<Rule>,
    random: Random,
    calls: u64,
    faults: u64,
    hanging: usize,
    released: u64,
}

impl FaultyStore {
    /// Wraps a store in a script.
    ///
    /// # Errors
    /// If the script cannot be read.
    pub fn new(inner: Arc<dyn ObjectStore>, script: &str, seed: u64) -> Result<Self, StoreScriptError> {
        let entries = script.split(';').map(str::trim).filter(|entry| !entry.is_empty());
        let rules = entries.map(|entry| parse_rule(entry).ok_or_else(|| StoreScriptError { entry: entry.to_owned() }));
        let rules = rules.collect::<Result<_, _>>()?;
        let state = State { rules, random: Random::new(seed), calls: 0, faults: 0, hanging: 0, released: 0 };
        Ok(Self { inner, script: Arc::new(Script { state: Mutex::new(state), turned: Condvar::new() }) })
    }

    /// Calls so far, faults or not.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Faults injected so far.
    pub fn faults(&self) -> u64 {
        self.lock().faults
    }

    /// Calls that hang now.
    pub fn hanging(&self) -> usize {
        self.lock().hanging
    }

    /// Lets the calls go on that hang now.
    pub fn release(&self) {
        self.lock().released += 1;
        self.script.turned.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.script.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call on bytes that go in (`create`, `append`) or none, as the script says.
    fn write<T>(
        &self,
        operation: StoreOperation,
        key: &str,
        bytes: &[u8],
        act: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.next_fault(operation, key) {
            None => act(bytes),
            Some(StoreFault::Before(kind)) => Err(injected(operation, kind, key)),
            Some(StoreFault::After(kind)) => act(bytes).and_then(|_| Err(injected(operation, kind, key))),
            Some(fault @ (StoreFault::Truncate(_) | StoreFault::Flip(_))) => act(&altered(fault, bytes.to_vec())),
            Some(StoreFault::Hang) => {
                self.hang();
                act(bytes)
            }
        }
    }

    /// Runs a call whose answer may hold bytes.
    fn read<T>(
        &self,
        operation: StoreOperation,
        key: &str,
        act: impl FnOnce() -> Result<T, StoreError>,
        alter: impl FnOnce(StoreFault, T) -> T,
    ) -> Result<T, StoreError> {
        match self.next_fault(operation, key) {
            None => act(),
            Some(StoreFault::Before(kind)) => Err(injected(operation, kind, key)),
            Some(StoreFault::After(kind)) => act().and_then(|_| Err(injected(operation, kind, key))),
            Some(fault @ (StoreFault::Truncate(_) | StoreFault::Flip(_))) => Ok(alter(fault, act()?)),
            Some(StoreFault::Hang) => {
                self.hang();
                act()
            }
        }
    }

    fn next_fault(&self, operation: StoreOperation, key: &str) -> Option<StoreFault> {
        let state = &mut *self.lock();
        state.calls += 1;
        let mut fault = None;
        for rule in &mut state.rules {
            if rule.operation.is_some_and(|wanted| wanted != operation) || !key.contains(&rule.key_part) {
                continue;
            }
            rule.matched += 1;
            let applies = match rule.when {
                When::Always => true,
                When::Between(first, last) => (first..=last).contains(&rule.matched),
                When::PerMille(odds) => state.random.happens(odds),
            };
            fault = fault.or(applies.then_some(rule.fault));
        }
        state.faults += u64::from(fault.is_some());
        fault
    }

    fn hang(&self) {
        let mut state = self.lock();
        let before = state.released;
        state.hanging += 1;
        let waited = self.script.turned.wait_while(state, |state| state.released == before);
        waited.unwrap_or_else(PoisonError::into_inner).hanging -= 1;
    }
}

fn injected(operation: StoreOperation, kind: StoreErrorKind, key: &str) -> StoreError {
    StoreError::new(operation, kind, key, "injected by a script")
}

fn altered(fault: StoreFault, mut bytes: Vec<u8>) -> Vec<u8> {
    match fault {
        StoreFault::Truncate(left) => {
            let length = bytes.len() as i64;
            bytes.truncate(if left < 0 { length + left } else { left }.clamp(0, length) as usize);
        }
        StoreFault::Flip(bit) if !bytes.is_empty() => {
            let bit = (bit % (bytes.len() as u64 * 8)) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        StoreFault::Flip(_) | StoreFault::Before(_) | StoreFault::After(_) | StoreFault::Hang => {}
    }
    bytes
}

impl ObjectStore for FaultyStore {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        self.write(StoreOperation::Create, key, bytes, |bytes| self.inner.create(key, bytes))
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let alter = |fault, read: Option<Vec<u8>>| read.map(|bytes| altered(fault, bytes));
        self.read(StoreOperation::Get, key, || self.inner.get(key), alter)
    }
    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let alter = |fault, read: Option<Vec<u8>>| read.map(|bytes| altered(fault, bytes));
        self.read(StoreOperation::Get, key, || self.inner.get_range(key, offset, bytes), alter)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        self.read(StoreOperation::List, prefix, || self.inner.list(prefix), |_, entries| entries)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.write(StoreOperation::Delete, key, &[], |_| self.inner.delete(key))
    }
    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        // Counted as its appends are, so that one script covers the whole life of a log.
        let log = self.inner.open_log(key)?;
        let wrap = |log| Box::new(FaultyLog { store: self.clone(), log, key: key.to_owned() }) as Box<dyn ObjectLog>;
        Ok(log.map(wrap))
    }
}

struct FaultyLog {
    store: FaultyStore,
    log: Box<dyn ObjectLog>,
    key: String,
}

impl ObjectLog for FaultyLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let Self { store, log, key } = self;
        store.write(StoreOperation::Append, key, bytes, |bytes| log.append(bytes))
    }
    fn sync(&mut self) -> Result<(), StoreError> {
        let Self { store, log, key } = self;
        store.write(StoreOperation::Append, key, &[], |_| log.sync())
    }
    fn seal(self: Box<Self>, key: &str) -> Result<Creation, StoreError> {
        let Self { store, log, key: open } = *self;
        store.write(StoreOperation::Append, &open, &[], |_| log.seal(key))
    }
}

fn parse_rule(entry: &str) -> Option<Rule> {
    let (place, fault) = entry.split_once('=')?;
    let (place, when) = match place.split_once('@') {
        Some((place, when)) => (place, parse_when(when.trim())?),
        None => (place, When::Always),
    };
    let (operation, key_part) = place.split_once(':').unwrap_or((place, ""));
    let operation = match operation.trim() {
        "" => None,
        "create" => Some(StoreOperation::Create),
        "get" => Some(StoreOperation::Get),
        "list" => Some(StoreOperation::List),
        "delete" => Some(StoreOperation::Delete),
        "append" => Some(StoreOperation::Append),
        _ => return None,
    };
    let fault = parse_fault(fault.trim())?;
    Some(Rule { operation, key_part: key_part.trim().to_owned(), when, fault, matched: 0 })
}

fn parse_when(text: &str) -> Option<When> {
    if let Some(odds) = text.strip_prefix('%') {
        return odds.parse().ok().map(When::PerMille);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (1 <= first && first <= last).then_some(When::Between(first, last))
}

fn parse_fault(text: &str) -> Option<StoreFault> {
    if text == "hang" {
        return Some(StoreFault::Hang);
    }
    let (name, argument) = text.strip_suffix(')')?.split_once('(')?;
    let argument = argument.trim();
    match name.trim() {
        "before" => parse_kind(argument).map(StoreFault::Before),
        "after" => parse_kind(argument).map(StoreFault::After),
        "truncate" => argument.parse().ok().map(StoreFault::Truncate),
        "flip" => argument.parse().ok().map(StoreFault::Flip),
        _ => None,
    }
}

fn parse_kind(text: &str) -> Option<StoreErrorKind> {
    Some(match text {
        "notfound" => StoreErrorKind::NotFound,
        "exists" => StoreErrorKind::Exists,
        "full" => StoreErrorKind::DiskFull,
        "transient" | "409" | "429" | "503" => StoreErrorKind::Transient,
        "timeout" => StoreErrorKind::Timeout,
        "permission" => StoreErrorKind::Permission,
        "other" => StoreErrorKind::Other,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::store::MemoryStore;
    use super::*;

    fn faulty(script: &str) -> (MemoryStore, FaultyStore) {
        let inner = MemoryStore::new();
        (inner.clone(), FaultyStore::new(Arc::new(inner), script, 5).unwrap())
    }

    #[test]
    fn scripts_that_mean_nothing_are_refused() {
        for script in [
            "create",
            "burn=hang",
            "create@0=hang",
            "create@3-2=hang",
            "get=flip",
            "get=flip(x)",
            "get=before(sad)",
            "=?",
        ] {
            assert!(FaultyStore::new(Arc::new(MemoryStore::new()), script, 1).is_err(), "{script:?}");
        }
    }

    #[test]
    fn faults_strike_before_and_after() {
        let (inner, store) = faulty("create:a@2=before(503); create:b@1=after(timeout)");
        store.create("a1", b"x").unwrap();
        assert_eq!(store.create("a2", b"x").unwrap_err().kind(), StoreErrorKind::Transient);
        assert_eq!(inner.get("a2").unwrap(), None);
        store.create("a2", b"x").unwrap();
        assert_eq!(store.create("b", b"x").unwrap_err().kind(), StoreErrorKind::Timeout);
        assert_eq!(store.create("b", b"x").unwrap(), Creation::Exists);
        assert_eq!((store.calls(), store.faults()), (5, 2));
    }

    #[test]
    fn bytes_are_altered_on_the_way_in_and_out() {
        let (inner, store) =
            faulty("create:cut=truncate(-1);create:flip=flip(8);get:in@1=truncate(0);append@2=truncate(1)");
        store.create("cut", b"abc").unwrap();
        store.create("flip", &[0, 0]).unwrap();
        store.create("in", b"abc").unwrap();
        assert_eq!(inner.get("cut").unwrap().unwrap(), b"ab");
        assert_eq!(inner.get("flip").unwrap().unwrap(), [0, 1]);
        assert_eq!(store.get("in").unwrap().unwrap(), b"");
        assert_eq!(store.get("in").unwrap().unwrap(), b"abc");
        let mut log = store.open_log("log").unwrap().unwrap();
        log.append(b"ab").unwrap();
        log.append(b"cd").unwrap();
        assert_eq!(inner.get("log").unwrap().unwrap(), b"abc");
    }

    #[test]
    fn odds_come_from_the_seed() {
        let run = || {
            let (_, store) = faulty("get@%300=before(503)");
            (0..200).map(|_| store.get("a").is_err()).collect::<Vec<_>>()
        };
        let first = run();
        assert_eq!(first, run());
        assert!((30..90).contains(&first.iter().filter(|failed| **failed).count()));
    }

    #[test]
    fn a_hung_call_goes_on_when_released() {
        let (_, store) = faulty("create@1=hang");
        let call = std::thread::spawn({
            let store = store.clone();
            move || store.create("a", b"x").unwrap()
        });
        while store.hanging() == 0 {
            std::thread::yield_now();
        }
        store.release();
        assert_eq!(call.join().unwrap(), Creation::Created);
        assert_eq!(store.hanging(), 0);
    }
}
