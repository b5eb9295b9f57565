//! The state machine of a stage: what a supervisor does when it is woken.
//!
//! Pure but for the signals it turns and the hooks it runs on its workers' contexts; threads and time are the shell's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{
    NodeObservation, NodePhase, NodeReport, Order, StageOutcome, StageReport, SupervisionEventKind, Wakeup,
};
use super::policy::{RestartPolicy, Verdict};
use crate::error::EngineError;
use crate::item::Generation;
use crate::lease::Blame;
use crate::progress::ProgressReading;
use crate::signal::SignalState;
use crate::worker::{ExitReason, NodeId, WorkerContext};

/// Whether a node may be taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeClass {
    /// It stays.
    #[default]
    Dedicated,
    /// It may be taken away at any moment.
    LowPriority,
}

/// One node of a stage: one worker thread at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name, unique in the stage.
    pub id: NodeId,
    /// What it runs on; for people.
    pub device: String,
    /// Whether it may be taken away.
    pub class: NodeClass,
    /// Whether it begins as if it had been pre-empted: it works once it is resumed.
    pub away: bool,
}

impl NodeSpec {
    /// A dedicated node.
    pub fn new(id: impl Into<NodeId>, device: impl Into<String>) -> NodeSpec {
        NodeSpec { id: id.into(), device: device.into(), class: NodeClass::Dedicated, away: false }
    }
}

/// A stage to supervise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageSpec {
    /// Its name: lower-case letters, digits and `_`.
    pub name: String,
    /// What follows exits.
    pub policy: RestartPolicy,
    /// How long a worker may neither tick nor wait; `None` never takes one to hang.
    pub hang_after: Option<Duration>,
    /// Its nodes; at least one.
    pub nodes: Vec<NodeSpec>,
}

impl StageSpec {
    pub(super) fn check(&self) -> Result<(), EngineError> {
        let refuse = |message: String| Err(EngineError::BadStage { stage: self.name.clone(), message });
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if self.name.is_empty() || !self.name.bytes().all(legal) {
            return refuse("expected a name of lower-case letters, digits and _".into());
        }
        if self.nodes.is_empty() {
            return refuse("expected at least one node, got none".into());
        }
        for (position, node) in self.nodes.iter().enumerate() {
            if self.nodes[..position].iter().any(|other| other.id == node.id) {
                return refuse(format!("expected nodes of different names, got {} twice", node.id));
            }
        }
        Ok(())
    }
}

/// What the shell shall do.
#[derive(Debug)]
pub(super) enum Action {
    /// Start a worker thread.
    Spawn { node: usize, context: WorkerContext },
    /// Tell the world.
    Emit(SupervisionEventKind),
    /// The stage has ended.
    End(StageReport),
}

/// A stage's nodes and what is to become of them.
pub(super) struct Supervisor {
    spec: StageSpec,
    nodes: Vec<Node>,
    /// How the stage was told to end.
    ending: Option<StageOutcome>,
    /// Whether a worker said that all work is done.
    finished: bool,
    starved: bool,
    ended: bool,
    actions: Vec<Action>,
}

struct Node {
    phase: Phase,
    next_generation: Generation,
    restarts: u32,
    failures: u32,
    zombies: u32,
    last_exit: Option<ExitReason>,
}

enum Phase {
    Working(Incarnation),
    BackingOff { until: Duration },
    Away,
    GivenUp,
    Ended,
}

/// A worker as its supervisor sees it.
struct Incarnation {
    context: WorkerContext,
    reading: ProgressReading,
    progressed_at: Duration,
    leaving: Option<Leaving>,
}

struct Leaving {
    /// What its exit will be called.
    exit: ExitReason,
    deadline: Duration,
}

impl Supervisor {
    pub(super) fn new(spec: StageSpec) -> Supervisor {
        let node = |spec: &NodeSpec| Node {
            phase: if spec.away { Phase::Away } else { Phase::Ended },
            next_generation: Generation(0),
            restarts: 0,
            failures: 0,
            zombies: 0,
            last_exit: None,
        };
        let nodes = spec.nodes.iter().map(node).collect();
        Supervisor { spec, nodes, ending: None, finished: false, starved: false, ended: false, actions: Vec::new() }
    }

