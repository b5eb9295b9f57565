use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::clock::ManualClock;
use crate::credit::{CreditLimit, Credits};
use crate::item::{Attempt, Generation, Item, ItemId};
use crate::stage::{Stage, StageError};
use crate::steal::{Pool, PoolConfig};
use crate::supervise::{NodePhase, NodeSpec, RestartPolicy, StageOutcome, SupervisionEventKind};
use crate::sync::Mutex;
use crate::worker::work;

const SEC: Duration = Duration::from_secs(1);
/// Only a broken test waits this long.
const LONG: Duration = Duration::from_secs(60);

/// What a worker does with one item.
type Act = Arc<dyn Fn(&WorkerContext, u32) + Send + Sync>;

struct Acting {
    context: WorkerContext,
    act: Act,
}

impl Stage<u32, u32> for Acting {
    fn batch_items_max(&self) -> usize {
        2
    }
    fn compatible(&self, _: &u32, _: &u32) -> bool {
        true
    }
    fn process(&mut self, batch: &[&u32]) -> Vec<Result<u32, StageError>> {
        batch.iter().for_each(|number| (self.act)(&self.context, **number));
        batch.iter().map(|number| Ok(**number)).collect()
    }
}

/// A pool of numbers scored by a supervised stage.
struct Scoring {
    pool: Pool<u32>,
    credits: Credits,
    /// Attempts after which each item was delivered.
    delivered: Arc<Mutex<BTreeMap<u32, Vec<Attempt>>>>,
    stage: StageHandle,
    _control: ControlPlane,
}

fn spec(nodes: &[&str]) -> StageSpec {
    let policy = RestartPolicy {
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(1),
        ..RestartPolicy::restarting()
    };
    let nodes = nodes.iter().map(|node| NodeSpec::new(*node, "cpu")).collect();
    StageSpec { name: "score".into(), policy, hang_after: None, nodes }
}

impl Scoring {
    fn new(clock: Arc<dyn Clock>, spec: StageSpec, act: Act) -> Scoring {
        let credits = Credits::new(CreditLimit { items: 1000, bytes: 1000 });
        let pool = Pool::new(PoolConfig::default(), clock.clone());
        let delivered: Arc<Mutex<BTreeMap<u32, Vec<Attempt>>>> = Arc::default();
        let control = ControlPlane::start_with(clock).unwrap();
        let factory = {
            let (pool, delivered) = (pool.clone(), delivered.clone());
            move |context: WorkerContext| {
                let mut stage = Acting { context: context.clone(), act: act.clone() };
                work(&context, &pool, &mut stage, &mut |item| {
                    delivered.lock().entry(item.payload).or_default().push(item.attempt);
                })
            }
        };
        let stage = control.stage(spec, factory).unwrap();
        Scoring { pool, credits, delivered, stage, _control: control }
    }

    fn push(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let credit = self.credits.try_acquire(1).unwrap();
            self.pool.push(Item::new(ItemId::new(0, number), number, credit)).unwrap();
        }
    }

    fn wait(&self) -> crate::supervise::StageReport {
        self.stage.wait_timeout(LONG).expect("the stage should have ended")
    }

    fn assert_each_delivered_once(&self, items: u32) {
        let delivered = self.delivered.lock().clone();
        assert_eq!(delivered.keys().copied().collect::<Vec<_>>(), (0..items).collect::<Vec<_>>());
        assert!(delivered.values().all(|attempts| attempts.len() == 1), "{delivered:?}");
        assert_eq!(self.credits.in_use(), (0, 0));
    }

    fn until(&self, event: impl Fn(&SupervisionEventKind) -> bool) {
        while !event(&self.stage.events().recv_timeout(LONG).expect("the event should have come").kind) {}
    }
}

/// Holds up whoever comes to it as a given worker, until it is opened.
struct Turnstile {
    arrivals: (Sender<u32>, Receiver<u32>),
    open: CancelToken,
}

impl Turnstile {
    fn new() -> Arc<Turnstile> {
        Arc::new(Turnstile { arrivals: crossbeam_channel::unbounded(), open: CancelToken::new() })
    }

    fn pass(&self, number: u32) {
        self.arrivals.0.send(number).unwrap();
        self.open.wait();
    }

    fn arrival(&self) -> u32 {
        self.arrivals.1.recv_timeout(LONG).expect("somebody should have come")
    }
}

fn exited(node: &str, generation: u32) -> impl Fn(&SupervisionEventKind) -> bool {
    let (node, generation) = (NodeId::new(node), Generation(generation));
    move |event| {
        matches!(event, SupervisionEventKind::WorkerExited { node: of, generation: at, .. }
            if (of, at) == (&node, &generation))
    }
}

