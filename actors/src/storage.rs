//! Where inputs and outputs lie, and ranged reads that notice when the object is no longer the one that was planned.
//!
//! A [`Location`] is parsed once and never prints credentials. A [`Blob`] is one object opened for reading: it is never
//! held whole and every read is a range. An object store is asked for the very version that was opened; where it names
//! none, and for files, the identity is looked at again after every read. Bytes of two versions never mix.

use std::fmt;
use std::future::Future;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use opendal::options::ReaderOptions;
use opendal::{Operator, Reader};
use serde::{Deserialize, Serialize};

use crate::error::{ActorError, Result};

mod access;
mod folder;
mod location;
mod presign;
mod remote;
pub(crate) mod upload;

pub use access::{Access, AzblobAccess, GsAccess, Limits, S3Access, S3Keys, Secret};
pub use folder::{Folder, FolderEntry, Listing};
pub use location::{Location, MemoryStore};
pub use presign::{SignedUrl, UrlRight};
pub use remote::{HOW_TO_GIVE_KEYS, RemoteObject, Service};
pub(crate) use remote::{describe, is_passing};
pub use upload::Upload;

/// Bytes at each end that the identity's digest covers.
const DIGEST_BYTES: u64 = 1 << 20;

/// What tells one version of an object from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// Where it lies, without credentials.
    pub url: String,
    /// Size in bytes.
    pub size: u64,
    /// What the store says about this version.
    pub version: ObjectVersion,
    /// blake3 of the first and last MiB (of everything where the object is shorter than both), in hex.
    pub ends_digest: String,
}

/// What a store says about one version of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectVersion {
    /// A local file.
    File {
        /// Device number.
        device: u64,
        /// Inode number.
        inode: u64,
        /// Time of the last change to the content, in nanoseconds since 1970.
        mtime_ns: i128,
    },
    /// An object of a store, by whatever it offers.
    Object {
        /// Entity tag.
        etag: Option<String>,
        /// Version id.
        version: Option<String>,
        /// Time of the last change, as the store writes it.
        last_modified: Option<String>,
    },
}

/// One object opened for reading.
///
/// Reads block the calling thread; they run on a small runtime of this crate, so they may be called from any thread
/// that may block, inside another runtime's `spawn_blocking` too.
pub struct Blob {
    location: Location,
    operator: Operator,
    key: String,
    reader: Reader,
    identity: SourceIdentity,
    /// Every read asks for the version that was opened, and fails where it is gone.
    is_pinned: bool,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Blob {
    /// Opens an object and takes its identity; reads its first and last MiB. Blocks.
    ///
    /// # Errors
    /// `InputUnreadable` where there is no such object or it may not be read, `InputRefused` for folders, devices,
    /// pipes and empty objects, `Config` for buckets that cannot be reached as configured, `Storage` where a store does
    /// not answer.
    pub fn open(location: &Location) -> Result<Self> {
        let (operator, key) = match location {
            Location::File(path) => open_local(path)?,
            Location::Memory { store, key } => (store.0.clone(), key.clone()),
            Location::Remote(object) if object.is_folder() => {
                return Err(ActorError::InputUnreadable(format!("input {location} is a folder; give one video file")));
            }
            Location::Remote(object) => (object.operator()?, object.key().to_owned()),
        };
        let (version, size) = observe_version(location, &operator, &key)
            .map_err(|e| as_input(location, e))?
            .ok_or_else(|| unreadable(location, "there is no such object; check its name"))?;
        if size == 0 {
            return Err(ActorError::InputUnreadable(format!("input {location} is empty (0 bytes); give a video file")));
        }
        let etag = match (&version, location) {
            (ObjectVersion::Object { etag, .. }, Location::Remote(_)) => etag.clone(),
            _ => None,
        };
        let is_pinned = etag.is_some();
        let options = ReaderOptions { if_match: etag, ..ReaderOptions::default() };
        let (for_reader, path) = (operator.clone(), key.clone());
        let reader = block_on(async move { for_reader.reader_options(&path, options).await })?
            .map_err(|e| unreadable(location, &describe(&e)))?;
        let identity = SourceIdentity { url: location.to_string(), size, version, ends_digest: String::new() };
        let mut blob = Self { location: location.clone(), operator, key, reader, identity, is_pinned };
        blob.identity.ends_digest = blob.digest_ends().map_err(|e| as_input(location, e))?;
        Ok(blob)
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.identity.size
    }

    /// Returns what tells this version of the object from others.
    #[must_use]
    pub fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    /// Returns where it lies.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Reads up to `out.len()` bytes at `offset` and returns how many; fewer only at the end. Blocks.
    ///
    /// # Errors
    /// `InputChanged` where the object is no longer the one that was opened, `Storage` where reading failed.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let end = self.size().min(offset.saturating_add(out.len() as u64));
        if offset >= end {
            return Ok(0);
        }
        let reader = self.reader.clone();
        let read = block_on(async move { reader.read(offset..end).await })?;
        if !self.is_pinned {
            // Identity first: where the object changed, that is the error, whatever the read said.
            self.verify()?;
        }
        let bytes = read.map_err(|e| self.read_error(offset, &e))?;
        let mut count = 0;
        for chunk in bytes {
            let take = chunk.len().min(out.len() - count);
            out[count..count + take].copy_from_slice(&chunk[..take]);
            count += take;
        }
        Ok(count)
    }

