//! What happens to a job, numbered, kept in a file beside the work store and replayed to whoever asks.
//!
//! The file is the job's log: one JSON object a line. It is a hint, not a record: losing it loses no job.

use super::error::ServiceError;
use super::time;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use restyle_engine::clock::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use utoipa::ToSchema;

/// Events of a running job that are replayed from memory.
const RING: usize = 10_000;
/// Events that a subscriber may be behind before it is dropped; it comes back with the number of the last one it saw.
const BEHIND_MAX: usize = 1024;
/// Progress is noted once in this time.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// The end of a log that is read for its last number.
const TAIL_BYTES: u64 = 64 << 10;

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobEventKind {
    /// An attempt knows what it will do.
    Planned,
    /// How far it is; once a second.
    Progress,
    /// Something happened to a scorer node.
    Node,
    /// Something a person should know.
    Warning,
    /// The job is in another state.
    State,
    /// The output stands.
    Finished,
    /// An attempt failed.
    Failed,
}

impl JobEventKind {
    /// Returns the word of the SSE field `event`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Progress => "progress",
            Self::Node => "node",
            Self::Warning => "warning",
            Self::State => "state",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// One event of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NumberedEvent {
    /// Its number, from 1, over all attempts and restarts.
    pub seq: u64,
    /// When, RFC 3339.
    pub at: String,
    /// What kind.
    pub event: JobEventKind,
    /// What it says.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// Events of one job from some number on; ends when the job has ended, or when its reader is too far behind.
#[derive(Debug)]
pub struct EventStream {
    receiver: Receiver<NumberedEvent>,
}

impl EventStream {
    /// Returns the receiving end; disconnected after the last event.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<NumberedEvent> {
        &self.receiver
    }
}

/// The events of one job.
pub(super) struct EventLog {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// 0: the file was not looked at yet.
    next: u64,
    ring: VecDeque<NumberedEvent>,
    file: Option<File>,
    subscribers: Vec<Sender<NumberedEvent>>,
    progress_at: Option<Duration>,
    ended: bool,
}

impl EventLog {
    /// A log at `path`; nothing is opened yet. `ended`: nothing is expected to happen, so streams end after the replay.
    pub(super) fn new(path: PathBuf, clock: Arc<dyn Clock>, ended: bool) -> Self {
        Self { path, clock, state: Mutex::new(State { ended, ..State::default() }) }
    }

    /// Notes an event and tells it to subscribers; too frequent progress is left out.
    pub(super) fn push(&self, event: JobEventKind, data: Value) {
        let mut state = self.lock();
        if event == JobEventKind::Progress {
            let now = self.clock.now();
            if state.progress_at.is_some_and(|last| now - last < PROGRESS_EVERY) {
                return;
            }
            state.progress_at = Some(now);
        }
        self.open(&mut state);
        let numbered = NumberedEvent { seq: state.next, at: time::now(&*self.clock), event, data };
        state.next += 1;
        state.write(&numbered, &self.path);
        if state.ring.len() == RING {
            state.ring.pop_front();
        }
        state.subscribers.retain(|s| {
            !matches!(s.try_send(numbered.clone()), Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
        });
        state.ring.push_back(numbered);
    }

    /// The job has ended: streams end, and what is asked for later is read from the file.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.subscribers.clear();
        state.ring = VecDeque::new();
        state.file = None;
    }

    /// The job goes on after it had ended.
    pub(super) fn begin_again(&self) {
        self.lock().ended = false;
    }

    /// Removes what is kept on disk.
    pub(super) fn forget(&self) {
        let _state = self.lock();
        // A log that is left costs room and nothing else.
        let _ = std::fs::remove_file(&self.path);
    }

