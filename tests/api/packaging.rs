//! The files that show the service elsewhere: what they ask Prometheus for is there.

use crate::bench::Bench;
use crate::client::ask;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn packaged(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)).unwrap()
}

/// A page of metrics after a job, so that every family has a sample or a type.
fn metrics() -> String {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 5);
    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4"})).status, 202);
    bench.wait_for("one", &["finished"]);
    ask(bench.server.metrics_address().unwrap(), "GET", "/metrics", &[], b"").text()
}

/// Names of samples, as the types of their families say.
fn names(page: &str) -> BTreeSet<String> {
    let typed = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split_once(' '));
    let samples = typed.flat_map(|(name, kind)| match kind {
        "counter" => vec![format!("{name}_total")],
        "histogram" => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).into(),
        _ => vec![name.to_owned()],
    });
    samples.collect()
}

/// The metrics of an expression, each with what stands in its braces.
fn asked(expression: &str) -> Vec<(String, String)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = expression.match_indices("restyle_").map(|(at, _)| at);
    let whole = begins.filter(|at| !expression[..*at].ends_with(is_name));
    let read = |at: usize| {
        let rest = &expression[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let braces = rest[end..].strip_prefix('{').and_then(|b| b.split_once('}')).map_or("", |(inside, _)| inside);
        (rest[..end].to_owned(), braces.to_owned())
    };
    whole.map(read).collect()
}

/// Checks that an expression asks for what is exposed; returns how many metrics it names.
fn check(page: &str, expression: &str) -> usize {
    let (names, asked) = (names(page), asked(expression));
    for (name, braces) in &asked {
        assert!(names.contains(name), "{expression}: there is no {name}, only {names:?}");
        let samples: Vec<&str> = page.lines().filter(|l| l.starts_with(&format!("{name}{{"))).collect();
        for (label, value) in braces.split(',').filter_map(|pair| pair.split_once('=')) {
            let words = value.trim_start_matches('~').trim_matches('"');
            // Scrapers add where it came from; families that count only what occurred have no sample yet.
            if ["instance", "job"].contains(&label) || samples.is_empty() || name.starts_with("restyle_http_") {
                continue;
            }
            for word in words.split('|') {
                let wanted = format!("{label}=\"{word}\"");
                assert!(
                    samples.iter().any(|s| s.contains(&wanted)),
                    "{expression}: no sample with {wanted}: {samples:?}"
                );
            }
        }
    }
    asked.len()
}

/// Every field called `expr` below a value.
fn expressions(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        Value::Object(fields) => {
            let own = fields.get("expr").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(expressions)).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_are_exposed() {
    let page = metrics();
    let grafana: Value = serde_json::from_str(&packaged("grafana.json")).unwrap();
    let panels = grafana["panels"].as_array().unwrap();
    for panel in panels {
        let shown = expressions(panel);
        assert!(!shown.is_empty() && shown.iter().all(|e| check(&page, e) > 0), "{} shows nothing", panel["title"]);
        let grid = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(grid[0] + grid[2] <= 24, "{} is beyond the grid", panel["title"]);
    }

    let text = packaged("alerts.yaml");
    let rules: Vec<&str> = text.split("\n      - alert: ").skip(1).collect();
    let mut alerts = BTreeSet::new();
    let mut named = 0;
    for rule in &rules {
        let name = rule.lines().next().unwrap();
        assert!(alerts.insert(name), "{name} is there twice");
        let field = |field: &str| {
            let line = rule.lines().find_map(|line| line.trim_start().strip_prefix(field));
            line.unwrap_or_else(|| panic!("{name} has no {field}")).trim().to_owned()
        };
        named += check(&page, &field("expr:"));
        let severity = field("labels:");
        assert!(
            ["critical", "warning", "info"].iter().any(|s| severity == format!("{{ severity: {s} }}")),
            "{severity}"
        );
        for word in ["summary:", "description:"] {
            assert!(field(word).len() > 2, "{name}");
        }
    }
    assert!(
        rules.len() >= 8 && named + 1 >= rules.len(),
        "only the alert of a service that is gone names no metric of its own"
    );
}

/// Reads the file as YAML does, which the test above does not.
#[test]
fn prometheus_itself_accepts_the_alert_rules() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/alerts.yaml");
    match Command::new("promtool").args(["check", "rules"]).arg(&file).output() {
        Ok(told) => assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr)),
        Err(_) => println!("skipped: no promtool is installed"),
    }
}
