//! Decides what the next pass makes, and gives up what kills its process again and again.

use crate::error::{Error, ErrorKind};
use restyle_actors::feed::PassOrder;
use restyle_actors::pass::PassReport;
use restyle_engine::item::{ItemIndex, SegmentIndex};
use restyle_engine::ledger::{
    Adopted, AttemptEnd, Ledger, NextPass, PassScope, Quarantine, Scan, Schedule, SegmentHistory, Verdict,
};
use std::collections::{BTreeMap, BTreeSet};

/// Passes without a single new segment after which a job is given up: what failed three times the same way will fail again.
pub(crate) const BARREN_PASSES_MAX: u32 = 3;

/// The passes of one run of a job.
pub(crate) struct Course<'a> {
    ledger: &'a Ledger,
    /// What the last pass over everything else held back; `None` before the first.
    held_back: Option<BTreeSet<SegmentIndex>>,
    barren: u32,
}

/// What packs hold, by segment.
pub(crate) type Packed = BTreeMap<SegmentIndex, Adopted>;

impl<'a> Course<'a> {
    /// Begins a run that a person asked for: what was given up before is tried again.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn begin(ledger: &'a Ledger) -> Result<Self, Error> {
        ledger.lift_quarantines()?;
        for (segment, history) in ledger.histories()? {
            // Failures that were explained were also reported; the one who runs again has read them.
            let is_explained = matches!(
                history.attempts.last().and_then(|a| a.end.as_ref()),
                Some(AttemptEnd::Failed { .. } | AttemptEnd::Crashed { .. })
            );
            if is_explained && matches!(history.verdict(0, |_| false), Verdict::Quarantined(_)) {
                ledger.forget_attempts(segment, &history)?;
            }
        }
        Ok(Self { ledger, held_back: None, barren: 0 })
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
        // The job's lock is held, so nobody but this process works on it.
        let is_alive = |writer: &str| writer == self.ledger.writer();
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
