//! What can be seen of a job's frames: what each has come to, where they wait, and how they look.

use super::api::Api;
use super::api_jobs::{TenantQuery, job_id};
use super::caller::Caller;
use super::problem::{Problem, ProblemView};
use super::{body, resource};
use crate::serve::view::{FrameStrip, LinkView, Side};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/jobs/{id}/frames", [(Method::GET, web::to(frames))]))
        .service(resource("/jobs/{id}/links", [(Method::GET, web::to(links))]))
        .service(resource("/jobs/{id}/preview", [(Method::GET, web::to(preview))]));
}

/// Which picture is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewQuery {
    /// Whose job it is, for callers who see every tenant's.
    tenant: Option<String>,
    /// The frame, 0-based.
    frame: u64,
    /// `before` or `after` styling.
    side: Side,
    /// Width in pixels; the picture's own where left out.
    #[param(minimum = 16, maximum = 4096)]
    width: Option<u32>,
}

/// What each frame has come to, as runs of equal ones.
#[utoipa::path(get, path = "/v1/jobs/{id}/frames", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 200, body = FrameStrip),
    (status = 404, description = "No such job", body = ProblemView),
))]
pub(super) async fn frames(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
) -> Result<HttpResponse, Problem> {
    let (id, scope) = (job_id(&path)?, caller.scope_of(query.tenant.as_deref())?);
    let strip = api.call(move |service| service.frames(&scope, &id)).await?;
    body::answer(StatusCode::OK, &strip)
}

/// The hand-offs between stages, while the job runs.
#[utoipa::path(get, path = "/v1/jobs/{id}/links", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 200, body = Vec<LinkView>),
    (status = 404, description = "No such job", body = ProblemView),
))]
pub(super) async fn links(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
) -> Result<HttpResponse, Problem> {
    let (id, scope) = (job_id(&path)?, caller.scope_of(query.tenant.as_deref())?);
    let links = api.call(move |service| service.links(&scope, &id)).await?;
    body::answer(StatusCode::OK, &links)
}

/// One frame as JPEG, before or after styling.
#[utoipa::path(get, path = "/v1/jobs/{id}/preview", tag = "jobs", params(("id" = String, Path, description = "The job's id"), PreviewQuery), responses(
    (status = 200, content_type = "image/jpeg", body = Vec<u8>),
    (status = 404, description = "No such job or frame, or it is not done yet", body = ProblemView),
))]
pub(super) async fn preview(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<PreviewQuery>,
) -> Result<HttpResponse, Problem> {
    let (id, scope) = (job_id(&path)?, caller.scope_of(query.tenant.as_deref())?);
    if query.width.is_some_and(|width| !(16..=4096).contains(&width)) {
        return Err(Problem::bad_request("width is out of range, expected 16 to 4096"));
    }
    let query = query.into_inner();
    let picture = api.call(move |service| service.preview(&scope, &id, query.frame, query.side, query.width)).await?;
    Ok(body::bytes("image/jpeg", picture.bytes))
}
