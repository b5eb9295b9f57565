//! Where the objects of jobs live: a local folder, or a prefix of an object store with a local folder beside it.
//!
//! The folder beside an object store holds what is no object: files that are staged before they are published, hints, and
//! the lock that processes of one machine share. It may be lost at any time.

use crate::config::{Config, default_work_dir};
use crate::error::{Error, ErrorKind};
use rehearsal::{Times, rehearsed};
use restyle_actors::ActorError;
use restyle_actors::ledger_store::{Claimant, JobLock, Lease, LeaseWatch, LocalStore, Locking, RemoteStore};
use restyle_actors::storage::Location;
use restyle_engine::cancel::CancelToken;
use restyle_engine::clock::SystemClock;
use restyle_engine::item::JobId;
use restyle_engine::ledger::{
    LANES_MAX, ObjectStore, RetryPolicy, RetryStore, Room, StoreError, StoreErrorKind, TimeoutStore,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(crate) mod rehearsal;

/// How long opening a folder may take.
const OPEN_TIME: Duration = Duration::from_secs(60);

/// Where a work store is.
#[derive(Debug, Clone)]
pub struct WorkPlace {
    /// The work store, or the folder beside one in an object store.
    pub folder: PathBuf,
    /// The prefix of an object store.
    pub remote: Option<Location>,
}

impl WorkPlace {
    /// Reads what `--work-dir` says: a folder, a `file:` URL, or a URL of an object store; nothing: the state folder.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] and [`ErrorKind::Configuration`] for what cannot be a work store.
    pub fn parse(said: Option<&Path>) -> Result<Self, Error> {
        let Some(said) = said else { return Ok(default_work_dir()?.into()) };
        let Some(text) = said.to_str() else { return Ok(said.to_owned().into()) };
        match Location::parse(text)? {
            Location::File(folder) => Ok(folder.into()),
            // One folder for every store: job ids differ wherever anything else does.
            remote => Ok(Self { folder: default_work_dir()?.join("remote"), remote: Some(remote) }),
        }
    }
}

impl From<PathBuf> for WorkPlace {
    fn from(folder: PathBuf) -> Self {
        Self { folder, remote: None }
    }
}

impl From<&Path> for WorkPlace {
    fn from(folder: &Path) -> Self {
        folder.to_owned().into()
    }
}

impl From<&PathBuf> for WorkPlace {
    fn from(folder: &PathBuf) -> Self {
        folder.clone().into()
    }
}

impl From<&Config> for WorkPlace {
    fn from(config: &Config) -> Self {
        Self { folder: config.work_dir.clone(), remote: config.work_store.clone() }
    }
}

impl std::fmt::Display for WorkPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.remote {
            Some(remote) => write!(f, "{remote}"),
            None => write!(f, "{}", self.folder.display()),
        }
    }
}

/// A work store that is open.
pub(crate) struct WorkStore {
    folder: Arc<LocalStore>,
    remote: Option<RemoteStore>,
    /// Either of them, with times, attempts and patience around it.
    retrying: RetryStore,
    objects: Arc<dyn ObjectStore>,
    times: Times,
    /// What is known of the leases of other machines.
    leases: Arc<Mutex<Option<LeaseWatch>>>,
}

/// Is told, in words for people, what a store waits for.
pub(crate) type TellWait = dyn Fn(&str) + Send + Sync;

/// A job that no other process works on, as far as this store can tell; until it is dropped.
#[derive(Debug)]
pub(crate) struct WorkLock {
    // Dropped in this order: who gets the folder's lock next must find the lease gone.
    lease: Option<Lease>,
    folder: JobLock,
}

impl WorkLock {
    /// The writer that had the job before and was taken for gone without being known to be: it may live on.
    pub(crate) fn taken_from(&self) -> Option<&str> {
        self.lease.as_ref()?.taken_from()
    }
}

impl WorkStore {
    /// Opens a work store, making its folder where it is missing. Calls end in time, wait for room and are tried again
    /// until `cancel` is cancelled; `tell` is told when there is no room and when there is some again.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the folder cannot be written or the object store does not answer.
    pub(crate) fn open(place: &WorkPlace, cancel: &CancelToken, tell: Arc<TellWait>) -> Result<Self, Error> {
        Self::open_in(rehearsal::times()?, place, cancel, tell)
    }

    /// The same for who answers others meanwhile, and so does not wait for room.
    ///
    /// # Errors
    /// As [`WorkStore::open`].
    #[cfg(feature = "serve")]
    pub(crate) fn open_impatient(place: &WorkPlace) -> Result<Self, Error> {
        let times = Times { room: Duration::ZERO, ..rehearsal::times()? };
        Self::open_in(times, place, &CancelToken::new(), Arc::new(|_| ()))
    }

