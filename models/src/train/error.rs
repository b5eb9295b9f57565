//! What can go wrong while training.

use std::path::PathBuf;

/// An error of training, with what was expected and what came.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The feature network's file does not fit.
    #[error("feature network: {0}")]
    Features(String),
    /// A configuration value is out of its range.
    #[error("training configuration: {0}")]
    Config(String),
    /// A picture cannot be read.
    #[error("picture {}: {reason}; give a PNG or JPEG file of at most 32 megapixels", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// A checkpoint does not belong to this training.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why it was refused.
        reason: String,
    },
    /// The losses are no numbers any more.
    #[error(
        "training diverged at iteration {iteration}: the loss or its gradient is not finite; lower the learning rate"
    )]
    Diverged {
        /// The iteration whose loss, or gradient for the last of several times, was not finite.
        iteration: u32,
    },
    /// The network draws the same colour everywhere, from which no gradient leads back.
    #[error("training collapsed at iteration {iteration}: the picture became flat; lower the learning rate")]
    Collapsed {
        /// The iteration whose picture was flat.
        iteration: u32,
    },
    /// The device to compute on is not there.
    #[error("{0}")]
    Device(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A tensor operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// The kind of a [`TrainError`], to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainErrorKind {
    /// An input (painting, photo, features) does not fit.
    Input,
    /// A configuration value does not fit.
    Config,
    /// A checkpoint does not fit.
    Checkpoint,
    /// Training diverged.
    Diverged,
    /// The device to compute on is not there.
    Device,
    /// A file cannot be read or written.
    Io,
    /// A fault of this crate or of candle.
    Internal,
}

impl TrainError {
    /// What kind of error this is.
    pub fn kind(&self) -> TrainErrorKind {
        match self {
            Self::Features(_) | Self::Picture { .. } => TrainErrorKind::Input,
            Self::Config(_) => TrainErrorKind::Config,
            Self::Checkpoint { .. } => TrainErrorKind::Checkpoint,
            Self::Diverged { .. } | Self::Collapsed { .. } => TrainErrorKind::Diverged,
            Self::Device(_) => TrainErrorKind::Device,
            Self::Io { .. } => TrainErrorKind::Io,
            Self::Tensor(_) => TrainErrorKind::Internal,
        }
    }

    pub(crate) fn features(reason: String) -> Self {
        Self::Features(reason)
    }

    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
