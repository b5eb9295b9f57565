//! The ledger's objects in an object store.
//!
//! Create-once is one PUT that the store refuses where the name is taken (`If-None-Match: *`); the store shows an object
//! when it is complete. Every call ends in time and is tried once: attempts belong around this store
//! ([`restyle_engine::ledger::RetryStore`]), which takes a create whose answer was lost as "exists, read and verify".
//! Nothing grows in place here, so packs are gathered and created whole.

use std::future::Future;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use opendal::options::{ListOptions, WriteOptions};
use opendal::{EntryMode, ErrorKind, Operator};
use restyle_engine::ledger::store::{check_key, check_prefix};
use restyle_engine::ledger::{Creation, ObjectEntry, ObjectStore, StoreError, StoreErrorKind, StoreOperation};
use tokio::time::{Instant, timeout, timeout_at};

use crate::storage::{Limits, Location, RemoteObject, block_on, describe, is_passing};

/// The slowest line that a deadline is made for.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// Largest hint that is read; leases have some hundred bytes.
const HINT_BYTES_MAX: u64 = 64 << 10;
/// Objects that one listing may hold.
const ENTRIES_MAX: usize = 1_000_000;

/// A prefix of a bucket that holds objects. Cheap to clone; calls block on the network.
///
/// Any number of processes on any machines may use one at once.
#[derive(Debug, Clone)]
pub struct RemoteStore {
    /// One attempt, in time by [`RemoteStore::call`].
    operator: Operator,
    /// With attempts of its own: for what is outside of the ledger.
    steady: Operator,
    place: RemoteObject,
    prefix: String,
    limits: Limits,
}

impl RemoteStore {
    /// Opens a prefix of a bucket and asks whether it answers. Blocks.
    ///
    /// # Errors
    /// `NotFound` for a bucket that is not there, `Permission` for one that may not be listed, `Timeout` for one that
    /// does not answer, `Other` for one that cannot be reached as configured and for locations that are no object store.
    pub fn open(location: &Location) -> Result<Self, StoreError> {
        let name = location.to_string();
        let refused = |why: String| StoreError::new(StoreOperation::Open, StoreErrorKind::Other, &name, why);
        let Location::Remote(place) = location else {
            return Err(refused("it is no object store; name a bucket and a prefix".to_owned()));
        };
        let connected = place.bare_operator().and_then(|bare| Ok((bare, place.operator()?)));
        let (operator, steady) = connected.map_err(|e| refused(e.to_string()))?;
        let prefix = match place.key() {
            "" => String::new(),
            key if key.ends_with('/') => key.to_owned(),
            key => format!("{key}/"),
        };
        let store = Self { operator, steady, place: place.clone(), prefix, limits: place.limits() };
        let (steady, prefix) = (store.steady.clone(), store.prefix.clone());
        store.outside(StoreOperation::Open, "", async move {
            let options = ListOptions { recursive: true, limit: Some(1), ..ListOptions::default() };
            steady.lister_options(&prefix, options).await?.try_next().await.map(drop)
        })?;
        Ok(store)
    }

    /// Returns where it lies.
    #[must_use]
    pub fn place(&self) -> &RemoteObject {
        &self.place
    }

    /// Reads a hint, trying again.
    pub(super) fn read_hint(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (steady, path) = (self.steady.clone(), self.path(key));
        self.outside(StoreOperation::Get, key, async move {
            match steady.read(&path).await {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                read => read.map(|buffer| Some(buffer.to_vec())),
            }
        })
    }

    /// Reads a hint in one attempt.
    pub(super) fn look_at_hint(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (operator, path) = (self.operator.clone(), self.path(key));
        let read = self.call(StoreOperation::Get, key, self.limits.timeout, async move {
            let mut hint = Vec::new();
            let mut pieces = operator.reader(&path).await?.into_stream(..).await?;
            while let Some(piece) = pieces.try_next().await? {
                hint.extend(piece.to_vec());
                if hint.len() as u64 > HINT_BYTES_MAX {
                    break;
                }
            }
            Ok(hint)
        })?;
        self.or_none(key, read)
    }

    /// Writes a hint, replacing what stood there and trying again.
    pub(super) fn write_hint(&self, key: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let (steady, path) = (self.steady.clone(), self.path(key));
        self.outside(StoreOperation::Create, key, async move { steady.write(&path, bytes).await.map(drop) })
    }

