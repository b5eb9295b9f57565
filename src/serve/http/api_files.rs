//! Inputs in, outputs out: by stream, or by a URL of the object store's own.

use super::api::Api;
use super::api_jobs::{TenantQuery, job_id};
use super::body::{self, PieceWriter, Piped, next_piece};
use super::caller::Caller;
use super::problem::{Problem, ProblemView};
use super::resource;
use crate::serve::access::Action;
use crate::serve::error::{ServiceError, ServiceErrorKind};
use crate::serve::files::Upload;
use crate::serve::ident::{ObjectKey, RouteName, Scope};
use crate::serve::route::Route;
use crate::serve::service::Service;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{HttpRequest, HttpResponse, web};
use restyle_actors::Blob;
use restyle_actors::storage::UrlRight;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use utoipa::ToSchema;

/// Bytes that are gathered before the disk is asked, and read at once for a download.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces of a download that wait for the client.
const DEPTH: usize = 2;
/// A client that sends or takes nothing for so long is let go.
const STALL_MAX: Duration = Duration::from_secs(30);
/// When asking again makes sense where a route's queue is full and nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(10);

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/routes/{route}/files/{key:.+}", [(Method::PUT, web::to(put))]))
        .service(resource("/routes/{route}/presign", [(Method::POST, web::to(presign))]))
        .service(resource("/jobs/{id}/output", [(Method::GET, web::to(output))]));
}

/// An input that arrived.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct FileView {
    /// The route it belongs to.
    pub(super) route: RouteName,
    /// Its key inside the route's input location.
    pub(super) key: ObjectKey,
    /// Its size.
    pub(super) bytes: u64,
}

/// Sends an input; the route's watcher sees it once it is whole. Inputs are never replaced.
#[utoipa::path(put, path = "/v1/routes/{route}/files/{key}", tag = "routes", params(
    ("route" = String, Path, description = "The route"),
    ("key" = String, Path, description = "Where in the route's input location; may hold slashes"),
), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 201, body = FileView),
    (status = 400, description = "A key that leads elsewhere", body = ProblemView),
    (status = 404, description = "No such route", body = ProblemView),
    (status = 409, description = "An object has that key already", body = ProblemView),
    (status = 413, description = "Larger than uploads may be", body = ProblemView),
    (status = 429, description = "Too much waits in the route", body = ProblemView),
))]
pub(super) async fn put(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<(String, String)>,
    request: HttpRequest,
    mut payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller.may(Action::Submit)?;
    let (route, key) = path.into_inner();
    let (route, key) = (RouteName::parse(&route)?, ObjectKey::parse(&key)?);
    let bytes_max = api.rules().limits.upload;
    let length = body::content_length(&request);
    if length.is_some_and(|length| length > bytes_max) {
        return Err(Problem::too_large("the upload", bytes_max));
    }
    let (scope, name, named) = (caller.scope(), route.clone(), key.clone());
    let upload = api.call(move |service| begin(service, &scope, &name, &named, (length, bytes_max))).await?;
    let (upload, bytes) = receive(&api, upload, &mut payload, bytes_max).await?;
    api.call(move |_| upload.finish()).await?;
    body::answer(StatusCode::CREATED, &FileView { route, key, bytes })
}

fn begin(
    service: &Service,
    scope: &Scope,
    name: &RouteName,
    key: &ObjectKey,
    (length, bytes_max): (Option<u64>, u64),
) -> Result<Upload, ServiceError> {
    let config = service.config();
    check_quota(service, scope, seen(config.route(name), scope, name)?, length)?;
    service.upload(scope, name, key, length.unwrap_or(bytes_max))
}

/// Another tenant's route is not there.
fn seen<'a>(route: Option<&'a Route>, scope: &Scope, name: &RouteName) -> Result<&'a Route, ServiceError> {
    let missing = || ServiceError::not_found(format!("there is no route {name}"));
    route.filter(|route| scope.sees(&route.tenant)).ok_or_else(missing)
}

/// An upload becomes a job: what no job could be made of now is refused before it fills the disk.
fn check_quota(service: &Service, scope: &Scope, route: &Route, length: Option<u64>) -> Result<(), ServiceError> {
    let views = service.routes(scope);
    let waiting = views.iter().find(|view| view.name == route.name).map_or(0, |view| view.queued + view.running);
    let is_full = route.quota.jobs_queued.is_some_and(|limit| waiting >= limit);
    let is_large = route.quota.bytes_queued.zip(length).is_some_and(|(limit, bytes)| waiting > 0 && bytes > limit);
    if is_full || is_large {
        let kind = ServiceErrorKind::QuotaExceeded { retry_after: RETRY_AFTER };
        return Err(ServiceError::new(
            kind,
            format!("route {} has {waiting} jobs waiting: try again later", route.name),
        ));
    }
    Ok(())
}

