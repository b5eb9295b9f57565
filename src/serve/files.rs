//! Uploads into a route's input, the bytes of an output, and URLs by which the object store itself takes and gives them.

use super::error::{ServiceError, ServiceErrorKind};
use super::ident::{ClientJobId, ObjectKey, RouteName, Scope};
use super::job::JobState;
use super::route::Route;
use super::service::Service;
use super::time;
use restyle_actors::storage::{self, Blob, Location, SignedUrl, UrlRight};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a presigned URL may be used: long enough for a client that asks when it is about to send.
const URL_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// An object on its way into a route's input; seen there when it is whole, gone when it is dropped before.
#[derive(Debug)]
pub struct Upload {
    target: Target,
    route: RouteName,
    key: ObjectKey,
    service: Service,
}

/// Where it goes.
#[derive(Debug)]
enum Target {
    Folder(Hidden),
    Store(Box<storage::Upload>),
}

/// A file that has no name yet.
#[derive(Debug)]
struct Hidden {
    hidden: PathBuf,
    path: PathBuf,
    file: File,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.hidden);
    }
}

impl Hidden {
    /// Gives it its name, durably; false where that is taken.
    fn name(&self) -> std::io::Result<bool> {
        self.file.sync_all()?;
        match std::fs::hard_link(&self.hidden, &self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            done => done.map(|()| true),
        }
    }
}

impl Upload {
    /// Adds bytes at the end. Blocks.
    ///
    /// # Errors
    /// `Storage` when they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ServiceError> {
        match &mut self.target {
            Target::Folder(hidden) => hidden.file.write_all(bytes).map_err(|e| unwritten(&self.key, &e)),
            Target::Store(upload) => Ok(upload.write(bytes.to_vec())?),
        }
    }

    /// Gives the object its name, durably and at once. Blocks.
    ///
    /// # Errors
    /// `Storage` when it cannot be written, `Conflict` when an object of this name stands there.
    pub fn finish(self) -> Result<(), ServiceError> {
        let is_new = match self.target {
            Target::Folder(hidden) => hidden.name().map_err(|e| unwritten(&self.key, &e))?,
            Target::Store(upload) => upload.finish()?,
        };
        if !is_new {
            return Err(taken(&self.key));
        }
        self.service.hint(&self.route, self.key.as_str())
    }
}

fn unwritten(key: &ObjectKey, error: &std::io::Error) -> ServiceError {
    ServiceError::storage(format!("cannot write {key}: {error}"))
}

fn taken(key: &ObjectKey) -> ServiceError {
    ServiceError::conflict(format!("{key} is there already: choose another key"))
}

/// A URL that carries its own permission: it is not to be logged.
#[derive(Debug)]
pub struct Presigned {
    /// The URL with what belongs to it.
    pub signed: SignedUrl,
    /// Until when it may be used, RFC 3339.
    pub expires_at: String,
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
    /// Begins an upload of at most `bytes_max` bytes into a route's input.
    ///
    /// # Errors
    /// `NotFound` for a route that `scope` does not see, `Conflict` for a key that is taken, `Draining`, `Storage`.
    pub fn upload(
        &self,
        scope: &Scope,
        route: &RouteName,
        key: &ObjectKey,
        bytes_max: u64,
    ) -> Result<Upload, ServiceError> {
        let found = self.route_of(scope, route)?;
        if self.inner.draining.load(Ordering::SeqCst) {
            return Err(ServiceError::new(
                ServiceErrorKind::Draining,
                "the service is ending: try again when it is back",
            ));
        }
        let target = match found.input.folder() {
            Some(folder) => Target::Folder(self.hidden_in(folder, key)?),
            None => {
                let location = found.input.store().entry(key.as_str())?;
                let upload = storage::Upload::begin(&location, bytes_max)?.ok_or_else(|| taken(key))?;
                Target::Store(Box::new(upload))
            }
        };
        Ok(Upload { target, route: route.clone(), key: key.clone(), service: self.clone() })
    }

    fn hidden_in(&self, folder: &Path, key: &ObjectKey) -> Result<Hidden, ServiceError> {
        let target = folder_inside(folder, key)?;
        let hidden = target.join(format!(".{}.{:x}.upload", key.file_name(), self.inner.clock.unix().as_nanos()));
        let file = File::options().write(true).create_new(true).open(&hidden).map_err(|e| unwritten(key, &e))?;
        Ok(Hidden { hidden, path: target.join(key.file_name()), file })
    }

    /// Opens the output of a finished job. Blocks.
    ///
    /// # Errors
    /// `Conflict` before it is finished, `NotFound` when it is gone.
    pub fn output(&self, scope: &Scope, id: &ClientJobId) -> Result<(Blob, ObjectKey), ServiceError> {
        let entry = self.inner.find(scope, id)?;
        let accepted = {
            let state = entry.lock();
            if state.record.state != JobState::Finished {
                let message = format!("job {id} is {}: it has no output", state.record.state.name());
                return Err(ServiceError::conflict(message));
            }
            state.record.accepted.clone()
        };
        let blob = Location::parse(&accepted.output_location).and_then(|at| Blob::open(&at));
        let missing = |e| ServiceError::not_found(format!("the output cannot be read any more: {e}"));
        Ok((blob.map_err(missing)?, accepted.output))
    }

    /// Makes a URL by which whoever has it may make one new object of a route's input, or read one of its output, for a
    /// quarter of an hour. Blocks.
    ///
    /// # Errors
    /// `NotFound` for a route that `scope` does not see, `Unsupported` for folders and for credentials that cannot sign so.
    pub fn presign(
        &self,
        scope: &Scope,
        route: &RouteName,
        key: &ObjectKey,
        right: UrlRight,
    ) -> Result<Presigned, ServiceError> {
        let found = self.route_of(scope, route)?;
        let place = match right {
            UrlRight::Create => &found.input,
            UrlRight::Read => &found.output,
        };
        let unsupported = |message| ServiceError::new(ServiceErrorKind::Unsupported, message);
        if place.folder().is_some() {
            let message = format!("{place} is a folder: send and fetch files by this interface instead");
            return Err(unsupported(message));
        }
        let until = self.inner.clock.unix() + URL_LIFETIME;
        let signed = place.store().entry(key.as_str())?.presign(right, URL_LIFETIME);
        let signed = signed.map_err(|e| unsupported(e.to_string()))?;
        Ok(Presigned { signed, expires_at: time::rfc3339(until) })
    }

    /// Another tenant's route is not there.
    fn route_of(&self, scope: &Scope, name: &RouteName) -> Result<Route, ServiceError> {
        let config = self.inner.config();
        let found = config.route(name).filter(|r| scope.sees(&r.tenant));
        let missing = || ServiceError::not_found(format!("there is no route {name}"));
        found.cloned().ok_or_else(missing)
    }
}
