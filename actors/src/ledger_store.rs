//! The ledger's objects as files in a local folder.
//!
//! Create-once is: write a temporary file, `fdatasync` it, give it its name with `hard_link` (which
//! fails where the name is taken), `fsync` the folder. A name therefore never shows a partial object,
//! not to a reader, not after a kill, not after a power loss. Where a file system has no hard links
//! `renameat2(RENAME_NOREPLACE)` does the same; where it has neither, the store refuses to work
//! rather than overwrite.
//!
//! Names beginning with a dot belong to this module: `.tmp` holds files that have no name yet, each
//! locked by the process that writes it, and `.lock` in a job's folder is held by the process that
//! works on the job. Death releases both.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use restyle_engine::ledger::keys;
use restyle_engine::ledger::store::{check_key, check_prefix, log_exists};
use restyle_engine::ledger::{
    Creation, ObjectEntry, ObjectLog, ObjectStore, StoreError, StoreErrorKind, StoreOperation,
};
use restyle_engine::{CancelToken, JobId, fault};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

const TEMP_FOLDER: &str = ".tmp";
const LOCK_FILE: &str = ".lock";
/// How often a folder that vanishes between making it and using it is made again.
const FOLDER_ATTEMPTS_MAX: u32 = 8;
/// How often a waiting process looks whether a job was released.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// A folder of objects. Cheap to clone; calls block on the disk.
///
/// Several processes may use one folder at once.
#[derive(Debug, Clone)]
pub struct LocalStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    temp_files: AtomicU64,
    /// Folders whose own entry is known to be durable. A hint that saves syncs.
    durable: Mutex<HashSet<PathBuf>>,
}

impl LocalStore {
    /// Opens a folder, making it where it is missing, and removes what writers that died left
    /// without a name.
    ///
    /// # Errors
    /// `Permission` for a folder that cannot be written, `DiskFull`, or what else the system says.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let fault = |error| store_error(StoreOperation::Open, &root.display().to_string(), &error);
        let temp = root.join(TEMP_FOLDER);
        fs::create_dir_all(&temp).map_err(fault)?;
        for folder in root.ancestors().take(2).filter(|folder| !folder.as_os_str().is_empty()) {
            sync_folder(folder).map_err(fault)?;
        }
        sweep(&temp).map_err(fault)?;
        let shared = Shared { root, temp_files: AtomicU64::new(0), durable: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// Takes the job for this process if no other has it. The lock ends with the value, or with the
    /// process however it dies.
    pub fn try_lock(&self, job: &JobId) -> Result<Locking, StoreError> {
        let folder = self.path(&keys::job_prefix(job));
        let path = folder.join(LOCK_FILE);
        let fault = |error: io::Error| store_error(StoreOperation::Open, &path.display().to_string(), &error);
        for _ in 0..FOLDER_ATTEMPTS_MAX {
            self.make_folder(&folder).map_err(fault)?;
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.forget_folder(&folder);
                    continue;
                }
                opened => opened.map_err(fault)?,
            };
            if !try_flock(&file).map_err(fault)? {
                return Ok(Locking::Busy(read_holder(&mut file)));
            }
            // A lock on a file that was removed meanwhile protects nothing.
            if is_at(&file, &path).map_err(fault)? {
                write_holder(&mut file).map_err(fault)?;
                return Ok(Locking::Held(JobLock { _file: file }));
            }
        }
        Err(vanishing(StoreOperation::Open, &path.display().to_string()))
    }

    /// Takes the job, waiting for whoever has it; `on_wait` is told once, before the wait begins.
    /// `None` when cancelled first.
    pub fn lock_blocking(
        &self,
        job: &JobId,
        cancel: &CancelToken,
        on_wait: impl FnOnce(&Holder),
    ) -> Result<Option<JobLock>, StoreError> {
        let mut on_wait = Some(on_wait);
        loop {
            match self.try_lock(job)? {
                Locking::Held(lock) => return Ok(Some(lock)),
                Locking::Busy(holder) => {
                    if let Some(tell) = on_wait.take() {
                        tell(&holder);
                    }
                }
            }
            if cancel.wait_timeout(LOCK_POLL) {
                return Ok(None);
            }
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.shared.root.join(key)
    }

    /// Makes a folder below the root and every folder above it, durably.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let mut durable = self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let above = folder.ancestors().take_while(|above| *above != self.shared.root);
        let missing: Vec<&Path> = above.take_while(|above| !durable.contains(*above)).collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if let Some(parent) = folder.parent() {
                sync_folder(parent)?;
            }
            durable.insert(folder.to_owned());
        }
        Ok(())
    }

    fn forget_folder(&self, folder: &Path) {
        let mut durable = self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.retain(|known| !known.starts_with(folder) && !folder.starts_with(known));
    }

    /// Runs `act` in the folder of `path`, making the folder as often as another process takes it away.
    fn in_folder<T>(&self, path: &Path, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let folder = path.parent().unwrap_or(&self.shared.root);
        for _ in 0..FOLDER_ATTEMPTS_MAX {
            let made = self.make_folder(folder);
            match made.and_then(|()| act()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.forget_folder(folder),
                done => return done,
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "its folder is taken away again and again"))
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<Creation> {
        let mut temp = TempFile::new(&self.shared)?;
        temp.file.write_all(bytes)?;
        fault::point("store:written");
        temp.file.sync_data()?;
        fault::point("store:synced");
        let creation = self.in_folder(path, || give_name(&temp.path, path))?;
        fault::point("store:named");
        sync_folder(path.parent().unwrap_or(&self.shared.root))?;
        Ok(creation)
    }
}

