//! What a job tells while it runs; the JSON lines of the command are these events.

use crate::error::{Error, ErrorKind};
use restyle_actors::pass::PassNews;
use restyle_engine::supervise::SupervisionEventKind;
use serde::Serialize;
use std::path::PathBuf;

/// Version of the event schema; a field may be added, none changes its meaning.
pub const SCHEMA: u32 = 1;

/// One thing that happened to a job.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The plan stands and is durable; work begins.
    Planned(Planned),
    /// Where the job is; sent a few times a second at most.
    Progress(Progress),
    /// Something a person should know that does not stop the job.
    Warning {
        /// What, where, and what was done about it.
        message: String,
    },
    /// Something happened to a scorer node. For embedders; the command's JSON lines leave it out.
    Node(NodeEvent),
    /// A segment stands. For embedders; the command's JSON lines leave it out.
    Segment(SegmentCommitted),
    /// The output stands at OUTPUT; the last event of a job that succeeded.
    Finished(Finished),
    /// The job ended without an output; the last event of a job that did not.
    Failed(Failed),
}

/// A plan, as told to people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// The job's id, 64 hexadecimal digits.
    pub job: String,
    /// What the input holds in frames, as its container tells; exact only at the end.
    pub frames_about: Option<u64>,
    /// Frames that finished segments of an earlier run already cover.
    pub frames_reused: u64,
    /// Segments that an earlier run finished.
    pub segments_reused: u64,
    /// Scorer nodes that will run.
    pub workers: usize,
    /// The device that scores.
    pub device: String,
    /// Output width and height in pixels.
    pub size: (u32, u32),
    /// Encoder and pixel format of the output.
    pub encoder: String,
    /// Where the work store of the job lies.
    pub work: PathBuf,
    /// What will not be as in the source.
    pub warnings: Vec<String>,
}

/// Where a job is.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    /// Frames encoded into segments or on their way there, reused ones included.
    pub frames_done: u64,
    /// The number of frames the input is expected to have.
    pub frames_about: Option<u64>,
    /// Frames a second, of this run alone.
    pub fps: f64,
    /// Seconds of video done for every second that passed.
    pub speed: Option<f64>,
    /// Seconds that the rest will take at this pace.
    pub eta_seconds: Option<f64>,
    /// What the job is doing: `scoring`, `joining`, `publishing`.
    pub phase: &'static str,
}

/// What happened to a scorer node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeEvent {
    /// The node's name, as [`crate::JobControl::nodes`] gives it.
    pub node: String,
    /// What happened.
    pub what: NodeChange,
}

/// What can happen to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeChange {
    /// A worker was started for it; 0 is the first.
    Started {
        /// Counts its workers.
        generation: u32,
    },
    /// It was told that it will be taken away.
    Notified,
    /// It was paused.
    Paused,
    /// It was resumed.
    Resumed,
    /// Its worker ended: drained, pre-empted, panicked, hung.
    Exited {
        /// Why, for people.
        reason: String,
        /// Whether something was wrong with it.
        failed: bool,
    },
    /// It will be started again.
    Returning {
        /// Milliseconds from now.
        after_millis: u64,
    },
    /// It will not be started again; the job goes on with the others.
    GivenUp {
        /// Why its last worker ended.
        reason: String,
    },
}

impl NodeEvent {
    /// Translates what a supervisor tells; `None` for what concerns no single node.
    pub(crate) fn of(kind: &SupervisionEventKind) -> Option<Self> {
        use SupervisionEventKind as Kind;
        let (node, what) = match kind {
            Kind::WorkerStarted { node, generation } => (node, NodeChange::Started { generation: generation.0 }),
            Kind::WorkerExited { node, reason, .. } => {
                (node, NodeChange::Exited { reason: reason.to_string(), failed: reason.is_failure() })
            }
            Kind::RestartScheduled { node, after } => {
                let after_millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                (node, NodeChange::Returning { after_millis })
            }
            Kind::NodeGivenUp { node, reason } => (node, NodeChange::GivenUp { reason: reason.to_string() }),
            Kind::NodeNotified { node, .. } => (node, NodeChange::Notified),
            Kind::NodePaused { node } => (node, NodeChange::Paused),
            Kind::NodeResumed { node } => (node, NodeChange::Resumed),
            Kind::ZombieEnded { .. } | Kind::StageStarved | Kind::StageEnded { .. } => return None,
        };
        Some(Self { node: node.to_string(), what })
    }
}

