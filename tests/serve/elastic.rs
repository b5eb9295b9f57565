//! Nodes that come and go.

use crate::{Site, until};
use restyle::serve::view::{JobFilter, NodeState};
use restyle::serve::{JobState, Scope, ServeConfig, Service};
use std::time::Duration;

fn route(name: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\ninput = \"in-{name}\"\noutput = \"out-{name}\"\nlogs = \"logs\"\nstyle = \"tiny.safetensors\"\npoll = \"200ms\"\n"
    )
}

/// A daemon that idles holds no scorer thread, and begins soon after an upload.
#[test]
fn idleness_costs_nothing_and_ends_at_once() {
    let site = Site::new(12);
    let style = "starry-night";
    site.configure(&format!("nodes = {{ max = 2 }}\n{}", route("a").replace("tiny.safetensors", style)));
    let daemon = site.daemon("");
    until(&|| site.said(), || site.said().contains("restyle serves").then_some(()));
    let scorers = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.0.id())).unwrap().flatten();
        // A thread may end while it is looked at.
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| name.starts_with("score-")).count()
    };
    let before = daemon.resident();
    site.drop_clip("in-a/one.mp4");
    let clock = restyle_engine::clock::SystemClock::shared();
    let dropped = clock.now();
    let began = || site.said().contains("\"state\":\"running\"").then(|| clock.now() - dropped);
    let waited = until(&|| site.said(), began);
    until(&|| site.said(), || (site.reports("logs").len() == 1).then_some(()));
    until(&|| site.said(), || (scorers() == 0).then_some(()));
    let after = daemon.resident();
    println!("resident {before} MiB before the first job, {after} MiB after it; it began {waited:?} after the upload");
    // The libraries that were loaded and the allocator's own stay; the pictures and planes of a job do not.
    assert!(after < before + 160, "{before} -> {after}");
}

#[test]
fn scorers_are_shared_and_what_is_missing_is_wanted() {
    let site = Site::new(400);
    let file = site.configure(&format!(
        "jobs_at_once = 2\nnodes = {{ max = 3, low_priority = 1 }}\n{}{}",
        route("a"),
        route("b")
    ));
    let service = Service::start(ServeConfig::read(&file).unwrap()).unwrap();
    site.drop_clip("in-a/one.mp4");
    site.drop_clip("in-b/two.mp4");
    let nodes = || service.nodes(&Scope::All);
    let count = |state: NodeState| nodes().iter().filter(|n| n.state == state).count();
    let said = || format!("{:?}", nodes());
    // Three nodes for two jobs that could use three each: three work at most, and what is missing is shown.
    until(&said, || (nodes().len() == 6 && count(NodeState::Wanted) == 3).then_some(()));
    let wanted = nodes().into_iter().find(|n| n.state == NodeState::Wanted).unwrap();
    assert!(service.resume_node(&Scope::All, &wanted.id).is_err(), "there is no capacity for it");
    let summary = service.summary(&Scope::All);
    assert_eq!((summary.nodes.max, summary.nodes.wanted), (3, 3));
    // A node that is taken away is shown as such, and the others finish the job.
    let present = nodes().into_iter().find(|n| n.state == NodeState::Running).unwrap();
    service.preempt(&Scope::All, &present.id, Duration::ZERO).unwrap();
    until(&said, || {
        let now = nodes().into_iter().find(|n| n.id == present.id);
        now.is_none_or(|n| n.state == NodeState::Preempted && n.preemptions == 1).then_some(())
    });
    let jobs = || service.list(&Scope::All, &JobFilter::default()).jobs;
    for job in jobs().iter().filter(|j| j.tenant.as_str() == "default").take(1) {
        service.cancel(&Scope::All, &job.id).unwrap();
    }
    until(&|| format!("{:?}", jobs()), || jobs().iter().any(|j| j.state == JobState::Cancelled).then_some(()));
    // The one that is left has all there is.
    until(&said, || {
        let running = jobs().iter().filter(|j| j.state == JobState::Running).count();
        (running == 0 || count(NodeState::Wanted) == 0).then_some(())
    });
    assert!(service.drain_and_stop(Duration::from_secs(60)));
}