#[test]
fn a_panicked_worker_is_replaced_and_nothing_is_lost() {
    let act: Act = Arc::new(|context, number| {
        if number == 7 && context.generation == Generation(0) {
            std::panic::resume_unwind(Box::new("first time"));
        }
    });
    let scoring = Scoring::new(SystemClock::shared(), spec(&["a", "b"]), act);
    scoring.push(0..200);
    scoring.pool.close();
    let report = scoring.wait();
    assert_eq!(report.outcome, StageOutcome::Finished);
    scoring.assert_each_delivered_once(200);
}

#[test]
fn a_hung_worker_is_replaced_and_its_zombie_has_no_say() {
    let clock = ManualClock::shared();
    let turnstile = Turnstile::new();
    let act: Act = {
        let turnstile = turnstile.clone();
        Arc::new(move |context, number| {
            if context.generation == Generation(0) {
                turnstile.pass(number);
            }
        })
    };
    let spec = StageSpec { hang_after: Some(30 * SEC), ..spec(&["a"]) };
    let scoring = Scoring::new(clock.clone(), spec, act);
    scoring.push(0..4);
    scoring.pool.close();
    turnstile.arrival();
    assert!(!scoring.stage.observe().unwrap()[0].waiting, "seen at work, at the time zero");
    clock.advance(31 * SEC);
    scoring.until(exited("a", 0));
    clock.advance(SEC);
    let report = scoring.wait();
    assert_eq!((report.outcome, report.nodes[0].restarts, report.nodes[0].zombies), (StageOutcome::Finished, 1, 1));
    scoring.assert_each_delivered_once(4);
    turnstile.open.cancel();
    scoring.until(|event| matches!(event, SupervisionEventKind::ZombieEnded { .. }));
    scoring.assert_each_delivered_once(4);
}

#[test]
fn a_preempted_node_finishes_its_batch_and_leaves_the_rest() {
    let turnstile = Turnstile::new();
    let act: Act = {
        let turnstile = turnstile.clone();
        Arc::new(move |context, number| {
            if context.node.as_str() == "low" {
                turnstile.pass(number);
            }
        })
    };
    // A clock that stands still: the notice never ends.
    let scoring = Scoring::new(ManualClock::shared(), spec(&["low", "high"]), act);
    scoring.stage.pause(&"high".into()).unwrap();
    scoring.push(0..50);
    turnstile.arrival();
    scoring.stage.preempt(&"low".into(), 10 * SEC).unwrap();
    turnstile.open.cancel();
    scoring.until(exited("low", 0));
    scoring.stage.resume(&"high".into()).unwrap();
    scoring.pool.close();
    let report = scoring.wait();
    assert_eq!(report.outcome, StageOutcome::Finished);
    assert_eq!(report.nodes[0].last_exit, Some(ExitReason::Preempted));
    assert_eq!((scoring.pool.stats().failed, scoring.pool.stats().revoked), (0, 0));
    scoring.assert_each_delivered_once(50);
}

#[test]
fn a_killed_node_loses_only_what_it_had_in_hand() {
    let turnstile = Turnstile::new();
    let act: Act = {
        let turnstile = turnstile.clone();
        Arc::new(move |context, number| {
            if context.node.as_str() == "low" {
                turnstile.pass(number);
            }
        })
    };
    let scoring = Scoring::new(ManualClock::shared(), spec(&["low", "high"]), act);
    scoring.stage.pause(&"high".into()).unwrap();
    scoring.push(0..50);
    scoring.pool.close();
    turnstile.arrival();
    scoring.stage.kill(&"low".into()).unwrap();
    scoring.stage.resume(&"high".into()).unwrap();
    assert_eq!(scoring.wait().outcome, StageOutcome::Finished);
    let stats = scoring.pool.stats();
    assert!((1..=2).contains(&stats.revoked) && stats.failed == 0, "{stats:?}");
    scoring.assert_each_delivered_once(50);
    turnstile.open.cancel();
    scoring.until(|event| matches!(event, SupervisionEventKind::ZombieEnded { .. }));
    scoring.assert_each_delivered_once(50);
}

#[test]
fn a_preempted_node_comes_back_when_resumed() {
    let scoring = Scoring::new(SystemClock::shared(), spec(&["only"]), Arc::new(|_, _| {}));
    scoring.stage.preempt(&"only".into(), LONG).unwrap();
    scoring.until(|event| *event == SupervisionEventKind::StageStarved);
    scoring.push(0..10);
    scoring.pool.close();
    assert_eq!(scoring.stage.observe().unwrap()[0].phase, NodePhase::Away);
    scoring.stage.resume(&"only".into()).unwrap();
    assert_eq!(scoring.wait().outcome, StageOutcome::Finished);
    scoring.assert_each_delivered_once(10);
}