/// A segment that is in the ledger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SegmentCommitted {
    /// Which, counted from 0 by time; numbers may be left out.
    pub segment: u64,
    /// Its frames.
    pub frames: u32,
    /// Frames of it that an earlier run had scored.
    pub frames_reused: u32,
    /// Seconds from its opening until it stood.
    pub seconds: f64,
}

impl SegmentCommitted {
    /// Translates what a pass tells; `None` for other news.
    pub(crate) fn of(news: &PassNews<'_>) -> Option<Self> {
        let PassNews::Segment { segment, frames, adopted, took } = *news else { return None };
        let seconds = took.as_secs_f64();
        Some(Self { segment: u64::from(segment.0), frames, frames_reused: adopted, seconds })
    }
}

/// A job that succeeded.
#[derive(Debug, Clone, Serialize)]
pub struct Finished {
    /// The job's id.
    pub job: String,
    /// Frames of the output.
    pub frames: u64,
    /// Frames that this run scored and that are in the output.
    pub frames_scored: u64,
    /// Frames taken from an earlier run; `frames_scored + frames_reused = frames`.
    pub frames_reused: u64,
    /// Frames that were scored before, lost, and scored again by this run.
    pub frames_rescored: u64,
    /// Segments of the output.
    pub segments: u64,
    /// Segments taken from an earlier run.
    pub segments_reused: u64,
    /// Wall time of this run.
    pub wall_seconds: f64,
    /// Frames scored a second of wall time.
    pub fps: f64,
    /// Where the output is.
    pub output: String,
    /// Bytes of the output.
    pub bytes: u64,
    /// blake3 of the output, hexadecimal.
    pub blake3: String,
    /// True when an earlier run had done everything and this one did nothing.
    pub nothing_to_do: bool,
    /// Seconds spent in calls of the work store, waits for it included.
    pub ledger_seconds: f64,
    /// Times that a write waited because there was no room.
    pub storage_full_waits: u64,
    /// Objects of the work store that were found cut short or altered; what they held was made again.
    pub objects_damaged: u64,
}

/// A job that failed or was stopped.
#[derive(Debug, Clone, Serialize)]
pub struct Failed {
    /// The job's id, where it came so far.
    pub job: Option<String>,
    /// The stable kind.
    pub kind: &'static str,
    /// One line for people.
    pub message: String,
    /// The frames concerned, 0-based.
    pub frames: Vec<u64>,
    /// Whether the same command continues where this one ended.
    pub resumable: bool,
}

/// After these the same command goes on where the job ended, once what was in the way is gone.
const RESUMABLE: [ErrorKind; 5] =
    [ErrorKind::Interrupted, ErrorKind::Device, ErrorKind::DeviceLost, ErrorKind::DiskFull, ErrorKind::Storage];

impl Failed {
    /// Tells an error as an event; `job` is the id where the job came so far.
    #[must_use]
    pub fn new(job: Option<String>, error: &Error) -> Self {
        Self {
            resumable: job.is_some() && RESUMABLE.contains(&error.kind()),
            job,
            kind: error.kind().name(),
            message: error.to_string(),
            frames: error.frames().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_carry_their_name() {
        let line = serde_json::to_value(Event::Warning { message: "x".into() }).unwrap();
        assert_eq!(line, serde_json::json!({"event": "warning", "message": "x"}));
    }
}
