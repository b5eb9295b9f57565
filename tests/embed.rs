//! The library inside another program: nodes that are taken away while a job runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

mod support;

use restyle::{Event, Job, JobControl, JobOptions, NodeChange, NodePhase, Overwrite, Pipeline, RawConfig};
use restyle_engine::clock::{Clock, SystemClock};
use restyle_engine::fault;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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

/// Runs a job of two nodes, the second of low priority, to its end; `disturb` is called once when twenty frames are done.
fn run(
    bench: &Bench,
    input: &Path,
    output: &str,
    disturb: impl FnOnce(&JobControl),
) -> (restyle::event::Finished, Vec<Event>) {
    let (ended, events) = run_by(SystemClock::shared(), bench, input, output, disturb);
    (ended.unwrap(), events)
}

/// The same by another clock and to whatever end.
fn run_by(
    clock: Arc<dyn Clock>,
    bench: &Bench,
    input: &Path,
    output: &str,
    disturb: impl FnOnce(&JobControl),
) -> (Result<restyle::event::Finished, restyle::Error>, Vec<Event>) {
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
    let running = Pipeline::with_clock(config, clock).unwrap().submit(job).unwrap();
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
    (running.wait(), events)
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

/// A machine whose wall clock jumps an hour forth and back whenever it is read.
struct JumpingClock {
    steady: SystemClock,
    reads: AtomicU64,
}

impl Clock for JumpingClock {
    fn now(&self) -> Duration {
        self.steady.now()
    }

    fn unix(&self) -> Duration {
        let hour = Duration::from_secs(3600);
        match self.reads.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => self.steady.unix() + hour,
            _ => self.steady.unix() - hour,
        }
    }

    fn sleep(&self, duration: Duration) {
        self.steady.sleep(duration);
    }
}

#[test]
fn row_20_a_wall_clock_that_jumps_an_hour_changes_nothing() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bench = Bench::new();
    let input = clip(&bench);
    run(&bench, &input, "undisturbed.mp4", |_| {});
    let _slow = fault::arm("scorer:before_process=delay(250)").unwrap();
    let clock: Arc<dyn Clock> = Arc::new(JumpingClock { steady: SystemClock::new(), reads: AtomicU64::new(0) });
    let (ended, _) = run_by(Arc::clone(&clock), &bench, &input, "jumped.mp4", |c| c.drain(Duration::from_secs(10)));
    assert_eq!(ended.unwrap_err().kind(), restyle::ErrorKind::Interrupted);
    // What was done an hour later, or earlier, than now is neither newer nor older for it.
    let (ended, _) = run_by(clock, &bench, &input, "jumped.mp4", |_| {});
    let done = ended.unwrap();
    assert!(done.frames_reused > 0 && done.frames_rescored == 0, "{done:?}");
    assert_eq!(std::fs::read(bench.path("jumped.mp4")).unwrap(), std::fs::read(bench.path("undisturbed.mp4")).unwrap());
}
