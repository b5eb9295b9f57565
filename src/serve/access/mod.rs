//! Who may do what, and from where.
//!
//! Nothing in here knows HTTP: a [`token`] names a caller, a [`role`] says what it may do, a [`network`] says from where, a
//! [`listener`] rule says which addresses may be opened at all, and [`tls`] holds the certificate.

pub mod listener;
pub mod network;
pub mod role;
pub mod tls;
pub mod token;

pub use listener::ListenerRule;
pub use network::AllowList;
pub use role::{Action, Role};
pub use tls::ServerCertificate;
pub use token::{Secret, TokenFile, TokenKeeper, TokenRecord};

/// What was wrong with a token file, a certificate, a network or a listener.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A value that cannot be used, with the way to say it right.
    #[error("{0}")]
    Invalid(String),
    /// A file that cannot be read or written.
    #[error("{what} {path}: {source}", path = path.display())]
    File {
        /// What the file is.
        what: &'static str,
        /// Where it lies.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl AccessError {
    pub(in crate::serve) fn file(what: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File { what, path: path.to_owned(), source }
    }
}
