//! `/v1/nodes`: the scorers, and what they can be told.

use super::api::Api;
use super::caller::Caller;
use super::problem::{Problem, ProblemView};
use super::{body, resource};
use crate::serve::ServiceError;
use crate::serve::access::Action;
use crate::serve::ident::Scope;
use crate::serve::service::Service;
use crate::serve::view::{NOTICE_DEFAULT, NodeView};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// Whoever takes a machine away gives minutes at most.
const NOTICE_SECONDS_MAX: u64 = 3_600;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    // A node's id holds a slash.
    config
        .service(resource("/nodes", [(Method::GET, web::to(list))]))
        .service(resource("/nodes/{node:.+}/preempt", [(Method::POST, web::to(preempt))]))
        .service(resource("/nodes/{node:.+}/drain", [(Method::POST, web::to(drain))]))
        .service(resource("/nodes/{node:.+}/resume", [(Method::POST, web::to(resume))]));
}

/// How a node is told to leave.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreemptRequest {
    /// Seconds that it has to finish what it holds, 0 to 3600; 30 where left out.
    #[schema(maximum = 3600)]
    pub(super) notice_seconds: Option<u64>,
}

/// The scorer nodes of running jobs.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", responses((status = 200, body = Vec<NodeView>)))]
pub(super) async fn list(api: web::Data<Api>, caller: Caller) -> Result<HttpResponse, Problem> {
    let scope = caller.scope();
    let nodes = api.call(move |service| Ok(service.nodes(&scope))).await?;
    body::answer(StatusCode::OK, &nodes)
}

/// Tells a node that it will be taken away: others take over, and it comes back by the configuration.
#[utoipa::path(post, path = "/v1/nodes/{node}/preempt", tag = "nodes", params(("node" = String, Path, description = "The node's id")), request_body = PreemptRequest, responses(
    (status = 202, body = NodeView),
    (status = 403, description = "The role is not enough", body = ProblemView),
    (status = 404, description = "No such node", body = ProblemView),
    (status = 409, description = "It cannot be told so now", body = ProblemView),
))]
pub(super) async fn preempt(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller.may(Action::SteerNodes)?;
    let wanted: PreemptRequest = api.read(&request, payload, Some(PreemptRequest::default())).await?;
    let seconds = wanted.notice_seconds.unwrap_or(NOTICE_DEFAULT.as_secs());
    if seconds > NOTICE_SECONDS_MAX {
        let detail = format!("notice_seconds is {seconds}, expected 0 to {NOTICE_SECONDS_MAX}");
        return Err(Problem::bad_request(detail));
    }
    let notice = Duration::from_secs(seconds);
    order(&api, &caller, path, move |service, scope, node| service.preempt(scope, node, notice)).await
}

/// Has a node finish what it has and wait until it is resumed.
#[utoipa::path(post, path = "/v1/nodes/{node}/drain", tag = "nodes", params(("node" = String, Path, description = "The node's id")), responses(
    (status = 202, body = NodeView),
    (status = 403, description = "The role is not enough", body = ProblemView),
    (status = 404, description = "No such node", body = ProblemView),
    (status = 409, description = "It cannot be told so now", body = ProblemView),
))]
pub(super) async fn drain(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    order(&api, &caller, path, Service::drain).await
}

/// Has a node that was drained or pre-empted work again.
#[utoipa::path(post, path = "/v1/nodes/{node}/resume", tag = "nodes", params(("node" = String, Path, description = "The node's id")), responses(
    (status = 202, body = NodeView),
    (status = 403, description = "The role is not enough", body = ProblemView),
    (status = 404, description = "No such node", body = ProblemView),
    (status = 409, description = "It cannot be told so now", body = ProblemView),
))]
pub(super) async fn resume(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    order(&api, &caller, path, Service::resume_node).await
}

async fn order(
    api: &Api,
    caller: &Caller,
    node: web::Path<String>,
    tell: impl FnOnce(&Service, &Scope, &str) -> Result<NodeView, ServiceError> + Send + 'static,
) -> Result<HttpResponse, Problem> {
    caller.may(Action::SteerNodes)?;
    let (scope, node) = (caller.scope(), node.into_inner());
    let view = api.call(move |service| tell(service, &scope, &node)).await?;
    body::answer(StatusCode::ACCEPTED, &view)
}
