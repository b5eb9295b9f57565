//! The scorer nodes of all running jobs: what they do, and what they are told.

use super::entry::{Entry, NodeLive};
use super::error::ServiceError;
use super::ident::Scope;
use super::job::JobState;
use super::service::{Inner, Service};
use super::time;
use super::view::{NodeState, NodeView};
use crate::error::{Error, ErrorKind};
use crate::event::{NodeChange, NodeEvent};
use crate::pipeline::JobControl;
use restyle_engine::supervise::{NodeClass, NodeObservation, NodePhase};
use restyle_engine::worker::ExitReason;
use std::sync::Arc;
use std::time::Duration;

/// When capacity that could not be had is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(30);

impl Service {
    /// Returns the scorer nodes of the running jobs that `scope` sees.
    #[must_use]
    pub fn nodes(&self, scope: &Scope) -> Vec<NodeView> {
        let entries = self.inner.entries();
        let running = entries.iter().filter(|e| scope.sees(&e.key.0) && e.state() == JobState::Running);
        running.flat_map(|entry| views(&self.inner, entry)).collect()
    }

    /// Gives a node notice that it will be taken away; others take over its work, and it comes back by the configuration.
    ///
    /// # Errors
    /// `NotFound` for a node that no running job has, `Conflict` for one that cannot be told so now.
    pub fn preempt(&self, scope: &Scope, node: &str, notice: Duration) -> Result<NodeView, ServiceError> {
        let returns_at = self.inner.config().nodes.return_after.map(|after| self.inner.clock.now() + notice + after);
        self.order(scope, node, |entry, control, name| {
            control.preempt(name, notice)?;
            if let Some(live) = entry.lock().live.nodes.get_mut(name) {
                live.returns_at = returns_at;
            }
            Ok(())
        })
    }

    /// Has a node finish what it has and wait until it is resumed.
    ///
    /// # Errors
    /// As [`Service::preempt`].
    pub fn drain(&self, scope: &Scope, node: &str) -> Result<NodeView, ServiceError> {
        self.order(scope, node, |_, control, name| control.pause(name))
    }

    /// Has a node that was drained or pre-empted work again.
    ///
    /// # Errors
    /// As [`Service::preempt`].
    pub fn resume_node(&self, scope: &Scope, node: &str) -> Result<NodeView, ServiceError> {
        self.order(scope, node, |entry, control, name| {
            let mut state = entry.lock();
            let place = state.live.names.iter().position(|n| n == name);
            if place.is_some_and(|k| k >= state.live.share) {
                let message = format!("there is no capacity for node {node} now: others have it");
                return Err(Error::new(ErrorKind::Usage, message));
            }
            if let Some(live) = state.live.nodes.get_mut(name) {
                live.returns_at = None;
            }
            drop(state);
            control.resume(name)
        })
    }

    fn order(
        &self,
        scope: &Scope,
        node: &str,
        act: impl FnOnce(&Entry, &JobControl, &str) -> Result<(), Error>,
    ) -> Result<NodeView, ServiceError> {
        let missing = || ServiceError::not_found(format!("there is no node {node}"));
        let (job, name) = node.split_once('/').ok_or_else(missing)?;
        let entries = self.inner.entries();
        let mut running = entries.iter().filter(|e| scope.sees(&e.key.0) && e.state() == JobState::Running);
        let entry = running.find(|e| e.short() == job).ok_or_else(missing)?;
        let control = entry.lock().live.control.clone().ok_or_else(missing)?;
        if !control.nodes().iter().any(|n| n.node.to_string() == name) {
            return Err(missing());
        }
        act(entry, &control, name).map_err(|e| ServiceError::conflict(e.to_string()))?;
        views(&self.inner, entry).into_iter().find(|v| v.id == node).ok_or_else(missing)
    }
}

