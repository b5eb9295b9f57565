//! `/v1/jobs`: creating, looking at and steering jobs.

use super::api::Api;
use super::caller::{Caller, MeView};
use super::problem::{Problem, ProblemView};
use super::{body, feed, resource, sse};
use crate::serve::ServiceError;
use crate::serve::access::Action;
use crate::serve::ident::{ClientJobId, RouteName, Scope, Tenant};
use crate::serve::job::{JobRequest, JobState};
use crate::serve::service::{Created, Service};
use crate::serve::view::{JobFilter, JobPage, JobView, Report, Summary};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/me", [(Method::GET, web::to(me))]))
        .service(resource("/summary", [(Method::GET, web::to(summary))]))
        .service(resource("/events", [(Method::GET, web::to(feed::feed))]))
        .service(resource("/jobs", [(Method::GET, web::to(list))]))
        .service(resource("/jobs/{id}", [(Method::GET, web::to(get)), (Method::PUT, web::to(put))]))
        .service(resource("/jobs/{id}/cancel", [(Method::POST, web::to(cancel))]))
        .service(resource("/jobs/{id}/retry", [(Method::POST, web::to(retry))]))
        .service(resource("/jobs/{id}/pause", [(Method::POST, web::to(pause))]))
        .service(resource("/jobs/{id}/resume", [(Method::POST, web::to(resume))]))
        .service(resource("/jobs/{id}/events", [(Method::GET, web::to(sse::events))]))
        .service(resource("/jobs/{id}/log", [(Method::GET, web::to(log))]))
        .service(resource("/jobs/{id}/report", [(Method::GET, web::to(report))]));
}

/// Which tenant's job is meant, where a caller sees several.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantQuery {
    /// Whose job it is, for callers who see every tenant's.
    pub(super) tenant: Option<String>,
}

/// Which jobs a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// States, joined by commas.
    state: Option<String>,
    /// Only this route's.
    route: Option<String>,
    /// Only this tenant's.
    tenant: Option<String>,
    /// `true`: only those that failed.
    failed: Option<bool>,
    /// Jobs a page, 1 to 500.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
}

/// Reads a job's id from the address.
pub(super) fn job_id(path: &web::Path<String>) -> Result<ClientJobId, Problem> {
    Ok(ClientJobId::parse(path)?)
}

/// Who the token says you are, and what you may do.
#[utoipa::path(get, path = "/v1/me", tag = "service", responses((status = 200, body = MeView)))]
pub(super) async fn me(caller: Caller) -> Result<HttpResponse, Problem> {
    body::answer(StatusCode::OK, &caller.view())
}

/// The whole service in a few numbers.
#[utoipa::path(get, path = "/v1/summary", tag = "service", responses((status = 200, body = Summary)))]
pub(super) async fn summary(api: web::Data<Api>, caller: Caller) -> Result<HttpResponse, Problem> {
    let scope = caller.scope();
    let summary = api.call(move |service| Ok(service.summary(&scope))).await?;
    body::answer(StatusCode::OK, &summary)
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(ListQuery), responses(
    (status = 200, body = JobPage),
    (status = 400, description = "A filter that makes no sense", body = ProblemView),
))]
pub(super) async fn list(
    api: web::Data<Api>,
    caller: Caller,
    query: web::Query<ListQuery>,
) -> Result<HttpResponse, Problem> {
    let query = query.into_inner();
    let scope = caller.scope_of(query.tenant.as_deref())?;
    let mut states: Vec<JobState> = Vec::new();
    for word in query.state.iter().flat_map(|words| words.split(',')) {
        let state = serde_json::from_value(word.into());
        states.push(state.map_err(|_| {
            Problem::bad_request("state is none of queued, running, paused, finished, failed, cancelled")
        })?);
    }
    if query.failed == Some(true) {
        states = vec![JobState::Failed];
    }
    if query.limit.is_some_and(|limit| !(1..=500).contains(&limit)) {
        return Err(Problem::bad_request("limit is out of range, expected 1 to 500"));
    }
    let route = query.route.as_deref().map(RouteName::parse).transpose()?;
    let filter = JobFilter { states, route, tenant: None, limit: query.limit.unwrap_or(0), cursor: query.cursor };
    let page = api.call(move |service| Ok(service.list(&scope, &filter))).await?;
    body::answer(StatusCode::OK, &page)
}

/// One job.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 200, body = JobView),
    (status = 404, description = "No such job", body = ProblemView),
))]
pub(super) async fn get(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
) -> Result<HttpResponse, Problem> {
    let (id, scope) = (job_id(&path)?, caller.scope_of(query.tenant.as_deref())?);
    let job = api.call(move |service| service.job(&scope, &id)).await?;
    body::answer(StatusCode::OK, &job)
}

