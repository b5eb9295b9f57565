//! Uploads into a route's input and the bytes of an output, for whoever has no way to the storage itself.

use super::error::{ServiceError, ServiceErrorKind};
use super::ident::{ClientJobId, ObjectKey, RouteName, Scope};
use super::service::Service;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An object on its way into a route's input; seen there when it is whole, gone when it is dropped before.
#[derive(Debug)]
pub struct Upload {
    hidden: PathBuf,
    path: PathBuf,
    file: Option<File>,
    route: RouteName,
    service_key: ObjectKey,
    service: Service,
}

impl Upload {
    /// Adds bytes at the end. Blocks.
    ///
    /// # Errors
    /// `Storage` when they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ServiceError> {
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        file.write_all(bytes).map_err(|e| ServiceError::storage(format!("cannot write {}: {e}", self.service_key)))
    }

    /// Gives the object its name, durably and at once. Blocks.
    ///
    /// # Errors
    /// `Storage` when it cannot be written, `Conflict` when an object of this name stands there.
    pub fn finish(mut self) -> Result<(), ServiceError> {
        let failed = |e: std::io::Error| ServiceError::storage(format!("cannot write {}: {e}", self.service_key));
        if let Some(file) = self.file.take() {
            file.sync_all().map_err(failed)?;
        }
        match std::fs::hard_link(&self.hidden, &self.path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(ServiceError::conflict(format!(
                    "{} is there already: choose another key",
                    self.service_key
                )));
            }
            Err(e) => return Err(failed(e)),
        }
        self.service.hint(&self.route, self.service_key.as_str())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.hidden);
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// Makes the folder of a key step by step, so that no link on the way leads out of `root`, not even for making a folder.
fn folder_inside(root: &Path, key: &ObjectKey) -> Result<PathBuf, ServiceError> {
    let failed = |e: std::io::Error| ServiceError::storage(format!("cannot write {key}: {e}"));
    let root = root.canonicalize().map_err(failed)?;
    let mut folder = root.clone();
    for part in key.folder().split('/').filter(|part| !part.is_empty()) {
        folder.push(part);
        match std::fs::create_dir(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => folder = folder.canonicalize().map_err(failed)?,
        }
        if !folder.starts_with(&root) {
            return Err(ServiceError::invalid(format!("{key} leads out of the route's input")));
        }
    }
    Ok(folder)
}

impl Service {
    /// Begins an upload into a route's input.
    ///
    /// # Errors
    /// `NotFound` for a route that `scope` does not see, `Unsupported` where the input is no local folder, `Draining`, `Storage`.
    pub fn upload(&self, scope: &Scope, route: &RouteName, key: &ObjectKey) -> Result<Upload, ServiceError> {
        let config = self.inner.config();
        let found = config.route(route).filter(|r| scope.sees(&r.tenant));
        let found = found.ok_or_else(|| ServiceError::not_found(format!("there is no route {route}")))?;
        if !self.health().ready {
            return Err(ServiceError::new(
                ServiceErrorKind::Draining,
                "the service is ending: try again when it is back",
            ));
        }
        let Some(folder) = found.input.folder() else {
            let message = "the route's input is in an object store: upload there, with a presigned URL";
            return Err(ServiceError::new(ServiceErrorKind::Unsupported, message));
        };
        let failed = |e: std::io::Error| ServiceError::storage(format!("cannot write {key}: {e}"));
        let target = folder_inside(folder, key)?;
        let hidden = target.join(format!(".{}.{:x}.upload", key.file_name(), self.inner.clock.unix().as_nanos()));
        let file = File::options().write(true).create_new(true).open(&hidden).map_err(failed)?;
        let path = target.join(key.file_name());
        let (route, service_key, service) = (route.clone(), key.clone(), self.clone());
        Ok(Upload { hidden, path, file: Some(file), route, service_key, service })
    }

    /// Opens the output of a finished job.
    ///
    /// # Errors
    /// `NotFound` before it is finished or when it is gone, `Unsupported` where it is no local file.
    pub fn output(&self, scope: &Scope, id: &ClientJobId) -> Result<(File, ObjectKey), ServiceError> {
        let entry = self.inner.find(scope, id)?;
        let state = entry.lock();
        let accepted = &state.record.accepted;
        if state.record.done.is_none() {
            return Err(ServiceError::not_found(format!("job {id} has no output yet")));
        }
        if !accepted.output_location.starts_with('/') {
            let message = "the output is in an object store: read it there, with a presigned URL";
            return Err(ServiceError::new(ServiceErrorKind::Unsupported, message));
        }
        let file = File::open(&accepted.output_location)
            .map_err(|e| ServiceError::not_found(format!("the output {} cannot be read: {e}", accepted.output)))?;
        Ok((file, accepted.output.clone()))
    }
}
