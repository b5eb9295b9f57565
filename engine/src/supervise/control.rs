//! What callers hold: the control plane and its stages.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle, System};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::actor::{Ending, StageActor, block_on};
use super::event::{NodeObservation, Order, StageReport, SupervisionEvent, Wakeup};
use super::supervisor::StageSpec;
use crate::cancel::CancelToken;
use crate::clock::{Clock, SystemClock};
use crate::error::EngineError;
use crate::worker::{ExitReason, NodeId, WorkerContext};

/// Makes the work of one worker: called on the worker's own thread, returns when the worker ends.
pub type WorkerFactory = Arc<dyn Fn(WorkerContext) -> ExitReason + Send + Sync>;

/// Events that wait for an onlooker; later ones are lost to it.
const EVENTS_MAX: usize = 1024;

/// The thread on which all supervisors live. Dropping it stops every stage; it does not wait for their threads.
pub struct ControlPlane {
    clock: Arc<dyn Clock>,
    system: System,
    arbiter: ArbiterHandle,
    thread: Option<JoinHandle<()>>,
}

impl ControlPlane {
    /// Starts the thread, on the machine's clock.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start() -> Result<ControlPlane, EngineError> {
        ControlPlane::start_with(SystemClock::shared())
    }

    /// Starts the thread; back-off, notices and hangs are measured by `clock`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start_with(clock: Arc<dyn Clock>) -> Result<ControlPlane, EngineError> {
        let (started, starting) = bounded(1);
        let run = move || {
            let runner = System::new();
            let handles = (System::current(), System::current().arbiter().clone());
            if started.send(handles).is_ok()
                && let Err(error) = runner.run()
            {
                tracing::error!(%error, "control plane ended");
            }
        };
        let thread = std::thread::Builder::new().name("restyle-control".into()).spawn(run);
        let thread = thread.map_err(|error| EngineError::ControlGone(format!("cannot start its thread: {error}")))?;
        let handles = starting.recv().map_err(|_| gone("its thread ended before it began"));
        let (system, arbiter) = handles?;
        Ok(ControlPlane { clock, system, arbiter, thread: Some(thread) })
    }

    /// The clock that deadlines are measured by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Starts a stage: one worker thread for each node. The stage lives until it ends, also without its handle.
    ///
    /// # Errors
    /// If the stage is described in a way that cannot work, or the control plane has ended.
    pub fn stage(
        &self,
        spec: StageSpec,
        factory: impl Fn(WorkerContext) -> ExitReason + Send + Sync + 'static,
    ) -> Result<StageHandle, EngineError> {
        spec.check()?;
        let name = spec.name.clone();
        let (events_in, events) = bounded(EVENTS_MAX);
        let ending: Arc<Ending> = Arc::default();
        let (started, starting) = bounded(1);
        let (clock, shared_ending) = (self.clock.clone(), ending.clone());
        let factory: WorkerFactory = Arc::new(factory);
        let accepted = self.arbiter.spawn_fn(move || {
            let _ = started.send(StageActor::new(spec, factory, clock, events_in, shared_ending).start());
        });
        let address = if accepted { starting.recv().ok() } else { None };
        let address = address.ok_or_else(|| gone("it ended before the stage began"))?;
        Ok(StageHandle { name, address, events, ending })
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.system.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").finish_non_exhaustive()
    }
}

fn gone(why: &str) -> EngineError {
    EngineError::ControlGone(why.to_owned())
}

/// A running stage. Every call blocks for one round trip to the control plane, and must not be made on it.
pub struct StageHandle {
    name: String,
    address: Addr<StageActor>,
    events: Receiver<SupervisionEvent>,
    ending: Arc<Ending>,
}

impl StageHandle {
    /// The stage's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its supervisor does and sees; at most 1024 wait, later ones are lost.
    pub fn events(&self) -> &Receiver<SupervisionEvent> {
        &self.events
    }

    /// Gives a node notice: it finishes the batch it has, leaves the rest to the others, and ends; what it has not
    /// finished after `notice` goes to the others too. It comes back by policy, or when resumed.
    ///
    /// # Errors
    /// If there is no such node, or the control plane has ended.
    pub fn preempt(&self, node: &NodeId, notice: Duration) -> Result<(), EngineError> {
        self.order(Order::Preempt { node: node.clone(), notice })
    }

    /// Takes a node away without notice: what it has under lease goes to the others now.
    ///
    /// # Errors
    /// If there is no such node, or the control plane has ended.
    pub fn kill(&self, node: &NodeId) -> Result<(), EngineError> {
        self.order(Order::Kill { node: node.clone() })
    }

    /// Has a node finish the batch it has and then wait.
    ///
    /// # Errors
    /// If there is no such node, it does not work or is leaving, or the control plane has ended.
    pub fn pause(&self, node: &NodeId) -> Result<(), EngineError> {
        self.order(Order::Pause { node: node.clone() })
    }

    /// Has a paused node go on, or starts one that was pre-empted, waits to be restarted, or was given up.
    ///
    /// # Errors
    /// If there is no such node, it is leaving, the stage is ending, or the control plane has ended.
    pub fn resume(&self, node: &NodeId) -> Result<(), EngineError> {
        self.order(Order::Resume { node: node.clone() })
    }

    /// Has every worker finish what it began and end; after `notice` what is not finished is abandoned.
    ///
    /// # Errors
    /// If the control plane has ended.
    pub fn drain(&self, notice: Duration) -> Result<(), EngineError> {
        self.order(Order::Drain { notice })
    }

    /// Has every worker end at once: its leases are revoked now, its thread is waited for at most for `grace`.
    ///
    /// # Errors
    /// If the control plane has ended.
    pub fn stop(&self, grace: Duration) -> Result<(), EngineError> {
        self.order(Order::Stop { grace })
    }

    /// The nodes as they are now.
    ///
    /// # Errors
    /// If the control plane has ended.
    pub fn observe(&self) -> Result<Vec<NodeObservation>, EngineError> {
        self.ask(|reply| Wakeup::Asked { reply })
    }

    /// Blocks until the stage has ended and the threads that ended with it are gone; threads that were given up are not
    /// waited for. Not to be called on a worker of the stage.
    pub fn wait(&self) -> StageReport {
        self.ending.ended.wait();
        self.take_leave()
    }

    /// The same, at most for `timeout` of real time.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<StageReport> {
        self.ending.ended.wait_timeout(timeout).then(|| self.take_leave())
    }

    /// A token that is cancelled when the stage has ended; for `select!`.
    pub fn ended(&self) -> &CancelToken {
        &self.ending.ended
    }

    fn take_leave(&self) -> StageReport {
        let leaving = std::mem::take(&mut *self.ending.leaving.lock());
        for thread in leaving {
            // Its panic was caught and reported.
            let _ = thread.join();
        }
        self.ending.report.lock().clone().expect("a stage that has ended has a report")
    }

    fn order(&self, order: Order) -> Result<(), EngineError> {
        self.ask(|reply| Wakeup::Ordered { order, reply })?
    }

    fn ask<R>(&self, wakeup: impl FnOnce(Sender<R>) -> Wakeup) -> Result<R, EngineError> {
        let (reply, answer) = bounded(1);
        block_on(self.address.send(wakeup(reply))).map_err(|error| gone(&error.to_string()))?;
        answer.recv().map_err(|_| gone("it ended before it answered"))
    }
}

impl fmt::Debug for StageHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageHandle").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
