//! Why a stage could not do its work: a kind to match, a status that decides retry, one line for people.
//!
//! Messages are lowercase without a full stop and say what was expected, what came, where, and what to do. They never
//! carry credentials.

use restyle_engine::Status;
use restyle_engine::error::EngineError;
use restyle_engine::ledger::{LedgerError, LedgerErrorKind, StoreError, StoreErrorKind};
use restyle_models::{ModelError, ModelErrorKind};

/// Result of everything in this crate that the world can make fail.
pub type Result<T, E = ActorError> = std::result::Result<T, E>;

/// What went wrong, coarse enough to act on; stable, and mapped to exit codes by the root crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is missing, cut short, or not something that can be decoded.
    InputUnreadable,
    /// The input is readable but not accepted: a playlist, absurd dimensions, too many streams.
    InputRefused,
    /// The input was replaced, grown or touched since the job began.
    InputChanged,
    /// The request makes no sense: an output that stands already, clashing options.
    Usage,
    /// A setting that this build cannot serve.
    Config,
    /// A store or folder failed.
    Storage,
    /// No room is left where something has to be written.
    DiskFull,
    /// Frames of the source are damaged and concealment was not asked for.
    Damaged,
    /// A codec or muxer failed on data that it should take.
    Codec,
    /// A device is not there, or is too full.
    Device,
    /// A device was there and is gone, for the rest of this process.
    DeviceLost,
    /// The work was told to stop.
    Cancelled,
}

/// A stage's failure.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ActorError {
    /// The input is missing, cut short, or not something that can be decoded.
    #[error("{0}")]
    InputUnreadable(String),
    /// The input is readable but not accepted.
    #[error("{0}")]
    InputRefused(String),
    /// The input was replaced, grown or touched since the job began.
    #[error("{0}")]
    InputChanged(String),
    /// The request makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A setting that this build cannot serve.
    #[error("{0}")]
    Config(String),
    /// A store or folder failed; `transient` says that the same call may succeed later.
    #[error("{message}")]
    Storage {
        /// What failed and where.
        message: String,
        /// Whether trying again is worth it.
        transient: bool,
    },
    /// No room is left where something has to be written.
    #[error("{0}")]
    DiskFull(String),
    /// Frames of the source are damaged and concealment was not asked for.
    #[error("{message}")]
    Damaged {
        /// Global indices of the damaged frames, counted from the first frame that is delivered.
        frames: Vec<u64>,
        /// What was found and what to do.
        message: String,
    },
    /// A codec or muxer failed on data that it should take.
    #[error("{0}")]
    Codec(String),
    /// A stage panicked or hung; it is begun again, a few times.
    #[error("{message}")]
    Crashed {
        /// Global index of the frame that it was at, where one is known.
        frames: Vec<u64>,
        /// What happened.
        message: String,
    },
    /// A device is not there, or is too full.
    #[error("{0}")]
    Device(String),
    /// A device was lost in use; the process that holds it should end, since nothing in it can use the device again.
    #[error("{0}")]
    DeviceLost(String),
    /// The work was told to stop.
    #[error("cancelled before it was finished")]
    Cancelled,
}

impl ActorError {
    /// Builds a storage error that is not worth trying again.
    #[must_use]
    pub fn storage(message: impl Into<String>) -> Self {
        Self::Storage { message: message.into(), transient: false }
    }

    /// Maps an I/O error of a *write* side: a full disk keeps its own kind, interruptions are transient.
    #[must_use]
    pub fn from_write(what: &str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let message = format!("{what}: {error}");
        match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => {
                Self::DiskFull(format!("{message}; free some room and run the same command again"))
            }
            Io::Interrupted | Io::TimedOut | Io::WouldBlock => Self::Storage { message, transient: true },
            _ => Self::Storage { message, transient: false },
        }
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InputUnreadable(_) => ErrorKind::InputUnreadable,
            Self::InputRefused(_) => ErrorKind::InputRefused,
            Self::InputChanged(_) => ErrorKind::InputChanged,
            Self::Usage(_) => ErrorKind::Usage,
            Self::Config(_) => ErrorKind::Config,
            Self::Storage { .. } => ErrorKind::Storage,
            Self::DiskFull(_) => ErrorKind::DiskFull,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Codec(_) | Self::Crashed { .. } => ErrorKind::Codec,
            Self::Device(_) => ErrorKind::Device,
            Self::DeviceLost(_) => ErrorKind::DeviceLost,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Returns what a supervisor may do about it.
    ///
    /// Only transient storage errors and crashed stages are worth trying again as they are; damage condemns its frames alone, a missing or lost
    /// device the node on it, everything else the worker that met it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Storage { transient: true, .. } | Self::Crashed { .. } => Status::Transient,
            Self::Damaged { .. } => Status::Poison,
            Self::Device(_) | Self::DeviceLost(_) => Status::DeviceLost,
            _ => Status::Fatal,
        }
    }

    /// Returns the global indices of the frames concerned; empty where the error is not about frames.
    #[must_use]
    pub fn frames(&self) -> &[u64] {
        match self {
            Self::Damaged { frames, .. } | Self::Crashed { frames, .. } => frames,
            _ => &[],
        }
    }
}

impl ActorError {
    /// Says that a frame cannot be scored.
    #[must_use]
    pub fn frame_failed(frame: u64, why: &str) -> Self {
        Self::Damaged { frames: vec![frame], message: format!("frame {frame} cannot be scored: {why}") }
    }
}

impl From<LedgerError> for ActorError {
    fn from(error: LedgerError) -> Self {
        match error.kind() {
            LedgerErrorKind::Store(StoreErrorKind::DiskFull) => Self::DiskFull(error.to_string()),
            _ => Self::Storage { message: error.to_string(), transient: error.status() == Status::Transient },
        }
    }
}

impl From<StoreError> for ActorError {
    fn from(error: StoreError) -> Self {
        LedgerError::from(error).into()
    }
}

impl From<EngineError> for ActorError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Cancelled(_) => Self::Cancelled,
            other => Self::Codec(other.to_string()),
        }
    }
}

impl From<ModelError> for ActorError {
    fn from(error: ModelError) -> Self {
        match error.kind() {
            ModelErrorKind::Device | ModelErrorKind::DeviceFull => Self::Device(error.to_string()),
            ModelErrorKind::DeviceLost => Self::DeviceLost(error.to_string()),
            ModelErrorKind::Weights | ModelErrorKind::Options => Self::Config(error.to_string()),
            _ => Self::Codec(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_keeps_its_kind() {
        let error = ActorError::from_write("cannot write x", &std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(error.kind(), ErrorKind::DiskFull);
        let error =
            ActorError::from_write("cannot write x", &std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        assert_eq!(error.kind(), ErrorKind::Storage);
    }

    #[test]
    fn damage_names_its_frames() {
        let error = ActorError::Damaged { frames: vec![3, 4], message: "frames 3 and 4 are damaged".into() };
        assert_eq!(error.frames(), [3, 4]);
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
}
