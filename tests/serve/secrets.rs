//! Secrets that are planted wherever the daemon may meet one, and looked for wherever it speaks.

use crate::servers::http;
use crate::{Site, files, listens, until};
use std::net::{SocketAddr, TcpListener};

#[test]
fn a_planted_secret_is_told_nowhere() {
    let site = Site::new(4);
    let metrics: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(site.path("hook.secret"), "plantedsecret-of-the-hook").unwrap();
    let credentials = "[default]\naws_access_key_id = AKIAPLANTED\naws_secret_access_key = plantedsecret-of-the-file\n";
    std::fs::write(site.path("credentials"), credentials).unwrap();
    let route = "output = \"out\"\nlogs = \"logs\"\nstyle = \"tiny.safetensors\"\npoll = \"200ms\"\n";
    site.configure(&format!(
        "metrics_listen = \"{metrics}\"\nnodes = {{ max = 1 }}\n\
         [[webhook]]\nurl = \"http://127.0.0.1:9/hook\"\nsecret_file = \"hook.secret\"\nevents = [\"state\"]\n\
         [[route]]\nname = \"here\"\ninput = \"in\"\n{route}\
         [[route]]\nname = \"s3\"\ninput = \"s3://bucket/in\"\n{route}\
         [[route]]\nname = \"azure\"\ninput = \"azblob://box/in\"\n{route}"
    ));
    // Nobody listens there: what is logged is requests, attempts at them, and errors.
    let env = [
        ("RESTYLE_LOG", "trace".to_owned()),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", site.path("credentials").display().to_string()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_SESSION_TOKEN", "plantedsecret-of-the-session".to_owned()),
        ("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9/box".to_owned()),
        ("AZURE_STORAGE_ACCOUNT_NAME", "box".to_owned()),
        ("AZURE_STORAGE_SAS_TOKEN", "sv=2021-06-08&sig=plantedsecret-of-the-sas".to_owned()),
        ("RESTYLE_TOKEN", "plantedsecret-of-the-client".to_owned()),
    ];
    let _daemon = site.daemon_with("", &env);
    let api = listens(&site);
    site.drop_clip("in/clip.mp4");
    let report = until(&|| site.said(), || site.reports("logs").pop());
    let id = report["job"]["id"].as_str().unwrap();
    assert_eq!(report["job"]["state"], "finished", "{report}");
    let get =
        |at: SocketAddr, path: &str| String::from_utf8_lossy(&http(at, "GET", path, &[], b"").unwrap().1).into_owned();
    // Both stores were tried, and failed.
    let routes = until(&|| get(api, "/v1/routes"), || {
        let routes: serde_json::Value = serde_json::from_str(&get(api, "/v1/routes")).ok()?;
        let failed = routes.as_array()?.iter().filter(|r| r["error"].is_string()).count();
        (failed == 2).then_some(routes)
    });
    let mut texts = vec![("/v1/routes".to_owned(), routes.to_string()), ("/metrics".into(), get(metrics, "/metrics"))];
    for path in ["/v1/jobs", "/v1/summary", "/v1/nodes", "/v1/styles", "/v1/me", "/readyz"] {
        texts.push((path.to_owned(), get(api, path)));
    }
    for part in ["", "/log", "/report", "/events", "/frames"] {
        texts.push((part.to_owned(), get(api, &format!("/v1/jobs/{id}{part}"))));
    }
    for path in ["logs", "work"].iter().flat_map(|folder| files(&site.path(folder))) {
        texts.push((path.display().to_string(), String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned()));
    }
    texts.push(("the log".into(), site.said()));
    assert!(
        site.said().contains("TRACE")
            && texts.iter().any(|(name, text)| name == "/metrics" && text.contains("restyle_"))
    );
    for (name, text) in texts {
        assert!(!text.contains("plantedsecret"), "{name} tells a secret: {}", around(&text));
    }
}

/// The line that tells it.
fn around(text: &str) -> &str {
    text.lines().find(|line| line.contains("plantedsecret")).unwrap_or_default()
}
