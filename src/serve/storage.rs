//! What the service itself reads and writes in a route's locations: listings, sizes, small files.

use super::error::{ServiceError, ServiceErrorKind};
use super::ident::ObjectKey;
use super::route::Place;
use std::io::Write;
use std::path::Path;

/// Returns the size of an object in bytes.
///
/// # Errors
/// `NotFound` where it is not there, `Storage` where the store does not answer.
pub(super) fn size(place: &Place, key: &ObjectKey) -> Result<u64, ServiceError> {
    match place.folder() {
        Some(folder) => std::fs::metadata(folder.join(key.as_str()))
            .map(|m| m.len())
            .map_err(|_| ServiceError::not_found(format!("there is no object {key} in {place}"))),
        None => Err(not_served(place)),
    }
}

/// Writes a small object, replacing what stands there; it is never seen in part.
///
/// # Errors
/// `Storage` where it cannot be written.
pub(super) fn put(place: &Place, key: &str, bytes: &[u8]) -> Result<(), ServiceError> {
    let Some(folder) = place.folder() else { return Err(not_served(place)) };
    let path = folder.join(key);
    put_local(&path, bytes).map_err(|e| ServiceError::storage(format!("cannot write {}: {e}", path.display())))
}

fn put_local(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let (folder, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    std::fs::create_dir_all(folder)?;
    let hidden = folder.join(format!(".{}.part", name.to_string_lossy()));
    let mut file = std::fs::File::create(&hidden)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&hidden, path)
}

fn not_served(place: &Place) -> ServiceError {
    ServiceError::new(ServiceErrorKind::Unsupported, format!("{place} is in no store that this build serves"))
}
