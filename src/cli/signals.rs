//! Ctrl-C and SIGTERM: the first drains, the second aborts.

use crate::error::Error;
use crate::pipeline::JobControl;
use restyle_actors::preempt::{Notice, NoticeSource, NoticeWatch};
use restyle_engine::clock::{Clock, SystemClock};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a drain may take before what is in flight is abandoned; the contract says ten seconds for all of it.
const DRAIN_NOTICE: Duration = Duration::from_secs(8);

/// Whether the process was told to stop, and the job that is to be drained then; clones are the same.
#[derive(Clone)]
pub(super) struct StopRequest {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// When, on the clock.
    stopped_at: Option<Duration>,
    job: Option<JobControl>,
}

impl StopRequest {
    /// Installs the handler: the first signal drains, the second ends the process at once.
    pub(super) fn on_signals() -> Self {
        let request = Self { clock: SystemClock::shared(), state: Arc::default() };
        let seen = request.clone();
        let installed = ctrlc::set_handler(move || {
            if !seen.stop() {
                std::process::exit(75);
            }
        });
        if let Err(e) = installed {
            tracing::warn!(error = %e, "signals cannot be handled: an interruption loses the frames in flight");
        }
        request
    }

    /// Drains when this machine's owner says that it will be taken away, for as long as the watch is held.
    pub(super) fn on_notice(&self, source: NoticeSource) -> Result<NoticeWatch, Error> {
        let told = self.clone();
        let on_notice = move |notice: Notice| {
            super::output::say(&format!("restyle: this machine will be taken away: {}", notice.said));
            told.stop();
        };
        Ok(NoticeWatch::start(source, Arc::clone(&self.clock), on_notice)?)
    }

    /// Names the job to drain; drains it at once when the signal came before.
    pub(super) fn attach(&self, job: JobControl) {
        let mut state = self.lock();
        if state.stopped_at.is_some() {
            job.drain(DRAIN_NOTICE);
        }
        state.job = Some(job);
    }

    /// Drains the job, the first time; false when that was asked for before.
    pub(super) fn stop(&self) -> bool {
        let mut state = self.lock();
        if state.stopped_at.is_some() {
            return false;
        }
        state.stopped_at = Some(self.clock.now());
        super::output::say("restyle: stopping; what is finished is kept, a second signal aborts");
        if let Some(job) = &state.job {
            job.drain(DRAIN_NOTICE);
        }
        true
    }

    /// How long ago the process was told to stop.
    pub(super) fn stopped_for(&self) -> Option<Duration> {
        self.lock().stopped_at.map(|at| self.clock.now().saturating_sub(at))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
