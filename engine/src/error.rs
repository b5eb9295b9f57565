//! What can go wrong in the engine itself.

use crate::cancel::Cancelled;
use crate::lease::Revoked;
use crate::stage::Status;
use crate::worker::NodeId;

/// An error of the engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A wait ended because it was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A result came too late.
    #[error(transparent)]
    Revoked(#[from] Revoked),
    /// The control plane has ended, or could not begin.
    #[error("control plane is not running: {0}")]
    ControlGone(String),
    /// A stage was described in a way that cannot work.
    #[error("stage {stage}: {message}")]
    BadStage {
        /// The stage.
        stage: String,
        /// What was expected, what came.
        message: String,
    },
    /// An order named a node that the stage does not have.
    #[error("stage {stage} has no node {node}: it has {known}")]
    UnknownNode {
        /// The stage.
        stage: String,
        /// The node that was named.
        node: NodeId,
        /// The nodes it has.
        known: String,
    },
    /// A node cannot follow an order in the phase it is in.
    #[error("node {node} is {phase} and cannot {order}")]
    OrderRefused {
        /// The node.
        node: NodeId,
        /// What was asked of it.
        order: &'static str,
        /// What it is doing.
        phase: &'static str,
    },
}

/// The kind of an [`EngineError`], to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineErrorKind {
    /// See [`EngineError::Cancelled`].
    Cancelled,
    /// See [`EngineError::Revoked`].
    Revoked,
    /// See [`EngineError::ControlGone`].
    ControlGone,
    /// The caller asked for something that does not exist: [`EngineError::BadStage`], [`EngineError::UnknownNode`].
    Usage,
    /// See [`EngineError::OrderRefused`].
    OrderRefused,
}

impl EngineError {
    /// The kind, to match on.
    pub fn kind(&self) -> EngineErrorKind {
        match self {
            EngineError::Cancelled(_) => EngineErrorKind::Cancelled,
            EngineError::Revoked(_) => EngineErrorKind::Revoked,
            EngineError::ControlGone(_) => EngineErrorKind::ControlGone,
            EngineError::BadStage { .. } | EngineError::UnknownNode { .. } => EngineErrorKind::Usage,
            EngineError::OrderRefused { .. } => EngineErrorKind::OrderRefused,
        }
    }

    /// What it says about trying again.
    pub fn status(&self) -> Status {
        match self.kind() {
            EngineErrorKind::Cancelled | EngineErrorKind::Revoked | EngineErrorKind::OrderRefused => Status::Transient,
            EngineErrorKind::ControlGone | EngineErrorKind::Usage => Status::Fatal,
        }
    }
}