    /// Replaces a hint in one attempt.
    pub(super) fn renew_hint(&self, key: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let (operator, path) = (self.operator.clone(), self.path(key));
        let put =
            self.call(
                StoreOperation::Create,
                key,
                self.limits.timeout,
                async move { operator.write(&path, bytes).await },
            )?;
        put.map(drop).map_err(|e| self.error(StoreOperation::Create, key, &e))
    }

    /// Runs a call that has attempts and times of its own.
    fn outside<T: Send + 'static>(
        &self,
        operation: StoreOperation,
        key: &str,
        work: impl Future<Output = opendal::Result<T>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let failed =
            |e: crate::ActorError| StoreError::new(operation, StoreErrorKind::Other, self.shown(key), e.to_string());
        block_on(work).map_err(failed)?.map_err(|e| self.error(operation, key, &e))
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Time enough for so many bytes on a slow line.
    fn transfer_time(&self, bytes: u64) -> Duration {
        self.limits.timeout + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)
    }

    /// An object that is not there is no error.
    fn or_none<T>(&self, key: &str, read: opendal::Result<T>) -> Result<Option<T>, StoreError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.error(StoreOperation::Get, key, &e)),
        }
    }

    /// Runs a call that keeps its times itself, and ends with `None` where it ran out of them.
    fn call_in_steps<T: Send + 'static>(
        &self,
        operation: StoreOperation,
        key: &str,
        work: impl Future<Output = opendal::Result<Option<T>>> + Send + 'static,
    ) -> Result<opendal::Result<T>, StoreError> {
        let error = |kind, message: String| StoreError::new(operation, kind, self.shown(key), message);
        let Limits { timeout, transfer_timeout, .. } = self.limits;
        match block_on(work) {
            Ok(Ok(Some(answer))) => Ok(Ok(answer)),
            Ok(Err(e)) => Ok(Err(e)),
            Ok(Ok(None)) => {
                let message = format!("no answer within {timeout:?}, or nothing more within {transfer_timeout:?}");
                Err(error(StoreErrorKind::Timeout, message))
            }
            Err(failed) => Err(error(StoreErrorKind::Other, failed.to_string())),
        }
    }

    fn call<T: Send + 'static>(
        &self,
        operation: StoreOperation,
        key: &str,
        deadline: Duration,
        work: impl Future<Output = opendal::Result<T>> + Send + 'static,
    ) -> Result<opendal::Result<T>, StoreError> {
        let error = |kind, message: String| StoreError::new(operation, kind, self.shown(key), message);
        match block_on(async move { timeout(deadline, work).await }) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(error(StoreErrorKind::Timeout, format!("no answer within {deadline:?}"))),
            Err(failed) => Err(error(StoreErrorKind::Other, failed.to_string())),
        }
    }

    fn shown(&self, key: &str) -> String {
        self.place.sibling(self.path(key)).to_string()
    }

    fn error(&self, operation: StoreOperation, key: &str, error: &opendal::Error) -> StoreError {
        let kind = match error.kind() {
            // However often it was tried before: no bucket appears by itself.
            ErrorKind::ConfigInvalid => StoreErrorKind::NotFound,
            _ if is_passing(error) => StoreErrorKind::Transient,
            // Two conditional writes at the same moment; the one that is refused may ask again.
            ErrorKind::Conflict => StoreErrorKind::Transient,
            ErrorKind::NotFound => StoreErrorKind::NotFound,
            ErrorKind::PermissionDenied => StoreErrorKind::Permission,
            _ => StoreErrorKind::Other,
        };
        StoreError::new(operation, kind, self.shown(key), describe(error))
    }

    /// Reads a part of an object that may end before the part does.
    fn read_clipped(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let (operator, path) = (self.operator.clone(), self.path(key));
        let deadline = self.transfer_time(bytes as u64);
        let read = self.call(StoreOperation::Get, key, deadline, async move {
            let size = match operator.stat(&path).await {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                stat => stat?.content_length(),
            };
            let end = offset.saturating_add(bytes as u64).min(size);
            if offset >= end {
                return Ok(Some(Vec::new()));
            }
            operator.read_with(&path).range(offset..end).await.map(|buffer| Some(buffer.to_vec()))
        })?;
        read.map_err(|e| self.error(StoreOperation::Get, key, &e))
    }
}

