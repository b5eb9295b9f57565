//! One pass of the dataflow over what a job's ledger does not hold yet.
//!
//! Threads: one decoder, N scorers, M assemblers, each group a supervised stage. A pass never repairs itself apart from replacing scorers:
//! when it ends, what was finished stands in the ledger, and the caller plans the next pass from there.
//!
//! It ends in the direction of the flow: the feed ends, the pool closes, the scorers end when it is empty, the assemblers when their segments
//! are whole or never will be.

use crate::assemble::{Assembled, Assembler, AssemblerParts, UnderWay};
use crate::control::PassControl;
use crate::decode::{DecodeOptions, FrameDecoder};
use crate::error::{ActorError, Result};
use crate::feed::{Cuts, Feed, FeedParts, PassOrder};
use crate::score::{Delivery, ScoreStage, Scorer};
use crate::scored_log::ScoredLog;
use crate::source_info::SourceInfo;
use crate::storage::Blob;
use crate::task::{Arrival, FrameTask, OpenSegment};
use crate::writer::WriterFactory;
use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};
use restyle_engine::cancel::CancelToken;
use restyle_engine::clock::Clock;
use restyle_engine::credit::{CreditLimit, Credits};
use restyle_engine::fault;
use restyle_engine::item::{Item, SegmentIndex};
use restyle_engine::ledger::{Adopted, PackPolicy, Scan, SegmentLedger};
use restyle_engine::steal::{Poisoned, Pool, PoolConfig};
use restyle_engine::supervise::{
    ControlPlane, NodeSpec, RestartPolicy, StageHandle, StageOutcome, StageSpec, SupervisionEventKind,
};
use restyle_engine::worker::{ExitReason, WorkerContext, work};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

mod flight;
mod hung;
mod left;
mod shown;

/// Builds a scorer on the thread that uses it.
pub type ScorerFactory = Arc<dyn Fn() -> Result<Box<dyn Scorer>> + Send + Sync>;

/// What a pass works on and with.
pub struct PassWork {
    /// The source.
    pub blob: Arc<Blob>,
    /// What it holds.
    pub source: Arc<SourceInfo>,
    /// Whether damaged frames are concealed.
    pub conceal: bool,
    /// The card that decodes, by its number; else the processor does.
    pub decode_on: Option<usize>,
    /// Length of a segment in ticks of the video stream's time base.
    pub segment_ticks: i64,
    /// Where finished segments go.
    pub segments: SegmentLedger,
    /// What is finished.
    pub scan: Arc<Scan>,
    /// What packs hold of what is not.
    pub adopted: Arc<BTreeMap<SegmentIndex, Adopted>>,
    /// What of the rest this pass makes.
    pub order: PassOrder,
    /// Scorer nodes.
    pub nodes: Vec<NodeSpec>,
    /// Segments that are encoded at once.
    pub assemblers: usize,
    /// Builds a scorer.
    pub scorer: ScorerFactory,
    /// Builds the writer of a segment.
    pub writer: WriterFactory,
    /// Bytes of one frame decoded and scored together, for its credit.
    pub frame_bytes: u64,
    /// A scorer that shows no progress for so long while it has work is replaced.
    pub hang_after: Duration,
    /// When a pre-empted scorer comes back by itself; `None`: when it is resumed.
    pub preempted_return_after: Option<Duration>,
    /// Where scored frames are noted.
    pub log: Arc<ScoredLog>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// What a pass did.
#[derive(Debug, Default)]
pub struct PassReport {
    /// Segments that it committed: the frames of each, and how many of them came from packs.
    pub committed: BTreeMap<SegmentIndex, (u32, u32)>,
    /// Why segments or the decoder failed, in the order it was seen.
    pub failures: Vec<ActorError>,
    /// What a person should know: replaced scorers, segments that were concealed.
    pub warnings: Vec<String>,
    /// Whether it ended because it was told to.
    pub interrupted: bool,
}

/// What a pass tells while it runs.
#[derive(Debug, Clone, Copy)]
pub enum PassNews<'a> {
    /// How far it is; told several times a second.
    Frames {
        /// Frames scored by now.
        scored: u64,
        /// Frames that came from packs.
        adopted: u64,
    },
    /// Something happened to a scorer node.
    Node(&'a SupervisionEventKind),
    /// A segment stands.
    Segment {
        /// Which.
        segment: SegmentIndex,
        /// Its frames.
        frames: u32,
        /// Frames of it that came from packs.
        adopted: u32,
        /// From its opening until it stood.
        took: Duration,
    },
}

/// How often a pass looks at its counters to tell progress and to keep its deadline.
const LOOK: Duration = Duration::from_millis(50);

/// How long threads that were told to end are waited for before they are left behind.
const GRACE: Duration = Duration::from_millis(500);

/// How long assemblers that were told to end have to seal what they packed: a few synced writes, on a disk that others keep busy.
const SEALING: Duration = Duration::from_secs(2);

/// One pass; see the module.
pub struct Pass<'a> {
    work: PassWork,
    control: &'a PassControl,
    credits: Credits,
    pool: Arc<Pool<FrameTask>>,
    stop: CancelToken,
    stop_at_cut: Arc<AtomicBool>,
    give_up: CancelToken,
    packing: Arc<AtomicBool>,
    frames_done: Arc<AtomicU64>,
    frames_adopted: Arc<AtomicU64>,
    under_way: Arc<UnderWay>,
    /// The frame that the decoder is at.
    decoding: Arc<AtomicU64>,
    report: PassReport,
}