    /// Returns the events after number `after`, those to come included.
    pub(super) fn subscribe(&self, after: u64) -> Result<EventStream, ServiceError> {
        let mut state = self.lock();
        self.open(&mut state);
        let from_ring = state.ring.front().is_some_and(|first| first.seq <= after + 1);
        let past: Vec<NumberedEvent> = if from_ring {
            state.ring.iter().filter(|e| e.seq > after).cloned().collect()
        } else {
            let text = self.read_file()?;
            let lines = text.split(|b| *b == b'\n');
            lines.filter_map(|l| serde_json::from_slice::<NumberedEvent>(l).ok()).filter(|e| e.seq > after).collect()
        };
        let (sender, receiver) = crossbeam_channel::bounded(past.len() + BEHIND_MAX);
        for event in past {
            // The channel was made large enough.
            let _ = sender.try_send(event);
        }
        if !state.ended {
            state.subscribers.push(sender);
        }
        Ok(EventStream { receiver })
    }

    /// Returns the whole log as lines of JSON; empty where nothing happened yet.
    pub(super) fn read(&self) -> Result<Vec<u8>, ServiceError> {
        let _state = self.lock();
        self.read_file()
    }

    fn read_file(&self) -> Result<Vec<u8>, ServiceError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(ServiceError::storage(format!("cannot read the log {}: {e}", self.path.display()))),
        }
    }

    /// Opens the file at its end and finds the number of the next event. What fails costs the log and nothing else.
    fn open(&self, state: &mut State) {
        if state.file.is_some() || (state.ended && state.next > 0) {
            return;
        }
        let opened = || -> std::io::Result<(File, u64)> {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
            let last = last_number(&mut file)?;
            Ok((file, last))
        };
        match opened() {
            Ok((file, last)) => {
                state.next = state.next.max(last + 1);
                state.file = Some(file);
            }
            Err(error) => {
                state.next = state.next.max(1);
                tracing::warn!(log = %self.path.display(), %error, "the log of a job cannot be written");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, event: &NumberedEvent, path: &std::path::Path) {
        let Some(file) = self.file.as_mut() else { return };
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        // In one call: a kill leaves whole lines.
        if let Err(error) = file.write_all(&line) {
            tracing::warn!(log = %path.display(), %error, "a line of a job's log is lost");
        }
    }
}

/// Reads the number of the last whole line, and ends a line that a crash left open.
fn last_number(file: &mut File) -> std::io::Result<u64> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    if tail.last().is_some_and(|b| *b != b'\n') {
        file.write_all(b"\n")?;
    }
    let mut lines = tail.rsplit(|b| *b == b'\n');
    Ok(lines.find_map(|l| serde_json::from_slice::<NumberedEvent>(l).ok()).map_or(0, |e| e.seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use restyle_engine::clock::ManualClock;
    use serde_json::json;

    fn numbers(stream: &EventStream) -> Vec<u64> {
        stream.receiver().try_iter().map(|e| e.seq).collect()
    }

    #[test]
    fn numbers_go_on_over_restarts_and_torn_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/log.ndjson");
        let log = EventLog::new(path.clone(), ManualClock::shared(), false);
        log.push(JobEventKind::State, json!({"state": "queued"}));
        log.push(JobEventKind::Warning, json!({"message": "x"}));
        drop(log);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":3,\"at\"").unwrap();
        let log = EventLog::new(path, ManualClock::shared(), false);
        log.push(JobEventKind::State, json!({"state": "running"}));
        assert_eq!(numbers(&log.subscribe(0).unwrap()), [1, 2, 3]);
        assert_eq!(numbers(&log.subscribe(2).unwrap()), [3]);
        log.end();
        let stream = log.subscribe(1).unwrap();
        assert_eq!(numbers(&stream), [2, 3]);
        assert!(stream.receiver().recv().is_err(), "the stream of an ended job ends");
    }

    #[test]
    fn progress_is_thinned_and_slow_readers_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::shared();
        let log = EventLog::new(folder.path().join("log"), clock.clone(), false);
        let slow = log.subscribe(0).unwrap();
        for _ in 0..3 {
            log.push(JobEventKind::Progress, json!({}));
        }
        clock.advance(PROGRESS_EVERY);
        log.push(JobEventKind::Progress, json!({}));
        assert_eq!(log.subscribe(0).unwrap().receiver().len(), 2);
        for _ in 0..=BEHIND_MAX {
            log.push(JobEventKind::Warning, json!({}));
        }
        assert_eq!(slow.receiver().iter().count(), BEHIND_MAX, "then it ends");
    }
}
