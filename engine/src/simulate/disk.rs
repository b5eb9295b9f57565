//! A virtual disk that loses what was not synced, and handles to it that die with their process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ledger::store::{check_key, check_prefix, log_exists, log_gone};
use crate::ledger::{Creation, ObjectEntry, ObjectLog, ObjectStore, StoreError, StoreErrorKind, StoreOperation};
use crate::random::Random;

/// A disk as the contract of [`ObjectStore`] promises it and no better: what `create` and `sync`
/// returned from is durable; the tail of a log and a removal are not, until a loss of power decides.
#[derive(Clone)]
pub(super) struct Disk {
    state: Arc<Mutex<DiskState>>,
    has_logs: bool,
}

#[derive(Default)]
struct DiskState {
    objects: BTreeMap<String, Object>,
    /// Removed and not yet durably so.
    removed: BTreeMap<String, Object>,
}

#[derive(Clone)]
struct Object {
    bytes: Vec<u8>,
    synced_bytes: usize,
}

/// When the process behind a handle dies: after so many more calls, before or after the last of
/// them took effect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fuse {
    pub(super) calls: u64,
    pub(super) after: bool,
}

/// A process as its disk sees it. Once dead, no call of it has any effect.
#[derive(Default)]
pub(super) struct Life {
    state: Mutex<LifeState>,
}

#[derive(Default)]
struct LifeState {
    is_dead: bool,
    fuse: Option<Fuse>,
}

impl Life {
    pub(super) fn kill(&self) {
        self.lock().is_dead = true;
    }

    pub(super) fn light(&self, fuse: Fuse) {
        self.lock().fuse = Some(fuse);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.lock().is_dead
    }

