//! Finds what was uploaded: one thread a route lists the input location, takes what is complete, and takes it once.
//!
//! A listing is the only truth. Changes that the kernel or a storage event tells of only make the next listing come sooner. An
//! object is complete when two listings some time apart show the same version of it. Which version of which object was taken is in
//! the id of its job, and the journal gives an id once.

mod found;
mod wake;

use super::admit::Origin;
use super::error::ServiceErrorKind;
use super::ident::{ClientJobId, ObjectKey};
use super::job::{JobRequest, OptionsRequest};
use super::route::{Route, SIDECAR_SUFFIX};
use super::service::{Inner, lock};
use super::time;
use super::view::ErrorView;
use found::Found;
pub(super) use found::local_version;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
pub(super) use wake::Waker;

/// How long an object must stay as it is before it counts as complete; stores show objects whole, files grow.
const SETTLE: Duration = Duration::from_secs(1);
/// What a sidecar file may set, for messages.
const SIDECAR_KEYS: &str = "size, strength, preserve_color, codec, crf, preset and conceal";
/// Largest sidecar file that is read.
const SIDECAR_BYTES_MAX: u64 = 16 << 10;

/// What the last look at a route came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub(super) at: String,
    pub(super) error: Option<String>,
}

/// Watches every route of the configuration in force, and none of an earlier one.
pub(super) fn start(inner: &Arc<Inner>) {
    let generation = inner.watching.fetch_add(1, Ordering::SeqCst) + 1;
    let config = inner.config();
    let mut wakers = lock(&inner.wakers);
    for old in wakers.values() {
        old.wake();
    }
    wakers.clear();
    for route in &config.routes {
        let waker = Arc::new(Waker::new(route.input.folder().is_some()));
        wakers.insert(route.name.clone(), Arc::clone(&waker));
        let watch = Watch {
            inner: Arc::clone(inner),
            route: route.clone(),
            generation,
            waker,
            first_seen: BTreeMap::new(),
            settled: BTreeSet::new(),
        };
        let spawned = std::thread::Builder::new().name("restyle-watch".into()).spawn(move || watch.run());
        if let Err(error) = spawned {
            tracing::error!(route = %route.name, %error, "a route is not watched: no thread");
        }
    }
}

/// One route under watch.
struct Watch {
    inner: Arc<Inner>,
    route: Route,
    generation: u64,
    waker: Arc<Waker>,
    /// Versions seen and not taken yet, and when first, on the clock.
    first_seen: BTreeMap<(String, String), Duration>,
    /// Versions that need no second look: taken, or not to be taken.
    settled: BTreeSet<(String, String)>,
}

impl Watch {
    fn run(mut self) {
        while self.is_wanted() {
            let pending = match found::list(&self.route.input, &self.waker) {
                Ok(all) => {
                    self.told(None);
                    self.look(&all)
                }
                Err(error) => {
                    self.told(Some(error.to_string()));
                    false
                }
            };
            self.waker.wait(if pending { SETTLE.min(self.route.poll) } else { self.route.poll });
        }
    }

    fn is_wanted(&self) -> bool {
        !self.inner.ended.load(Ordering::SeqCst) && self.inner.watching.load(Ordering::SeqCst) == self.generation
    }

    fn told(&self, error: Option<String>) {
        let mut looks = lock(&self.inner.looks);
        let before = looks.get(&self.route.name).and_then(|l| l.error.clone());
        if let Some(error) = error.as_ref().filter(|e| Some(*e) != before.as_ref()) {
            tracing::warn!(route = %self.route.name, %error, "a route cannot be listed");
        }
        looks.insert(self.route.name.clone(), Look { at: time::now(&*self.inner.clock), error });
    }

    /// Takes what is complete; tells whether something may be soon.
    fn look(&mut self, all: &BTreeMap<String, Found>) -> bool {
        let now = self.inner.clock.now();
        let ours = self.own_outputs(all);
        let mut seen = BTreeMap::new();
        let mut pending = false;
        for (key, found) in all.iter().filter(|(key, _)| self.route.takes(key) && !ours.contains(*key)) {
            let sidecar = all.get(&format!("{key}{SIDECAR_SUFFIX}"));
            let version = version(found, sidecar);
            let this = (key.clone(), version.clone());
            if self.settled.contains(&this) {
                continue;
            }
            let since = self.first_seen.get(&this).copied();
            let settle = SETTLE.min(self.route.poll);
            if since.is_some_and(|since| now - since >= settle) && self.take(key, found, sidecar) {
                self.settled.insert(this);
                continue;
            }
            pending = true;
            seen.insert(this, since.unwrap_or(now));
        }
        self.first_seen = seen;
        self.inner.drop_marks(&self.route.name, |key| all.contains_key(key));
        // What is gone need not be remembered: its job is on record.
        self.settled.retain(|(key, _)| all.contains_key(key));
        pending
    }

