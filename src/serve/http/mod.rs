//! The HTTP interface: a layer over [`Service`](super::Service), the only place that names actix-web.
//!
//! [`Server`] is the whole of it with listeners, TLS and limits. An embedder with an actix-web app of its own takes
//! [`scope`] instead. Calls of the service block, so that handlers make them on the blocking pool. What a client sends is
//! bounded in size and time, and names objects inside configured locations only.

mod api;
mod api_files;
mod api_frames;
mod api_jobs;
mod api_nodes;
mod api_styles;
mod body;
mod caller;
mod dashboard;
mod feed;
mod guard;
mod health;
mod hooks_in;
mod hooks_out;
mod metrics;
mod openapi;
mod problem;
mod rate;
mod server;
mod sse;

pub use api::Api;
pub use caller::MeView;
pub use openapi::document as openapi_document;
pub use problem::ProblemView;
pub use server::{Listeners, Server};

use actix_web::body::BoxBody;
use actix_web::dev::{HttpServiceFactory, ServiceRequest};
use actix_web::http::Method;
use actix_web::middleware::{Next, from_fn};
use actix_web::{HttpResponse, Resource, Route, web};

/// Everything the service answers, for an app of one's own: nest it under a prefix, or register it last, since it answers whatever
/// path is asked for.
///
/// Network allow list, tokens, limits and security headers apply as in [`Server`]; listeners and TLS are the app's.
pub fn scope(api: &Api) -> impl HttpServiceFactory + use<> {
    // A scope's data are not there yet when its middleware runs.
    let guarding = api.clone();
    let guard = move |request: ServiceRequest, next: Next<BoxBody>| guard::guard(guarding.clone(), request, next);
    web::scope("")
        .app_data(web::Data::new(api.clone()))
        .wrap(from_fn(guard))
        .service(health::live())
        .service(health::ready())
        .service(openapi::resource_of_document())
        .service(web::scope("/v1").configure(versioned).default_service(web::to(nothing_here)))
        .configure(dashboard::configure)
        .default_service(web::to(nothing_here))
}

fn versioned(config: &mut web::ServiceConfig) {
    api_jobs::configure(config);
    api_files::configure(config);
    api_frames::configure(config);
    api_nodes::configure(config);
    api_styles::configure(config);
    hooks_in::configure(config);
}

async fn nothing_here() -> Result<HttpResponse, problem::Problem> {
    Err(problem::Problem::not_found("there is no such resource; /openapi.json lists what there is"))
}

/// A resource that says which methods it knows when it is asked with another one.
fn resource<const N: usize>(path: &str, routes: [(Method, Route); N]) -> Resource {
    let methods: Vec<Method> = routes.iter().map(|(method, _)| method.clone()).collect();
    let resource = routes.into_iter().fold(web::resource(path), |r, (method, route)| r.route(route.method(method)));
    resource.default_service(web::to(move || {
        let methods = methods.clone();
        async move { Err::<HttpResponse, _>(problem::Problem::method_not_allowed(&methods)) }
    }))
}
