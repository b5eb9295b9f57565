//! Drives one job from its request to its published output.

use crate::calibrate::{self, Calibrated};
use crate::config::Config;
use crate::course::{Course, Packed, interrupted, verdict};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Finished, NodeEvent, Planned, Progress, SegmentCommitted};
use crate::job::{Job, Overwrite};
use crate::pace::Pace;
use crate::prepare::{Plan, Prepared};
use crate::scorers::{self, Blueprint, Shelf};
use crate::work_store::{TellWait, WorkLock, WorkPlace, WorkStore};
use crate::workers;
use crossbeam_channel::Sender;
use restyle_actors::ActorError;
use restyle_actors::control::PassControl;
use restyle_actors::encode::SegmentEncoder;
use restyle_actors::feed::PassOrder;
use restyle_actors::pass::{Pass, PassNews, PassReport, PassWork};
use restyle_actors::scored_log::ScoredLog;
use restyle_actors::writer::{SegmentWriter, VideoWriter};
use restyle_engine::clock::Clock;
use restyle_engine::fault;
use restyle_engine::item::SegmentIndex;
use restyle_engine::ledger::{Adopted, Ledger, MeteredStore, PublishedOutput, Scan, SegmentLedger};
use restyle_models::style::PictureShape;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod publish;

/// One job under way.
pub(crate) struct Drive {
    config: Config,
    clock: Arc<dyn Clock>,
    control: PassControl,
    events: Arc<Sender<Event>>,
    shelf: Option<Arc<Shelf>>,
    id: Option<String>,
}

/// What the job object of the ledger says.
#[derive(Debug, Serialize)]
struct Request<'a> {
    input: String,
    output: String,
    style: &'a str,
    style_digest: String,
}

/// A job whose ledger is open and locked.
struct Opened {
    ledger: Ledger,
    segments: SegmentLedger,
    plan: Plan,
    calibrated: Option<Calibrated>,
    /// Where files of the job lie that are no objects: what is staged, hints.
    folder: PathBuf,
    store: WorkStore,
    metered: MeteredStore,
    lock: WorkLock,
}

/// How often a job goes back to scoring because a segment was damaged or lost before it was joined.
const JOIN_ROUNDS_MAX: u32 = 3;

/// How long the pass after a crashed stage is put off, times the passes without a new segment.
const CRASH_PAUSE: Duration = Duration::from_millis(500);

/// A job that this process alone may work on.
struct Claimed {
    ledger: Ledger,
    folder: PathBuf,
    store: WorkStore,
    metered: MeteredStore,
    lock: WorkLock,
}

/// What was done so far in this run.
#[derive(Default)]
struct Tally {
    /// Segments of this run that stand: the frames of each, and how many of them came from packs.
    committed: BTreeMap<SegmentIndex, (u32, u32)>,
    frames_rescored: u64,
    segments_reused: u64,
    frames_reused: u64,
    /// Objects of the store that were passed over, by their keys.
    damaged: BTreeSet<String>,
}

impl Tally {
    /// Frames of the output that were scored in this run.
    fn frames_scored(&self) -> u64 {
        self.committed.values().map(|(frames, adopted)| u64::from(frames - adopted)).sum()
    }
}

impl Drive {
    pub(crate) fn new(config: Config, clock: Arc<dyn Clock>, control: PassControl, events: Sender<Event>) -> Self {
        Self { config, clock, control, events: Arc::new(events), shelf: None, id: None }
    }

    /// Takes networks from a shelf and puts them back there.
    pub(crate) fn with_shelf(self, shelf: Option<Arc<Shelf>>) -> Self {
        Self { shelf, ..self }
    }

    /// Returns the job's id once it is known.
    pub(crate) fn job_id(&self) -> Option<String> {
        self.id.clone()
    }

    /// Whether an error only says that a wait for a store was ended by being told to stop.
    pub(crate) fn is_cut_short(&self, error: &Error) -> bool {
        self.control.is_draining() && matches!(error.kind(), ErrorKind::DiskFull | ErrorKind::Storage)
    }

    /// Tells a plan for which nothing has been done yet.
    pub(crate) fn planned(config: &Config, prepared: &Prepared) -> Result<Planned, Error> {
        let config = workers::settled(config, prepared);
        Ok(Self::planned_with(&config, prepared, &prepared.plan, &Tally::default()))
    }

