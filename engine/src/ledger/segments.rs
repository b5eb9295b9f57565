//! Finished segments: committed once, verified whenever they are read.

use std::collections::BTreeMap;

use super::chain::{Contradiction, SegmentHeader, Todo, todo};
use super::digest::Digest;
use super::error::LedgerError;
use super::generation::{Standing, create_verified, read_verified};
use super::keys::{self, ObjectName};
use super::ledger::Ledger;
use super::object::{ObjectKind, Rejection, SealedObject, seal};
use crate::item::SegmentIndex;

/// The segments of one job made after one plan. Cheap to clone; every method blocks for as long as
/// the store takes.
#[derive(Clone)]
pub struct SegmentLedger {
    pub(super) ledger: Ledger,
    pub(super) plan: Digest,
}

/// A segment that was read and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedSegment {
    /// What it says about itself.
    pub header: SegmentHeader,
    /// What it holds; only the stages understand it.
    pub payload: Vec<u8>,
}

/// What the store holds of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Valid segments.
    pub finished: BTreeMap<SegmentIndex, SegmentHeader>,
    /// Bytes of the objects read.
    pub bytes: u64,
    /// Objects that were passed over, with the reason.
    pub rejected: Vec<(String, Rejection)>,
}

impl Scan {
    /// How many objects were cut short or altered.
    pub fn damaged(&self) -> u32 {
        self.count(|rejection| matches!(rejection, Rejection::Damaged(_)))
    }

    /// The objects that were cut short or altered.
    pub fn damaged_keys(&self) -> impl Iterator<Item = &str> {
        let damaged = self.rejected.iter().filter(|(_, rejection)| matches!(rejection, Rejection::Damaged(_)));
        damaged.map(|(key, _)| key.as_str())
    }

    /// How many objects were whole but belong elsewhere.
    pub fn foreign(&self) -> u32 {
        self.count(|rejection| matches!(rejection, Rejection::Foreign(_)))
    }

    /// What remains to be done.
    ///
    /// # Errors
    /// Segments that contradict each other.
    pub fn todo(&self) -> Result<Todo, LedgerError> {
        Ok(todo(&self.finished)?)
    }

    fn count(&self, wanted: impl Fn(&Rejection) -> bool) -> u32 {
        self.rejected.iter().filter(|(_, rejection)| wanted(rejection)).count() as u32
    }
}

impl SegmentLedger {
    pub(super) fn new(ledger: Ledger, plan: Digest) -> Self {
        Self { ledger, plan }
    }

    /// The job-level ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Commits a segment: afterwards a valid object for it stands, this one or an equal one that was
    /// there before. Durable when it returns. The header returned is the one that stands.
    ///
    /// # Errors
    /// `Contradiction` when a valid segment stands that holds other items, or when the header is
    /// wrong in itself; anything the store fails with.
    pub fn commit(&self, header: &SegmentHeader, payload: &[u8]) -> Result<Standing<SegmentHeader>, LedgerError> {
        if let Some(fault) = header.fault() {
            return Err(Contradiction(fault).into());
        }
        let text = serde_json::to_vec(header).map_err(|error| LedgerError::Body(error.to_string()))?;
        let bytes = seal(ObjectKind::Segment, &self.plan, &text, payload);
        let verify = |bytes| self.open(header.segment, bytes).map(|(header, _)| header);
        let key = self.key(header.segment);
        let standing = create_verified(&*self.ledger.store, key, &bytes, header.clone(), verify)?;
        if !standing.value.agrees_with(header) {
            let what =
                format!("segment {} stands as {:?}, now it came out as {header:?}", header.segment, standing.value);
            return Err(Contradiction(what).into());
        }
        Ok(standing)
    }

    /// Reads a finished segment.
    ///
    /// # Errors
    /// `Missing` where no valid object of the segment stands; the next scan will not list it either.
    pub fn load(&self, segment: SegmentIndex) -> Result<LoadedSegment, LedgerError> {
        let key = self.key(segment);
        let verify = |bytes| self.open(segment, bytes).map(|(header, object)| (header, object.into_payload()));
        let standing = read_verified(&*self.ledger.store, &key, verify)?;
        let missing = || LedgerError::Missing { key: key(crate::item::Generation(0)) };
        let (header, payload) = standing.ok_or_else(missing)?.value;
        Ok(LoadedSegment { header, payload })
    }

    /// Reads and verifies every segment object of the job: what is finished is what this returns.
    /// Holds one object in memory at a time.
    pub fn scan(&self) -> Result<Scan, LedgerError> {
        let mut scan = Scan::default();
        let entries = self.ledger.store.list(&format!("{}s/", keys::job_prefix(&self.ledger.job)))?;
        let mut names: Vec<_> = entries
            .iter()
            .filter_map(|entry| match ObjectName::parse(&self.ledger.job, &entry.key)? {
                ObjectName::Segment(segment, generation) => Some((segment, generation, &entry.key)),
                _ => None,
            })
            .collect();
        names.sort();
        for (segment, _, key) in names {
            if scan.finished.contains_key(&segment) {
                continue;
            }
            let Some(bytes) = self.ledger.store.get(key)? else { continue };
            scan.bytes += bytes.len() as u64;
            match self.open(segment, bytes) {
                Ok((header, _)) => {
                    scan.finished.insert(segment, header);
                }
                Err(rejection) => scan.rejected.push((key.clone(), rejection)),
            }
        }
        Ok(scan)
    }

    fn key(&self, segment: SegmentIndex) -> impl Fn(crate::item::Generation) -> String {
        let job = self.ledger.job;
        move |generation| ObjectName::Segment(segment, generation).key(&job)
    }

    fn open(&self, segment: SegmentIndex, bytes: Vec<u8>) -> Result<(SegmentHeader, SealedObject), Rejection> {
        let object = SealedObject::open(bytes, ObjectKind::Segment, &self.plan)?;
        let header: SegmentHeader = serde_json::from_slice(object.header())
            .map_err(|error| Rejection::Foreign(format!("segment header of another version: {error}")))?;
        if header.segment != segment {
            return Err(Rejection::Foreign(format!("segment {}, expected {segment}", header.segment)));
        }
        match header.fault() {
            Some(fault) => Err(Rejection::Foreign(fault)),
            None => Ok((header, object)),
        }
    }
}
