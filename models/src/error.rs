//! The one error type of the crate, with a kind to match on.

/// What went wrong, for callers that decide by kind: exit code, retry, message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelErrorKind {
    /// The style file is not what the network needs (damaged, wrong names, wrong shapes).
    Weights,
    /// The picture or pixel format given is inconsistent or unsupported.
    Picture,
    /// The options given cannot be met (a width of zero, an unknown device name).
    Options,
    /// The device is missing, refused or not compiled in.
    Device,
    /// The device has no room for the work now; it may have later, and for smaller pictures.
    DeviceFull,
    /// The device was there and is gone; the process should end and be started again.
    DeviceLost,
    /// A failure inside the numeric library that has no better name.
    Numeric,
}

/// An error of loading, converting, stylizing or training.
///
/// Messages are lowercase without a full stop and say what was expected, what came, and where.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The bytes of a style file cannot be used.
    #[error("{0}")]
    Weights(String),
    /// A picture contradicts its own format, or pictures of one batch differ in shape.
    #[error("{0}")]
    Picture(String),
    /// An option outside its range.
    #[error("{0}")]
    Options(String),
    /// The chosen device cannot be used.
    #[error("{0}")]
    Device(String),
    /// The device has no room for the work.
    #[error("{0}")]
    DeviceFull(String),
    /// The device was lost while in use.
    #[error("{0}")]
    DeviceLost(String),
    /// A candle operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    /// Returns the kind to decide by.
    pub fn kind(&self) -> ModelErrorKind {
        match self {
            Self::Weights(_) => ModelErrorKind::Weights,
            Self::Picture(_) => ModelErrorKind::Picture,
            Self::Options(_) => ModelErrorKind::Options,
            Self::Device(_) => ModelErrorKind::Device,
            Self::DeviceFull(_) => ModelErrorKind::DeviceFull,
            Self::DeviceLost(_) => ModelErrorKind::DeviceLost,
            Self::Tensor(_) => ModelErrorKind::Numeric,
        }
    }
}
