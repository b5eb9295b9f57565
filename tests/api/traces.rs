//! Traces, as a collector gets them.

use crate::bench::Bench;
use crate::webhooks::receive;
use serde_json::{Value, json};
use std::net::TcpListener;

/// Every span of a request's body.
fn spans(body: &[u8]) -> Vec<Value> {
    let message: Value = serde_json::from_slice(body).unwrap();
    let resource = &message["resourceSpans"][0];
    assert_eq!(
        resource["resource"]["attributes"][0],
        json!({"key": "service.name", "value": {"stringValue": "restyle"}})
    );
    resource["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

fn attribute(span: &Value, key: &str) -> String {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|a| a["key"] == key).unwrap_or_else(|| panic!("{span} has no {key}"));
    let value = &found["value"];
    value["stringValue"].as_str().or(value["intValue"].as_str()).unwrap().to_owned()
}

#[test]
fn a_job_is_a_span_and_each_of_its_segments_is_one_below_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::start(&format!("otlp = \"http://{}\"", listener.local_addr().unwrap()), "");
    bench.clip("clip.mp4", 110);
    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4"})).status, 202);
    bench.wait_for("one", &["finished"]);
    // A collector that is busy is asked again and gets the same.
    let (head, first) = receive(&listener, "503 Service Unavailable");
    assert!(head.starts_with("post /v1/traces ") && head.contains("content-type: application/json"), "{head}");
    let (_, again) = receive(&listener, "200 OK");
    assert!(first == again, "another batch was sent instead");
    let mut all = spans(&again);
    while !all.iter().any(|span| span["name"] == "job") {
        all.extend(spans(&receive(&listener, "200 OK").1));
    }

    let (jobs, segments): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|span| span["name"] == "job");
    let job = jobs[0];
    assert_eq!((jobs.len(), attribute(job, "restyle.job")), (1, "one".to_owned()));
    assert_eq!((attribute(job, "restyle.state"), &job["status"]["code"]), ("finished".to_owned(), &json!(1)));
    let report = bench.get("/v1/jobs/one/report").json();
    assert!(segments.len() > 1, "{all:?}");
    assert_eq!(segments.len() as u64, report["segments"].as_u64().unwrap());
    let frames: u64 = segments.iter().map(|span| attribute(span, "restyle.frames").parse::<u64>().unwrap()).sum();
    assert_eq!(frames, 110);
    let at = |span: &Value, end: &str| span[end].as_str().unwrap().parse::<u128>().unwrap();
    for span in &segments {
        assert_eq!((&span["name"], &span["parentSpanId"]), (&json!("segment"), &job["spanId"]));
        assert_eq!(span["traceId"], job["traceId"]);
        assert!(at(span, "startTimeUnixNano") <= at(span, "endTimeUnixNano"));
        assert!(at(span, "endTimeUnixNano") <= at(job, "endTimeUnixNano"));
    }
    let lengths = [&job["traceId"], &job["spanId"]].map(|id| id.as_str().unwrap().len());
    assert_eq!(lengths, [32, 16]);
}

#[test]
fn an_attempt_that_fails_says_so_in_its_span() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::start(&format!("otlp = \"http://{}/\"", listener.local_addr().unwrap()), "");
    std::fs::write(bench.path("in/torn.mp4"), b"no video").unwrap();
    assert_eq!(bench.put_json("/v1/jobs/torn", &json!({"input": "torn.mp4"})).status, 202);
    bench.wait_for("torn", &["failed"]);
    let all = spans(&receive(&listener, "200 OK").1);
    assert_eq!((all.len(), &all[0]["status"]["code"]), (1, &json!(2)));
    assert_eq!(attribute(&all[0], "error.type"), "input_unreadable");
}
