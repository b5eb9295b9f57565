//! What Prometheus sees.

use crate::bench::Bench;
use crate::client::ask;
use serde_json::json;

#[test]
fn work_is_counted_on_a_listener_of_its_own_and_names_nobody() {
    let bench = Bench::start("", "");
    // Long enough for its hand-offs to be looked at while it runs.
    bench.clip("clip.mp4", 2000);
    assert_eq!(bench.put_json("/v1/jobs/visible-name", &json!({"input": "clip.mp4"})).status, 202);
    bench.wait_for("visible-name", &["finished"]);
    let metrics = bench.server.metrics_address().unwrap();
    let page = ask(metrics, "GET", "/metrics", &[], b"");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = page.text();
    let value = |name: &str| {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.trim().parse::<f64>().unwrap()
    };
    assert_eq!(value("restyle_score_frames_total{outcome=\"scored\"}"), 2000.0);
    assert_eq!(value("restyle_score_frames_total{outcome=\"failed\"}"), 0.0);
    assert_eq!(value("restyle_job_attempts_total{outcome=\"finished\"}"), 1.0);
    assert_eq!(value("restyle_jobs{state=\"finished\"}"), 1.0);
    assert!(value("restyle_link_in_frames_total{link=\"decode → score\"}") > 0.0);
    assert!(value("restyle_link_stall_micros_total{link=\"decode → score\"}") >= 0.0);
    assert!(value("restyle_job_phase_seconds_total{phase=\"scoring\"}") > 0.0);
    assert_eq!(value("restyle_ready"), 1.0);
    assert!(value("restyle_http_requests_total{method=\"PUT\",status=\"2xx\"}") >= 1.0);
    assert!(text.trim_end().ends_with("# EOF"));
    for word in ["visible-name", "clip.mp4", "default"] {
        assert!(!text.contains(word), "a label names {word}");
    }
    assert_eq!(bench.get("/metrics").status, 404, "metrics are on the other listener only");
    assert_eq!(ask(metrics, "GET", "/v1/jobs", &[], b"").status, 404);
    bench.ask("FOO", "/v1/jobs", &[], b"");
    let text = ask(metrics, "GET", "/metrics", &[], b"").text();
    assert!(text.contains("method=\"other\"") && !text.contains("FOO"), "a client made up a label");
}