    /// Checks that the object still is the one that was opened. Blocks.
    ///
    /// # Errors
    /// `InputChanged` where it is not, `Storage` where the store does not answer.
    pub fn verify(&self) -> Result<()> {
        match observe_version(&self.location, &self.operator, &self.key)? {
            None => Err(self.changed("it was removed")),
            Some((_, size)) if size > self.size() => Err(self.changed("it grew")),
            Some((_, size)) if size < self.size() => Err(self.changed("it was cut short")),
            Some((version, _)) if version != self.identity.version => {
                Err(self.changed("it was replaced or written to"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Returns the error for an object whose bytes end before its size does.
    pub(crate) fn cut_short(&self, at: u64) -> ActorError {
        self.changed(&format!("it ends at byte {at} of {}", self.size()))
    }

    fn changed(&self, how: &str) -> ActorError {
        ActorError::InputChanged(format!(
            "input {} changed since it was opened: {how}; run again to start a new job with the new content",
            self.location
        ))
    }

    fn read_error(&self, offset: u64, error: &opendal::Error) -> ActorError {
        match error.kind() {
            opendal::ErrorKind::NotFound => self.changed("it was removed"),
            opendal::ErrorKind::ConditionNotMatch => self.changed("it was replaced or written to"),
            opendal::ErrorKind::RangeNotSatisfied => self.changed("it was cut short"),
            _ => ActorError::Storage {
                message: format!("cannot read {} at byte {offset}: {}", self.location, describe(error)),
                transient: is_passing(error),
            },
        }
    }

    fn digest_ends(&self) -> Result<String> {
        let size = self.size();
        let mut hasher = blake3::Hasher::new();
        let ranges = if size <= 2 * DIGEST_BYTES {
            vec![(0, size)]
        } else {
            vec![(0, DIGEST_BYTES), (size - DIGEST_BYTES, DIGEST_BYTES)]
        };
        for (offset, length) in ranges {
            let mut bytes = vec![0; length as usize];
            let count = self.read_at(offset, &mut bytes)?;
            if count < bytes.len() {
                return Err(self.cut_short(offset + count as u64));
            }
            hasher.update(&bytes);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// Checks that a path can be read as a video and makes an operator for its folder.
fn open_local(path: &Path) -> Result<(Operator, String)> {
    let shown = path.display();
    let io = |e: std::io::Error| unreadable_io(path, &e);
    let metadata = std::fs::metadata(path).map_err(io)?;
    if metadata.is_dir() {
        return Err(ActorError::InputUnreadable(format!("input {shown} is a folder; give one video file")));
    }
    if !metadata.is_file() {
        return Err(ActorError::InputRefused(format!(
            "input {shown} is neither a file nor a link to one; pipes and devices cannot be resumed, copy it to a file first"
        )));
    }
    // Asking for one byte tells "may not be read" apart from everything that opendal would report alike.
    std::fs::File::open(path).and_then(|mut file| file.read(&mut [0])).map_err(io)?;
    let full = std::path::absolute(path).map_err(io)?;
    let name = full.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let folder = full.parent().and_then(|folder| folder.to_str()).map(str::to_owned);
    let (Some(name), Some(folder)) = (name, folder) else {
        return Err(ActorError::InputUnreadable(format!(
            "input {shown}: names that are not unicode are not served; rename it"
        )));
    };
    let operator = Operator::new(opendal::services::Fs::default().root(&folder))
        .map_err(|e| ActorError::storage(format!("cannot open the folder of {shown}: {e}")))?;
    Ok((operator, name))
}

/// Asks the store which version stands there now, with its size; `None` where nothing does.
fn observe_version(location: &Location, operator: &Operator, key: &str) -> Result<Option<(ObjectVersion, u64)>> {
    if let Location::File(path) = location {
        return match std::fs::metadata(path) {
            Ok(m) => {
                let mtime_ns = i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec());
                Ok(Some((ObjectVersion::File { device: m.dev(), inode: m.ino(), mtime_ns }, m.len())))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(unreadable_io(path, &e)),
        };
    }
    let (operator, path) = (operator.clone(), key.to_owned());
    match block_on(async move { operator.stat(&path).await })? {
        Ok(m) => {
            let etag = m.etag().map(str::to_owned);
            let version = ObjectVersion::Object {
                version: m.version().map(str::to_owned),
                // An entity tag says more, and stores differ in how finely they tell the time.
                last_modified: m.last_modified().filter(|_| etag.is_none()).map(|t| t.to_string()),
                etag,
            };
            Ok(Some((version, m.content_length())))
        }
        Err(e) if e.kind() == opendal::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(match location {
            Location::Remote(object) => object.error("look at", &e),
            _ => ActorError::storage(format!("cannot look at {location}: {e}")),
        }),
    }
}

/// What keeps an input from being opened is an unreadable input, except where the store itself is at fault.
fn as_input(location: &Location, error: ActorError) -> ActorError {
    match error {
        ActorError::Storage { message, transient: false } if matches!(location, Location::Remote(_)) => {
            ActorError::InputUnreadable(message)
        }
        error => error,
    }
}

fn unreadable(location: &Location, why: &str) -> ActorError {
    ActorError::InputUnreadable(format!("cannot read input {location}: {why}"))
}

fn unreadable_io(path: &Path, error: &std::io::Error) -> ActorError {
    let (why, what) = match error.kind() {
        std::io::ErrorKind::NotFound => ("there is no such file", "check the path"),
        std::io::ErrorKind::PermissionDenied => ("permission denied", "check who may read it"),
        std::io::ErrorKind::NotADirectory => ("a part of the path is not a folder", "check the path"),
        _ => return ActorError::InputUnreadable(format!("cannot read input {}: {error}", path.display())),
    };
    ActorError::InputUnreadable(format!("cannot read input {}: {why}; {what}", path.display()))
}

/// Runs a future on the crate's own runtime and blocks until it is done.
///
/// The future is spawned and waited for over a channel, so this works on any thread, also on one that belongs to another
/// runtime (which it blocks). The runtime has two threads, is started once and is shared by everything here.
pub(crate) fn block_on<F>(future: F) -> Result<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (sender, receiver) = crossbeam_channel::bounded(1);
    runtime()?.spawn(async move {
        let _ = sender.send(future.await);
    });
    receiver.recv().map_err(|_| ActorError::storage("a storage call panicked"))
}

fn runtime() -> Result<Arc<tokio::runtime::Runtime>> {
    static RUNTIME: OnceLock<Mutex<Option<Arc<tokio::runtime::Runtime>>>> = OnceLock::new();
    let slot = RUNTIME.get_or_init(|| Mutex::new(None));
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = slot.as_ref() {
        return Ok(runtime.clone());
    }
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("restyle-storage")
        .enable_all()
        .build()
        .map_err(|e| ActorError::Storage {
            message: format!("cannot start threads for storage: {e}"),
            transient: true,
        })?;
    Ok(slot.insert(Arc::new(built)).clone())
}
