//! Decides what the next pass makes, and gives up what kills its process again and again.

use crate::error::{Error, ErrorKind};
use restyle_actors::ActorError;
use restyle_actors::feed::PassOrder;
use restyle_actors::pass::PassReport;
use restyle_engine::item::{ItemIndex, SegmentIndex};
use restyle_engine::ledger::{
    Adopted, AttemptEnd, Ledger, NextPass, PassScope, Quarantine, Scan, Schedule, SegmentHistory, Verdict,
};
use restyle_engine::stage::Status;
use std::collections::{BTreeMap, BTreeSet};

/// Passes without a single new segment after which a job is given up: what failed three times the same way will fail again.
const BARREN_PASSES_MAX: u32 = 3;

/// The passes of one run of a job.
pub(crate) struct Course<'a> {
    ledger: &'a Ledger,
    /// Writers that are known to be dead: all that had begun anything before this process took the job, except one that
    /// was only taken for gone. Whoever comes later works beside this process, having taken the job from it.
    dead: BTreeSet<String>,
    /// What the last pass over everything else held back; `None` before the first.
    held_back: Option<BTreeSet<SegmentIndex>>,
    barren: u32,
}

/// What packs hold, by segment.
pub(crate) type Packed = BTreeMap<SegmentIndex, Adopted>;

impl<'a> Course<'a> {
    /// Begins a run that a person asked for: what was given up before is tried again. `taken_from` is the writer that the
    /// job was taken from without knowing that it is dead.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn begin(ledger: &'a Ledger, taken_from: Option<&str>) -> Result<Self, Error> {
        ledger.lift_quarantines()?;
        let mut dead = BTreeSet::new();
        for (segment, history) in ledger.histories()? {
            let writers = history.attempts.iter().filter_map(|a| a.begun.as_ref()).map(|begun| &begun.writer);
            let is_dead = |writer: &&String| *writer != ledger.writer() && Some(writer.as_str()) != taken_from;
            dead.extend(writers.filter(is_dead).cloned());
            // Failures that were explained were also reported; the one who runs again has read them.
            let is_explained = matches!(
                history.attempts.last().and_then(|a| a.end.as_ref()),
                Some(AttemptEnd::Failed { .. } | AttemptEnd::Crashed { .. })
            );
            if is_explained && matches!(history.verdict(0, |_| false), Verdict::Quarantined(_)) {
                ledger.forget_attempts(segment, &history)?;
            }
        }
        Ok(Self { ledger, dead, held_back: None, barren: 0 })
    }

    /// Passes in a row without a single new segment.
    pub(crate) fn barren(&self) -> u32 {
        self.barren
    }

    /// Decides what the next pass makes.
    ///
    /// # Errors
    /// [`ErrorKind::JobFailed`] naming the frames when only segments are left that kill their process.
    pub(crate) fn next(&self, scan: &Scan, packed: &Packed) -> Result<PassOrder, Error> {
        let frames_packed: u64 = packed.values().map(|a| a.items.len() as u64).sum();
        let frames_finished = scan.finished.values().map(|h| u64::from(h.items)).sum::<u64>() + frames_packed;
        let histories = self.ledger.histories()?;
        let is_finished = |segment: SegmentIndex| scan.finished.contains_key(&segment);
        let is_alive = |writer: &str| !self.dead.contains(writer);
        let schedule = Schedule::of(&histories, is_finished, frames_finished, is_alive);
        let stuck = self.barren >= BARREN_PASSES_MAX;
        match schedule.next(self.held_back.as_ref(), is_finished) {
            NextPass::Make(scope) if !stuck => Ok(PassOrder {
                scope,
                impassable: schedule.impassable,
                first_frames: histories.iter().filter_map(|(k, h)| Some((*k, h.first_item()?))).collect(),
                frames_finished,
            }),
            NextPass::Make(_) if schedule.quarantined.is_empty() => {
                Err(Error::new(ErrorKind::JobFailed, format!("{} passes made no segment", self.barren)))
            }
            _ => self.give_up(&schedule, &histories, packed),
        }
    }

    /// Notes what a pass did.
    pub(crate) fn passed(&mut self, scope: PassScope, report: &PassReport) {
        self.barren = if report.committed.is_empty() { self.barren + 1 } else { 0 };
        if let PassScope::Together { held_back } = scope {
            self.held_back = Some(held_back);
        }
    }

    fn give_up(
        &self,
        schedule: &Schedule,
        histories: &BTreeMap<SegmentIndex, SegmentHistory>,
        packed: &Packed,
    ) -> Result<PassOrder, Error> {
        let (mut frames, mut said) = (Vec::new(), Vec::new());
        for (segment, quarantine) in &schedule.quarantined {
            let quarantine = named(quarantine, packed.get(segment));
            self.ledger.quarantine(*segment, &quarantine)?;
            let first = histories.get(segment).and_then(SegmentHistory::first_item);
            frames.extend(first.iter().flat_map(|first| quarantine.items.iter().map(move |i| first + u64::from(i.0))));
            said.push(format!("segment {segment}: {}", quarantine.message));
        }
        let message = format!(
            "given up after {BARREN_PASSES_MAX} strikes: {}; everything else is kept, the same command tries again",
            said.join("; ")
        );
        Err(Error::new(ErrorKind::JobFailed, message).with_frames(frames))
    }
}

