//! What a job was asked to do, and how it is done: both fixed once, by the first writer.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::digest::Digest;
use super::error::LedgerError;
use super::record::Record;

/// A sealed statement whose content only the stages understand: the request of a job (`job.json`) or
/// its plan (`plan.json`).
///
/// It is always what was read from the bytes that stand, so the process that wrote it and the one
/// that resumes years later see exactly the same values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    digest: Digest,
    content: serde_json::Value,
}

impl Statement {
    /// The digest of the record. A plan's digest is sealed into every segment and pack made for it.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The content as the caller's type.
    ///
    /// # Errors
    /// `Body` where the record was made by a version with other fields.
    pub fn content<C: DeserializeOwned>(&self) -> Result<C, LedgerError> {
        serde_json::from_value(self.content.clone()).map_err(|error| LedgerError::Body(error.to_string()))
    }

    /// Whether this is what a caller would write: same content, whoever wrote it.
    pub fn says<C: Serialize>(&self, content: &C) -> bool {
        serde_json::to_value(content).is_ok_and(|content| content == self.content)
    }
}

impl From<Record<serde_json::Value>> for Statement {
    fn from(record: Record<serde_json::Value>) -> Self {
        Self { digest: record.digest, content: record.body }
    }
}