    fn open_in(times: Times, place: &WorkPlace, cancel: &CancelToken, tell: Arc<TellWait>) -> Result<Self, Error> {
        let path = place.folder.clone();
        let folder = Arc::new(in_time(OPEN_TIME, &path.clone(), move || LocalStore::open(path))??);
        let remote = place.remote.as_ref().map(RemoteStore::open).transpose()?;
        let bare: Arc<dyn ObjectStore> = match &remote {
            None => Arc::new(TimeoutStore::new(rehearsed(folder.clone())?, times.call, LANES_MAX)),
            // Its calls have times of their own, by what they carry.
            Some(remote) => rehearsed(Arc::new(remote.clone()))?,
        };
        let policy = RetryPolicy { room_patience: times.room, ..RetryPolicy::default() };
        let told = move |room| tell(&room_message(room, times.room));
        let retrying = RetryStore::cancellable(bare, policy, u64::from(std::process::id()), cancel.clone());
        let retrying = retrying.telling(Arc::new(told));
        let objects = Arc::new(retrying.clone());
        Ok(Self { folder, remote, retrying, objects, times, leases: Arc::default() })
    }

    /// Takes what `key` stands for in an object store, for as long as the lease is held; a folder needs none.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] naming who holds it, [`ErrorKind::Storage`] when the store fails.
    #[cfg(feature = "serve")]
    pub(crate) fn lease_unless_held(&self, key: &str) -> Result<Option<Lease>, Error> {
        let Some(remote) = &self.remote else { return Ok(None) };
        match remote.lease_unless_held(key, &self.claimant(""), &CancelToken::new())? {
            Ok(lease) => Ok(Some(lease)),
            Err(holder) => Err(Error::new(ErrorKind::Configuration, holder)),
        }
    }

    /// Opens a work store if there is one: a local folder that is missing holds no job.
    ///
    /// # Errors
    /// As [`WorkStore::open`].
    pub(crate) fn existing(place: &WorkPlace) -> Result<Option<Self>, Error> {
        if place.remote.is_none() && !place.folder.exists() {
            return Ok(None);
        }
        Self::open(place, &CancelToken::new(), Arc::new(|_| ())).map(Some)
    }

    /// Runs what writes files beside the objects, waiting for room as the objects' own writes do.
    ///
    /// # Errors
    /// Those of `act`; `DiskFull` once the patience is over or the job is to end.
    pub(crate) fn with_room<T>(&self, act: impl FnMut() -> Result<T, ActorError>) -> Result<T, ActorError> {
        self.retrying.with_room(|error: &ActorError| error.kind() == restyle_actors::ErrorKind::DiskFull, act)
    }

    /// How many times a write waited for room.
    pub(crate) fn full_waits(&self) -> u64 {
        self.retrying.stats().full_waits
    }

    /// Returns the objects.
    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Returns where files of a job lie that are no objects.
    pub(crate) fn job_folder(&self, job: &JobId) -> PathBuf {
        self.folder.root().join("jobs").join(job.to_string())
    }

    /// Takes a job for a writer of objects, waiting for whoever works on it; `tell` is told who, once. `None` when
    /// cancelled first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store fails.
    pub(crate) fn lock_blocking(
        &self,
        job: &JobId,
        writer: &str,
        cancel: &CancelToken,
        tell: impl Fn(&str),
    ) -> Result<Option<WorkLock>, Error> {
        let is_full = |error: &StoreError| error.kind() == StoreErrorKind::DiskFull;
        let take = || self.folder.lock_blocking(job, cancel, |holder| tell(&holder.to_string()));
        let Some(folder) = self.retrying.with_room(is_full, take)? else { return Ok(None) };
        let lease = match &self.remote {
            None => None,
            Some(remote) => match remote.lease_blocking(job, &self.claimant(writer), cancel, &tell)? {
                None => return Ok(None),
                lease => lease,
            },
        };
        Ok(Some(WorkLock { lease, folder }))
    }

    /// Takes a job if nobody works on it, also one that a machine which is gone left behind, as far as was watched.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store fails.
    pub(crate) fn try_lock(&self, job: &JobId) -> Result<Option<WorkLock>, Error> {
        let Locking::Held(folder) = self.folder.try_lock(job)? else { return Ok(None) };
        let lease = match &self.remote {
            None => None,
            Some(remote) => match remote.try_lease(job, &self.claimant(""), self.leases().as_ref())? {
                Ok(lease) => Some(lease),
                Err(_) => {
                    // Its folder was made by the lock; what is left of it is empty.
                    let _ = self.folder.remove_lock(job, folder);
                    return Ok(None);
                }
            },
        };
        Ok(Some(WorkLock { lease, folder }))
    }

