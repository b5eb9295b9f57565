//! `/livez` and `/readyz`, for whoever restarts or routes.

use super::api::Api;
use super::problem::Problem;
use super::{body, resource};
use crate::serve::view::Health;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, Resource, web};

pub(super) fn live() -> Resource {
    resource("/livez", [(Method::GET, web::to(answer_live))])
}

pub(super) fn ready() -> Resource {
    resource("/readyz", [(Method::GET, web::to(answer_ready))])
}

/// Whether the process makes progress; restart it where it does not.
#[utoipa::path(get, path = "/livez", tag = "health", security(()), responses(
    (status = 200, description = "It lives", body = Health),
    (status = 503, description = "It does not", body = Health),
))]
pub(super) async fn answer_live(api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let health = api.call(|service| Ok(service.health())).await?;
    body::answer(status(health.live), &health)
}

/// Whether jobs are taken now: not while the service drains.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "Jobs are taken", body = Health),
    (status = 503, description = "Not now", body = Health),
))]
pub(super) async fn answer_ready(api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let health = api.call(|service| Ok(service.health())).await?;
    body::answer(status(health.ready), &health)
}

fn status(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
