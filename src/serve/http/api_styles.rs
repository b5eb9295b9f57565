//! `/v1/styles` and `/v1/routes`: what can be asked for.

use super::api::Api;
use super::caller::Caller;
use super::problem::{Problem, ProblemView};
use super::{body, resource};
use crate::serve::view::{RouteView, StyleView};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, web};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/styles", [(Method::GET, web::to(styles))]))
        .service(resource("/styles/{name}/sheet", [(Method::GET, web::to(sheet))]))
        .service(resource("/routes", [(Method::GET, web::to(routes))]));
}

/// The styles that jobs may ask for.
#[utoipa::path(get, path = "/v1/styles", tag = "styles", responses((status = 200, body = Vec<StyleView>)))]
pub(super) async fn styles(api: web::Data<Api>, _caller: Caller) -> Result<HttpResponse, Problem> {
    let styles = api.call(|service| Ok(service.styles())).await?;
    body::answer(StatusCode::OK, &styles)
}

/// What a style makes of a few photos, as one picture.
#[utoipa::path(get, path = "/v1/styles/{name}/sheet", tag = "styles", params(("name" = String, Path, description = "The style")), responses(
    (status = 200, content_type = "image/jpeg", body = Vec<u8>),
    (status = 404, description = "No such style, or it has none", body = ProblemView),
))]
pub(super) async fn sheet(
    api: web::Data<Api>,
    _caller: Caller,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let picture = api.call(move |service| service.sheet(&name)).await?;
    Ok(body::bytes("image/jpeg", picture))
}

/// The routes that the caller sees.
#[utoipa::path(get, path = "/v1/routes", tag = "routes", responses((status = 200, body = Vec<RouteView>)))]
pub(super) async fn routes(api: web::Data<Api>, caller: Caller) -> Result<HttpResponse, Problem> {
    let scope = caller.scope();
    let routes = api.call(move |service| Ok(service.routes(&scope))).await?;
    body::answer(StatusCode::OK, &routes)
}
