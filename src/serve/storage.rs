//! What the service itself reads and writes in a route's locations: listings, sizes, small files.

use super::config::ServeConfig;
use super::error::{ServiceError, ServiceErrorKind};
use super::ident::ObjectKey;
use super::route::Place;
use std::io::{Read, Write};
use std::path::Path;

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

/// Returns the size of an object in bytes, and what tells this version of it from others.
///
/// # Errors
/// `NotFound` where it is not there, `Storage` where the store does not answer.
pub(super) fn look(place: &Place, _key: &ObjectKey) -> Result<(u64, String), ServiceError> {
    Err(not_served(place))
}

/// Lists an object store: keys and versions.
///
/// # Errors
/// `Storage` where the store does not answer.
pub(super) fn list(place: &Place) -> Result<Vec<(String, String)>, ServiceError> {
    Err(not_served(place))
}

/// Reads a small object whole.
///
/// # Errors
/// `Invalid` where it is larger than `bytes_max`, `Storage` where it cannot be read.
pub(super) fn get(place: &Place, key: &str, bytes_max: u64) -> Result<Vec<u8>, ServiceError> {
    let Some(folder) = place.folder() else { return Err(not_served(place)) };
    let failed = |e: std::io::Error| ServiceError::storage(format!("cannot read {key}: {e}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(folder.join(key)).map_err(failed)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(ServiceError::invalid(format!("{key} has more than {bytes_max} bytes")));
    }
    Ok(bytes)
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
