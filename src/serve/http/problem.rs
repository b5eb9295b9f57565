//! Refusals as `application/problem+json` (RFC 9457).

use crate::serve::error::{ServiceError, ServiceErrorKind};
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, ResponseError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use utoipa::ToSchema;

/// The media type of every refusal.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// What a refusal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemView {
    /// Always `about:blank`: `kind` tells refusals apart.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The status in words.
    pub title: String,
    /// The status of the response.
    pub status: u16,
    /// What was wrong and what to do, for people.
    pub detail: String,
    /// The stable kind, for programs.
    pub kind: String,
}

/// A refusal on its way to the client.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    allow: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after: None, allow: None }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// One text for every reason: whoever guesses learns nothing.
    pub(super) fn unauthorized() -> Self {
        let detail = "a valid token is needed: send it as authorization: bearer rst_...";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(super) fn too_large(what: &str, bytes_max: u64) -> Self {
        let detail = format!("{what} is larger than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn timeout(what: &str) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", format!("{what} did not arrive in time"))
    }

    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(Duration::from_secs(1))
    }

    pub(super) fn too_many(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(retry_after)
    }

    pub(super) fn method_not_allowed(methods: &[Method]) -> Self {
        let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let detail = format!("this resource knows {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail) }
    }

    fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// Dresses a refusal that was made without words, by its status alone.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let kind = match status {
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::REQUEST_TIMEOUT => "timeout",
            s if s.is_client_error() => "invalid",
            _ => "internal",
        };
        Self::new(status, kind, status.canonical_reason().unwrap_or_default().to_lowercase())
    }

    pub(super) fn view(&self) -> ProblemView {
        ProblemView {
            type_uri: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            kind: self.kind.to_owned(),
        }
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let status = match error.kind() {
            ServiceErrorKind::NotFound => StatusCode::NOT_FOUND,
            ServiceErrorKind::Conflict | ServiceErrorKind::Unsupported => StatusCode::CONFLICT,
            ServiceErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ServiceErrorKind::QuotaExceeded { .. } => StatusCode::TOO_MANY_REQUESTS,
            ServiceErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ServiceErrorKind::Draining | ServiceErrorKind::Storage => StatusCode::SERVICE_UNAVAILABLE,
        };
        let problem = Self::new(status, error.kind().name(), error.to_string());
        Self { retry_after: error.retry_after(), ..problem }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let body = serde_json::to_vec(&self.view()).unwrap_or_default();
        let mut response = HttpResponse::build(self.status);
        response.insert_header((CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON)));
        if let Some(after) = self.retry_after {
            // Rounded up: a client that comes back too early is refused again.
            response.insert_header((RETRY_AFTER, after.as_millis().div_ceil(1000).max(1).to_string()));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((ALLOW, allow.clone()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        response.body(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_errors_become_statuses_and_say_when_to_come_back() {
        let kind = ServiceErrorKind::QuotaExceeded { retry_after: Duration::from_millis(1_200) };
        let problem = Problem::from(ServiceError::new(kind, "full"));
        let response = problem.error_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "2");
        assert_eq!(problem.view().kind, "quota_exceeded");
        assert_eq!(Problem::from(ServiceError::not_found("x")).status, StatusCode::NOT_FOUND);
        assert_eq!(Problem::from(ServiceError::storage("x")).status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
