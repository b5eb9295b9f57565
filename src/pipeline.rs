//! The one place that reads source, decode, score, encode, publish.
//!
//! A [`Pipeline`] runs jobs, each on threads of its own; several pipelines may live in one process. It installs no signal handler, sets up
//! no logging, keeps no global state and never ends the process.

use crate::config::Config;
use crate::course::interrupted;
use crate::drive::Drive;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Failed, Finished, Planned};
use crate::job::Job;
use crate::prepare::Prepared;
use crate::scorers::Shelf;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use restyle_actors::board::MarkRun;
use restyle_actors::control::{LinkReading, PassControl};
use restyle_engine::clock::{Clock, SystemClock};
use restyle_engine::error::EngineError;
use restyle_engine::supervise::NodeObservation;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Runs styling jobs.
pub struct Pipeline {
    config: Config,
    clock: Arc<dyn Clock>,
    shelf: Option<Arc<Shelf>>,
}

impl Pipeline {
    /// Checks that the device is there.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when it is not.
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::with_clock(config, SystemClock::shared())
    }

    /// As [`Pipeline::new`], with another clock than the machine's.
    ///
    /// # Errors
    /// As [`Pipeline::new`].
    pub fn with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        config.device.check().map_err(|e| Error::new(ErrorKind::Device, e.to_string()))?;
        Ok(Self { config, clock, shelf: None })
    }

    /// Has its jobs take networks from a shelf and put them back there, for whoever runs one job after another.
    #[must_use]
    pub fn with_shelf(self, shelf: Arc<Shelf>) -> Self {
        Self { shelf: Some(shelf), ..self }
    }

    /// Decides everything about a job and does nothing; blocks while the source's headers are read.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    pub fn plan(&self, job: &Job) -> Result<Planned, Error> {
        let prepared = Prepared::open(&self.config, job)?;
        Drive::planned(&self.config, &prepared)
    }

    /// Starts a job and returns at once; its errors come as its last event and from [`RunningJob::wait`].
    ///
    /// # Errors
    /// [`ErrorKind::JobFailed`] when no thread can be had.
    pub fn submit(&self, job: Job) -> Result<RunningJob, Error> {
        // Bounded by the pace of progress; a reader that stops reading loses progress, never the last event.
        let (events, told) = crossbeam_channel::unbounded();
        let control = JobControl { pass: PassControl::new(Arc::clone(&self.clock)) };
        let (config, clock, pass) = (self.config.clone(), Arc::clone(&self.clock), control.pass.clone());
        let shelf = self.shelf.clone();
        let thread = std::thread::Builder::new()
            .name("restyle-job".into())
            .spawn(move || run(Drive::new(config, clock, pass, events.clone()).with_shelf(shelf), &job, &events))
            .map_err(|e| Error::new(ErrorKind::JobFailed, format!("cannot start a thread for the job: {e}")))?;
        Ok(RunningJob { told, control, thread })
    }
}

/// Runs a job to its end and tells the end as the last event.
fn run(mut drive: Drive, job: &Job, events: &Sender<Event>) -> Result<Finished, Error> {
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drive.run(job)));
    let result =
        unwound.unwrap_or_else(|_| Err(Error::new(ErrorKind::JobFailed, "the job panicked: this is a bug in restyle")));
    let result = result.map_err(|error| if drive.is_cut_short(&error) { interrupted() } else { error });
    let last = match &result {
        Ok(finished) => Event::Finished(finished.clone()),
        Err(error) => Event::Failed(Failed::new(drive.job_id(), error)),
    };
    // Nobody may be listening any more.
    let _ = events.send(last);
    result
}

/// A job that was submitted.
pub struct RunningJob {
    told: Receiver<Event>,
    control: JobControl,
    thread: JoinHandle<Result<Finished, Error>>,
}

