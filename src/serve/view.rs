//! What the service shows of itself, as it goes over the wire.

use super::ident::{ClientJobId, ObjectKey, RouteName, Tenant};
use super::job::JobState;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// A job as a client sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// The client's id, or one that the watcher made up.
    pub id: ClientJobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The route it came by.
    pub route: RouteName,
    /// Where it is in its life.
    pub state: JobState,
    /// Key of the input inside the route's input location.
    pub input: ObjectKey,
    /// Key of the output inside the route's output location.
    pub output: ObjectKey,
    /// What it is styled with.
    pub style: String,
    /// Higher goes first among a tenant's jobs.
    pub priority: i32,
    /// When it was accepted, RFC 3339.
    pub created_at: String,
    /// When its last attempt began.
    pub started_at: Option<String>,
    /// When it came to an end.
    pub ended_at: Option<String>,
    /// Attempts begun.
    pub attempts: u32,
    /// How far it is.
    pub progress: ProgressView,
    /// Why the last attempt ended, where it failed.
    pub error: Option<ErrorView>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What it used.
    pub cost: CostView,
    /// The pipeline's id of the job, 64 hexadecimal digits, once it is planned.
    pub job: Option<String>,
    /// How it is made, once it is planned.
    pub engine: Option<EngineView>,
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProgressView {
    /// Frames done, reused ones included.
    pub frames_done: u64,
    /// The number of frames the input is expected to have.
    pub frames_about: Option<u64>,
    /// Frames taken from earlier attempts.
    pub frames_reused: u64,
    /// Frames that were scored again.
    pub frames_redone: u64,
    /// Frames a second of the attempt that runs.
    pub fps: f64,
    /// Seconds that the rest will take at this pace.
    pub eta_seconds: Option<f64>,
    /// `queued`, `planning`, `scoring`, `joining`, `publishing` or the state it ended in.
    pub phase: String,
    /// 0 to 100.
    pub percent: Option<f64>,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorView {
    /// The stable kind, as in [`crate::ErrorKind::name`].
    pub kind: String,
    /// One line for people.
    pub message: String,
    /// The frames concerned, 0-based.
    pub frames: Vec<u64>,
}

/// What a job used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CostView {
    /// Seconds that scorer nodes worked, all attempts together.
    pub node_seconds: NodeSeconds,
    /// The same times the configured prices; `None` without prices.
    pub price: Option<f64>,
}

/// Seconds of scorer nodes by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeSeconds {
    /// Nodes that stay.
    pub dedicated: f64,
    /// Nodes that may be taken away.
    pub low_priority: f64,
}

/// How a job is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EngineView {
    /// The device that scores.
    pub device: String,
    /// Encoder and pixel format of the output.
    pub encoder: String,
    /// Output width in pixels.
    pub width: u32,
    /// Output height in pixels.
    pub height: u32,
    /// Scorer nodes that the job may have at most.
    pub workers: usize,
}

/// A page of a list of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<JobView>,
    /// What to pass as `cursor` for the next page; `None` at the end.
    pub next: Option<String>,
}

/// What a scorer node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It loads its network.
    Starting,
    /// It works.
    Running,
    /// It was told to leave and finishes what it has.
    Draining,
    /// It was taken away.
    Preempted,
    /// It failed and will be started again.
    Restarting,
    /// It waits to be resumed.
    Paused,
    /// It failed too often, or does not answer.
    Unusable,
    /// It has done its part.
    Ended,
    /// The job could use it and there is no capacity for it now.
    Wanted,
}

/// A scorer node of a running job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Unique over all jobs.
    pub id: String,
    /// The job it works for.
    pub job: ClientJobId,
    /// Whose job that is.
    pub tenant: Tenant,
    /// What it runs on.
    pub device: String,
    /// `dedicated` or `low-priority`.
    pub class: String,
    /// What it does.
    pub state: NodeState,
    /// Counts its workers, from 0.
    pub generation: u32,
    /// Frames scored by its present worker.
    pub items_done: u64,
    /// How often it was taken away.
    pub preemptions: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// Since when it is in this state, RFC 3339.
    pub since: String,
    /// Why its last worker ended, where that was a failure.
    pub last_error: Option<String>,
    /// The last things that happened to it.
    pub log: Vec<String>,
}

/// What a frame has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FrameState {
    /// Nothing yet.
    Planned,
    /// It is decoded and waits for a scorer, or is with one.
    Decoding,
    /// It is scored and waits to be encoded.
    Scored,
    /// It is encoded, in a segment or on its way into one.
    Encoded,
    /// The same, after it had been scored before and was lost.
    Redone,
}

