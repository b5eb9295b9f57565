//! The job-level ledger: what was asked, how it is done, what came out, and what may then be thrown away.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::Digest;
use super::error::LedgerError;
use super::generation::{GENERATIONS_MAX, Standing, create_verified, read_verified};
use super::keys::{self, ObjectName};
use super::object::Rejection;
use super::plan::Statement;
use super::record::{RecordKind, open_record, seal_record};
use super::segments::SegmentLedger;
use super::store::{Creation, ObjectStore};
use crate::item::{Generation, JobId};

/// An output as it was published, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedOutput {
    /// Where it was put, as text without secrets.
    pub output: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Digest of its content.
    pub blake3: Digest,
    /// How many items it holds.
    pub items: u64,
}

/// What a garbage collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Garbage {
    /// Objects removed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One job in a store. Cheap to clone; every method blocks for as long as the store takes.
///
/// It keeps no state: two ledgers of one job in two processes are as good as one.
#[derive(Clone)]
pub struct Ledger {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) job: JobId,
    pub(super) writer: String,
}

impl Ledger {
    /// A ledger of `job` in `store`. `writer` names this run of this process and must be unique to
    /// it: 1 to 64 letters, digits and underscores.
    ///
    /// # Panics
    /// If `writer` has other characters.
    pub fn new(store: Arc<dyn ObjectStore>, job: JobId, writer: impl Into<String>) -> Self {
        let writer = writer.into();
        assert!(keys::is_writer(&writer), "a writer is named by 1 to 64 letters, digits and underscores");
        Self { store, job, writer }
    }

    /// Every job that has an object in the store, in the order of their ids.
    pub fn jobs(store: &dyn ObjectStore) -> Result<Vec<JobId>, LedgerError> {
        let entries = store.list(keys::JOBS)?;
        let id = |key: &str| key.strip_prefix(keys::JOBS)?.split('/').next()?.parse().ok();
        let mut jobs: Vec<JobId> = entries.iter().filter_map(|entry| id(&entry.key)).collect();
        jobs.dedup();
        Ok(jobs)
    }

    /// The job.
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// The name under which this process writes.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// The store underneath.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Makes sure the job is on record before it is acknowledged. What stands wins over `request`.
    pub fn open_or_create_job<R: Serialize>(&self, request: &R) -> Result<Standing<Statement>, LedgerError> {
        self.state_once(RecordKind::Job, ObjectName::Job, request)
    }

    /// What the job was asked to do; `None` where no valid `job.json` stands.
    pub fn request(&self) -> Result<Option<Statement>, LedgerError> {
        self.read_statement(RecordKind::Job, ObjectName::Job)
    }

    /// Fixes the plan. The plan that stands wins over `plan`, so use what is returned.
    pub fn fix_plan<P: Serialize>(&self, plan: &P) -> Result<Standing<Statement>, LedgerError> {
        self.state_once(RecordKind::Plan, ObjectName::Plan, plan)
    }

    /// The plan; `None` where no valid one stands.
    pub fn plan(&self) -> Result<Option<Statement>, LedgerError> {
        self.read_statement(RecordKind::Plan, ObjectName::Plan)
    }

    /// Fixes what a calibration found. What stands wins over `found`, so use what is returned: whoever works on the job,
    /// now or later, must work with the same.
    pub fn fix_calibration<C: Serialize>(&self, found: &C) -> Result<Standing<Statement>, LedgerError> {
        self.state_once(RecordKind::Calibration, ObjectName::Calibration, found)
    }

    /// The calibration; `None` where no valid one stands.
    pub fn calibration(&self) -> Result<Option<Statement>, LedgerError> {
        self.read_statement(RecordKind::Calibration, ObjectName::Calibration)
    }

    /// The segments made after this plan.
    pub fn segments(&self, plan: &Statement) -> SegmentLedger {
        SegmentLedger::new(self.clone(), plan.digest())
    }

    /// Records that an output is about to be put at its place: whoever then finds these bytes there
    /// and no `out.json` knows that they are this job's and not a stranger's.
    pub fn intend(&self, output: &PublishedOutput) -> Result<(), LedgerError> {
        self.append(RecordKind::Intent, ObjectName::Intent, output)
    }

    /// Every intent on record, oldest first.
    pub fn intents(&self) -> Result<Vec<PublishedOutput>, LedgerError> {
        Ok(self.read_all(RecordKind::Intent, ObjectName::Intent)?.0)
    }

    /// Records the output after it stands at its place. Only then may [`Ledger::collect_garbage`] run.
    pub fn record_out(&self, output: &PublishedOutput) -> Result<(), LedgerError> {
        self.append(RecordKind::Out, ObjectName::Out, output)
    }

