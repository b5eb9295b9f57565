//! `/v1/styles` and `/v1/routes`: what can be asked for.

use super::api::Api;
use super::caller::Caller;
use super::problem::Problem;
use super::{body, resource};
use crate::serve::view::{RouteView, StyleView};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, web};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/styles", [(Method::GET, web::to(styles))]))
        .service(resource("/routes", [(Method::GET, web::to(routes))]));
}

/// The styles that jobs may ask for.
#[utoipa::path(get, path = "/v1/styles", tag = "styles", responses((status = 200, body = Vec<StyleView>)))]
pub(super) async fn styles(api: web::Data<Api>, _caller: Caller) -> Result<HttpResponse, Problem> {
    let styles = api.call(|service| Ok(service.styles())).await?;
    body::answer(StatusCode::OK, &styles)
}

/// The routes that the caller sees.
#[utoipa::path(get, path = "/v1/routes", tag = "routes", responses((status = 200, body = Vec<RouteView>)))]
pub(super) async fn routes(api: web::Data<Api>, caller: Caller) -> Result<HttpResponse, Problem> {
    let scope = caller.scope();
    let routes = api.call(move |service| Ok(service.routes(&scope))).await?;
    body::answer(StatusCode::OK, &routes)
}
