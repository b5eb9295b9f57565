//! What the store asks of a file system: few operations, so that tests can put one underneath that
//! loses what was not synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use restyle_engine::ledger::Creation;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

/// Operations on files and folders. Every name change is durable only after `sync_folder` of the
/// folder it happened in, every byte only after `sync_data` of its file.
pub(super) trait Files: Send + Sync + 'static {
    /// A file open for writing at its end.
    type Open: Send + 'static;

    /// Makes a folder; one that is there is success.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes changes of names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Removes a folder if it is empty.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;
    /// Starts a file under a name of its own choice in a folder, marked as in use while it is open.
    fn create_temp(&self, folder: &Path) -> io::Result<(Self::Open, PathBuf)>;
    /// Removes files that `create_temp` started and nobody uses.
    fn sweep_temp(&self, folder: &Path) -> io::Result<()>;
    /// Starts a file under a name that must be free.
    fn create_new(&self, path: &Path) -> io::Result<Self::Open>;
    /// Adds bytes at the end.
    fn append(&self, file: &mut Self::Open, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file to so many bytes; the next are added there.
    fn truncate(&self, file: &mut Self::Open, bytes: u64) -> io::Result<()>;
    /// Makes the bytes of a file durable.
    fn sync_data(&self, file: &mut Self::Open) -> io::Result<()>;
    /// Gives a file a further name, or else its only name, if that is free. Never replaces.
    fn give_name(&self, from: &Path, to: &Path) -> io::Result<Creation>;
    /// Removes a name; one that is not there is success.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Reads up to `bytes` bytes from `offset`; `None` where there is no file.
    fn read(&self, path: &Path, offset: u64, bytes: u64) -> io::Result<Option<Vec<u8>>>;
    /// Files and folders in a folder that do not begin with a dot; nothing where there is none.
    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>>;
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listed {
    /// A folder of this name.
    Folder(String),
    /// A file of this name and size.
    File(String, u64),
}

/// The system's files.
#[derive(Debug, Default)]
pub(super) struct SystemFiles {
    temp_files: AtomicU64,
}

impl Files for SystemFiles {
    type Open = File;

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        match File::open(folder)?.sync_all() {
            // What a file system says that cannot sync folders and so has nothing to sync.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(()),
            synced => synced,
        }
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir(folder)
    }

    fn create_temp(&self, folder: &Path) -> io::Result<(File, PathBuf)> {
        loop {
            let number = self.temp_files.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{number}", std::process::id()));
            let file = match OpenOptions::new().append(true).create_new(true).open(&path) {
                // Left by a dead process of the same id, or made by another store on the same folder.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            flock(&file, FlockOperation::LockExclusive)?;
            // A sweep may have taken it between making and locking it.
            if is_at(&file, &path)? {
                return Ok((file, path));
            }
        }
    }

    fn sweep_temp(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(file) = found(File::open(&path))? else { continue };
            if try_flock(&file)? {
                found(fs::remove_file(&path))?;
            }
        }
        Ok(())
    }

    fn create_new(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).create_new(true).open(path)
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn truncate(&self, file: &mut File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn sync_data(&self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn give_name(&self, from: &Path, to: &Path) -> io::Result<Creation> {
        match fs::hard_link(from, to) {
            Ok(()) => Ok(Creation::Created),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Creation::Exists),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => rename_new(from, to),
                _ => Err(error),
            },
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        found(fs::remove_file(path)).map(drop)
    }

    fn read(&self, path: &Path, offset: u64, bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = found(File::open(path))? else { return Ok(None) };
        let left = file.metadata()?.len().saturating_sub(offset).min(bytes);
        let mut range = Vec::with_capacity(usize::try_from(left).unwrap_or(0));
        file.seek(SeekFrom::Start(offset))?;
        file.take(bytes).read_to_end(&mut range)?;
        Ok(Some(range))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in found(fs::read_dir(folder))?.into_iter().flatten() {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(metadata) = found(entry.metadata())? else { continue };
            if name.starts_with('.') {
                continue;
            } else if metadata.is_dir() {
                listed.push(Listed::Folder(name));
            } else if metadata.is_file() {
                listed.push(Listed::File(name, metadata.len()));
            }
        }
        Ok(listed)
    }
}

/// Renames a file to a name that must be free: for file systems without hard links.
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

/// Absence as a value.
pub(super) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Locks an open file for as long as it is open; false where another has it.
pub(super) fn try_flock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether an open file is the one that has this name.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    Ok(found(fs::metadata(path))?.is_some_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_to_a_free_name_is_the_same_commit() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        fs::write(at("one"), b"1").unwrap();
        fs::write(at("two"), b"2").unwrap();
        assert_eq!(rename_new(&at("one"), &at("end")).unwrap(), Creation::Created);
        assert_eq!(rename_new(&at("two"), &at("end")).unwrap(), Creation::Exists);
        assert_eq!(fs::read(at("end")).unwrap(), b"1");
    }

    #[test]
    fn what_dead_writers_left_is_swept_and_live_writers_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dead = folder.path().join("1-1");
        fs::write(&dead, b"half").unwrap();
        let (file, live) = SystemFiles::default().create_temp(folder.path()).unwrap();
        SystemFiles::default().sweep_temp(folder.path()).unwrap();
        assert!(!dead.exists() && live.exists());
        drop(file);
        SystemFiles::default().sweep_temp(folder.path()).unwrap();
        assert!(!live.exists());
    }
}
