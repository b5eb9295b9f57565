//! The handle that the command, the HTTP interface and embedders use.

use super::admit::{self, Origin};
use super::bell::Bell;
use super::changes::Changes;
use super::config::ServeConfig;
use super::entry::{Entry, Key, Wish};
use super::error::{ServiceError, ServiceErrorKind};
use super::events::{EventLog, EventStream};
use super::ident::{ClientJobId, RouteName, Scope, Tenant};
use super::job::{Accepted, Happening, JobRequest, JobState, Record, Transition};
use super::journal::{Acceptance, Journal, Mark};
use super::pulse::Pulse;
use super::queue::Turns;
use super::styles;
use super::tally::Tally;
use super::time;
use super::traces::Tracer;
use super::view::{Health, JobFilter, JobPage, JobView, NodeSeconds, StyleView};
use super::watch::{self, Look, Waker};
use crate::scorers::Shelf;
use restyle_engine::clock::{Clock, SystemClock};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// Whether creating a job made one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It did.
    New,
    /// The same request was accepted before under this id.
    Existing,
}

/// A running service; clones are the same one, and it ends when the last is dropped.
///
/// Calls read and write the work store and wait for its disk; none waits for a job.
#[derive(Clone)]
pub struct Service {
    pub(super) inner: Arc<Inner>,
    _end: Arc<EndOnDrop>,
}

/// What the service's threads share.
pub(super) struct Inner {
    pub(super) clock: Arc<dyn Clock>,
    config: RwLock<Arc<ServeConfig>>,
    pub(super) journal: Journal,
    jobs: RwLock<Jobs>,
    /// Held while a job is accepted, so that quotas are kept.
    admission: Mutex<()>,
    pub(super) turns: Mutex<Turns>,
    pub(super) bell: Bell,
    pub(super) draining: AtomicBool,
    /// Set when nothing more is to be begun or watched, for good.
    pub(super) ended: AtomicBool,
    pub(super) idle_since: Mutex<Option<Duration>>,
    /// Counts the configurations that were watched.
    pub(super) watching: AtomicU64,
    pub(super) wakers: Mutex<BTreeMap<RouteName, Arc<Waker>>>,
    pub(super) looks: Mutex<BTreeMap<RouteName, Look>>,
    /// Held while a preview is made.
    pub(super) previewing: Mutex<()>,
    /// How long jobs took of late, for estimates.
    pub(super) usual: Mutex<Duration>,
    pub(super) changes: Changes,
    pub(super) tally: Tally,
    pub(super) pulse: Pulse,
    /// Networks that the last jobs left for the next ones.
    pub(super) shelf: Arc<Shelf>,
    /// Whether what is kept was given back in this idle time.
    pub(super) rested: AtomicBool,
    /// Whether jobs have fewer scorers than they may because memory is short.
    pub(super) is_short: AtomicBool,
    pub(super) resident_at_start: u64,
    /// What is left of jobs that were forgotten.
    pub(super) marks: Mutex<BTreeMap<Key, Mark>>,
    /// Wakes the thread that forgets jobs.
    pub(super) forgetting: Bell,
    /// Where spans go, if anywhere.
    pub(super) tracer: Option<Tracer>,
}

/// Every job, by key and by age.
#[derive(Default)]
pub(super) struct Jobs {
    pub(super) by_key: BTreeMap<Key, Arc<Entry>>,
    pub(super) by_age: BTreeSet<(String, Key)>,
}

