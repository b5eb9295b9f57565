//! What the ledger can fail with.

use super::chain::Contradiction;
use super::object::Rejection;
use super::store::{StoreError, StoreErrorKind};
use crate::item::JobId;
use crate::stage::Status;

/// A ledger operation that did not succeed. Damaged and foreign objects are not errors where the
/// work can be done again; they are counted and passed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object that had to be valid is not.
    #[error("object {key:?} in the work store is not usable: {rejection}")]
    Rejected {
        /// Its key.
        key: String,
        /// Why.
        rejection: Rejection,
    },
    /// Generation after generation was found invalid: the store itself spoils what is written.
    #[error(
        "{generations} generations of {key:?} in the work store are all invalid (the last: {rejection}); check the disk"
    )]
    Spoiled {
        /// The key of the first generation.
        key: String,
        /// How many were tried.
        generations: u32,
        /// What was wrong with the last.
        rejection: Rejection,
    },
    /// An object that had to be there is not.
    #[error("object {key:?} is missing from the work store")]
    Missing {
        /// Its key.
        key: String,
    },
    /// Two results for the same work differ.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// A caller's value and a record's body do not fit each other.
    #[error("the body of a record does not fit: {0}")]
    Body(String),
    /// Garbage may go only after the output stands (L18).
    #[error("job {0} has no recorded output yet; its segments are not garbage")]
    NotPublished(JobId),
}

/// What callers match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerErrorKind {
    /// The store failed in this way.
    Store(StoreErrorKind),
    /// An object is damaged, foreign or missing, or the store spoils objects.
    Damaged,
    /// Results that must be equal differ.
    Contradiction,
    /// The caller asked for what cannot be.
    Misuse,
}

impl LedgerError {
    /// The kind to match on.
    pub fn kind(&self) -> LedgerErrorKind {
        match self {
            Self::Store(error) => LedgerErrorKind::Store(error.kind()),
            Self::Rejected { .. } | Self::Spoiled { .. } | Self::Missing { .. } => LedgerErrorKind::Damaged,
            Self::Contradiction(_) => LedgerErrorKind::Contradiction,
            Self::Body(_) | Self::NotPublished(_) => LedgerErrorKind::Misuse,
        }
    }

    /// Whether trying again may help: a damaged or missing object is made again by the next pass.
    pub fn status(&self) -> Status {
        match self {
            Self::Store(error) => error.status(),
            Self::Rejected { .. } | Self::Missing { .. } => Status::Transient,
            Self::Spoiled { .. } | Self::Contradiction(_) | Self::Body(_) | Self::NotPublished(_) => Status::Fatal,
        }
    }
}