    fn planned_with(config: &Config, prepared: &Prepared, plan: &Plan, tally: &Tally) -> Planned {
        Planned {
            job: prepared.id.to_string(),
            frames_about: plan.source.video.frames_about,
            frames_reused: tally.frames_reused,
            segments_reused: tally.segments_reused,
            workers: config.worker_count(),
            device: config.device.to_string(),
            size: plan.source.video.upright_size(),
            encoder: format!("{} {}", plan.encoder.codec.name(), plan.encoder.pix_fmt),
            work: WorkPlace::from(config).to_string().into(),
            warnings: prepared.warnings.clone(),
        }
    }

    /// Runs the job.
    ///
    /// # Errors
    /// What ended it; [`ErrorKind::Interrupted`] when it was told to stop.
    pub(crate) fn run(&mut self, job: &Job) -> Result<Finished, Error> {
        let started = self.clock.now();
        let prepared = Prepared::open(&self.config, job)?;
        self.id = Some(prepared.id.to_string());
        self.config = workers::settled(&self.config, &prepared);
        for message in &prepared.warnings {
            self.warn(message);
        }
        let claimed = self.claim(&prepared)?;
        // Looked at before anything is thrown away or begun: a refusal leaves the job as it was.
        let standing = self.published_already(&claimed.ledger, &prepared, job.overwrite)?;
        let replace = job.overwrite == Overwrite::Allowed || standing.is_some();
        if let Some(done) = standing.filter(|_| !job.fresh) {
            return self.nothing_to_do(&claimed, &done, started);
        }
        let opened = self.open(job, &prepared, claimed)?;
        let (tally, published) = self.score_and_publish(&opened, &prepared, replace)?;
        let finished = self.finished(&opened, &published, &tally, started)?;
        if self.config.collects {
            crate::jobs::collect_others(&opened.ledger, &opened.store);
        }
        Ok(finished)
    }

    /// Takes the job for this process alone: waits while another one works on it.
    fn claim(&self, prepared: &Prepared) -> Result<Claimed, Error> {
        let store = WorkStore::open(&WorkPlace::from(&self.config), self.control.token(), self.teller())?;
        let writer = crate::jobs::writer_name(&*self.clock);
        let lock = self.lock(&store, prepared, &writer)?;
        if self.config.collects {
            store.watch_leases();
        }
        let folder = store.job_folder(&prepared.id);
        let metered = MeteredStore::new(Arc::clone(store.objects()), Arc::clone(&self.clock));
        let ledger = Ledger::new(Arc::new(metered.clone()), prepared.id, writer);
        Ok(Claimed { ledger, folder, store, metered, lock })
    }

