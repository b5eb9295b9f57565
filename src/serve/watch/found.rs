//! What lies in an input location.

use super::wake::Waker;
use crate::serve::error::ServiceError;
use crate::serve::ident::ObjectKey;
use crate::serve::route::Place;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Folders inside each other that are looked into.
const DEPTH_MAX: usize = 16;

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Tells this version of it from others.
    pub(super) version: String,
}

/// Lists a location by key; what begins with a dot, or cannot be a key, is left out. Blocks.
///
/// # Errors
/// `Storage` where it cannot be listed.
pub(super) fn list(place: &Place, waker: &Waker) -> Result<BTreeMap<String, Found>, ServiceError> {
    let Some(folder) = place.folder() else { return crate::serve::storage::list(place).map(of_listing) };
    let mut found = BTreeMap::new();
    let listed = walk(folder, "", DEPTH_MAX, waker, &mut found);
    listed.map_err(|e| ServiceError::storage(format!("cannot list {place}: {e}")))?;
    Ok(found)
}

fn of_listing(listing: Vec<(String, String)>) -> BTreeMap<String, Found> {
    listing.into_iter().map(|(key, version)| (key, Found { version })).collect()
}

fn walk(
    folder: &Path,
    prefix: &str,
    depth: usize,
    waker: &Waker,
    found: &mut BTreeMap<String, Found>,
) -> std::io::Result<()> {
    // Before it is read: what arrives in between is seen by the one or the other.
    waker.watch(folder);
    for entry in std::fs::read_dir(folder)? {
        let Ok(entry) = entry else { continue };
        let Ok(name) = entry.file_name().into_string() else { continue };
        let key = format!("{prefix}{name}");
        let (Ok(_), Ok(kind)) = (ObjectKey::parse(&key), entry.file_type()) else { continue };
        if kind.is_dir() && depth > 0 {
            // A folder that vanished meanwhile holds nothing.
            let _ = walk(&entry.path(), &format!("{key}/"), depth - 1, waker, found);
        } else if let Some(version) = local_version(&entry.path()).filter(|_| !kind.is_dir()) {
            found.insert(key, Found { version });
        }
    }
    Ok(())
}

/// What tells one version of a local file from another; without the device, whose number a reboot may change.
pub(in crate::serve) fn local_version(path: &Path) -> Option<String> {
    let m = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    Some(format!("{}-{}-{}.{:09}", m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
}
