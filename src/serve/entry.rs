//! A job in memory: what its journal says, and what is known of it while it runs.

use super::events::EventLog;
use super::ident::{ClientJobId, Tenant};
use super::job::{JobState, Record};
use super::traces::AttemptSpan;
use super::view::{CostView, EngineView, FrameRun, JobView, NodeSeconds, NodeState, ProgressView};
use crate::pipeline::JobControl;
use crate::serve::config::Prices;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What tells jobs apart: ids are unique in a tenant.
pub(super) type Key = (Tenant, ClientJobId);

/// Lines of a node's own log that are kept.
const NODE_LOG_LINES: usize = 20;
/// Warnings of a job that are kept.
const WARNINGS_MAX: usize = 100;

/// One job.
pub(super) struct Entry {
    pub(super) key: Key,
    /// Held while something is put on record, so that what is on record happened in this order.
    pub(super) recording: Mutex<()>,
    state: Mutex<EntryState>,
    pub(super) events: EventLog,
}

/// What is known of a job.
pub(super) struct EntryState {
    pub(super) record: Record,
    pub(super) live: Live,
}

/// What only this process knows.
#[derive(Default)]
pub(super) struct Live {
    pub(super) progress: ProgressView,
    pub(super) engine: Option<EngineView>,
    pub(super) job: Option<String>,
    pub(super) warnings: Vec<String>,
    /// Of the attempt that runs, where traces are made.
    pub(super) span: Option<AttemptSpan>,
    /// While an attempt runs.
    pub(super) control: Option<JobControl>,
    /// Nodes that the attempt that runs was built with, and their names.
    pub(super) built: usize,
    pub(super) names: Vec<String>,
    /// How many of them may work; 0 before that was decided.
    pub(super) share: usize,
    /// What the attempt that runs was told.
    pub(super) wish: Option<Wish>,
    /// Of the attempt that runs.
    pub(super) used: NodeSeconds,
    pub(super) nodes: BTreeMap<String, NodeLive>,
    /// What the frames had come to when the last attempt ended; short runs only.
    pub(super) strip: Vec<FrameRun>,
    /// Failed attempts that were repeated without being asked.
    pub(super) repeats: u32,
    /// When it may begin again, on the clock.
    pub(super) not_before: Option<Duration>,
}

/// What somebody wants of a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To end.
    Cancel,
    /// To wait.
    Pause,
    /// To stop because the service ends.
    Stop,
}

/// A node of a running job.
#[derive(Debug, Clone)]
pub(super) struct NodeLive {
    pub(super) generation: u32,
    pub(super) preemptions: u32,
    pub(super) since: String,
    pub(super) state: NodeState,
    pub(super) last_error: Option<String>,
    pub(super) log: VecDeque<String>,
    /// When it comes back after somebody took it away, on the clock.
    pub(super) returns_at: Option<Duration>,
}

impl NodeLive {
    pub(super) fn new(at: String) -> Self {
        Self {
            generation: 0,
            preemptions: 0,
            since: at,
            state: NodeState::Starting,
            last_error: None,
            log: VecDeque::new(),
            returns_at: None,
        }
    }

    pub(super) fn note(&mut self, at: &str, line: &str) {
        if self.log.len() == NODE_LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back(format!("{at} {line}"));
    }

    pub(super) fn enter(&mut self, state: NodeState, at: &str) {
        if self.state != state {
            (self.state, self.since) = (state, at.to_owned());
        }
    }
}

impl Live {
    /// What a report shows of it.
    pub(super) fn for_report(&self) -> Self {
        Self {
            progress: self.progress.clone(),
            engine: self.engine.clone(),
            job: self.job.clone(),
            warnings: self.warnings.clone(),
            ..Self::default()
        }
    }

    pub(super) fn warn(&mut self, message: &str) {
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.iter().any(|w| w == message) {
            self.warnings.push(message.to_owned());
        }
    }
}

impl Entry {
    pub(super) fn new(record: Record, events: EventLog) -> Self {
        let key = (record.accepted.tenant.clone(), record.accepted.id.clone());
        Self { key, recording: Mutex::new(()), state: Mutex::new(EntryState { record, live: Live::default() }), events }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, EntryState> {
        // What a holder that panicked left is plain values, which stay usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> JobState {
        self.lock().record.state
    }

    /// A short name of the job for names of its nodes; differs between tenants.
    pub(super) fn short(&self) -> String {
        let whole = blake3::hash(format!("{}/{}", self.key.0, self.key.1).as_bytes());
        whole.to_hex().as_str()[..10].to_owned()
    }

    pub(super) fn view(&self, prices: Option<Prices>) -> JobView {
        self.lock().view(prices)
    }
}

impl EntryState {
    /// Returns the job as a client sees it.
    pub(super) fn view(&self, prices: Option<Prices>) -> JobView {
        let Self { record, live } = self;
        let accepted = &record.accepted;
        JobView {
            id: accepted.id.clone(),
            tenant: accepted.tenant.clone(),
            route: accepted.route.clone(),
            state: record.state,
            input: accepted.input.clone(),
            output: accepted.output.clone(),
            style: accepted.style.clone(),
            priority: accepted.priority,
            created_at: accepted.created_at.clone(),
            started_at: record.started_at.clone(),
            ended_at: record.ended_at.clone(),
            attempts: record.attempts,
            progress: self.progress(),
            error: record.error.clone(),
            warnings: live.warnings.clone(),
            cost: cost(add(record.used, live.used), prices),
            job: live.job.clone().or_else(|| record.done.as_ref().map(|d| d.job.clone())),
            engine: live.engine.clone(),
        }
    }

    fn progress(&self) -> ProgressView {
        let (record, live) = (&self.record, &self.live);
        let mut progress = live.progress.clone();
        if let Some(done) = &record.done {
            progress.frames_done = done.frames;
            progress.frames_about = Some(done.frames);
            progress.frames_reused = done.frames_reused;
            progress.frames_redone = done.frames_redone;
            progress.percent = Some(100.0);
        } else if let Some(about) = progress.frames_about.filter(|n| *n > 0) {
            progress.percent = Some((progress.frames_done as f64 * 100.0 / about as f64).min(100.0));
        }
        if record.state != JobState::Running {
            progress.phase = record.state.name().to_owned();
            (progress.fps, progress.eta_seconds) = (0.0, None);
        } else if progress.phase.is_empty() {
            progress.phase = "planning".to_owned();
        }
        progress
    }
}

pub(super) fn add(a: NodeSeconds, b: NodeSeconds) -> NodeSeconds {
    NodeSeconds { dedicated: a.dedicated + b.dedicated, low_priority: a.low_priority + b.low_priority }
}

fn cost(node_seconds: NodeSeconds, prices: Option<Prices>) -> CostView {
    let price =
        prices.map(|p| (node_seconds.dedicated * p.dedicated + node_seconds.low_priority * p.low_priority) / 3600.0);
    CostView { node_seconds, price }
}
