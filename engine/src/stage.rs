//! What a stage implements, and the status of a failure that decides whether to try again.

use serde::{Deserialize, Serialize};

/// What a failure says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It may go well next time.
    Transient,
    /// This item is at fault, and only this item suffers.
    Poison,
    /// This worker is at fault and must end.
    Fatal,
    /// The device of this process is gone.
    DeviceLost,
}

/// Why a stage could not process one item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// What it says about trying again.
    pub status: Status,
    /// What was expected, what came, where.
    pub message: String,
}

impl StageError {
    /// A failure with its status.
    pub fn new(status: Status, message: impl Into<String>) -> StageError {
        StageError { status, message: message.into() }
    }
}

/// Work on batches of items, done by one thread that owns whatever the work needs.
///
/// A stage is built on the thread that uses it and never leaves it, so it need not be `Send`.
pub trait Stage<In, Out> {
    /// Most items in one batch; at least 1.
    fn batch_items_max(&self) -> usize;

    /// Whether two items may share a batch. Must be symmetric and transitive.
    fn compatible(&self, first: &In, second: &In) -> bool;

    /// Processes a batch of mutually compatible items, 1 to [`batch_items_max`](Stage::batch_items_max) of them, and
    /// gives a result for each, in order. Blocks for as long as the work takes.
    ///
    /// A panic loses the worker: its items are tried again one by one on a new one.
    fn process(&mut self, batch: &[&In]) -> Vec<Result<Out, StageError>>;
}
