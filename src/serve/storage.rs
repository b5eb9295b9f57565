//! What the service itself reads and writes in a route's locations: listings, sizes, small files.

use super::config::ServeConfig;
use super::error::ServiceError;
use super::ident::ObjectKey;
use super::route::Place;
use restyle_actors::storage::FolderEntry;
use std::time::UNIX_EPOCH;

/// Objects asked for at a time: stores that cannot begin a listing in the middle begin each of them anew.
const PAGE: usize = 100_000;
/// Objects of a location that are looked at.
const OBJECTS_MAX: usize = 1_000_000;

/// Makes the local folders that routes name, where they are missing.
///
/// # Errors
/// `Storage` where one cannot be made.
pub(super) fn make_folders(config: &ServeConfig) -> Result<(), ServiceError> {
    let places = config.routes.iter().flat_map(|r| [&r.input, &r.output, &r.logs]);
    for folder in places.filter_map(Place::folder) {
        std::fs::create_dir_all(folder)
            .map_err(|e| ServiceError::storage(format!("cannot make the folder {}: {e}", folder.display())))?;
    }
    Ok(())
}

/// Returns the size of an object in bytes, and what tells this version of it from others, as [`list`] says it.
///
/// # Errors
/// `NotFound` where it is not there, `Storage` where the store does not answer.
pub(super) fn look(place: &Place, key: &ObjectKey) -> Result<(u64, String), ServiceError> {
    let found = place.store().look(key.as_str())?;
    let found =
        found.ok_or_else(|| ServiceError::not_found(format!("there is no object {key} in the route's input")))?;
    Ok((found.size, version(&found)))
}

/// Lists an object store: keys and versions.
///
/// # Errors
/// `Storage` where the store does not answer, or holds more than is looked at.
pub(super) fn list(place: &Place) -> Result<Vec<(String, String)>, ServiceError> {
    let mut found: Vec<(String, String)> = Vec::new();
    loop {
        let after = found.last().map(|(key, _)| key.clone());
        let page = place.store().list(after.as_deref(), PAGE)?;
        found.extend(page.entries.into_iter().map(|entry| (entry.key.clone(), version(&entry))));
        if !page.has_more {
            return Ok(found);
        }
        if found.len() >= OBJECTS_MAX {
            let message = format!("{place} holds more than {OBJECTS_MAX} objects: give the route a prefix of its own");
            return Err(ServiceError::storage(message));
        }
    }
}

/// What a store says of one version; listings and answers about one object write its tag differently.
fn version(entry: &FolderEntry) -> String {
    match &entry.etag {
        Some(tag) => format!("{}-{}", tag.trim_start_matches("W/").trim_matches('"'), entry.size),
        None => {
            let changed = entry.modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            format!("{}-{}", changed.as_nanos(), entry.size)
        }
    }
}

/// Reads a small object whole.
///
/// # Errors
/// `Invalid` where it is larger than `bytes_max`, `Storage` where it cannot be read.
pub(super) fn get(place: &Place, key: &str, bytes_max: u64) -> Result<Vec<u8>, ServiceError> {
    let found = place.store().get(key, bytes_max)?;
    found.ok_or_else(|| ServiceError::storage(format!("cannot read {key}: it is not there any more")))
}

/// Writes a small object, replacing what stands there; it is never seen in part.
///
/// # Errors
/// `Storage` where it cannot be written.
pub(super) fn put(place: &Place, key: &str, bytes: &[u8]) -> Result<(), ServiceError> {
    Ok(place.store().put(key, bytes)?)
}
