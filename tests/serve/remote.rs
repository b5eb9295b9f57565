//! The daemon with everything it touches in an object store: input, output, logs, work store; on real servers.

use crate::servers::{AZURE_KEY, Azurite, S3_SECRET, SeaweedFs, http};
use crate::{Daemon, Site, listens, until};
use restyle_actors::storage::{Access, AzblobAccess, Folder, Location, S3Access, S3Keys, Secret};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::OnceLock;

fn seaweedfs() -> Option<&'static SeaweedFs> {
    static SERVER: OnceLock<Option<SeaweedFs>> = OnceLock::new();
    SERVER.get_or_init(SeaweedFs::start).as_ref()
}

fn azurite() -> Option<&'static Azurite> {
    static SERVER: OnceLock<Option<Azurite>> = OnceLock::new();
    SERVER.get_or_init(Azurite::start).as_ref()
}

/// A bucket or container, and how a daemon reaches it.
struct Bucket {
    url: String,
    folder: Folder,
    address: SocketAddr,
    env: Vec<(&'static str, String)>,
}

impl Bucket {
    fn s3(name: &str) -> Option<Self> {
        let server = seaweedfs()?;
        let keys = S3Keys {
            access_key_id: crate::servers::S3_KEY.to_owned(),
            secret_access_key: Secret::new(S3_SECRET),
            session_token: None,
        };
        let s3 = S3Access { endpoint: Some(server.endpoint()), region: None, keys: Some(keys) };
        let url = format!("s3://{}", server.bucket(name));
        Some(Self::new(url, Access { s3, ..Access::default() }, server.s3, server.env()))
    }

    fn azure(name: &str) -> Option<Self> {
        let server = azurite()?;
        assert!(server.container(name));
        let azblob = AzblobAccess {
            endpoint: Some(server.endpoint()),
            account: Some(crate::servers::AZURE_ACCOUNT.to_owned()),
            key: Some(Secret::new(AZURE_KEY)),
            sas: None,
        };
        let url = format!("azblob://{name}");
        Some(Self::new(url, Access { azblob, ..Access::default() }, server.blob, server.env()))
    }