struct EndOnDrop(Arc<Inner>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Service {
    /// Reads the list of jobs and begins to work on it.
    ///
    /// # Errors
    /// `Storage` when the work store cannot be read, `Conflict` while another daemon works on it.
    pub fn start(config: ServeConfig) -> Result<Self, ServiceError> {
        Self::start_with(config, SystemClock::shared())
    }

    fn start_with(config: ServeConfig, clock: Arc<dyn Clock>) -> Result<Self, ServiceError> {
        let journal = Journal::open(&config.work_place(), &config.home())?;
        let shelf = Arc::new(Shelf::new(Arc::clone(&clock), config.nodes.max));
        let tracer = config.otlp.as_deref().map(|at| Tracer::start(at, Arc::clone(&clock))).transpose()?;
        let inner = Arc::new(Inner {
            clock,
            journal,
            config: RwLock::new(Arc::new(config)),
            jobs: RwLock::default(),
            admission: Mutex::default(),
            turns: Mutex::default(),
            bell: Bell::default(),
            draining: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            idle_since: Mutex::new(None),
            watching: AtomicU64::new(0),
            wakers: Mutex::default(),
            looks: Mutex::default(),
            previewing: Mutex::default(),
            usual: Mutex::new(Duration::from_secs(30)),
            changes: Changes::default(),
            tally: Tally::default(),
            pulse: Pulse::default(),
            shelf,
            rested: AtomicBool::new(false),
            is_short: AtomicBool::new(false),
            resident_at_start: super::memory::resident(),
            marks: Mutex::default(),
            forgetting: Bell::default(),
            tracer,
        });
        for record in inner.journal.load()? {
            inner.add(record);
        }
        *lock(&inner.marks) = inner.journal.marks()?;
        inner.take_up_interrupted();
        super::storage::make_folders(&inner.config())?;
        super::runner::start(&inner)?;
        super::keep::start(&inner)?;
        watch::start(&inner);
        Ok(Self { _end: Arc::new(EndOnDrop(Arc::clone(&inner))), inner })
    }

    /// Accepts a job: it is on record when this returns. The same request under the same id is accepted once.
    ///
    /// # Errors
    /// `Conflict` when the id names another request, `NotFound` for a route or input that is not there, `Invalid` for what makes no
    /// sense, `QuotaExceeded` when too much waits, `Draining` while the service ends, `Storage` when nothing can be put on record.
    pub fn create(
        &self,
        tenant: &Tenant,
        id: &ClientJobId,
        request: JobRequest,
    ) -> Result<(JobView, Created), ServiceError> {
        self.inner.create(tenant, id, request, Origin::Client)
    }

    /// Returns a job.
    ///
    /// # Errors
    /// `NotFound` where there is none that `scope` sees.
    pub fn job(&self, scope: &Scope, id: &ClientJobId) -> Result<JobView, ServiceError> {
        Ok(self.inner.find(scope, id)?.view(self.inner.config().prices))
    }

    /// Returns a page of jobs, newest first.
    #[must_use]
    pub fn list(&self, scope: &Scope, filter: &JobFilter) -> JobPage {
        self.inner.list(scope, filter)
    }

    /// Has a job end; one that runs keeps what is finished, so that it may be retried.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` for one that has ended.
    pub fn cancel(&self, scope: &Scope, id: &ClientJobId) -> Result<JobView, ServiceError> {
        let used = NodeSeconds::default();
        self.steer(scope, id, Wish::Cancel, Transition::Cancelled { used })
    }

    /// Has a job wait until it is resumed; what is finished is kept.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` for one that neither waits nor runs.
    pub fn pause(&self, scope: &Scope, id: &ClientJobId) -> Result<JobView, ServiceError> {
        let used = NodeSeconds::default();
        self.steer(scope, id, Wish::Pause, Transition::Paused { used })
    }

    /// Has a paused job go on.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` for one that is not paused.
    pub fn resume(&self, scope: &Scope, id: &ClientJobId) -> Result<JobView, ServiceError> {
        let entry = self.inner.find(scope, id)?;
        self.inner.happen(&entry, Transition::Resumed)?;
        Ok(entry.view(self.inner.config().prices))
    }

    /// Has a job that failed or was cancelled try again; what is finished is not done again.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` for one that did neither.
    pub fn retry(&self, scope: &Scope, id: &ClientJobId) -> Result<JobView, ServiceError> {
        let entry = self.inner.find(scope, id)?;
        if entry.lock().record.accepted.refused.is_some() {
            return Err(ServiceError::conflict(
                "its options file was refused: correct the file, it is then another job",
            ));
        }
        entry.lock().live.repeats = 0;
        self.inner.happen(&entry, Transition::Retried)?;
        Ok(entry.view(self.inner.config().prices))
    }

    /// Returns a job's events after number `after`, those to come included.
    ///
    /// # Errors
    /// `NotFound`, or `Storage` when the past cannot be read.
    pub fn events(&self, scope: &Scope, id: &ClientJobId, after: u64) -> Result<EventStream, ServiceError> {
        self.inner.find(scope, id)?.events.subscribe(after)
    }

    /// Returns a job's log, one JSON object a line.
    ///
    /// # Errors
    /// `NotFound`, or `Storage` when it cannot be read.
    pub fn log(&self, scope: &Scope, id: &ClientJobId) -> Result<Vec<u8>, ServiceError> {
        self.inner.find(scope, id)?.events.read()
    }

    /// Returns the styles that jobs may ask for.
    #[must_use]
    pub fn styles(&self) -> Vec<StyleView> {
        styles::list(&self.inner.config())
    }

    /// Returns the contact sheet of a style as JPEG. Blocks on the disk.
    ///
    /// # Errors
    /// `NotFound` for a style that is not there or has none, `Storage` for one that cannot be read.
    pub fn sheet(&self, style: &str) -> Result<Vec<u8>, ServiceError> {
        styles::sheet(&self.inner.config(), style)
    }

    /// Returns the configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<ServeConfig> {
        self.inner.config()
    }

    /// Puts another configuration in force: for routes, limits and prices at once, for running jobs never. The work folder and the
    /// addresses stay as they were.
    pub fn reload(&self, config: ServeConfig) {
        let mut standing = self.inner.config.write().unwrap_or_else(PoisonError::into_inner);
        let (work, work_store) = (standing.work.clone(), standing.work_store.clone());
        *standing = Arc::new(ServeConfig { work, work_store, ..config });
        drop(standing);
        if let Err(error) = super::storage::make_folders(&self.inner.config()) {
            // Its route says so at every look; the others go on.
            tracing::error!(%error, "a route of the new configuration has no folder");
        }
        watch::start(&self.inner);
        self.inner.bell.ring();
    }

    /// Has a route be looked at now: something told that an object arrived. What lies there is decided by listing alone.
    ///
    /// # Errors
    /// `NotFound` for a route that is not there.
    pub fn hint(&self, route: &RouteName, key: &str) -> Result<(), ServiceError> {
        tracing::debug!(%route, key, "hint");
        let wakers = lock(&self.inner.wakers);
        let waker = wakers.get(route).ok_or_else(|| ServiceError::not_found(format!("there is no route {route}")))?;
        waker.wake();
        Ok(())
    }

    /// Tells whether the service lives and takes jobs.
    #[must_use]
    pub fn health(&self) -> Health {
        super::pulse::health(&self.inner)
    }

    /// Takes nothing more, has running jobs keep what they can, and waits for them, at most for `limit`; true when all have stopped.
    /// What had not ended goes on when the service starts again.
    pub fn drain_and_stop(&self, limit: Duration) -> bool {
        self.inner.drain(limit)
    }

    fn steer(&self, scope: &Scope, id: &ClientJobId, wish: Wish, what: Transition) -> Result<JobView, ServiceError> {
        let entry = self.inner.find(scope, id)?;
        if entry.state() == JobState::Running {
            self.inner.tell(&entry, wish);
        } else {
            self.inner.happen(&entry, what)?;
        }
        Ok(entry.view(self.inner.config().prices))
    }
}

