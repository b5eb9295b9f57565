//! Scripted faults. In a binary of their own: a script is in force for the whole process.

mod support;

use restyle_engine::{ControlPlane, NodeId, fault};
use support::{LONG, Pass, undisturbed};

/// A panic just before a commit costs that batch and no more; a worker that stands there is a zombie whose commit
/// comes too late.
#[test]
fn faults_around_the_commit_change_nothing_in_the_output() {
    let (pass, control) = (Pass::new(), ControlPlane::start().unwrap());
    pass.encoders_open.cancel();
    let _armed =
        fault::arm("scorer:before_process=7*panic;scorer:before_commit=40*panic;scorer:before_commit=90*pause")
            .unwrap();
    let topology = pass.start(&control, &["a", "b", "c"], undisturbed());
    assert!(fault::wait_until_paused("scorer:before_commit", LONG));
    let scorers = topology.stage("score").unwrap();
    for node in ["a", "b", "c"] {
        // One of them stands at the point; the others lose nothing by it, and may have done everything before it is their turn.
        let _ = scorers.kill(&NodeId::new(node)).and_then(|()| scorers.resume(&NodeId::new(node)));
    }
    let report = topology.wait();
    fault::release("scorer:before_commit");
    pass.assert_whole(&report);
    assert!(pass.pool.stats().revoked > 0);
}
