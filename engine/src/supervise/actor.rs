//! The shell around a [`Supervisor`]: an actix actor that spawns threads and keeps time.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake as TaskWake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, SpawnHandle};
use crossbeam_channel::Sender;

use super::control::WorkerFactory;
use super::event::{StageReport, SupervisionEvent, SupervisionEventKind, Wakeup};
use super::supervisor::{Action, StageSpec, Supervisor};
use crate::cancel::CancelToken;
use crate::clock::Clock;
use crate::item::Generation;
use crate::stage::Status;
use crate::sync::Mutex;
use crate::worker::{ExitReason, WorkerContext, panic_message};

/// Longest and shortest time between two looks at the progress of workers.
const TICK_MAX: Duration = Duration::from_millis(50);
const TICK_MIN: Duration = Duration::from_millis(5);

impl Message for Wakeup {
    type Result = ();
}

/// Where a stage's end is waited for.
#[derive(Default)]
pub(super) struct Ending {
    pub(super) ended: CancelToken,
    pub(super) report: Mutex<Option<StageReport>>,
    /// Threads that have reported their end and are about to be gone.
    pub(super) leaving: Mutex<Vec<JoinHandle<()>>>,
}

impl Ending {
    fn publish(&self, report: StageReport) {
        self.report.lock().get_or_insert(report);
        self.ended.cancel();
    }
}

/// One stage on the control plane.
pub(super) struct StageActor {
    name: String,
    supervisor: Supervisor,
    factory: WorkerFactory,
    clock: Arc<dyn Clock>,
    tick: Duration,
    ticking: Option<SpawnHandle>,
    events: Sender<SupervisionEvent>,
    ending: Arc<Ending>,
    threads: HashMap<(usize, Generation), JoinHandle<()>>,
}

impl StageActor {
    pub(super) fn new(
        spec: StageSpec,
        factory: WorkerFactory,
        clock: Arc<dyn Clock>,
        events: Sender<SupervisionEvent>,
        ending: Arc<Ending>,
    ) -> StageActor {
        let tick = spec.hang_after.map_or(TICK_MAX, |hang_after| (hang_after / 8).clamp(TICK_MIN, TICK_MAX));
        let name = spec.name.clone();
        let supervisor = Supervisor::new(spec);
        StageActor { name, supervisor, factory, clock, tick, ticking: None, events, ending, threads: HashMap::new() }
    }

    fn step(&mut self, wakeup: Wakeup, context: &mut Context<StageActor>) {
        if let Wakeup::Exited { node, generation, .. } = &wakeup {
            self.ending.leaving.lock().extend(self.threads.remove(&(*node, *generation)));
        }
        for action in self.supervisor.on(self.clock.now(), wakeup) {
            match action {
                Action::Emit(kind) => self.emit(kind),
                Action::Spawn { node, context: worker } => self.spawn(node, worker, &context.address()),
                Action::End(report) => self.ending.publish(report),
            }
        }
        if self.supervisor.has_ended()
            && let Some(ticking) = self.ticking.take()
        {
            context.cancel_future(ticking);
        }
    }

    /// Events are for onlookers: one that does not keep up loses the latest.
    fn emit(&self, kind: SupervisionEventKind) {
        tracing::info!(stage = self.name, event = ?kind, "supervision");
        let _ = self.events.try_send(SupervisionEvent { stage: self.name.clone(), at: self.clock.now(), kind });
    }

    fn spawn(&mut self, node: usize, worker: WorkerContext, address: &Addr<StageActor>) {
        let generation = worker.generation;
        let name = format!("{}-{}", self.name, worker.node);
        let (factory, report_to) = (self.factory.clone(), address.clone());
        let run = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| factory(worker)));
            let reason = outcome.unwrap_or_else(|panic| ExitReason::Panicked(panic_message(&*panic)));
            // Without a control plane there is nobody left to tell.
            let _ = block_on(report_to.send(Wakeup::Exited { node, generation, reason }));
        };
        match std::thread::Builder::new().name(name).spawn(run) {
            Ok(thread) => {
                self.threads.insert((node, generation), thread);
            }
            Err(error) => {
                let message = format!("cannot start a thread: {error}");
                let reason = ExitReason::NotStarted { status: Status::Transient, message };
                let address = address.clone();
                actix::spawn(async move {
                    let _ = address.send(Wakeup::Exited { node, generation, reason }).await;
                });
            }
        }
    }
}

impl Actor for StageActor {
    type Context = Context<StageActor>;

    fn started(&mut self, context: &mut Context<StageActor>) {
        context.set_mailbox_capacity(64);
        self.ticking = Some(context.run_interval(self.tick, |actor, context| actor.step(Wakeup::Ticked, context)));
        self.step(Wakeup::Started, context);
    }
}

impl Handler<Wakeup> for StageActor {
    type Result = ();

    fn handle(&mut self, wakeup: Wakeup, context: &mut Context<StageActor>) {
        self.step(wakeup, context);
    }
}

/// Whatever ends the actor, nobody waits for ever.
impl Drop for StageActor {
    fn drop(&mut self) {
        self.supervisor.abandon_all();
        self.ending.publish(self.supervisor.report());
    }
}

/// Runs a future to its end on the calling thread, which parks meanwhile.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl TaskWake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = TaskContext::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