/// Writes what arrives, a piece at a time: the disk's pace is the client's.
async fn receive(
    api: &Api,
    mut upload: Upload,
    payload: &mut web::Payload,
    bytes_max: u64,
) -> Result<(Upload, u64), Problem> {
    let (mut gathered, mut bytes) = (BytesMut::new(), 0);
    loop {
        let piece =
            timeout(STALL_MAX, next_piece(payload)).await.map_err(|_| Problem::timeout("the rest of the upload"))?;
        let is_last = piece.is_none();
        if let Some(piece) = piece.transpose()? {
            bytes += piece.len() as u64;
            if bytes > bytes_max {
                return Err(Problem::too_large("the upload", bytes_max));
            }
            gathered.extend_from_slice(&piece);
        }
        if gathered.len() >= PIECE_BYTES || is_last {
            let whole = std::mem::take(&mut gathered);
            upload = api
                .call(move |_| {
                    upload.write(&whole)?;
                    Ok(upload)
                })
                .await?;
        }
        if is_last && bytes > 0 {
            return Ok((upload, bytes));
        }
        if is_last {
            return Err(Problem::bad_request("the upload is empty"));
        }
    }
}

/// The styled video; ranges are served.
#[utoipa::path(get, path = "/v1/jobs/{id}/output", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
    (status = 206, content_type = "application/octet-stream", description = "The range that was asked for", body = Vec<u8>),
    (status = 404, description = "No such job", body = ProblemView),
    (status = 409, description = "It has not finished", body = ProblemView),
    (status = 416, description = "A range beyond the end", body = ProblemView),
))]
pub(super) async fn output(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (id, scope) = (job_id(&path)?, caller.scope_of(query.tenant.as_deref())?);
    let (blob, key) = api.call(move |service| service.output(&scope, &id)).await?;
    send(&api, &request, blob, &key)
}

fn send(api: &Api, request: &HttpRequest, blob: Blob, key: &ObjectKey) -> Result<HttpResponse, Problem> {
    let (size, tag) = (blob.size(), format!("\"{}\"", blob.identity().ends_digest));
    let same = request.headers().get(header::IF_RANGE).is_none_or(|said| said.as_bytes() == tag.as_bytes());
    let asked = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok()).filter(|_| same);
    let range = match asked.map(|text| Range::parse(text, size)) {
        None | Some(Range::NotUnderstood) => None,
        Some(Range::Bytes(first, last)) => Some((first, last)),
        Some(Range::Beyond) => {
            let detail = format!("the output has {size} bytes");
            return Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid", detail));
        }
    };
    let (first, last) = range.unwrap_or((0, size.saturating_sub(1)));
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CONTENT_TYPE, media_type(key)));
    response.insert_header((header::ETAG, tag));
    response.insert_header((header::ACCEPT_RANGES, HeaderValue::from_static("bytes")));
    response.insert_header((header::CONTENT_DISPOSITION, disposition(key.file_name())));
    if range.is_some() {
        response.insert_header((header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")));
    }
    let length = last - first + 1;
    let permit = api.pipe()?;
    let (writer, pieces) = PieceWriter::new(DEPTH, STALL_MAX);
    std::thread::Builder::new()
        .name("restyle-download".to_owned())
        .spawn(move || pump(&blob, first, length, &writer, permit))
        .map_err(|e| Problem::busy(format!("no thread can be had for a download: {e}")))?;
    Ok(response.body(Piped::sized(pieces, length)))
}

/// Reads ahead of the client by two pieces, until it has everything or is gone.
fn pump(blob: &Blob, first: u64, length: u64, writer: &PieceWriter, _room: OwnedSemaphorePermit) {
    let mut sent = 0;
    while sent < length {
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(length - sent).unwrap_or(PIECE_BYTES))];
        match blob.read_at(first + sent, &mut piece) {
            // The connection breaks: what was promised is not there.
            Ok(0) => return,
            Ok(read) => piece.truncate(read),
            Err(error) => {
                tracing::warn!(%error, "a download broke off");
                return;
            }
        }
        sent += piece.len() as u64;
        if writer.write(Bytes::from(piece)).is_err() {
            return;
        }
    }
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// From the first to the last byte, both included.
    Bytes(u64, u64),
    /// Nothing that is there.
    Beyond,
    /// Several ranges, another unit, or nonsense: everything is sent, as the standard says.
    NotUnderstood,
}

impl Range {
    fn parse(text: &str, size: u64) -> Self {
        let spec = text.strip_prefix("bytes=").map(str::trim).and_then(|spec| spec.split_once('-'));
        let Some((first, last)) = spec else { return Self::NotUnderstood };
        let number =
            |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
        match (first, number(first), last, number(last)) {
            ("", _, _, Some(0)) => Self::Beyond,
            ("", _, _, Some(tail)) if size > 0 => Self::Bytes(size.saturating_sub(tail), size - 1),
            ("", _, _, Some(_)) => Self::Beyond,
            (_, Some(first), "", _) if first < size => Self::Bytes(first, size - 1),
            (_, Some(first), _, Some(last)) if first <= last && first < size => Self::Bytes(first, last.min(size - 1)),
            (_, Some(first), _, Some(last)) if first > last => Self::NotUnderstood,
            (_, Some(_), "", _) | (_, Some(_), _, Some(_)) => Self::Beyond,
            _ => Self::NotUnderstood,
        }
    }
}

