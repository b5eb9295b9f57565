//! The checked configuration.

use super::raw::{LimitsFile, NodesFile, QuotaFile, RouteFile, ServeFile, TlsFile, WebhookFile};
use crate::error::{Error, ErrorKind};
use crate::serve::ServiceError;
use crate::serve::blend::{self, Choice};
use crate::serve::ident::{RouteName, Tenant};
use crate::serve::route::{NameTemplate, Place, Quota, Route};
use crate::work_store::WorkPlace;
use globset::{Glob, GlobSet, GlobSetBuilder};
use restyle_actors::Location;
use restyle_models::device::DeviceChoice;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A configuration that was found valid.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where metrics are served, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Folder of the work store; with `work_store`, of what lies beside it.
    pub work: PathBuf,
    /// Prefix of an object store that holds the work store instead of the folder.
    pub work_store: Option<Location>,
    /// The device that scores.
    pub device: DeviceChoice,
    /// Jobs that run side by side.
    pub jobs_at_once: usize,
    /// Folder of the operator's own styles.
    pub styles: Option<PathBuf>,
    /// How long a drain may take.
    pub drain: Duration,
    /// How long jobs are listed after their end; `None`: without end.
    pub keep_jobs: Option<Duration>,
    /// Jobs that have ended and are listed, at most.
    pub keep_jobs_max: usize,
    /// Scorer nodes of all jobs together.
    pub nodes: NodeLimits,
    /// What an hour of a node costs.
    pub prices: Option<Prices>,
    /// Certificate and key of the API.
    pub tls: Option<TlsFiles>,
    /// File of hashed tokens.
    pub tokens: Option<PathBuf>,
    /// Networks that may connect, in CIDR; empty: all.
    pub allow: Vec<String>,
    /// Limits of requests.
    pub limits: HttpLimits,
    /// Collector of traces, an `http:` or `https:` address without its `/v1/traces`.
    pub otlp: Option<String>,
    /// Whom to tell what happens.
    pub webhooks: Vec<Webhook>,
    /// What is watched; at least one, names differ.
    pub routes: Vec<Route>,
}

/// Scorer nodes of all jobs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeLimits {
    /// Networks that stay built when nothing runs.
    pub min: usize,
    /// At most.
    pub max: usize,
    /// How many of them may be taken away at any moment.
    pub low_priority: usize,
    /// How long networks are kept after the last job; `None`: for as long as they are worth it.
    pub idle_after: Option<Duration>,
    /// Memory that scorers may use together, in bytes; `None`: what is free.
    pub memory: Option<u64>,
    /// How long a node that was pre-empted stays away; `None`: until it is resumed.
    pub return_after: Option<Duration>,
    /// How long a node may show no progress.
    pub hang_after: Duration,
}

/// What an hour of a node costs, in whatever currency.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prices {
    /// Of a node that stays.
    pub dedicated: f64,
    /// Of a node that may be taken away.
    pub low_priority: f64,
}

/// Files of the API's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file of the certificate chain.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// Limits of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Largest request body apart from uploads, in bytes.
    pub body: u64,
    /// Largest upload, in bytes.
    pub upload: u64,
    /// Connections at once.
    pub connections: usize,
    /// Requests a second from one address.
    pub requests_per_second: u32,
    /// How long a client may take to send its headers.
    pub header_time: Duration,
}

/// Whom to tell what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to, `http:` or `https:`.
    pub url: String,
    /// File that holds the secret it is signed with.
    pub secret_file: Option<PathBuf>,
    /// Which events: `finished`, `failed`, `state`.
    pub events: Vec<String>,
}

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// Videos by their usual endings; a route may say otherwise.
const VIDEOS: &str =
    "**/*.{mp4,m4v,mov,mkv,webm,avi,ts,m2ts,mts,mpg,mpeg,wmv,flv,ogv,3gp,MP4,M4V,MOV,MKV,WEBM,AVI,TS,MTS,MPG,MPEG}";
const POLL: Duration = Duration::from_secs(5);
const KEEP_JOBS: Duration = Duration::from_secs(30 * 86_400);
const KEEP_JOBS_MAX: usize = 10_000;
const RETURN_AFTER: Duration = Duration::from_secs(30);
const HANG_AFTER: Duration = Duration::from_secs(600);
const DRAIN: Duration = Duration::from_secs(20);
const NODES_MAX: usize = 256;
const JOBS_AT_ONCE_MAX: usize = 64;

