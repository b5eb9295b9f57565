//! From what a client asks for to a job that can be put on record: nothing of it is taken on trust.

use super::blend::Choice;
use super::config::ServeConfig;
use super::error::{ServiceError, ServiceErrorKind};
use super::ident::{ClientJobId, ObjectKey, RouteName, Tenant};
use super::job::{Accepted, JobRequest};
use super::route::{Place, Route};
use super::service::{Created, Inner, lock};
use super::styles;
use super::view::{ErrorView, JobView};
use std::time::Duration;

/// Where a job comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Origin {
    /// A client asked for it.
    Client,
    /// The watcher found it.
    Watch {
        /// Why it cannot be done, where that is known already.
        refused: Option<ErrorView>,
    },
}

/// What waits in a route already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) jobs: u64,
    pub(super) bytes: u64,
    pub(super) frames: u64,
    /// When there may be room again.
    pub(super) retry_after: Duration,
}

/// Finds the route a request means.
///
/// # Errors
/// `NotFound` for a route that is not there or another tenant's, `Invalid` where it has to be named and is not.
pub(super) fn route<'a>(
    config: &'a ServeConfig,
    tenant: &Tenant,
    request: &JobRequest,
) -> Result<&'a Route, ServiceError> {
    let mut own = config.routes.iter().filter(|r| r.tenant == *tenant);
    match &request.route {
        Some(name) => {
            own.find(|r| r.name == *name).ok_or_else(|| ServiceError::not_found(format!("there is no route {name}")))
        }
        None => match (own.next(), own.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(ServiceError::not_found(format!("tenant {tenant} has no route"))),
            _ => Err(ServiceError::invalid("there are several routes: name one in \"route\"")),
        },
    }
}

/// Completes a request.
///
/// # Errors
/// `Invalid` for options, styles and inputs that cannot be; `NotFound` where the input is not there.
pub(super) fn accept(
    config: &ServeConfig,
    route: &Route,
    id: &ClientJobId,
    request: JobRequest,
    created_at: String,
    origin: Origin,
) -> Result<Accepted, ServiceError> {
    request.options.check()?;
    let choice = match &request.style {
        None => Choice { blended: route.blended, ..Choice::alone(&route.style, &route.style_location) },
        Some(said) => styles::choose(config, said)?,
    };
    let output = match &request.output {
        Some(key) => writable(key)?,
        None => route.output_key(&request.input, &choice.name)?,
    };
    let (bytes, version) = look(&route.input, &request.input)?;
    let (is_watched, refused) = match origin {
        Origin::Client => (false, None),
        Origin::Watch { refused } => (true, refused),
    };
    let options = request.options.clone().or(&route.options);
    let priority = request.priority.unwrap_or(route.priority);
    if !(-1000..=1000).contains(&priority) {
        return Err(ServiceError::invalid(format!("priority is {priority}, expected -1000 to 1000")));
    }
    let input_location = route.input.object(request.input.as_str());
    let output_location = route.output.object(output.as_str());
    if input_location == output_location {
        return Err(ServiceError::invalid("the output would be the input: name another output"));
    }
    let frames = match route.quota.frames_queued {
        Some(_) => crate::source::probe(&input_location).ok().and_then(|s| s.video.frames_about),
        None => None,
    };
    Ok(Accepted {
        id: id.clone(),
        tenant: route.tenant.clone(),
        route: route.name.clone(),
        input: request.input.clone(),
        input_location,
        output,
        output_location,
        style: choice.name,
        style_location: choice.location,
        blended: choice.blended,
        priority,
        options,
        bytes,
        frames,
        created_at,
        version,
        is_watched,
        refused,
        request,
    })
}

/// Refuses what would go over the route's quota.
///
/// # Errors
/// `QuotaExceeded`, naming the limit.
pub(super) fn within_quota(route: &Route, load: Load, bytes: u64, frames: Option<u64>) -> Result<(), ServiceError> {
    let quota = &route.quota;
    for (what, limit, would_be) in [
        ("jobs", quota.jobs_queued, load.jobs + 1),
        ("bytes", quota.bytes_queued, load.bytes.saturating_add(bytes)),
        ("frames", quota.frames_queued, load.frames.saturating_add(frames.unwrap_or(0))),
    ] {
        // What is larger than the whole limit is let in alone, or it would wait for ever.
        if limit.is_some_and(|limit| would_be > limit && load.jobs > 0) || limit == Some(0) {
            let kind = ServiceErrorKind::QuotaExceeded { retry_after: load.retry_after };
            let message = format!(
                "route {} has {} of {what} waiting with this one and its limit is {}: try again later",
                route.name,
                would_be,
                limit.unwrap_or(0)
            );
            return Err(ServiceError::new(kind, message));
        }
    }
    Ok(())
}

impl Inner {
    /// What waits in a route.
    pub(super) fn load(&self, route: &RouteName) -> Load {
        let mut load = Load { retry_after: *lock(&self.usual), ..Load::default() };
        for entry in self.entries() {
            let state = entry.lock();
            let accepted = &state.record.accepted;
            if accepted.route == *route && !state.record.state.is_ended() {
                load.jobs += 1;
                load.bytes += accepted.bytes;
                load.frames += accepted.frames.unwrap_or(0);
            }
        }
        load.retry_after = load.retry_after.clamp(Duration::from_secs(1), Duration::from_secs(3600));
        load
    }
}

/// Says what follows where an id is taken: the same request again is the same job.
///
/// # Errors
/// `Conflict` for another request.
pub(super) fn existing(
    is_same: bool,
    id: &ClientJobId,
    view: impl FnOnce() -> JobView,
) -> Result<(JobView, Created), ServiceError> {
    if is_same {
        return Ok((view(), Created::Existing));
    }
    Err(ServiceError::conflict(format!("job {id} was created with another request: use another id")))
}

fn writable(key: &ObjectKey) -> Result<ObjectKey, ServiceError> {
    let extension = key.file_name().rsplit_once('.').map(|(_, e)| e).unwrap_or_default();
    if !["mp4", "mov", "mkv", "webm"].contains(&extension) {
        return Err(ServiceError::invalid(format!("output {key} must end with .mp4, .mov, .mkv or .webm")));
    }
    Ok(key.clone())
}

/// Looks at the input: it is there, is a file, and does not lead out of the location by a link.
fn look(place: &Place, key: &ObjectKey) -> Result<(u64, String), ServiceError> {
    let Some(folder) = place.folder() else { return super::storage::look(place, key) };
    let missing = || ServiceError::not_found(format!("there is no object {key} in the route's input"));
    let whole = folder.join(key.as_str()).canonicalize().map_err(|_| missing())?;
    let root = folder.canonicalize().map_err(|_| missing())?;
    if !whole.starts_with(&root) {
        return Err(missing());
    }
    let metadata = std::fs::metadata(&whole).map_err(|_| missing())?;
    if !metadata.is_file() {
        return Err(missing());
    }
    let version = super::watch::local_version(&whole).ok_or_else(missing)?;
    Ok((metadata.len(), version))
}
