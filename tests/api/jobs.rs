//! Jobs over HTTP: creating, looking at, steering.

use crate::bench::Bench;
use serde_json::{Value, json};

#[test]
fn a_job_is_created_once_runs_and_is_told_of_everywhere() {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 25);
    let request = json!({"input": "clip.mp4"});
    let created = bench.put_json("/v1/jobs/one", &request);
    assert_eq!(created.status, 202, "{}", created.text());
    assert_eq!((&created.json()["id"], &created.json()["tenant"]), (&json!("one"), &json!("default")));

    let again = bench.put_json("/v1/jobs/one", &request);
    assert_eq!(again.status, 200, "the same request again");
    assert_eq!(again.json()["created_at"], created.json()["created_at"]);
    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4", "priority": 3})).problem(409), "conflict");

    let job = bench.wait_for("one", &["finished", "failed"]);
    assert_eq!((&job["state"], &job["progress"]["frames_done"]), (&json!("finished"), &json!(25)), "{job}");
    assert!(bench.path("out").join(job["output"].as_str().unwrap()).exists());

    let listed = bench.get("/v1/jobs").json();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1);
    let log = bench.get("/v1/jobs/one/log");
    assert_eq!(log.header("content-type"), Some("application/x-ndjson"));
    assert!(log.text().lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{}", log.text());
    let report = bench.get("/v1/jobs/one/report").json();
    assert_eq!((&report["frames"], &report["job"]["id"]), (&json!(25), &json!("one")), "{report}");
    let summary = bench.get("/v1/summary").json();
    assert_eq!((&summary["jobs"]["finished"], &summary["draining"]), (&json!(1), &json!(false)));
    assert!(bench.get("/v1/nodes").json().as_array().unwrap().is_empty(), "nothing runs any more");
    assert_eq!(bench.get("/v1/routes").json()[0]["name"], "main");
    let styles = bench.get("/v1/styles").json();
    assert!(styles.as_array().unwrap().iter().any(|style| style["name"] == "starry-night"), "{styles}");
    assert_eq!(bench.get("/v1/me").json()["name"], "local");
}

/// Runs a job to its end and returns the pipeline's id of it and the digest of its output, which is the same file every time.
fn made(bench: &Bench, id: &str, mut request: Value) -> (String, String) {
    (request["input"], request["output"]) = (json!("clip.mp4"), json!("out.mp4"));
    let answer = bench.put_json(&format!("/v1/jobs/{id}"), &request);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job = bench.wait_for(id, &["finished", "failed"]);
    assert_eq!(job["state"], "finished", "{job}");
    let report = bench.get(&format!("/v1/jobs/{id}/report")).json();
    (job["job"].as_str().unwrap().to_owned(), report["blake3"].as_str().unwrap().to_owned())
}

#[test]
fn how_much_of_a_style_and_whose_colours_make_another_job() {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 5);
    let plain = made(&bench, "plain", json!({}));
    let said = made(&bench, "said", json!({"options": {"strength": 1, "preserve_color": false}}));
    assert_eq!(plain, said, "what changes nothing is the same job");
    let mut seen = vec![plain];
    for (id, options) in [
        ("source", json!({"strength": 0})),
        ("half", json!({"strength": 0.5})),
        ("colours", json!({"preserve_color": true})),
        ("both", json!({"strength": 0.5, "preserve_color": true})),
    ] {
        let other = made(&bench, id, json!({"options": options}));
        let is_new = |(job, digest): &(String, String)| *job != other.0 && *digest != other.1;
        assert!(seen.iter().all(is_new), "{id} changed nothing: {other:?} {seen:?}");
        seen.push(other);
    }
    let refused = bench.put_json("/v1/jobs/far", &json!({"input": "clip.mp4", "options": {"strength": 1.5}}));
    assert_eq!(refused.problem(400), "invalid", "{}", refused.text());
    assert!(refused.text().contains("strength is 1.5, expected 0 to 1"), "{}", refused.text());
}

#[test]
fn styles_are_blended_and_each_has_to_be_there() {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 5);
    let plain = made(&bench, "plain", json!({}));
    assert_eq!(made(&bench, "sole", json!({"style": "tiny:0.5"})), plain, "a style alone, whatever its share");
    let blend = made(&bench, "blend", json!({"style": "tiny:0.7, udnie:0.3"}));
    assert_eq!(made(&bench, "again", json!({"style": "tiny:0.7,udnie:0.3"})), blend);
    let other = made(&bench, "other", json!({"style": "tiny:0.3,udnie:0.7"}));
    assert!(blend.0 != plain.0 && blend.1 != plain.1 && other.0 != blend.0 && other.1 != blend.1);
    let named = bench.put_json("/v1/jobs/named", &json!({"input": "clip.mp4", "style": "tiny:0.7,udnie:0.3"})).json();
    assert_eq!(
        (&named["style"], &named["output"]),
        (&json!("tiny:0.7,udnie:0.3"), &json!("clip.tiny-0.7,udnie-0.3.mp4"))
    );
    for style in [
        "tiny:0.7,/etc/passwd:0.3",
        "tiny:0.7,tiny.safetensors:0.3",
        "tiny:0.7,s3://bucket/key.safetensors:0.3",
        "tiny:0.7,../tiny:0.3",
        "tiny:0.7,udnie:0",
        "tiny:0.7,",
        &["tiny:1"; 9].join(","),
    ] {
        let refused = bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4", "style": style}));
        assert_eq!(refused.problem(400), "invalid", "{style}");
        assert!(!refused.text().contains("passwd"), "{}", refused.text());
    }
}