    /// Takes one wake-up in and says what is to be done.
    pub(super) fn on(&mut self, now: Duration, wakeup: Wakeup) -> Vec<Action> {
        match wakeup {
            Wakeup::Started => self.present().into_iter().for_each(|node| self.start(node, now)),
            Wakeup::Ticked => (0..self.nodes.len()).for_each(|node| self.look_at(node, now)),
            Wakeup::Exited { node, generation, reason } => self.exited(node, generation, reason, now),
            Wakeup::Ordered { order, reply } => {
                let answer = self.order(order, now);
                // Whoever asked may have gone.
                let _ = reply.send(answer);
            }
            Wakeup::Asked { reply } => {
                let _ = reply.send(self.observe(now));
            }
        }
        self.conclude();
        std::mem::take(&mut self.actions)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    fn present(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| !self.spec.nodes[*node].away).collect()
    }

    fn id(&self, node: usize) -> NodeId {
        self.spec.nodes[node].id.clone()
    }

    fn emit(&mut self, event: SupervisionEventKind) {
        self.actions.push(Action::Emit(event));
    }

    fn start(&mut self, node: usize, now: Duration) {
        let id = self.id(node);
        let state = &mut self.nodes[node];
        let generation = state.next_generation;
        state.next_generation = generation.next();
        state.restarts = generation.0;
        let context = WorkerContext::new(id.clone(), generation);
        let reading = context.progress.read();
        state.phase =
            Phase::Working(Incarnation { context: context.clone(), reading, progressed_at: now, leaving: None });
        self.actions.push(Action::Spawn { node, context });
        self.emit(SupervisionEventKind::WorkerStarted { node: id, generation });
    }

    /// What time alone brings: a restart that is due, a notice that is over, a worker that hangs.
    fn look_at(&mut self, node: usize, now: Duration) {
        let hang_after = self.spec.hang_after;
        match &mut self.nodes[node].phase {
            Phase::BackingOff { until } if *until <= now => self.start(node, now),
            Phase::Working(worker) => {
                worker.note_progress(now);
                let standing = now.saturating_sub(worker.progressed_at);
                if let Some(leaving) = worker.leaving.as_ref().filter(|leaving| leaving.deadline <= now) {
                    let exit = leaving.exit.clone();
                    self.lose(node, exit, Blame::Node, now);
                } else if hang_after.is_some_and(|limit| standing >= limit) {
                    let blame = Blame::Item(format!("worker made no progress for {:.1} s", standing.as_secs_f64()));
                    self.lose(node, ExitReason::Hung, blame, now);
                }
            }
            _ => {}
        }
    }

    /// A thread ended: the worker in charge, or one that was given up before.
    fn exited(&mut self, node: usize, generation: Generation, reason: ExitReason, now: Duration) {
        let id = self.id(node);
        match &self.nodes[node].phase {
            Phase::Working(worker) if worker.context.generation == generation => {
                // Nothing should be left; if the thread leaked a lease, its item comes back now.
                worker.context.abandon(Blame::Item("worker ended with the item under lease".into()));
                self.leave(node, reason, false, now);
            }
            _ => {
                self.nodes[node].zombies -= 1;
                self.emit(SupervisionEventKind::ZombieEnded { node: id, generation });
            }
        }
    }

    /// Gives a worker up whose thread may go on.
    fn lose(&mut self, node: usize, exit: ExitReason, blame: Blame, now: Duration) {
        if let Phase::Working(worker) = &self.nodes[node].phase {
            worker.context.abandon(blame);
            self.nodes[node].zombies += 1;
            self.leave(node, exit, true, now);
        }
    }

    /// Decides what follows the exit of the worker in charge.
    fn leave(&mut self, node: usize, reason: ExitReason, zombie: bool, now: Duration) {
        let id = self.id(node);
        let state = &mut self.nodes[node];
        let Phase::Working(worker) = std::mem::replace(&mut state.phase, Phase::Ended) else { return };
        // A worker that was told to leave left for that reason, whatever happened on its way out.
        let told = worker.leaving.map(|leaving| leaving.exit);
        let reason = match &told {
            Some(told) if !reason.is_failure() && reason != ExitReason::Finished => told.clone(),
            _ => reason,
        };
        if worker.context.progress.read().ticks > 0 {
            state.failures = 0;
        }
        state.failures += u32::from(reason.is_failure());
        state.last_exit = Some(reason.clone());
        self.finished |= reason == ExitReason::Finished;
        let verdict = match told.as_ref().unwrap_or(&reason) {
            _ if self.ending.is_some() || self.finished => Verdict::End,
            judged => self.spec.policy.verdict(judged, state.failures, state.zombies),
        };
        let generation = worker.context.generation;
        state.phase = match verdict {
            Verdict::End => Phase::Ended,
            Verdict::Restart(after) => Phase::BackingOff { until: now + after },
            Verdict::Wait => Phase::Away,
            Verdict::GiveUp => Phase::GivenUp,
        };
        self.emit(SupervisionEventKind::WorkerExited { node: id.clone(), generation, reason: reason.clone(), zombie });
        match verdict {
            Verdict::Restart(after) => self.emit(SupervisionEventKind::RestartScheduled { node: id, after }),
            Verdict::GiveUp => self.emit(SupervisionEventKind::NodeGivenUp { node: id, reason }),
            Verdict::End | Verdict::Wait => {}
        }
    }

