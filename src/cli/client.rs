//! Asks a running service over its HTTP interface: the way of every verb that names a server.

use super::client_args::ServerArgs;
use crate::error::{Error, ErrorKind};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Body, Certificate, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Where a service listens unless somebody says otherwise.
const SERVER: &str = "http://127.0.0.1:8080";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A service that says nothing for so long hangs; event streams have a heartbeat of a quarter of a minute.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 256 << 10;
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// A service as a caller reaches it.
pub(super) struct Client {
    base: String,
    tenant: Option<String>,
    authorization: Option<HeaderValue>,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Reads address and token; asks nothing yet.
    pub(super) fn open(args: &ServerArgs) -> Result<Self, Error> {
        let said = args.server.clone().or_else(|| std::env::var("RESTYLE_SERVER").ok().filter(|s| !s.is_empty()));
        let base = said.unwrap_or_else(|| SERVER.to_owned()).trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base).map_err(|e| usage(format!("server {base}: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(usage("a server is an http: or https: address without a name or password in it"));
        }
        let authorization = token(args.token_file.as_deref())?;
        if authorization.is_some() && url.scheme() == "http" && !is_loopback(&url) {
            return Err(usage(format!("{base} is not encrypted: a token is sent over https: only")));
        }
        let mut http = reqwest::Client::builder()
            // A token goes to the server that was named and to no other.
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_MAX)
            .user_agent(concat!("restyle/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &args.ca {
            http = http.tls_certs_merge([certificate(path)?]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            base,
            tenant: args.tenant.clone(),
            authorization,
            http: http.build().map_err(|e| failed(e.without_url().to_string()))?,
            runtime: runtime.map_err(|e| failed(e.to_string()))?,
        })
    }

    /// Asks for JSON.
    pub(super) fn get(&self, path: &str) -> Result<Value, Error> {
        self.json(self.request(Method::GET, path))
    }

    /// Tells the service to do something.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.json(with_json(self.request(Method::POST, path), body))
    }

    /// Puts something on record.
    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.json(with_json(self.request(Method::PUT, path), body))
    }

    /// Sends a file, a piece at a time.
    pub(super) fn send_file(&self, path: &str, file: &Path) -> Result<Value, Error> {
        let unreadable =
            |e: std::io::Error| Error::new(ErrorKind::InputUnreadable, format!("cannot read {}: {e}", file.display()));
        let opened = File::open(file).map_err(unreadable)?;
        let metadata = opened.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            let message = format!("{} is no file: give one video file", file.display());
            return Err(Error::new(ErrorKind::InputUnreadable, message));
        }
        let request = self.request(Method::PUT, path).header(CONTENT_LENGTH, metadata.len());
        self.json(request.body(Body::wrap_stream(Pieces(opened))))
    }

    /// Reads a response as it comes.
    pub(super) fn read(&self, path: &str, mut take: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let request = self.request(Method::GET, path);
        self.runtime.block_on(async {
            let mut response = self.send(request).await?;
            while let Some(piece) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
                take(&piece)?;
            }
            Ok(())
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = format!("{}{path}", self.base);
        if let Some(tenant) = self.tenant.as_ref().filter(|_| path.starts_with("/v1/jobs")) {
            url += if path.contains('?') { "&tenant=" } else { "?tenant=" };
            url += &escaped(tenant);
        }
        let request = self.http.request(method, url);
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    fn json(&self, request: RequestBuilder) -> Result<Value, Error> {
        self.runtime.block_on(async {
            let bytes = self.send(request).await?.bytes().await.map_err(|e| self.unreachable(&e))?;
            serde_json::from_slice(&bytes)
                .map_err(|e| failed(format!("{} does not answer as restyle does: {e}", self.base)))
        })
    }

    /// Sends a request and turns a refusal into an error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let detail =
            problem["detail"].as_str().map_or_else(|| format!("{} answered {status}", self.base), str::to_owned);
        Err(Error::new(kind_of(status, problem["kind"].as_str().unwrap_or_default()), detail))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        // The innermost reason says most: connection refused, unknown certificate authority.
        let mut reason: &dyn std::error::Error = error;
        while let Some(inner) = reason.source() {
            reason = inner;
        }
        let message = format!(
            "cannot talk to the service at {}: {reason}; is it running there? name it with --server URL or RESTYLE_SERVER",
            self.base
        );
        Error::new(ErrorKind::Configuration, message)
    }
}