/// Notes what happened to a node.
pub(super) fn note(inner: &Inner, entry: &Entry, event: &NodeEvent) {
    let at = time::now(&*inner.clock);
    let mut state = entry.lock();
    let node = state.live.nodes.entry(event.node.clone()).or_insert_with(|| NodeLive::new(at.clone()));
    match &event.what {
        NodeChange::Started { generation } => {
            node.generation = *generation;
            node.enter(NodeState::Starting, &at);
            node.note(&at, "started");
        }
        NodeChange::Notified => {
            node.preemptions += 1;
            node.enter(NodeState::Draining, &at);
            node.note(&at, "will be taken away");
        }
        NodeChange::Paused => node.note(&at, "paused"),
        NodeChange::Resumed => node.note(&at, "resumed"),
        NodeChange::Exited { reason, failed } => {
            if *failed {
                node.last_error = Some(reason.clone());
            }
            node.note(&at, reason);
        }
        NodeChange::Returning { after_millis } => node.note(&at, &format!("comes back in {after_millis} ms")),
        NodeChange::GivenUp { reason } => {
            node.last_error = Some(reason.clone());
            node.note(&at, &format!("not started again: {reason}"));
        }
    }
}

/// Looks at the nodes of a running job, and notes since when they are in their states.
pub(super) fn look(inner: &Inner, entry: &Entry, control: &JobControl) {
    let observed = control.nodes();
    let (at, now) = (time::now(&*inner.clock), inner.clock.now());
    let mut returning = Vec::new();
    let mut state = entry.lock();
    let share = state.live.share;
    for (k, node) in observed.iter().enumerate() {
        let name = node.node.to_string();
        let live = state.live.nodes.entry(name.clone()).or_insert_with(|| NodeLive::new(at.clone()));
        live.enter(state_of(node, k < share), &at);
        if node.phase == NodePhase::GivenUp && is_not_to_be_had(node) && k < share {
            // Asked for again now and then: memory and devices come back.
            live.returns_at.get_or_insert(now + ASK_AGAIN);
        }
        if live.returns_at.is_some_and(|due| due <= now) {
            live.returns_at = None;
            returning.push(name);
        }
    }
    drop(state);
    for node in returning {
        // One that came back already, or whose pass is over, need not be told.
        let _ = control.resume(&node);
    }
}

/// Whether there was no thread, no memory or no device for it the last time.
fn is_not_to_be_had(node: &NodeObservation) -> bool {
    matches!(node.last_exit, Some(ExitReason::NotStarted { .. }))
}

/// `shared`: the job has capacity for it.
fn state_of(node: &NodeObservation, shared: bool) -> NodeState {
    match node.phase {
        // What cannot be had is not a fault of the node: the job goes on with what there is.
        NodePhase::BackingOff | NodePhase::GivenUp if is_not_to_be_had(node) => NodeState::Wanted,
        // Its thread stands still somewhere; another one will take its place.
        NodePhase::BackingOff if node.last_exit == Some(ExitReason::Hung) => NodeState::Unusable,
        NodePhase::Working if node.ticks == 0 && !node.waiting => NodeState::Starting,
        NodePhase::Working => NodeState::Running,
        NodePhase::Paused => NodeState::Paused,
        NodePhase::Leaving => NodeState::Draining,
        NodePhase::BackingOff => NodeState::Restarting,
        NodePhase::Away if !shared => NodeState::Wanted,
        NodePhase::Away => NodeState::Preempted,
        NodePhase::GivenUp => NodeState::Unusable,
        NodePhase::Ended => NodeState::Ended,
    }
}

fn views(inner: &Inner, entry: &Arc<Entry>) -> Vec<NodeView> {
    let Some(control) = entry.lock().live.control.clone() else { return Vec::new() };
    let (short, at) = (entry.short(), time::now(&*inner.clock));
    let observed = control.nodes();
    let mut state = entry.lock();
    let share = state.live.share;
    let mut view = |(k, node): (usize, NodeObservation)| {
        let name = node.node.to_string();
        let live = state.live.nodes.entry(name.clone()).or_insert_with(|| NodeLive::new(at.clone()));
        live.enter(state_of(&node, k < share), &at);
        NodeView {
            id: format!("{short}/{name}"),
            job: entry.key.1.clone(),
            tenant: entry.key.0.clone(),
            device: node.device,
            class: class(node.class).to_owned(),
            state: live.state,
            generation: node.generation.0,
            items_done: node.ticks,
            preemptions: live.preemptions,
            restarts: node.restarts,
            since: live.since.clone(),
            last_error: live.last_error.clone(),
            log: live.log.iter().cloned().collect(),
        }
    };
    observed.into_iter().enumerate().map(&mut view).collect()
}

fn class(class: NodeClass) -> &'static str {
    match class {
        NodeClass::Dedicated => "dedicated",
        NodeClass::LowPriority => "low-priority",
    }
}
