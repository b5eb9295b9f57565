//! What lies below a folder or a prefix, a bounded piece at a time: what a watcher of uploads looks at.
//!
//! A listing is a hint of the moment: objects come and go while it is made. What is done about an object is decided by
//! opening it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use opendal::options::ListOptions;
use opendal::{EntryMode, ErrorKind, Metadata, Operator};

use super::remote::RemoteObject;
use super::{Location, block_on, describe};
use crate::error::{ActorError, Result};

/// How deep folders of a file system are looked into.
const DEPTH_MAX: usize = 32;
/// Objects asked for at a time.
const PAGE_ENTRIES: usize = 1000;

/// A folder of the file system, or everything whose key begins with a prefix that ends in a slash.
#[derive(Debug, Clone)]
pub struct Folder {
    location: Location,
    prefix: String,
}

/// One object below a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderEntry {
    /// Name relative to the folder, with slashes.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Changes whenever the content does: the store's entity tag; for files made of device, inode and time of change.
    pub etag: Option<String>,
    /// When it was last changed, as the store or file system says.
    pub modified: Option<SystemTime>,
}

/// A piece of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Entries in the order of their keys.
    pub entries: Vec<FolderEntry>,
    /// Whether more follow: ask again for what comes after the last key.
    pub has_more: bool,
}

impl Folder {
    /// Names a folder. A missing slash at the end of a prefix is added.
    #[must_use]
    pub fn new(location: Location) -> Self {
        let slashed = |key: &str| match key {
            "" => String::new(),
            key if key.ends_with('/') => key.to_owned(),
            key => format!("{key}/"),
        };
        match location {
            Location::File(path) => Self { location: Location::File(path), prefix: String::new() },
            Location::Memory { store, key } => {
                let prefix = slashed(&key);
                Self { location: Location::Memory { store, key: prefix.clone() }, prefix }
            }
            Location::Remote(object) => {
                let prefix = slashed(object.key());
                Self { location: Location::Remote(object.sibling(prefix.clone())), prefix }
            }
        }
    }

    /// Returns where it lies.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Returns where an entry of it lies.
    ///
    /// # Errors
    /// `Usage` for a key that leaves the folder: an absolute one, or one with an empty part, `.` or `..`.
    pub fn entry(&self, key: &str) -> Result<Location> {
        let is_odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\\', '\0']);
        if key.split('/').any(is_odd) {
            return Err(ActorError::Usage(format!("{key:?} names nothing in {}", self.location)));
        }
        Ok(match &self.location {
            Location::File(path) => Location::File(path.join(key)),
            Location::Memory { store, .. } => store.location(&format!("{}{key}", self.prefix)),
            Location::Remote(object) => Location::Remote(object.sibling(format!("{}{key}", self.prefix))),
        })
    }

