//! A service with its HTTP interface on loopback, in a folder of its own.

use crate::client::{Answer, PATIENCE, ask};
use crate::{logs, support};
use restyle::serve::access::token::TokenRequest;
use restyle::serve::access::{Role, TokenFile};
use restyle::serve::http::{Api, Listeners, Server};
use restyle::serve::{ServeFile, Service};
use restyle_engine::clock::{Clock, SystemClock};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub service: Service,
    pub server: Server,
}

/// What every configuration here has; the route takes nothing by itself but from `watched/`.
const FILE: &str = r#"
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
work = "work"
device = "cpu"
"#;

const ROUTE: &str = r#"
input = "in"
output = "out"
logs = "logs"
style = "tiny.safetensors"
include = ["watched/*"]
[route.options]
size = 48
preset = "ultrafast"
"#;

impl Bench {
    /// `top` goes to the top of the file, `route` into the route `main`.
    pub fn start(top: &str, route: &str) -> Self {
        Self::start_with(top, &format!("[[route]]\nname = \"main\"\n{route}\n{ROUTE}"), |_| {})
    }

    /// `prepare` is called with the folder before anything reads it.
    pub fn start_with(top: &str, routes: &str, prepare: impl FnOnce(&std::path::Path)) -> Self {
        logs::keep();
        let dir = tempfile::tempdir().unwrap();
        for folder in ["in", "out", "logs", "work"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("tiny.safetensors"), support::tiny_style(7)).unwrap();
        prepare(dir.path());
        let text = format!("{top}\n{FILE}\n{routes}");
        let config = ServeFile::from_toml(&text, "serve.toml").unwrap().check(dir.path()).unwrap();
        let service = Service::start(config).unwrap();
        let server = Server::start(&Api::new(service.clone()).unwrap(), Listeners::default()).unwrap();
        Self { dir, service, server }
    }

    /// A service with tokens, and the tokens of one caller of each role in tenant `acme`, and of an outsider.
    pub fn with_tokens() -> (Self, Tokens) {
        let tokens = std::cell::OnceCell::new();
        let tenants = [("main", "acme", ""), ("other", "umbrella", "-other")];
        let routes: String = tenants
            .iter()
            .map(|(name, tenant, suffix)| {
                let route =
                    ROUTE.replace("\"in\"", &format!("\"in{suffix}\"")).replace("\"out\"", &format!("\"out{suffix}\""));
                format!("[[route]]\nname = \"{name}\"\ntenant = \"{tenant}\"\n{route}\n")
            })
            .collect();
        let bench = Self::start_with("tokens = \"tokens.json\"", &routes, |dir| {
            for folder in ["in-other", "out-other"] {
                std::fs::create_dir(dir.join(folder)).unwrap();
            }
            let _ = tokens.set(Tokens::issue(&dir.join("tokens.json")));
        });
        (bench, tokens.into_inner().unwrap())
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        ask(self.address(), method, path, headers, body)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    pub fn put_json(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Makes a clip of so many frames in the input folder.
    pub fn clip(&self, name: &str, frames: u32) {
        let path = self.path("in").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let frames = frames.to_string();
        let args = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25", "-frames:v", &frames, "-c:v", "libx264"];
        let rest = ["-preset", "ultrafast", "-pix_fmt", "yuv420p", path.to_str().unwrap()];
        support::ffmpeg(&[&args[..], &rest[..]].concat());
    }

    /// Waits until a job is in one of these states.
    pub fn wait_for(&self, id: &str, states: &[&str]) -> Value {
        wait(|| {
            let job = self.get(&format!("/v1/jobs/{id}")).json();
            states.contains(&job["state"].as_str().unwrap_or_default()).then_some(job)
        })
    }
}

/// Asks again and again until there is something; only a hang guard ends it otherwise.
pub fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    while clock.now() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        clock.sleep(Duration::from_millis(20));
    }
    panic!("what was waited for did not come");
}

/// `authorization` headers by caller.
pub struct Tokens {
    pub viewer: String,
    pub submitter: String,
    pub operator: String,
    pub admin: String,
    /// A submitter of another tenant.
    pub outsider: String,
    /// One whose time is over.
    pub expired: String,
}

impl Tokens {
    fn issue(path: &std::path::Path) -> Self {
        let issue = |name: &str, role: Role, tenant: Option<&str>, lifetime: Option<Duration>| {
            let request = TokenRequest { name: name.into(), role, tenant: tenant.map(Into::into), lifetime };
            let secret = TokenFile::issue(path, request, &SystemClock::new()).unwrap();
            format!("Bearer {}", secret.reveal())
        };
        Self {
            viewer: issue("viewer", Role::Viewer, Some("acme"), None),
            submitter: issue("submitter", Role::Submitter, Some("acme"), None),
            operator: issue("operator", Role::Operator, Some("acme"), None),
            admin: issue("admin", Role::Admin, None, None),
            outsider: issue("outsider", Role::Submitter, Some("umbrella"), None),
            expired: issue("expired", Role::Admin, None, Some(Duration::ZERO)),
        }
    }
}