impl ServeFile {
    /// Checks every value and fills the defaults; relative paths begin at `base`, the folder of the file.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] naming the value, what was expected, and what to do.
    pub fn check(self, base: &Path) -> Result<ServeConfig, Error> {
        let base = &std::path::absolute(base).map_err(|e| refused(format!("{}: {e}", base.display())))?;
        let device =
            DeviceChoice::parse(self.device.as_deref().unwrap_or("auto")).map_err(|e| refused(e.to_string()))?;
        let nodes = nodes(self.nodes.unwrap_or_default(), &device)?;
        let work = work(self.work.as_deref(), self.state, base)?;
        let at_once_default = nodes.max.clamp(1, 4);
        let config = ServeConfig {
            listen: self.listen.map_or(Ok(LISTEN), |text| address("listen", &text))?,
            metrics_listen: self.metrics_listen.map(|text| address("metrics_listen", &text)).transpose()?,
            work: work.folder,
            work_store: work.remote,
            jobs_at_once: within("jobs_at_once", self.jobs_at_once.unwrap_or(at_once_default), 1, JOBS_AT_ONCE_MAX)?,
            styles: self.styles.map(|folder| base.join(folder)),
            drain: self.drain.map_or(Ok(DRAIN), |text| duration("drain", &text))?,
            keep_jobs: keep_jobs(self.keep_jobs.as_deref())?,
            keep_jobs_max: within("keep_jobs_max", self.keep_jobs_max.unwrap_or(KEEP_JOBS_MAX), 0, 1_000_000)?,
            prices: self.price_per_node_hour.map(prices).transpose()?,
            tls: self.tls.map(|files| tls(files, base)).transpose()?,
            tokens: self.tokens.map(|file| base.join(file)),
            allow: self.allow.unwrap_or_default(),
            limits: limits(self.limits.unwrap_or_default())?,
            otlp: self.otlp.map(collector).transpose()?,
            webhooks: self.webhook.into_iter().map(|w| webhook(w, base)).collect::<Result<_, _>>()?,
            routes: routes(self.route, base)?,
            device,
            nodes,
        };
        config.check_exposure()?;
        Ok(config)
    }
}

impl ServeConfig {
    /// Reads and checks a file; blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`], as [`ServeFile::from_toml`] and [`ServeFile::check`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| refused(format!("cannot read the configuration file {}: {e}", path.display())))?;
        let base = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        ServeFile::from_toml(&text, &path.display().to_string())?.check(base)
    }

    /// Returns a route by its name.
    #[must_use]
    pub fn route(&self, name: &RouteName) -> Option<&Route> {
        self.routes.iter().find(|r| r.name == *name)
    }

    /// Returns where the work store is.
    #[must_use]
    pub fn work_place(&self) -> WorkPlace {
        WorkPlace { folder: self.work.clone(), remote: self.work_store.clone() }
    }

    /// Returns the local folder of what the service keeps beside the work store: its lock, events of jobs, previews.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        match &self.work_store {
            None => self.work.clone(),
            Some(remote) => {
                let name = blake3::hash(remote.to_string().as_bytes()).to_hex();
                self.work.join(format!("service-{}", &name.as_str()[..16]))
            }
        }
    }

    /// What can be reached from other machines is encrypted and asks who calls.
    fn check_exposure(&self) -> Result<(), Error> {
        if !self.listen.ip().is_loopback() && (self.tls.is_none() || self.tokens.is_none()) {
            let message = format!(
                "listen = \"{}\" can be reached by other machines: set tls = {{ certificate, key }} and tokens, or listen on 127.0.0.1",
                self.listen
            );
            return Err(refused(message));
        }
        Ok(())
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

/// Reads where the work store is; relative folders begin at `base`.
fn work(said: Option<&str>, state: Option<PathBuf>, base: &Path) -> Result<WorkPlace, Error> {
    let place = WorkPlace::parse(said.map(Path::new)).map_err(|e| refused(format!("work: {e}")))?;
    match (place.remote, state) {
        (None, Some(_)) => Err(refused("state is the folder beside a work store in an object store: work is none")),
        (None, None) => Ok(base.join(place.folder).into()),
        (remote, state) => Ok(WorkPlace { folder: state.map_or(place.folder, |s| base.join(s)), remote }),
    }
}

fn address(name: &str, text: &str) -> Result<SocketAddr, Error> {
    text.parse()
        .map_err(|_| refused(format!("{name} is \"{text}\", expected an address and a port such as 127.0.0.1:8080")))
}

fn duration(name: &str, text: &str) -> Result<Duration, Error> {
    humantime::parse_duration(text)
        .map_err(|e| refused(format!("{name} is \"{text}\", expected a duration such as 5s or 10min: {e}")))
}

/// Reads how long jobs are kept; `0s` is without end.
fn keep_jobs(said: Option<&str>) -> Result<Option<Duration>, Error> {
    let keep = said.map_or(Ok(KEEP_JOBS), |text| duration("keep_jobs", text))?;
    Ok(Some(keep).filter(|keep| !keep.is_zero()))
}

fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: T, low: T, high: T) -> Result<T, Error> {
    if value < low || value > high {
        return Err(refused(format!("{name} is {value}, expected {low} to {high}")));
    }
    Ok(value)
}

