//! What can wake a supervisor, and what it tells the world.

use std::time::Duration;

use crossbeam_channel::Sender;
use serde::Serialize;

use super::supervisor::NodeClass;
use crate::error::EngineError;
use crate::item::Generation;
use crate::progress::ProgressReading;
use crate::worker::{ExitReason, NodeId};

/// Everything that can wake a supervisor. There is nothing else: no timer of a node, no message of an item.
#[derive(Debug)]
pub(super) enum Wakeup {
    /// The stage begins.
    Started,
    /// Time has passed.
    Ticked,
    /// A worker thread ended.
    Exited { node: usize, generation: Generation, reason: ExitReason },
    /// Somebody wants something done.
    Ordered { order: Order, reply: Sender<Result<(), EngineError>> },
    /// Somebody wants to know.
    Asked { reply: Sender<Vec<NodeObservation>> },
}

/// What can be ordered.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Preempt { node: NodeId, notice: Duration },
    Kill { node: NodeId },
    Pause { node: NodeId },
    Resume { node: NodeId },
    Drain { notice: Duration },
    Stop { grace: Duration },
}

/// Something a supervisor did or saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SupervisionEvent {
    /// The stage.
    pub stage: String,
    /// When, on the control plane's clock.
    pub at: Duration,
    /// What.
    pub kind: SupervisionEventKind,
}

/// What a supervisor did or saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SupervisionEventKind {
    /// A worker thread was started.
    WorkerStarted {
        /// Its node.
        node: NodeId,
        /// Its generation.
        generation: Generation,
    },
    /// A worker ended or was given up.
    WorkerExited {
        /// Its node.
        node: NodeId,
        /// Its generation.
        generation: Generation,
        /// Why.
        reason: ExitReason,
        /// Whether its thread may still be there.
        zombie: bool,
    },
    /// The thread of a worker that had been given up ended after all.
    ZombieEnded {
        /// Its node.
        node: NodeId,
        /// Its generation.
        generation: Generation,
    },
    /// A node will be started again.
    RestartScheduled {
        /// The node.
        node: NodeId,
        /// How long from now.
        after: Duration,
    },
    /// A node will not be started again; the stage goes on without it.
    NodeGivenUp {
        /// The node.
        node: NodeId,
        /// Why its last worker ended.
        reason: ExitReason,
    },
    /// A node was told to leave.
    NodeNotified {
        /// The node.
        node: NodeId,
        /// When what it has not finished goes to others.
        deadline: Duration,
    },
    /// A node was paused.
    NodePaused {
        /// The node.
        node: NodeId,
    },
    /// A node was resumed.
    NodeResumed {
        /// The node.
        node: NodeId,
    },
    /// No node works and none will by itself: the stage waits for one to be resumed.
    StageStarved,
    /// The stage has ended.
    StageEnded {
        /// How.
        outcome: StageOutcome,
    },
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodePhase {
    /// It works.
    Working,
    /// It is paused.
    Paused,
    /// It was told to end and finishes what it began.
    Leaving,
    /// It waits to be started again.
    BackingOff,
    /// It was pre-empted and waits to be resumed.
    Away,
    /// It failed too often.
    GivenUp,
    /// It has done its part.
    Ended,
}

impl NodePhase {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            NodePhase::Working => "working",
            NodePhase::Paused => "paused",
            NodePhase::Leaving => "leaving",
            NodePhase::BackingOff => "backing off",
            NodePhase::Away => "away",
            NodePhase::GivenUp => "given up",
            NodePhase::Ended => "ended",
        }
    }
}

/// A node as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeObservation {
    /// The node.
    pub node: NodeId,
    /// What it runs on.
    pub device: String,
    /// Whether it may be taken away.
    pub class: NodeClass,
    /// What it does.
    pub phase: NodePhase,
    /// Generation of its current or last worker.
    pub generation: Generation,
    /// Pieces of work done by the current worker.
    pub ticks: u64,
    /// Whether the current worker waits for somebody else.
    pub waiting: bool,
    /// Restarts so far.
    pub restarts: u32,
    /// Failures in a row.
    pub failures: u32,
    /// Threads that were given up and still live.
    pub zombies: u32,
    /// Why the last worker ended.
    pub last_exit: Option<ExitReason>,
}

impl NodeObservation {
    pub(super) fn with_reading(mut self, reading: ProgressReading) -> NodeObservation {
        self.ticks = reading.ticks;
        self.waiting = reading.waiting;
        self
    }
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageOutcome {
    /// A worker reported that all work is done.
    Finished,
    /// It was drained.
    Drained,
    /// It was stopped, what it waited for was cancelled, or its control plane ended.
    Stopped,
    /// Nodes failed and none is left that could work.
    Exhausted,
}

/// What became of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// Why its last worker ended; `None` if it never started.
    pub last_exit: Option<ExitReason>,
    /// Restarts.
    pub restarts: u32,
    /// Whether it failed too often.
    pub given_up: bool,
    /// Threads that were given up and still live.
    pub zombies: u32,
}

/// What became of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageReport {
    /// The stage.
    pub stage: String,
    /// How it ended.
    pub outcome: StageOutcome,
    /// Its nodes.
    pub nodes: Vec<NodeReport>,
}

impl StageReport {
    /// The nodes whose last worker failed, and how.
    pub fn failures(&self) -> impl Iterator<Item = (&NodeId, &ExitReason)> {
        let exits = self.nodes.iter().filter_map(|node| Some((&node.node, node.last_exit.as_ref()?)));
        exits.filter(|(_, exit)| exit.is_failure())
    }

    /// Whether the stage finished and none of its nodes was lost.
    pub fn is_clean(&self) -> bool {
        self.outcome == StageOutcome::Finished && self.failures().next().is_none()
    }
}
