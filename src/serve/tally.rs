//! Counters over all jobs since the service started; they only grow.

use super::service::{Service, lock};
use super::view::NodeSeconds;
use crate::event::{Finished, NodeChange};
use restyle_actors::control::LinkReading;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters, as they are now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tallied {
    /// Frames that were scored, once for each time.
    pub frames_scored: u64,
    /// Frames taken from earlier attempts.
    pub frames_reused: u64,
    /// Frames scored again after they were lost.
    pub frames_redone: u64,
    /// Frames for whose sake an attempt failed.
    pub frames_failed: u64,
    /// Attempts whose output stands.
    pub attempts_finished: u64,
    /// Attempts that failed.
    pub attempts_failed: u64,
    /// Nodes that were told they will be taken away.
    pub preemptions: u64,
    /// Workers of nodes that were started again.
    pub restarts: u64,
    /// Workers of nodes that ended because something was wrong.
    pub node_failures: u64,
    /// Microseconds in calls of the work store, of attempts that finished.
    pub store_micros: u64,
    /// Times that writers waited for room in the work store, of attempts that finished.
    pub storage_full_waits: u64,
    /// Damaged objects that were found in the work store and made again, of attempts that finished.
    pub objects_damaged: u64,
    /// Seconds of nodes, by class.
    pub node_seconds: NodeSeconds,
}

/// What counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    frames_scored: AtomicU64,
    frames_reused: AtomicU64,
    frames_redone: AtomicU64,
    frames_failed: AtomicU64,
    attempts_finished: AtomicU64,
    attempts_failed: AtomicU64,
    preemptions: AtomicU64,
    restarts: AtomicU64,
    node_failures: AtomicU64,
    store_micros: AtomicU64,
    storage_full_waits: AtomicU64,
    objects_damaged: AtomicU64,
    dedicated_micros: AtomicU64,
    low_priority_micros: AtomicU64,
    handed: Mutex<BTreeMap<&'static str, Handed>>,
    phases: Mutex<BTreeMap<&'static str, f64>>,
}

/// What went through one kind of hand-off, over all jobs since the service started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handed {
    /// Frames that went in.
    pub entered: u64,
    /// Frames that came out.
    pub left: u64,
    /// Microseconds that the side before it waited for room.
    pub stall_micros: u64,
}

/// What the hand-offs of one attempt said last, to tell what is new.
#[derive(Debug, Default)]
pub(super) struct HandedBefore(BTreeMap<&'static str, Handed>);

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn micros(seconds: f64) -> u64 {
    // Saturating, and 0 for what is no time.
    (seconds * 1e6) as u64
}

impl Tally {
    /// An attempt begins with what earlier ones did.
    pub(super) fn planned(&self, frames_reused: u64) {
        add(&self.frames_reused, frames_reused);
    }

    /// So many frames more are done.
    pub(super) fn scored(&self, frames: u64) {
        add(&self.frames_scored, frames);
    }

    /// An attempt succeeded; `frames_left`: those of which no progress told.
    pub(super) fn finished(&self, finished: &Finished, frames_left: u64) {
        add(&self.frames_scored, frames_left);
        add(&self.frames_redone, finished.frames_rescored);
        add(&self.attempts_finished, 1);
        add(&self.store_micros, micros(finished.ledger_seconds));
        add(&self.storage_full_waits, finished.storage_full_waits);
        add(&self.objects_damaged, finished.objects_damaged);
    }

    /// An attempt failed because of so many frames.
    pub(super) fn failed(&self, frames: usize) {
        add(&self.frames_failed, frames as u64);
        add(&self.attempts_failed, 1);
    }

    /// Something happened to a node.
    pub(super) fn node(&self, change: &NodeChange) {
        match change {
            NodeChange::Notified => add(&self.preemptions, 1),
            NodeChange::Started { generation } if *generation > 0 => add(&self.restarts, 1),
            NodeChange::Exited { failed: true, .. } => add(&self.node_failures, 1),
            _ => {}
        }
    }

    /// Reads the hand-offs of a running job; a pass that begins anew counts from nothing again.
    pub(super) fn handed(&self, before: &mut HandedBefore, readings: &[LinkReading]) {
        let mut all = lock(&self.handed);
        for now in readings {
            let seen = before.0.entry(now.name).or_default();
            if now.entered < seen.entered || now.stall_micros < seen.stall_micros {
                *seen = Handed::default();
            }
            let sum = all.entry(now.name).or_default();
            sum.entered += now.entered - seen.entered;
            sum.left += now.left.saturating_sub(seen.left);
            sum.stall_micros += now.stall_micros - seen.stall_micros;
            *seen = Handed { entered: now.entered, left: now.left, stall_micros: now.stall_micros };
        }
    }

    /// A job was in a phase for so long.
    pub(super) fn phase(&self, phase: &str, seconds: f64) {
        let known = ["planning", "scoring", "joining", "publishing"].into_iter().find(|known| *known == phase);
        if let Some(phase) = known {
            *lock(&self.phases).entry(phase).or_default() += seconds;
        }
    }

    /// Nodes worked for so long.
    pub(super) fn used(&self, used: NodeSeconds) {
        add(&self.dedicated_micros, micros(used.dedicated));
        add(&self.low_priority_micros, micros(used.low_priority));
    }
}

impl Service {
    /// Returns what went through the hand-offs of all jobs, by what they join.
    #[must_use]
    pub fn handed(&self) -> BTreeMap<&'static str, Handed> {
        lock(&self.inner.tally.handed).clone()
    }

    /// Returns frames that lie in the hand-offs of all running jobs now, by what they join.
    #[must_use]
    pub fn in_hand(&self) -> BTreeMap<&'static str, u64> {
        let mut fills = BTreeMap::new();
        for entry in self.inner.entries() {
            let control = entry.lock().live.control.clone();
            for link in control.map(|control| control.links()).unwrap_or_default() {
                *fills.entry(link.name).or_default() += link.fill;
            }
        }
        fills
    }

    /// Returns seconds that jobs spent, by phase.
    #[must_use]
    pub fn phase_seconds(&self) -> BTreeMap<&'static str, f64> {
        lock(&self.inner.tally.phases).clone()
    }

    /// Returns the counters over all jobs.
    #[must_use]
    pub fn tallied(&self) -> Tallied {
        let tally = &self.inner.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = |counter: &AtomicU64| read(counter) as f64 / 1e6;
        Tallied {
            frames_scored: read(&tally.frames_scored),
            frames_reused: read(&tally.frames_reused),
            frames_redone: read(&tally.frames_redone),
            frames_failed: read(&tally.frames_failed),
            attempts_finished: read(&tally.attempts_finished),
            attempts_failed: read(&tally.attempts_failed),
            preemptions: read(&tally.preemptions),
            restarts: read(&tally.restarts),
            node_failures: read(&tally.node_failures),
            store_micros: read(&tally.store_micros),
            storage_full_waits: read(&tally.storage_full_waits),
            objects_damaged: read(&tally.objects_damaged),
            node_seconds: NodeSeconds {
                dedicated: seconds(&tally.dedicated_micros),
                low_priority: seconds(&tally.low_priority_micros),
            },
        }
    }
}