    /// Keys that are, or would be, outputs of what lies here.
    fn own_outputs(&self, all: &BTreeMap<String, Found>) -> BTreeSet<String> {
        let mut ours = BTreeSet::new();
        if !self.route.input.contains(&self.route.output) {
            return ours;
        }
        let inside = self.route.input.key_of(self.route.output.as_str()).map(|folder| format!("{folder}/"));
        for key in all.keys() {
            if inside.as_ref().is_some_and(|folder| key.starts_with(folder.as_str())) {
                ours.insert(key.clone());
            } else if let Ok(output) = ObjectKey::parse(key).and_then(|k| self.route.output_key(&k, &self.route.style))
            {
                let location = self.route.output.object(output.as_str());
                ours.extend(self.route.input.key_of(&location).map(str::to_owned));
            }
        }
        ours
    }

    /// Makes a job of an object; false where it is to be tried again.
    fn take(&self, key: &str, found: &Found, sidecar: Option<&Found>) -> bool {
        let Ok(key) = ObjectKey::parse(key) else { return true };
        let Ok(id) = self.id(&key, &version(found, sidecar)) else { return true };
        let is_marked = lock(&self.inner.marks).contains_key(&(self.route.tenant.clone(), id.clone()));
        if is_marked || self.is_known(&key, found) {
            return true;
        }
        let (options, refused) = match sidecar.map(|_| self.read_sidecar(&key)) {
            None => (OptionsRequest::default(), None),
            Some(Ok(options)) => (options, None),
            Some(Err(message)) => {
                let error = ErrorView { kind: "configuration".to_owned(), message, frames: Vec::new() };
                (OptionsRequest::default(), Some(error))
            }
        };
        let request = JobRequest {
            route: Some(self.route.name.clone()),
            input: key.clone(),
            style: None,
            output: None,
            priority: None,
            options,
        };
        match self.inner.create(&self.route.tenant, &id, request, Origin::Watch { refused }) {
            Ok(_) => true,
            // The configuration may have changed since: what is on record counts.
            Err(error) if error.kind() == ServiceErrorKind::Conflict => true,
            Err(error) => {
                let wait = matches!(error.kind(), ServiceErrorKind::QuotaExceeded { .. } | ServiceErrorKind::Draining);
                if !wait {
                    self.told(Some(format!("{key}: {error}")));
                }
                false
            }
        }
    }

    /// Whether it is an output of some job of this service, or a client asked for it itself.
    fn is_known(&self, key: &ObjectKey, found: &Found) -> bool {
        let location = self.route.input.object(key.as_str());
        self.inner.entries().iter().any(|entry| {
            let state = entry.lock();
            let accepted = &state.record.accepted;
            let is_output = accepted.output_location == location && accepted.route == self.route.name;
            let is_asked_for = accepted.version == found.version
                && accepted.route == self.route.name
                && accepted.input == *key
                && !accepted.is_watched;
            is_output || is_asked_for
        }) || lock(&self.inner.marks).values().any(|mark| mark.output_location == location)
    }

    fn read_sidecar(&self, key: &ObjectKey) -> Result<OptionsRequest, String> {
        let name = format!("{key}{SIDECAR_SUFFIX}");
        let bytes = super::storage::get(&self.route.input, &name, SIDECAR_BYTES_MAX).map_err(|e| e.to_string())?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not text"))?;
        let options: OptionsRequest = toml::from_str(&text).map_err(|e| {
            let why = e.message().lines().next().unwrap_or_default().to_owned();
            format!("{name}: {why}; a sidecar file sets {SIDECAR_KEYS} only")
        })?;
        options.check().map_err(|e| format!("{name}: {e}"))?;
        Ok(options)
    }

    /// Names the job of one version of one object: the same at every look and after every restart.
    fn id(&self, key: &ObjectKey, version: &str) -> Result<ClientJobId, super::ServiceError> {
        let hash = blake3::hash(format!("{}\n{key}\n{version}", self.route.name).as_bytes());
        let stem = key.file_name().rsplit_once('.').map_or(key.file_name(), |(stem, _)| stem);
        let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
        let stem: String = stem.chars().take(60).map(legal).collect();
        ClientJobId::parse(&format!("{stem}-{}", &hash.to_hex().as_str()[..16]))
    }
}

fn version(found: &Found, sidecar: Option<&Found>) -> String {
    match sidecar {
        Some(sidecar) => format!("{}+{}", found.version, sidecar.version),
        None => found.version.clone(),
    }
}