/// Reads a size: digits and a unit of B, KB, KiB, MB, MiB, GB, GiB, TB, TiB.
fn bytes(name: &str, text: &str) -> Result<u64, Error> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "B" => 1,
        "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "TiB" => 1 << 40,
        _ => 0,
    };
    let read = number.parse::<u64>().ok().filter(|_| factor > 0).and_then(|n| n.checked_mul(factor));
    read.ok_or_else(|| refused(format!("{name} is \"{text}\", expected a size such as 64KiB or 2GB")))
}

fn nodes(file: NodesFile, device: &DeviceChoice) -> Result<NodeLimits, Error> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let default = device.nodes(cores);
    let max = within("nodes.max", file.max.unwrap_or(default), 1, NODES_MAX)?;
    let return_after = file.return_after.map_or(Ok(RETURN_AFTER), |t| duration("nodes.return_after", &t))?;
    let hang_after = file.hang_after.map_or(Ok(HANG_AFTER), |t| duration("nodes.hang_after", &t))?;
    Ok(NodeLimits {
        min: within("nodes.min", file.min.unwrap_or(0), 0, max)?,
        max,
        low_priority: within("nodes.low_priority", file.low_priority.unwrap_or(0), 0, max)?,
        idle_after: file.idle_after.map(|t| duration("nodes.idle_after", &t)).transpose()?,
        memory: file.memory.map(|t| bytes("nodes.memory", &t)).transpose()?,
        return_after: (!return_after.is_zero()).then_some(return_after),
        hang_after: within_time("nodes.hang_after", hang_after, Duration::from_secs(1), Duration::from_secs(86_400))?,
    })
}

fn within_time(name: &str, value: Duration, low: Duration, high: Duration) -> Result<Duration, Error> {
    if value < low || value > high {
        return Err(refused(format!("{name} is {value:?}, expected {low:?} to {high:?}")));
    }
    Ok(value)
}

fn prices(file: super::raw::PricesFile) -> Result<Prices, Error> {
    let dedicated = within("price_per_node_hour.dedicated", file.dedicated.unwrap_or(0.0), 0.0, 1e6)?;
    let low_priority = file.low_priority.unwrap_or(dedicated);
    Ok(Prices { dedicated, low_priority: within("price_per_node_hour.low_priority", low_priority, 0.0, 1e6)? })
}

fn tls(files: TlsFile, base: &Path) -> Result<TlsFiles, Error> {
    let (Some(certificate), Some(key)) = (files.certificate, files.key) else {
        return Err(refused("tls needs both: certificate and key, each a PEM file"));
    };
    Ok(TlsFiles { certificate: base.join(certificate), key: base.join(key) })
}

fn limits(file: LimitsFile) -> Result<HttpLimits, Error> {
    let header_time = file.header_time.map_or(Ok(Duration::from_secs(10)), |t| duration("limits.header_time", &t))?;
    Ok(HttpLimits {
        body: file.body.map_or(Ok(64 << 10), |t| bytes("limits.body", &t))?,
        upload: file.upload.map_or(Ok(64 << 30), |t| bytes("limits.upload", &t))?,
        connections: within("limits.connections", file.connections.unwrap_or(1024), 1, 65_536)?,
        requests_per_second: within("limits.requests_per_second", file.requests_per_second.unwrap_or(100), 1, 100_000)?,
        header_time,
    })
}

fn collector(url: String) -> Result<String, Error> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match rest {
        None => Err(refused("otlp is not http: or https:")),
        Some(rest) if rest.contains(['@', '?', '#']) => {
            Err(refused("otlp holds more than a host, a port and a path: credentials do not belong into this file"))
        }
        Some(_) => Ok(url),
    }
}

fn webhook(file: WebhookFile, base: &Path) -> Result<Webhook, Error> {
    let url = file.url.ok_or_else(|| refused("webhook lacks url"))?;
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err(refused("webhook.url is not http: or https:"));
    }
    let events = file.events.unwrap_or_else(|| vec!["finished".into(), "failed".into()]);
    if let Some(unknown) = events.iter().find(|e| !["finished", "failed", "state"].contains(&e.as_str())) {
        return Err(refused(format!("webhook.events names \"{unknown}\", expected finished, failed or state")));
    }
    Ok(Webhook { url, secret_file: file.secret_file.map(|f| base.join(f)), events })
}

