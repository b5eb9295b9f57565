//! One process at a time on a job: a lock that death releases.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use restyle_engine::ledger::{StoreError, StoreErrorKind, StoreOperation, keys};
use restyle_engine::{CancelToken, JobId};

use super::files::{is_at, try_flock};
use super::{FOLDER_ATTEMPTS_MAX, LocalStore, store_error};

const LOCK_FILE: &str = ".lock";
/// How often a waiting process looks whether a job was released.
const LOCK_POLL: Duration = Duration::from_millis(100);

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

impl LocalStore {
    /// Takes the job for this process if no other has it. The lock ends with the value, or with the
    /// process however it dies.
    pub fn try_lock(&self, job: &JobId) -> Result<Locking, StoreError> {
        let folder = self.path(&keys::job_prefix(job));
        let path = folder.join(LOCK_FILE);
        let name = path.display().to_string();
        let fault = |error: io::Error| store_error(StoreOperation::Open, &name, &error);
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
        let message = "it is taken away again and again by another process";
        Err(StoreError::new(StoreOperation::Open, StoreErrorKind::Transient, name, message))
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

    /// Removes what a forgotten job leaves: its lock file, which must be held, and its folder.
    pub fn remove_lock(&self, job: &JobId, lock: JobLock) -> Result<(), StoreError> {
        let folder = self.path(&keys::job_prefix(job));
        let path: &Path = &folder.join(LOCK_FILE);
        let removed = std::fs::remove_file(path);
        drop(lock);
        self.remove_empty_folders(path);
        removed.map_err(|error| store_error(StoreOperation::Delete, &path.display().to_string(), &error))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use restyle_engine::ledger::ObjectStore;

    #[test]
    fn a_job_is_held_by_one_at_a_time_and_the_other_learns_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let other = LocalStore::open(folder.path()).unwrap();
        let job = JobId::new([3; 32]);
        let Locking::Held(lock) = store.try_lock(&job).unwrap() else { panic!("nobody else is here") };
        let Locking::Busy(holder) = other.try_lock(&job).unwrap() else { panic!("it is held") };
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
        let Locking::Held(lock) = store.try_lock(&job).unwrap() else { panic!("it was released") };
        store.remove_lock(&job, lock).unwrap();
        assert!(!folder.path().join("jobs").exists());
        assert!(matches!(store.try_lock(&job).unwrap(), Locking::Held(_)));
    }
}
