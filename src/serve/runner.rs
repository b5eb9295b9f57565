//! Runs the jobs whose turn it is: one thread chooses, one thread a job follows its pipeline and says what it came to.

use super::config::ServeConfig;
use super::entry::{Entry, Key, Wish, add};
use super::error::ServiceError;
use super::events::JobEventKind;
use super::job::{Done, JobState, Transition};
use super::queue::Waiting;
use super::service::{Inner, lock};
use super::tally::HandedBefore;
use super::view::{EngineView, ErrorView, NodeSeconds};
use super::{budget, frames, nodes, pulse, report, rest};
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Finished, Planned, Progress};
use crate::job::{Job, Overwrite};
use crate::pipeline::{JobControl, NextEvent, Pipeline, RunningJob};
use restyle_engine::supervise::{NodeClass, NodePhase};
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the queue is looked at when nothing happens.
const LOOK: Duration = Duration::from_secs(1);
/// How often scorers are shared again while memory is short.
const SHARE_AGAIN: Duration = Duration::from_secs(10);
/// How often a running job's nodes are looked at.
const NODES_LOOK: Duration = Duration::from_millis(250);
/// Processes that may die of a job in a row before it is given up.
const DEATHS_MAX: u32 = 5;
/// Times that a job is repeated by itself after a store or a device failed.
const REPEATS_MAX: u32 = 5;
/// Runs of frames that are remembered of an attempt that ended.
const STRIP_RUNS_MAX: usize = 1000;
/// First wait before that; doubles with each.
const REPEAT_AFTER: Duration = Duration::from_secs(5);

/// Starts the thread that chooses.
///
/// # Errors
/// `Storage` when no thread can be had.
pub(super) fn start(inner: &Arc<Inner>) -> Result<(), ServiceError> {
    let chooser = Arc::clone(inner);
    std::thread::Builder::new()
        .name("restyle-queue".into())
        .spawn(move || choose(&chooser))
        .map(|_| ())
        .map_err(|e| ServiceError::storage(format!("cannot start a thread for the queue: {e}")))
}

fn choose(inner: &Arc<Inner>) {
    let mut shared = inner.clock.now();
    while !inner.ended.load(Ordering::SeqCst) {
        while let Some(entry) = next(inner) {
            begin(inner, &entry);
        }
        pulse::beat(inner);
        rest::look(inner);
        let now = inner.clock.now();
        if inner.is_short.load(Ordering::Relaxed) && now - shared >= SHARE_AGAIN {
            // Others may have given memory back meanwhile.
            budget::share(inner);
            shared = now;
        }
        inner.bell.wait(LOOK);
    }
}

/// Chooses a job that may begin now.
fn next(inner: &Inner) -> Option<Arc<Entry>> {
    if inner.draining.load(Ordering::SeqCst) || inner.pulse.is_device_lost() {
        return None;
    }
    let (config, entries, now) = (inner.config(), inner.entries(), inner.clock.now());
    let running: Vec<&Arc<Entry>> = entries.iter().filter(|e| e.state() == JobState::Running).collect();
    note_idleness(inner, running.is_empty(), now);
    // A job without a single node would hold memory and do nothing.
    if running.len() >= config.jobs_at_once.min(config.nodes.max) {
        return None;
    }
    let outputs: Vec<String> = running.iter().map(|e| e.lock().record.accepted.output_location.clone()).collect();
    let mut busy: BTreeMap<&super::Tenant, usize> = BTreeMap::new();
    running.iter().for_each(|e| *busy.entry(&e.key.0).or_default() += 1);
    let mut waiting = Vec::new();
    for entry in &entries {
        let state = entry.lock();
        let accepted = &state.record.accepted;
        let is_due = state.live.not_before.is_none_or(|at| at <= now);
        if state.record.state == JobState::Queued && is_due && !outputs.contains(&accepted.output_location) {
            waiting.push((entry, accepted.route.clone(), accepted.priority, accepted.created_at.clone()));
        }
    }
    let waiting: Vec<Waiting<'_, &Key>> = waiting
        .iter()
        .map(|(entry, route, priority, created_at)| Waiting {
            key: &entry.key,
            tenant: &entry.key.0,
            route,
            priority: *priority,
            created_at,
        })
        .collect();
    let key = lock(&inner.turns).next(&waiting, |tenant| busy.get(tenant).copied().unwrap_or(0))?.clone();
    entries.into_iter().find(|e| e.key == key)
}

fn note_idleness(inner: &Inner, is_idle: bool, now: Duration) {
    let mut since = lock(&inner.idle_since);
    *since = is_idle.then(|| since.unwrap_or(now));
}

