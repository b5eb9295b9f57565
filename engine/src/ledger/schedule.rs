//! Which unfinished segments go together, which go alone, and which not at all.

use std::collections::{BTreeMap, BTreeSet};

use super::attempts::{Quarantine, SegmentHistory, Verdict};
use crate::item::SegmentIndex;

/// The segments that must not run together with others, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    /// Suspected of killing their process (L16).
    pub alone: BTreeSet<SegmentIndex>,
    /// Suspects and lost ones that killed a process which only decoded them: nothing behind them can be reached.
    pub impassable: BTreeSet<SegmentIndex>,
    /// Given up (L17). Where the history has no record of it yet, one must be written.
    pub quarantined: BTreeMap<SegmentIndex, Quarantine>,
}

impl Schedule {
    /// Judges every unfinished segment that was ever attempted. `items_finished` counts the whole job,
    /// packs included; `is_alive` tells whether a writer still works.
    pub fn of(
        histories: &BTreeMap<SegmentIndex, SegmentHistory>,
        is_finished: impl Fn(SegmentIndex) -> bool,
        items_finished: u64,
        is_alive: impl Fn(&str) -> bool,
    ) -> Self {
        let mut schedule = Self::default();
        for (segment, history) in histories.iter().filter(|(segment, _)| !is_finished(**segment)) {
            let verdict = history.verdict(items_finished, &is_alive);
            if verdict != Verdict::Run && history.is_impassable(items_finished, &is_alive) {
                schedule.impassable.insert(*segment);
            }
            match verdict {
                Verdict::Run => {}
                Verdict::RunAlone => {
                    schedule.alone.insert(*segment);
                }
                Verdict::Quarantined(quarantine) => {
                    schedule.quarantined.insert(*segment, quarantine);
                }
            }
        }
        schedule
    }

    /// What to do next while something is missing: first everything that is not held back together,
    /// then each suspect alone, and when only quarantined segments are left, give up; what was
    /// finished is kept.
    ///
    /// `last` is what the last complete pass together held back; `None` if there was none since this
    /// process began. Progress elsewhere may have cleared a suspect since, which then goes together.
    pub fn next(&self, last: Option<&BTreeSet<SegmentIndex>>, is_finished: impl Fn(SegmentIndex) -> bool) -> NextPass {
        let holds_back =
            |segment: &SegmentIndex| self.alone.contains(segment) || self.quarantined.contains_key(segment);
        let is_left = |segment: &SegmentIndex| !holds_back(segment) && !is_finished(*segment);
        match (last, self.alone.first()) {
            (Some(last), Some(alone)) if !last.iter().any(is_left) => NextPass::Make(PassScope::Alone(*alone)),
            (Some(last), None) if !self.quarantined.is_empty() && !last.iter().any(is_left) => NextPass::GiveUp,
            _ => {
                let held_back = self.alone.iter().chain(self.quarantined.keys()).copied().collect();
                NextPass::Make(PassScope::Together { held_back })
            }
        }
    }
}

/// What [`Schedule::next`] decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextPass {
    /// A pass over these.
    Make(PassScope),
    /// Only quarantined segments are left: record them, and fail naming them.
    GiveUp,
}

/// Which of the missing segments a pass makes. It decodes through the others and does not score them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassScope {
    /// All but some.
    Together {
        /// These.
        held_back: BTreeSet<SegmentIndex>,
    },
    /// This one, with no other open.
    Alone(SegmentIndex),
}

impl PassScope {
    /// Whether the pass makes a segment.
    pub fn makes(&self, segment: SegmentIndex) -> bool {
        match self {
            Self::Together { held_back } => !held_back.contains(&segment),
            Self::Alone(alone) => *alone == segment,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attempts::{AttemptBegun, AttemptEnd, Attempted};
    use super::*;

    fn history(ends: &[Option<AttemptEnd>]) -> SegmentHistory {
        let begun = || AttemptBegun::new("w", 0);
        let attempts =
            ends.iter().zip(1..).map(|(end, number)| Attempted { number, begun: Some(begun()), end: end.clone() });
        SegmentHistory { attempts: attempts.collect(), quarantine: None }
    }

    #[test]
    fn only_unfinished_suspects_are_held_back() {
        let failed = || Some(AttemptEnd::Failed { message: "no".to_owned(), items: vec![] });
        let histories = BTreeMap::from([
            (SegmentIndex(0), history(&[None, None])),
            (SegmentIndex(1), history(&[None, None])),
            (SegmentIndex(2), history(&[failed(), failed(), failed()])),
            (SegmentIndex(3), history(&[failed(), None])),
        ]);
        let schedule = Schedule::of(&histories, |segment| segment.0 == 0, 0, |_| false);
        assert_eq!(schedule.alone, BTreeSet::from([SegmentIndex(1)]));
        assert_eq!(schedule.quarantined.keys().collect::<Vec<_>>(), [&SegmentIndex(2)]);
        let together = |held_back: &[u32]| {
            NextPass::Make(PassScope::Together { held_back: held_back.iter().map(|k| SegmentIndex(*k)).collect() })
        };
        let last = |held_back: &[u32]| Some(held_back.iter().map(|k| SegmentIndex(*k)).collect::<BTreeSet<_>>());
        let next = |schedule: &Schedule, last: Option<BTreeSet<_>>| schedule.next(last.as_ref(), |_| false);
        assert_eq!(next(&schedule, None), together(&[1, 2]));
        assert_eq!(next(&schedule, last(&[1, 2])), NextPass::Make(PassScope::Alone(SegmentIndex(1))));
        // One that was held back is cleared: the others are not all done yet.
        assert_eq!(next(&schedule, last(&[1, 2, 4])), together(&[1, 2]));
        let given_up = Schedule { alone: BTreeSet::new(), ..schedule };
        assert_eq!(next(&given_up, last(&[1, 2])), together(&[2]));
        assert_eq!(next(&given_up, last(&[2])), NextPass::GiveUp);
        // Nothing is held back and yet something is missing: a segment was damaged.
        assert_eq!(next(&Schedule::default(), last(&[])), together(&[]));
    }
}
