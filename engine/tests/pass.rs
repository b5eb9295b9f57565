//! Passes whose scorers fail, die, come and go: the output never changes.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use restyle_engine::{ControlPlane, ItemId, NodeId, StageError, Status, SupervisionEventKind};
use support::{CREDITS, Disturb, LONG, Pass, undisturbed};

#[test]
fn a_pass_gives_every_segment_in_order() {
    for nodes in [&["a"][..], &["a", "b", "c"]] {
        let (pass, control) = (Pass::new(), ControlPlane::start().unwrap());
        pass.encoders_open.cancel();
        let report = pass.start(&control, nodes, undisturbed()).wait();
        pass.assert_whole(&report);
        assert_eq!(pass.pool.stats().failed, 0);
    }
}

#[test]
fn failing_items_and_dying_workers_change_nothing_in_the_output() {
    let (pass, control) = (Pass::new(), ControlPlane::start().unwrap());
    pass.encoders_open.cancel();
    let tried: Arc<Mutex<BTreeMap<ItemId, u32>>> = Arc::default();
    let disturb: Disturb = Arc::new(move |_, id| {
        let mut tried = tried.lock().unwrap();
        let before = tried.entry(id).or_default();
        *before += 1;
        match (*before, (id.segment.0 * 7 + id.index.0) % 29) {
            (1, 3) => Err(StageError::new(Status::Transient, "busy")),
            (1 | 2, 5) => Err(StageError::new(Status::Poison, "not this time")),
            (1, 11) => Err(StageError::new(Status::Fatal, "worker is broken")),
            (1, 17) => {
                drop(tried);
                std::panic::resume_unwind(Box::new("scorer died"))
            }
            _ => Ok(()),
        }
    });
    let report = pass.start(&control, &["a", "b", "c"], disturb).wait();
    pass.assert_whole(&report);
    assert!(pass.pool.stats().failed > 0);
    assert!(report.stages[1].nodes.iter().any(|node| node.restarts > 0));
}

#[test]
fn nodes_that_come_and_go_change_nothing_in_the_output() {
    let (pass, control) = (Pass::new(), ControlPlane::start().unwrap());
    pass.encoders_open.cancel();
    let topology = pass.start(&control, &["a", "b", "c"], undisturbed());
    let scorers = topology.stage("score").unwrap();
    let report = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| topology.wait());
        for round in 0.. {
            if scorers.ended().is_cancelled() {
                break;
            }
            let node = NodeId::new(["a", "b", "c"][round % 3]);
            // Orders may be refused: the node is gone, or the stage is at its end.
            let _ = match round % 4 {
                0 => scorers.kill(&node),
                1 => scorers.preempt(&node, LONG),
                2 => scorers.preempt(&node, Duration::ZERO),
                _ => scorers.pause(&node),
            };
            for node in ["a", "b", "c"] {
                let _ = scorers.resume(&NodeId::new(node));
            }
        }
        waiting.join().unwrap()
    });
    pass.assert_whole(&report);
    assert_eq!(pass.pool.stats().failed, 0, "nobody's fault counts against an item");
}

/// Slow consumers stop the decoder: what is in flight is exactly what the credits allow, and nothing is dropped.
#[test]
fn what_is_in_flight_is_what_credits_allow() {
    let (pass, control) = (Pass::new(), ControlPlane::start().unwrap());
    let topology = pass.start(&control, &["a", "b"], undisturbed());
    while pass.credits.stats().waiting == 0 {
        std::thread::yield_now();
    }
    assert_eq!(pass.credits.in_use(), (CREDITS, 100 * CREDITS as u64));
    assert_eq!(pass.pool.stats().pushed, CREDITS as u64);
    pass.encoders_open.cancel();
    pass.assert_whole(&topology.wait());
}

#[test]
fn without_scorers_the_pass_ends_instead_of_hanging() {
    let (pass, control) = (Pass::new(), ControlPlane::start().unwrap());
    pass.encoders_open.cancel();
    let disturb: Disturb = Arc::new(|_, _| Err(StageError::new(Status::DeviceLost, "no device")));
    let topology = pass.start(&control, &["a", "b"], disturb);
    let report = topology.wait();
    assert_eq!(report.culprit().map(|stage| stage.stage.as_str()), Some("score"));
    let given_up = topology.stage("score").unwrap().events().try_iter();
    assert_eq!(given_up.filter(|event| matches!(event.kind, SupervisionEventKind::NodeGivenUp { .. })).count(), 2);
    assert_eq!(pass.pool.stats().failed, 0);
    assert!(pass.encoded.lock().unwrap().is_empty());
}