    /// What becomes of the next call: whether it takes effect, and whether its caller lives to see it.
    fn next_call(&self) -> (bool, bool) {
        let mut state = self.lock();
        if state.is_dead {
            return (false, false);
        }
        match &mut state.fuse {
            Some(Fuse { calls: 0, after }) => {
                let takes_effect = *after;
                state.is_dead = true;
                (takes_effect, false)
            }
            Some(Fuse { calls, .. }) => {
                *calls -= 1;
                (true, true)
            }
            None => (true, true),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LifeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    pub(super) fn new(has_logs: bool) -> Disk {
        Disk { state: Arc::default(), has_logs }
    }

    /// The disk as one process sees it.
    pub(super) fn handle(&self, life: Arc<Life>) -> Handle {
        Handle { disk: self.clone(), life }
    }

    /// Cuts the tails of logs anywhere after what was synced, fills parts of them with zeros, and
    /// brings removed objects back.
    pub(super) fn lose_power(&self, random: &mut Random) {
        let mut state = self.lock();
        for object in state.objects.values_mut() {
            let unsynced = (object.bytes.len() - object.synced_bytes) as u64;
            if unsynced > 0 {
                object.bytes.truncate(object.synced_bytes + random.below(unsynced + 1) as usize);
                // A file may be longer than what of it reached the disk.
                let written = object.bytes.len() - object.synced_bytes;
                let hole = object.synced_bytes + random.below(written as u64 + 1) as usize;
                if random.happens(300) {
                    object.bytes[hole..].fill(0);
                }
                object.synced_bytes = object.bytes.len();
            }
        }
        for (key, object) in std::mem::take(&mut state.removed) {
            if random.happens(500) {
                state.objects.entry(key).or_insert(object);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskState {
    fn create(&mut self, key: &str, bytes: Vec<u8>, synced: bool) -> Creation {
        if self.objects.contains_key(key) {
            return Creation::Exists;
        }
        // Naming an object syncs its folder, and with it the removals from that folder.
        let folder = &key[..key.rfind('/').map_or(0, |end| end + 1)];
        self.removed.retain(|key, _| !key.starts_with(folder) || key[folder.len()..].contains('/'));
        let synced_bytes = if synced { bytes.len() } else { 0 };
        self.objects.insert(key.to_owned(), Object { bytes, synced_bytes });
        Creation::Created
    }
}

/// The disk through one process.
pub(super) struct Handle {
    disk: Disk,
    life: Arc<Life>,
}

impl Handle {
    fn call<T>(
        &self,
        operation: StoreOperation,
        key: &str,
        act: impl FnOnce(&mut DiskState) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        call(&self.disk, &self.life, operation, key, act)
    }
}

fn call<T>(
    disk: &Disk,
    life: &Life,
    operation: StoreOperation,
    key: &str,
    act: impl FnOnce(&mut DiskState) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (takes_effect, lives) = life.next_call();
    let done = takes_effect.then(|| act(&mut disk.lock()));
    match done {
        Some(done) if lives => done,
        _ => Err(StoreError::new(operation, StoreErrorKind::Other, key, "this process is dead")),
    }
}

impl ObjectStore for Handle {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        check_key(key, StoreOperation::Create)?;
        self.call(StoreOperation::Create, key, |disk| Ok(disk.create(key, bytes.to_vec(), true)))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key, StoreOperation::Get)?;
        self.call(StoreOperation::Get, key, |disk| Ok(disk.objects.get(key).map(|object| object.bytes.clone())))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        check_prefix(prefix)?;
        self.call(StoreOperation::List, prefix, |disk| {
            let below = disk.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
            Ok(below.map(|(key, object)| ObjectEntry { key: key.clone(), bytes: object.bytes.len() as u64 }).collect())
        })
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, StoreOperation::Delete)?;
        self.call(StoreOperation::Delete, key, |disk| {
            if let Some(object) = disk.objects.remove(key) {
                disk.removed.insert(key.to_owned(), object);
            }
            Ok(())
        })
    }

    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        check_key(key, StoreOperation::Append)?;
        if !self.disk.has_logs {
            return Ok(None);
        }
        let created = self.call(StoreOperation::Append, key, |disk| Ok(disk.create(key, Vec::new(), true)))?;
        match created {
            Creation::Created => {
                Ok(Some(Box::new(DiskLog { disk: self.disk.clone(), life: self.life.clone(), key: key.to_owned() })))
            }
            Creation::Exists => Err(log_exists(key)),
        }
    }
}

struct DiskLog {
    disk: Disk,
    life: Arc<Life>,
    key: String,
}

impl DiskLog {
    fn call<T>(&self, act: impl FnOnce(&mut DiskState) -> Result<T, StoreError>) -> Result<T, StoreError> {
        call(&self.disk, &self.life, StoreOperation::Append, &self.key, act)
    }
}

impl ObjectLog for DiskLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.call(|disk| {
            let object = disk.objects.get_mut(&self.key).ok_or_else(|| log_gone(&self.key))?;
            object.bytes.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.call(|disk| {
            let object = disk.objects.get_mut(&self.key).ok_or_else(|| log_gone(&self.key))?;
            object.synced_bytes = object.bytes.len();
            Ok(())
        })
    }

    fn seal(self: Box<Self>, key: &str) -> Result<Creation, StoreError> {
        check_key(key, StoreOperation::Append)?;
        self.call(|disk| {
            let object = disk.objects.get_mut(&self.key).ok_or_else(|| log_gone(&self.key))?;
            object.synced_bytes = object.bytes.len();
            let bytes = object.bytes.clone();
            let creation = disk.create(key, bytes, true);
            if creation == Creation::Created {
                disk.objects.remove(&self.key);
            }
            Ok(creation)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_of_power_takes_no_more_than_was_not_synced() {
        for seed in 0..200 {
            let disk = Disk::new(true);
            let handle = disk.handle(Arc::default());
            handle.create("a/1", b"whole").unwrap();
            handle.create("b/1", b"removed").unwrap();
            handle.delete("b/1").unwrap();
            let mut log = handle.open_log("a/log").unwrap().unwrap();
            log.append(b"synced").unwrap();
            log.sync().unwrap();
            log.append(b"loose").unwrap();
            disk.lose_power(&mut Random::new(seed));
            assert_eq!(handle.get("a/1").unwrap().unwrap(), b"whole");
            let left = handle.get("a/log").unwrap().unwrap();
            assert!(left.starts_with(b"synced") && left.len() <= 11);
        }
    }

    #[test]
    fn a_removal_lasts_once_its_folder_was_synced() {
        for seed in 0..50 {
            let disk = Disk::new(true);
            let handle = disk.handle(Arc::default());
            handle.create("b/1", b"removed").unwrap();
            handle.delete("b/1").unwrap();
            handle.create("b/2", b"").unwrap();
            disk.lose_power(&mut Random::new(seed));
            assert_eq!(handle.get("b/1").unwrap(), None);
        }
    }

    #[test]
    fn a_dead_process_has_no_effect() {
        for after in [false, true] {
            let disk = Disk::new(true);
            let life = Arc::new(Life::default());
            let handle = disk.handle(life.clone());
            life.light(Fuse { calls: 1, after });
            handle.create("a", b"").unwrap();
            assert!(handle.create("b", b"").is_err() && life.is_dead());
            assert!(handle.create("c", b"").is_err());
            let other = disk.handle(Arc::default());
            let keys: Vec<_> = other.list("").unwrap().into_iter().map(|entry| entry.key).collect();
            assert_eq!(keys, if after { vec!["a", "b"] } else { vec!["a"] });
        }
    }
}
