use std::sync::Arc;

use crossbeam_channel::bounded;
use proptest::prelude::*;

use super::*;
use crate::sync::Mutex;

const SEC: Duration = Duration::from_secs(1);
const HANG_AFTER: Duration = Duration::from_secs(30);

/// A supervisor and the threads it believes to have.
struct Bench {
    supervisor: Supervisor,
    now: Duration,
    /// Threads that have not ended, zombies too, oldest first.
    threads: Vec<(usize, WorkerContext)>,
    events: Vec<SupervisionEventKind>,
    ends: Vec<StageReport>,
}

impl Bench {
    fn new(nodes: usize, policy: RestartPolicy) -> Bench {
        let nodes = (0..nodes).map(|node| NodeSpec::new(format!("n{node}"), "cpu")).collect();
        let spec = StageSpec { name: "score".into(), policy, hang_after: Some(HANG_AFTER), nodes };
        spec.check().unwrap();
        let supervisor = Supervisor::new(spec);
        let mut bench = Bench { supervisor, now: SEC, threads: Vec::new(), events: Vec::new(), ends: Vec::new() };
        bench.wake(Wakeup::Started);
        bench
    }

    fn wake(&mut self, wakeup: Wakeup) {
        for action in self.supervisor.on(self.now, wakeup) {
            match action {
                Action::Spawn { node, context } => self.threads.push((node, context)),
                Action::Emit(event) => self.events.push(event),
                Action::End(report) => self.ends.push(report),
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.wake(Wakeup::Ticked);
    }

    /// Lets the newest thread of a node end.
    fn exit(&mut self, node: usize, reason: ExitReason) {
        let thread = self.threads.iter().rposition(|(of, _)| *of == node).unwrap();
        self.exit_thread(thread, reason);
    }

    fn exit_thread(&mut self, thread: usize, reason: ExitReason) {
        let (node, context) = self.threads.remove(thread);
        self.wake(Wakeup::Exited { node, generation: context.generation, reason });
    }

    fn order(&mut self, order: Order) -> Result<(), EngineError> {
        let (reply, answer) = bounded(1);
        self.wake(Wakeup::Ordered { order, reply });
        answer.recv().unwrap()
    }

    fn observe(&mut self) -> Vec<NodeObservation> {
        let (reply, answer) = bounded(1);
        self.wake(Wakeup::Asked { reply });
        answer.recv().unwrap()
    }

    fn phases(&mut self) -> Vec<NodePhase> {
        self.observe().iter().map(|node| node.phase).collect()
    }

    fn context(&self, node: usize) -> WorkerContext {
        self.threads.iter().rev().find(|(of, _)| *of == node).unwrap().1.clone()
    }

    fn outcome(&self) -> Option<StageOutcome> {
        assert!(self.ends.len() <= 1, "a stage ends once");
        self.ends.first().map(|report| report.outcome)
    }
}

fn policy() -> RestartPolicy {
    RestartPolicy { restarts_max: 2, backoff_first: SEC, ..RestartPolicy::restarting() }
}

fn panicked() -> ExitReason {
    ExitReason::Panicked("x".into())
}

/// What the hooks of a context were told.
fn blames(context: &WorkerContext) -> Arc<Mutex<Vec<Blame>>> {
    let blames: Arc<Mutex<Vec<Blame>>> = Arc::default();
    let hook = blames.clone();
    context.on_abandoned(move |blame| hook.lock().push(blame));
    blames
}

#[test]
fn a_panicked_worker_is_replaced_after_its_back_off() {
    let mut bench = Bench::new(2, policy());
    bench.exit(0, panicked());
    assert_eq!(bench.phases(), [NodePhase::BackingOff, NodePhase::Working]);
    bench.pass(SEC / 2);
    assert_eq!(bench.threads.len(), 1);
    bench.pass(SEC / 2);
    assert_eq!(bench.phases(), [NodePhase::Working; 2]);
    assert_eq!(bench.context(0).generation, Generation(1));
    assert_eq!(bench.outcome(), None);
}

#[test]
fn a_node_that_only_fails_is_given_up_and_the_stage_goes_on_or_ends() {
    let mut bench = Bench::new(2, policy());
    for _ in 0..3 {
        bench.exit(0, panicked());
        bench.pass(5 * SEC);
    }
    assert_eq!(bench.phases(), [NodePhase::GivenUp, NodePhase::Working]);
    assert_eq!(bench.outcome(), None, "one node is left");
    bench.exit(1, ExitReason::DeviceLost("gone".into()));
    assert_eq!(bench.outcome(), Some(StageOutcome::Exhausted));
    assert_eq!(bench.ends[0].failures().count(), 2);
    assert!(bench.ends[0].nodes.iter().all(|node| node.given_up));
}

#[test]
fn work_done_begins_a_new_row_of_failures() {
    let mut bench = Bench::new(1, policy());
    for _ in 0..20 {
        bench.context(0).progress.tick();
        bench.exit(0, panicked());
        bench.pass(SEC);
        assert_eq!(bench.phases(), [NodePhase::Working]);
    }
}

#[test]
fn a_hung_worker_is_given_up_and_replaced() {
    let mut bench = Bench::new(1, policy());
    let hung = bench.context(0);
    let blames = blames(&hung);
    bench.pass(HANG_AFTER - SEC);
    hung.progress.tick();
    bench.pass(SEC);
    bench.pass(HANG_AFTER - SEC);
    assert_eq!(bench.phases(), [NodePhase::Working], "it ticked");
    bench.pass(SEC);
    assert_eq!(bench.phases(), [NodePhase::BackingOff]);
    assert!(matches!(&blames.lock()[..], [Blame::Item(_)]));
    assert_eq!(hung.signal.state(), SignalState::Stop);
    bench.pass(SEC);
    assert_eq!((bench.phases(), bench.observe()[0].zombies), (vec![NodePhase::Working], 1));
    bench.exit_thread(0, ExitReason::Stopped);
    assert_eq!(
        bench.events.last(),
        Some(&SupervisionEventKind::ZombieEnded { node: "n0".into(), generation: Generation(0) })
    );
    assert_eq!((bench.phases(), bench.observe()[0].zombies), (vec![NodePhase::Working], 0));
    bench.exit(0, ExitReason::Finished);
    assert_eq!(bench.outcome(), Some(StageOutcome::Finished));
}

#[test]
fn waiting_and_pausing_are_no_hang() {
    let mut bench = Bench::new(2, policy());
    let waiting = bench.context(0).progress.waiting_downstream();
    bench.order(Order::Pause { node: "n1".into() }).unwrap();
    for _ in 0..5 {
        bench.pass(HANG_AFTER);
    }
    assert_eq!(bench.phases(), [NodePhase::Working, NodePhase::Paused]);
    drop(waiting);
    bench.order(Order::Resume { node: "n1".into() }).unwrap();
    bench.pass(HANG_AFTER - SEC);
    assert_eq!(bench.phases(), [NodePhase::Working; 2], "the time begins when the wait ends");
    // Neither was seen to do anything since: node 0 was last seen when its wait had just ended.
    bench.pass(HANG_AFTER);
    assert_eq!(bench.phases(), [NodePhase::BackingOff; 2]);
}

#[test]
fn too_many_zombies_are_the_end_of_a_node() {
    let mut bench = Bench::new(1, RestartPolicy { zombies_max: 2, restarts_max: 99, ..policy() });
    for _ in 0..3 {
        assert_eq!(bench.phases(), [NodePhase::Working]);
        bench.pass(HANG_AFTER);
        bench.pass(20 * SEC);
    }
    assert_eq!(bench.phases(), [NodePhase::GivenUp]);
    assert_eq!((bench.threads.len(), bench.outcome()), (3, Some(StageOutcome::Exhausted)));
}

#[test]
fn a_preempted_node_leaves_and_comes_back_when_resumed() {
    let mut bench = Bench::new(1, policy());
    bench.order(Order::Preempt { node: "n0".into(), notice: 10 * SEC }).unwrap();
    let deadline = bench.now + 10 * SEC;
    assert_eq!(bench.context(0).signal.state(), SignalState::Draining { deadline });
    assert_eq!(bench.phases(), [NodePhase::Leaving]);
    assert!(bench.order(Order::Pause { node: "n0".into() }).is_err());
    assert!(bench.order(Order::Resume { node: "n0".into() }).is_err());
    bench.exit(0, ExitReason::Drained);
    assert_eq!(bench.phases(), [NodePhase::Away]);
    assert_eq!(bench.observe()[0].last_exit, Some(ExitReason::Preempted));
    let starved = bench.events.iter().filter(|event| **event == SupervisionEventKind::StageStarved);
    assert_eq!((starved.count(), bench.outcome()), (1, None));
    bench.order(Order::Resume { node: "n0".into() }).unwrap();
    assert_eq!(bench.phases(), [NodePhase::Working]);
}

#[test]
fn a_preempted_node_may_come_back_by_policy() {
    let mut bench = Bench::new(1, RestartPolicy { preempted_return_after: Some(60 * SEC), ..policy() });
    bench.order(Order::Preempt { node: "n0".into(), notice: SEC }).unwrap();
    bench.exit(0, panicked());
    assert_eq!(bench.phases(), [NodePhase::BackingOff], "it left because it was told to, however that went");
    bench.pass(59 * SEC);
    assert_eq!(bench.phases(), [NodePhase::BackingOff]);
    bench.pass(SEC);
    assert_eq!(bench.phases(), [NodePhase::Working]);
}

#[test]
fn after_the_notice_the_items_are_taken_without_blame() {
    let mut bench = Bench::new(1, policy());
    let blames = blames(&bench.context(0));
    bench.order(Order::Preempt { node: "n0".into(), notice: 10 * SEC }).unwrap();
    bench.pass(9 * SEC);
    assert!(blames.lock().is_empty());
    bench.pass(SEC);
    assert_eq!(*blames.lock(), [Blame::Node]);
    assert_eq!(bench.phases(), [NodePhase::Away]);
}

#[test]
fn a_killed_node_loses_its_items_at_once() {
    let mut bench = Bench::new(2, policy());
    let blames = blames(&bench.context(0));
    bench.order(Order::Kill { node: "n0".into() }).unwrap();
    assert_eq!(*blames.lock(), [Blame::Node]);
    assert_eq!(bench.phases(), [NodePhase::Away, NodePhase::Working]);
    bench.exit(0, ExitReason::Stopped);
    bench.exit(1, ExitReason::Finished);
    assert_eq!(bench.outcome(), Some(StageOutcome::Finished), "who is away is not waited for");
}

#[test]
fn when_the_work_is_done_nobody_is_started_again() {
    let mut bench = Bench::new(3, policy());
    bench.exit(0, panicked());
    bench.exit(1, ExitReason::Finished);
    assert_eq!(bench.phases(), [NodePhase::Ended, NodePhase::Ended, NodePhase::Working]);
    bench.exit(2, panicked());
    assert_eq!(bench.outcome(), Some(StageOutcome::Finished));
    assert!(!bench.ends[0].is_clean());
}

#[test]
fn a_drain_ends_in_time_whatever_the_workers_do() {
    let mut bench = Bench::new(4, policy());
    bench.order(Order::Preempt { node: "n3".into(), notice: 2 * SEC }).unwrap();
    bench.exit(0, panicked());
    bench.order(Order::Drain { notice: 10 * SEC }).unwrap();
    bench.exit(1, ExitReason::Drained);
    bench.pass(2 * SEC);
    assert_eq!(bench.phases(), [NodePhase::Ended, NodePhase::Ended, NodePhase::Leaving, NodePhase::Ended]);
    assert_eq!(bench.outcome(), None);
    bench.pass(8 * SEC);
    assert_eq!(bench.outcome(), Some(StageOutcome::Drained));
    let exits: Vec<_> = bench.ends[0].nodes.iter().map(|node| node.last_exit.clone().unwrap()).collect();
    assert_eq!(exits, [panicked(), ExitReason::Drained, ExitReason::Drained, ExitReason::Preempted]);
}

#[test]
fn stopping_takes_the_work_now_and_waits_for_the_threads() {
    let mut bench = Bench::new(2, policy());
    let blames = blames(&bench.context(0));
    bench.order(Order::Stop { grace: SEC }).unwrap();
    assert_eq!(*blames.lock(), [Blame::Node]);
    bench.exit(0, ExitReason::Stopped);
    assert_eq!(bench.outcome(), None);
    bench.pass(SEC);
    assert_eq!(bench.outcome(), Some(StageOutcome::Stopped));
    assert!(bench.order(Order::Resume { node: "n0".into() }).is_err());
}

#[test]
fn orders_for_nobody_are_refused_by_name() {
    let mut bench = Bench::new(2, policy());
    let error = bench.order(Order::Kill { node: "gpu7".into() }).unwrap_err();
    assert_eq!(error.to_string(), "stage score has no node gpu7: it has n0, n1");
}

#[test]
fn a_stage_that_cannot_work_is_refused() {
    let spec = |name: &str, nodes: &[&str]| StageSpec {
        name: name.into(),
        policy: policy(),
        hang_after: None,
        nodes: nodes.iter().map(|node| NodeSpec::new(*node, "cpu")).collect(),
    };
    assert!(spec("score_2", &["a", "b"]).check().is_ok());
    for bad in [spec("", &["a"]), spec("Score", &["a"]), spec("score", &[]), spec("score", &["a", "a"])] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Tick(prop::sample::Index),
    Exit(prop::sample::Index, ExitReason),
    Order(Order),
}

fn step() -> impl Strategy<Value = Step> {
    use prop::sample::Index;
    let node = (0u32..3).prop_map(|node| NodeId::new(format!("n{node}")));
    let exit = prop_oneof![
        Just(panicked()),
        Just(ExitReason::Drained),
        Just(ExitReason::Stopped),
        Just(ExitReason::DeviceLost("gone".into())),
    ];
    let order = prop_oneof![
        (node.clone(), 0u64..20)
            .prop_map(|(node, notice)| Order::Preempt { node, notice: Duration::from_secs(notice) }),
        node.clone().prop_map(|node| Order::Kill { node }),
        node.clone().prop_map(|node| Order::Pause { node }),
        node.prop_map(|node| Order::Resume { node }),
    ];
    prop_oneof![
        3 => (1u64..40).prop_map(Step::Pass),
        3 => any::<Index>().prop_map(Step::Tick),
        2 => (any::<Index>(), exit).prop_map(|(thread, exit)| Step::Exit(thread, exit)),
        3 => order.prop_map(Step::Order),
    ]
}

proptest! {
    /// Whatever happens: threads are accounted for, a node has at most one worker in charge, and a drain ends the stage.
    #[test]
    fn threads_are_accounted_for_and_a_drain_ends_it(steps in prop::collection::vec(step(), 0..60)) {
        let mut bench = Bench::new(3, policy());
        for step in steps {
            match step {
                Step::Pass(secs) => bench.pass(Duration::from_secs(secs)),
                Step::Tick(thread) => if !bench.threads.is_empty() {
                    bench.threads[thread.index(bench.threads.len())].1.progress.tick();
                },
                Step::Exit(thread, exit) => if !bench.threads.is_empty() {
                    bench.exit_thread(thread.index(bench.threads.len()), exit);
                },
                Step::Order(order) => drop(bench.order(order)),
            }
            let nodes = bench.observe();
            for (node, seen) in nodes.iter().enumerate() {
                let working = matches!(seen.phase, NodePhase::Working | NodePhase::Paused | NodePhase::Leaving);
                let threads = bench.threads.iter().filter(|(of, _)| *of == node).count();
                prop_assert_eq!(threads, seen.zombies as usize + usize::from(working));
            }
            let busy = nodes.iter().any(|node| !matches!(node.phase, NodePhase::Ended | NodePhase::GivenUp));
            prop_assert_eq!(bench.outcome().is_none(), busy);
        }
        bench.order(Order::Drain { notice: SEC }).unwrap();
        bench.pass(SEC);
        prop_assert!(bench.outcome().is_some());
        prop_assert!(bench.threads.iter().all(|(_, context)| context.signal.state() == SignalState::Stop));
        while !bench.threads.is_empty() {
            bench.exit_thread(0, ExitReason::Stopped);
        }
        prop_assert!(bench.observe().iter().all(|node| node.zombies == 0));
    }
}
