//! Why the service refused or could not do something.

use std::fmt;
use std::time::Duration;

/// What kind of refusal it is; an HTTP status follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceErrorKind {
    /// There is no such job, route, style, node or object, or the caller may not know of it.
    NotFound,
    /// It clashes with what is: the id names another request, the job is in no state for it.
    Conflict,
    /// The caller may see it and not do it.
    Forbidden,
    /// A limit of the route is reached; later there may be room.
    QuotaExceeded {
        /// When asking again makes sense.
        retry_after: Duration,
    },
    /// The request makes no sense.
    Invalid,
    /// What is asked for is not to be had here, such as a presigned URL of a folder.
    Unsupported,
    /// The service is ending and takes nothing new.
    Draining,
    /// The work store, an input, an output or a log location failed.
    Storage,
}

impl ServiceErrorKind {
    /// Returns the kind as it is printed in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Draining => "draining",
            Self::Storage => "storage",
        }
    }
}

/// A refusal or failure of the service: its kind and one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    kind: ServiceErrorKind,
    message: String,
}

impl ServiceError {
    /// Builds an error: lowercase, no full stop, what and where and what to do.
    #[must_use]
    pub fn new(kind: ServiceErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Says that something is not there.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ServiceErrorKind::NotFound, message)
    }

    /// Says that a request makes no sense.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ServiceErrorKind::Invalid, message)
    }

    /// Says that a request clashes with what is.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ServiceErrorKind::Conflict, message)
    }

    /// Says that a store failed.
    #[must_use]
    pub fn storage(message: impl Into<String>) -> Self {
        Self::new(ServiceErrorKind::Storage, message)
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ServiceErrorKind {
        self.kind
    }

    /// Returns when asking again makes sense, where the service knows.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            ServiceErrorKind::QuotaExceeded { retry_after } => Some(retry_after),
            _ => None,
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ServiceError {}

impl From<restyle_actors::ActorError> for ServiceError {
    /// Of a location that could not be used.
    fn from(error: restyle_actors::ActorError) -> Self {
        use restyle_actors::ErrorKind as Actor;
        let kind = match error.kind() {
            Actor::Usage => ServiceErrorKind::Invalid,
            _ => ServiceErrorKind::Storage,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<restyle_engine::ledger::StoreError> for ServiceError {
    fn from(error: restyle_engine::ledger::StoreError) -> Self {
        Self::storage(format!("the work store failed: {error}"))
    }
}
