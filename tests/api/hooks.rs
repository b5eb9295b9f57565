//! Notifications of storage services.

use crate::bench::Bench;
use crate::client::Answer;
use serde_json::{Value, json};

fn post(bench: &Bench, path: &str, token: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("authorization", token)];
    bench.ask("POST", path, &headers[..if token.is_empty() { 1 } else { 2 }], body.to_string().as_bytes())
}

#[test]
fn event_grid_is_answered_and_only_those_who_may_submit_are_heard() {
    let (bench, tokens) = Bench::with_tokens();
    let validation = json!([{"id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "subject": "", "data": {"validationCode": "512d38b6", "validationUrl": "https://192.0.2.1/never-fetched"}}]);
    let path = "/v1/hooks/eventgrid/main";
    let answered = post(&bench, path, &tokens.submitter, &validation);
    assert_eq!((answered.status, answered.json()), (200, json!({"validationResponse": "512d38b6"})));
    // Event Grid can be given an address and no header.
    let secret = tokens.submitter.trim_start_matches("Bearer ");
    assert_eq!(post(&bench, &format!("{path}?token={secret}"), "", &validation).status, 200);

    post(&bench, path, "", &validation).problem(401);
    post(&bench, path, &tokens.viewer, &validation).problem(403);
    post(&bench, path, &tokens.outsider, &validation).problem(404);
    post(&bench, "/v1/hooks/eventgrid/none", &tokens.submitter, &validation).problem(404);
    post(&bench, path, &tokens.submitter, &json!([{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent"}]))
        .problem(400);
}

#[test]
fn what_concerns_another_place_is_ignored_and_nonsense_refused() {
    let bench = Bench::start("", "");
    let created = json!([{"eventType": "Microsoft.Storage.BlobCreated", "subject": "/blobServices/default/containers/in/blobs/a.mp4"},
        {"eventType": "Microsoft.Storage.BlobDeleted"}, 7, null]);
    let answer = post(&bench, "/v1/hooks/eventgrid/main", "", &created);
    assert_eq!(answer.json(), json!({"hints": 0, "ignored": 4}), "the route's input is a folder");
    let record = json!({"Records": [{"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "in"}, "object": {"key": "..%2Fa.mp4"}}}]});
    assert_eq!(post(&bench, "/v1/hooks/s3/main", "", &record).json(), json!({"hints": 0, "ignored": 1}));
    assert_eq!(post(&bench, "/v1/hooks/s3/main", "", &json!({"Event": "s3:TestEvent"})).status, 200);
    for nonsense in [json!("text"), json!({"a": 1})] {
        post(&bench, "/v1/hooks/eventgrid/main", "", &nonsense).problem(400);
    }
}