    /// The output last recorded; `None` while the job is not done.
    pub fn out(&self) -> Result<Option<PublishedOutput>, LedgerError> {
        Ok(self.read_all(RecordKind::Out, ObjectName::Out)?.0.pop())
    }

    /// Removes everything that only served to make the output: segments, packs, attempts. Job, plan,
    /// intents and output records stay. Calling it again finishes what an earlier call left.
    ///
    /// # Errors
    /// `NotPublished` where no valid output record stands (L18).
    pub fn collect_garbage(&self) -> Result<Garbage, LedgerError> {
        if self.out()?.is_none() {
            return Err(LedgerError::NotPublished(self.job));
        }
        self.remove(&format!("{}s/", keys::job_prefix(&self.job)))
    }

    /// Removes the whole job, its request last, so that a job half forgotten is still known.
    pub fn forget(&self) -> Result<Garbage, LedgerError> {
        let prefix = keys::job_prefix(&self.job);
        let mut garbage = self.remove(&format!("{prefix}s/"))?;
        for name in ["out.json", "publish.json", "calibration.json", "plan.json", ""] {
            let removed = self.remove(&format!("{prefix}{name}"))?;
            garbage.objects += removed.objects;
            garbage.bytes += removed.bytes;
        }
        Ok(garbage)
    }

    pub(super) fn remove(&self, prefix: &str) -> Result<Garbage, LedgerError> {
        let mut garbage = Garbage::default();
        // Highest generation first: what is left of an interrupted removal is still found by name.
        for entry in self.store.list(prefix)?.iter().rev() {
            self.store.delete(&entry.key)?;
            garbage.objects += 1;
            garbage.bytes += entry.bytes;
        }
        Ok(garbage)
    }

    pub(super) fn seal<B: Serialize>(&self, kind: RecordKind, body: &B) -> Result<Vec<u8>, LedgerError> {
        seal_record(kind, &self.job, body).map_err(|error| LedgerError::Body(error.to_string()))
    }

    fn state_once<C: Serialize>(
        &self,
        kind: RecordKind,
        name: impl Fn(Generation) -> ObjectName,
        content: &C,
    ) -> Result<Standing<Statement>, LedgerError> {
        let bytes = self.seal(kind, content)?;
        let verify = |bytes: Vec<u8>| open_record::<Value>(&bytes, kind, &self.job).map(Statement::from);
        let own = verify(bytes.clone()).map_err(|rejection| LedgerError::Body(rejection.to_string()))?;
        create_verified(&*self.store, |generation| name(generation).key(&self.job), &bytes, own, verify)
    }

    fn read_statement(
        &self,
        kind: RecordKind,
        name: impl Fn(Generation) -> ObjectName,
    ) -> Result<Option<Statement>, LedgerError> {
        let verify = |bytes: Vec<u8>| open_record::<Value>(&bytes, kind, &self.job).map(Statement::from);
        let read = read_verified(&*self.store, |generation| name(generation).key(&self.job), verify)?;
        Ok(read.map(|standing| standing.value))
    }

    /// Adds a generation that says `body`, unless the newest valid one says so already.
    fn append<B: Serialize + DeserializeOwned + PartialEq>(
        &self,
        kind: RecordKind,
        name: impl Fn(Generation) -> ObjectName,
        body: &B,
    ) -> Result<(), LedgerError> {
        let bytes = self.seal(kind, body)?;
        loop {
            let (standing, free) = self.read_all::<B>(kind, &name)?;
            if standing.last() == Some(body) {
                return Ok(());
            }
            let key = name(free).key(&self.job);
            if free.0 >= GENERATIONS_MAX {
                let rejection = Rejection::Damaged("every generation is taken".to_owned());
                return Err(LedgerError::Spoiled { key, generations: GENERATIONS_MAX, rejection });
            }
            // On `Exists` another writer was faster; look again at what stands now.
            if self.store.create(&key, &bytes)? == Creation::Created {
                return Ok(());
            }
        }
    }

    /// All valid generations, oldest first, and the first free one.
    fn read_all<B: DeserializeOwned>(
        &self,
        kind: RecordKind,
        name: impl Fn(Generation) -> ObjectName,
    ) -> Result<(Vec<B>, Generation), LedgerError> {
        let mut standing = Vec::new();
        for number in 0..GENERATIONS_MAX {
            match self.store.get(&name(Generation(number)).key(&self.job))? {
                Some(bytes) => standing.extend(open_record::<B>(&bytes, kind, &self.job).ok().map(|r| r.body)),
                None => return Ok((standing, Generation(number))),
            }
        }
        Ok((standing, Generation(GENERATIONS_MAX)))
    }
}
