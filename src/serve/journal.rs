//! The durable list of jobs: create-once objects under `service/` of the work store.
//!
//! `service/jobs/TENANT/ID/accepted` is written before a job is acknowledged; `service/jobs/TENANT/ID/h-N` before anything follows
//! from what happened. Each is one line of blake3 and one of JSON. Nothing is ever changed; the list of jobs is what reading all
//! of them gives.

use super::entry::Key;
use super::error::ServiceError;
use super::ident::{ClientJobId, ObjectKey, RouteName, Tenant};
use super::job::{Accepted, Happening, Record};
use crate::error::ErrorKind;
use crate::work_store::{WorkPlace, WorkStore};
use restyle_actors::ledger_store::Lease;
use restyle_engine::item::JobId;
use restyle_engine::ledger::{Creation, Ledger, ObjectStore};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const PREFIX: &str = "service/jobs/";
/// Marks of forgotten jobs: `service/marks/TENANT/ID`.
const MARKS: &str = "service/marks/";
const ACCEPTED: &str = "accepted";
/// Held by the daemon that works on an object store.
const LEASE: &str = "service/lease";
/// Jobs that are read at once when the list is read.
const READERS: usize = 8;

/// The list of jobs of one work store, held by one process at a time.
pub(super) struct Journal {
    store: Arc<dyn ObjectStore>,
    _lease: Option<Lease>,
    _lock: Option<File>,
}

/// What is left of a job that was forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) route: RouteName,
    pub(super) input: ObjectKey,
    pub(super) output_location: String,
    /// Whether what stands there was made by it.
    pub(super) is_output_ours: bool,
}

/// What accepting a job came to.
#[derive(Debug)]
pub(super) enum Acceptance {
    /// It is on record now.
    New,
    /// The id was taken by this one.
    Taken(Box<Accepted>),
}

impl Journal {
    /// Opens the journal of a work store and takes it for this process; `home` is a local folder that holds the lock.
    ///
    /// In an object store another daemon is told by its lease: this may wait 15 s for one that was killed on another machine.
    ///
    /// # Errors
    /// `Storage` when the store cannot be used, `Conflict` while another daemon works on it.
    pub(super) fn open(place: &WorkPlace, home: &Path) -> Result<Self, ServiceError> {
        let store = WorkStore::open_impatient(place).map_err(failed_to_open)?;
        std::fs::create_dir_all(home)
            .map_err(|e| ServiceError::storage(format!("cannot make the folder {}: {e}", home.display())))?;
        let lock = Self::lock(home, place)?;
        let lease = store.lease_unless_held(LEASE).map_err(|e| match e.kind() {
            ErrorKind::Configuration => in_use(place, &e.to_string()),
            _ => failed_to_open(e),
        })?;
        Ok(Self { store: Arc::clone(store.objects()), _lease: lease, _lock: Some(lock) })
    }

