//! Steering the passes of a job from another thread.

use crate::board::FrameBoard;
use restyle_engine::cancel::CancelToken;
use restyle_engine::clock::Clock;
use restyle_engine::error::EngineError;
use restyle_engine::supervise::{NodeObservation, NodePhase, StageHandle};
use restyle_engine::worker::NodeId;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a node that should not have begun may finish what it has.
const HELD_NOTICE: Duration = Duration::from_secs(10);

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
    /// Nodes that are to stay away, in this pass and in later ones.
    held: Mutex<BTreeSet<NodeId>>,
    /// Reads the hand-offs of the pass that runs.
    links: Mutex<Option<LinkReader>>,
    board: Arc<FrameBoard>,
}

/// Reads the hand-offs of a pass.
pub(crate) type LinkReader = Box<dyn Fn() -> Vec<LinkReading> + Send>;

/// One hand-off between two stages, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReading {
    /// What it joins.
    pub name: &'static str,
    /// Frames in it.
    pub fill: u64,
    /// Frames that it takes at most.
    pub capacity: u64,
    /// Frames that went in during this pass.
    pub entered: u64,
    /// Frames that came out.
    pub left: u64,
    /// Microseconds that the side before it waited for room.
    pub stall_micros: u64,
}

impl PassControl {
    /// Builds a control that steers nothing yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let inner = Inner {
            clock,
            stop: CancelToken::new(),
            deadline: Mutex::new(None),
            scorers: Mutex::new(None),
            held: Mutex::default(),
            links: Mutex::new(None),
            board: Arc::default(),
        };
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

    /// Keeps a node away until it is released, in later passes too; one that works finishes its batch first.
    pub fn hold(&self, node: &NodeId, notice: Duration) {
        lock(&self.inner.held).insert(node.clone());
        // Between passes, and where it is away already, there is nothing to tell it.
        let _ = self.preempt(node, notice);
    }

    /// Lets a node that was held work again.
    pub fn release(&self, node: &NodeId) {
        lock(&self.inner.held).remove(node);
        let _ = self.resume(node);
    }

    /// Whether a node is held.
    #[must_use]
    pub fn is_held(&self, node: &NodeId) -> bool {
        lock(&self.inner.held).contains(node)
    }

    /// Returns the nodes as they are now; none while no pass runs.
    #[must_use]
    pub fn observe(&self) -> Vec<NodeObservation> {
        self.scorers().and_then(|s| s.observe()).unwrap_or_default()
    }

    /// Returns what each frame has come to in this run.
    #[must_use]
    pub fn board(&self) -> &Arc<FrameBoard> {
        &self.inner.board
    }

    /// Returns the hand-offs as they are now; none while no pass runs.
    #[must_use]
    pub fn links(&self) -> Vec<LinkReading> {
        lock(&self.inner.links).as_ref().map(|read| read()).unwrap_or_default()
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

    pub(crate) fn attach(&self, scorers: &Arc<StageHandle>, links: LinkReader) {
        *lock(&self.inner.scorers) = Some(Arc::clone(scorers));
        *lock(&self.inner.links) = Some(links);
        // Somebody may have held or released a node while the pass began.
        for node in scorers.observe().unwrap_or_default() {
            match (self.is_held(&node.node), node.phase) {
                (true, NodePhase::Working) => drop(scorers.preempt(&node.node, HELD_NOTICE)),
                (false, NodePhase::Away) => drop(scorers.resume(&node.node)),
                _ => {}
            }
        }
    }

    pub(crate) fn detach(&self) {
        *lock(&self.inner.scorers) = None;
        *lock(&self.inner.links) = None;
        self.inner.board.pass_ended();
    }

    fn scorers(&self) -> Result<Arc<StageHandle>, EngineError> {
        lock(&self.inner.scorers).clone().ok_or_else(|| EngineError::ControlGone("no pass is running".into()))
    }
}

/// A lock whose holder panicked guards plain values here, which stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