/// Frames next to each other in the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrameRun {
    /// The first one, 0-based.
    pub first: u64,
    /// The last one, included.
    pub last: u64,
    /// What they have come to.
    pub state: FrameState,
}

/// A job's frames, from the first to the last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrameStrip {
    /// How many there are, about.
    pub frames: u64,
    /// Without gaps and in order.
    pub runs: Vec<FrameRun>,
}

/// One hand-off between stages of a running job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LinkView {
    /// What it joins, such as `decode → score`.
    pub name: String,
    /// Frames in it now.
    pub fill: u64,
    /// Frames that it takes at most.
    pub capacity: u64,
    /// Frames that went in.
    #[serde(rename = "in")]
    pub entered: u64,
    /// Frames that came out.
    #[serde(rename = "out")]
    pub left: u64,
    /// Microseconds that the side before it waited for room.
    pub stall_micros: u64,
}

/// A route as a client sees it: names of locations carry no credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteView {
    /// Its name.
    pub name: RouteName,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where videos are looked for.
    pub input: String,
    /// Where results go.
    pub output: String,
    /// What they are styled with unless a job says otherwise.
    pub style: String,
    /// How outputs are named.
    pub name_template: String,
    /// Priority of the jobs that the watcher makes.
    pub priority: i32,
    /// When it was last listed, RFC 3339.
    pub looked_at: Option<String>,
    /// Why it could not be listed the last time.
    pub error: Option<String>,
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
}

/// A style that jobs may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StyleView {
    /// What to ask for.
    pub name: String,
    /// What was painted, where the style says.
    pub painting: String,
    /// `built-in` or `operator`.
    pub origin: String,
    /// Digest of the weights, where they are built in.
    pub digest: Option<String>,
    /// Whether there is a contact sheet of it.
    pub has_sheet: bool,
}

/// How many jobs are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobCounts {
    /// They wait.
    pub queued: u64,
    /// They run.
    pub running: u64,
    /// They wait to be resumed.
    pub paused: u64,
    /// They succeeded.
    pub finished: u64,
    /// They did not.
    pub failed: u64,
    /// They were told to end.
    pub cancelled: u64,
}

/// Scorer nodes in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounts {
    /// They work.
    pub running: u64,
    /// Jobs could use them and there is no capacity.
    pub wanted: u64,
    /// As few as are kept.
    pub min: u64,
    /// As many as there may be.
    pub max: u64,
}

/// The whole service in a few numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// Jobs by state.
    pub jobs: JobCounts,
    /// Scorers.
    pub nodes: NodeCounts,
    /// Frames a second of all running jobs together.
    pub fps: f64,
    /// Since when nothing runs, RFC 3339.
    pub idle_since: Option<String>,
    /// Whether the service is ending.
    pub draining: bool,
}

/// What a job came to, as it is written beside its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Version of this shape.
    pub schema: u32,
    /// Version of restyle.
    pub version: String,
    /// The job at its end.
    pub job: JobView,
    /// Frames of the output.
    pub frames: Option<u64>,
    /// Frames that the last attempt scored.
    pub frames_scored: Option<u64>,
    /// Frames taken from earlier attempts.
    pub frames_reused: Option<u64>,
    /// Frames scored again after they were lost.
    pub frames_redone: Option<u64>,
    /// Segments of the output.
    pub segments: Option<u64>,
    /// Bytes of the output.
    pub bytes: Option<u64>,
    /// blake3 of the output, hexadecimal.
    pub blake3: Option<String>,
    /// Wall time of the last attempt.
    pub wall_seconds: Option<f64>,
}

/// Which frame a preview shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The source's.
    Before,
    /// The styled one.
    After,
}

/// Whether the service lives and takes work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Whether its own threads make progress.
    pub live: bool,
    /// Whether it takes jobs: false while it drains or its work store fails.
    pub ready: bool,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
}

/// Which jobs a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only these states; empty: all.
    pub states: Vec<JobState>,
    /// Only this route.
    pub route: Option<RouteName>,
    /// Only this tenant.
    pub tenant: Option<Tenant>,
    /// How many at most; 0 is the default of 50, 500 the maximum.
    pub limit: usize,
    /// Where the page begins, as the page before said.
    pub cursor: Option<String>,
}

/// How long a node is given to finish what it has, where nobody says.
pub const NOTICE_DEFAULT: Duration = Duration::from_secs(30);

/// A coded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jpeg {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
}
