//! A hint beside the ledger: which frames were ever scored for a job, so that work done twice can be counted.
//!
//! The log is not synced and nothing depends on it: a lost tail only makes the count of re-scored frames too low.

use crate::error::{ActorError, Result};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of an entry: the frame's number, little endian.
const ENTRY_BYTES: usize = 8;

/// The scored frames of a job, over all of its runs.
#[derive(Debug)]
pub struct ScoredLog {
    file: Mutex<File>,
    before: HashSet<u64>,
    entries_before: u64,
    rescored: AtomicU64,
    scored: AtomicU64,
}

impl ScoredLog {
    /// Opens the log in a job's folder, creating it when it is not there.
    ///
    /// # Errors
    /// Storage errors of the folder.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("scored.log");
        let what = || format!("cannot open {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|e| ActorError::from_write(&what(), &e))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| ActorError::from_write(&what(), &e))?;
        let numbers = bytes.chunks_exact(ENTRY_BYTES).filter_map(|c| c.try_into().ok()).map(u64::from_le_bytes);
        let (before, entries_before) = (numbers.collect(), (bytes.len() / ENTRY_BYTES) as u64);
        Ok(Self {
            file: Mutex::new(file),
            before,
            entries_before,
            rescored: AtomicU64::new(0),
            scored: AtomicU64::new(0),
        })
    }

    /// Notes that a frame was scored.
    pub fn note(&self, frame: u64) {
        self.scored.fetch_add(1, Ordering::Relaxed);
        if self.before.contains(&frame) {
            self.rescored.fetch_add(1, Ordering::Relaxed);
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not stop the scorer for the sake of a hint; one write keeps entries whole.
        if let Err(error) = file.write_all(&frame.to_le_bytes()) {
            tracing::debug!(%error, "a scored frame was not noted");
        }
    }

    /// Whether an earlier run had scored a frame.
    #[must_use]
    pub fn was_scored_before(&self, frame: u64) -> bool {
        self.before.contains(&frame)
    }

    /// Returns how many frames this run scored that an earlier run had scored as well.
    #[must_use]
    pub fn rescored(&self) -> u64 {
        self.rescored.load(Ordering::Relaxed)
    }

    /// Returns how many times a frame of this job was scored, over all runs.
    #[must_use]
    pub fn scored_ever(&self) -> u64 {
        self.entries_before + self.scored.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_knows_what_the_first_scored() {
        let folder = tempfile::tempdir().unwrap();
        let first = ScoredLog::open(folder.path()).unwrap();
        (0..3).for_each(|n| first.note(n));
        assert_eq!((first.rescored(), first.scored_ever()), (0, 3));
        let second = ScoredLog::open(folder.path()).unwrap();
        (2..4).for_each(|n| second.note(n));
        assert_eq!((second.rescored(), second.scored_ever()), (1, 5));
    }
}
