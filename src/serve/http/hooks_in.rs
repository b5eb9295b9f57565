//! Notifications of storage services: hints to look, never commands. What they name is verified by listing.
//!
//! Nothing in a notification is fetched, followed or trusted; a subscription is confirmed by answering, never by calling back.

use super::api::Api;
use super::caller::Caller;
use super::problem::{Problem, ProblemView};
use super::{body, resource};
use crate::serve::access::Action;
use crate::serve::error::ServiceError;
use crate::serve::ident::{RouteName, Scope};
use crate::serve::service::Service;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Events of one notification that are looked at; services send far fewer at once.
const EVENTS_MAX: usize = 1_000;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/hooks/eventgrid/{route}", [(Method::POST, web::to(event_grid))]))
        .service(resource("/hooks/s3/{route}", [(Method::POST, web::to(s3))]));
}

/// What a notification came to.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(super) struct HintView {
    /// Objects that will be looked for.
    pub(super) hints: usize,
    /// Events that concern nothing in the route's input location.
    pub(super) ignored: usize,
}

/// The answer to Event Grid's question whether its notifications are wanted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct ValidationView {
    /// The code it sent.
    #[serde(rename = "validationResponse")]
    pub(super) validation_response: String,
}

/// Notifications of Azure Event Grid, in its own schema; answers its validation handshake. The token may be in the query.
#[utoipa::path(post, path = "/v1/hooks/eventgrid/{route}", tag = "hooks", params(
    ("route" = String, Path, description = "The route"),
    ("token" = Option<String>, Query, description = "A submitter's token, where no header can be set"),
), request_body(content = Vec<Object>, description = "Events in the Event Grid schema"), responses(
    (status = 200, description = "Noted, or the validation is answered", body = HintView),
    (status = 404, description = "No such route", body = ProblemView),
))]
pub(super) async fn event_grid(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller.may(Action::Submit)?;
    let events: Vec<Value> = api.read(&request, payload, None).await?;
    let is_validation = |event: &&Value| event["eventType"] == "Microsoft.EventGrid.SubscriptionValidationEvent";
    if let Some(event) = events.iter().find(is_validation) {
        // Only for a route that the caller may feed.
        hint(&api, &caller, &path, Vec::new()).await?;
        let code = event["data"]["validationCode"].as_str().filter(|code| code.len() <= 256);
        let code = code.ok_or_else(|| Problem::bad_request("the validation event has no validationCode"))?;
        return body::answer(StatusCode::OK, &ValidationView { validation_response: code.to_owned() });
    }
    let objects = events.iter().map(azure_object).collect();
    body::answer(StatusCode::OK, &hint(&api, &caller, &path, objects).await?)
}

/// Notifications of S3 and of services that speak like it. The token may be in the query.
#[utoipa::path(post, path = "/v1/hooks/s3/{route}", tag = "hooks", params(
    ("route" = String, Path, description = "The route"),
    ("token" = Option<String>, Query, description = "A submitter's token, where no header can be set"),
), request_body(content = Object, description = "An S3 event notification"), responses(
    (status = 200, body = HintView),
    (status = 404, description = "No such route", body = ProblemView),
))]
pub(super) async fn s3(
    api: web::Data<Api>,
    caller: Caller,
    path: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller.may(Action::Submit)?;
    let notification: Value = api.read(&request, payload, None).await?;
    // The test event that is sent when notifications are set up has no records.
    let records = notification["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
    let objects = records.iter().map(s3_object).collect();
    body::answer(StatusCode::OK, &hint(&api, &caller, &path, objects).await?)
}

/// Passes on what lies in the route's input location; `objects` are URLs as routes write them, `None` for other events.
async fn hint(
    api: &Api,
    caller: &Caller,
    path: &web::Path<String>,
    objects: Vec<Option<String>>,
) -> Result<HintView, Problem> {
    let (route, scope) = (RouteName::parse(path)?, caller.scope());
    api.call(move |service| note(service, &scope, &route, &objects)).await
}

fn note(
    service: &Service,
    scope: &Scope,
    name: &RouteName,
    objects: &[Option<String>],
) -> Result<HintView, ServiceError> {
    let config = service.config();
    let route = config.route(name).filter(|route| scope.sees(&route.tenant));
    let route = route.ok_or_else(|| ServiceError::not_found(format!("there is no route {name}")))?;
    let mut view = HintView::default();
    for object in objects.iter().take(EVENTS_MAX) {
        match object.as_deref().and_then(|url| route.input.key_of(url)) {
            Some(key) => {
                service.hint(name, key)?;
                view.hints += 1;
            }
            None => view.ignored += 1,
        }
    }
    Ok(view)
}

/// `subject` is `/blobServices/default/containers/CONTAINER/blobs/KEY`.
fn azure_object(event: &Value) -> Option<String> {
    if event["eventType"] != "Microsoft.Storage.BlobCreated" {
        return None;
    }
    let (_, rest) = event["subject"].as_str()?.split_once("/containers/")?;
    let (container, key) = rest.split_once("/blobs/")?;
    Some(format!("azblob://{container}/{key}"))
}

/// Keys are written as in a form: `+` is a space, `%XX` a byte.
fn s3_object(record: &Value) -> Option<String> {
    if !record["eventName"].as_str()?.contains("ObjectCreated:") {
        return None;
    }
    let bucket = record["s3"]["bucket"]["name"].as_str()?;
    Some(format!("s3://{bucket}/{}", form_decoded(record["s3"]["object"]["key"].as_str()?)?))
}

fn form_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits =
                    std::str::from_utf8(rest.get(..2)?).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn created_objects_are_named_as_routes_name_them() {
        let event = json!({"eventType": "Microsoft.Storage.BlobCreated",
            "subject": "/blobServices/default/containers/in/blobs/a/b c.mp4"});
        assert_eq!(azure_object(&event).as_deref(), Some("azblob://in/a/b c.mp4"));
        let record = |name: &str, key: &str| {
            s3_object(&json!({"eventName": name, "s3": {"bucket": {"name": "in"}, "object": {"key": key}}}))
        };
        assert_eq!(record("s3:ObjectCreated:Put", "a/b+%C3%BC.mp4").as_deref(), Some("s3://in/a/b ü.mp4"));
        assert_eq!(record("ObjectCreated:CompleteMultipartUpload", "x").as_deref(), Some("s3://in/x"));
        assert_eq!(record("ObjectRemoved:Delete", "x"), None);
        for broken in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert_eq!(record("ObjectCreated:Put", broken), None, "{broken}");
        }
    }

    #[test]
    fn other_shapes_are_no_objects() {
        for value in [json!(null), json!([]), json!({"eventType": 5}), json!({"subject": "x"}), json!("text")] {
            assert_eq!((azure_object(&value), s3_object(&value)), (None, None));
        }
    }
}