impl Inner {
    pub(super) fn config(&self) -> Arc<ServeConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Accepts a job.
    pub(super) fn create(
        &self,
        tenant: &Tenant,
        id: &ClientJobId,
        request: JobRequest,
        origin: Origin,
    ) -> Result<(JobView, Created), ServiceError> {
        let config = self.config();
        let same = |standing: &Accepted| standing.request == request;
        if let Some(entry) = self.jobs().by_key.get(&(tenant.clone(), id.clone())) {
            // A statement of its own: the view takes the same lock.
            let is_same = same(&entry.lock().record.accepted);
            return admit::existing(is_same, id, || entry.view(config.prices));
        }
        if self.draining.load(Ordering::SeqCst) {
            return Err(ServiceError::new(
                ServiceErrorKind::Draining,
                "the service is ending: try again when it is back",
            ));
        }
        let route = admit::route(&config, tenant, &request)?;
        let accepted = admit::accept(&config, route, id, request.clone(), time::now(&*self.clock), origin)?;
        let _one = lock(&self.admission);
        admit::within_quota(route, self.load(&route.name), accepted.bytes, accepted.frames)?;
        match self.journal.accept(&accepted)? {
            Acceptance::New => {
                let entry = self.add(Record::new(accepted));
                entry.events.push(super::JobEventKind::State, json!({"state": "queued", "attempts": 0}));
                self.bell.ring();
                Ok((entry.view(config.prices), Created::New))
            }
            Acceptance::Taken(standing) => {
                let is_same = same(&standing);
                // It was accepted between the look above and now.
                admit::existing(is_same, id, || self.add(Record::new(*standing)).view(config.prices))
            }
        }
    }

    /// Takes a job out of memory.
    pub(super) fn drop_entry(&self, entry: &Entry) {
        let age = entry.lock().record.accepted.created_at.clone();
        let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
        jobs.by_age.remove(&(age, entry.key.clone()));
        jobs.by_key.remove(&entry.key);
    }

    /// Takes a job into memory, unless it is there.
    fn add(&self, record: Record) -> Arc<Entry> {
        let accepted = &record.accepted;
        let age = accepted.created_at.clone();
        let path = self.log_path(&accepted.tenant, &accepted.id);
        let events = EventLog::new(path, Arc::clone(&self.clock), record.state.is_ended());
        let entry = Arc::new(Entry::new(record, events));
        let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
        jobs.by_age.insert((age, entry.key.clone()));
        Arc::clone(jobs.by_key.entry(entry.key.clone()).or_insert(entry))
    }

