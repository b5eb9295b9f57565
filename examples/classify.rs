//! Labels every frame of a video and writes the labels as JSON lines: another scorer and another writer on the same engine,
//! stores and resume. Running the same command again goes on where the last one ended.
//!
//! `cargo run --release --example classify -- VIDEO WEIGHTS.safetensors LABELS.jsonl WORK_FOLDER`
//!
//! The weights are SqueezeNet 1.1's in torchvision's names, trained by Caffe's convention.

use restyle_actors::control::PassControl;
use restyle_actors::feed::PassOrder;
use restyle_actors::frame::DecodedFrame;
use restyle_actors::ledger_store::LocalStore;
use restyle_actors::pass::{Pass, PassNews, PassWork};
use restyle_actors::score::Scorer;
use restyle_actors::scored_log::ScoredLog;
use restyle_actors::source::probe;
use restyle_actors::storage::{Blob, Location};
use restyle_actors::task::Scored;
use restyle_actors::writer::RecordWriter;
use restyle_engine::clock::SystemClock;
use restyle_engine::item::JobId;
use restyle_engine::ledger::{Ledger, SegmentLedger};
use restyle_engine::stage::{StageError, Status};
use restyle_engine::supervise::NodeSpec;
use restyle_models::squeeze_net::SqueezeNet;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Whatever ends the program.
pub type Failure = Box<dyn std::error::Error>;

/// Labels of a frame that are written.
const LABELS: usize = 3;
/// Seconds of video in a segment.
const SEGMENT_SECONDS: f64 = 1.0;
/// Raised when the same weights would give other records.
const RECORD_VERSION: u32 = 1;

/// What is to be labelled, with what, and where things lie.
pub struct Request {
    /// Path or storage URL of the video.
    pub video: String,
    /// Classifier weights.
    pub weights: Vec<u8>,
    /// Where the JSON lines go.
    pub labels: PathBuf,
    /// Folder of the work store.
    pub work: PathBuf,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Whether the labels stand; else the run was drained and the next one goes on.
    pub complete: bool,
    /// Frames that this run scored.
    pub frames_scored: u64,
}

struct LabelScorer(SqueezeNet);

impl Scorer for LabelScorer {
    fn score(&mut self, frames: &[&DecodedFrame]) -> Vec<Result<Scored, StageError>> {
        let mut label = |frame: &&DecodedFrame| {
            let labels = self.0.classify(&frame.picture, LABELS);
            let labels = labels.map_err(|e| StageError::new(Status::Poison, e.to_string()))?;
            let record = labels.iter().map(|l| json!({"class": l.class, "probability": l.probability}));
            Ok(Scored::Record(record.collect()))
        };
        frames.iter().map(&mut label).collect()
    }
}

/// Labels a video, or goes on with it; `on_frame` is told how many frames this run has scored.
///
/// # Errors
/// Whatever failed; what is finished is kept.
pub fn label(request: &Request, control: &PassControl, on_frame: &mut dyn FnMut(u64)) -> Result<Labelled, Failure> {
    let clock = SystemClock::shared();
    let blob = Arc::new(Blob::open(&Location::parse(&request.video)?)?);
    let source = Arc::new(probe(&blob)?);
    SqueezeNet::load(&request.weights)?;
    let weights = blake3::hash(&request.weights).to_hex().to_string();
    // Everything that changes a record is in the job's id: other weights are another job.
    let identity = json!({"source": blob.identity(), "weights": weights, "labels": LABELS, "version": RECORD_VERSION});
    let id = JobId::new(*blake3::hash(identity.to_string().as_bytes()).as_bytes());
    let store = Arc::new(LocalStore::open(&request.work)?);
    let Some(_lock) = store.lock_blocking(&id, control.token(), |_| {})? else { return Ok(stopped(0)) };
    let folder = store.root().join("jobs").join(id.to_string());
    let writer = format!("p{}_{:x}", std::process::id(), clock.unix().as_nanos());
    let ledger = Ledger::new(store, id, writer);
    ledger.open_or_create_job(&identity)?;
    let segment_ticks = ((SEGMENT_SECONDS / source.video.time_base.as_f64()).round() as i64).max(1);
    let plan = ledger.fix_plan(&json!({"segment_ticks": segment_ticks}))?.value;
    let segments = ledger.segments(&plan);
    let log = Arc::new(ScoredLog::open(&folder)?);
    let (width, height) = source.video.upright_size();
    let weights = Arc::new(request.weights.clone());
    let mut frames_scored = 0;
    loop {
        let scan = Arc::new(segments.scan()?);
        if scan.todo()?.is_complete() {
            write_labels(&segments, request)?;
            return Ok(Labelled { complete: true, frames_scored });
        }
        let adopted = Arc::new(segments.adopt(&scan)?);
        let packed: u64 = adopted.values().map(|a| a.items.len() as u64).sum();
        let finished = scan.finished.values().map(|h| u64::from(h.items)).sum::<u64>() + packed;
        let weights = Arc::clone(&weights);
        let work = PassWork {
            blob: Arc::clone(&blob),
            source: Arc::clone(&source),
            decode_on: None,
            conceal: false,
            segment_ticks,
            segments: segments.clone(),
            scan,
            adopted,
            order: PassOrder::everything(finished),
            nodes: vec![NodeSpec::new("cpu-0", "cpu")],
            assemblers: 2,
            scorer: Arc::new(move || Ok(Box::new(LabelScorer(SqueezeNet::load(&weights)?)) as Box<dyn Scorer>)),
            writer: Arc::new(|| Ok(Box::new(RecordWriter::default()))),
            frame_bytes: source.video.format.picture_bytes(width, height) as u64,
            hang_after: Duration::from_secs(600),
            preempted_return_after: None,
            log: Arc::clone(&log),
            clock: Arc::clone(&clock),
        };
        let before = frames_scored;
        let report = Pass::new(work, control).run(&mut |news| {
            if let PassNews::Frames { scored, .. } = news {
                on_frame(before + scored);
            }
        })?;
        frames_scored += report.committed.values().map(|(frames, adopted)| u64::from(frames - adopted)).sum::<u64>();
        if report.interrupted {
            return Ok(stopped(frames_scored));
        }
        if let Some(error) = report.failures.into_iter().next() {
            return Err(error.into());
        }
    }
}

fn stopped(frames_scored: u64) -> Labelled {
    Labelled { complete: false, frames_scored }
}

/// Joins the segments' lines; the file appears whole or not at all.
fn write_labels(segments: &SegmentLedger, request: &Request) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for index in segments.scan()?.finished.keys() {
        lines.extend(segments.load(*index)?.payload);
    }
    let part = request.labels.with_extension("part");
    std::fs::write(&part, lines)?;
    std::fs::rename(part, &request.labels)?;
    Ok(())
}

#[allow(dead_code)]
fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [video, weights, labels, work] = arguments.as_slice() else {
        return Err("usage: classify VIDEO WEIGHTS.safetensors LABELS.jsonl WORK_FOLDER".into());
    };
    let request =
        Request { video: video.clone(), weights: std::fs::read(weights)?, labels: labels.into(), work: work.into() };
    let control = PassControl::new(SystemClock::shared());
    let done = label(&request, &control, &mut |_| {})?;
    writeln!(std::io::stderr(), "{}: {} frames labelled now", request.labels.display(), done.frames_scored)?;
    Ok(())
}