fn media_type(key: &ObjectKey) -> &'static str {
    match key.file_name().rsplit_once('.').map(|(_, extension)| extension) {
        Some("mp4") => "video/mp4",
        Some("mov") => "video/quicktime",
        Some("mkv") => "video/x-matroska",
        Some("webm") => "video/webm",
        _ => "application/octet-stream",
    }
}

/// Names the file for a browser that saves it (RFC 6266): what is not plain is written as percent-encoded UTF-8.
fn disposition(name: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let encoded: String =
        name.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect();
    format!("attachment; filename*=UTF-8''{encoded}")
}

/// What a presigned URL is wanted for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PresignRequest {
    /// The object: an input for `put`, an output for `get`.
    pub(super) key: ObjectKey,
    /// What the URL shall allow.
    pub(super) method: PresignMethod,
}

/// What a presigned URL allows: this and nothing else, for this object and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PresignMethod {
    /// Making a new object of the route's input location; none that stands there is replaced.
    Put,
    /// Reading an object of the route's output location.
    Get,
}

/// A URL that carries its own permission.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct PresignedView {
    /// The URL: whoever has it may use it.
    pub(super) url: String,
    /// The method it is good for.
    pub(super) method: String,
    /// Headers that the request must carry.
    pub(super) headers: BTreeMap<String, String>,
    /// Until when, RFC 3339.
    pub(super) expires_at: String,
}

/// Makes a URL by which one object can be sent to or fetched from the object store directly.
#[utoipa::path(post, path = "/v1/routes/{route}/presign", tag = "routes", params(("route" = String, Path, description = "The route")), request_body = PresignRequest, responses(
    (status = 200, body = PresignedView),
    (status = 404, description = "No such route", body = ProblemView),
    (status = 409, description = "kind = unsupported: the location is a folder", body = ProblemView),
))]
pub(super) async fn presign(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let wanted: PresignRequest = api.read(&request, payload, None).await?;
    caller.may(if wanted.method == PresignMethod::Put { Action::Submit } else { Action::Read })?;
    let (route, scope) = (RouteName::parse(&path)?, caller.scope());
    let signed = api.call(move |service| sign(service, &scope, &route, &wanted)).await?;
    body::answer(StatusCode::OK, &signed)
}

fn sign(
    service: &Service,
    scope: &Scope,
    name: &RouteName,
    wanted: &PresignRequest,
) -> Result<PresignedView, ServiceError> {
    let right = match wanted.method {
        PresignMethod::Put => UrlRight::Create,
        PresignMethod::Get => UrlRight::Read,
    };
    if right == UrlRight::Create {
        let config = service.config();
        check_quota(service, scope, seen(config.route(name), scope, name)?, None)?;
    }
    let made = service.presign(scope, name, &wanted.key, right)?;
    Ok(PresignedView {
        url: made.signed.expose().to_owned(),
        method: made.signed.method.to_owned(),
        headers: made.signed.headers.into_iter().collect(),
        expires_at: made.expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (text, range) in [
            ("bytes=0-0", Range::Bytes(0, 0)),
            ("bytes=10-", Range::Bytes(10, 99)),
            ("bytes=10-1000", Range::Bytes(10, 99)),
            ("bytes=-10", Range::Bytes(90, 99)),
            ("bytes=-1000", Range::Bytes(0, 99)),
            ("bytes=100-", Range::Beyond),
            ("bytes=100-200", Range::Beyond),
            ("bytes=-0", Range::Beyond),
            ("bytes=5-4", Range::NotUnderstood),
            ("bytes=0-1,5-6", Range::NotUnderstood),
            ("bytes=+1-2", Range::NotUnderstood),
            ("lines=0-1", Range::NotUnderstood),
            ("bytes=99999999999999999999-", Range::NotUnderstood),
            ("bytes=", Range::NotUnderstood),
            ("bytes=-", Range::NotUnderstood),
        ] {
            assert_eq!(Range::parse(text, 100), range, "{text}");
        }
        assert_eq!(Range::parse("bytes=-5", 0), Range::Beyond);
    }

    #[test]
    fn hostile_names_stay_inside_the_header() {
        assert_eq!(disposition("a.mp4"), "attachment; filename*=UTF-8''a.mp4");
        assert_eq!(disposition("a\"; x=\"ü"), "attachment; filename*=UTF-8''a%22%3B%20x%3D%22%C3%BC");
    }
}