    /// Tells whether a process works on a job, as far as was watched.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store fails.
    pub(crate) fn is_busy(&self, job: &JobId) -> Result<bool, Error> {
        let Locking::Held(folder) = self.folder.try_lock(job)? else { return Ok(true) };
        let Some(remote) = &self.remote else { return Ok(false) };
        let leases = self.leases();
        let is_leased = match leases.as_ref() {
            Some(watch) => remote.is_leased(job, &self.claimant(""), watch)?,
            None => true,
        };
        let _ = self.folder.remove_lock(job, folder);
        Ok(is_leased)
    }

    /// Watches the leases of other machines, all at once, until each changed or is known to belong to nobody: not at all
    /// where there are none, else for a quarter of a minute.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store fails.
    pub(crate) fn settle_leases(&self) -> Result<(), Error> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let mut watch = LeaseWatch::begin(remote, &*self.objects, &self.claimant(""), SystemClock::shared())?;
        while !watch.is_settled() {
            CancelToken::new().wait_timeout(watch.pause());
            watch.look(remote)?;
        }
        *self.leases() = Some(watch);
        Ok(())
    }

    /// Notes beside the work how the leases of other machines stand, so that those which stand alike at the job's end are
    /// known to belong to nobody.
    pub(crate) fn watch_leases(&self) {
        let Some(remote) = self.remote.clone() else { return };
        let (objects, claimant, leases) = (Arc::clone(&self.objects), self.claimant(""), Arc::clone(&self.leases));
        let begin = move || match LeaseWatch::begin(&remote, &*objects, &claimant, SystemClock::shared()) {
            Ok(watch) => *leases.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch),
            Err(error) => tracing::debug!(%error, "leases are not watched"),
        };
        // Without it, what other machines left behind is collected by a later run.
        let _ = std::thread::Builder::new().name("restyle-leases".to_owned()).spawn(begin);
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, Option<LeaseWatch>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases a job and removes what its lock leaves in the folder beside an object store; in a local store it stays
    /// as it is.
    pub(crate) fn release(&self, job: &JobId, lock: WorkLock) {
        let WorkLock { lease, folder } = lock;
        drop(lease);
        if self.remote.is_some() {
            // What is left is an empty folder.
            let _ = self.folder.remove_lock(job, folder);
        }
    }

    fn claimant(&self, writer: &str) -> Claimant {
        let read = |path: &str| std::fs::read_to_string(path).map_or_else(|_| String::new(), |t| t.trim().to_owned());
        let root = self.folder.root();
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let host = read("/proc/sys/kernel/hostname");
        Claimant {
            name: format!("process {} on {host}", std::process::id()),
            nonce: format!(
                "{}-{:p}-{}",
                std::process::id(),
                Arc::as_ptr(&self.folder),
                read("/proc/sys/kernel/random/uuid")
            ),
            scratch: format!("{}:{}", read("/proc/sys/kernel/random/boot_id"), folder_id(&root)),
            writer: writer.to_owned(),
            patience: self.times.lease,
        }
    }
}

/// Names a folder of this machine, also from inside of containers that mount it elsewhere.
fn folder_id(folder: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    match std::fs::metadata(folder) {
        Ok(m) => format!("{}:{}", m.dev(), m.ino()),
        Err(_) => folder.display().to_string(),
    }
}

fn room_message(room: Room, patience: Duration) -> String {
    match room {
        Room::Gone => format!(
            "storage_full: no room in the work store; waiting for some, {} s at most: nothing is lost meanwhile",
            patience.as_secs()
        ),
        Room::Back => "there is room in the work store again: the job goes on".to_owned(),
    }
}

/// Runs what may hang, as everything in a network file system may, and stops waiting for it in time.
fn in_time<T: Send + 'static>(
    limit: Duration,
    folder: &Path,
    act: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let refused = |why: String| Error::new(ErrorKind::Storage, format!("work folder {}: {why}", folder.display()));
    let (answer, answered) = crossbeam_channel::bounded(1);
    let work = move || drop(answer.send(act()));
    std::thread::Builder::new()
        .name("restyle-open".to_owned())
        .spawn(work)
        .map_err(|e| refused(format!("no thread to open it on: {e}")))?;
    answered.recv_timeout(limit).map_err(|_| refused(format!("it does not answer within {} s", limit.as_secs())))
}