    /// Lists up to `limit` objects below the folder, at any depth, whose keys come after `after`. Blocks. Names that
    /// begin with a dot are left out, for they are other programs' unfinished work, and so are empty folders.
    ///
    /// # Errors
    /// `Storage` where the folder is not there or cannot be read, `Config` for a bucket that cannot be reached as
    /// configured.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<Listing> {
        match &self.location {
            Location::File(path) => list_files(path, after, limit),
            Location::Memory { store, .. } => {
                let (listed, fail) = (store.0.clone(), |e: &opendal::Error| {
                    ActorError::storage(format!("cannot list {}: {}", self.location, describe(e)))
                });
                self.list_objects(listed, after, limit)?.map_err(|e| fail(&e))
            }
            Location::Remote(object) => self.list_remote(object, after, limit),
        }
    }

    /// Writes a small object below the folder, replacing what stands there; it is never seen in part. Blocks.
    ///
    /// # Errors
    /// `Usage` for a key that leaves the folder, `Storage` and `DiskFull` where it cannot be written.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        match self.entry(key)? {
            Location::File(path) => put_file(&path, bytes)
                .map_err(|e| ActorError::from_write(&format!("cannot write {}", path.display()), &e)),
            Location::Memory { store, key } => store.put(&key, bytes.to_vec()),
            Location::Remote(object) => {
                let (operator, path, bytes) = (object.operator()?, object.key().to_owned(), bytes.to_vec());
                let written = block_on(async move { operator.write(&path, bytes).await })?;
                written.map(drop).map_err(|e| object.error("write", &e))
            }
        }
    }

    /// Looks at one object; `None` where there is none. Blocks.
    ///
    /// # Errors
    /// As [`Folder::list`], and `Usage` for a key that leaves the folder.
    pub fn look(&self, key: &str) -> Result<Option<FolderEntry>> {
        let (operator, path, location) = match self.entry(key)? {
            Location::File(path) => return Ok(file_entry(key.to_owned(), &path)),
            Location::Memory { store, key } => (store.0, key, None),
            Location::Remote(object) => (object.operator()?, object.key().to_owned(), Some(object)),
        };
        match block_on(async move { operator.stat(&path).await })? {
            Ok(metadata) => Ok(Some(entry_of(key, &metadata))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(location.as_ref(), key, "look at", &e)),
        }
    }

    /// Reads a small object whole; `None` where there is none. Blocks.
    ///
    /// # Errors
    /// `Usage` for a key that leaves the folder and for an object of more than `bytes_max` bytes, `Storage` where it cannot
    /// be read.
    pub fn get(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let too_large = || ActorError::Usage(format!("{key} has more than {bytes_max} bytes"));
        let (operator, path, location) = match self.entry(key)? {
            Location::File(path) => {
                return get_file(&path, bytes_max)?.map_or(Ok(None), |b| b.map(Some).ok_or_else(too_large));
            }
            Location::Memory { store, key } => (store.0, key, None),
            Location::Remote(object) => (object.operator()?, object.key().to_owned(), Some(object)),
        };
        let read = block_on(async move {
            let size = operator.stat(&path).await?.content_length();
            if size > bytes_max || size == 0 {
                return Ok((size == 0).then(Vec::new));
            }
            // An object that grew meanwhile is read as far as it was seen.
            let buffer = operator.read_with(&path).range(0..size).await?;
            Ok::<_, opendal::Error>(Some(buffer.to_vec()))
        })?;
        match read {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err(too_large()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(location.as_ref(), key, "read", &e)),
        }
    }

    fn list_remote(&self, object: &RemoteObject, after: Option<&str>, limit: usize) -> Result<Listing> {
        self.list_objects(object.operator()?, after, limit)?.map_err(|e| object.error("list", &e))
    }

    fn list_objects(&self, operator: Operator, after: Option<&str>, limit: usize) -> Result<opendal::Result<Listing>> {
        let (prefix, after) = (self.prefix.clone(), after.unwrap_or_default().to_owned());
        block_on(async move {
            let can_skip = operator.info().capability().list_with_start_after && !after.is_empty();
            let options = ListOptions {
                recursive: true,
                limit: Some(PAGE_ENTRIES),
                start_after: can_skip.then(|| format!("{prefix}{after}")),
                ..ListOptions::default()
            };
            let mut lister = operator.lister_options(&prefix, options).await?;
            let mut listing = Listing::default();
            // Stores list in the order of keys, so that the first too many ends it; memory is bounded by the limit.
            while let Some(entry) = lister.try_next().await? {
                let (path, metadata) = entry.into_parts();
                let Some(key) = path.strip_prefix(&prefix) else { continue };
                if metadata.mode() != EntryMode::FILE || key <= after.as_str() || is_hidden(key) || key.is_empty() {
                    continue;
                }
                if listing.entries.len() == limit {
                    listing.has_more = true;
                    break;
                }
                listing.entries.push(entry_of(key, &metadata));
            }
            Ok(listing)
        })
    }
}

fn entry_of(key: &str, metadata: &Metadata) -> FolderEntry {
    FolderEntry {
        key: key.to_owned(),
        size: metadata.content_length(),
        etag: metadata.etag().map(str::to_owned),
        modified: metadata.last_modified().map(SystemTime::from),
    }
}

fn failed(object: Option<&RemoteObject>, key: &str, tried: &str, error: &opendal::Error) -> ActorError {
    object.map_or_else(
        || ActorError::storage(format!("cannot {tried} memory:{key}: {}", describe(error))),
        |object| object.error(tried, error),
    )
}

/// Reads a file; the inner `None` is one that is too large.
fn get_file(path: &Path, bytes_max: u64) -> Result<Option<Option<Vec<u8>>>> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(path)?, bytes_max + 1), &mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(Some(bytes).filter(|b| b.len() as u64 <= bytes_max))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(ActorError::storage(format!("cannot read {}: {e}", path.display()))),
    }
}

fn put_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = folder.join(format!(".{}.{}.part", name.chars().take(40).collect::<String>(), std::process::id()));
    let write = || {
        let mut file = std::fs::File::create(&hidden)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        std::fs::rename(&hidden, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&hidden)))
}

fn is_hidden(key: &str) -> bool {
    key.split('/').any(|part| part.starts_with('.'))
}

/// The first entries after a key, of everything that is shown to it.
struct First<'a> {
    after: &'a str,
    limit: usize,
    entries: BTreeMap<String, FolderEntry>,
    has_more: bool,
}

impl First<'_> {
    fn see(&mut self, entry: FolderEntry) {
        if entry.key.as_str() <= self.after {
            return;
        }
        self.entries.insert(entry.key.clone(), entry);
        if self.entries.len() > self.limit {
            self.entries.pop_last();
            self.has_more = true;
        }
    }
}

fn list_files(folder: &Path, after: Option<&str>, limit: usize) -> Result<Listing> {
    let mut first = First { after: after.unwrap_or_default(), limit, entries: BTreeMap::new(), has_more: false };
    walk(folder, "", 0, &mut first)
        .map_err(|e| ActorError::storage(format!("cannot list the folder {}: {e}", folder.display())))?;
    Ok(Listing { entries: first.entries.into_values().collect(), has_more: first.has_more })
}

