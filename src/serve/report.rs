//! What stays of a job in the route's log location: its log and its final report.

use super::entry::Entry;
use super::job::{Done, Happening, Transition};
use super::service::Inner;
use super::view::{NodeSeconds, Report};
use super::{storage, time};

/// Version of the report's shape; a field may be added, none changes its meaning.
const SCHEMA: u32 = 1;

impl Inner {
    /// Builds the report of a job as it is.
    pub(super) fn report(&self, entry: &Entry) -> Report {
        let state = entry.lock();
        report(state.view(self.config().prices), state.record.done.as_deref())
    }
}

fn report(job: super::view::JobView, done: Option<&Done>) -> Report {
    Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        frames: done.map(|d| d.frames),
        frames_scored: done.map(|d| d.frames_scored),
        frames_reused: done.map(|d| d.frames_reused),
        frames_redone: done.map(|d| d.frames_redone),
        segments: done.map(|d| d.segments),
        bytes: done.map(|d| d.bytes),
        blake3: done.map(|d| d.blake3.clone()),
        wall_seconds: done.map(|d| d.wall_seconds),
        job,
    }
}

/// Writes log and report of a job that ends with `what`. A log location that fails does not fail the job.
pub(super) fn write(inner: &Inner, entry: &Entry, what: &Transition) {
    let config = inner.config();
    let (report, route) = {
        let state = entry.lock();
        let mut after = super::entry::EntryState { record: state.record.clone(), live: state.live.for_report() };
        after.record.apply(&Happening { at: time::now(&*inner.clock), what: what.clone() });
        // What the attempt used is in the record now.
        after.live.used = NodeSeconds::default();
        (report(after.view(config.prices), after.record.done.as_deref()), state.record.accepted.route.clone())
    };
    let Some(route) = config.route(&route) else {
        tracing::warn!(job = %entry.key.1, %route, "the route of a job is gone: its log stays in the work folder");
        return;
    };
    let written =
        entry.events.read().and_then(|log| storage::put(&route.logs, &format!("{}.log.ndjson", entry.key.1), &log));
    let text = serde_json::to_vec_pretty(&report).unwrap_or_default();
    let written = written.and_then(|()| storage::put(&route.logs, &format!("{}.report.json", entry.key.1), &text));
    if let Err(error) = written {
        tracing::error!(job = %entry.key.1, %error, "the log of a job could not be written where its route says");
        entry.lock().live.warn(&error.to_string());
    }
}
