//! Where the objects of jobs live: a local folder, or a prefix of an object store with a local folder beside it.
//!
//! The folder beside an object store holds what is no object: files that are staged before they are published, hints, and
//! the lock that processes of one machine share. It may be lost at any time.

use crate::config::{Config, default_work_dir};
use crate::error::{Error, ErrorKind};
use restyle_actors::ledger_store::{Claimant, JobLock, Lease, LocalStore, Locking, RemoteStore};
use restyle_actors::storage::Location;
use restyle_engine::cancel::CancelToken;
use restyle_engine::item::JobId;
use restyle_engine::ledger::{ObjectStore, RetryPolicy, RetryStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    objects: Arc<dyn ObjectStore>,
}

/// A job that no other process works on, as far as this store can tell; until it is dropped.
#[derive(Debug)]
pub(crate) struct WorkLock {
    // Dropped in this order: who gets the folder's lock next must find the lease gone.
    _lease: Option<Lease>,
    folder: JobLock,
}

impl WorkStore {
    /// Opens a work store, making its folder where it is missing. Calls wait and try again until `cancel` is cancelled.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the folder cannot be written or the object store does not answer.
    pub(crate) fn open(place: &WorkPlace, cancel: &CancelToken) -> Result<Self, Error> {
        let folder = Arc::new(LocalStore::open(&place.folder)?);
        let remote = place.remote.as_ref().map(RemoteStore::open).transpose()?;
        let objects: Arc<dyn ObjectStore> = match &remote {
            None => folder.clone(),
            Some(remote) => {
                let seed = u64::from(std::process::id());
                let inner = rehearsed(Arc::new(remote.clone()))?;
                Arc::new(RetryStore::cancellable(inner, RetryPolicy::default(), seed, cancel.clone()))
            }
        };
        Ok(Self { folder, remote, objects })
    }

    /// Takes what `key` stands for in an object store, for as long as the lease is held; a folder needs none.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] naming who holds it, [`ErrorKind::Storage`] when the store fails.
    #[cfg(feature = "serve")]
    pub(crate) fn lease_unless_held(&self, key: &str) -> Result<Option<Lease>, Error> {
        let Some(remote) = &self.remote else { return Ok(None) };
        match remote.lease_unless_held(key, &self.claimant(), &CancelToken::new())? {
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
        Self::open(place, &CancelToken::new()).map(Some)
    }

    /// Returns the objects.
    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Returns where files of a job lie that are no objects.
    pub(crate) fn job_folder(&self, job: &JobId) -> PathBuf {
        self.folder.root().join("jobs").join(job.to_string())
    }

    /// Takes a job, waiting for whoever works on it; `tell` is told who, once. `None` when cancelled first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store fails.
    pub(crate) fn lock_blocking(
        &self,
        job: &JobId,
        cancel: &CancelToken,
        tell: impl Fn(&str),
    ) -> Result<Option<WorkLock>, Error> {
        let Some(folder) = self.folder.lock_blocking(job, cancel, |holder| tell(&holder.to_string()))? else {
            return Ok(None);
        };
        let lease = match &self.remote {
            None => None,
            Some(remote) => match remote.lease_blocking(job, &self.claimant(), cancel, &tell)? {
                None => return Ok(None),
                lease => lease,
            },
        };
        Ok(Some(WorkLock { _lease: lease, folder }))
    }

    /// Takes a job if nobody works on it.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store fails.
    pub(crate) fn try_lock(&self, job: &JobId) -> Result<Option<WorkLock>, Error> {
        let Locking::Held(folder) = self.folder.try_lock(job)? else { return Ok(None) };
        let lease = match &self.remote {
            None => None,
            Some(remote) => match remote.try_lease(job, &self.claimant())? {
                Ok(lease) => Some(lease),
                Err(_) => return Ok(None),
            },
        };
        Ok(Some(WorkLock { _lease: lease, folder }))
    }

    /// Releases a job and removes what its lock leaves in the folder beside an object store; in a local store it stays
    /// as it is.
    pub(crate) fn release(&self, job: &JobId, lock: WorkLock) {
        let WorkLock { _lease: lease, folder } = lock;
        drop(lease);
        if self.remote.is_some() {
            // What is left is an empty folder.
            let _ = self.folder.remove_lock(job, folder);
        }
    }

    fn claimant(&self) -> Claimant {
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

/// Puts the script of `RESTYLE_STORE_FAULTS` between this process and an object store, in builds that rehearse faults.
#[cfg(feature = "faults")]
fn rehearsed(store: Arc<dyn ObjectStore>) -> Result<Arc<dyn ObjectStore>, Error> {
    let Ok(script) = std::env::var("RESTYLE_STORE_FAULTS") else { return Ok(store) };
    let faulty = restyle_engine::ledger::faulty::FaultyStore::new(store, &script, 1)
        .map_err(|e| Error::new(ErrorKind::Usage, format!("RESTYLE_STORE_FAULTS: {e}")))?;
    Ok(Arc::new(faulty))
}

#[cfg(not(feature = "faults"))]
fn rehearsed(store: Arc<dyn ObjectStore>) -> Result<Arc<dyn ObjectStore>, Error> {
    if std::env::var_os("RESTYLE_STORE_FAULTS").is_some() {
        let message =
            "RESTYLE_STORE_FAULTS is set, but this build rehearses no faults: build it with --features faults";
        return Err(Error::new(ErrorKind::Usage, message));
    }
    Ok(store)
}