/// The stages of a pass and what they send.
struct Running {
    decoder: StageHandle,
    scorers: Arc<StageHandle>,
    encoders: StageHandle,
    feed: Receiver<Result<Vec<String>>>,
    assembled: Receiver<Assembled>,
    poisoned: Receiver<Poisoned<FrameTask>>,
}

/// What has ended already.
#[derive(Default)]
struct Ended {
    feed: bool,
    scorers: bool,
    drain: bool,
}

impl<'a> Pass<'a> {
    /// Prepares a pass; nothing runs yet.
    #[must_use]
    pub fn new(mut work: PassWork, control: &'a PassControl) -> Self {
        let items = if work.order.alone().is_some() {
            // One frame at a time, each packed: whatever kills this process names itself by what is missing.
            work.assemblers = 1;
            1
        } else {
            flight::frames(&work)
        };
        let credits = Credits::new(CreditLimit { items, bytes: work.frame_bytes.saturating_mul(items as u64) });
        let pool = Arc::new(Pool::new(PoolConfig::default(), Arc::clone(&work.clock)));
        Self {
            work,
            control,
            credits,
            pool,
            stop: CancelToken::new(),
            stop_at_cut: Arc::default(),
            give_up: CancelToken::new(),
            // Until the pace is known a frame may take minutes.
            packing: Arc::new(AtomicBool::new(true)),
            frames_done: Arc::default(),
            frames_adopted: Arc::default(),
            under_way: Arc::default(),
            decoding: Arc::default(),
            report: PassReport::default(),
        }
    }

