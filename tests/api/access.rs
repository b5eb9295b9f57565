//! Who may do what: roles, tenants, ends of tokens, and no secret anywhere.

use crate::bench::{Bench, wait};
use crate::{client, logs};
use restyle::serve::access::TokenFile;
use restyle_engine::clock::{Clock, SystemClock};
use serde_json::json;

fn status(bench: &Bench, token: &str, method: &str, path: &str, body: &str) -> u16 {
    let headers = [("authorization", token), ("content-type", "application/json")];
    bench.ask(method, path, &headers, body.as_bytes()).status
}

#[test]
fn each_role_may_do_its_part_and_tenants_do_not_see_each_other() {
    let (bench, tokens) = Bench::with_tokens();
    bench.clip("clip.mp4", 5);
    let job = json!({"input": "clip.mp4"}).to_string();
    let ask = |token: &str, method: &str, path: &str| status(&bench, token, method, path, "");

    assert_eq!(status(&bench, &tokens.viewer, "PUT", "/v1/jobs/one", &job), 403);
    assert_eq!(status(&bench, &tokens.submitter, "PUT", "/v1/jobs/one", &job), 202);
    assert_eq!(ask(&tokens.viewer, "GET", "/v1/jobs/one"), 200);
    for path in
        ["/v1/jobs/one", "/v1/jobs/one/log", "/v1/jobs/one/report", "/v1/jobs/one/events", "/v1/jobs/one/output"]
    {
        assert_eq!(ask(&tokens.outsider, "GET", path), 404, "another tenant sees {path}");
    }
    for verb in ["cancel", "retry"] {
        assert_eq!(ask(&tokens.viewer, "POST", &format!("/v1/jobs/one/{verb}")), 403);
        assert_eq!(ask(&tokens.outsider, "POST", &format!("/v1/jobs/one/{verb}")), 404);
    }
    for verb in ["pause", "resume"] {
        assert_eq!(ask(&tokens.submitter, "POST", &format!("/v1/jobs/one/{verb}")), 403);
    }
    for verb in ["preempt", "drain", "resume"] {
        assert_eq!(ask(&tokens.submitter, "POST", &format!("/v1/nodes/x/cpu-0/{verb}")), 403);
        assert_eq!(ask(&tokens.operator, "POST", &format!("/v1/nodes/x/cpu-0/{verb}")), 404);
    }
    assert_eq!(ask(&tokens.outsider, "GET", "/v1/jobs/one?tenant=acme"), 404);
    assert_eq!(ask(&tokens.admin, "GET", "/v1/jobs/one?tenant=acme"), 200);
    assert_eq!(ask(&tokens.admin, "GET", "/v1/jobs/one?tenant=umbrella"), 404);
    let upload = |token: &str| ask_upload(&bench, token);
    assert_eq!((upload(&tokens.viewer), upload(&tokens.outsider), upload(&tokens.submitter)), (403, 404, 201));

    let listed = |token: &str, path: &str, field: &str| {
        let answer = bench.ask("GET", path, &[("authorization", token)], b"").json();
        let list = if field.is_empty() { answer } else { answer[field].clone() };
        list.as_array().unwrap().len()
    };
    assert_eq!((listed(&tokens.outsider, "/v1/jobs", "jobs"), listed(&tokens.admin, "/v1/jobs", "jobs")), (0, 1));
    assert_eq!((listed(&tokens.outsider, "/v1/routes", ""), listed(&tokens.admin, "/v1/routes", "")), (1, 2));
    let me = bench.ask("GET", "/v1/me", &[("authorization", &tokens.operator)], b"").json();
    assert_eq!(me, json!({"name": "operator", "role": "operator", "tenant": "acme", "expires_at": null}));
}

fn ask_upload(bench: &Bench, token: &str) -> u16 {
    bench.ask("PUT", "/v1/routes/main/files/up.mp4", &[("authorization", token)], b"bytes").status
}

