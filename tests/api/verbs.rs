//! The verbs of the command that ask a running service.

use crate::bench::{Bench, Tokens};
use crate::support::restyle;
use serde_json::{Value, json};
use std::process::Command;

/// The command without a token or a server of the surroundings.
fn verb(args: &[&str]) -> Command {
    let mut command = restyle();
    command.args(args).env_remove("RESTYLE_TOKEN").env_remove("RESTYLE_SERVER");
    command
}

/// Runs it and returns exit code, standard output and standard error.
fn told(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn url(bench: &Bench) -> String {
    format!("http://{}", bench.address())
}

fn one(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_file_is_sent_styled_and_looked_at() {
    let bench = Bench::start("", "");
    bench.clip("elsewhere.mp4", 10);
    let file = bench.path("my clip.mp4");
    std::fs::rename(bench.path("in/elsewhere.mp4"), &file).unwrap();
    let (server, path) = (url(&bench), file.to_str().unwrap());
    let (code, out, err) = told(&mut verb(&["submit", path, "--id", "one", "--wait", "--json", "--server", &server]));
    assert_eq!(code, 0, "{err}");
    let job = one(&out);
    assert_eq!((job["state"].as_str(), job["input"].as_str()), (Some("finished"), Some("my clip.mp4")), "{job}");
    assert!(bench.path("out").join(job["output"].as_str().unwrap()).exists());
    // The server may come by the environment; a key of the input needs no file.
    let mut by_key = verb(&["submit", "my clip.mp4", "--id", "one", "--route", "main", "--json"]);
    let (code, out, err) = told(by_key.env("RESTYLE_SERVER", &server));
    assert_eq!((code, out.is_empty()), (0, false), "the same job again: {err}");
    let (code, _, err) = told(&mut verb(&["submit", path, "--server", &server]));
    assert!(code == 2 && err.contains("is there already"), "{code} {err}");

    let (code, out, _) = told(&mut verb(&["status", "one", "--server", &server]));
    assert!(code == 0 && out.contains("finished") && out.contains("100 %"), "{out}");
    let (code, out, _) = told(&mut verb(&["logs", "one", "--server", &server]));
    let lines: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(code, 0);
    assert!(lines.iter().any(|l| l["event"] == "finished"), "{out}");
    let (code, followed, _) = told(&mut verb(&["logs", "one", "--follow", "--server", &server]));
    assert_eq!((code, followed.lines().count()), (0, lines.len()), "{followed}");
    let (code, out, _) = told(&mut verb(&["jobs", "--json", "--server", &server]));
    assert_eq!((code, one(&out)["id"].as_str()), (0, Some("one")));
    let (_, out, _) = told(&mut verb(&["jobs", "--failed", "--server", &server]));
    assert_eq!(out, "");
    let (code, out, _) = told(&mut verb(&["node", "list", "--server", &server]));
    assert_eq!((code, out.as_str()), (0, ""), "nothing runs");
    // Those that look into a work store are as they were.
    let work = bench.path("nowhere");
    assert_eq!(told(verb(&["jobs", "list", "--work-dir"]).arg(work)).0, 0);
}

#[test]
fn jobs_and_nodes_are_steered() {
    let bench = Bench::start("jobs_at_once = 1\nnodes = { max = 2, low_priority = 1 }", "");
    bench.clip("long.mp4", 4000);
    bench.clip("clip.mp4", 4);
    let server = url(&bench);
    let ask = |args: &[&str]| told(verb(args).args(["--server", &server]));
    assert_eq!(ask(&["submit", "long.mp4", "--id", "first"]).0, 0);
    bench.wait_for("first", &["running"]);
    assert_eq!(ask(&["submit", "clip.mp4", "--id", "second", "--priority", "-3"]).0, 0);
    let node = crate::bench::wait(|| {
        let (_, out, _) = ask(&["node", "list", "--json"]);
        let nodes: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        nodes.iter().find(|n| n["class"] == "low-priority" && n["state"] == "running").map(|n| n["id"].clone())
    });
    let node = node.as_str().unwrap();
    let (code, out, err) = ask(&["node", "preempt", node, "--notice", "5"]);
    assert!(code == 0 && (out.contains("draining") || out.contains("preempted")), "{out}{err}");
    assert_eq!(ask(&["node", "drain", "nobody/cpu-0"]).0, 2);
    for (verb, state) in [("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")] {
        let (code, out, err) = ask(&[verb, "second"]);
        assert!(code == 0 && out.contains(state), "{verb}: {out}{err}");
    }
    assert_eq!(ask(&["resume", "second"]).0, 2, "it is not paused");
    assert_eq!(ask(&["cancel", "first"]).0, 0);
    let (code, _, err) = ask(&["submit", "long.mp4", "--id", "first", "--wait"]);
    assert!(code == 75 && err.contains("cancelled"), "{code} {err}");
}

#[test]
fn what_the_result_is_like_is_said_with_the_job() {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 4);
    let server = url(&bench);
    let ask = |args: &[&str]| told(verb(args).args(["--server", &server]));
    let (code, _, err) =
        ask(&["submit", "clip.mp4", "--id", "one", "--size", "48", "--strength", "0.6", "--preserve-color"]);
    assert_eq!(code, 0, "{err}");
    // Under this id nothing else is accepted.
    let request = json!({"input": "clip.mp4", "options": {"size": 48, "strength": 0.6, "preserve_color": true}});
    let same = bench.put_json("/v1/jobs/one", &request);
    assert_eq!(same.status, 200, "{}", same.text());
    let (code, out, err) = ask(&["submit", "clip.mp4", "--blend", "tiny:1,udnie:1", "--json"]);
    assert_eq!((code, one(&out)["style"].as_str()), (0, Some("tiny:1,udnie:1")), "{err}");
    let (code, _, err) = ask(&["submit", "clip.mp4", "--strength", "1.5"]);
    assert!(code == 2 && err.contains("expected a number from 0 to 1"), "{code} {err}");
    assert_eq!(ask(&["submit", "clip.mp4", "--style", "tiny", "--blend", "tiny:1"]).0, 2);
}

#[test]
fn what_cannot_be_has_the_fixed_exit_codes() {
    let bench = Bench::start("", "");
    std::fs::write(bench.path("in/broken.mp4"), b"no video at all").unwrap();
    let server = url(&bench);
    let ask = |args: &[&str]| told(verb(args).args(["--server", &server]));
    let (code, _, err) = ask(&["submit", "broken.mp4", "--wait"]);
    assert_eq!(code, 3, "the job's own: {err}");
    assert_eq!(ask(&["submit", "gone.mp4"]).0, 2);
    assert_eq!(ask(&["status", "nobody"]).0, 2);
    assert_eq!(told(&mut verb(&["status", "x", "--server", "http://127.0.0.1:9"])).0, 4, "nobody listens there");
    assert_eq!(told(&mut verb(&["status", "x", "--server", "ftp://host"])).0, 2);
    assert_eq!(told(&mut verb(&["status", "x", "--server", "http://me:plantedsecret@host"])).0, 2);
    assert_eq!(told(&mut verb(&["jobs", "--failed", "--state", "failed"])).0, 2);
    let (code, _, err) = told(verb(&["jobs", "--server", "http://192.0.2.1"]).env("RESTYLE_TOKEN", "plantedsecret"));
    assert!(code == 2 && err.contains("https") && !err.contains("plantedsecret"), "{code} {err}");
}

#[test]
fn tokens_come_by_environment_or_file_and_are_never_shown() {
    let (bench, tokens) = Bench::with_tokens();
    let Tokens { viewer, submitter, .. } = &tokens;
    let (viewer, submitter) = (viewer.trim_start_matches("Bearer "), submitter.trim_start_matches("Bearer "));
    let server = url(&bench);
    let args = ["jobs", "--server", &server];
    assert_eq!(told(&mut verb(&args)).0, 4);
    assert_eq!(told(verb(&args).env("RESTYLE_TOKEN", viewer)).0, 0);
    let file = bench.path("token");
    std::fs::write(&file, format!("{submitter}\n")).unwrap();
    assert_eq!(told(verb(&args).arg("--token-file").arg(&file)).0, 0);
    let (code, _, err) = told(verb(&["submit", "clip.mp4", "--server", &server]).env("RESTYLE_TOKEN", viewer));
    assert!(code == 4 && err.contains("role"), "{code} {err}");
    let mut wrong = verb(&args);
    wrong.env("RESTYLE_TOKEN", "plantedsecret").env("RESTYLE_LOG", "trace");
    let (code, out, err) = told(&mut wrong);
    assert!(code == 4 && !format!("{out}{err}").contains("plantedsecret"), "{code} {err}");
    let (code, _, err) = told(verb(&args).arg("--token-file").arg(bench.path("none")));
    assert!(code == 4 && err.contains("token file"), "{code} {err}");
}
