//! Where a job's objects live: one small trait over a local folder or an object store.
//!
//! The one primitive everything rests on is [`ObjectStore::create`]: of any number of racing
//! creates of one key exactly one wins, and what it wrote is whole and durable when it returns.
//! A store never overwrites. Whether bytes that already stand are good is not decided here; the
//! ledger reads and verifies them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::stage::Status;

/// Longest key a store accepts, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// What a create-once write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// These bytes now stand under the key, durably.
    Created,
    /// Something stood there already and was left alone. It may be this writer's own earlier
    /// attempt whose answer was lost, so read it and verify it.
    Exists,
}

/// One object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Full key.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Immutable objects under slash-separated keys. Every call blocks until it is done.
///
/// Keys are checked by [`check_key`]; a refused key is [`StoreErrorKind::Other`].
pub trait ObjectStore: Send + Sync {
    /// Writes `bytes` under `key` if nothing stands there. On `Created` the object is durable and
    /// was never visible in part. After an error it may exist or not, but never in part.
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError>;

    /// Reads a whole object; `None` where there is none.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Reads up to `bytes` bytes from `offset`: fewer at the end of the object, none past it;
    /// `None` where there is no object.
    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.get(key)?.map(|whole| slice_range(&whole, offset, bytes)))
    }

    /// Lists every object whose key starts with `prefix`, in the order of the keys.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError>;

    /// Removes an object; one that is not there is success.
    fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Starts an append-only log that grows in place, where the store can do that; `None` where it
    /// cannot (object stores) and the caller must gather bytes and `create` them. What has been
    /// appended is readable under `key` at once. An existing `key` is [`StoreErrorKind::Exists`].
    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        check_key(key, StoreOperation::Append)?;
        Ok(None)
    }
}

/// A log that grows at its end until it is sealed or its writer dies.
///
/// A killed process leaves every appended byte; a machine that loses power leaves at least what was
/// synced, and after it any part of the rest.
pub trait ObjectLog: Send {
    /// Adds bytes at the end. `DiskFull` leaves the log as it was, so that the same bytes may be added once there is room;
    /// after any other error the tail is undefined and the log must be abandoned.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes everything appended so far durable.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Syncs the log and gives it its final name, which must be free (`Exists` otherwise; the log
    /// then keeps its open name).
    fn seal(self: Box<Self>, key: &str) -> Result<Creation, StoreError>;
}

impl<S: ObjectStore + ?Sized> ObjectStore for Arc<S> {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        (**self).create(key, bytes)
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).get(key)
    }
    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).get_range(key, offset, bytes)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        (**self).list(prefix)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        (**self).delete(key)
    }
    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        (**self).open_log(key)
    }
}

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreOperation {
    /// A create-once write.
    Create,
    /// A whole or ranged read.
    Get,
    /// A listing.
    List,
    /// A removal.
    Delete,
    /// Opening, growing or sealing a log.
    Append,
    /// Opening the store itself, or taking a lock in it.
    Open,
}

impl fmt::Display for StoreOperation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Create => "creating",
            Self::Get => "reading",
            Self::List => "listing",
            Self::Delete => "deleting",
            Self::Append => "appending to",
            Self::Open => "opening",
        })
    }
}

/// Why a store refused, as far as callers act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreErrorKind {
    /// Something that must be there is not: the folder was taken away, the bucket is missing.
    NotFound,
    /// A name that had to be free is taken.
    Exists,
    /// No room. Waiting for room is right; trying at once again is not.
    DiskFull,
    /// Throttled, conflicted, reset: the same call may succeed a moment later.
    Transient,
    /// No answer in time. The operation may have taken effect.
    Timeout,
    /// Read-only or not allowed.
    Permission,
    /// Anything else; trying again is not expected to help.
    Other,
}

impl StoreErrorKind {
    /// Whether waiting and trying again may help, and how.
    pub fn status(self) -> Status {
        match self {
            Self::DiskFull | Self::Transient | Self::Timeout => Status::Transient,
            Self::NotFound | Self::Exists | Self::Permission | Self::Other => Status::Fatal,
        }
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotFound => "not found",
            Self::Exists => "exists",
            Self::DiskFull => "disk full",
            Self::Transient => "transient",
            Self::Timeout => "timeout",
            Self::Permission => "not permitted",
            Self::Other => "other",
        })
    }
}

/// A failed store operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {key:?} in the work store failed ({kind}): {message}")]
pub struct StoreError {
    operation: StoreOperation,
    kind: StoreErrorKind,
    key: String,
    message: String,
}

impl StoreError {
    /// Builds an error; `message` says what came and what to do.
    pub fn new(
        operation: StoreOperation,
        kind: StoreErrorKind,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { operation, kind, key: key.into(), message: message.into() }
    }

    /// The kind to match on.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether trying again may help.
    pub fn status(&self) -> Status {
        self.kind.status()
    }

    /// The operation that failed.
    pub fn operation(&self) -> StoreOperation {
        self.operation
    }

    /// The key it was about.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Accepts the keys every store can hold: relative, `/`-separated, parts of `[A-Za-z0-9._-]` that do
/// not begin with a dot, at most [`KEY_BYTES_MAX`] bytes.
///
/// # Errors
/// `Other`, naming the fault.
pub fn check_key(key: &str, operation: StoreOperation) -> Result<(), StoreError> {
    match key_fault(key) {
        None => Ok(()),
        Some(fault) => Err(StoreError::new(operation, StoreErrorKind::Other, key, fault)),
    }
}

/// Accepts what [`check_key`] does, and the beginnings of such keys, the empty one included.
///
/// # Errors
/// `Other`, naming the fault.
pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    let whole = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() { Ok(()) } else { check_key(whole, StoreOperation::List) }
}

