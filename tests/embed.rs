//! The library inside another program: nodes that are taken away while a job runs.

mod support;

use restyle::{Event, Job, JobControl, JobOptions, NodeChange, NodePhase, Overwrite, Pipeline, RawConfig};
use restyle_engine::fault;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use support::{Bench, ffmpeg};

/// Fault points belong to the process: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

const FRAMES: u64 = 100;

fn clip(bench: &Bench) -> std::path::PathBuf {
    let path = bench.path("in.mp4");
    let args =
        ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25", "-t", "4", "-c:v", "libx264", "-pix_fmt", "yuv420p"];
    ffmpeg(&[&args[..], &[path.to_str().unwrap()]].concat());
    path
}

/// Runs a job of two nodes, the second of low priority; `disturb` is called once when twenty frames are done.
fn run(
    bench: &Bench,
    input: &Path,
    output: &str,
    disturb: impl FnOnce(&JobControl),
) -> (restyle::event::Finished, Vec<Event>) {
    let raw = RawConfig {
        workers: Some(2),
        low_priority: Some(1),
        return_seconds: Some(1),
        device: Some("cpu".into()),
        work_dir: Some(bench.path("work")),
        size: Some(48),
        ..RawConfig::default()
    };
    let (config, _) = raw.check().unwrap();
    let job = Job {
        input: input.to_str().unwrap().into(),
        output: bench.path(output).to_str().unwrap().into(),
        options: JobOptions {
            style: Some(bench.path("tiny.safetensors").to_str().unwrap().into()),
            size: Some(48),
            ..JobOptions::default()
        },
        fresh: false,
        overwrite: Overwrite::Refused,
    };
    let running = Pipeline::new(config).unwrap().submit(job).unwrap();
    let control = running.control();
    let (mut disturb, mut events) = (Some(disturb), Vec::new());
    for event in running.events() {
        if matches!(&event, Event::Progress(p) if p.frames_done >= 20)
            && let Some(disturb) = disturb.take()
        {
            disturb(&control);
        }
        events.push(event);
    }
    assert!(disturb.is_none(), "the job ended before twenty frames were seen");
    (running.wait().unwrap(), events)
}

/// Frames scored over all, more than once counted more than once.
fn scored_ever(bench: &Bench, job: &str) -> u64 {
    std::fs::metadata(bench.path("work/jobs").join(job).join("scored.log")).unwrap().len() / 8
}

fn changes<'a>(events: &'a [Event], node: &str) -> Vec<&'a NodeChange> {
    let of = |event: &'a Event| match event {
        Event::Node(told) if told.node == node => Some(&told.what),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn a_node_taken_away_with_notice_costs_nothing_and_without_notice_what_it_had_in_hand() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bench = Bench::new();
    let input = clip(&bench);
    run(&bench, &input, "undisturbed.mp4", |_| {});
    let undisturbed = std::fs::read(bench.path("undisturbed.mp4")).unwrap();
    let _slow = fault::arm("scorer:before_process=delay(60)").unwrap();

    let (done, events) = run(&bench, &input, "noticed.mp4", |c| c.preempt("cpu-1", Duration::from_secs(10)).unwrap());
    assert!(std::fs::read(bench.path("noticed.mp4")).unwrap() == undisturbed);
    assert_eq!(scored_ever(&bench, &done.job), FRAMES, "finished frames were scored again");
    let seen = changes(&events, "cpu-1");
    assert!(seen.contains(&&NodeChange::Notified), "{seen:?}");
    assert!(seen.contains(&&NodeChange::Exited { reason: "pre-empted".into(), failed: false }), "{seen:?}");
    assert!(seen.contains(&&NodeChange::Started { generation: 1 }), "it did not come back: {seen:?}");

    let (done, events) = run(&bench, &input, "killed.mp4", |c| c.kill("cpu-1").unwrap());
    assert!(std::fs::read(bench.path("killed.mp4")).unwrap() == undisturbed);
    let scored = scored_ever(&bench, &done.job);
    assert!((FRAMES..=FRAMES + 1).contains(&scored), "{scored} frames scored: one was in hand at most");
    assert!(changes(&events, "cpu-1").contains(&&NodeChange::Exited { reason: "pre-empted".into(), failed: false }));
}

#[test]
fn a_paused_node_waits_and_is_observed() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bench = Bench::new();
    let input = clip(&bench);
    let _slow = fault::arm("scorer:before_process=delay(60)").unwrap();
    let pause = |control: &JobControl| {
        let phase = |node: &str| control.nodes().into_iter().find(|n| n.node.as_str() == node).map(|n| n.phase);
        assert_eq!(control.nodes().iter().map(|n| n.class).collect::<Vec<_>>(), {
            [restyle::NodeClass::Dedicated, restyle::NodeClass::LowPriority]
        });
        control.pause("cpu-0").unwrap();
        assert_eq!((phase("cpu-0"), phase("cpu-1")), (Some(NodePhase::Paused), Some(NodePhase::Working)));
        control.resume("cpu-0").unwrap();
        assert_eq!(phase("cpu-0"), Some(NodePhase::Working));
        assert!(control.preempt("cpu-7", Duration::ZERO).is_err(), "there is no such node");
    };
    let (done, events) = run(&bench, &input, "out.mp4", pause);
    assert_eq!(done.frames, FRAMES);
    let seen = changes(&events, "cpu-0");
    assert!(seen.contains(&&NodeChange::Paused) && seen.contains(&&NodeChange::Resumed), "{seen:?}");
}
