//! Crash loops: when a segment runs on, runs alone, or is given up.
//!
//! `try-n` stands before an attempt begins; `fail-n` explains how it ended. An attempt that ended
//! without either a finished segment or an explanation is an unexplained death: its process was
//! killed, ran out of memory, or crashed. The rules, which are pure:
//!
//! - L15: pre-emptions never count, nor do deaths since which more of the job was finished than when
//!   the attempt began: only deaths in a row without any progress make a loop.
//! - L16: after two deaths that count, the segment runs alone, so that further ones can be blamed on it.
//! - L17: three strikes quarantine it. A strike is an explained failure, a crash signal, or a death
//!   that counts while the segment ran alone.

use serde::{Deserialize, Serialize};

use crate::item::ItemIndex;

/// Deaths that count before a segment runs alone.
pub const DEATHS_BEFORE_ALONE: u32 = 2;
/// Strikes before a segment is in quarantine.
pub const STRIKES_MAX: u32 = 3;

/// `try-n`: an attempt begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptBegun {
    /// Who attempts it; unique to one run of one process.
    pub writer: String,
    /// How many items of the whole job were finished at this moment, packs included.
    pub items_finished: u64,
    /// Whether the segment runs alone.
    pub alone: bool,
    /// Number of the segment's first item in the whole stream, where it was known.
    #[serde(default)]
    pub first_item: Option<u64>,
    /// Whether the segment is only decoded, on the way to what lies behind it.
    #[serde(default)]
    pub passing: bool,
}

impl AttemptBegun {
    /// An attempt with others, of a job with so many items finished.
    pub fn new(writer: impl Into<String>, items_finished: u64) -> Self {
        Self { writer: writer.into(), items_finished, alone: false, first_item: None, passing: false }
    }
}

/// `fail-n`: why an attempt ended without a finished segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// The work was taken away in good order: pre-emption, drain, cancellation, a store without room.
    Preempted,
    /// The work itself failed.
    Failed {
        /// What went wrong.
        message: String,
        /// The items it went wrong at, where known.
        items: Vec<ItemIndex>,
    },
    /// A process that did the work and was watched ended by a signal.
    Crashed {
        /// Its name, such as `SIGSEGV`.
        signal: String,
    },
}

/// `dead`: a segment is in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// What the last strike said.
    pub message: String,
    /// Items named by the failures; empty where none could be named.
    pub items: Vec<ItemIndex>,
    /// The attempts that led here.
    pub attempts: u32,
}

/// One attempt of a segment as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// The `n` of `try-n`.
    pub number: u32,
    /// How it began; `None` where the record is damaged.
    pub begun: Option<AttemptBegun>,
    /// How it ended, where that was explained.
    pub end: Option<AttemptEnd>,
}

/// Everything the store says about attempts at one segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentHistory {
    /// By number, ascending.
    pub attempts: Vec<Attempted>,
    /// Whether it is in quarantine. A damaged record counts, with nothing named.
    pub quarantine: Option<Quarantine>,
}

/// How an unfinished segment may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// With others, as usual.
    Run,
    /// With no other segment of the job at work.
    RunAlone,
    /// Not at all, until a new run lifts it.
    Quarantined(Quarantine),
}

/// What an attempt means for its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptMeaning {
    /// Under way, taken away in good order, or dead with progress.
    Innocent,
    /// Dead without progress and without explanation, among others.
    Death,
    /// Failed with an explanation, crashed under watch, or dead without progress while alone.
    Strike,
}

impl Attempted {
    fn meaning(&self, items_finished: u64, is_alive: impl Fn(&str) -> bool) -> AttemptMeaning {
        match (&self.end, &self.begun) {
            (Some(AttemptEnd::Preempted), _) => AttemptMeaning::Innocent,
            (Some(AttemptEnd::Failed { .. } | AttemptEnd::Crashed { .. }), _) => AttemptMeaning::Strike,
            (None, Some(begun)) if is_alive(&begun.writer) => AttemptMeaning::Innocent,
            (None, Some(begun)) if items_finished > begun.items_finished => AttemptMeaning::Innocent,
            (None, Some(begun)) if begun.alone => AttemptMeaning::Strike,
            (None, _) => AttemptMeaning::Death,
        }
    }
}