    /// Ends the stage if nothing will happen in it any more.
    fn conclude(&mut self) {
        if self.ended {
            return;
        }
        let over = self.finished || self.ending.is_some();
        for node in &mut self.nodes {
            if over && matches!(node.phase, Phase::BackingOff { .. }) {
                node.phase = Phase::Ended;
            }
        }
        if self.nodes.iter().any(|node| matches!(node.phase, Phase::Working(_) | Phase::BackingOff { .. })) {
            self.starved = false;
            return;
        }
        if !over && self.nodes.iter().any(|node| matches!(node.phase, Phase::Away)) {
            if !std::mem::replace(&mut self.starved, true) {
                self.emit(SupervisionEventKind::StageStarved);
            }
            return;
        }
        self.ended = true;
        let report = self.report();
        self.emit(SupervisionEventKind::StageEnded { outcome: report.outcome });
        self.actions.push(Action::End(report));
    }

    /// What became of the stage so far.
    pub(super) fn report(&self) -> StageReport {
        let exits = || self.nodes.iter().filter_map(|node| node.last_exit.as_ref());
        let outcome = match self.ending {
            _ if self.finished => StageOutcome::Finished,
            Some(ending) => ending,
            None if exits().any(ExitReason::is_failure) => StageOutcome::Exhausted,
            // They left of their own accord: somebody cancelled what they waited for.
            None => StageOutcome::Stopped,
        };
        let nodes = self.spec.nodes.iter().zip(&self.nodes).map(|(spec, node)| NodeReport {
            node: spec.id.clone(),
            last_exit: node.last_exit.clone(),
            restarts: node.restarts,
            given_up: matches!(node.phase, Phase::GivenUp),
            zombies: node.zombies,
        });
        StageReport { stage: self.spec.name.clone(), outcome, nodes: nodes.collect() }
    }

    /// Tells every worker to stop and takes its work: for a shell that goes away.
    pub(super) fn abandon_all(&mut self) {
        self.ending.get_or_insert(StageOutcome::Stopped);
        for node in &self.nodes {
            if let Phase::Working(worker) = &node.phase {
                worker.context.abandon(Blame::Node);
            }
        }
    }

    fn order(&mut self, order: Order, now: Duration) -> Result<(), EngineError> {
        match order {
            Order::Preempt { node, notice } => {
                let node = self.find(&node)?;
                self.preempt(node, now + notice);
            }
            Order::Kill { node } => {
                let node = self.find(&node)?;
                match &mut self.nodes[node].phase {
                    Phase::Working(worker) => {
                        worker.leave_by(ExitReason::Preempted, now);
                        self.lose(node, ExitReason::Preempted, Blame::Node, now);
                    }
                    _ => self.preempt(node, now),
                }
            }
            Order::Pause { node } => {
                let node = self.find(&node)?;
                self.pause(node)?;
            }
            Order::Resume { node } => {
                let node = self.find(&node)?;
                self.resume(node, now)?;
            }
            Order::Drain { notice } => {
                self.ending.get_or_insert(StageOutcome::Drained);
                self.each_worker(|worker| worker.leave_by(ExitReason::Drained, now + notice));
            }
            Order::Stop { grace } => {
                self.ending = Some(StageOutcome::Stopped);
                self.each_worker(|worker| {
                    worker.leave_by(ExitReason::Stopped, now + grace);
                    worker.context.abandon(Blame::Node);
                });
            }
        }
        Ok(())
    }

