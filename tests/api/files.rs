//! Inputs in and outputs out.

use crate::bench::Bench;
use serde_json::json;

#[test]
fn an_upload_is_styled_and_fetched_whole_and_in_ranges() {
    let bench = Bench::start("", "");
    bench.clip("source.mp4", 10);
    let bytes = std::fs::read(bench.path("in/source.mp4")).unwrap();
    let sent = bench.ask("PUT", "/v1/routes/main/files/new/up%20load.mp4", &[], &bytes);
    assert_eq!(sent.status, 201, "{}", sent.text());
    assert_eq!(sent.json(), json!({"route": "main", "key": "new/up load.mp4", "bytes": bytes.len()}));
    assert!(std::fs::read(bench.path("in/new/up load.mp4")).unwrap() == bytes);
    assert_eq!(bench.ask("PUT", "/v1/routes/main/files/new/up%20load.mp4", &[], b"other").problem(409), "conflict");
    assert!(std::fs::read(bench.path("in/new/up load.mp4")).unwrap() == bytes, "an input was replaced");
    assert_eq!(bench.ask("PUT", "/v1/routes/none/files/a.mp4", &[], b"x").problem(404), "not_found");
    bench.ask("PUT", "/v1/routes/main/files/empty.mp4", &[], b"").problem(400);
    assert!(!bench.path("in/empty.mp4").exists());

    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "new/up load.mp4"})).status, 202);
    let early = bench.get("/v1/jobs/one/output");
    assert!(early.status == 200 || early.problem(409) == "conflict");
    let job = bench.wait_for("one", &["finished", "failed"]);
    let styled = std::fs::read(bench.path("out").join(job["output"].as_str().unwrap())).unwrap();
    let whole = bench.get("/v1/jobs/one/output");
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("video/mp4")));
    assert!(whole.body == styled, "other bytes");
    assert!(whole.header("content-disposition").unwrap().starts_with("attachment; filename*=UTF-8''up%20load"));

    let tag = whole.header("etag").unwrap().to_owned();
    let range = |text: &str, if_range: &str| {
        let headers = [("range", text), ("if-range", if_range)];
        bench.ask("GET", "/v1/jobs/one/output", &headers[..if if_range.is_empty() { 1 } else { 2 }], b"")
    };
    let size = styled.len();
    let part = range("bytes=10-19", "");
    assert_eq!((part.status, part.header("content-range")), (206, Some(format!("bytes 10-19/{size}").as_str())));
    assert!(part.body == styled[10..20]);
    assert!(range("bytes=-5", "").body == styled[size - 5..]);
    assert!(range(&format!("bytes={}-", size - 7), &tag).body == styled[size - 7..]);
    assert_eq!(range("bytes=0-1", "\"another\"").status, 200, "another version was asked for: all of this one is sent");
    assert_eq!(range(&format!("bytes={size}-"), "").status, 416);
    assert_eq!(range("bytes=1-2,4-5", "").status, 200);
}

#[test]
fn folders_have_no_presigned_urls() {
    let bench = Bench::start("", "");
    let headers = [("content-type", "application/json")];
    let ask = |body: &str| bench.ask("POST", "/v1/routes/main/presign", &headers, body.as_bytes());
    for method in ["put", "get"] {
        assert_eq!(ask(&json!({"key": "a.mp4", "method": method}).to_string()).problem(409), "unsupported");
    }
    ask(&json!({"key": "../a.mp4", "method": "get"}).to_string()).problem(400);
    ask(&json!({"key": "a.mp4", "method": "delete"}).to_string()).problem(400);
}
