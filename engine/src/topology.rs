//! Stages that run as one: what becomes of the others when one ends.
//!
//! Credits, pools and links join stages by data; this joins them by fate. Data that will never come must not be waited
//! for, so a stage that ends badly cancels the token that every wait of the pass was given, and the others are stopped.

use std::time::Duration;

use crossbeam_channel::Select;
use serde::Serialize;

use crate::cancel::CancelToken;
use crate::error::EngineError;
use crate::supervise::{StageHandle, StageOutcome, StageReport};

/// What ends a whole topology.
type Verdict = fn(&StageReport) -> bool;

/// Running stages, in the order in which items flow.
pub struct Topology {
    cancel: CancelToken,
    grace: Duration,
    stages: Vec<(StageHandle, Verdict)>,
}

/// What became of a topology's stages, in the order in which items flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopologyReport {
    /// One report a stage.
    pub stages: Vec<StageReport>,
    /// The first stage that ended badly, if one did.
    pub broken_by: Option<usize>,
}

impl TopologyReport {
    /// The report of the stage that ended badly first.
    pub fn culprit(&self) -> Option<&StageReport> {
        self.broken_by.map(|stage| &self.stages[stage])
    }

    /// Whether every stage finished.
    pub fn is_finished(&self) -> bool {
        self.stages.iter().all(|stage| stage.outcome == StageOutcome::Finished)
    }
}

impl Topology {
    /// A topology without stages whose waits were given `cancel`; when it breaks, threads are waited for at most `grace`.
    pub fn new(cancel: CancelToken, grace: Duration) -> Topology {
        Topology { cancel, grace, stages: Vec::new() }
    }

    /// Adds a stage that the others can do without for as long as one of its nodes works: scorers. It breaks the topology
    /// when all are lost.
    pub fn add(&mut self, stage: StageHandle) {
        self.stages.push((stage, |report| report.outcome == StageOutcome::Exhausted));
    }

    /// Adds a stage of which no node may fail: decoders.
    pub fn add_strict(&mut self, stage: StageHandle) {
        self.stages
            .push((stage, |report| report.outcome == StageOutcome::Exhausted || report.failures().next().is_some()));
    }

    /// The stages, to observe and to give orders to.
    pub fn stages(&self) -> impl Iterator<Item = &StageHandle> {
        self.stages.iter().map(|(stage, _)| stage)
    }

    /// The stage of that name.
    pub fn stage(&self, name: &str) -> Option<&StageHandle> {
        self.stages().find(|stage| stage.name() == name)
    }

    /// Drains all stages at once, the first in the flow first: each finishes what it began and is abandoned after `notice`.
    ///
    /// # Errors
    /// If the control plane has ended.
    pub fn drain(&self, notice: Duration) -> Result<(), EngineError> {
        self.stages().try_for_each(|stage| stage.drain(notice))
    }

    /// Cancels every wait and stops all stages at once.
    ///
    /// # Errors
    /// If the control plane has ended.
    pub fn kill(&self) -> Result<(), EngineError> {
        let stopped = self.stages().try_for_each(|stage| stage.stop(self.grace));
        self.cancel.cancel();
        stopped
    }

    /// Blocks until all stages have ended; kills the others as soon as one ends badly, so it does not outlast that by more
    /// than the grace.
    pub fn wait(&self) -> TopologyReport {
        let mut running: Vec<usize> = (0..self.stages.len()).collect();
        let mut broken_by = None;
        while !running.is_empty() {
            let ended = running.remove(self.wait_for_any(&running));
            let (stage, is_broken) = &self.stages[ended];
            if broken_by.is_none() && is_broken(&stage.wait()) {
                broken_by = Some(ended);
                // A control plane that has ended has stopped them all.
                let _ = self.kill();
            }
        }
        let stages = self.stages().map(StageHandle::wait).collect();
        TopologyReport { stages, broken_by }
    }

