//! Steering the passes of a job from another thread.

use restyle_engine::cancel::CancelToken;
use restyle_engine::clock::Clock;
use restyle_engine::error::EngineError;
use restyle_engine::supervise::{NodeObservation, StageHandle};
use restyle_engine::worker::NodeId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Steers the passes of one job; clones steer the same job.
#[derive(Clone)]
pub struct PassControl {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    /// Cancelled by a drain: ends waits that belong to the job and not to a pass.
    stop: CancelToken,
    /// When what is left must be given up, on the clock.
    deadline: Mutex<Option<Duration>>,
    /// The scorers of the pass that runs, if one does.
    scorers: Mutex<Option<Arc<StageHandle>>>,
}

impl PassControl {
    /// Builds a control that steers nothing yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let inner = Inner { clock, stop: CancelToken::new(), deadline: Mutex::new(None), scorers: Mutex::new(None) };
        Self { inner: Arc::new(inner) }
    }

    /// Stops the job within `notice`; the first call counts, a later one with less notice shortens it.
    pub fn drain(&self, notice: Duration) {
        let until = self.inner.clock.now() + notice;
        let mut deadline = lock(&self.inner.deadline);
        *deadline = Some(deadline.map_or(until, |before| before.min(until)));
        drop(deadline);
        self.inner.stop.cancel();
    }

    /// Gives a node notice; it finishes the batch it has, the others take the rest.
    ///
    /// # Errors
    /// When no pass runs or has no such node.
    pub fn preempt(&self, node: &NodeId, notice: Duration) -> Result<(), EngineError> {
        self.scorers()?.preempt(node, notice)
    }

    /// Takes a node away without notice.
    ///
    /// # Errors
    /// When no pass runs or has no such node.
    pub fn kill(&self, node: &NodeId) -> Result<(), EngineError> {
        self.scorers()?.kill(node)
    }

    /// Has a node finish its batch and wait.
    ///
    /// # Errors
    /// When no pass runs or has no such node.
    pub fn pause(&self, node: &NodeId) -> Result<(), EngineError> {
        self.scorers()?.pause(node)
    }

    /// Has a paused or pre-empted node work again.
    ///
    /// # Errors
    /// When no pass runs or has no such node.
    pub fn resume(&self, node: &NodeId) -> Result<(), EngineError> {
        self.scorers()?.resume(node)
    }

    /// Returns the nodes as they are now; none while no pass runs.
    #[must_use]
    pub fn observe(&self) -> Vec<NodeObservation> {
        self.scorers().and_then(|s| s.observe()).unwrap_or_default()
    }

    /// Returns the token that ends the job's own waits when it is told to stop.
    #[must_use]
    pub fn token(&self) -> &CancelToken {
        &self.inner.stop
    }

    /// Whether the job was told to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.stop.is_cancelled()
    }

    /// Returns what is left of the notice of a drain; `None` without one.
    #[must_use]
    pub fn notice_left(&self) -> Option<Duration> {
        lock(&self.inner.deadline).map(|d| d.saturating_sub(self.inner.clock.now()))
    }

    /// Whether the notice is over.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.notice_left().is_some_and(|left| left.is_zero())
    }

    pub(crate) fn attach(&self, scorers: &Arc<StageHandle>) {
        *lock(&self.inner.scorers) = Some(Arc::clone(scorers));
    }

    pub(crate) fn detach(&self) {
        *lock(&self.inner.scorers) = None;
    }

    fn scorers(&self) -> Result<Arc<StageHandle>, EngineError> {
        lock(&self.inner.scorers).clone().ok_or_else(|| EngineError::ControlGone("no pass is running".into()))
    }
}

/// A lock whose holder panicked guards plain values here, which stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