    fn lock(home: &Path, place: &WorkPlace) -> Result<File, ServiceError> {
        let path = home.join("service.lock");
        let failed = |e: std::io::Error| ServiceError::storage(format!("cannot lock {}: {e}", path.display()));
        let lock = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use(place, "another daemon")),
            Err(e) => Err(failed(e.into())),
        }
    }

    #[cfg(test)]
    pub(super) fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, _lease: None, _lock: None }
    }

    /// Returns the objects of the work store.
    pub(super) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Deletes the segments of a job of the pipeline whose output stands; failing to is no failure of the job.
    pub(super) fn collect(&self, job: &str) {
        let Ok(job) = job.parse::<JobId>() else { return };
        let collected = Ledger::new(Arc::clone(&self.store), job, "collect").collect_garbage();
        if let Err(error) = collected {
            tracing::warn!(%job, %error, "the segments of a finished job could not be deleted");
        }
    }

    /// Asks the store anything, to know whether it answers.
    pub(super) fn ask(&self) -> Result<(), ServiceError> {
        Ok(self.store.get("service/ask").map(drop)?)
    }

    /// Reads the whole list; what cannot be read is left out and named in the log.
    pub(super) fn load(&self) -> Result<Vec<Record>, ServiceError> {
        let mut keys: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for entry in self.store.list(PREFIX)? {
            let parts: Vec<&str> = entry.key.split('/').collect();
            if let [_, _, tenant, id, _] = parts[..] {
                keys.entry((tenant.to_owned(), id.to_owned())).or_default().push(entry.key);
            }
        }
        let jobs: Vec<Vec<String>> = keys.into_values().collect();
        let share = jobs.len().div_ceil(READERS).max(1);
        // Side by side: an object store answers each question after a while, and there is one question an object.
        std::thread::scope(|scope| {
            let readers: Vec<_> = jobs.chunks(share).map(|jobs| scope.spawn(|| self.read_all(jobs))).collect();
            let mut records = Vec::with_capacity(jobs.len());
            for reader in readers {
                let read =
                    reader.join().unwrap_or_else(|_| Err(ServiceError::storage("reading the list of jobs panicked")));
                records.extend(read?);
            }
            Ok(records)
        })
    }

    /// Forgets a job. In this order, so that a job half forgotten is none: what is left of it goes when the list is read.
    pub(super) fn forget(&self, (tenant, id): &Key) -> Result<(), ServiceError> {
        let folder = folder(tenant, id);
        self.store.delete(&format!("{folder}{ACCEPTED}"))?;
        for entry in self.store.list(&folder)? {
            self.store.delete(&entry.key)?;
        }
        Ok(())
    }

    /// Puts on record what is left of a job.
    pub(super) fn mark(&self, key: &Key, mark: &Mark) -> Result<(), ServiceError> {
        // Standing there already it is its own, of an attempt at forgetting that was cut short.
        self.store.create(&mark_key(key), &frame(mark)?)?;
        Ok(())
    }

    pub(super) fn unmark(&self, key: &Key) -> Result<(), ServiceError> {
        Ok(self.store.delete(&mark_key(key))?)
    }

    /// Reads every mark.
    pub(super) fn marks(&self) -> Result<BTreeMap<Key, Mark>, ServiceError> {
        let mut marks = BTreeMap::new();
        for entry in self.store.list(MARKS)? {
            let names = entry.key.strip_prefix(MARKS).and_then(|rest| rest.split_once('/'));
            let Some((tenant, id)) = names else { continue };
            if let (Ok(tenant), Ok(id), Some(mark)) =
                (Tenant::parse(tenant), ClientJobId::parse(id), self.get::<Mark>(&entry.key)?)
            {
                marks.insert((tenant, id), mark);
            }
        }
        Ok(marks)
    }

    fn read_all(&self, jobs: &[Vec<String>]) -> Result<Vec<Record>, ServiceError> {
        let mut records = Vec::with_capacity(jobs.len());
        for objects in jobs {
            records.extend(self.read(objects)?);
        }
        Ok(records)
    }

    /// Puts a job on record, durably, unless its id is taken.
    pub(super) fn accept(&self, accepted: &Accepted) -> Result<Acceptance, ServiceError> {
        let key = format!("{}{ACCEPTED}", folder(&accepted.tenant, &accepted.id));
        match self.store.create(&key, &frame(accepted)?)? {
            Creation::Created => Ok(Acceptance::New),
            Creation::Exists => match self.get::<Accepted>(&key)? {
                // Its own first write, whose answer was lost.
                Some(standing) if standing == *accepted => Ok(Acceptance::New),
                Some(standing) => Ok(Acceptance::Taken(Box::new(standing))),
                None => Err(ServiceError::storage(format!("{key} stands there damaged: choose another id"))),
            },
        }
    }

    /// Puts on record what happened to a job, durably.
    pub(super) fn note(&self, record: &Record, happening: &Happening) -> Result<(), ServiceError> {
        let folder = folder(&record.accepted.tenant, &record.accepted.id);
        let bytes = frame(happening)?;
        let mut number = record.happenings;
        loop {
            let key = format!("{folder}h-{number:06}");
            if self.store.create(&key, &bytes)? == Creation::Created || self.store.get(&key)?.as_ref() == Some(&bytes) {
                return Ok(());
            }
            // A damaged one stands there: it is passed over, as reading does.
            if self.get::<Happening>(&key)?.is_some() {
                return Err(ServiceError::conflict(format!("{key} was written by somebody else")));
            }
            number += 1;
        }
    }

    fn read(&self, objects: &[String]) -> Result<Option<Record>, ServiceError> {
        let Some(accepted) = objects.iter().find(|k| k.ends_with("/accepted")) else {
            objects.iter().try_for_each(|key| self.store.delete(key))?;
            return Ok(None);
        };
        let Some(accepted) = self.get::<Accepted>(accepted)? else {
            tracing::warn!(key = %accepted, "a job on record is damaged and left out");
            return Ok(None);
        };
        let mut record = Record::new(accepted);
        // Keys are listed in order, and numbers are padded.
        for key in objects.iter().filter(|k| k.rsplit('/').next().is_some_and(|n| n.starts_with("h-"))) {
            match self.get::<Happening>(key)? {
                Some(happening) if record.apply(&happening) => {}
                _ => {
                    tracing::warn!(%key, "what is on record here is damaged or impossible and passed over");
                    record.happenings += 1;
                }
            }
        }
        Ok(Some(record))
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ServiceError> {
        Ok(self.store.get(key)?.and_then(|bytes| unframe(&bytes)))
    }
}

fn failed_to_open(error: crate::error::Error) -> ServiceError {
    ServiceError::storage(format!("the work store cannot be opened: {error}"))
}

fn in_use(place: &WorkPlace, holder: &str) -> ServiceError {
    let message = format!("{holder} works on {place}: stop it, or give this one a work store of its own");
    ServiceError::conflict(message)
}

fn mark_key((tenant, id): &Key) -> String {
    format!("{MARKS}{tenant}/{id}")
}

fn folder(tenant: &Tenant, id: &ClientJobId) -> String {
    format!("{PREFIX}{tenant}/{id}/")
}