#[test]
fn frames_and_their_pictures_are_seen() {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 10);
    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4"})).status, 202);
    bench.wait_for("one", &["finished"]);
    let strip = bench.get("/v1/jobs/one/frames").json();
    assert_eq!(strip["frames"], 10);
    assert_eq!(strip["runs"], json!([{"first": 0, "last": 9, "state": "encoded"}]));
    assert!(bench.get("/v1/jobs/one/links").json().is_array());
    let picture = |query: &str| bench.get(&format!("/v1/jobs/one/preview?{query}"));
    let (before, after) = (picture("frame=3&side=before"), picture("frame=3&side=after"));
    for answer in [&before, &after, &picture("frame=9&side=after&width=32")] {
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/jpeg")), "{}", answer.text());
        assert!(answer.body.starts_with(&[0xff, 0xd8, 0xff]), "no JPEG");
    }
    assert!(before.body != after.body);
    assert_eq!(picture("frame=10&side=after").problem(404), "not_found");
    for query in [
        "frame=-1&side=after",
        "frame=1",
        "frame=1&side=left",
        "frame=1&side=after&width=1",
        "frame=99999999999999999999&side=before",
    ] {
        picture(query).problem(400);
    }
}

#[test]
fn nodes_of_a_running_job_are_listed_and_steered() {
    let bench = Bench::start("jobs_at_once = 1\nnodes = { max = 2, return_after = \"1s\" }", "");
    bench.clip("long.mp4", 2_000);
    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "long.mp4"})).status, 202);
    let node = crate::bench::wait(|| {
        let nodes = bench.get("/v1/nodes").json();
        let found = nodes.as_array().unwrap().iter().find(|node| node["state"] == "running").cloned();
        let ended = bench.get("/v1/jobs/one").json()["state"] == "finished";
        found.map(Some).or_else(|| ended.then_some(None))
    });
    let Some(node) = node else { panic!("two thousand frames were styled before a node was seen") };
    let id = node["id"].as_str().unwrap();
    assert_eq!(node["job"], "one");
    let post = |verb: &str, body: &str| {
        bench.ask("POST", &format!("/v1/nodes/{id}/{verb}"), &[("content-type", "application/json")], body.as_bytes())
    };
    post("preempt", "{\"notice_seconds\": 99999}").problem(400);
    post("preempt", "{\"notice\": 1}").problem(400);
    let drained = post("drain", "");
    assert_eq!((drained.status, &drained.json()["id"]), (202, &node["id"]), "{}", drained.text());
    assert_eq!(post("resume", "").status, 202);
    assert_eq!(post("preempt", "{\"notice_seconds\": 5}").status, 202);
    bench.ask("POST", "/v1/jobs/one/cancel", &[], b"");
    bench.wait_for("one", &["cancelled"]);
}

#[test]
fn lists_are_paged_newest_first_and_filtered() {
    let bench = Bench::start("jobs_at_once = 1", "");
    bench.clip("clip.mp4", 5);
    for n in 0..5 {
        let request = json!({"input": "clip.mp4", "output": format!("o{n}.mp4")});
        assert_eq!(bench.put_json(&format!("/v1/jobs/j{n}"), &request).status, 202);
    }
    for n in 0..5 {
        bench.wait_for(&format!("j{n}"), &["finished"]);
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = bench.get(&format!("/v1/jobs?limit=2{cursor}")).json();
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={}", next.replace(':', "%3A"));
    }
    assert_eq!((pages, seen), (3, ["j4", "j3", "j2", "j1", "j0"].map(str::to_owned).to_vec()));
    let count = |query: &str| bench.get(&format!("/v1/jobs?{query}")).json()["jobs"].as_array().unwrap().len();
    assert_eq!((count("state=finished"), count("state=queued,failed"), count("failed=true")), (5, 0, 0));
    assert_eq!((count("route=main"), count("route=none"), count("tenant=default")), (5, 0, 5));
    for query in ["state=gone", "limit=0", "limit=501", "limit=x", "colour=red", "route=../x"] {
        bench.get(&format!("/v1/jobs?{query}")).problem(400);
    }
}