impl ObjectStore for LocalStore {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        check_key(key, StoreOperation::Create)?;
        self.write_new(&self.path(key), bytes).map_err(|error| store_error(StoreOperation::Create, key, &error))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key, StoreOperation::Get)?;
        found(fs::read(self.path(key))).map_err(|error| store_error(StoreOperation::Get, key, &error))
    }

    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key, StoreOperation::Get)?;
        let read = || {
            let mut file = File::open(self.path(key))?;
            file.seek(SeekFrom::Start(offset))?;
            let mut range = Vec::new();
            file.take(bytes as u64).read_to_end(&mut range)?;
            Ok(range)
        };
        found(read()).map_err(|error| store_error(StoreOperation::Get, key, &error))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        check_prefix(prefix)?;
        let folder = prefix.rfind('/').map_or("", |end| &prefix[..end]);
        let mut entries = Vec::new();
        walk(&self.path(folder), folder, prefix, &mut entries)
            .map_err(|error| store_error(StoreOperation::List, prefix, &error))?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, StoreOperation::Delete)?;
        let path = self.path(key);
        found(fs::remove_file(&path)).map_err(|error| store_error(StoreOperation::Delete, key, &error))?;
        let above = path.ancestors().skip(1).take_while(|folder| *folder != self.shared.root);
        for folder in above {
            // Fails where something is left in it, which ends the climb.
            if fs::remove_dir(folder).is_err() {
                break;
            }
            self.forget_folder(folder);
        }
        Ok(())
    }

    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        check_key(key, StoreOperation::Append)?;
        let path = self.path(key);
        let open = || -> io::Result<File> {
            let file = self.in_folder(&path, || OpenOptions::new().append(true).create_new(true).open(&path))?;
            sync_folder(path.parent().unwrap_or(&self.shared.root))?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Some(Box::new(LocalLog { store: self.clone(), file, path, key: key.to_owned() }))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(log_exists(key)),
            Err(error) => Err(store_error(StoreOperation::Append, key, &error)),
        }
    }
}

/// A file that grows at its end.
struct LocalLog {
    store: LocalStore,
    file: File,
    path: PathBuf,
    key: String,
}

impl ObjectLog for LocalLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|error| store_error(StoreOperation::Append, &self.key, &error))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|error| store_error(StoreOperation::Append, &self.key, &error))
    }

    fn seal(mut self: Box<Self>, key: &str) -> Result<Creation, StoreError> {
        check_key(key, StoreOperation::Append)?;
        self.sync()?;
        let sealed = self.store.path(key);
        let rename = || {
            let creation = self.store.in_folder(&sealed, || give_name(&self.path, &sealed))?;
            if creation == Creation::Created {
                found(fs::remove_file(&self.path))?;
            }
            sync_folder(sealed.parent().unwrap_or(&self.store.shared.root))?;
            Ok(creation)
        };
        rename().map_err(|error| store_error(StoreOperation::Append, key, &error))
    }
}

