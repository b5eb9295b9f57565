//! A job's events as they happen: `text/event-stream` with replay.

use super::api::Api;
use super::api_jobs::job_id;
use super::body::{ClientGone, PieceWriter, Piped};
use super::caller::Caller;
use super::problem::{Problem, ProblemView};
use crate::serve::events::{EventStream, NumberedEvent};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use crossbeam_channel::{Receiver, select};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use utoipa::IntoParams;

/// Proxies close connections that say nothing; a client that went away is noticed by then as well.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that wait for a slow client before its thread waits too.
const DEPTH: usize = 64;
/// A client that takes nothing for so long is let go; it comes back with the number of the last event it saw.
const STALL_MAX: Duration = Duration::from_secs(30);

/// Where a stream begins.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Whose job it is, for callers who see every tenant's.
    tenant: Option<String>,
    /// Only events after this number, where no Last-Event-ID is sent.
    after: Option<u64>,
}

/// A job's events, those of the past first; each carries its number as `id`.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "jobs", params(
    ("id" = String, Path, description = "The job's id"),
    ("Last-Event-ID" = Option<u64>, Header, description = "Only events after this number"),
    EventsQuery,
), responses(
    (status = 200, content_type = "text/event-stream", body = String),
    (status = 204, description = "The job has ended and there is nothing after that number: do not come back"),
    (status = 404, description = "No such job", body = ProblemView),
))]
pub(super) async fn events(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<EventsQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (id, scope) = (job_id(&path)?, caller.scope_of(query.tenant.as_deref())?);
    let after = last_seen(&request)?.or(query.after).unwrap_or(0);
    let permit = api.pipe()?;
    let (ended, stream) = api
        .call(move |service| {
            // Asked for first: a job that ends in between is told by its stream.
            let ended = service.job(&scope, &id)?.state.is_ended();
            Ok((ended, service.events(&scope, &id, after)?))
        })
        .await?;
    if ended && after > 0 && stream.receiver().is_empty() {
        return Ok(HttpResponse::NoContent().finish());
    }
    let (writer, pieces) = PieceWriter::new(DEPTH, STALL_MAX);
    let ending = api.ending();
    std::thread::Builder::new()
        .name("restyle-events".to_owned())
        .spawn(move || pump(&stream, &ending, &writer, permit))
        .map_err(|e| Problem::busy(format!("no thread can be had for a stream: {e}")))?;
    Ok(event_stream(pieces))
}

/// The answer that carries events until either side ends it; no cache and no proxy may hold them back.
pub(super) fn event_stream(pieces: mpsc::Receiver<Bytes>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .body(Piped::endless(pieces))
}

fn last_seen(request: &HttpRequest) -> Result<Option<u64>, Problem> {
    let Some(said) = request.headers().get("last-event-id") else { return Ok(None) };
    let number = said.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Problem::bad_request("last-event-id is not a number of an event"))
}

/// Carries events from the job's channel to the connection until either ends.
fn pump(stream: &EventStream, ending: &Receiver<()>, writer: &PieceWriter, _room: OwnedSemaphorePermit) {
    let _ = writer.write(Bytes::from_static(b"retry: 2000\n\n")).and_then(|()| carry(stream, ending, writer));
}

fn carry(stream: &EventStream, ending: &Receiver<()>, writer: &PieceWriter) -> Result<(), ClientGone> {
    loop {
        select! {
            recv(stream.receiver()) -> event => match event {
                Ok(event) => writer.write(piece(&event))?,
                Err(_) => return Ok(()),
            },
            recv(ending) -> _ => return Ok(()),
            default(HEARTBEAT) => writer.write(Bytes::from_static(b": still here\n\n"))?,
        }
        if writer.is_abandoned() {
            return Err(ClientGone);
        }
    }
}

/// JSON has no line breaks outside of strings, and escapes those inside: one `data` line is enough.
fn piece(event: &NumberedEvent) -> Bytes {
    let data = serde_json::to_string(&event.data).unwrap_or_else(|_| "null".to_owned());
    Bytes::from(format!("id: {}\nevent: {}\ndata: {data}\n\n", event.seq, event.event.name()))
}
