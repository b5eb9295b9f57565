//! The loop of a scoring thread, and what every supervised thread is given and gives back.
//!
//! A worker never decides about its own replacement: it reports why it ended, and its leases have gone back by then.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fault;
use crate::item::{Generation, Item};
use crate::lease::{Blame, Lease};
use crate::progress::Progress;
use crate::signal::{Signal, SignalState};
use crate::stage::{Stage, StageError, Status};
use crate::steal::{Pool, Taken};
use crate::sync::Mutex;

/// Name of a node within its stage; clones are cheap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A node of that name.
    pub fn new(name: impl AsRef<str>) -> NodeId {
        NodeId(name.as_ref().into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for NodeId {
    fn from(name: String) -> NodeId {
        NodeId(name.into())
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> String {
        node.as_str().to_owned()
    }
}

impl From<&str> for NodeId {
    fn from(name: &str) -> NodeId {
        NodeId::new(name)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// All work of its stage is done.
    Finished,
    /// It was drained: what it had begun is finished or given back.
    Drained,
    /// It was told to end at once.
    Stopped,
    /// Its node was taken away.
    Preempted,
    /// It panicked, with this message.
    Panicked(String),
    /// It made no progress for too long; its thread may still be there.
    Hung,
    /// Its device is gone, with this message.
    DeviceLost(String),
    /// It could not begin: there was no thread, no memory or no device for it.
    NotStarted {
        /// What that says about trying again.
        status: Status,
        /// What was missing.
        message: String,
    },
    /// It gave up.
    Failed {
        /// What that says about trying again.
        status: Status,
        /// What was expected, what came, where.
        message: String,
    },
}

impl ExitReason {
    /// The exit that an error of the whole worker leads to.
    pub fn from_error(error: &StageError) -> ExitReason {
        match error.status {
            Status::DeviceLost => ExitReason::DeviceLost(error.message.clone()),
            status => ExitReason::Failed { status, message: error.message.clone() },
        }
    }

    /// Whether something went wrong.
    pub fn is_failure(&self) -> bool {
        use ExitReason::{DeviceLost, Failed, Hung, NotStarted, Panicked};
        matches!(self, Panicked(_) | Hung | DeviceLost(_) | NotStarted { .. } | Failed { .. })
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Finished => f.write_str("finished"),
            ExitReason::Drained => f.write_str("drained"),
            ExitReason::Stopped => f.write_str("stopped"),
            ExitReason::Preempted => f.write_str("pre-empted"),
            ExitReason::Panicked(message) => write!(f, "panicked: {message}"),
            ExitReason::Hung => f.write_str("made no progress"),
            ExitReason::DeviceLost(message) => write!(f, "device lost: {message}"),
            ExitReason::NotStarted { message, .. } => write!(f, "could not be started: {message}"),
            ExitReason::Failed { message, .. } => write!(f, "failed: {message}"),
        }
    }
}

/// What a worker thread is given; clones share everything.
#[derive(Debug, Clone)]
pub struct WorkerContext {
    /// The node it works for.
    pub node: NodeId,
    /// Which incarnation of that node's worker it is.
    pub generation: Generation,
    /// Where it shows progress.
    pub progress: Progress,
    /// What it is told to do.
    pub signal: Signal,
    abandonment: Arc<Abandonment>,
}

/// What to do when the worker is given up while its thread may still run.
#[derive(Default)]
struct Abandonment {
    state: Mutex<AbandonmentState>,
}

#[derive(Default)]
struct AbandonmentState {
    blame: Option<Blame>,
    hooks: Vec<Hook>,
}

type Hook = Box<dyn FnOnce(Blame) + Send>;

impl fmt::Debug for Abandonment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abandonment").field("blame", &self.state.lock().blame).finish_non_exhaustive()
    }
}

impl WorkerContext {
    /// A context with a signal and counters of its own.
    pub fn new(node: NodeId, generation: Generation) -> WorkerContext {
        let (progress, signal) = (Progress::new(), Signal::new());
        WorkerContext { node, generation, progress, signal, abandonment: Arc::default() }
    }

    /// Registers what takes this worker's work away if it is given up; runs at once if it already was.
    ///
    /// The hook runs on the supervisor's thread and must not block.
    pub fn on_abandoned(&self, hook: impl FnOnce(Blame) + Send + 'static) {
        let mut state = self.abandonment.state.lock();
        match state.blame.clone() {
            None => state.hooks.push(Box::new(hook)),
            Some(blame) => {
                drop(state);
                hook(blame);
            }
        }
    }

    /// Gives the worker up: it is told to stop, and its work is taken away. Further calls do nothing.
    pub fn abandon(&self, blame: Blame) {
        self.signal.set(SignalState::Stop);
        let hooks = {
            let mut state = self.abandonment.state.lock();
            if state.blame.is_some() {
                return;
            }
            state.blame = Some(blame.clone());
            std::mem::take(&mut state.hooks)
        };
        for hook in hooks {
            hook(blame.clone());
        }
    }
}

/// Works on a pool until it is done or the signal says to end: takes a batch, processes it, commits each item and hands
/// it to `deliver`.
///
/// Ticks after every item. A panic of the stage inside a batch ends the worker and counts against every item of the
/// batch; they are tried again alone. A failure of one item with [`Status::Transient`] or [`Status::Poison`] counts
/// against that item and no other; [`Status::Fatal`] and [`Status::DeviceLost`] end the worker, the latter without
/// counting. What comes too late (a revoked lease) is dropped.
///
/// `deliver` must not fail; it may block, for as long as it likes, since waiting downstream is no hang.
pub fn work<In, Out>(
    context: &WorkerContext,
    pool: &Pool<In>,
    stage: &mut dyn Stage<In, Out>,
    deliver: &mut dyn FnMut(Item<Out>),
) -> ExitReason
where
    In: Send + Sync + 'static,
{
    let member = pool.join(context.node.as_str());
    let revoker = member.revoker();
    context.on_abandoned(move |blame| {
        revoker.revoke(blame);
    });
    loop {
        let items_max = stage.batch_items_max();
        let taken = {
            let _waiting = context.progress.waiting_upstream();
            member.take(items_max, &|first, second| stage.compatible(first, second), &context.signal)
        };
        let leases = match taken {
            Taken::Batch(leases) => leases,
            Taken::Closed => return ExitReason::Finished,
            Taken::Told(SignalState::Paused | SignalState::Running) => {
                let _waiting = context.progress.waiting_upstream();
                context.signal.wait_while_paused();
                continue;
            }
            Taken::Told(SignalState::Draining { .. }) => return ExitReason::Drained,
            Taken::Told(SignalState::Stop) => return ExitReason::Stopped,
        };
        match process(stage, leases) {
            Ok(results) => {
                if let Some(exit) = settle(context, results, deliver) {
                    return exit;
                }
            }
            Err(exit) => return exit,
        }
    }
}

type Processed<In, Out> = Vec<(Lease<In>, Result<Out, StageError>)>;

/// One batch through the stage; if the stage breaks down, its items go back with the explanation.
fn process<In, Out>(stage: &mut dyn Stage<In, Out>, leases: Vec<Lease<In>>) -> Result<Processed<In, Out>, ExitReason> {
    let batch: Vec<&In> = leases.iter().map(|lease| &**lease).collect();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        fault::point("scorer:before_process");
        stage.process(&batch)
    }));
    let exit = match outcome {
        Ok(results) if results.len() == leases.len() => return Ok(leases.into_iter().zip(results).collect()),
        Ok(results) => ExitReason::Failed {
            status: Status::Fatal,
            message: format!("expected a result for each of {} items, got {}", leases.len(), results.len()),
        },
        Err(panic) => ExitReason::Panicked(panic_message(&*panic)),
    };
    for lease in leases {
        lease.fail(exit.to_string());
    }
    Err(exit)
}

