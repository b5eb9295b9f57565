//! The one mechanism: immutable, checksummed objects in a store are the only truth about a job.
//!
//! ```text
//! jobs/<id>/job.json          what was asked, before the job is acknowledged
//! jobs/<id>/plan.json         how it is done; its digest is sealed into everything made for it
//! jobs/<id>/s/<k>/seg         a finished segment
//! jobs/<id>/s/<k>/pack-*     finished items of a segment that is not finished; removed at its commit
//! jobs/<id>/s/<k>/try-n, fail-n, dead    attempts begun, explained, given up
//! jobs/<id>/publish.json      the output is about to be put at its place
//! jobs/<id>/out.json          the output stands; garbage may go
//! ```
//! `name.1`, `name.2`, ... are further generations of an object whose earlier ones were found invalid.
//!
//! What is absent: nothing here keeps state between calls, knows a clock, or decides by what another
//! process is believed to do. Queues, leases and progress live elsewhere and may be lost.
//!
//! # Invariants held here
//!
//! L10 to L20 of `docs/INVARIANTS.md`, in short: of racing creates one wins (L10); nothing unverified is
//! used (L11); todo = plan - done (L12); an invalid object gives way to the next generation and stays
//! (L13); results that differ end the job (L14); only strikes count, and three are the end (L15 to L17);
//! garbage goes after the output (L18); what was acknowledged survives and is not made again (L19, L20).

pub mod attempts;
pub mod chain;
mod digest;
mod error;
#[cfg(any(test, feature = "faults", feature = "simulate"))]
pub mod faulty;
mod generation;
mod history;
pub mod keys;
#[allow(clippy::module_inception)]
mod ledger;
mod meter;
pub mod object;
pub mod pack;
mod packs;
mod plan;
pub mod record;
pub mod retry;
mod schedule;
mod segments;
pub mod store;
mod timeout;

pub use attempts::{AttemptBegun, AttemptEnd, Attempted, Quarantine, SegmentHistory, Verdict};
pub use chain::{Anchor, Contradiction, Resume, Run, SegmentHeader, Todo, todo};
pub use digest::{Digest, NotHex, SourceHash};
pub use error::{LedgerError, LedgerErrorKind};
#[cfg(any(test, feature = "faults", feature = "simulate"))]
pub use faulty::{FaultyStore, StoreScriptError};
pub use generation::{GENERATIONS_MAX, Standing};
pub use ledger::{Garbage, Ledger, PublishedOutput};
pub use meter::{MeteredStore, StoreStats};
pub use object::{ObjectKind, Rejection};
pub use pack::PackedItem;
pub use packs::{Adopted, AdoptedItem, PackPolicy, PackWriter};
pub use plan::Statement;
pub use retry::{RetryPolicy, RetryStats, RetryStore, Room};
pub use schedule::{NextPass, PassScope, Schedule};
pub use segments::{LoadedSegment, Scan, SegmentLedger};
pub use store::{
    Creation, MemoryStore, ObjectEntry, ObjectLog, ObjectStore, StoreError, StoreErrorKind, StoreOperation,
};

pub use timeout::{LANES_MAX, TimeoutStore};

#[cfg(test)]
mod pack_tests;
#[cfg(test)]
mod tests;