/// Names the item that the process died of, where no failure did: alone, a segment goes one item at a time and each finished
/// one is packed.
fn named(quarantine: &Quarantine, packed: Option<&Adopted>) -> Quarantine {
    let mut quarantine = quarantine.clone();
    if quarantine.items.is_empty() {
        let is_missing = |index: &ItemIndex| packed.is_none_or(|p| !p.items.contains_key(index));
        quarantine.items.extend((0..=u32::MAX).map(ItemIndex).find(is_missing));
    }
    quarantine
}

/// Decides whether a job goes on after a pass: not when it was told to stop, nor when the same thing fails again and again.
pub(crate) fn verdict(report: PassReport, barren: u32) -> Option<Error> {
    if report.interrupted {
        return Some(interrupted());
    }
    let worth_another = |e: &ActorError| e.status() == Status::Transient;
    let (passing, lasting): (Vec<_>, Vec<_>) = report.failures.into_iter().partition(worth_another);
    let mut failures = lasting.into_iter().chain(passing.into_iter().filter(|_| barren >= BARREN_PASSES_MAX));
    let Some(first) = failures.next() else {
        let stuck = "pass after pass ended without a new segment and without an error: this is a bug in restyle";
        return (barren >= BARREN_PASSES_MAX).then(|| Error::new(ErrorKind::JobFailed, stuck));
    };
    let mut frames = first.frames().to_vec();
    frames.extend(failures.flat_map(|e| e.frames().to_vec()));
    frames.sort_unstable();
    frames.dedup();
    Some(Error::from(first).with_frames(frames))
}

/// What ends a job that was told to stop.
pub(crate) fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "stopped before the end; the same command goes on from here")
}

#[cfg(test)]
mod tests {
    use super::*;
    use restyle_engine::item::JobId;
    use restyle_engine::ledger::{AttemptBegun, MemoryStore};
    use std::sync::Arc;

    fn ledger(store: &Arc<MemoryStore>, writer: &str) -> Ledger {
        Ledger::new(Arc::clone(store) as Arc<_>, JobId::new([7; 32]), writer)
    }

    fn attempts(store: &Arc<MemoryStore>, writers: &[&str]) {
        for writer in writers {
            ledger(store, writer).begin(SegmentIndex(0), &AttemptBegun::new(*writer, 0)).unwrap();
        }
    }

    /// Whether the segment may run with others, to a process that took the job from `taken_from`.
    fn is_trusted(before: &[&str], taken_from: Option<&str>, later: &[&str]) -> bool {
        let store = Arc::new(MemoryStore::new());
        attempts(&store, before);
        let own = ledger(&store, "own");
        let course = Course::begin(&own, taken_from).unwrap();
        attempts(&store, later);
        let order = course.next(&Scan::default(), &Packed::new()).unwrap();
        match order.scope {
            PassScope::Together { held_back } => held_back.is_empty(),
            PassScope::Alone(_) => false,
        }
    }

    #[test]
    fn deaths_before_the_job_was_taken_count() {
        assert!(is_trusted(&["a"], None, &[]));
        assert!(!is_trusted(&["a", "b"], None, &[]));
    }

    #[test]
    fn a_writer_that_was_only_taken_for_gone_did_not_die() {
        assert!(is_trusted(&["a", "b"], Some("b"), &[]));
        assert!(!is_trusted(&["a", "b", "c"], Some("c"), &[]), "those before it did");
    }

    #[test]
    fn writers_that_come_later_work_beside_this_process() {
        assert!(is_trusted(&["a"], None, &["own", "later", "later"]));
    }
}