    /// Begins the job or goes on with it.
    fn open(&self, job: &Job, prepared: &Prepared, claimed: Claimed) -> Result<Opened, Error> {
        let Claimed { ledger, folder, store, metered, lock } = claimed;
        if job.fresh {
            crate::jobs::forget(&ledger, &folder)?;
        }
        ledger.open_or_create_job(&Request {
            // Without what a URL may carry besides its name.
            input: prepared.blob.location().to_string(),
            output: prepared.output.to_string(),
            style: &prepared.style.name,
            style_digest: prepared.style.digest(),
        })?;
        fault::point("plan:before");
        let stated = ledger.fix_plan(&prepared.plan)?.value;
        fault::point("plan:after");
        let plan: Plan = stated.content()?;
        if plan.numeric_class != prepared.plan.numeric_class {
            let message = format!(
                "this job was begun as `{}` and this process is `{}`: the pictures would differ; finish it there, or add --fresh",
                plan.numeric_class, prepared.plan.numeric_class
            );
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        let calibrated = calibrate::fixed(&ledger, prepared, &plan, self.config.device, self.control.token())?;
        if let Some(message) = calibrated.as_ref().and_then(|c| c.warning.as_deref()) {
            self.warn(message);
        }
        Ok(Opened { segments: ledger.segments(&stated), ledger, plan, calibrated, folder, store, metered, lock })
    }

    fn lock(&self, store: &WorkStore, prepared: &Prepared, writer: &str) -> Result<WorkLock, Error> {
        let tell = |holder: &str| self.warn(&format!("{holder} works on this job: waiting for it"));
        store.lock_blocking(&prepared.id, writer, self.control.token(), tell)?.ok_or_else(interrupted)
    }

    /// Scores what is missing and publishes; where a segment is damaged or gone when they are joined, it is made again.
    fn score_and_publish(
        &self,
        opened: &Opened,
        prepared: &Prepared,
        replace: bool,
    ) -> Result<(Tally, PublishedOutput), Error> {
        let (mut tally, mut rounds_left) = (Tally::default(), JOIN_ROUNDS_MAX);
        loop {
            rounds_left -= 1;
            let scan = self.score_everything(opened, prepared, &mut tally)?;
            fault::point("publish:begin");
            match self.publish(opened, prepared, &scan, replace) {
                Ok(published) => return Ok((tally, published)),
                Err(error) if rounds_left == 0 || opened.segments.scan()?.todo()?.is_complete() => {
                    return Err(error);
                }
                Err(error) => self.warn(&format!("a segment is not what it was: {error}; it is made again")),
            }
        }
    }

    /// Runs passes until every segment is in the ledger, and returns what stands there.
    fn score_everything(&self, opened: &Opened, prepared: &Prepared, tally: &mut Tally) -> Result<Arc<Scan>, Error> {
        let log = Arc::new(ScoredLog::open(&opened.folder)?);
        let mut scan = Arc::new(opened.segments.scan()?);
        let mut course = Course::begin(&opened.ledger, opened.lock.taken_from())?;
        for (key, rejection) in &scan.rejected {
            self.warn(&format!("{key} is not used: {rejection}"));
        }
        tally.damaged.extend(scan.damaged_keys().map(str::to_owned));
        let todo = scan.todo()?;
        tally.segments_reused = u64::from(todo.segments_finished);
        tally.frames_reused = todo.items_finished;
        self.tell(Event::Planned(Self::planned_with(&self.config, prepared, &opened.plan, tally)));
        let pace = Pace::start(Arc::clone(&self.clock), &opened.plan.source, tally.frames_reused);
        while !scan.todo()?.is_complete() {
            if self.control.is_draining() {
                return Err(interrupted());
            }
            let packed = Arc::new(self.adopt(opened, &scan)?);
            tally.damaged.extend(packed.values().flat_map(Adopted::damaged).map(str::to_owned));
            let order = course.next(&scan, &packed)?;
            if let Some(segment) = order.alone() {
                self.warn(&format!("segment {segment} runs alone: processes died while they worked on it"));
            }
            let scope = order.scope.clone();
            let report = self.pass(opened, prepared, order, (scan, packed), &log, &pace)?;
            for message in &report.warnings {
                self.warn(message);
            }
            course.passed(scope, &report);
            tally.committed.extend(&report.committed);
            let crashed = report.failures.iter().any(|e| matches!(e, ActorError::Crashed { .. }));
            if let Some(error) = verdict(report, course.barren()) {
                return Err(error);
            }
            if crashed {
                // What crashed for want of something may find it later.
                self.control.token().wait_timeout(CRASH_PAUSE * (1 + course.barren()));
            }
            scan = Arc::new(opened.segments.scan()?);
        }
        tally.frames_rescored += log.rescored();
        Ok(scan)
    }

    /// Finds what packs hold of segments that are not finished.
    fn adopt(&self, opened: &Opened, scan: &Scan) -> Result<Packed, Error> {
        let adopted = opened.segments.adopt(scan)?;
        for (segment, found) in &adopted {
            for (key, rejection) in &found.rejected {
                self.warn(&format!("{key} of segment {segment} is not used: {rejection}"));
            }
        }
        Ok(adopted)
    }

    fn pass(
        &self,
        opened: &Opened,
        prepared: &Prepared,
        order: PassOrder,
        (scan, adopted): (Arc<Scan>, Arc<Packed>),
        log: &Arc<ScoredLog>,
        pace: &Pace,
    ) -> Result<PassReport, Error> {
        let blueprint = Blueprint {
            parts: prepared.style.parts.clone(),
            controls: opened.plan.controls,
            device: self.config.device,
            threads: self.config.threads_per_worker(),
            ranges: opened.calibrated.as_ref().and_then(|c| c.calibration.ranges().cloned()),
            options: prepared.stylize_options(),
            shape: decoded_shape(&opened.plan),
        };
        let shelf = self.shelf.clone();
        let settings = Arc::new(opened.plan.encoder.clone());
        let work = PassWork {
            blob: Arc::clone(&prepared.blob),
            source: Arc::new(opened.plan.source.clone()),
            conceal: opened.plan.conceal,
            decode_on: prepared.decode_on,
            segment_ticks: opened.plan.segment_ticks,
            segments: opened.segments.clone(),
            scan,
            adopted,
            order,
            nodes: scorers::nodes(&self.config),
            assemblers: self.config.assembler_count().min(opened.plan.encoder.codec.sessions_max()),
            scorer: Arc::new(move || Ok(blueprint.scorer(shelf.as_ref())?)),
            writer: Arc::new(move || {
                Ok(Box::new(VideoWriter::new(SegmentEncoder::new(&settings)?)) as Box<dyn SegmentWriter>)
            }),
            frame_bytes: frame_bytes(&opened.plan),
            hang_after: self.config.hang_after,
            preempted_return_after: self.config.preempted_return_after,
            log: Arc::clone(log),
            clock: Arc::clone(&self.clock),
        };
        let mut on_news = |news: PassNews<'_>| {
            let event = match news {
                PassNews::Frames { scored, adopted } => pace.progress(scored, adopted).map(Event::Progress),
                PassNews::Node(kind) => NodeEvent::of(kind).map(Event::Node),
                PassNews::Segment { .. } => SegmentCommitted::of(&news).map(Event::Segment),
            };
            if let Some(event) = event {
                self.tell(event);
            }
        };
        Ok(Pass::new(work, &self.control).run(&mut on_news)?)
    }