/// Which exit code a refusal becomes.
fn kind_of(status: StatusCode, kind: &str) -> ErrorKind {
    match (status.as_u16(), kind) {
        (401 | 403, _) => ErrorKind::Configuration,
        (413, _) => ErrorKind::InputRefused,
        // Later there may be room: the same command again goes on.
        (429, _) | (503, "draining" | "busy") => ErrorKind::Interrupted,
        (503, _) => ErrorKind::Storage,
        (400..=499, _) => ErrorKind::Usage,
        _ => ErrorKind::JobFailed,
    }
}

fn with_json(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header(CONTENT_TYPE, "application/json").body(body.to_string())
}

/// Escapes what would end a part of an address; slashes stay.
pub(super) fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The token of the file, or of the environment; never of an argument, which every process of the machine could read.
fn token(file: Option<&Path>) -> Result<Option<HeaderValue>, Error> {
    let said = match file {
        Some(path) => {
            let mut text = String::new();
            let read = File::open(path).and_then(|f| f.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
            read.map_err(|e| {
                Error::new(ErrorKind::Configuration, format!("cannot read the token file {}: {e}", path.display()))
            })?;
            Some(text)
        }
        None => std::env::var("RESTYLE_TOKEN").ok(),
    };
    let Some(said) = said.map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()) else { return Ok(None) };
    let malformed = |_| Error::new(ErrorKind::Configuration, "the token holds characters that no token holds");
    let mut value = HeaderValue::try_from(format!("Bearer {said}")).map_err(malformed)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn certificate(path: &Path) -> Result<Certificate, Error> {
    let refused = |why: String| Error::new(ErrorKind::Configuration, format!("certificate {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|e| refused(e.to_string()))?;
    Certificate::from_pem(&pem).map_err(|e| refused(e.to_string()))
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::JobFailed, message)
}

/// A file as pieces. Reads block the only thread of this client, which has nothing else to do.
struct Pieces(File);

impl futures_core::Stream for Pieces {
    type Item = std::io::Result<Vec<u8>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut piece = vec![0; PIECE_BYTES];
        Poll::Ready(match self.0.read(&mut piece) {
            Ok(0) => None,
            Ok(count) => {
                piece.truncate(count);
                Some(Ok(piece))
            }
            Err(error) => Some(Err(error)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_become_the_fixed_exit_codes() {
        for (status, kind, code) in [
            (400, "invalid", 2),
            (401, "unauthorized", 4),
            (403, "forbidden", 4),
            (404, "not_found", 2),
            (409, "conflict", 2),
            (413, "too_large", 3),
            (429, "quota_exceeded", 75),
            (503, "draining", 75),
            (503, "storage", 5),
            (500, "internal", 1),
        ] {
            assert_eq!(kind_of(StatusCode::from_u16(status).unwrap(), kind).exit_code(), code, "{status} {kind}");
        }
    }

    #[test]
    fn keys_are_escaped_and_tokens_stay_on_this_machine_or_encrypted() {
        assert_eq!(escaped("a b/ü?#.mp4"), "a%20b/%C3%BC%3F%23.mp4");
        let local = |text: &str| is_loopback(&reqwest::Url::parse(text).unwrap());
        assert!(local("http://127.0.0.1:8080") && local("http://[::1]:1") && local("http://localhost"));
        assert!(
            !local("http://localhost.example.org") && !local("http://10.0.0.1") && !local("http://127.0.0.1.nip.io")
        );
    }
}
