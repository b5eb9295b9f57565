//! `/openapi.json`: the interface as a document, generated from the handlers and the types they speak.

use super::problem::{PROBLEM_JSON, Problem};
use super::{api_files, api_frames, api_jobs, api_nodes, api_styles, feed, health, hooks_in, resource, sse};
use actix_web::http::Method;
use actix_web::{HttpResponse, Resource, web};
use serde_json::Value;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "restyle", description = "Styles videos that arrive in storage, and can be seen and steered.", license(name = "MIT OR Apache-2.0")),
    paths(
        health::answer_live,
        health::answer_ready,
        api_jobs::me,
        api_jobs::summary,
        api_jobs::list,
        api_jobs::get,
        api_jobs::put,
        api_jobs::cancel,
        api_jobs::retry,
        api_jobs::pause,
        api_jobs::resume,
        sse::events,
        api_jobs::log,
        api_jobs::report,
        api_frames::frames,
        api_frames::links,
        api_frames::preview,
        api_files::put,
        api_files::output,
        api_files::presign,
        api_nodes::list,
        api_nodes::preempt,
        api_nodes::drain,
        api_nodes::resume,
        api_styles::styles,
        api_styles::sheet,
        feed::feed,
        api_styles::routes,
        hooks_in::event_grid,
        hooks_in::s3,
        answer,
    ),
    components(schemas(hooks_in::ValidationView)),
    modifiers(&Bearer),
    security(("token" = [])),
)]
struct Document;

/// Tokens, as every request under `/v1` carries them where they are configured.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.security_schemes.insert("token".to_owned(), scheme.into());
    }
}

/// Returns the document as JSON.
#[must_use]
pub fn document() -> String {
    // Plain data of this program: it can be written.
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    for path in fields(document.get_mut("paths")) {
        for verb in fields(Some(path)) {
            fields(verb.get_mut("responses")).for_each(name_problems);
        }
    }
    document.to_string()
}

fn fields(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_object_mut).into_iter().flat_map(|fields| fields.values_mut())
}

/// Refusals are problem+json; the generator calls every object plain JSON.
fn name_problems(response: &mut Value) {
    let Some(content) = response.get_mut("content").and_then(Value::as_object_mut) else { return };
    let refers = |media: &Value| media["schema"]["$ref"].as_str().is_some_and(|name| name.ends_with("/ProblemView"));
    if content.get("application/json").is_some_and(refers)
        && let Some(media) = content.remove("application/json")
    {
        content.insert(PROBLEM_JSON.to_owned(), media);
    }
}

pub(super) fn resource_of_document() -> Resource {
    resource("/openapi.json", [(Method::GET, web::to(answer))])
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn answer() -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().insert_header(("content-type", "application/json")).body(document()))
}