/// A file without a name yet, locked while its writer lives, removed when dropped.
struct TempFile {
    file: File,
    path: PathBuf,
}

impl TempFile {
    fn new(shared: &Shared) -> io::Result<Self> {
        let folder = shared.root.join(TEMP_FOLDER);
        loop {
            let number = shared.temp_files.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{number}", std::process::id()));
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                // Left by a dead process of the same id, or made by another store on the same folder.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(&folder)?;
                    continue;
                }
                opened => opened?,
            };
            flock(&file, FlockOperation::LockExclusive)?;
            // A sweep may have taken it between making and locking it.
            if is_at(&file, &path)? {
                return Ok(Self { file, path });
            }
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // What cannot be removed now is swept when the store is opened again.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes temporary files whose writers died.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(file) = found(File::open(&path))? else { continue };
        if try_flock(&file)? {
            found(fs::remove_file(&path))?;
        }
    }
    Ok(())
}

/// Gives a file a second name if that is free: the moment of commit.
fn give_name(from: &Path, to: &Path) -> io::Result<Creation> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(Creation::Created),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Creation::Exists),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => rename_new(from, to),
            _ => Err(error),
        },
    }
}

/// Renames a file to a name that must be free.
fn rename_new(from: &Path, to: &Path) -> io::Result<Creation> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Creation::Created),
        Err(Errno::EXIST) => Ok(Creation::Exists),
        Err(Errno::INVAL | Errno::NOSYS) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this file system has neither hard links nor RENAME_NOREPLACE; choose another work folder",
        )),
        Err(error) => Err(error.into()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // What a file system says that cannot sync folders and so has nothing to sync.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(()),
        synced => synced,
    }
}

fn walk(folder: &Path, key: &str, prefix: &str, entries: &mut Vec<ObjectEntry>) -> io::Result<()> {
    let Some(listing) = found(fs::read_dir(folder))? else { return Ok(()) };
    for entry in listing {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let key = if key.is_empty() { name.to_owned() } else { format!("{key}/{name}") };
        let Some(metadata) = found(entry.metadata())? else { continue };
        if metadata.is_dir() {
            if key.starts_with(prefix) || prefix.starts_with(&key) {
                walk(&entry.path(), &key, prefix, entries)?;
            }
        } else if metadata.is_file() && key.starts_with(prefix) {
            entries.push(ObjectEntry { key, bytes: metadata.len() });
        }
    }
    Ok(())
}

/// Absence as a value.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Who has a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id, where it could be read.
    pub pid: Option<u32>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(out, "process {pid}"),
            None => out.write_str("another process"),
        }
    }
}

/// A job held by this process until it is dropped.
#[derive(Debug)]
pub struct JobLock {
    _file: File,
}

/// What trying to take a job came to.
#[derive(Debug)]
pub enum Locking {
    /// This process has it.
    Held(JobLock),
    /// Another has it.
    Busy(Holder),
}

fn try_flock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    Ok(found(fs::metadata(path))?.is_some_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())))
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file.take(16).read_to_string(&mut text);
    Holder { pid: read.ok().and_then(|_| text.trim().parse().ok()) }
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn vanishing(operation: StoreOperation, key: &str) -> StoreError {
    StoreError::new(operation, StoreErrorKind::Transient, key, "it is taken away again and again by another process")
}

