//! Where inputs and outputs lie: a path, a key of a memory service, or an object of an object store.
//!
//! A location is parsed once and never prints credentials.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opendal::Operator;

use super::access::Access;
use super::remote::{self, RemoteObject, Service};
use super::{SignedUrl, UrlRight, block_on, presign};
use crate::error::{ActorError, Result};

/// Where an object lies.
#[derive(Clone)]
pub enum Location {
    /// A path of the local file system.
    File(PathBuf),
    /// A key in a memory service; for tests and embedders.
    Memory {
        /// The service that holds it.
        store: MemoryStore,
        /// The key in it.
        key: String,
    },
    /// An object of S3, Azure Blob Storage or Google Cloud Storage.
    Remote(RemoteObject),
}

/// A memory service of opendal that several locations can share.
#[derive(Clone)]
pub struct MemoryStore(pub(super) Operator);

impl MemoryStore {
    /// Makes an empty one.
    ///
    /// # Errors
    /// `Config` when opendal refuses to build it.
    pub fn new() -> Result<Self> {
        let operator = Operator::new(opendal::services::Memory::default())
            .map_err(|e| ActorError::Config(format!("cannot make a memory service: {e}")))?;
        Ok(Self(operator))
    }

    /// Puts an object, replacing what was there. Blocks.
    ///
    /// # Errors
    /// `Storage` when the service refuses.
    pub fn put(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        let (operator, path) = (self.0.clone(), key.to_owned());
        block_on(async move { operator.write(&path, bytes).await })?
            .map(|_| ())
            .map_err(|e| ActorError::storage(format!("cannot write memory:{key}: {e}")))
    }

    /// Puts an object unless its key is taken; tells whether it did. Blocks.
    ///
    /// # Errors
    /// `Storage` when the service refuses.
    pub fn put_new(&self, key: &str, bytes: Vec<u8>) -> Result<bool> {
        let (operator, path) = (self.0.clone(), key.to_owned());
        match block_on(async move { operator.write_with(&path, bytes).if_not_exists(true).await })? {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == opendal::ErrorKind::ConditionNotMatch => Ok(false),
            Err(e) => Err(ActorError::storage(format!("cannot write memory:{key}: {e}"))),
        }
    }

    /// Gets an object; `None` where there is none. Blocks.
    ///
    /// # Errors
    /// `Storage` when the service refuses.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let (operator, path) = (self.0.clone(), key.to_owned());
        match block_on(async move { operator.read(&path).await })? {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(e) if e.kind() == opendal::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(ActorError::storage(format!("cannot read memory:{key}: {e}"))),
        }
    }

    /// Names an object of this service.
    #[must_use]
    pub fn location(&self, key: &str) -> Location {
        Location::Memory { store: self.clone(), key: key.to_owned() }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl Location {
    /// Parses a path or a URL of the schemes `file:`, `s3:`, `azblob:`, `gs:`.
    ///
    /// A text without one of these schemes is a path, whatever it looks like. `azblob:` URLs are
    /// `azblob://CONTAINER/KEY` in the account that the environment names, or `azblob://HOST/CONTAINER/KEY`; they may carry
    /// a shared access signature as their query. How stores are reached comes from [`Access::from_env`].
    ///
    /// # Errors
    /// `Usage` for an empty text, a `file:` URL with a host, a URL of a scheme that nothing here serves or a key that no
    /// store can hold; `Config` for a URL that carries a key of an account.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_with(text, Access::from_env)
    }

    /// Parses as [`Location::parse`] does; `access` says how object stores are reached, and is asked only for one.
    ///
    /// # Errors
    /// As [`Location::parse`].
    pub fn parse_with(text: &str, access: impl FnOnce() -> Access) -> Result<Self> {
        if text.is_empty() {
            return Err(ActorError::Usage("expected a path or a storage url, got an empty text".to_owned()));
        }
        let scheme = text.split_once(':').map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
        match scheme {
            Some((scheme, rest)) if scheme == "file" => parse_file_url(text, rest),
            Some((scheme, rest)) if Service::of_scheme(&scheme).is_some() => {
                let service = Service::of_scheme(&scheme).expect("looked at just now");
                remote::parse(service, rest, access()).map(Self::Remote)
            }
            Some((scheme, rest)) if rest.starts_with("//") && is_scheme(&scheme) && !Path::new(text).exists() => {
                Err(ActorError::Usage(format!(
                    "storage scheme {scheme}: is not served; give a path or a file:, s3:, azblob: or gs: url"
                )))
            }
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }

    /// Returns the path where this is a local file.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            _ => None,
        }
    }

    /// Returns the file extension in lower case, without the dot.
    #[must_use]
    pub fn extension(&self) -> Option<String> {
        let path = match self {
            Self::File(path) => path.as_path(),
            Self::Memory { key, .. } => Path::new(key),
            Self::Remote(object) => Path::new(object.key()),
        };
        path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase())
    }

    /// Makes a URL that lets whoever has it do one thing with this one object for a time. Blocks where credentials have
    /// to be fetched; nothing is asked of the object.
    ///
    /// # Errors
    /// `Usage` for files, memory, folders and lifetimes over a week; `Config` where the credentials at hand cannot make
    /// a URL that grants less than they do.
    pub fn presign(&self, right: UrlRight, lifetime: Duration) -> Result<SignedUrl> {
        match self {
            Self::Remote(object) => presign::presign(object, right, lifetime),
            Self::File(_) | Self::Memory { .. } => Err(ActorError::Usage(format!(
                "{self} cannot be reached by a url of its own; stream it through the service instead"
            ))),
        }
    }
}

fn parse_file_url(text: &str, rest: &str) -> Result<Location> {
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(after) => {
            let path = after.strip_prefix("localhost").unwrap_or(after);
            if !path.starts_with('/') {
                return Err(ActorError::Usage(format!(
                    "a file url names no host but localhost, got {text}; write file:///absolute/path"
                )));
            }
            path
        }
    };
    let path = percent_decoded(path)
        .filter(|bytes| !bytes.is_empty() && !bytes.contains(&0))
        .ok_or_else(|| ActorError::Usage(format!("cannot read {text} as a file url; write file:///absolute/path")))?;
    use std::os::unix::ffi::OsStringExt as _;
    Ok(Location::File(PathBuf::from(std::ffi::OsString::from_vec(path))))
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(bytes)
}

fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Memory { key, .. } => write!(f, "memory:{key}"),
            Self::Remote(object) => write!(f, "{object}"),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}
