//! What every request goes through before anything looks at what it asks for.

use super::api::{Api, Rules};
use super::caller::Caller;
use super::problem::Problem;
use super::rate;
use crate::serve::access::token::Refused;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, ResponseError as _, web};
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of all header names and values together.
const HEADER_BYTES_MAX: usize = 16 << 10;
const URI_BYTES_MAX: usize = 8 << 10;

/// Sent with every response. The dashboard needs its own scripts, styles and pictures, and nothing of anybody else's.
const SECURITY_HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' blob:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// Lets a request through or refuses it, and dresses the response.
pub(super) async fn guard(
    api: Api,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let began = api.metrics().begin();
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let secure = request.app_config().secure();
    let mut response = match admit(&api, &request).await {
        Ok(()) => next.call(request).await?,
        Err(problem) => request.into_response(problem.error_response()),
    };
    let status = response.status();
    if is_bare_error(&response) {
        response = response.into_response(Problem::of_status(status).error_response());
    }
    dress(response.headers_mut(), secure);
    let micros = api.metrics().end(began, &method, status);
    let caller = response.request().extensions().get::<Caller>().map_or_else(String::new, |c| c.name.clone());
    // The query is left out: it may hold a hook's token.
    tracing::info!(%method, path, status = status.as_u16(), caller, micros, "request");
    Ok(response)
}

/// The same for the listener of metrics: on loopback scrapers need no token, since nothing there names a tenant.
pub(super) async fn guard_metrics(
    api: Api,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let secure = request.app_config().secure();
    let mut response = match admit_scraper(&api, &request).await {
        Ok(()) => next.call(request).await?,
        Err(problem) => request.into_response(problem.error_response()),
    };
    dress(response.headers_mut(), secure);
    Ok(response)
}

async fn admit_scraper(api: &Api, request: &ServiceRequest) -> Result<(), Problem> {
    let rules = api.rules();
    let address = request.peer_addr().map(|peer| peer.ip()).filter(|a| rules.allow.allows(*a));
    let Some(address) = address else { return Err(Problem::forbidden("this network is not let in")) };
    check_size(request)?;
    check_origin(request, rules.tokens.is_none())?;
    take(api, rate::Caller::at(address), rules.limits.requests_per_second)?;
    if address.to_canonical().is_loopback() {
        return Ok(());
    }
    identify(request, rules).await.map(|_| ())
}

/// Finds out who asks, and whether they may ask at all.
async fn admit(api: &Api, request: &ServiceRequest) -> Result<(), Problem> {
    let rules = api.rules();
    let address = request.peer_addr().map(|peer| peer.ip());
    let Some(address) = address.filter(|a| rules.allow.allows(*a)) else {
        return Err(Problem::forbidden("this network is not let in"));
    };
    check_size(request)?;
    check_origin(request, rules.tokens.is_none())?;
    let per_second = rules.limits.requests_per_second;
    take(api, rate::Caller::at(address), per_second)?;
    if is_public(request.path()) {
        return Ok(());
    }
    let caller = identify(request, rules).await?;
    if caller.name != Caller::local().name {
        take(api, rate::Caller::Token(caller.name.clone()), per_second)?;
    }
    request.extensions_mut().insert(caller);
    Ok(())
}

fn take(api: &Api, caller: rate::Caller, per_second: u32) -> Result<(), Problem> {
    let refused = |after| Problem::too_many(format!("more than {per_second} requests a second: slow down"), after);
    api.rate().take(caller, per_second).map_err(refused)
}

/// Probes and the files of the dashboard tell nothing about jobs.
fn is_public(path: &str) -> bool {
    !path.contains("/v1/") && !path.ends_with("/openapi.json")
}

fn check_size(request: &ServiceRequest) -> Result<(), Problem> {
    let uri_bytes = request.uri().to_string().len();
    if uri_bytes > URI_BYTES_MAX {
        let detail = format!("the address has {uri_bytes} bytes, expected at most {URI_BYTES_MAX}");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "too_large", detail));
    }
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        let detail = format!("the headers have {bytes} bytes, expected at most {HEADER_BYTES_MAX}");
        return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large", detail));
    }
    Ok(())
}

/// A page of somebody else's in a browser on this machine must not steer the service: neither by asking across origins, nor
/// by a host name that it points to loopback.
fn check_origin(request: &ServiceRequest, is_open: bool) -> Result<(), Problem> {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        let authority = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, authority)| authority);
        if authority != Some(host) {
            return Err(Problem::forbidden("pages of other origins are not served"));
        }
    }
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_navigation = request.headers().get("sec-fetch-mode").map(HeaderValue::as_bytes) == Some(b"navigate");
    if site == Some(b"cross-site") && !(is_navigation && request.method().is_safe()) {
        return Err(Problem::forbidden("pages of other sites are not served"));
    }
    if is_open && !names_this_machine(host) {
        let detail = "without tokens only localhost and loopback addresses are served, as the host header names them";
        return Err(Problem::forbidden(detail));
    }
    Ok(())
}

fn names_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

async fn identify(request: &ServiceRequest, rules: Arc<Rules>) -> Result<Caller, Problem> {
    if rules.tokens.is_none() {
        return Ok(Caller::local());
    }
    let presented = presented(request).ok_or_else(Problem::unauthorized)?;
    let found = web::block(move || rules.tokens.as_ref().map(|tokens| tokens.authenticate(&presented))).await;
    match found.map_err(|_| Problem::busy("the service is busy"))? {
        Some(Ok(record)) => Caller::holder(record).ok_or_else(Problem::unauthorized),
        Some(Err(Refused::FileUnusable)) => {
            Err(Problem::busy("tokens cannot be checked now: the operator has to look"))
        }
        Some(Err(Refused::Unknown | Refused::Expired)) | None => Err(Problem::unauthorized()),
    }
}

/// Takes the token from the header; storage services that call hooks can only be given an address, so hooks take it from there.
fn presented(request: &ServiceRequest) -> Option<String> {
    if let Some(said) = request.headers().get(header::AUTHORIZATION) {
        let (scheme, token) = said.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    let is_hook = request.path().contains("/v1/hooks/");
    let mut pairs = request.query_string().split('&').filter(|_| is_hook);
    pairs.find_map(|pair| pair.strip_prefix("token=")).map(str::to_owned)
}

/// Whether the framework refused without words.
fn is_bare_error(response: &ServiceResponse<BoxBody>) -> bool {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok());
    // What says something of its own in JSON, as the probes do, is left as it is.
    (status.is_client_error() || status.is_server_error()) && !content_type.is_some_and(|t| t.contains("json"))
}

fn dress(headers: &mut HeaderMap, secure: bool) {
    for (name, value) in SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if secure {
        let long = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, long);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_pass_without_tokens() {
        for good in ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "[::1]:8080", "127.1.2.3"] {
            assert!(names_this_machine(good), "{good}");
        }
        for bad in
            ["", "evil.example", "localhost.evil.example", "192.0.2.1", "[2001:db8::1]", "127.0.0.1.evil.example"]
        {
            assert!(!names_this_machine(bad), "{bad}");
        }
    }

    #[test]
    fn only_probes_and_pages_are_public() {
        for path in ["/livez", "/readyz", "/", "/assets/app.js"] {
            assert!(is_public(path), "{path}");
        }
        for path in ["/v1/jobs", "/openapi.json", "/prefix/v1/me"] {
            assert!(!is_public(path), "{path}");
        }
    }
}