/// Begins an attempt at a job, or says why there will be none.
fn begin(inner: &Arc<Inner>, entry: &Arc<Entry>) {
    let (refused, deaths) = {
        let state = entry.lock();
        (state.record.accepted.refused.clone(), state.record.deaths)
    };
    let given_up = (deaths >= DEATHS_MAX).then(|| ErrorView {
        kind: ErrorKind::JobFailed.name().to_owned(),
        message: format!("given up: {deaths} processes in a row died while they worked on it; retry it to try again"),
        frames: Vec::new(),
    });
    if let Some(error) = refused.or(given_up) {
        fail(inner, entry, NodeSeconds::default(), error);
        return;
    }
    if let Err(error) = inner.happen(entry, Transition::Started) {
        // The store is asked again in a while: a queue that spins on a full disk helps nobody.
        tracing::error!(job = %entry.key.1, %error, "a job cannot begin");
        entry.lock().live.not_before = Some(inner.clock.now() + REPEAT_AFTER);
        return;
    }
    let (own, job) = (Arc::clone(inner), Arc::clone(entry));
    let spawned = std::thread::Builder::new().name("restyle-follow".into()).spawn(move || {
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attempt(&own, &job)));
        if unwound.is_err() && job.state() == JobState::Running {
            let message = "the job's thread panicked: this is a bug in restyle".to_owned();
            let error = ErrorView { kind: "job_failed".into(), message, frames: Vec::new() };
            job.lock().live.control = None;
            fail(&own, &job, NodeSeconds::default(), error);
        }
    });
    if let Err(error) = spawned {
        let message = format!("cannot start a thread for the job: {error}");
        fail(
            inner,
            entry,
            NodeSeconds::default(),
            ErrorView { kind: "job_failed".into(), message, frames: Vec::new() },
        );
    }
}

/// Runs an attempt to its end.
fn attempt(inner: &Inner, entry: &Entry) {
    let config = inner.config();
    let begun = inner.clock.now();
    let span = inner.tracer.as_ref().map(|tracer| tracer.begin(entry));
    entry.lock().live.span = span;
    let result = submit(inner, entry, &config).and_then(|running| follow(inner, entry, running));
    let (wish, used) = {
        let mut state = entry.lock();
        let live = &mut state.live;
        live.strip = live.control.take().map(|c| frames::runs(&c)).unwrap_or_default();
        // A strip of shreds is not worth its memory once the job is over.
        live.strip.truncate(STRIP_RUNS_MAX);
        (live.built, live.share) = (0, 0);
        live.nodes.clear();
        (live.wish.take(), live.used)
    };
    budget::share(inner);
    match result {
        Ok(finished) => {
            let mut usual = lock(&inner.usual);
            *usual = (*usual * 3 + (inner.clock.now() - begun)) / 4;
            drop(usual);
            finish(inner, entry, used, &finished);
        }
        Err(error) => stopped(inner, entry, used, wish, &error),
    }
    if let Some((tracer, span)) = inner.tracer.as_ref().zip(span) {
        tracer.end(&span, entry);
    }
}

/// How the attempt is built, of the configuration in force.
fn pipeline_config(entry: &Entry, config: &ServeConfig) -> Config {
    let built = budget::built(config, &entry.lock().record.accepted.route);
    Config {
        device: config.device,
        // The nodes that onlookers see are named after the device before the job's style is read.
        device_is_automatic: false,
        decodes_on_card: false,
        workers: NonZeroUsize::new(built),
        work_dir: config.work.clone(),
        work_store: config.work_store.clone(),
        // The service deletes what belongs to a job when that is finished.
        collects: false,
        hang_after: config.nodes.hang_after,
        low_priority: config.nodes.low_priority.min(built),
        // The service itself has them return: a node that was held must not come back by itself.
        preempted_return_after: None,
    }
}