    /// Position in `running` of a stage that has ended.
    fn wait_for_any(&self, running: &[usize]) -> usize {
        let mut select = Select::new();
        for stage in running {
            select.recv(self.stages[*stage].0.ended().ended());
        }
        loop {
            // May be ready for no reason.
            let ready = select.ready();
            if self.stages[running[ready]].0.ended().is_cancelled() {
                return ready;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::{ControlPlane, NodeSpec, RestartPolicy, StageSpec};
    use crate::worker::{ExitReason, WorkerContext};

    const LONG: Duration = Duration::from_secs(60);

    fn stage(
        control: &ControlPlane,
        name: &str,
        nodes: usize,
        run: impl Fn(WorkerContext) -> ExitReason + Send + Sync + 'static,
    ) -> StageHandle {
        let nodes = (0..nodes).map(|node| NodeSpec::new(format!("{name}-{node}"), "cpu")).collect();
        let spec = StageSpec { name: name.into(), policy: RestartPolicy::never(), hang_after: None, nodes };
        control.stage(spec, run).unwrap()
    }

    /// Waits for what never comes, as a stage waits for another that is gone.
    fn waits_for_data(cancel: &CancelToken) -> impl Fn(WorkerContext) -> ExitReason + Send + Sync + 'static {
        let cancel = cancel.clone();
        move |_| {
            cancel.wait();
            ExitReason::Stopped
        }
    }

    #[test]
    fn ends_when_all_have_finished() {
        let control = ControlPlane::start().unwrap();
        let mut topology = Topology::new(CancelToken::new(), LONG);
        topology.add_strict(stage(&control, "decode", 1, |_| ExitReason::Finished));
        topology.add(stage(&control, "score", 2, |_| ExitReason::Finished));
        let report = topology.wait();
        assert!(report.is_finished() && report.culprit().is_none());
        assert_eq!(report.stages.iter().map(|stage| stage.stage.as_str()).collect::<Vec<_>>(), ["decode", "score"]);
    }

    #[test]
    fn a_strict_stage_that_loses_one_node_ends_everything() {
        let control = ControlPlane::start().unwrap();
        let cancel = CancelToken::new();
        let mut topology = Topology::new(cancel.clone(), LONG);
        topology.add(stage(&control, "score", 2, waits_for_data(&cancel)));
        topology.add_strict(stage(&control, "decode", 1, |_| std::panic::resume_unwind(Box::new("torn file"))));
        let report = topology.wait();
        assert_eq!(report.culprit().map(|stage| stage.stage.as_str()), Some("decode"));
        assert_eq!(report.stages[0].outcome, StageOutcome::Stopped);
        assert!(cancel.is_cancelled());
    }

    #[test]
    fn a_lenient_stage_may_lose_all_but_one() {
        let control = ControlPlane::start().unwrap();
        let cancel = CancelToken::new();
        let mut topology = Topology::new(cancel.clone(), LONG);
        topology.add(stage(&control, "score", 3, |context| match context.node.as_str() {
            "score-2" => ExitReason::Finished,
            _ => ExitReason::DeviceLost("gone".into()),
        }));
        let report = topology.wait();
        assert!(report.is_finished() && report.broken_by.is_none() && !cancel.is_cancelled());
        assert_eq!(report.stages[0].failures().count(), 2);
    }

    #[test]
    fn draining_and_killing_reach_every_stage() {
        for kill in [false, true] {
            let control = ControlPlane::start().unwrap();
            let cancel = CancelToken::new();
            let mut topology = Topology::new(cancel.clone(), LONG);
            for name in ["decode", "score"] {
                topology.add(stage(&control, name, 1, |context| {
                    context.signal.drain_token().wait();
                    ExitReason::Drained
                }));
            }
            if kill { topology.kill() } else { topology.drain(LONG) }.unwrap();
            let outcome = if kill { StageOutcome::Stopped } else { StageOutcome::Drained };
            let report = topology.wait();
            assert!(report.stages.iter().all(|stage| stage.outcome == outcome), "{report:?}");
            assert_eq!(cancel.is_cancelled(), kill);
        }
    }
}
