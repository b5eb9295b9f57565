//! Names that come from outside, checked once: whoever holds one need not ask again.

use super::error::ServiceError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest id, tenant or route name, in bytes.
pub const NAME_BYTES_MAX: usize = 100;
/// Longest object key, in bytes.
pub const OBJECT_KEY_BYTES_MAX: usize = 512;

/// Declares a name of letters, digits, dot, underscore and dash.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $type(String);

        impl $type {
            /// Checks a name: 1 to 100 letters, digits, dots, underscores and dashes, the first one no dot.
            ///
            /// # Errors
            /// [`super::ServiceErrorKind::Invalid`] saying what is wrong with it.
            pub fn parse(text: &str) -> Result<Self, ServiceError> {
                check_name($what, text).map(|()| Self(text.to_owned()))
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = ServiceError;
            fn try_from(text: String) -> Result<Self, ServiceError> {
                check_name($what, &text).map(|()| Self(text))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl FromStr for $type {
            type Err = ServiceError;
            fn from_str(text: &str) -> Result<Self, ServiceError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Who a route and its jobs belong to.
    Tenant,
    "a tenant"
);
name!(
    /// A client's own id of a job, unique in its tenant: the key that makes creating a job idempotent.
    ClientJobId,
    "a job id"
);
name!(
    /// What a route is called.
    RouteName,
    "a route name"
);

impl Default for Tenant {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

fn check_name(what: &str, text: &str) -> Result<(), ServiceError> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(ServiceError::invalid(format!("{what} has 1 to {NAME_BYTES_MAX} bytes, got {}", text.len())));
    }
    if text.starts_with('.') {
        return Err(ServiceError::invalid(format!("{what} does not begin with a dot")));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err(ServiceError::invalid(format!("{what} holds only letters, digits, dot, underscore and dash")));
    }
    Ok(())
}

/// The key of an object inside a configured location: relative, so that it can name nothing outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks a key: relative, parts joined by single slashes, no part begins with a dot, no backslash, colon at most after
    /// the first part, no control character, at most 512 bytes.
    ///
    /// # Errors
    /// [`super::ServiceErrorKind::Invalid`] saying what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ServiceError> {
        Self::try_from(text.to_owned())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part behind the last slash.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Returns everything up to and with the last slash; empty where there is none.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.0.rfind('/').map_or("", |at| &self.0[..=at])
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = ServiceError;

    fn try_from(text: String) -> Result<Self, ServiceError> {
        let refused = |why: &str| Err(ServiceError::invalid(format!("an object key {why}")));
        if text.is_empty() || text.len() > OBJECT_KEY_BYTES_MAX {
            return refused(&format!("has 1 to {OBJECT_KEY_BYTES_MAX} bytes, got {}", text.len()));
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return refused("holds no control characters and no backslash");
        }
        if text.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
            return refused("is relative, has no empty part, and no part that begins with a dot");
        }
        if text.split('/').next().is_some_and(|first| first.contains(':')) {
            return refused("names an object inside the route's location, not a URL");
        }
        Ok(Self(text))
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> String {
        key.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose jobs a caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    All,
    /// One tenant's.
    Tenant(Tenant),
}

impl Scope {
    /// Whether something of `tenant` may be seen.
    #[must_use]
    pub fn sees(&self, tenant: &Tenant) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(own) => own == tenant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_small_alphabet() {
        for good in ["a", "Job-1_x.y", &"x".repeat(NAME_BYTES_MAX)] {
            assert!(ClientJobId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", "a\n", "%2e", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(Tenant::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_cannot_leave_their_location() {
        for good in ["clip.mp4", "a/b/ü clip.mp4", "a:b/c".trim_start_matches("a:"), "a/b:c"] {
            assert!(ObjectKey::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "s3://b/k", "a\\b", "a\0", ".hidden", "a/.x", "./a"]
        {
            assert!(ObjectKey::parse(bad).is_err(), "{bad:?}");
        }
        let key = ObjectKey::parse("a/b/c.mp4").unwrap();
        assert_eq!((key.folder(), key.file_name()), ("a/b/", "c.mp4"));
    }
}