    fn log_path(&self, tenant: &Tenant, id: &ClientJobId) -> PathBuf {
        self.config().home().join("service-logs").join(tenant.as_str()).join(format!("{id}.ndjson"))
    }

    /// What ran when the last process died waits again.
    fn take_up_interrupted(&self) {
        for entry in self.entries() {
            if entry.state() == JobState::Running {
                let _ = self.happen_anyway(&entry, Transition::Died);
            }
        }
    }

    /// Puts on record that something happened, and lets everybody know.
    ///
    /// # Errors
    /// `Conflict` where it cannot happen to the job as it is, `Storage` where it cannot be put on record.
    pub(super) fn happen(&self, entry: &Entry, what: Transition) -> Result<(), ServiceError> {
        self.happen_inner(entry, what, false)
    }

    /// The same, but a store that fails costs the record and not the change: it is found out again after a restart.
    pub(super) fn happen_anyway(&self, entry: &Entry, what: Transition) -> Result<(), ServiceError> {
        self.happen_inner(entry, what, true)
    }

    fn happen_inner(&self, entry: &Entry, what: Transition, anyway: bool) -> Result<(), ServiceError> {
        let _one = lock(&entry.recording);
        if !self.jobs().by_key.contains_key(&entry.key) {
            return Err(ServiceError::not_found(format!("there is no job {} any more", entry.key.1)));
        }
        let before = entry.lock().record.clone();
        let happening = Happening { at: time::now(&*self.clock), what };
        let mut after = before.clone();
        if !after.apply(&happening) {
            let message = format!("job {} is {}: that is not possible now", entry.key.1, before.state.name());
            return Err(ServiceError::conflict(message));
        }
        let noted = self.journal.note(&before, &happening);
        self.pulse.stored(noted.as_ref().err());
        if let Err(error) = noted {
            if !anyway {
                return Err(error);
            }
            tracing::error!(job = %entry.key.1, %error, "what happened to a job could not be put on record");
        }
        let (state, attempts) = (after.state, after.attempts);
        let mut standing = entry.lock();
        standing.record = after;
        standing.live.used = NodeSeconds::default();
        drop(standing);
        if before.state.is_ended() {
            entry.events.begin_again();
        }
        entry.events.push(super::JobEventKind::State, json!({"state": state.name(), "attempts": attempts}));
        if state.is_ended() {
            entry.events.end();
            self.forgetting.ring();
        }
        tracing::info!(tenant = %entry.key.0, job = %entry.key.1, state = state.name(), "job");
        self.changes.tell(|| entry.view(self.config().prices));
        self.bell.ring();
        Ok(())
    }

    /// Tells a running job to stop for a reason; the first reason counts, but an end for good is final.
    pub(super) fn tell(&self, entry: &Entry, wish: Wish) {
        let mut state = entry.lock();
        if state.live.wish.is_none() || wish == Wish::Cancel {
            state.live.wish = Some(wish);
        }
        let control = state.live.control.clone();
        drop(state);
        if let Some(control) = control {
            super::runner::carry_out(&control, wish, self.config().drain);
        }
    }

    /// Finds a job that a caller sees.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where the caller sees all tenants and several have the id.
    pub(super) fn find(&self, scope: &Scope, id: &ClientJobId) -> Result<Arc<Entry>, ServiceError> {
        let jobs = self.jobs();
        let missing = || ServiceError::not_found(format!("there is no job {id}"));
        match scope {
            Scope::Tenant(tenant) => jobs.by_key.get(&(tenant.clone(), id.clone())).cloned().ok_or_else(missing),
            Scope::All => {
                let mut found = jobs.by_key.iter().filter(|((_, i), _)| i == id).map(|(_, e)| e);
                match (found.next(), found.next()) {
                    (Some(only), None) => Ok(Arc::clone(only)),
                    (None, _) => Err(missing()),
                    _ => Err(ServiceError::conflict(format!("several tenants have a job {id}: name the tenant"))),
                }
            }
        }
    }

    /// Every job, in no order that matters.
    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.jobs().by_key.values().cloned().collect()
    }

    pub(super) fn jobs(&self) -> RwLockReadGuard<'_, Jobs> {
        self.jobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is begun any more.
    pub(super) fn end(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.ended.store(true, Ordering::SeqCst);
        for entry in self.entries().iter().filter(|e| e.state() == JobState::Running) {
            self.tell(entry, Wish::Stop);
        }
        self.bell.ring();
        self.forgetting.ring();
        lock(&self.wakers).values().for_each(|w| w.wake());
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
