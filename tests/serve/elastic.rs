//! Nodes that come and go.

use crate::servers::http;
use crate::{Site, listens, until};
use restyle::serve::view::{JobFilter, NodeState};
use restyle::serve::{JobState, Scope, ServeConfig, Service};
use restyle_engine::clock::SystemClock;
use serde_json::Value;
use std::time::Duration;

fn route(name: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\ninput = \"in-{name}\"\noutput = \"out-{name}\"\nlogs = \"logs\"\nstyle = \"tiny.safetensors\"\npoll = \"200ms\"\n"
    )
}

/// What the daemon said last about giving back.
fn rested(site: &Site, times: usize) -> Value {
    until(&|| site.said(), || {
        let lines: Vec<String> =
            site.said().lines().filter(|l| l.contains("were given back")).map(str::to_owned).collect();
        serde_json::from_str(lines.get(times - 1)?).ok()
    })
}

/// A daemon that idles for its delay holds no network and little memory, and begins soon after an upload.
#[test]
fn idleness_costs_nothing_and_ends_at_once() {
    let site = Site::sized(8, "640x360");
    let style = "starry-night";
    let nodes = "nodes = { max = 2, idle_after = \"3s\" }\n";
    site.configure(&format!("{nodes}{}", route("a").replace("tiny.safetensors", style)));
    let daemon = site.daemon("");
    until(&|| site.said(), || site.said().contains("restyle serves").then_some(()));
    let scorers = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.0.id())).unwrap().flatten();
        // A thread may end while it is looked at.
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| name.starts_with("score-")).count()
    };
    rested(&site, 1);
    let before = daemon.resident();
    let clock = SystemClock::shared();
    for turn in 1..=2 {
        let running = || site.said().matches("\"state\":\"running\"").count();
        let seen = running();
        let dropped = clock.now();
        site.drop_clip(&format!("in-a/{turn}.mp4"));
        let waited = until(&|| site.said(), || (running() > seen).then(|| clock.now() - dropped));
        until(&|| site.said(), || (site.reports("logs").len() == turn).then_some(()));
        until(&|| site.said(), || (scorers() == 0).then_some(()));
        let kept = daemon.resident();
        let told = rested(&site, turn + 1);
        let after = daemon.resident();
        println!(
            "resident {before} MiB before the first job, {kept} MiB after job {turn}, {after} MiB when idle for {} s; \
             building a network took {} ms; the job began {waited:?} after its upload",
            told["idle_seconds"], told["build_millis"]
        );
        assert_eq!(told["networks_kept"], 0, "{told}");
        assert!(after < kept && after < before + 64, "{before} -> {kept} -> {after}");
    }
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

#[test]
fn memory_that_is_not_there_is_a_partial_allocation() {
    let site = Site::new(300);
    // A scorer of pictures this small is counted with a little more than 32 MiB.
    let file = site.configure(&format!("nodes = {{ max = 4, memory = \"80MiB\" }}\n{}", route("a")));
    let service = Service::start(ServeConfig::read(&file).unwrap()).unwrap();
    site.drop_clip("in-a/one.mp4");
    let nodes = || service.nodes(&Scope::All);
    let count = |state: NodeState| nodes().iter().filter(|n| n.state == state).count();
    until(&|| format!("{:?}", nodes()), || {
        let working = count(NodeState::Starting) + count(NodeState::Running);
        (working == 2 && count(NodeState::Wanted) == 2).then_some(())
    });
    assert_eq!(service.summary(&Scope::All).nodes.wanted, 2);
    let jobs = || service.list(&Scope::All, &JobFilter::default()).jobs;
    until(&|| format!("{:?}", jobs()), || jobs().iter().all(|j| j.state == JobState::Finished).then_some(()));
}

/// Taking every low-priority node away in mid-job costs time and nothing else.
#[test]
fn without_its_low_priority_nodes_a_job_is_only_slower() {
    let site = Site::new(300);
    let nodes = "jobs_at_once = 1\nnodes = { max = 3, low_priority = 2, return_after = \"0s\" }\n";
    let file = site.configure(&format!("{nodes}{}", route("a")));
    let service = Service::start(ServeConfig::read(&file).unwrap()).unwrap();
    let jobs = || service.list(&Scope::All, &JobFilter::default()).jobs;
    let said = || format!("{:?} {:?}", jobs(), service.nodes(&Scope::All));
    let finished = |count: usize| {
        let done = || jobs().into_iter().filter(|j| j.state == JobState::Finished).count();
        until(&said, || (done() == count).then_some(()));
    };
    site.drop_clip("in-a/undisturbed.mp4");
    finished(1);
    site.drop_clip("in-a/disturbed.mp4");
    let low = || service.nodes(&Scope::All).into_iter().filter(|n| n.class == "low-priority");
    until(&said, || (low().filter(|n| n.state == NodeState::Running && n.items_done > 0).count() == 2).then_some(()));
    for node in low() {
        service.preempt(&Scope::All, &node.id, Duration::ZERO).unwrap();
    }
    until(&said, || {
        let away = low().filter(|n| n.state == NodeState::Preempted).count();
        (away == 2 || low().count() == 0).then_some(())
    });
    finished(2);
    let bytes = |name: &str| std::fs::read(site.path(&format!("out-a/{name}.tiny.mp4"))).unwrap();
    assert!(bytes("undisturbed") == bytes("disturbed"), "the pictures differ");
    let tallied = service.tallied();
    println!("{} pre-emptions, {} of 600 frames scored again", tallied.preemptions, tallied.frames_redone);
    assert!(tallied.preemptions == 2 && tallied.frames_failed == 0 && tallied.frames_redone <= 2, "{tallied:?}");
}

fn nodes_of(site: &Site) -> Vec<Value> {
    let (status, body) = http(listens(site), "GET", "/v1/nodes", &[], b"").unwrap();
    assert_eq!(status, 200);
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn a_device_that_is_not_there_is_a_partial_allocation_and_no_error() {
    let site = Site::new(60);
    site.configure(&format!("nodes = {{ max = 2 }}\n{}", route("a")));
    let _daemon = site.daemon("scorer:start=2*error;scorer:before_process=delay(60)");
    site.drop_clip("in-a/one.mp4");
    let wanted = until(&|| site.said(), || {
        nodes_of(&site).into_iter().find(|n| n["state"] == "wanted" && !n["last_error"].is_null())
    });
    assert!(wanted["last_error"].as_str().unwrap().contains("could not be started"), "{wanted}");
    let report = until(&|| site.said(), || site.reports("logs").pop());
    assert_eq!(report["job"]["state"], "finished", "{report}");
}

#[test]
fn a_node_that_does_not_answer_is_unusable_and_says_why() {
    let site = Site::new(20);
    site.configure(&format!("nodes = {{ max = 2, hang_after = \"1s\" }}\n{}", route("a")));
    let _daemon = site.daemon("scorer:before_process=pause");
    site.drop_clip("in-a/one.mp4");
    let says_why = |text: &Value| text.as_str().is_some_and(|text| text.contains("no progress"));
    // It is seen before what happened to it is noted.
    until(&|| site.said(), || {
        nodes_of(&site).into_iter().find(|node| {
            let log = node["log"].as_array().unwrap();
            node["state"] == "unusable" && log.iter().any(says_why) && says_why(&node["last_error"])
        })
    });
}