impl SegmentHistory {
    /// Judges the segment, given how many items of the job are finished now and which writers are
    /// alive: an attempt of a live writer is under way, not dead.
    pub fn verdict(&self, items_finished: u64, is_alive: impl Fn(&str) -> bool) -> Verdict {
        if let Some(quarantine) = &self.quarantine {
            return Verdict::Quarantined(quarantine.clone());
        }
        let meanings: Vec<_> = self.attempts.iter().map(|a| a.meaning(items_finished, &is_alive)).collect();
        let count = |wanted| meanings.iter().filter(|meaning| **meaning == wanted).count() as u32;
        if count(AttemptMeaning::Strike) >= STRIKES_MAX {
            Verdict::Quarantined(self.to_quarantine())
        } else if count(AttemptMeaning::Death) >= DEATHS_BEFORE_ALONE {
            Verdict::RunAlone
        } else {
            Verdict::Run
        }
    }

    /// The number of the next attempt.
    pub fn next_number(&self) -> u32 {
        self.attempts.last().map_or(1, |attempt| attempt.number.saturating_add(1))
    }

    /// Whether a process died while it only decoded the segment, without progress since.
    pub fn is_impassable(&self, items_finished: u64, is_alive: impl Fn(&str) -> bool) -> bool {
        let passing = |attempt: &&Attempted| attempt.begun.as_ref().is_some_and(|begun| begun.passing);
        self.attempts.iter().filter(passing).any(|a| a.meaning(items_finished, &is_alive) == AttemptMeaning::Death)
    }

    /// Number in the whole stream of the segment's first item, where an attempt knew it.
    pub fn first_item(&self) -> Option<u64> {
        self.attempts.iter().rev().find_map(|attempt| attempt.begun.as_ref()?.first_item)
    }