fn submit(inner: &Inner, entry: &Entry, config: &ServeConfig) -> Result<RunningJob, Error> {
    let built = pipeline_config(entry, config);
    let workers = built.worker_count();
    let accepted = entry.lock().record.accepted.clone();
    let made_before = |e: &Arc<Entry>| {
        let state = e.lock();
        let other = &state.record.accepted;
        other.output_location == accepted.output_location
            && other.tenant == accepted.tenant
            && state.record.done.is_some()
    };
    // A newer upload replaces what an older one became; what nobody here made is never replaced.
    let replaces = inner.entries().iter().filter(|e| e.key != entry.key).any(made_before)
        || lock(&inner.marks).iter().any(|((tenant, _), mark)| {
            *tenant == accepted.tenant && mark.is_output_ours && mark.output_location == accepted.output_location
        });
    if let Some(folder) = std::path::Path::new(&accepted.output_location).parent().filter(|f| f.is_absolute()) {
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::new(ErrorKind::Storage, format!("cannot make the folder {}: {e}", folder.display())))?;
    }
    let running = Pipeline::new(built)?.with_shelf(Arc::clone(&inner.shelf)).submit(Job {
        input: accepted.input_location.clone(),
        output: accepted.output_location.clone(),
        options: accepted.job_options(),
        fresh: false,
        overwrite: if replaces { Overwrite::Allowed } else { Overwrite::Refused },
    })?;
    let mut state = entry.lock();
    state.live.built = workers;
    state.live.names = (0..workers).map(|k| format!("{}-{k}", config.device)).collect();
    state.live.share = 0;
    state.live.control = Some(running.control());
    let wish = state.live.wish;
    drop(state);
    // Before frames are scored: the source has to be looked at first.
    budget::share(inner);
    if let Some(wish) = wish {
        carry_out(&running.control(), wish, config.drain);
    }
    Ok(running)
}

/// Has a running job do what somebody wants of it.
pub(super) fn carry_out(control: &JobControl, wish: Wish, drain: Duration) {
    match wish {
        Wish::Cancel => control.cancel(),
        Wish::Pause | Wish::Stop => control.drain(drain),
    }
}

/// Notes what a job tells, until it ends.
fn follow(inner: &Inner, entry: &Entry, running: RunningJob) -> Result<Finished, Error> {
    let control = running.control();
    let (mut looked, mut handed) = (inner.clock.now(), HandedBefore::default());
    loop {
        match running.next_event(NODES_LOOK) {
            NextEvent::Told(event) => told(inner, entry, event),
            NextEvent::Silent => {}
            NextEvent::Ended => return running.wait(),
        }
        let now = inner.clock.now();
        if now - looked >= NODES_LOOK {
            let used = used_since(&control, (now - looked).as_secs_f64());
            let before = std::mem::replace(&mut looked, now);
            inner.tally.used(used);
            inner.tally.handed(&mut handed, &control.links());
            inner.tally.phase(phase_of(entry), (now - before).as_secs_f64());
            let mut state = entry.lock();
            state.live.used = add(state.live.used, used);
            drop(state);
            nodes::look(inner, entry, &control);
        }
    }
}

/// What a running job does.
fn phase_of(entry: &Entry) -> &'static str {
    match entry.lock().live.progress.phase.as_str() {
        "" => "planning",
        "joining" => "joining",
        "publishing" => "publishing",
        _ => "scoring",
    }
}

/// What the nodes used in so many seconds, by what they do now.
fn used_since(control: &JobControl, seconds: f64) -> NodeSeconds {
    let mut used = NodeSeconds::default();
    for node in control.nodes() {
        if matches!(node.phase, NodePhase::Working | NodePhase::Leaving) {
            match node.class {
                NodeClass::Dedicated => used.dedicated += seconds,
                NodeClass::LowPriority => used.low_priority += seconds,
            }
        }
    }
    used
}

fn told(inner: &Inner, entry: &Entry, event: Event) {
    match event {
        Event::Planned(planned) => {
            inner.tally.planned(planned.frames_reused);
            note_plan(entry, &planned);
            // It is known now what its scorers need.
            budget::share(inner);
        }
        Event::Progress(progress) => note_progress(inner, entry, &progress),
        Event::Warning { message } => {
            entry.lock().live.warn(&message);
            entry.events.push(JobEventKind::Warning, json!({"message": message}));
        }
        Event::Node(node) => {
            inner.tally.node(&node.what);
            nodes::note(inner, entry, &node);
            entry.events.push(JobEventKind::Node, json!(node));
        }
        Event::Segment(segment) => {
            let span = entry.lock().live.span;
            if let Some((tracer, span)) = inner.tracer.as_ref().zip(span) {
                tracer.segment(&span, &segment);
            }
        }
        // Both come again as what the attempt came to.
        Event::Finished(_) | Event::Failed(_) => {}
    }
}

fn note_plan(entry: &Entry, planned: &Planned) {
    let mut state = entry.lock();
    let live = &mut state.live;
    live.job = Some(planned.job.clone());
    live.engine = Some(EngineView {
        device: planned.device.clone(),
        encoder: planned.encoder.clone(),
        width: planned.size.0,
        height: planned.size.1,
        workers: planned.workers,
    });
    live.progress.frames_about = planned.frames_about;
    live.progress.frames_reused = planned.frames_reused;
    live.progress.frames_done = planned.frames_reused;
    live.progress.phase = "scoring".to_owned();
    drop(state);
    let mut data = json!(planned);
    if let Some(fields) = data.as_object_mut() {
        // Where the service keeps its work is nobody's business.
        fields.remove("work");
    }
    entry.events.push(JobEventKind::Planned, data);
}

