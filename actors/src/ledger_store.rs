//! The ledger's objects as files in a local folder; in an object store with [`RemoteStore`].
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

mod files;
mod lease;
mod lock;
mod remote;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use restyle_engine::fault;
use restyle_engine::ledger::store::{check_key, check_prefix, log_exists};
use restyle_engine::ledger::{
    Creation, ObjectEntry, ObjectLog, ObjectStore, StoreError, StoreErrorKind, StoreOperation,
};
use rustix::io::Errno;

use files::{Files, Listed, SystemFiles};
pub use lease::{Claimant, LEASE_PATIENCE, Lease, LeaseWatch};
pub use lock::{Holder, JobLock, Locking};
pub use remote::RemoteStore;

const TEMP_FOLDER: &str = ".tmp";
/// How often a folder that vanishes between making it and using it is made again.
const FOLDER_ATTEMPTS_MAX: u32 = 8;

/// A folder of objects. Cheap to clone; calls block on the disk.
///
/// Several processes may use one folder at once.
#[derive(Debug, Clone)]
pub struct LocalStore {
    folder: FolderStore<SystemFiles>,
}

impl LocalStore {
    /// Opens a folder, making it where it is missing, and removes what writers that died left
    /// without a name.
    ///
    /// # Errors
    /// `Permission` for a folder that cannot be written, `DiskFull`, or what else the system says.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let name = root.display().to_string();
        let open = || {
            std::fs::create_dir_all(&root)?;
            if let Some(above) = root.parent().filter(|above| !above.as_os_str().is_empty()) {
                SystemFiles::default().sync_folder(above)?;
            }
            FolderStore::open(root, SystemFiles::default())
        };
        let folder = open().map_err(|error| store_error(StoreOperation::Open, &name, &error))?;
        Ok(Self { folder })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.folder.shared.root
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.path(key)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.folder.make_folder(folder)
    }

    fn forget_folder(&self, folder: &Path) {
        self.folder.forget_folder(folder);
    }

    fn remove_empty_folders(&self, path: &Path) {
        self.folder.remove_empty_folders(path);
    }
}

impl ObjectStore for LocalStore {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        self.folder.create(key, bytes)
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.folder.get(key)
    }
    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        self.folder.get_range(key, offset, bytes)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        self.folder.list(prefix)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.folder.delete(key)
    }
    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        self.folder.open_log(key)
    }
}

/// The same over any [`Files`].
struct FolderStore<F> {
    shared: Arc<Shared<F>>,
}

struct Shared<F> {
    files: F,
    root: PathBuf,
    /// Folders whose own entry is known to be durable. A hint that saves syncs.
    durable: Mutex<HashSet<PathBuf>>,
}

impl<F: Files> FolderStore<F> {
    /// Opens a folder that is there.
    fn open(root: PathBuf, files: F) -> io::Result<Self> {
        let temp = root.join(TEMP_FOLDER);
        files.make_folder(&temp)?;
        files.sync_folder(&root)?;
        files.sweep_temp(&temp)?;
        Ok(Self { shared: Arc::new(Shared { files, root, durable: Mutex::default() }) })
    }

    fn path(&self, key: &str) -> PathBuf {
        self.shared.root.join(key)
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of an object, always below or at the root.
    fn folder_of<'a>(&'a self, path: &'a Path) -> &'a Path {
        path.parent().unwrap_or(&self.shared.root)
    }

    /// Makes a folder below the root and every folder above it, durably.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let mut durable = self.durable();
        let above = folder.ancestors().take_while(|above| *above != self.shared.root);
        let missing: Vec<&Path> = above.take_while(|above| !durable.contains(*above)).collect();
        for folder in missing.into_iter().rev() {
            self.shared.files.make_folder(folder)?;
            self.shared.files.sync_folder(self.folder_of(folder))?;
            durable.insert(folder.to_owned());
        }
        Ok(())
    }

    fn forget_folder(&self, folder: &Path) {
        self.durable().retain(|known| !known.starts_with(folder) && !folder.starts_with(known));
    }

    /// Runs `act` in the folder of `path`, making the folder as often as another process takes it away.
    fn in_folder<T>(&self, path: &Path, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let folder = self.folder_of(path);
        for _ in 0..FOLDER_ATTEMPTS_MAX {
            match self.make_folder(folder).and_then(|()| act()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.forget_folder(folder),
                done => return done,
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "its folder is taken away again and again"))
    }

