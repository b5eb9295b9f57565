//! What `serve.toml` says, unchecked; unknown keys are refused.

use super::secrets;
use crate::error::{Error, ErrorKind};
use crate::serve::job::OptionsRequest;
use serde::Deserialize;
use std::path::PathBuf;

/// The whole file; `None` means not said. Durations are text with a unit (`5s`, `10min`), sizes too (`64KiB`, `2GB`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeFile {
    /// Where the API listens.
    pub listen: Option<String>,
    /// Where metrics are served.
    pub metrics_listen: Option<String>,
    /// Work store: a folder or a storage URL.
    pub work: Option<String>,
    /// Local folder beside a work store in an object store.
    pub state: Option<PathBuf>,
    /// The device that scores: `auto`, `cpu` or `cuda:N`.
    pub device: Option<String>,
    /// Jobs that run side by side.
    pub jobs_at_once: Option<usize>,
    /// Folder of the operator's own styles, `.safetensors` files.
    pub styles: Option<PathBuf>,
    /// How long a drain may take.
    pub drain: Option<String>,
    /// How long jobs are listed after their end.
    pub keep_jobs: Option<String>,
    /// Jobs that have ended and are listed, at most.
    pub keep_jobs_max: Option<usize>,
    /// Scorer nodes of all jobs together.
    pub nodes: Option<NodesFile>,
    /// What an hour of a node costs.
    pub price_per_node_hour: Option<PricesFile>,
    /// Certificate and key of the API.
    pub tls: Option<TlsFile>,
    /// File of hashed tokens.
    pub tokens: Option<PathBuf>,
    /// Networks that may connect, in CIDR.
    pub allow: Option<Vec<String>>,
    /// Limits of requests.
    pub limits: Option<LimitsFile>,
    /// Collector of traces, as `http://127.0.0.1:4318`; none are made without it.
    pub otlp: Option<String>,
    /// Whom to tell what happens.
    #[serde(default)]
    pub webhook: Vec<WebhookFile>,
    /// What is watched.
    #[serde(default)]
    pub route: Vec<RouteFile>,
}

/// One `[[route]]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// Its name; `route-1`, `route-2`, … by default.
    pub name: Option<String>,
    /// Whose it is.
    pub tenant: Option<String>,
    /// Where videos are looked for.
    pub input: Option<String>,
    /// Where results go.
    pub output: Option<String>,
    /// Where logs and reports go.
    pub logs: Option<String>,
    /// Built-in name, `.safetensors` file or storage URL; or several of these with their shares, as `a:0.7,b:0.3`.
    pub style: Option<String>,
    /// Globs of keys that are taken.
    pub include: Option<Vec<String>>,
    /// Globs of keys that are not.
    pub exclude: Option<Vec<String>>,
    /// How outputs are named.
    pub name_template: Option<String>,
    /// How often the input location is listed.
    pub poll: Option<String>,
    /// Higher goes first among a tenant's jobs.
    pub priority: Option<i32>,
    /// What results are like.
    pub options: Option<OptionsRequest>,
    /// How much may wait.
    pub quota: Option<QuotaFile>,
    /// Scorer nodes of its jobs.
    pub nodes: Option<RouteNodesFile>,
}

/// `nodes = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodesFile {
    /// Kept ready even when idle.
    pub min: Option<usize>,
    /// At most.
    pub max: Option<usize>,
    /// How many of them may be taken away at any moment.
    pub low_priority: Option<usize>,
    /// How long networks are kept after the last job.
    pub idle_after: Option<String>,
    /// Memory that scorers may use together.
    pub memory: Option<String>,
    /// How long a node that was pre-empted stays away; `0s`: until it is resumed.
    pub return_after: Option<String>,
    /// How long a node may show no progress.
    pub hang_after: Option<String>,
}

/// `[route.nodes]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteNodesFile {
    /// At least, while capacity lasts.
    pub min: Option<usize>,
    /// At most.
    pub max: Option<usize>,
}

/// `[route.quota]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaFile {
    /// Jobs that wait or run.
    pub jobs_queued: Option<u64>,
    /// Size of their inputs.
    pub bytes_queued: Option<String>,
    /// Frames of their inputs.
    pub frames_queued: Option<u64>,
}

/// `price_per_node_hour = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PricesFile {
    /// Of a node that stays.
    pub dedicated: Option<f64>,
    /// Of a node that may be taken away.
    pub low_priority: Option<f64>,
}

/// `tls = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// PEM file of the certificate chain.
    pub certificate: Option<PathBuf>,
    /// PEM file of the private key.
    pub key: Option<PathBuf>,
}

/// `limits = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsFile {
    /// Largest request body apart from uploads.
    pub body: Option<String>,
    /// Largest upload.
    pub upload: Option<String>,
    /// Connections at once.
    pub connections: Option<usize>,
    /// Requests a second from one address.
    pub requests_per_second: Option<u32>,
    /// How long a client may take to send its headers.
    pub header_time: Option<String>,
}

/// One `[[webhook]]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookFile {
    /// Where to.
    pub url: Option<String>,
    /// File that holds the secret it is signed with.
    pub secret_file: Option<PathBuf>,
    /// Which events; all ends of jobs by default.
    pub events: Option<Vec<String>>,
}

impl ServeFile {
    /// Reads a TOML file's text; `origin` names it in errors.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] with the line when the text is not TOML, names a key that does not exist, or holds what looks
    /// like a secret; the secret is never part of the message.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, Error> {
        let refused = |message: String| Error::new(ErrorKind::Configuration, message);
        let line = |e: &toml::de::Error| {
            let before = e.span().and_then(|span| text.get(..span.start));
            before.map_or_else(String::new, |b| format!(":{}", b.lines().count().max(1)))
        };
        let short =
            |e: &toml::de::Error| format!("{origin}{}: {}", line(e), e.message().lines().next().unwrap_or_default());
        // First of all, so that no other message can quote one.
        let table: toml::Table = toml::from_str(text).map_err(|e| refused(short(&e)))?;
        secrets::refuse(&table).map_err(|why| refused(format!("{origin}: {why}")))?;
        toml::from_str(text).map_err(|e| refused(short(&e)))
    }
}
