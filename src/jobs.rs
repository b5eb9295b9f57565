//! What a work folder holds: every job, how far it is, and what can go.

use crate::error::Error;
use restyle_actors::ledger_store::{LocalStore, Locking};
use restyle_engine::clock::Clock;
use restyle_engine::item::JobId;
use restyle_engine::ledger::Ledger;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// One job of a work folder.
#[derive(Debug, Clone, Serialize)]
pub struct JobSummary {
    /// The job's id.
    pub job: String,
    /// `finished`, `running` or `unfinished`.
    pub state: &'static str,
    /// The input as it was named.
    pub input: String,
    /// The output.
    pub output: String,
    /// Segments that stand in the work store.
    pub segments: usize,
    /// Frames that they hold.
    pub frames: u64,
}

/// What a prune did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs deleted.
    pub deleted: usize,
    /// Jobs kept: unfinished ones, and those that a process works on.
    pub kept: usize,
}

/// Lists the jobs of a work folder; a folder that is not there holds none.
///
/// # Errors
/// [`crate::ErrorKind::Storage`] when the folder cannot be read.
pub fn list(work_dir: &Path) -> Result<Vec<JobSummary>, Error> {
    let Some(store) = existing(work_dir)? else { return Ok(Vec::new()) };
    Ledger::jobs(&*store)?.into_iter().map(|id| summary(&store, id)).collect()
}

/// Deletes finished jobs, and with `all` unfinished ones; never one that a process works on.
///
/// # Errors
/// [`crate::ErrorKind::Storage`] when the folder cannot be read or an object not be deleted.
pub fn prune(work_dir: &Path, all: bool) -> Result<Pruned, Error> {
    let Some(store) = existing(work_dir)? else { return Ok(Pruned::default()) };
    let mut pruned = Pruned::default();
    for id in Ledger::jobs(&*store)? {
        let ledger = Ledger::new(store.clone(), id, "prune");
        let lock = store.try_lock(&id)?;
        if matches!(lock, Locking::Held(_)) && (all || ledger.out()?.is_some()) {
            forget(&ledger, &store.root().join("jobs").join(id.to_string()))?;
            pruned.deleted += 1;
        } else {
            pruned.kept += 1;
        }
    }
    Ok(pruned)
}

/// Deletes everything of a job: its objects, and the files beside them that are no objects.
pub(crate) fn forget(ledger: &Ledger, folder: &Path) -> Result<(), Error> {
    ledger.forget()?;
    for file in ["staged", "scored.log"] {
        // What cannot be removed costs space and nothing else; the store itself was written to just now.
        let _ = std::fs::remove_file(folder.join(file));
    }
    Ok(())
}

/// Deletes the segments of every other finished job of the store.
///
/// The segments of the job that finished last are kept, so that a lost output can be published again without scoring; the
/// store therefore holds the leftovers of one job at most. Failing to delete is no failure of the job that finished.
pub(crate) fn collect_others(finished: &Ledger, store: &LocalStore) {
    let collect = |id: JobId| -> Result<(), Error> {
        let ledger = Ledger::new(Arc::clone(finished.store()), id, "collect");
        if id != *finished.job() && ledger.out()?.is_some() && matches!(store.try_lock(&id)?, Locking::Held(_)) {
            ledger.collect_garbage()?;
        }
        Ok(())
    };
    for id in Ledger::jobs(&**finished.store()).unwrap_or_default() {
        if let Err(error) = collect(id) {
            tracing::warn!(job = %id, %error, "the segments of a finished job could not be deleted");
        }
    }
}

/// Names this process as a writer of objects, differently each time it starts.
pub(crate) fn writer_name(clock: &dyn Clock) -> String {
    format!("p{}_{:x}", std::process::id(), clock.unix().as_nanos())
}

fn existing(work_dir: &Path) -> Result<Option<Arc<LocalStore>>, Error> {
    if !work_dir.exists() {
        return Ok(None);
    }
    Ok(Some(Arc::new(LocalStore::open(work_dir)?)))
}

fn summary(store: &Arc<LocalStore>, id: JobId) -> Result<JobSummary, Error> {
    let ledger = Ledger::new(store.clone(), id, "list");
    let request = ledger.request()?.map(|s| s.content::<serde_json::Value>()).transpose()?.unwrap_or_default();
    let text = |key: &str| request[key].as_str().unwrap_or("unknown").to_owned();
    let finished = match ledger.plan()? {
        Some(plan) => ledger.segments(&plan).scan()?.finished,
        None => Default::default(),
    };
    let state = match (ledger.out()?, store.try_lock(&id)?) {
        (_, Locking::Busy(_)) => "running",
        (Some(_), _) => "finished",
        (None, _) => "unfinished",
    };
    Ok(JobSummary {
        job: id.to_string(),
        state,
        input: text("input"),
        output: text("output"),
        segments: finished.len(),
        frames: finished.values().map(|h| u64::from(h.items)).sum(),
    })
}
