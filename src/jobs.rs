//! What a work folder holds: every job, how far it is, and what can go.

use crate::error::Error;
use crate::prepare::Plan;
use crate::work_store::{WorkPlace, WorkStore};
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
    /// The number of frames the input is expected to have, once the job is planned.
    pub frames_about: Option<u64>,
}

/// What a prune did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs deleted.
    pub deleted: usize,
    /// Jobs kept: unfinished ones, and those that a process works on.
    pub kept: usize,
}

/// Lists the jobs of a work store; a folder that is not there holds none. Takes a quarter of a minute where processes of
/// other machines seem to work: so long it takes to tell one that works from one that is gone.
///
/// # Errors
/// [`crate::ErrorKind::Storage`] when the store cannot be read.
pub fn list(place: impl Into<WorkPlace>) -> Result<Vec<JobSummary>, Error> {
    let Some(store) = WorkStore::existing(&place.into())? else { return Ok(Vec::new()) };
    store.settle_leases()?;
    Ledger::jobs(&**store.objects())?.into_iter().map(|id| summary(&store, id)).collect()
}

/// Deletes finished jobs, and with `all` unfinished ones; never one that a process works on. Takes as long as [`list`].
///
/// # Errors
/// [`crate::ErrorKind::Storage`] when the store cannot be read or an object not be deleted.
pub fn prune(place: impl Into<WorkPlace>, all: bool) -> Result<Pruned, Error> {
    let Some(store) = WorkStore::existing(&place.into())? else { return Ok(Pruned::default()) };
    store.settle_leases()?;
    let mut pruned = Pruned::default();
    for id in Ledger::jobs(&**store.objects())? {
        let ledger = Ledger::new(store.objects().clone(), id, "prune");
        if !all && ledger.out()?.is_none() {
            pruned.kept += 1;
            continue;
        }
        match store.try_lock(&id)? {
            Some(lock) => {
                forget(&ledger, &store.job_folder(&id))?;
                store.release(&id, lock);
                pruned.deleted += 1;
            }
            None => pruned.kept += 1,
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
/// store therefore holds the leftovers of one job at most. In an object store that takes in those which another machine
/// left behind when it was lost: whoever ran for long enough has seen that their leases stand still. Failing to delete is
/// no failure of the job that finished.
pub(crate) fn collect_others(finished: &Ledger, store: &WorkStore) {
    let collect = |id: JobId| -> Result<(), Error> {
        let ledger = Ledger::new(Arc::clone(finished.store()), id, "collect");
        if id != *finished.job()
            && ledger.out()?.is_some()
            && let Some(lock) = store.try_lock(&id)?
        {
            ledger.collect_garbage()?;
            store.release(&id, lock);
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

fn summary(store: &WorkStore, id: JobId) -> Result<JobSummary, Error> {
    let ledger = Ledger::new(store.objects().clone(), id, "list");
    let request = ledger.request()?.map(|s| s.content::<serde_json::Value>()).transpose()?.unwrap_or_default();
    let text = |key: &str| request[key].as_str().unwrap_or("unknown").to_owned();
    let (finished, frames_about) = match ledger.plan()? {
        // What an older build planned is counted all the same.
        Some(plan) => {
            let about = plan.content::<Plan>().ok().and_then(|plan| plan.source.video.frames_about);
            (ledger.segments(&plan).scan()?.finished, about)
        }
        None => (Default::default(), None),
    };
    let state = match (ledger.out()?, store.is_busy(&id)?) {
        (_, true) => "running",
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
        frames_about,
    })
}