fn note_progress(inner: &Inner, entry: &Entry, progress: &Progress) {
    let mut state = entry.lock();
    let seen = &mut state.live.progress;
    inner.tally.scored(progress.frames_done.saturating_sub(seen.frames_done));
    seen.frames_done = progress.frames_done;
    seen.frames_about = progress.frames_about.or(seen.frames_about);
    (seen.fps, seen.eta_seconds) = (progress.fps, progress.eta_seconds);
    seen.phase = progress.phase.to_owned();
    drop(state);
    entry.events.push(JobEventKind::Progress, json!(progress));
}

fn finish(inner: &Inner, entry: &Entry, used: NodeSeconds, finished: &Finished) {
    let told = entry.lock().live.progress.frames_done;
    inner.tally.finished(finished, if finished.nothing_to_do { 0 } else { finished.frames.saturating_sub(told) });
    let done = Done {
        job: finished.job.clone(),
        frames: finished.frames,
        frames_scored: finished.frames_scored,
        frames_reused: finished.frames_reused,
        frames_redone: finished.frames_rescored,
        segments: finished.segments,
        bytes: finished.bytes,
        blake3: finished.blake3.clone(),
        wall_seconds: finished.wall_seconds,
    };
    entry.events.push(JobEventKind::Finished, json!(finished));
    inner.journal.collect(&finished.job);
    conclude(inner, entry, Transition::Finished { used, done: Box::new(done) });
}

fn fail(inner: &Inner, entry: &Entry, used: NodeSeconds, error: ErrorView) {
    inner.tally.failed(error.frames.len());
    entry.events.push(JobEventKind::Failed, json!(error));
    conclude(inner, entry, Transition::Failed { used, error });
}

/// Says what follows from an attempt that ended without output.
fn stopped(inner: &Inner, entry: &Entry, used: NodeSeconds, wish: Option<Wish>, error: &Error) {
    use ErrorKind::{Device, DeviceLost, DiskFull, Storage};
    if error.kind() == DeviceLost {
        inner.pulse.lose_device();
    }
    let is_passing = matches!(error.kind(), Storage | DiskFull | Device | DeviceLost);
    match (wish, error.kind()) {
        (Some(Wish::Cancel), _) => conclude(inner, entry, Transition::Cancelled { used }),
        (Some(Wish::Pause), ErrorKind::Interrupted) => note(inner, entry, Transition::Paused { used }),
        (_, ErrorKind::Interrupted) => note(inner, entry, Transition::Interrupted { used }),
        _ if is_passing && repeat(inner, entry, error) => note(inner, entry, Transition::Interrupted { used }),
        _ => {
            let (kind, message) = (error.kind().name().to_owned(), error.to_string());
            fail(inner, entry, used, ErrorView { kind, message, frames: error.frames().to_vec() });
        }
    }
}

/// Plans another attempt after what may pass; false when there were enough.
fn repeat(inner: &Inner, entry: &Entry, error: &Error) -> bool {
    let mut state = entry.lock();
    let live = &mut state.live;
    if live.repeats >= REPEATS_MAX {
        return false;
    }
    let wait = REPEAT_AFTER * 2u32.pow(live.repeats);
    live.repeats += 1;
    live.not_before = Some(inner.clock.now() + wait);
    let message = format!("{error}; tried again in {} s", wait.as_secs());
    live.warn(&message);
    drop(state);
    entry.events.push(JobEventKind::Warning, json!({"message": message}));
    true
}

/// An end: the report is written first, so that no end is on record without one.
fn conclude(inner: &Inner, entry: &Entry, what: Transition) {
    report::write(inner, entry, &what);
    note(inner, entry, what);
}

fn note(inner: &Inner, entry: &Entry, what: Transition) {
    if let Err(error) = inner.happen_anyway(entry, what) {
        tracing::error!(job = %entry.key.1, %error, "what an attempt came to is impossible: this is a bug in restyle");
    }
}

impl Inner {
    /// See [`super::Service::drain_and_stop`].
    pub(super) fn drain(&self, limit: Duration) -> bool {
        let until = self.clock.now() + limit;
        self.end();
        loop {
            let running = self.entries().iter().filter(|e| e.state() == JobState::Running).count();
            let now = self.clock.now();
            if running == 0 || now >= until {
                return running == 0;
            }
            self.bell.wait((until - now).min(NODES_LOOK));
        }
    }
}