    fn find(&self, node: &NodeId) -> Result<usize, EngineError> {
        self.spec.nodes.iter().position(|spec| spec.id == *node).ok_or_else(|| EngineError::UnknownNode {
            stage: self.spec.name.clone(),
            node: node.clone(),
            known: self.spec.nodes.iter().map(|spec| spec.id.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    fn each_worker(&mut self, act: impl Fn(&mut Incarnation)) {
        for node in &mut self.nodes {
            if let Phase::Working(worker) = &mut node.phase {
                act(worker);
            }
        }
    }

    /// A node that does not work now is away at once; one that has ended or was given up stays so.
    fn preempt(&mut self, node: usize, deadline: Duration) {
        let id = self.id(node);
        let state = &mut self.nodes[node];
        match &mut state.phase {
            Phase::Working(worker) => {
                worker.leave_by(ExitReason::Preempted, deadline);
                self.emit(SupervisionEventKind::NodeNotified { node: id, deadline });
            }
            Phase::BackingOff { .. } => {
                state.phase = Phase::Away;
                state.last_exit = Some(ExitReason::Preempted);
            }
            Phase::Away | Phase::GivenUp | Phase::Ended => {}
        }
    }

    fn pause(&mut self, node: usize) -> Result<(), EngineError> {
        match &self.nodes[node].phase {
            Phase::Working(worker) if worker.leaving.is_none() => {
                worker.context.signal.set(SignalState::Paused);
                self.emit(SupervisionEventKind::NodePaused { node: self.id(node) });
                Ok(())
            }
            _ => Err(self.refuse(node, "pause")),
        }
    }

    fn resume(&mut self, node: usize, now: Duration) -> Result<(), EngineError> {
        let over = self.ended || self.finished || self.ending.is_some();
        match &self.nodes[node].phase {
            Phase::Working(worker) if worker.leaving.is_none() => {
                worker.context.signal.set(SignalState::Running);
            }
            Phase::BackingOff { .. } | Phase::Away | Phase::GivenUp if !over => {
                self.nodes[node].failures = 0;
                self.start(node, now);
            }
            _ => return Err(self.refuse(node, "resume")),
        }
        self.emit(SupervisionEventKind::NodeResumed { node: self.id(node) });
        Ok(())
    }

    fn refuse(&self, node: usize, order: &'static str) -> EngineError {
        EngineError::OrderRefused { node: self.id(node), order, phase: self.nodes[node].phase.name().as_str() }
    }

    /// Looks at every node; looking at a worker's progress counts as a look at it, as a tick's does.
    fn observe(&mut self, now: Duration) -> Vec<NodeObservation> {
        self.each_worker(|worker| worker.note_progress(now));
        let observe = |(spec, node): (&NodeSpec, &Node)| {
            let observation = NodeObservation {
                node: spec.id.clone(),
                device: spec.device.clone(),
                class: spec.class,
                phase: node.phase.name(),
                generation: Generation(node.next_generation.0.saturating_sub(1)),
                ticks: 0,
                waiting: false,
                restarts: node.restarts,
                failures: node.failures,
                zombies: node.zombies,
                last_exit: node.last_exit.clone(),
            };
            match &node.phase {
                Phase::Working(worker) => observation.with_reading(worker.context.progress.read()),
                _ => observation,
            }
        };
        self.spec.nodes.iter().zip(&self.nodes).map(observe).collect()
    }
}

impl Phase {
    fn name(&self) -> NodePhase {
        match self {
            Phase::Working(worker) if worker.leaving.is_some() => NodePhase::Leaving,
            Phase::Working(worker) if worker.context.signal.state() == SignalState::Paused => NodePhase::Paused,
            Phase::Working(_) => NodePhase::Working,
            Phase::BackingOff { .. } => NodePhase::BackingOff,
            Phase::Away => NodePhase::Away,
            Phase::GivenUp => NodePhase::GivenUp,
            Phase::Ended => NodePhase::Ended,
        }
    }
}

impl Incarnation {
    /// A tick, the end of a wait, a wait that lasts and a pause are all no reason to think that it hangs.
    fn note_progress(&mut self, now: Duration) {
        let reading = self.context.progress.read();
        let paused = self.context.signal.state() == SignalState::Paused;
        if reading.waiting || paused || reading != self.reading {
            self.progressed_at = now;
        }
        self.reading = reading;
    }

    /// Tells it to leave; of two reasons the first one is kept, of two deadlines the earlier.
    fn leave_by(&mut self, exit: ExitReason, deadline: Duration) {
        let leaving = self.leaving.get_or_insert(Leaving { exit, deadline });
        leaving.deadline = leaving.deadline.min(deadline);
        self.context.signal.set(SignalState::Draining { deadline: leaving.deadline });
    }
}

#[cfg(test)]
mod tests;
