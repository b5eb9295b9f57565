//! Forgets jobs that ended long ago, or that are more than are kept.
//!
//! What is left of a forgotten job is a mark: its upload is not taken a second time, and a newer upload may replace its output.

use super::entry::Entry;
use super::error::ServiceError;
use super::job::JobState;
use super::journal::Mark;
use super::service::{Inner, lock};
use super::time;
use restyle_engine::item::JobId;
use restyle_engine::ledger::Ledger;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often is looked for jobs to forget.
const LOOK: Duration = Duration::from_secs(60);
/// Marks beyond which those go whose upload is gone.
const MARKS_MAX: usize = 100_000;

/// Starts the thread that forgets.
///
/// # Errors
/// `Storage` when no thread can be had.
pub(super) fn start(inner: &Arc<Inner>) -> Result<(), ServiceError> {
    let keeper = Arc::clone(inner);
    let run = move || {
        while !keeper.ended.load(Ordering::SeqCst) {
            forget_old(&keeper);
            let keep = keeper.config().keep_jobs.unwrap_or(LOOK);
            keeper.forgetting.wait(keep.clamp(Duration::from_secs(1), LOOK));
        }
    };
    let spawned = std::thread::Builder::new().name("restyle-keep".into()).spawn(run);
    spawned.map(drop).map_err(|e| ServiceError::storage(format!("cannot start a thread that forgets jobs: {e}")))
}

/// Forgets what is older or more than is kept; stops when the service ends.
fn forget_old(inner: &Inner) {
    let config = inner.config();
    let mut ended: Vec<(String, Arc<Entry>)> = Vec::new();
    for entry in inner.entries() {
        let at = {
            let record = &entry.lock().record;
            record.ended_at.clone().filter(|_| record.state.is_ended())
        };
        ended.extend(at.map(|at| (at, entry)));
    }
    ended.sort_by(|a, b| a.0.cmp(&b.0));
    // Moments of one format compare as text.
    let oldest = config.keep_jobs.and_then(|keep| inner.clock.unix().checked_sub(keep)).map(time::rfc3339);
    let too_many = ended.len().saturating_sub(config.keep_jobs_max);
    for (k, (at, entry)) in ended.iter().enumerate() {
        if (k >= too_many && oldest.as_ref().is_none_or(|oldest| at >= oldest)) || inner.ended.load(Ordering::SeqCst) {
            break;
        }
        if let Err(error) = inner.forget(entry) {
            tracing::warn!(job = %entry.key.1, %error, "a job that ended long ago could not be forgotten");
            break;
        }
    }
}

impl Inner {
    /// Forgets a job that has ended: its record, its log here, and what the pipeline keeps of it.
    fn forget(&self, entry: &Entry) -> Result<(), ServiceError> {
        let _one = lock(&entry.recording);
        let (accepted, done, state) = {
            let state = entry.lock();
            (state.record.accepted.clone(), state.record.done.clone(), state.record.state)
        };
        // Somebody may have retried it meanwhile.
        if !state.is_ended() {
            return Ok(());
        }
        let mark = Mark {
            route: accepted.route,
            input: accepted.input,
            output_location: accepted.output_location,
            is_output_ours: done.is_some(),
        };
        self.journal.mark(&entry.key, &mark)?;
        lock(&self.marks).insert(entry.key.clone(), mark);
        self.journal.forget(&entry.key)?;
        self.drop_entry(entry);
        entry.events.forget();
        let job = done.and_then(|done| done.job.parse::<JobId>().ok());
        if let Some(job) = job.filter(|job| !self.is_job_of_others(&job.to_string())) {
            Ledger::new(Arc::clone(self.journal.objects()), job, "forget")
                .forget()
                .map_err(|e| ServiceError::storage(e.to_string()))?;
        }
        tracing::info!(tenant = %entry.key.0, job = %entry.key.1, "a job that ended long ago was forgotten");
        Ok(())
    }

    fn is_job_of_others(&self, job: &str) -> bool {
        self.entries().iter().any(|entry| {
            let state = entry.lock();
            let done = state.record.done.as_ref().is_some_and(|done| done.job == job);
            done || (state.record.state != JobState::Finished && state.live.job.as_deref() == Some(job))
        })
    }

    /// Lets marks go whose upload is gone, where there are more than are kept.
    pub(super) fn drop_marks(&self, route: &super::RouteName, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<_> = {
            let marks: &BTreeMap<_, Mark> = &lock(&self.marks);
            let excess = marks.len().saturating_sub(MARKS_MAX);
            let gone = marks.iter().filter(|(_, m)| m.route == *route && !is_there(m.input.as_str()));
            gone.take(excess).map(|(key, _)| key.clone()).collect()
        };
        for key in gone {
            if self.journal.unmark(&key).is_ok() {
                lock(&self.marks).remove(&key);
            }
        }
    }
}