/// Commits what went well and gives back what did not; an exit if the worker can not go on.
fn settle<In, Out>(
    context: &WorkerContext,
    results: Processed<In, Out>,
    deliver: &mut dyn FnMut(Item<Out>),
) -> Option<ExitReason> {
    let mut exit = None;
    for (lease, result) in results {
        match result {
            Ok(out) => {
                fault::point("scorer:before_commit");
                if let Ok(item) = lease.commit(out) {
                    fault::point("scorer:after_commit");
                    let _waiting = context.progress.waiting_downstream();
                    deliver(item);
                }
            }
            Err(error) => {
                match error.status {
                    Status::Transient | Status::Poison => {}
                    Status::Fatal | Status::DeviceLost => exit = Some(ExitReason::from_error(&error)),
                }
                match error.status {
                    Status::DeviceLost => lease.give_back(),
                    _ => lease.fail(error.message),
                }
            }
        }
        context.progress.tick();
    }
    exit
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::credit::{CreditLimit, Credits};
    use crate::item::ItemId;
    use crate::steal::PoolConfig;

    /// Doubles numbers; what it does with some of them is the test's.
    struct Doubler {
        batches: Vec<Vec<u32>>,
        act: fn(u32) -> Result<u32, StageError>,
    }

    impl Stage<u32, u32> for Doubler {
        fn batch_items_max(&self) -> usize {
            4
        }
        fn compatible(&self, _: &u32, _: &u32) -> bool {
            true
        }
        fn process(&mut self, batch: &[&u32]) -> Vec<Result<u32, StageError>> {
            self.batches.push(batch.iter().map(|number| **number).collect());
            batch.iter().map(|number| (self.act)(**number)).collect()
        }
    }

    struct Run {
        pool: Pool<u32>,
        credits: Credits,
        exits: Vec<ExitReason>,
        delivered: Vec<u32>,
        batches: Vec<Vec<u32>>,
        poisoned: Vec<(u32, String)>,
    }

    /// Six numbers, and a new worker whenever one fails, at most nine.
    fn check(act: fn(u32) -> Result<u32, StageError>) -> Run {
        let credits = Credits::new(CreditLimit { items: 6, bytes: 6 });
        let pool = Pool::new(PoolConfig { attempts_max: 2 }, SystemClock::shared());
        for number in 0..6 {
            let credit = credits.try_acquire(1).unwrap();
            pool.push(Item::new(ItemId::new(0, number), number, credit)).unwrap();
        }
        pool.close();
        let (mut exits, mut delivered, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        for generation in 0..9 {
            let context = WorkerContext::new("node".into(), Generation(generation));
            let mut stage = Doubler { batches: Vec::new(), act };
            let exit = work(&context, &pool, &mut stage, &mut |item| delivered.push(item.payload));
            batches.append(&mut stage.batches);
            exits.push(exit);
            if exits.last() == Some(&ExitReason::Finished) {
                break;
            }
        }
        let poisoned = pool.poisoned().try_iter().map(|poisoned| (*poisoned.item.payload, poisoned.reason)).collect();
        Run { pool, credits, exits, delivered, batches, poisoned }
    }

    impl Run {
        fn assert_settled(&self) {
            assert_eq!(self.pool.stats().outstanding, 0);
            assert_eq!(self.credits.in_use(), (0, 0));
        }
    }

    #[test]
    fn finishes_a_closed_pool_in_batches() {
        let run = check(|number| Ok(number * 2));
        assert_eq!(run.exits, [ExitReason::Finished]);
        assert_eq!(run.delivered, [0, 2, 4, 6, 8, 10]);
        assert_eq!(run.batches, [vec![0, 1, 2, 3], vec![4, 5]]);
        run.assert_settled();
    }

    #[test]
    fn a_panicking_item_is_isolated() {
        let run = check(|number| if number == 1 { std::panic::resume_unwind(Box::new("bad one")) } else { Ok(number) });
        let panicked = ExitReason::Panicked("bad one".into());
        assert_eq!(run.exits, [panicked.clone(), panicked, ExitReason::Finished]);
        assert_eq!(run.batches, [vec![0, 1, 2, 3], vec![0], vec![1], vec![2], vec![3], vec![4, 5]]);
        assert_eq!(run.poisoned, [(1, "panicked: bad one".into())]);
        assert_eq!(run.delivered, [0, 2, 3, 4, 5]);
        run.assert_settled();
    }

    #[test]
    fn a_poison_result_counts_against_its_item_alone() {
        let run = check(|number| match number {
            2 => Err(StageError::new(Status::Poison, "cannot be scored")),
            number => Ok(number),
        });
        assert_eq!(run.exits, [ExitReason::Finished]);
        assert_eq!(run.batches, [vec![0, 1, 2, 3], vec![2], vec![4, 5]]);
        assert_eq!(run.poisoned, [(2, "cannot be scored".into())]);
        run.assert_settled();
    }

    #[test]
    fn a_fatal_error_ends_the_worker_after_the_batch() {
        let run = check(|number| match number {
            0 => Err(StageError::new(Status::Fatal, "out of memory")),
            number => Ok(number),
        });
        let failed = ExitReason::Failed { status: Status::Fatal, message: "out of memory".into() };
        assert_eq!(run.exits, [failed.clone(), failed, ExitReason::Finished]);
        assert_eq!(run.delivered, [1, 2, 3, 4, 5]);
        run.assert_settled();
    }

    #[test]
    fn a_lost_device_is_no_fault_of_the_items() {
        let run = check(|_| Err(StageError::new(Status::DeviceLost, "gone")));
        assert_eq!(run.exits, vec![ExitReason::DeviceLost("gone".into()); 9]);
        assert!(run.poisoned.is_empty());
        assert_eq!(run.pool.stats().outstanding, 6);
    }

    #[test]
    fn abandoned_work_is_taken_once_also_when_registered_late() {
        let context = WorkerContext::new("node".into(), Generation(0));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let hook = |name| {
            let calls = calls.clone();
            move |blame| calls.lock().push((name, blame))
        };
        context.on_abandoned(hook("early"));
        context.abandon(Blame::Node);
        context.abandon(Blame::Item("again".into()));
        context.on_abandoned(hook("late"));
        assert_eq!(*calls.lock(), [("early", Blame::Node), ("late", Blame::Node)]);
        assert_eq!(context.signal.state(), SignalState::Stop);
    }

    #[test]
    fn a_drained_or_stopped_worker_leaves_its_items() {
        for (order, exit) in [
            (SignalState::Draining { deadline: std::time::Duration::ZERO }, ExitReason::Drained),
            (SignalState::Stop, ExitReason::Stopped),
        ] {
            let credits = Credits::new(CreditLimit { items: 1, bytes: 1 });
            let pool = Pool::new(PoolConfig::default(), SystemClock::shared());
            pool.push(Item::new(ItemId::new(0, 0), 1, credits.try_acquire(1).unwrap())).unwrap();
            let context = WorkerContext::new("node".into(), Generation(0));
            context.signal.set(order);
            let mut stage = Doubler { batches: Vec::new(), act: Ok };
            assert_eq!(work(&context, &pool, &mut stage, &mut drop), exit);
            assert_eq!(pool.stats().outstanding, 1);
        }
    }
}
