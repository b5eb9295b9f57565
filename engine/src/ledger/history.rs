//! Attempts, explanations and quarantines as objects; the rules about them are in [`super::attempts`].

use std::collections::BTreeMap;

use super::attempts::{AttemptBegun, AttemptEnd, Attempted, Quarantine, SegmentHistory};
use super::error::LedgerError;
use super::generation::create_own;
use super::keys::{self, ObjectName};
use super::ledger::Ledger;
use super::record::{RecordKind, open_record};
use super::store::Creation;
use crate::item::SegmentIndex;

impl Ledger {
    /// Records that this process begins an attempt at a segment, before it begins. Returns the
    /// number of the attempt.
    pub fn begin_attempt(&self, segment: SegmentIndex, items_finished: u64, alone: bool) -> Result<u32, LedgerError> {
        self.begin(segment, &AttemptBegun { alone, ..AttemptBegun::new(&self.writer, items_finished) })
    }

    /// The same with everything that is known about it.
    pub fn begin(&self, segment: SegmentIndex, begun: &AttemptBegun) -> Result<u32, LedgerError> {
        let bytes = self.seal(RecordKind::Try, begun)?;
        let mut number = self.history(segment)?.next_number();
        while create_own(&*self.store, &ObjectName::Try(segment, number).key(&self.job), &bytes)? == Creation::Exists {
            number += 1;
        }
        Ok(number)
    }

    /// Records why an attempt ended without a finished segment. The first explanation stands.
    pub fn end_attempt(&self, segment: SegmentIndex, number: u32, end: &AttemptEnd) -> Result<(), LedgerError> {
        let bytes = self.seal(RecordKind::Fail, end)?;
        self.store.create(&ObjectName::Fail(segment, number).key(&self.job), &bytes)?;
        Ok(())
    }

    /// Puts a segment into quarantine.
    pub fn quarantine(&self, segment: SegmentIndex, quarantine: &Quarantine) -> Result<(), LedgerError> {
        let bytes = self.seal(RecordKind::Dead, quarantine)?;
        self.store.create(&ObjectName::Dead(segment).key(&self.job), &bytes)?;
        Ok(())
    }

    /// Lifts every quarantine, as a new run asked for by a person does: the segment starts with a
    /// clean history. Returns the segments.
    pub fn lift_quarantines(&self) -> Result<Vec<SegmentIndex>, LedgerError> {
        let histories = self.histories()?;
        let dead: Vec<_> = histories.into_iter().filter(|(_, history)| history.quarantine.is_some()).collect();
        for (segment, history) in &dead {
            self.forget_attempts(*segment, history)?;
        }
        Ok(dead.into_iter().map(|(segment, _)| segment).collect())
    }

    /// Gives one segment a clean history.
    pub fn forget_attempts(&self, segment: SegmentIndex, history: &SegmentHistory) -> Result<(), LedgerError> {
        for attempt in history.attempts.iter().rev() {
            self.store.delete(&ObjectName::Fail(segment, attempt.number).key(&self.job))?;
            self.store.delete(&ObjectName::Try(segment, attempt.number).key(&self.job))?;
        }
        // Last, so that a lift cut short is finished by the next one.
        Ok(self.store.delete(&ObjectName::Dead(segment).key(&self.job))?)
    }

    /// What the store says about attempts at one segment.
    pub fn history(&self, segment: SegmentIndex) -> Result<SegmentHistory, LedgerError> {
        let mut histories = self.histories_below(&keys::segment_prefix(&self.job, segment))?;
        Ok(histories.remove(&segment).unwrap_or_default())
    }

    /// What the store says about attempts at any segment that has some.
    pub fn histories(&self) -> Result<BTreeMap<SegmentIndex, SegmentHistory>, LedgerError> {
        self.histories_below(&format!("{}s/", keys::job_prefix(&self.job)))
    }

    fn histories_below(&self, prefix: &str) -> Result<BTreeMap<SegmentIndex, SegmentHistory>, LedgerError> {
        let mut attempts: BTreeMap<(SegmentIndex, u32), Attempted> = BTreeMap::new();
        let mut histories: BTreeMap<SegmentIndex, SegmentHistory> = BTreeMap::new();
        for entry in self.store.list(prefix)? {
            let Some(name) = ObjectName::parse(&self.job, &entry.key) else { continue };
            match name {
                ObjectName::Try(segment, number) => {
                    attempted(&mut attempts, segment, number).begun = self.read(&entry.key, RecordKind::Try)?;
                }
                ObjectName::Fail(segment, number) => {
                    attempted(&mut attempts, segment, number).end = self.read(&entry.key, RecordKind::Fail)?;
                }
                ObjectName::Dead(segment) => {
                    let read = self.read(&entry.key, RecordKind::Dead)?;
                    histories.entry(segment).or_default().quarantine = Some(read.unwrap_or_else(unreadable));
                }
                _ => {}
            }
        }
        for ((segment, _), attempt) in attempts {
            histories.entry(segment).or_default().attempts.push(attempt);
        }
        Ok(histories)
    }

    fn read<B: serde::de::DeserializeOwned>(&self, key: &str, kind: RecordKind) -> Result<Option<B>, LedgerError> {
        let bytes = self.store.get(key)?;
        Ok(bytes.and_then(|bytes| open_record(&bytes, kind, &self.job).ok()).map(|record| record.body))
    }
}

fn attempted(
    attempts: &mut BTreeMap<(SegmentIndex, u32), Attempted>,
    segment: SegmentIndex,
    number: u32,
) -> &mut Attempted {
    attempts.entry((segment, number)).or_insert(Attempted { number, begun: None, end: None })
}

fn unreadable() -> Quarantine {
    Quarantine { message: "its quarantine record is damaged".to_owned(), items: Vec::new(), attempts: 0 }
}
