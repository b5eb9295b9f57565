//! The document at `/openapi.json` against what is really answered.

use crate::bench::Bench;
use crate::client::Answer;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Checks a value against a schema of the document; what the schema does not know is an error as well.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} leads nowhere"));
        return check(document, target, value, at);
    }
    for key in schema.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default() {
        let known = [
            "type",
            "properties",
            "required",
            "items",
            "enum",
            "oneOf",
            "allOf",
            "description",
            "format",
            "minimum",
            "maximum",
            "additionalProperties",
            "propertyNames",
            "default",
        ];
        assert!(known.contains(&key.as_str()), "{at}: this test does not know the keyword {key}");
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = |choice: &&Value| {
            let (document, value) = (document.clone(), value.clone());
            std::panic::catch_unwind(|| check(&document, choice, &value, at)).is_ok()
        };
        assert_eq!(choices.iter().filter(fits).count(), 1, "{at}: {value} fits not exactly one of {choices:?}");
        return;
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check(document, part, value, at);
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = types.contains(&found) || (found == "integer" && types.contains(&"number"));
    assert!(fits, "{at}: {value} is no {types:?}");
    if let Value::Array(items) = value {
        items.iter().enumerate().for_each(|(k, item)| check(document, &schema["items"], item, &format!("{at}[{k}]")));
    }
    if let (Value::Object(fields), Some(properties)) = (value, schema["properties"].as_object()) {
        for (name, field) in fields {
            let property = properties.get(name).unwrap_or_else(|| panic!("{at}.{name} is not in the document"));
            check(document, property, field, &format!("{at}.{name}"));
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(fields.contains_key(name.as_str().unwrap()), "{at}.{name} is missing");
        }
    }
}

/// Checks an answer against what the document says of `path` and `method`.
fn conforms(document: &Value, method: &str, path: &str, answer: &Answer) {
    let operation = &document["paths"][path][method];
    assert!(operation.is_object(), "{method} {path} is not in the document");
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{method} {path}: {} is not in the document: {}", answer.status, answer.text());
    let Some(content) = response["content"].as_object() else { return assert!(answer.body.is_empty()) };
    let found = answer.header("content-type").unwrap();
    if ["application/json", "application/problem+json"].contains(&found) {
        let schema = content.get(found).unwrap_or_else(|| panic!("{method} {path}: {found} is none of {content:?}"));
        check(document, &schema["schema"], &answer.json(), &format!("{method} {path}"));
    } else {
        let stated = content.keys().any(|stated| stated == found || stated == "application/octet-stream");
        assert!(stated, "{method} {path}: {found} is none of {content:?}");
    }
}

#[test]
fn every_operation_answers_as_the_document_says() {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 10);
    let document = bench.get("/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut seen = BTreeSet::new();
    let mut told = |method: &str, path: &str, answer: Answer| {
        conforms(&document, method, path, &answer);
        seen.insert(format!("{method} {path}"));
    };
    told("put", "/v1/jobs/{id}", bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4"})));
    told("put", "/v1/jobs/{id}", bench.put_json("/v1/jobs/one", &json!({"input": "none.mp4"})));
    told("put", "/v1/jobs/{id}", bench.put_json("/v1/jobs/two", &json!({"input": "none.mp4"})));
    bench.wait_for("one", &["finished"]);
    told("put", "/v1/jobs/{id}", bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4"})));
    for (path, concrete) in [
        ("/livez", "/livez"),
        ("/readyz", "/readyz"),
        ("/openapi.json", "/openapi.json"),
        ("/v1/me", "/v1/me"),
        ("/v1/summary", "/v1/summary"),
        ("/v1/jobs", "/v1/jobs?limit=5"),
        ("/v1/jobs", "/v1/jobs?limit=0"),
        ("/v1/jobs/{id}", "/v1/jobs/one"),
        ("/v1/jobs/{id}", "/v1/jobs/none"),
        ("/v1/jobs/{id}/events", "/v1/jobs/one/events"),
        ("/v1/jobs/{id}/log", "/v1/jobs/one/log"),
        ("/v1/jobs/{id}/report", "/v1/jobs/one/report"),
        ("/v1/jobs/{id}/output", "/v1/jobs/one/output"),
        ("/v1/jobs/{id}/frames", "/v1/jobs/one/frames"),
        ("/v1/jobs/{id}/links", "/v1/jobs/one/links"),
        ("/v1/jobs/{id}/preview", "/v1/jobs/one/preview?frame=1&side=after"),
        ("/v1/nodes", "/v1/nodes"),
        ("/v1/styles", "/v1/styles"),
        ("/v1/styles/{name}/sheet", "/v1/styles/starry-night/sheet"),
        ("/v1/styles/{name}/sheet", "/v1/styles/none/sheet"),
        ("/v1/routes", "/v1/routes"),
    ] {
        told("get", path, bench.get(concrete));
    }
    told("get", "/v1/events", crate::events::opening(&bench, "event: summary"));
    for verb in ["cancel", "retry", "pause", "resume"] {
        told("post", &format!("/v1/jobs/{{id}}/{verb}"), bench.ask("POST", &format!("/v1/jobs/one/{verb}"), &[], b""));
    }
    for verb in ["preempt", "drain", "resume"] {
        told(
            "post",
            &format!("/v1/nodes/{{node}}/{verb}"),
            bench.ask("POST", &format!("/v1/nodes/x/y/{verb}"), &[], b""),
        );
    }
    told("put", "/v1/routes/{route}/files/{key}", bench.ask("PUT", "/v1/routes/main/files/new.mp4", &[], b"bytes"));
    let json_type = [("content-type", "application/json")];
    for kind in ["eventgrid", "s3"] {
        let body = if kind == "s3" { "{\"Records\":[]}" } else { "[]" };
        let answer = bench.ask("POST", &format!("/v1/hooks/{kind}/main"), &json_type, body.as_bytes());
        told("post", &format!("/v1/hooks/{kind}/{{route}}"), answer);
    }
    let presign = bench.ask("POST", "/v1/routes/main/presign", &json_type, b"{\"key\":\"a.mp4\",\"method\":\"get\"}");
    told("post", "/v1/routes/{route}/presign", presign);

    let paths = document["paths"].as_object().unwrap();
    let verbs = paths
        .iter()
        .flat_map(|(path, verbs)| verbs.as_object().unwrap().keys().map(move |method| format!("{method} {path}")));
    let unseen: Vec<String> = verbs.filter(|operation| !seen.contains(operation)).collect();
    assert!(unseen.is_empty(), "operations that no answer was checked of: {unseen:?}");
}