/// Creates a job; the same request under the same id is accepted once.
#[utoipa::path(put, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "An id of the client's own"), TenantQuery), request_body = JobRequest, responses(
    (status = 202, description = "Accepted: it is on record", body = JobView),
    (status = 200, description = "Accepted before", body = JobView),
    (status = 400, description = "The request makes no sense", body = ProblemView),
    (status = 404, description = "No such route or input", body = ProblemView),
    (status = 409, description = "The id names another request", body = ProblemView),
    (status = 429, description = "Too much waits already", body = ProblemView),
    (status = 503, description = "The service is ending", body = ProblemView),
))]
pub(super) async fn put(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller.may(Action::Submit)?;
    let (id, scope) = (job_id(&path)?, caller.scope_of(query.tenant.as_deref())?);
    let wanted: JobRequest = api.read(&request, payload, None).await?;
    let create = move |service: &Service| {
        let tenant = tenant_of(service, &scope, wanted.route.as_ref());
        service.create(&tenant, &id, wanted)
    };
    let (job, created) = api.call(create).await?;
    let status = if created == Created::New { StatusCode::ACCEPTED } else { StatusCode::OK };
    body::answer(status, &job)
}

/// A caller who sees every tenant means the one whose route it names.
fn tenant_of(service: &Service, scope: &Scope, route: Option<&RouteName>) -> Tenant {
    match scope {
        Scope::Tenant(tenant) => tenant.clone(),
        Scope::All => {
            let config = service.config();
            let named = route.and_then(|name| config.route(name)).or_else(|| config.routes.first());
            named.map_or_else(Tenant::default, |route| route.tenant.clone())
        }
    }
}

/// Steers one job and answers with what it has come to.
async fn steer(
    api: &Api,
    caller: &Caller,
    action: Action,
    path: &web::Path<String>,
    query: &TenantQuery,
    verb: impl FnOnce(&Service, &Scope, &ClientJobId) -> Result<JobView, ServiceError> + Send + 'static,
) -> Result<HttpResponse, Problem> {
    caller.may(action)?;
    let (id, scope) = (job_id(path)?, caller.scope_of(query.tenant.as_deref())?);
    let job = api.call(move |service| verb(service, &scope, &id)).await?;
    body::answer(StatusCode::ACCEPTED, &job)
}

/// Has a job end; what is finished is kept.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 202, body = JobView),
    (status = 403, description = "The role is not enough", body = ProblemView),
    (status = 404, description = "No such job", body = ProblemView),
    (status = 409, description = "It has ended", body = ProblemView),
))]
pub(super) async fn cancel(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
) -> Result<HttpResponse, Problem> {
    steer(&api, &caller, Action::EndOrRetry, &path, &query, |service, scope, id| service.cancel(scope, id)).await
}

/// Has a job that failed or was cancelled try again; what is finished is not done again.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 202, body = JobView),
    (status = 404, description = "No such job", body = ProblemView),
    (status = 409, description = "It neither failed nor was cancelled", body = ProblemView),
))]
pub(super) async fn retry(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
) -> Result<HttpResponse, Problem> {
    steer(&api, &caller, Action::EndOrRetry, &path, &query, |service, scope, id| service.retry(scope, id)).await
}

/// Has a job wait until it is resumed.
#[utoipa::path(post, path = "/v1/jobs/{id}/pause", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 202, body = JobView),
    (status = 404, description = "No such job", body = ProblemView),
    (status = 409, description = "It neither waits nor runs", body = ProblemView),
))]
pub(super) async fn pause(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
) -> Result<HttpResponse, Problem> {
    steer(&api, &caller, Action::Pause, &path, &query, |service, scope, id| service.pause(scope, id)).await
}

/// Has a paused job go on.
#[utoipa::path(post, path = "/v1/jobs/{id}/resume", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 202, body = JobView),
    (status = 404, description = "No such job", body = ProblemView),
    (status = 409, description = "It is not paused", body = ProblemView),
))]
pub(super) async fn resume(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
) -> Result<HttpResponse, Problem> {
    steer(&api, &caller, Action::Pause, &path, &query, |service, scope, id| service.resume(scope, id)).await
}

/// Everything that happened to a job, one JSON object a line.
#[utoipa::path(get, path = "/v1/jobs/{id}/log", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 200, content_type = "application/x-ndjson", body = String),
    (status = 404, description = "No such job", body = ProblemView),
))]
pub(super) async fn log(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
) -> Result<HttpResponse, Problem> {
    let (id, scope) = (job_id(&path)?, caller.scope_of(query.tenant.as_deref())?);
    let lines = api.call(move |service| service.log(&scope, &id)).await?;
    Ok(body::bytes("application/x-ndjson", lines))
}

/// What a job came to.
#[utoipa::path(get, path = "/v1/jobs/{id}/report", tag = "jobs", params(("id" = String, Path, description = "The job's id"), TenantQuery), responses(
    (status = 200, body = Report),
    (status = 404, description = "No such job, or it has not ended", body = ProblemView),
))]
pub(super) async fn report(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    query: web::Query<TenantQuery>,
) -> Result<HttpResponse, Problem> {
    let (id, scope) = (job_id(&path)?, caller.scope_of(query.tenant.as_deref())?);
    let report = api.call(move |service| service.report(&scope, &id)).await?;
    body::answer(StatusCode::OK, &report)
}