fn routes(files: Vec<RouteFile>, base: &Path) -> Result<Vec<Route>, Error> {
    if files.is_empty() {
        return Err(refused("no [[route]]: name at least input, output, logs and style of one"));
    }
    let mut names = BTreeSet::new();
    let mut routes = Vec::with_capacity(files.len());
    for (k, file) in files.into_iter().enumerate() {
        let name = file.name.clone().unwrap_or_else(|| format!("route-{}", k + 1));
        let route = route(file, &name, base).map_err(|e| refused(format!("route {name}: {e}")))?;
        if !names.insert(route.name.clone()) {
            return Err(refused(format!("two routes are called {name}: give each a name of its own")));
        }
        routes.push(route);
    }
    refuse_circles(&routes)?;
    Ok(routes)
}

fn route(file: RouteFile, name: &str, base: &Path) -> Result<Route, Error> {
    let invalid = |e: ServiceError| refused(e.to_string());
    let said = |name: &str, text: Option<String>| text.ok_or_else(|| refused(format!("{name} is missing")));
    let place = |name: &str, text: Option<String>| Place::parse(&said(name, text)?, base).map_err(invalid);
    let (choice, style_parts) = styles(&said("style", file.style)?, base).map_err(invalid)?;
    let options = file.options.unwrap_or_default();
    options.check().map_err(invalid)?;
    let nodes = file.nodes.unwrap_or_default();
    let template = file.name_template.as_deref().unwrap_or("{stem}.{style}.{extension}");
    let poll = file.poll.map_or(Ok(POLL), |t| duration("poll", &t))?;
    Ok(Route {
        name: RouteName::parse(name).map_err(invalid)?,
        tenant: file.tenant.map_or(Ok(Tenant::default()), |t| Tenant::parse(&t)).map_err(invalid)?,
        input: place("input", file.input)?,
        output: place("output", file.output)?,
        logs: place("logs", file.logs)?,
        style: choice.name,
        style_location: choice.location,
        blended: choice.blended,
        style_parts,
        include: globs("include", &file.include.unwrap_or_else(|| vec![VIDEOS.to_owned()]))?,
        exclude: globs("exclude", &file.exclude.unwrap_or_default())?,
        name_template: NameTemplate::parse(template).map_err(invalid)?,
        poll: within_time("poll", poll, Duration::from_millis(100), Duration::from_secs(86_400))?,
        priority: within("priority", file.priority.unwrap_or(0), -1000, 1000)?,
        options,
        quota: quota(file.quota.unwrap_or_default())?,
        nodes_min: within("nodes.min", nodes.min.unwrap_or(1), 1, NODES_MAX)?,
        nodes_max: nodes.max.map(|n| within("nodes.max", n, 1, NODES_MAX)).transpose()?,
    })
}

/// One style or a blend of several, and each by itself with its location.
fn styles(said: &str, base: &Path) -> Result<(Choice, Vec<(String, String)>), ServiceError> {
    let Some(parts) = blend::parts(said) else {
        let (name, location) = style(said, base);
        return Ok((Choice::alone(&name, &location), vec![(name, location)]));
    };
    let choice = Choice::blend(&parts, |said| Ok(style(said, base)))?;
    Ok((choice, parts.iter().map(|(said, _)| style(said, base)).collect()))
}

/// A style is built in, or a file whose stem people call it by.
fn style(said: &str, base: &Path) -> (String, String) {
    let path = Path::new(said);
    let stem = path.file_stem().map_or_else(|| said.to_owned(), |s| s.to_string_lossy().into_owned());
    if restyle_models::shipped::find(said).is_some() || path.extension().is_none() {
        return (said.to_owned(), said.to_owned());
    }
    let is_url = said.split_once("://").is_some();
    (stem, if is_url { said.to_owned() } else { base.join(path).to_string_lossy().into_owned() })
}

fn globs(name: &str, patterns: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|e| refused(format!("{name}: {e}")))?);
    }
    set.build().map_err(|e| refused(format!("{name}: {e}")))
}

fn quota(file: QuotaFile) -> Result<Quota, Error> {
    let bytes_queued = file.bytes_queued.map(|t| bytes("quota.bytes_queued", &t)).transpose()?;
    Ok(Quota { jobs_queued: file.jobs_queued, bytes_queued, frames_queued: file.frames_queued })
}

/// What one route puts out, another may take in; in a circle the same video would be styled for ever.
fn refuse_circles(routes: &[Route]) -> Result<(), Error> {
    let feeds = |a: &Route, b: &Route| b.input.contains(&a.output) || a.output.contains(&b.input);
    for (start, first) in routes.iter().enumerate() {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![start]);
        while let Some(at) = todo.pop() {
            for (next, _) in routes.iter().enumerate().filter(|(n, r)| *n != at && feeds(&routes[at], r)) {
                if next == start {
                    let message = format!(
                        "routes {} and {} take in each other's outputs: use separate locations",
                        first.name, routes[at].name
                    );
                    return Err(refused(message));
                }
                if seen.insert(next) {
                    todo.push(next);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