    /// Tells that an earlier run did everything.
    fn nothing_to_do(&self, claimed: &Claimed, output: &PublishedOutput, started: Duration) -> Result<Finished, Error> {
        let segments = match claimed.ledger.plan()? {
            Some(plan) => claimed.ledger.segments(&plan).scan()?.finished.len() as u64,
            None => 0,
        };
        Ok(Finished {
            job: claimed.ledger.job().to_string(),
            frames: output.items,
            frames_scored: 0,
            frames_reused: output.items,
            frames_rescored: 0,
            segments,
            segments_reused: segments,
            wall_seconds: (self.clock.now() - started).as_secs_f64(),
            fps: 0.0,
            output: output.output.clone(),
            bytes: output.bytes,
            blake3: output.blake3.to_string(),
            nothing_to_do: true,
            ledger_seconds: claimed.metered.stats().call_time().as_secs_f64(),
            storage_full_waits: claimed.store.full_waits(),
            objects_damaged: 0,
        })
    }

    fn finished(
        &self,
        opened: &Opened,
        output: &PublishedOutput,
        tally: &Tally,
        started: Duration,
    ) -> Result<Finished, Error> {
        let wall_seconds = (self.clock.now() - started).as_secs_f64();
        Ok(Finished {
            job: opened.ledger.job().to_string(),
            frames: output.items,
            frames_scored: tally.frames_scored(),
            frames_reused: output.items.saturating_sub(tally.frames_scored()),
            frames_rescored: tally.frames_rescored,
            segments: opened.segments.scan()?.finished.len() as u64,
            segments_reused: tally.segments_reused,
            wall_seconds,
            fps: tally.frames_scored() as f64 / wall_seconds.max(1e-9),
            output: output.output.clone(),
            bytes: output.bytes,
            blake3: output.blake3.to_string(),
            nothing_to_do: false,
            ledger_seconds: opened.metered.stats().call_time().as_secs_f64(),
            storage_full_waits: opened.store.full_waits(),
            objects_damaged: tally.damaged.len() as u64,
        })
    }

    fn phase(&self, phase: &'static str, frames: u64) {
        self.tell(Event::Progress(Progress {
            frames_done: frames,
            frames_about: Some(frames),
            fps: 0.0,
            speed: None,
            eta_seconds: None,
            phase,
        }));
    }

    /// Returns what tells a person of waits that are not this thread's. It keeps nothing open: threads that a hung store
    /// holds may outlive the job.
    fn teller(&self) -> Arc<TellWait> {
        let events = Arc::downgrade(&self.events);
        Arc::new(move |message: &str| {
            if let Some(events) = events.upgrade() {
                drop(events.send(Event::Warning { message: message.to_owned() }));
            }
        })
    }

    fn warn(&self, message: &str) {
        self.tell(Event::Warning { message: message.to_owned() });
    }

    fn tell(&self, event: Event) {
        // A listener that went away does not stop the job.
        let _ = self.events.send(event);
    }
}

/// What the decoder's pictures have in common.
fn decoded_shape(plan: &Plan) -> PictureShape {
    let (width, height) = plan.source.video.upright_size();
    PictureShape { width, height, format: plan.source.video.format }
}

/// A frame in flight is held once decoded and once scored.
fn frame_bytes(plan: &Plan) -> u64 {
    let (width, height) = plan.source.video.upright_size();
    let bytes =
        plan.source.video.format.picture_bytes(width, height) + plan.encoder.format.picture_bytes(width, height);
    bytes as u64
}