#[test]
fn a_job_is_paused_resumed_cancelled_and_retried() {
    // Nothing runs beside the first job, so that the second waits while it is steered.
    let bench = Bench::start("jobs_at_once = 1", "");
    bench.clip("long.mp4", 400);
    bench.clip("clip.mp4", 5);
    assert_eq!(bench.put_json("/v1/jobs/first", &json!({"input": "long.mp4"})).status, 202);
    assert_eq!(bench.put_json("/v1/jobs/second", &json!({"input": "clip.mp4"})).status, 202);
    let post = |path: &str| bench.ask("POST", path, &[], b"");
    assert_eq!(post("/v1/jobs/second/pause").json()["state"], "paused");
    assert_eq!(post("/v1/jobs/second/pause").problem(409), "conflict");
    assert_eq!(post("/v1/jobs/second/resume").json()["state"], "queued");
    let cancelled = post("/v1/jobs/second/cancel");
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (202, &json!("cancelled")));
    assert_eq!(post("/v1/jobs/second/cancel").problem(409), "conflict");
    assert_eq!(post("/v1/jobs/second/retry").json()["state"], "queued");
    assert_eq!(post("/v1/jobs/nobody/retry").problem(404), "not_found");
    post("/v1/jobs/first/cancel");
    bench.wait_for("second", &["finished"]);
}

#[test]
fn what_waits_beyond_the_quota_is_refused_until_there_is_room() {
    let bench = Bench::start("jobs_at_once = 1", "quota = { jobs_queued = 2 }");
    bench.clip("long.mp4", 400);
    for n in 0..2 {
        let request = json!({"input": "long.mp4", "output": format!("o{n}.mp4")});
        assert_eq!(bench.put_json(&format!("/v1/jobs/j{n}"), &request).status, 202);
    }
    let refused = bench.put_json("/v1/jobs/j2", &json!({"input": "long.mp4", "output": "o2.mp4"}));
    assert_eq!(refused.problem(429), "quota_exceeded");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    let upload = bench.ask("PUT", "/v1/routes/main/files/more.mp4", &[], b"x");
    assert_eq!(upload.problem(429), "quota_exceeded");
    for n in 0..2 {
        bench.ask("POST", &format!("/v1/jobs/j{n}/cancel"), &[], b"");
        bench.wait_for(&format!("j{n}"), &["cancelled"]);
    }
    assert_eq!(bench.put_json("/v1/jobs/j2", &json!({"input": "long.mp4", "output": "o2.mp4"})).status, 202);
    bench.ask("POST", "/v1/jobs/j2/cancel", &[], b"");
}

#[test]
fn requests_that_make_no_sense_are_told_so() {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 2);
    let long = "x".repeat(600);
    for (request, status) in [
        (json!({"input": "none.mp4"}), 404),
        (json!({"input": "clip.mp4", "route": "none"}), 404),
        (json!({"input": "clip.mp4", "style": "no-such-style"}), 400),
        (json!({"input": "clip.mp4", "style": "/etc/passwd"}), 400),
        (json!({"input": "clip.mp4", "colour": "red"}), 400),
        (json!({"input": "clip.mp4", "options": {"size": 1}}), 400),
        (json!({"input": "clip.mp4", "options": {"strength": 1.01}}), 400),
        (json!({"input": "clip.mp4", "options": {"strength": -1}}), 400),
        (json!({"input": "clip.mp4", "options": {"strength": 1e39}}), 400),
        (json!({"input": "clip.mp4", "options": {"strength": "half"}}), 400),
        (json!({"input": "clip.mp4", "options": {"preserve_color": 1}}), 400),
        (json!({"input": "clip.mp4", "output": "clip.txt"}), 400),
        (json!({"input": "/etc/passwd"}), 400),
        (json!({"input": "../in/clip.mp4"}), 400),
        (json!({"input": "a/../../clip.mp4"}), 400),
        (json!({"input": "..\\clip.mp4"}), 400),
        (json!({"input": "file:///etc/passwd"}), 400),
        (json!({"input": "s3://bucket/key.mp4"}), 400),
        (json!({"input": "http://169.254.169.254/latest"}), 400),
        (json!({"input": "clip.mp4\u{0}"}), 400),
        (json!({"input": long}), 400),
        (json!({"input": ""}), 400),
        (json!({"input": "clip.mp4", "output": "../clip.mp4"}), 400),
        (json!({"input": 7}), 400),
        (json!([]), 400),
        (json!("text"), 400),
    ] {
        bench.put_json("/v1/jobs/one", &request).problem(status);
    }
    for id in ["..", "a%2Fb", "a%00b", "%2e%2e", "-%0a", &"x".repeat(101)] {
        let answer = bench.put_json(&format!("/v1/jobs/{id}"), &json!({"input": "clip.mp4"}));
        assert!([400, 404].contains(&answer.status), "{id}: {}", answer.status);
    }
    assert_eq!(bench.get("/v1/jobs").json()["jobs"], json!([]), "something was accepted");
}