impl RunningJob {
    /// Returns the job's events, ending after the last; blocks between them.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        self.told.iter()
    }

    /// Returns the next event; blocks for `timeout` at most.
    #[must_use]
    pub fn next_event(&self, timeout: Duration) -> NextEvent {
        match self.told.recv_timeout(timeout) {
            Ok(event) => NextEvent::Told(event),
            Err(RecvTimeoutError::Timeout) => NextEvent::Silent,
            Err(RecvTimeoutError::Disconnected) => NextEvent::Ended,
        }
    }

    /// Returns a handle that steers the job from another thread.
    #[must_use]
    pub fn control(&self) -> JobControl {
        self.control.clone()
    }

    /// Waits for the job's end.
    ///
    /// # Errors
    /// The job's error.
    pub fn wait(self) -> Result<Finished, Error> {
        self.thread.join().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::JobFailed, "the job's thread panicked: this is a bug in restyle"))
        })
    }
}

/// What waiting for an event came to.
#[derive(Debug)]
pub enum NextEvent {
    /// This happened.
    Told(Event),
    /// Nothing in that time.
    Silent,
    /// Nothing more will be told.
    Ended,
}

/// Steers a running job; clones steer the same one.
#[derive(Clone)]
pub struct JobControl {
    pass: PassControl,
}

impl JobControl {
    /// Stops the job within `notice`: finishes what can be finished, keeps it, and ends with [`ErrorKind::Interrupted`].
    pub fn drain(&self, notice: Duration) {
        self.pass.drain(notice);
    }

    /// Gives a scorer node notice: it finishes the batch it has, others take over the rest of its work, and it comes back
    /// by [`Config::preempted_return_after`]. What is not finished at the end of the notice goes to others as well.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when no frames are being scored now, or there is no such node.
    pub fn preempt(&self, node: &str, notice: Duration) -> Result<(), Error> {
        self.pass.preempt(&node.into(), notice).map_err(refused)
    }

    /// Takes a node away without notice: what it has in hand is scored again by others.
    ///
    /// # Errors
    /// As [`JobControl::preempt`].
    pub fn kill(&self, node: &str) -> Result<(), Error> {
        self.pass.kill(&node.into()).map_err(refused)
    }

    /// Has a node finish its batch and wait until it is resumed.
    ///
    /// # Errors
    /// As [`JobControl::preempt`], and for a node that is not working.
    pub fn pause(&self, node: &str) -> Result<(), Error> {
        self.pass.pause(&node.into()).map_err(refused)
    }

    /// Has a paused or pre-empted node work again.
    ///
    /// # Errors
    /// As [`JobControl::preempt`], and for a node that has done its part.
    pub fn resume(&self, node: &str) -> Result<(), Error> {
        self.pass.resume(&node.into()).map_err(refused)
    }

    /// Keeps a node away until it is released, whatever it does now and whatever the job does next: its network is given up,
    /// its work goes to others. At least one node of a job should not be held.
    pub fn hold(&self, node: &str, notice: Duration) {
        self.pass.hold(&node.into(), notice);
    }

    /// Lets a node that was held work again.
    pub fn release(&self, node: &str) {
        self.pass.release(&node.into());
    }

    /// Returns the scorer nodes as they are now; none while no frames are being scored.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeObservation> {
        self.pass.observe()
    }

    /// Returns what each frame has come to in this run, in order and without gaps.
    #[must_use]
    pub fn frames(&self) -> Vec<MarkRun> {
        self.pass.board().runs()
    }

    /// Returns the hand-offs between the stages as they are now; none while no frames are being scored.
    #[must_use]
    pub fn links(&self) -> Vec<LinkReading> {
        self.pass.links()
    }

    /// Stops the job at once; what is in flight is lost, what is finished stays.
    pub fn cancel(&self) {
        self.pass.drain(Duration::ZERO);
    }
}

fn refused(error: EngineError) -> Error {
    Error::new(ErrorKind::Usage, error.to_string())
}