    fn new(url: String, access: Access, address: SocketAddr, env: Vec<(&'static str, String)>) -> Self {
        let folder = Folder::new(Location::parse_with(&url, || access).unwrap());
        Self { url, folder, address, env }
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.folder.get(key, 64 << 20).unwrap()
    }

    fn keys(&self) -> Vec<String> {
        self.folder.list(None, 10_000).unwrap().entries.into_iter().map(|e| e.key).collect()
    }

    fn reports(&self) -> Vec<Value> {
        let reports = self.keys().into_iter().filter(|k| k.starts_with("logs/") && k.ends_with(".report.json"));
        reports.filter_map(|k| serde_json::from_slice(&self.get(&k)?).ok()).collect()
    }

    fn reports_at_least(&self, site: &Site, count: usize) -> Vec<Value> {
        until(&|| site.said(), || Some(self.reports()).filter(|reports| reports.len() >= count))
    }

    /// A daemon on it that keeps nothing local but what may be lost.
    fn daemon(&self, site: &Site, faults: &str, log: &str) -> Daemon {
        let url = &self.url;
        let style = site.path("tiny.safetensors");
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndevice = \"cpu\"\nwork = \"{url}/work\"\nstate = \"state\"\nnodes = {{ max = 1 }}\n\
             [[route]]\nname = \"r\"\ninput = \"{url}/in\"\noutput = \"{url}/out\"\nlogs = \"{url}/logs\"\n\
             style = \"{}\"\npoll = \"500ms\"\n",
            style.display()
        );
        std::fs::write(site.path("serve.toml"), text).unwrap();
        let mut env = self.env.clone();
        env.push(("RESTYLE_LOG", log.to_owned()));
        site.daemon_with(faults, &env)
    }
}

const LOG: &str = "warn,restyle=info";

fn styled_and_logged_and_killed_and_gone_on(bucket: &Bucket) {
    let site = Site::new(40);
    let clip = std::fs::read(site.path("clip.mp4")).unwrap();
    // The scorer stands still in the second segment: what is killed is a job half done.
    let daemon = bucket.daemon(&site, "score:30=pause", LOG);
    bucket.folder.put("in/sub/clip.mp4", &clip).unwrap();
    until(&|| site.said(), || {
        bucket.keys().iter().any(|k| k.starts_with("work/jobs/") && k.contains("/seg")).then_some(())
    });
    drop(daemon);
    assert!(bucket.keys().iter().all(|k| !k.starts_with("out/") && !k.starts_with("logs/")), "{:?}", bucket.keys());
    let mut daemon = bucket.daemon(&site, "", LOG);
    let report = bucket.reports_at_least(&site, 1).remove(0);
    let number = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((&report["job"]["state"], &report["job"]["attempts"]), (&"finished".into(), &2.into()), "{report}");
    assert!(number("frames") == 40 && number("frames_reused") >= 20, "{report}");
    assert_eq!(number("frames_scored") + number("frames_reused"), 40);
    println!("{}: {} of 40 frames scored after the kill", bucket.url, number("frames_scored"));
    let styled = bucket.get("out/sub/clip.tiny.mp4").unwrap();
    assert_eq!(blake3::hash(&styled).to_hex().as_str(), report["blake3"].as_str().unwrap());
    let log = bucket.keys().into_iter().find(|k| k.starts_with("logs/") && k.ends_with(".log.ndjson")).unwrap();
    let log = String::from_utf8(bucket.get(&log).unwrap()).unwrap();
    assert!(log.contains("\"planned\"") && log.contains("\"finished\""), "{log}");
    // What finished jobs leave in the store is records alone; a restart begins nothing again.
    assert!(!bucket.keys().iter().any(|k| k.contains("/seg")), "{:?}", bucket.keys());
    daemon.signal("-TERM");
    assert_eq!(daemon.exit_code(), 0, "{}", site.said());
    let daemon = bucket.daemon(&site, "", LOG);
    bucket.folder.put("in/second.mp4", &clip).unwrap();
    assert_eq!(bucket.reports_at_least(&site, 2).len(), 2);
    let count = bucket.keys().iter().filter(|k| k.starts_with("out/")).count();
    assert_eq!(count, 2, "{:?}", bucket.keys());
    // Another daemon of this machine on the same store is told so.
    assert_eq!(bucket.daemon(&site, "", LOG).exit_code(), 4);
    drop(daemon);
}

#[test]
fn s3_a_clip_in_a_bucket_is_styled_and_a_kill_loses_nothing() {
    let Some(bucket) = Bucket::s3("daemon") else { return };
    styled_and_logged_and_killed_and_gone_on(&bucket);
}

#[test]
fn azure_a_clip_in_a_container_is_styled_and_a_kill_loses_nothing() {
    let Some(bucket) = Bucket::azure("daemon") else { return };
    styled_and_logged_and_killed_and_gone_on(&bucket);
}

/// Asks the daemon for a URL and returns it with what belongs to it.
fn presigned(api: SocketAddr, key: &str, method: &str) -> Value {
    let body = json!({"key": key, "method": method}).to_string();
    let json_type = [("content-type", "application/json")];
    let (status, answer) = http(api, "POST", "/v1/routes/r/presign", &json_type, body.as_bytes()).unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    serde_json::from_slice(&answer).unwrap()
}

fn send(bucket: &Bucket, url: &Value, method: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let text = url["url"].as_str().unwrap();
    let path = text.split_once("://").unwrap().1.split_once('/').unwrap().1;
    let headers: Vec<(&str, &str)> =
        url["headers"].as_object().unwrap().iter().map(|(n, v)| (n.as_str(), v.as_str().unwrap())).collect();
    http(bucket.address, method, &format!("/{path}"), &headers, body).unwrap()
}

/// By stream and by URL, in and out; and with everything logged that can be, no secret of the store is told.
fn files_go_in_and_out(bucket: &Bucket, secret: &str) {
    let site = Site::new(4);
    let clip = std::fs::read(site.path("clip.mp4")).unwrap();
    let _daemon = bucket.daemon(&site, "", "trace");
    let api = listens(&site);
    let put = |body: &[u8]| http(api, "PUT", "/v1/routes/r/files/streamed.mp4", &[], body).unwrap();
    assert_eq!(put(&clip).0, 201, "{}", site.said());
    assert_eq!(put(b"other").0, 409, "an input was replaced");
    assert!(bucket.get("in/streamed.mp4").unwrap() == clip);

    let create = presigned(api, "signed.mp4", "put");
    assert_eq!(create["method"], "PUT");
    assert!(matches!(send(bucket, &create, "PUT", &clip).0, 200 | 201));
    assert!(matches!(send(bucket, &create, "PUT", b"other").0, 403 | 409 | 412), "an input was replaced");
    assert!(matches!(send(bucket, &create, "DELETE", b"").0, 401 | 403 | 404), "making is not deleting");
    assert!(matches!(send(bucket, &create, "GET", b"").0, 401 | 403 | 404), "making is not reading");

    let reports = bucket.reports_at_least(&site, 2);
    let jobs: Vec<&str> = reports.iter().map(|r| r["job"]["id"].as_str().unwrap()).collect();
    for report in &reports {
        assert_eq!(report["job"]["state"], "finished", "{report}");
        let (key, id) = (report["job"]["output"].as_str().unwrap(), report["job"]["id"].as_str().unwrap());
        let styled = bucket.get(&format!("out/{key}")).unwrap();
        let read = presigned(api, key, "get");
        assert!(send(bucket, &read, "GET", b"") == (200, styled.clone()), "other bytes by url");
        // With all that a write needs but the right to.
        let mut reading = read.clone();
        reading["headers"] = create["headers"].clone();
        assert!(matches!(send(bucket, &reading, "PUT", b"x").0, 401 | 403 | 404), "reading is not writing");
        let (status, streamed) = http(api, "GET", &format!("/v1/jobs/{id}/output"), &[], b"").unwrap();
        assert!(status == 200 && streamed == styled, "other bytes by stream");
        let preview = http(api, "GET", &format!("/v1/jobs/{id}/preview?frame=2&side=after"), &[], b"").unwrap();
        assert!(preview.0 == 200 && preview.1.starts_with(&[0xff, 0xd8]));
    }
    let answers: Vec<String> = ["/v1/routes", "/v1/jobs", "/v1/summary", "/v1/nodes"]
        .iter()
        .map(|path| path.to_string())
        .chain(jobs.iter().flat_map(|id| [format!("/v1/jobs/{id}/log"), format!("/v1/jobs/{id}/report")]))
        .map(|path| String::from_utf8_lossy(&http(api, "GET", &path, &[], b"").unwrap().1).into_owned())
        .collect();
    let logs = bucket.keys().into_iter().filter(|k| !k.starts_with("in/") && !k.starts_with("out/"));
    let logs = logs.filter_map(|k| bucket.get(&k)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let said = site.said();
    assert!(said.contains("\"level\":\"TRACE\""), "not everything was logged");
    for text in answers.into_iter().chain(logs).chain([said]) {
        let at = text.find(secret).or_else(|| text.find(create["url"].as_str().unwrap()));
        assert!(at.is_none(), "a secret is told: {}", &text[at.unwrap_or(0).saturating_sub(200)..][..200]);
    }
}

#[test]
fn s3_files_go_in_and_out_by_stream_and_by_signed_url_and_no_secret_is_told() {
    let Some(bucket) = Bucket::s3("files") else { return };
    files_go_in_and_out(&bucket, S3_SECRET);
}

#[test]
fn azure_files_go_in_and_out_by_stream_and_by_signed_url_and_no_secret_is_told() {
    let Some(bucket) = Bucket::azure("files") else { return };
    files_go_in_and_out(&bucket, AZURE_KEY);
}

/// A store that says of every request that its credentials are over, as S3 does it.
fn expired_store() -> SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let body = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = vec![0; 65536];
            let read = client.read(&mut head).unwrap_or(0);
            let body = if head[..read].starts_with(b"HEAD") { "" } else { body };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = client.write_all(answer.as_bytes());
            // What it sends besides is taken, so that the answer is not lost with the connection.
            let _ = client.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        }
    });
    address
}

#[test]
fn credentials_that_are_over_are_told_as_such() {
    let site = Site::new(4);
    let route = "[[route]]\nname = \"r\"\ninput = \"s3://bucket/in\"\noutput = \"out\"\nlogs = \"logs\"\n";
    site.configure(&format!("{route}style = \"tiny.safetensors\"\npoll = \"200ms\"\n"));
    let mut env = SeaweedFs::env_at(&format!("http://{}", expired_store()));
    env.push(("AWS_SESSION_TOKEN", "plantedsecret".to_owned()));
    let _daemon = site.daemon_with("", &env);
    let api = listens(&site);
    let (status, answer) = http(api, "PUT", "/v1/routes/r/files/up.mp4", &[], b"some bytes").unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(status == 503 && answer.contains("\"storage\"") && answer.contains("have expired"), "{status} {answer}");
    let routes = until(&|| site.said(), || {
        let (_, routes) = http(api, "GET", "/v1/routes", &[], b"").unwrap();
        Some(String::from_utf8_lossy(&routes).into_owned()).filter(|routes| routes.contains("cannot list"))
    });
    assert!(routes.contains("have expired") && !routes.contains("plantedsecret"), "{routes}");
}