fn frame(value: &impl Serialize) -> Result<Vec<u8>, ServiceError> {
    let json = serde_json::to_vec(value).map_err(|e| ServiceError::storage(format!("cannot write a record: {e}")))?;
    Ok([blake3::hash(&json).to_hex().as_bytes(), b"\n", &json, b"\n"].concat())
}

fn unframe<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (digest, rest) = bytes.split_at_checked(64)?;
    let json = rest.strip_prefix(b"\n")?.strip_suffix(b"\n")?;
    (blake3::hash(json).to_hex().as_bytes() == digest).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::serve::job::{JobRequest, JobState, OptionsRequest, Transition};
    use restyle_engine::ledger::MemoryStore;

    pub(in crate::serve) fn accepted(tenant: &str, route: &str, id: &str) -> Accepted {
        let input = ObjectKey::parse("a.mp4").unwrap();
        Accepted {
            id: ClientJobId::parse(id).unwrap(),
            tenant: Tenant::parse(tenant).unwrap(),
            route: RouteName::parse(route).unwrap(),
            request: JobRequest {
                route: None,
                input: input.clone(),
                style: None,
                output: None,
                priority: None,
                options: OptionsRequest::default(),
            },
            input: input.clone(),
            input_location: "/in/a.mp4".into(),
            output: input,
            output_location: "/out/a.mp4".into(),
            style: "starry-night".into(),
            style_location: "starry-night".into(),
            blended: 0,
            priority: 0,
            options: OptionsRequest::default(),
            bytes: 1,
            frames: None,
            created_at: "2026-01-01T00:00:00.000Z".into(),
            version: "1".into(),
            is_watched: false,
            refused: None,
        }
    }

    fn happening(what: Transition) -> Happening {
        Happening { at: "2026-01-01T00:00:01.000Z".into(), what }
    }

    #[test]
    fn the_list_is_what_was_written() {
        let store = Arc::new(MemoryStore::new());
        let journal = Journal::over(store.clone());
        let first = accepted("t", "r", "one");
        assert!(matches!(journal.accept(&first).unwrap(), Acceptance::New));
        let mut record = Record::new(first.clone());
        for what in [Transition::Started, Transition::Interrupted { used: Default::default() }, Transition::Started] {
            let happening = happening(what);
            journal.note(&record, &happening).unwrap();
            assert!(record.apply(&happening));
        }
        let loaded = Journal::over(store).load().unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!((loaded[0].state, loaded[0].attempts, loaded[0].happenings), (JobState::Running, 2, 3));
        assert_eq!(loaded[0].accepted, first);
    }

    #[test]
    fn an_id_is_given_once() {
        let journal = Journal::over(Arc::new(MemoryStore::new()));
        let first = accepted("t", "r", "one");
        journal.accept(&first).unwrap();
        assert!(matches!(journal.accept(&first).unwrap(), Acceptance::New));
        let other = Accepted { priority: 5, ..first.clone() };
        assert!(matches!(journal.accept(&other).unwrap(), Acceptance::Taken(standing) if *standing == first));
    }

    #[test]
    fn what_is_forgotten_leaves_a_mark() {
        let store = Arc::new(MemoryStore::new());
        let journal = Journal::over(store.clone());
        let first = accepted("t", "r", "one");
        journal.accept(&first).unwrap();
        journal.note(&Record::new(first.clone()), &happening(Transition::Started)).unwrap();
        let key = (first.tenant.clone(), first.id.clone());
        let mark = Mark {
            route: first.route.clone(),
            input: first.input.clone(),
            output_location: first.output_location.clone(),
            is_output_ours: true,
        };
        journal.mark(&key, &mark).unwrap();
        journal.mark(&key, &mark).unwrap();
        // Killed in the middle: what happened is there and the job is not.
        store.delete("service/jobs/t/one/accepted").unwrap();
        assert!(journal.load().unwrap().is_empty() && store.list("service/jobs/").unwrap().is_empty());
        assert_eq!(journal.marks().unwrap(), BTreeMap::from([(key.clone(), mark)]));
        journal.forget(&key).unwrap();
        assert!(matches!(journal.accept(&first).unwrap(), Acceptance::New), "the id is free again");
        journal.unmark(&key).unwrap();
        assert!(journal.marks().unwrap().is_empty());
    }

    #[test]
    fn damage_is_passed_over() {
        let store = Arc::new(MemoryStore::new());
        let journal = Journal::over(store.clone());
        let first = accepted("t", "r", "one");
        journal.accept(&first).unwrap();
        store.overwrite("service/jobs/t/one/h-000000", b"garbage".to_vec());
        store.overwrite("service/jobs/t/two/accepted", b"garbage".to_vec());
        let record = journal.load().unwrap().pop().unwrap();
        assert_eq!((record.state, record.happenings), (JobState::Queued, 1));
        journal.note(&record, &happening(Transition::Started)).unwrap();
        assert_eq!(journal.load().unwrap()[0].state, JobState::Running);
    }
}
