//! Why a job did not finish, as a stable kind with a fixed exit code.

use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What went wrong, coarse enough to act on; stable across releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The job ran and failed: damaged frames, a codec error, a quarantined segment.
    JobFailed,
    /// The request makes no sense: a foreign output, an unknown container, clashing options.
    Usage,
    /// The input is missing, unreadable or not a video.
    InputUnreadable,
    /// The input was refused: a playlist, absurd dimensions, too many streams.
    InputRefused,
    /// The input was replaced, grown or touched while the job ran.
    InputChanged,
    /// A configuration file, style or weights that cannot be used.
    Configuration,
    /// A store, the output folder or the work folder failed.
    Storage,
    /// No room is left where an object or the output has to go.
    DiskFull,
    /// The asked-for device is not there, or is too full.
    Device,
    /// The device was lost in use; nothing in this process can use it again, so the process should end.
    DeviceLost,
    /// The job was told to stop; what is finished is kept and the same command resumes.
    Interrupted,
}

impl ErrorKind {
    /// Returns the process exit code of this kind; the codes are a contract.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::JobFailed => 1,
            Self::Usage => 2,
            Self::InputUnreadable | Self::InputRefused | Self::InputChanged => 3,
            Self::Configuration => 4,
            Self::Storage | Self::DiskFull => 5,
            Self::Device | Self::DeviceLost => 6,
            Self::Interrupted => 75,
        }
    }

    /// Returns the kind of a name as JSON has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        Self::deserialize(name).ok()
    }

    /// Returns the kind as it is printed in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JobFailed => "job_failed",
            Self::Usage => "usage",
            Self::InputUnreadable => "input_unreadable",
            Self::InputRefused => "input_refused",
            Self::InputChanged => "input_changed",
            Self::Configuration => "configuration",
            Self::Storage => "storage",
            Self::DiskFull => "disk_full",
            Self::Device => "device",
            Self::DeviceLost => "device_lost",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A job's failure: its kind, one line for people, and the frames concerned.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    frames: Vec<u64>,
}

impl Error {
    /// Builds an error from its kind and message: lowercase, no full stop, what and where and what to do.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), frames: Vec::new() }
    }

    /// Names the frames (0-based, whole video) that the error concerns.
    #[must_use]
    pub fn with_frames(mut self, frames: Vec<u64>) -> Self {
        self.frames = frames;
        self
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the frames that could not be done, where the error is about frames.
    #[must_use]
    pub fn frames(&self) -> &[u64] {
        &self.frames
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<restyle_actors::ActorError> for Error {
    fn from(error: restyle_actors::ActorError) -> Self {
        use restyle_actors::ErrorKind as Actor;
        let kind = match error.kind() {
            Actor::InputUnreadable => ErrorKind::InputUnreadable,
            Actor::InputRefused => ErrorKind::InputRefused,
            Actor::InputChanged => ErrorKind::InputChanged,
            Actor::Usage => ErrorKind::Usage,
            Actor::Config => ErrorKind::Configuration,
            Actor::Storage => ErrorKind::Storage,
            Actor::DiskFull => ErrorKind::DiskFull,
            Actor::Device => ErrorKind::Device,
            Actor::DeviceLost => ErrorKind::DeviceLost,
            Actor::Cancelled => ErrorKind::Interrupted,
            _ => ErrorKind::JobFailed,
        };
        Self::new(kind, error.to_string()).with_frames(error.frames().to_vec())
    }
}

impl From<restyle_engine::ledger::LedgerError> for Error {
    fn from(error: restyle_engine::ledger::LedgerError) -> Self {
        restyle_actors::ActorError::from(error).into()
    }
}

impl From<restyle_engine::ledger::StoreError> for Error {
    fn from(error: restyle_engine::ledger::StoreError) -> Self {
        restyle_actors::ActorError::from(error).into()
    }
}