#[test]
fn a_stage_whose_workers_only_fail_ends_instead_of_hanging() {
    let starts = Arc::new(AtomicU32::new(0));
    let control = ControlPlane::start().unwrap();
    let counted = starts.clone();
    let spec = StageSpec { policy: RestartPolicy { restarts_max: 3, ..spec(&[]).policy }, ..spec(&["a", "b"]) };
    let stage = control.stage(spec, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new("cannot build the model".to_owned()))
    });
    let report = stage.unwrap().wait_timeout(LONG).expect("the stage should have ended");
    assert_eq!(report.outcome, StageOutcome::Exhausted);
    assert_eq!(starts.load(Ordering::Relaxed), 8, "two nodes, each started once and restarted three times");
    let panicked = ExitReason::Panicked("cannot build the model".into());
    assert!(report.nodes.iter().all(|node| node.last_exit.as_ref() == Some(&panicked)));
}

#[test]
fn poison_is_reported_and_the_rest_is_done() {
    let act: Act = Arc::new(|_, number| {
        if number == 13 {
            std::panic::resume_unwind(Box::new("unscorable"));
        }
    });
    let scoring = Scoring::new(SystemClock::shared(), spec(&["a", "b"]), act);
    scoring.push(0..40);
    scoring.pool.close();
    assert_eq!(scoring.wait().outcome, StageOutcome::Finished);
    let poisoned = scoring.pool.poisoned().try_recv().unwrap();
    assert_eq!((*poisoned.item.payload, poisoned.reason.as_str()), (13, "panicked: unscorable"));
    assert_eq!(scoring.delivered.lock().len(), 39);
    assert_eq!(scoring.credits.in_use().0, 1);
}

#[test]
fn a_drain_ends_under_ten_seconds_with_a_worker_that_hangs() {
    let turnstile = Turnstile::new();
    let act: Act = {
        let turnstile = turnstile.clone();
        Arc::new(move |context, number| {
            if context.node.as_str() == "stuck" {
                turnstile.pass(number);
            }
        })
    };
    let clock = SystemClock::new();
    let scoring = Scoring::new(Arc::new(clock), spec(&["stuck", "free"]), act);
    scoring.stage.pause(&"free".into()).unwrap();
    scoring.push(0..10);
    turnstile.arrival();
    let began = clock.now();
    scoring.stage.drain(Duration::from_millis(200)).unwrap();
    let report = scoring.wait();
    assert!(clock.now() - began < 10 * SEC);
    assert_eq!((report.outcome, report.nodes[0].zombies), (StageOutcome::Drained, 1));
    assert!(scoring.pool.stats().outstanding > 0, "what the stuck worker had went back");
    assert_eq!(scoring.pool.stats().failed, 0);
    turnstile.open.cancel();
    scoring.until(|event| matches!(event, SupervisionEventKind::ZombieEnded { .. }));
}

#[test]
fn a_paused_node_is_seen_and_goes_on_when_resumed() {
    let scoring = Scoring::new(SystemClock::shared(), spec(&["a"]), Arc::new(|_, _| {}));
    let node = NodeId::new("a");
    scoring.stage.pause(&node).unwrap();
    assert_eq!(scoring.stage.observe().unwrap()[0].phase, NodePhase::Paused);
    scoring.push(0..5);
    scoring.pool.close();
    scoring.stage.resume(&node).unwrap();
    assert_eq!(scoring.wait().outcome, StageOutcome::Finished);
    scoring.assert_each_delivered_once(5);
    let observed = scoring.stage.observe().unwrap();
    assert_eq!((observed[0].phase, observed[0].last_exit.clone()), (NodePhase::Ended, Some(ExitReason::Finished)));
    assert!(scoring.stage.pause(&node).is_err());
}

#[test]
fn nobody_waits_for_a_control_plane_that_is_gone() {
    let control = ControlPlane::start().unwrap();
    let stage = control.stage(spec(&["a"]), |context| {
        context.signal.stop_token().wait();
        ExitReason::Stopped
    });
    let stage = stage.unwrap();
    drop(control);
    assert_eq!(stage.wait_timeout(LONG).map(|report| report.outcome), Some(StageOutcome::Stopped));
    assert!(matches!(stage.observe(), Err(EngineError::ControlGone(_))));
}

#[test]
fn several_control_planes_live_in_one_process() {
    let stages: Vec<_> = (0..3)
        .map(|_| {
            let control = ControlPlane::start().unwrap();
            let stage = control.stage(spec(&["a"]), |_| ExitReason::Finished).unwrap();
            (stage, control)
        })
        .collect();
    for (stage, _control) in &stages {
        assert!(stage.wait_timeout(LONG).expect("it should have ended").is_clean());
    }
}