fn key_fault(key: &str) -> Option<&'static str> {
    if key.len() > KEY_BYTES_MAX {
        return Some("a key has at most 512 bytes");
    }
    for part in key.split('/') {
        if part.is_empty() {
            return Some("a key is relative and has no empty part");
        }
        if part.starts_with('.') {
            return Some("no part of a key begins with a dot");
        }
        if !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Some("a key holds only letters, digits, dot, underscore and dash");
        }
    }
    None
}

fn slice_range(whole: &[u8], offset: u64, bytes: usize) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
    let end = start.saturating_add(bytes).min(whole.len());
    whole[start..end].to_vec()
}

/// A store in this process's memory: for tests, simulation, and measuring what a disk costs.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl MemoryStore {
    /// Starts empty. Clones share their objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts bytes under a key whatever stood there: how tests damage objects behind the ledger's back.
    pub fn overwrite(&self, key: &str, bytes: Vec<u8>) {
        self.lock().insert(key.to_owned(), bytes);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // Every critical section leaves the map whole, so a panic elsewhere does not spoil it.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObjectStore for MemoryStore {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        check_key(key, StoreOperation::Create)?;
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(Creation::Exists);
        }
        objects.insert(key.to_owned(), bytes.to_vec());
        Ok(Creation::Created)
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key, StoreOperation::Get)?;
        Ok(self.lock().get(key).cloned())
    }

    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key, StoreOperation::Get)?;
        Ok(self.lock().get(key).map(|whole| slice_range(whole, offset, bytes)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        check_prefix(prefix)?;
        Ok(self
            .lock()
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, object)| ObjectEntry { key: key.clone(), bytes: object.len() as u64 })
            .collect())
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, StoreOperation::Delete)?;
        self.lock().remove(key);
        Ok(())
    }

    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        check_key(key, StoreOperation::Append)?;
        match self.create(key, &[])? {
            Creation::Created => Ok(Some(Box::new(MemoryLog { store: self.clone(), key: key.to_owned() }))),
            Creation::Exists => Err(log_exists(key)),
        }
    }
}

/// The error of opening a log under a name that is taken.
pub fn log_exists(key: &str) -> StoreError {
    StoreError::new(StoreOperation::Append, StoreErrorKind::Exists, key, "a log starts under a free name")
}

/// The error of a log that was deleted under its writer.
pub fn log_gone(key: &str) -> StoreError {
    StoreError::new(StoreOperation::Append, StoreErrorKind::NotFound, key, "the open log was deleted; start another")
}

struct MemoryLog {
    store: MemoryStore,
    key: String,
}

impl ObjectLog for MemoryLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut objects = self.store.lock();
        let object = objects.get_mut(&self.key).ok_or_else(|| log_gone(&self.key))?;
        object.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn seal(self: Box<Self>, key: &str) -> Result<Creation, StoreError> {
        check_key(key, StoreOperation::Append)?;
        let mut objects = self.store.lock();
        if objects.contains_key(key) {
            return Ok(Creation::Exists);
        }
        let object = objects.remove(&self.key).ok_or_else(|| log_gone(&self.key))?;
        objects.insert(key.to_owned(), object);
        Ok(Creation::Created)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_leave_the_store_are_refused() {
        for key in ["", "/a", "a/", "a//b", "..", "a/../b", "a/.tmp", "a b", "a\\b", "a\0", "ä"] {
            assert!(check_key(key, StoreOperation::Get).is_err(), "{key:?}");
        }
        for key in ["a", "jobs/0f/s/12/seg.1", "a-b_c.d/pack-3-0-w1"] {
            check_key(key, StoreOperation::Get).unwrap();
        }
        assert!(check_key(&"a".repeat(KEY_BYTES_MAX + 1), StoreOperation::Get).is_err());
    }

    #[test]
    fn memory_store_never_overwrites() {
        let store = MemoryStore::new();
        assert_eq!(store.create("a/b", b"first").unwrap(), Creation::Created);
        assert_eq!(store.create("a/b", b"second").unwrap(), Creation::Exists);
        assert_eq!(store.get("a/b").unwrap().unwrap(), b"first");
        assert_eq!(store.get_range("a/b", 3, 10).unwrap().unwrap(), b"st");
        assert_eq!(store.get_range("a/b", 30, 10).unwrap().unwrap(), b"");
        store.delete("a/b").unwrap();
        store.delete("a/b").unwrap();
        assert_eq!(store.get("a/b").unwrap(), None);
    }

    #[test]
    fn lists_by_prefix_in_key_order() {
        let store = MemoryStore::new();
        for key in ["b", "a/2", "a/1", "ab"] {
            store.create(key, b"x").unwrap();
        }
        let keys = |prefix| store.list(prefix).unwrap().into_iter().map(|e| e.key).collect::<Vec<_>>();
        assert_eq!(keys("a/"), ["a/1", "a/2"]);
        assert_eq!(keys("a"), ["a/1", "a/2", "ab"]);
        assert_eq!(keys("").len(), 4);
    }

    #[test]
    fn a_log_is_readable_while_it_grows_and_renamed_when_sealed() {
        let store = MemoryStore::new();
        let mut log = store.open_log("p.open").unwrap().unwrap();
        log.append(b"one").unwrap();
        assert_eq!(store.get("p.open").unwrap().unwrap(), b"one");
        assert_eq!(store.open_log("p.open").err().unwrap().kind(), StoreErrorKind::Exists);
        log.append(b"two").unwrap();
        log.sync().unwrap();
        assert_eq!(log.seal("p").unwrap(), Creation::Created);
        assert_eq!(store.get("p").unwrap().unwrap(), b"onetwo");
        assert_eq!(store.get("p.open").unwrap(), None);
    }
}