fn store_error(operation: StoreOperation, key: &str, error: &io::Error) -> StoreError {
    let kind = match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => StoreErrorKind::DiskFull,
        Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => StoreErrorKind::Permission,
        Some(Errno::NOENT) => StoreErrorKind::NotFound,
        Some(Errno::EXIST) => StoreErrorKind::Exists,
        Some(Errno::INTR | Errno::AGAIN | Errno::BUSY | Errno::STALE | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
            StoreErrorKind::Transient
        }
        Some(Errno::TIMEDOUT) => StoreErrorKind::Timeout,
        _ => StoreErrorKind::Other,
    };
    StoreError::new(operation, kind, key, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, LocalStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path().join("work/state")).unwrap();
        (folder, store)
    }

    fn temp_files(store: &LocalStore) -> usize {
        fs::read_dir(store.root().join(TEMP_FOLDER)).unwrap().count()
    }

    #[test]
    fn an_object_is_created_once_and_whole() {
        let (_folder, store) = store();
        assert_eq!(store.get("a/b/c").unwrap(), None);
        assert_eq!(store.create("a/b/c", b"first").unwrap(), Creation::Created);
        assert_eq!(store.create("a/b/c", b"second").unwrap(), Creation::Exists);
        assert_eq!(store.get("a/b/c").unwrap().unwrap(), b"first");
        assert_eq!(store.get_range("a/b/c", 2, 2).unwrap().unwrap(), b"rs");
        assert_eq!(store.get_range("a/b/c", 9, 2).unwrap().unwrap(), b"");
        assert_eq!(temp_files(&store), 0);
    }

    #[test]
    fn lists_and_deletes_and_leaves_no_empty_folders() {
        let (_folder, store) = store();
        for key in ["jobs/a/s/1/seg", "jobs/a/s/10/seg", "jobs/a/plan.json", "jobs/b/plan.json"] {
            store.create(key, b"xy").unwrap();
        }
        let keys = |prefix| store.list(prefix).unwrap().into_iter().map(|e| e.key).collect::<Vec<_>>();
        assert_eq!(keys("jobs/a/s/"), ["jobs/a/s/1/seg", "jobs/a/s/10/seg"]);
        assert_eq!(keys("jobs/a/s/1/"), ["jobs/a/s/1/seg"]);
        assert_eq!(keys("jobs/a/pl"), ["jobs/a/plan.json"]);
        assert_eq!(keys("").len(), 4);
        assert_eq!(keys("none/"), [""; 0]);
        assert_eq!(store.list("jobs/b/").unwrap()[0].bytes, 2);
        for key in keys("") {
            store.delete(&key).unwrap();
            store.delete(&key).unwrap();
        }
        assert!(!store.root().join("jobs").exists());
        assert_eq!(store.create("jobs/a/s/1/seg", b"again").unwrap(), Creation::Created);
    }

    #[test]
    fn of_racing_creates_exactly_one_wins_and_readers_see_it_whole() {
        let (_folder, store) = store();
        // Separate handles, as separate processes have; deletes take the folder away underneath.
        let handles: Vec<LocalStore> = (0..4).map(|_| LocalStore::open(store.root()).unwrap()).collect();
        for round in 0..100 {
            let key = format!("r/{}/x", round % 3);
            let race = &|n: usize| {
                let handle = &handles[n];
                // A neighbour that comes and goes takes the folder away whenever it can.
                handle.create(&format!("r/{}/y{n}", round % 3), b"").unwrap();
                handle.delete(&format!("r/{}/y{n}", round % 3)).unwrap();
                let creation = handle.create(&key, &vec![n as u8; 5000]).unwrap();
                let read = handle.get(&key).unwrap().unwrap();
                assert!(read.len() == 5000 && read.iter().all(|byte| *byte == read[0]));
                usize::from(creation == Creation::Created)
            };
            let won: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..handles.len()).map(|n| scope.spawn(move || race(n))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(won, 1, "round {round}");
            store.delete(&key).unwrap();
        }
        assert_eq!(temp_files(&store), 0);
    }

    #[test]
    fn folders_that_vanish_are_made_again() {
        let (_folder, store) = store();
        store.create("a/b/c", b"1").unwrap();
        fs::remove_dir_all(store.root().join("a")).unwrap();
        fs::remove_dir_all(store.root().join(TEMP_FOLDER)).unwrap();
        assert_eq!(store.create("a/b/c", b"2").unwrap(), Creation::Created);
        fs::remove_dir_all(store.root().join("a")).unwrap();
        let mut log = store.open_log("a/b/d").unwrap().unwrap();
        log.append(b"x").unwrap();
        assert_eq!(log.seal("a/e/d").unwrap(), Creation::Created);
    }

    #[test]
    fn what_dead_writers_left_is_swept_and_live_writers_are_left_alone() {
        let (_folder, store) = store();
        let dead = store.root().join(TEMP_FOLDER).join("1-1");
        fs::write(&dead, b"half").unwrap();
        let live = TempFile::new(&store.shared).unwrap();
        LocalStore::open(store.root()).unwrap();
        assert!(!dead.exists() && live.path.exists());
    }

    #[test]
    fn a_log_grows_in_place_and_is_renamed_when_sealed() {
        let (_folder, store) = store();
        let mut log = store.open_log("s/1/p.open").unwrap().unwrap();
        log.append(b"one").unwrap();
        assert_eq!(store.get("s/1/p.open").unwrap().unwrap(), b"one");
        assert_eq!(store.open_log("s/1/p.open").err().unwrap().kind(), StoreErrorKind::Exists);
        log.append(b"two").unwrap();
        assert_eq!(log.seal("s/1/p").unwrap(), Creation::Created);
        let keys: Vec<_> = store.list("").unwrap().into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, ["s/1/p"]);
        assert_eq!(store.get("s/1/p").unwrap().unwrap(), b"onetwo");
        let other = store.open_log("s/1/q.open").unwrap().unwrap();
        assert_eq!(other.seal("s/1/p").unwrap(), Creation::Exists);
        assert_eq!(store.get("s/1/q.open").unwrap().unwrap(), b"");
    }

    #[test]
    fn a_rename_to_a_free_name_is_the_same_commit() {
        let (_folder, store) = store();
        let at = |name| store.root().join(name);
        fs::write(at("one"), b"1").unwrap();
        fs::write(at("two"), b"2").unwrap();
        assert_eq!(rename_new(&at("one"), &at("end")).unwrap(), Creation::Created);
        assert_eq!(rename_new(&at("two"), &at("end")).unwrap(), Creation::Exists);
        assert_eq!(fs::read(at("end")).unwrap(), b"1");
    }

    #[test]
    fn a_job_is_held_by_one_at_a_time_and_the_other_learns_by_whom() {
        let (_folder, store) = store();
        let other = LocalStore::open(store.root()).unwrap();
        let job = JobId::new([3; 32]);
        let Locking::Held(lock) = store.try_lock(&job).unwrap() else { panic!() };
        let Locking::Busy(holder) = other.try_lock(&job).unwrap() else { panic!() };
        assert_eq!(holder.pid, Some(std::process::id()));
        assert_eq!(store.list("").unwrap(), []);
        let cancel = CancelToken::new();
        let (waits, waiting) = crossbeam_channel::bounded(1);
        std::thread::scope(|scope| {
            let waiter = scope
                .spawn(|| other.lock_blocking(&job, &cancel, |holder| waits.send(holder.clone()).unwrap()).unwrap());
            assert_eq!(waiting.recv().unwrap(), holder);
            drop(lock);
            let second = waiter.join().unwrap().unwrap();
            let cancelled = CancelToken::new();
            cancelled.cancel();
            assert!(store.lock_blocking(&job, &cancelled, |_| ()).unwrap().is_none());
            drop(second);
        });
        assert!(matches!(store.try_lock(&job).unwrap(), Locking::Held(_)));
    }

    #[test]
    fn errors_say_what_a_caller_can_do() {
        let check = |errno: Errno, expected| {
            let error = store_error(StoreOperation::Create, "k", &errno.into());
            assert_eq!(error.kind(), expected, "{error}");
        };
        check(Errno::NOSPC, StoreErrorKind::DiskFull);
        check(Errno::DQUOT, StoreErrorKind::DiskFull);
        check(Errno::ROFS, StoreErrorKind::Permission);
        check(Errno::ACCESS, StoreErrorKind::Permission);
        check(Errno::STALE, StoreErrorKind::Transient);
        check(Errno::IO, StoreErrorKind::Other);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(LocalStore::open(file.join("work")).is_err());
    }
}