#[test]
fn bad_expired_and_revoked_tokens_are_all_refused_alike() {
    let (bench, tokens) = Bench::with_tokens();
    let ask = |token: &str| bench.ask("GET", "/v1/jobs", &[("authorization", token)], b"");
    assert_eq!(ask(&tokens.viewer).status, 200);
    let zeros = format!("Bearer rst_{}", "0".repeat(64));
    let long = format!("Bearer {}", "x".repeat(8_000));
    let (cut, lower) = (&tokens.viewer[..tokens.viewer.len() - 1], tokens.viewer.replace("Bearer ", "Basic "));
    let mut texts = Vec::new();
    for bad in [&tokens.expired, &zeros, &long, cut, &lower, "", "Bearer", "Bearer ", "rst_"] {
        let answer = ask(bad);
        assert_eq!(answer.problem(401), "unauthorized", "{bad}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        texts.push(answer.text());
    }
    assert_eq!(bench.get("/v1/jobs").problem(401), "unauthorized");
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "a refusal tells why");
    // A token in the query is for hooks alone.
    let bare = tokens.viewer.trim_start_matches("Bearer ");
    bench.get(&format!("/v1/jobs?token={bare}")).problem(401);

    TokenFile::revoke(&bench.path("tokens.json"), "viewer").unwrap();
    wait(|| (ask(&tokens.viewer).status == 401).then_some(()));
    assert_eq!(ask(&tokens.submitter).status, 200, "another token was refused as well");
    for public in ["/livez", "/readyz", "/"] {
        assert_eq!(bench.get(public).status, 200, "{public}");
    }
    bench.get("/openapi.json").problem(401);
}

#[test]
fn a_planted_secret_is_in_no_log_and_in_no_answer() {
    let (bench, tokens) = Bench::with_tokens();
    let secret = tokens.submitter.trim_start_matches("Bearer ").to_owned();
    let planted = "rst_5ec2e7000000000000000000000000000000000000000000000000005ec2e700";
    let mut answers = Vec::new();
    for token in [secret.as_str(), planted] {
        let bearer = format!("Bearer {token}");
        for (method, path) in [
            ("GET", "/v1/me".to_owned()),
            ("GET", "/v1/jobs".to_owned()),
            ("PUT", "/v1/jobs/one".to_owned()),
            ("GET", format!("/v1/jobs?token={token}")),
            ("POST", format!("/v1/hooks/s3/main?token={token}")),
            ("GET", "/v1/routes".to_owned()),
        ] {
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            answers.push(bench.ask(method, &path, &headers, b"{\"input\": \"none.mp4\"}"));
            answers.push(bench.ask(method, &path, &[("content-type", "application/json")], b"{}"));
        }
        answers.push(bench.ask("GET", "/v1/jobs", &[("authorization", &format!("Basic {token}"))], b""));
    }
    for answer in &answers {
        let whole = format!("{}{}", answer.head, answer.text());
        assert!(!whole.contains(&secret[8..]) && !whole.contains(&planted[8..]), "{whole}");
    }
    let logged = logs::text();
    let own = logged.lines().filter(|line| line.contains(" restyle"));
    assert!(own.clone().count() > 0, "nothing was logged: the test would see nothing");
    for line in own {
        assert!(!line.contains(&secret[8..]) && !line.contains(&planted[8..]), "{line}");
    }
}

#[test]
fn networks_that_are_not_allowed_and_foreign_pages_are_refused() {
    let bench = Bench::start("allow = [\"192.0.2.0/24\"]", "");
    assert_eq!(bench.get("/v1/jobs").problem(403), "forbidden");
    assert_eq!(client::ask(bench.server.metrics_address().unwrap(), "GET", "/metrics", &[], b"").status, 403);

    let bench = Bench::start("allow = [\"127.0.0.0/8\"]", "");
    assert_eq!(bench.get("/v1/jobs").status, 200);
    for headers in [
        [("host", "evil.example")].as_slice(),
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(bench.ask("GET", "/v1/jobs", headers, b"").problem(403), "forbidden", "{headers:?}");
    }
    let own = format!("http://{}", bench.address());
    assert_eq!(bench.ask("GET", "/v1/jobs", &[("origin", &own)], b"").status, 200);
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let bench = Bench::start("limits = { requests_per_second = 5 }", "");
    let clock = SystemClock::new();
    let began = clock.now();
    let mut refused = None;
    // The bucket holds ten; however slow this machine is, it asks more than five times a second for long enough.
    while refused.is_none() && clock.now() - began < client::PATIENCE {
        refused = Some(bench.get("/v1/me")).filter(|answer| answer.status == 429);
    }
    let refused = refused.expect("a thousand requests were let through");
    assert_eq!(refused.problem(429), "rate_limited");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
}