    /// Runs the pass to its end; blocks. `on_news` is told what happens, on this thread.
    ///
    /// # Errors
    /// What concerns the whole job: the ledger cannot be read, no threads. Failures of segments are in the report.
    pub fn run(mut self, on_news: &mut dyn FnMut(PassNews<'_>)) -> Result<PassReport> {
        let plane = ControlPlane::start_with(Arc::clone(&self.work.clock))?;
        let running = self.start(&plane)?;
        self.show_finished();
        self.control.attach(&running.scorers, self.link_reader());
        self.watch(&running, on_news);
        self.control.detach();
        for stage in [&running.decoder, &*running.scorers, &running.encoders] {
            // A stage that has ended answers with an error, which is what is wanted.
            let _ = stage.stop(GRACE);
            stage.wait_timeout(GRACE);
        }
        self.report.interrupted = self.control.is_draining();
        self.tell(on_news);
        Ok(self.report)
    }

    fn start(&self, plane: &ControlPlane) -> Result<Running> {
        let (opener, opened) = bounded(0);
        let (results, assembled) = unbounded();
        let encoders = self.start_assemblers(plane, opened, results)?;
        let scorers = Arc::new(self.start_scorers(plane)?);
        let parts = FeedParts {
            cuts: self.cuts(),
            credits: self.credits.clone(),
            pool: Arc::clone(&self.pool),
            opener,
            segments: self.work.segments.clone(),
            adopted: Arc::clone(&self.work.adopted),
            order: Arc::new(self.work.order.clone()),
            frame_bytes: self.work.frame_bytes,
            board: Arc::clone(self.control.board()),
            at: Arc::clone(&self.decoding),
            stop: self.stop.clone(),
            stop_at_cut: Arc::clone(&self.stop_at_cut),
        };
        let (decoder, feed) = self.start_feed(plane, parts)?;
        Ok(Running { decoder, scorers, encoders, feed, assembled, poisoned: self.pool.poisoned() })
    }

    fn cuts(&self) -> Cuts {
        let first = self.work.scan.finished.get(&SegmentIndex(0));
        Cuts { ticks: self.work.segment_ticks, origin: first.map(|h| h.first_pts) }
    }

    fn start_assemblers(
        &self,
        plane: &ControlPlane,
        opened: Receiver<OpenSegment>,
        results: Sender<Assembled>,
    ) -> Result<StageHandle> {
        let parts = AssemblerParts {
            opened,
            results,
            writers: Arc::clone(&self.work.writer),
            segments: self.work.segments.clone(),
            frames_done: Arc::clone(&self.frames_done),
            frames_adopted: Arc::clone(&self.frames_adopted),
            packing: Arc::clone(&self.packing),
            give_up: self.give_up.clone(),
            under_way: Arc::clone(&self.under_way),
            board: Arc::clone(self.control.board()),
            clock: Arc::clone(&self.work.clock),
        };
        // Each thread takes its own share, so that the results end when the last thread does.
        let shares = Mutex::new(vec![parts; self.work.assemblers]);
        let nodes = (0..self.work.assemblers).map(|k| NodeSpec::new(format!("encode-{k}").as_str(), "cpu")).collect();
        let spec = StageSpec {
            name: "encode".into(),
            policy: RestartPolicy::never(),
            hang_after: Some(self.work.hang_after),
            nodes,
        };
        let run = move |context: WorkerContext| {
            let Some(parts) = shares.lock().unwrap_or_else(PoisonError::into_inner).pop() else {
                return ExitReason::Stopped;
            };
            Assembler::new(parts, &context).run();
            ExitReason::Finished
        };
        Ok(plane.stage(spec, run)?)
    }

    fn start_scorers(&self, plane: &ControlPlane) -> Result<StageHandle> {
        let spec = StageSpec {
            name: "score".into(),
            policy: RestartPolicy {
                preempted_return_after: self.work.preempted_return_after,
                ..RestartPolicy::restarting()
            },
            hang_after: Some(self.work.hang_after),
            nodes: self
                .work
                .nodes
                .iter()
                .map(|n| NodeSpec { away: self.control.is_held(&n.id), ..n.clone() })
                .collect(),
        };
        let (factory, pool, log) = (Arc::clone(&self.work.scorer), Arc::clone(&self.pool), Arc::clone(&self.work.log));
        let board = Arc::clone(self.control.board());
        let run = move |context: WorkerContext| {
            let built = fault::fallible("scorer:start").map_err(|e| ActorError::Device(e.to_string()));
            let scorer = match built.and_then(|()| factory()) {
                Ok(scorer) => scorer,
                Err(error) => return ExitReason::NotStarted { status: error.status(), message: error.to_string() },
            };
            let mut stage = ScoreStage::new(scorer, Arc::clone(&log));
            work(&context, &pool, &mut stage, &mut |item: Item<Delivery>| {
                let number = item.payload.frame.number;
                board.scored(number, log.was_scored_before(number));
                deliver(item);
            })
        };
        Ok(plane.stage(spec, run)?)
    }

    fn start_feed(
        &self,
        plane: &ControlPlane,
        parts: FeedParts,
    ) -> Result<(StageHandle, Receiver<Result<Vec<String>>>)> {
        let (ended, feed) = bounded(1);
        let todo = self.work.scan.todo()?;
        let (blob, source, scan) =
            (Arc::clone(&self.work.blob), Arc::clone(&self.work.source), Arc::clone(&self.work.scan));
        let (conceal, card) = (self.work.conceal, self.work.decode_on);
        let parts = Mutex::new(Some((parts, ended)));
        let run = move |context: WorkerContext| {
            let taken = parts.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((parts, ended)) = taken else { return ExitReason::Stopped };
            let progress = context.progress.clone();
            let options = DecodeOptions {
                conceal,
                card,
                cancel: parts.stop.clone(),
                progress: progress.clone(),
                ..DecodeOptions::default()
            };
            let decoder = FrameDecoder::open(Arc::clone(&blob), &source, options);
            let fed = decoder.and_then(|d| Feed::new(d, parts, progress).run(&todo.runs, &scan));
            // The pass may have given up on its feed.
            let _ = ended.send(fed);
            ExitReason::Finished
        };
        let nodes = vec![NodeSpec::new("decode", "cpu")];
        let spec = StageSpec {
            name: "decode".into(),
            policy: RestartPolicy::never(),
            hang_after: Some(self.work.hang_after),
            nodes,
        };
        Ok((plane.stage(spec, run)?, feed))
    }

    /// Waits for the end of everything, and gives up what has not ended at the deadline.
    fn watch(&mut self, running: &Running, on_news: &mut dyn FnMut(PassNews<'_>)) {
        let started = self.work.clock.now();
        let mut ended = Ended::default();
        let scorers_ended = running.scorers.ended().ended();
        loop {
            self.tell(on_news);
            self.take_node_events(running, on_news);
            self.set_packing(started);
            self.drain(running, &mut ended);
            let (idle_feed, idle_scorers) = (never(), never());
            select! {
                recv(if ended.feed { &idle_feed } else { &running.feed }) -> fed => {
                    ended.feed = true;
                    self.feed_ended(fed.unwrap_or_else(|_| Err(self.decoder_crashed("panicked"))));
                }
                recv(if ended.scorers { &idle_scorers } else { scorers_ended }) -> _ => {
                    ended.scorers = true;
                    self.scorers_ended(running);
                }
                recv(running.assembled) -> assembled => match assembled {
                    Ok(assembled) => self.segment_ended(assembled, on_news),
                    // Every assembler has ended, so no segment is open and none will be.
                    Err(_) => break,
                },
                recv(running.poisoned) -> poisoned => if let Ok(poisoned) = poisoned { condemn(poisoned) },
                default(LOOK) => {}
            }
            if self.has_hung(running) || self.control.is_late() {
                self.abandon(running, on_news);
                break;
            }
        }
        self.take_node_events(running, on_news);
    }
}

impl Pass<'_> {
    fn tell(&self, on_news: &mut dyn FnMut(PassNews<'_>)) {
        let (scored, adopted) = (&self.frames_done, &self.frames_adopted);
        on_news(PassNews::Frames { scored: scored.load(Ordering::Relaxed), adopted: adopted.load(Ordering::Relaxed) });
    }

    /// Packs are written while a segment takes longer than what may be lost.
    fn set_packing(&self, started: Duration) {
        let done = self.frames_done.load(Ordering::Relaxed);
        if done == 0 || self.work.order.alone().is_some() {
            return;
        }
        let frames = flight::segment_frames(&self.work);
        let each = (self.work.clock.now() - started) / u32::try_from(done).unwrap_or(u32::MAX);
        self.packing.store(PackPolicy::default().wants_packs(frames, each), Ordering::Relaxed);
    }

    /// Turns a drain of the job into one of the stages: with packs everything stops now, without them the open segments are completed.
    fn drain(&self, running: &Running, ended: &mut Ended) {
        let Some(notice) = self.control.notice_left().filter(|_| !ended.drain) else { return };
        ended.drain = true;
        self.stop_at_cut.store(true, Ordering::SeqCst);
        if self.packing.load(Ordering::Relaxed) {
            self.stop.cancel();
            // A stage that ended by itself needs no drain.
            let _ = running.scorers.drain(notice);
        }
    }

    fn feed_ended(&mut self, fed: Result<Vec<String>>) {
        self.pool.close();
        match fed {
            Ok(warnings) => self.report.warnings.extend(warnings),
            Err(ActorError::Cancelled) => {}
            Err(error) => self.report.failures.push(error),
        }
    }

    /// After the scorers nothing more can arrive: a segment that is not whole by then never will be.
    fn scorers_ended(&mut self, running: &Running) {
        // Seen before the segments are given up: a frame that cannot be scored is a reason, not an abandonment.
        running.poisoned.try_iter().for_each(condemn);
        let report = running.scorers.wait();
        let stats = self.pool.stats();
        // Scorers may be gone before the first frame came to be shared out.
        let is_unfinished =
            stats.committed + stats.poisoned < stats.pushed || report.outcome == StageOutcome::Exhausted;
        if is_unfinished && !self.control.is_draining() {
            self.report.failures.push(left::nobody_left(&report));
        }
        self.stop.cancel();
        self.give_up.cancel();
    }

    fn segment_ended(&mut self, assembled: Assembled, on_news: &mut dyn FnMut(PassNews<'_>)) {
        match assembled {
            Assembled::Committed { segment, frames, adopted, took } => {
                on_news(PassNews::Segment { segment, frames, adopted, took });
                self.report.committed.insert(segment, (frames, adopted));
            }
            Assembled::Abandoned { segment } => tracing::debug!(%segment, "segment abandoned"),
            Assembled::Failed { segment, error } => {
                tracing::warn!(%segment, %error, "segment failed");
                self.report.failures.push(error);
            }
        }
    }

    fn take_node_events(&mut self, running: &Running, on_news: &mut dyn FnMut(PassNews<'_>)) {
        for event in running.scorers.events().try_iter() {
            on_news(PassNews::Node(&event.kind));
            match event.kind {
                SupervisionEventKind::WorkerExited { node, reason, .. } if reason.is_failure() => {
                    self.report.warnings.push(format!("scorer {node} {reason}"));
                }
                SupervisionEventKind::NodeGivenUp { node, reason } => {
                    self.report.warnings.push(format!("scorer {node} is not started again: {reason}"));
                }
                _ => {}
            }
        }
    }
}

/// Sends a scored frame to the assembler of its segment.
fn deliver(item: Item<Delivery>) {
    let (delivery, credit) = {
        let id = item.id;
        let (delivery, credit) = item.into_parts();
        ((id, delivery), credit)
    };
    let (id, Delivery { frame, route }) = delivery;
    // An assembler that died is seen by the pass; the frame's credit goes back here.
    let _ = route.try_send(Arrival::Scored(Item::new(id, frame, credit)));
}

/// Tells the segment of a frame that it cannot be scored.
fn condemn(poisoned: Poisoned<FrameTask>) {
    let number = poisoned.item.payload.number;
    let message = format!("scoring failed {} times: {}", poisoned.item.attempt.0, poisoned.reason);
    let _ = poisoned.item.payload.route.try_send(Arrival::Failed { number, message });
}