fn walk(folder: &Path, prefix: &str, depth: usize, first: &mut First<'_>) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        // Taken away between being seen and being looked into.
        Err(error) if depth > 0 && error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let key = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            if depth < DEPTH_MAX {
                walk(&entry.path(), &format!("{key}/"), depth + 1, first)?;
            }
        } else if let Some(entry) = file_entry(key, &entry.path()) {
            first.see(entry);
        }
    }
    Ok(())
}

/// A file, or a link to one; `None` for anything else, and for what was taken away meanwhile.
fn file_entry(key: String, path: &PathBuf) -> Option<FolderEntry> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let changed = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    let since = u64::try_from(metadata.mtime()).ok()?;
    let nanos = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    Some(FolderEntry {
        key,
        size: metadata.len(),
        etag: Some(format!("{:x}-{:x}-{changed:x}", metadata.dev(), metadata.ino())),
        modified: SystemTime::UNIX_EPOCH.checked_add(Duration::new(since, nanos)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;

    fn keys(listing: &Listing) -> Vec<&str> {
        listing.entries.iter().map(|e| e.key.as_str()).collect()
    }

    fn pages(folder: &Folder) {
        let whole = folder.list(None, 10).unwrap();
        assert_eq!((keys(&whole), whole.has_more), (vec!["a.mp4", "b/c.mp4", "b/d/e.mp4", "z.mp4"], false));
        assert_eq!(whole.entries[0].size, 5);
        let first = folder.list(None, 3).unwrap();
        assert_eq!((keys(&first), first.has_more), (vec!["a.mp4", "b/c.mp4", "b/d/e.mp4"], true));
        let rest = folder.list(Some("b/d/e.mp4"), 3).unwrap();
        assert_eq!((keys(&rest), rest.has_more), (vec!["z.mp4"], false));
    }

    fn small_objects(folder: &Folder) {
        assert_eq!(folder.look("b/log.txt").unwrap().unwrap().size, 4);
        assert_eq!(folder.get("b/log.txt", 4).unwrap().unwrap(), b"line");
        assert_eq!(folder.get("b/log.txt", 3).unwrap_err().kind(), crate::ErrorKind::Usage);
        assert!(folder.look("b/none").unwrap().is_none() && folder.get("b/none", 9).unwrap().is_none());
    }

    #[test]
    fn files_are_listed_in_bounded_pieces() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("b/d")).unwrap();
        std::fs::create_dir_all(home.path().join(".hidden")).unwrap();
        for name in ["z.mp4", "a.mp4", "b/c.mp4", "b/d/e.mp4", ".part", ".hidden/x.mp4"] {
            std::fs::write(home.path().join(name), "bytes").unwrap();
        }
        let folder = Folder::new(Location::File(home.path().to_owned()));
        pages(&folder);
        folder.put("b/d/e.mp4", b"more bytes").unwrap();
        assert_eq!(folder.list(Some("b/c.mp4"), 1).unwrap().entries[0].size, 10);
        let tag = |folder: &Folder| folder.list(None, 1).unwrap().entries[0].etag.clone();
        let before = tag(&folder);
        assert_eq!(tag(&folder), before);
        std::fs::remove_file(home.path().join("a.mp4")).unwrap();
        std::fs::write(home.path().join("a.mp4"), "other").unwrap();
        assert_ne!(tag(&folder), before);
        folder.put("b/log.txt", b"line").unwrap();
        small_objects(&folder);
        let gone = Folder::new(Location::File(home.path().join("none")));
        assert_eq!(gone.list(None, 1).unwrap_err().kind(), crate::ErrorKind::Storage);
    }

    #[test]
    fn objects_are_listed_in_bounded_pieces() {
        let store = MemoryStore::new().unwrap();
        for name in ["in/z.mp4", "in/a.mp4", "in/b/c.mp4", "in/b/d/e.mp4", "in/.part", "other/x.mp4", "inn.mp4"] {
            store.put(name, b"bytes".to_vec()).unwrap();
        }
        pages(&Folder::new(store.location("in")));
        pages(&Folder::new(store.location("in/")));
        Folder::new(store.location("in")).put("b/log.txt", b"line").unwrap();
        assert_eq!(store.get("in/b/log.txt").unwrap().unwrap(), b"line");
        small_objects(&Folder::new(store.location("in")));
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let folder = Folder::new(MemoryStore::new().unwrap().location("in"));
        assert_eq!(folder.entry("a/b.mp4").unwrap().to_string(), "memory:in/a/b.mp4");
        for key in ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".", "a/.", "a\\b"] {
            assert_eq!(folder.entry(key).unwrap_err().kind(), crate::ErrorKind::Usage, "{key:?}");
        }
    }
}