/// Reads an object whose size nobody knows: time for the answer to begin, and for each piece; in all, no more than a slow
/// line takes for what came. `None` where that was not enough.
async fn read_in_time(operator: Operator, path: String, limits: Limits) -> opendal::Result<Option<Vec<u8>>> {
    let begun = Instant::now();
    let opening = async { operator.reader(&path).await?.into_stream(..).await };
    let Ok(pieces) = timeout(limits.timeout, opening).await else { return Ok(None) };
    let (mut pieces, mut read) = (pieces?, Vec::new());
    let mut until = begun + limits.timeout;
    loop {
        let Ok(piece) = timeout_at(until, pieces.try_next()).await else { return Ok(None) };
        let Some(piece) = piece? else { return Ok(Some(read)) };
        piece.for_each(|bytes| read.extend_from_slice(&bytes));
        let in_all = limits.transfer_timeout + Duration::from_secs(read.len() as u64 / BYTES_PER_SECOND_MIN);
        until = (begun + in_all).min(Instant::now() + limits.transfer_timeout);
    }
}

impl ObjectStore for RemoteStore {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        check_key(key, StoreOperation::Create)?;
        let (operator, path, deadline) =
            (self.operator.clone(), self.path(key), self.transfer_time(bytes.len() as u64));
        let bytes = bytes.to_vec();
        let created = self.call(StoreOperation::Create, key, deadline, async move {
            let options = WriteOptions {
                if_not_exists: true,
                content_type: Some("application/octet-stream".to_owned()),
                ..WriteOptions::default()
            };
            operator.write_options(&path, bytes, options).await
        })?;
        match created {
            Ok(_) => Ok(Creation::Created),
            Err(e) if matches!(e.kind(), ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists) => {
                Ok(Creation::Exists)
            }
            Err(e) => Err(self.error(StoreOperation::Create, key, &e)),
        }
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key, StoreOperation::Get)?;
        let (operator, path) = (self.operator.clone(), self.path(key));
        let read = self.call_in_steps(StoreOperation::Get, key, read_in_time(operator, path, self.limits))?;
        self.or_none(key, read)
    }

    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key, StoreOperation::Get)?;
        self.read_clipped(key, offset, bytes)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        check_prefix(prefix)?;
        let (operator, root, path) = (self.operator.clone(), self.prefix.clone(), self.path(prefix));
        let limit = self.limits.timeout;
        let listed = self.call_in_steps(StoreOperation::List, prefix, async move {
            let options = ListOptions { recursive: true, ..ListOptions::default() };
            let Ok(lister) = timeout(limit, operator.lister_options(&path, options)).await else { return Ok(None) };
            let mut lister = lister?;
            let mut entries = Vec::new();
            loop {
                // Each page is a request of its own.
                let Ok(entry) = timeout(limit, lister.try_next()).await else { return Ok(None) };
                let Some(entry) = entry? else { return Ok(Some(entries)) };
                let (path, metadata) = entry.into_parts();
                let Some(key) = path.strip_prefix(&root) else { continue };
                if metadata.mode() == EntryMode::FILE && entries.len() < ENTRIES_MAX {
                    entries.push(ObjectEntry { key: key.to_owned(), bytes: metadata.content_length() });
                }
            }
        })?;
        let mut entries = match listed {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(|e| self.error(StoreOperation::List, prefix, &e))?,
        };
        if entries.len() == ENTRIES_MAX {
            let message = format!("{ENTRIES_MAX} objects and more lie there; give the work store a prefix of its own");
            return Err(StoreError::new(StoreOperation::List, StoreErrorKind::Other, self.shown(prefix), message));
        }
        entries.retain(|entry| entry.key.starts_with(prefix));
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, StoreOperation::Delete)?;
        let (operator, path) = (self.operator.clone(), self.path(key));
        match self.call(
            StoreOperation::Delete,
            key,
            self.limits.timeout,
            async move { operator.delete(&path).await },
        )? {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.error(StoreOperation::Delete, key, &e)),
            _ => Ok(()),
        }
    }
}