    fn to_quarantine(&self) -> Quarantine {
        let mut items = Vec::new();
        let mut message = "its process died again and again without a cause that could be seen".to_owned();
        for attempt in &self.attempts {
            match &attempt.end {
                Some(AttemptEnd::Failed { message: said, items: named }) => {
                    message.clone_from(said);
                    items.extend_from_slice(named);
                }
                Some(AttemptEnd::Crashed { signal }) => message = format!("the process ended by {signal}"),
                Some(AttemptEnd::Preempted) | None => {}
            }
        }
        items.sort_unstable();
        items.dedup();
        Quarantine { message, items, attempts: self.attempts.len() as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attempt(number: u32, items_finished: u64, end: Option<AttemptEnd>) -> Attempted {
        let begun = AttemptBegun::new(format!("w{number}"), items_finished);
        Attempted { number, begun: Some(begun), end }
    }

    fn failed(item: u32) -> Option<AttemptEnd> {
        Some(AttemptEnd::Failed { message: "no".to_owned(), items: vec![ItemIndex(item)] })
    }

    fn history(attempts: Vec<(u64, Option<AttemptEnd>)>) -> SegmentHistory {
        let numbered = attempts.into_iter().zip(1..).map(|((items, end), number)| attempt(number, items, end));
        SegmentHistory { attempts: numbered.collect(), quarantine: None }
    }

    fn check(attempts: Vec<(u64, Option<AttemptEnd>)>, items_now: u64, expected: &str) {
        let verdict = match history(attempts.clone()).verdict(items_now, |_| false) {
            Verdict::Run => "run",
            Verdict::RunAlone => "alone",
            Verdict::Quarantined(_) => "dead",
        };
        assert_eq!(verdict, expected, "{attempts:?}");
    }

    #[test]
    fn deaths_without_progress_lead_to_alone_and_then_to_quarantine() {
        check(vec![], 0, "run");
        check(vec![(5, None)], 5, "run");
        check(vec![(5, None), (5, None)], 5, "alone");
        let mut history = history(vec![(5, None), (5, None)]);
        for strike in 1..=STRIKES_MAX {
            assert_eq!(history.verdict(5, |_| false), Verdict::RunAlone);
            let mut alone = attempt(2 + strike, 5, None);
            alone.begun.as_mut().unwrap().alone = true;
            history.attempts.push(alone);
        }
        assert!(matches!(history.verdict(5, |_| false), Verdict::Quarantined(_)));
    }

    #[test]
    fn deaths_with_progress_do_not_count() {
        check((0..50).map(|n| (n, None)).collect(), 50, "run");
        check(vec![(5, None), (5, None), (6, None)], 7, "run");
        check(vec![(5, None), (5, None), (5, None)], 7, "run");
        check(vec![(5, None), (6, None), (6, None)], 6, "alone");
    }

    #[test]
    fn a_death_on_the_way_through_makes_a_segment_impassable_until_something_else_is_finished() {
        let mut history = history(vec![(5, None), (5, None), (5, None)]);
        assert!(!history.is_impassable(5, |_| false));
        history.attempts[2].begun.as_mut().unwrap().passing = true;
        assert!(history.is_impassable(5, |_| false));
        assert!(!history.is_impassable(6, |_| false));
        assert_eq!(history.first_item(), None);
        history.attempts[0].begun.as_mut().unwrap().first_item = Some(50);
        assert_eq!(history.first_item(), Some(50));
    }

    #[test]
    fn preemptions_never_count() {
        check((0..50).map(|_| (0, Some(AttemptEnd::Preempted))).collect(), 0, "run");
    }

    #[test]
    fn three_explained_failures_are_a_quarantine_that_names_the_items() {
        check(vec![(0, failed(7)), (1, failed(7))], 2, "run");
        let verdict = history(vec![(0, failed(7)), (1, failed(4)), (2, failed(7))]).verdict(3, |_| false);
        let Verdict::Quarantined(quarantine) = verdict else { panic!("{verdict:?}") };
        assert_eq!(quarantine.items, [ItemIndex(4), ItemIndex(7)]);
        assert_eq!(quarantine.attempts, 3);
    }

    #[test]
    fn crash_signals_are_strikes() {
        let crashed = || Some(AttemptEnd::Crashed { signal: "SIGSEGV".to_owned() });
        check(vec![(0, crashed()), (0, crashed())], 9, "run");
        check(vec![(0, crashed()), (0, crashed()), (0, crashed())], 9, "dead");
    }

    #[test]
    fn an_attempt_of_a_live_writer_is_under_way() {
        let history = history(vec![(0, None), (0, None), (0, None)]);
        assert_eq!(history.verdict(0, |writer| writer == "w3"), Verdict::RunAlone);
    }

    #[test]
    fn a_damaged_try_record_counts_as_a_death_and_hides_no_progress() {
        let mut history = history(vec![(0, None), (0, None)]);
        history.attempts[1].begun = None;
        assert_eq!(history.verdict(0, |_| false), Verdict::RunAlone);
        assert_eq!(history.verdict(4, |_| false), Verdict::Run);
    }

    proptest! {
        /// L15, L17: however often a run is preempted or killed with progress, it is never given up;
        /// whatever else happens, three strikes end it.
        #[test]
        fn only_strikes_end_a_segment(ends in proptest::collection::vec(0..4_u8, 0..40)) {
            let mut items = 0;
            let mut strikes = 0;
            let mut attempts = Vec::new();
            for end in ends {
                let begun_at = items;
                let end = match end {
                    0 => Some(AttemptEnd::Preempted),
                    1 => { items += 1; None }
                    2 => { strikes += 1; Some(AttemptEnd::Crashed { signal: "SIGBUS".to_owned() }) }
                    _ => { strikes += 1; failed(1) }
                };
                attempts.push((begun_at, end));
            }
            let verdict = history(attempts).verdict(items, |_| false);
            prop_assert_eq!(matches!(verdict, Verdict::Quarantined(_)), strikes >= STRIKES_MAX);
        }
    }
}