    /// Removes the folders above a removed object that are empty now.
    fn remove_empty_folders(&self, path: &Path) {
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.shared.root) {
            // Fails where something is left in it, which ends the climb.
            if self.shared.files.remove_folder(folder).is_err() {
                break;
            }
            self.forget_folder(folder);
        }
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<Creation> {
        let files = &self.shared.files;
        let temp_folder = self.shared.root.join(TEMP_FOLDER);
        let (mut file, temp) = match files.create_temp(&temp_folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                files.make_folder(&temp_folder)?;
                files.create_temp(&temp_folder)?
            }
            created => created?,
        };
        let mut write = || {
            files.append(&mut file, bytes)?;
            fault::point("store:written");
            files.sync_data(&mut file)?;
            fault::point("store:synced");
            let creation = self.in_folder(path, || files.give_name(&temp, path))?;
            fault::point("store:named");
            files.sync_folder(self.folder_of(path))?;
            Ok(creation)
        };
        let written = write();
        // What cannot be removed now is swept when the store is opened again.
        let _ = files.remove(&temp);
        written
    }

    fn walk(&self, folder: &str, prefix: &str, entries: &mut Vec<ObjectEntry>) -> io::Result<()> {
        let key = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        for listed in self.shared.files.list(&self.path(folder))? {
            match listed {
                Listed::Folder(name) => {
                    let key = key(&name);
                    if key.starts_with(prefix) || prefix.starts_with(&key) {
                        self.walk(&key, prefix, entries)?;
                    }
                }
                Listed::File(name, bytes) => {
                    let key = key(&name);
                    if key.starts_with(prefix) {
                        entries.push(ObjectEntry { key, bytes });
                    }
                }
            }
        }
        Ok(())
    }
}

impl<F: Files> ObjectStore for FolderStore<F> {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        check_key(key, StoreOperation::Create)?;
        self.write_new(&self.path(key), bytes).map_err(|error| store_error(StoreOperation::Create, key, &error))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key, StoreOperation::Get)?;
        let read = self.shared.files.read(&self.path(key), 0, u64::MAX);
        read.map_err(|error| store_error(StoreOperation::Get, key, &error))
    }

    fn get_range(&self, key: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key, StoreOperation::Get)?;
        let read = self.shared.files.read(&self.path(key), offset, bytes as u64);
        read.map_err(|error| store_error(StoreOperation::Get, key, &error))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        check_prefix(prefix)?;
        let folder = prefix.rfind('/').map_or("", |end| &prefix[..end]);
        let mut entries = Vec::new();
        self.walk(folder, prefix, &mut entries).map_err(|error| store_error(StoreOperation::List, prefix, &error))?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, StoreOperation::Delete)?;
        let path = self.path(key);
        self.shared.files.remove(&path).map_err(|error| store_error(StoreOperation::Delete, key, &error))?;
        self.remove_empty_folders(&path);
        Ok(())
    }

    fn open_log(&self, key: &str) -> Result<Option<Box<dyn ObjectLog>>, StoreError> {
        check_key(key, StoreOperation::Append)?;
        let path = self.path(key);
        let open = || -> io::Result<F::Open> {
            let file = self.in_folder(&path, || self.shared.files.create_new(&path))?;
            self.shared.files.sync_folder(self.folder_of(&path))?;
            Ok(file)
        };
        match open() {
            Ok(file) => {
                Ok(Some(Box::new(FolderLog { store: self.clone(), file, bytes: 0, path, key: key.to_owned() })))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(log_exists(key)),
            Err(error) => Err(store_error(StoreOperation::Append, key, &error)),
        }
    }
}

/// A file that grows at its end.
struct FolderLog<F: Files> {
    store: FolderStore<F>,
    file: F::Open,
    bytes: u64,
    path: PathBuf,
    key: String,
}

impl<F: Files> FolderLog<F> {
    fn error(&self, error: &io::Error) -> StoreError {
        store_error(StoreOperation::Append, &self.key, error)
    }
}

impl<F: Files> ObjectLog for FolderLog<F> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let files = &self.store.shared.files;
        let Err(error) = files.append(&mut self.file, bytes) else {
            self.bytes += bytes.len() as u64;
            return Ok(());
        };
        let failed = self.error(&error);
        if failed.kind() != StoreErrorKind::DiskFull {
            return Err(failed);
        }
        // Part of it may have had room. Without it the log is as it was, and the same bytes can be added later.
        match files.truncate(&mut self.file, self.bytes) {
            Ok(()) => Err(failed),
            Err(error) => {
                Err(StoreError::new(StoreOperation::Append, StoreErrorKind::Other, &self.key, error.to_string()))
            }
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let synced = self.store.shared.files.sync_data(&mut self.file);
        synced.map_err(|error| self.error(&error))
    }

    fn seal(mut self: Box<Self>, key: &str) -> Result<Creation, StoreError> {
        check_key(key, StoreOperation::Append)?;
        self.sync()?;
        let (store, sealed) = (&self.store, self.store.path(key));
        let rename = || {
            let creation = store.in_folder(&sealed, || store.shared.files.give_name(&self.path, &sealed))?;
            store.shared.files.sync_folder(store.folder_of(&sealed))?;
            // The open name goes last: until the sealed one is durable it is the only one that is.
            if creation == Creation::Created {
                store.shared.files.remove(&self.path)?;
            }
            Ok(creation)
        };
        rename().map_err(|error| self.error(&error))
    }
}

impl<F> Clone for FolderStore<F> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<F> fmt::Debug for FolderStore<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("FolderStore").field(&self.shared.root).finish()
    }
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
mod crash_tests;
#[cfg(test)]
mod tests;
