//! Rows 1, 2, 8, 29: scorers that panic or hang, a process that is stopped for a while, an encoder that is slow; and devices
//! that are lost.

use crate::rehearsal::{FRAMES, Rehearsal, SEGMENT_FRAMES, SLOW, in_flight, make_clip};
use crate::support::{Bench, finish};
use rustix::process::Signal;
use std::process::Command;
use std::time::Duration;

#[test]
fn row_1_a_scorer_that_panics_is_replaced_and_nothing_finished_is_scored_again() {
    let rehearsal = Rehearsal::new();
    let (code, events, stderr) =
        finish(&mut rehearsal.run("scorer:before_process=3*panic;scorer:before_process=40*panic"));
    assert_eq!(code, 0, "{stderr}");
    rehearsal.is_identical();
    let panics =
        events.iter().filter(|e| e["event"] == "warning" && e["message"].as_str().unwrap().contains("panicked"));
    assert_eq!(panics.count(), 2, "{events:?}");
    assert_eq!(rehearsal.scored_ever(), FRAMES);
}

#[test]
fn row_1_a_frame_that_panics_every_time_is_named() {
    let rehearsal = Rehearsal::new();
    let (code, last, stderr) = rehearsal.ends("score:60=panic");
    assert_eq!((code, last["kind"].as_str()), (1, Some("job_failed")), "{last} {stderr}");
    assert_eq!(last["frames"], serde_json::json!([60]));
    assert!(!rehearsal.output.exists());
    let done = rehearsal.finishes("");
    assert!(done["segments_reused"].as_u64().unwrap() >= 2, "the other segments are kept: {done}");
}

#[test]
fn row_2_a_frame_that_hangs_goes_to_another_scorer_and_the_zombies_result_is_refused() {
    let rehearsal = Rehearsal { hang_seconds: 1, ..Rehearsal::new() };
    // The zombie wakes up while the job still runs.
    let script = format!("score:20=1*delay(2500);{SLOW}");
    let (code, events, stderr) = finish(&mut rehearsal.run(&script));
    assert_eq!(code, 0, "{stderr}");
    rehearsal.is_identical();
    assert!(
        events.iter().any(|e| e["message"].as_str().is_some_and(|m| m.contains("made no progress"))),
        "nobody was taken for hung: {events:?}"
    );
    assert!(rehearsal.scored_ever() <= FRAMES + 1, "{} frames", rehearsal.scored_ever());
}

#[test]
fn row_2_a_scorer_that_hangs_for_ever_is_left_behind() {
    let rehearsal = Rehearsal { hang_seconds: 1, ..Rehearsal::new() };
    rehearsal.finishes("scorer:before_process=5*pause");
    assert_eq!(rehearsal.scored_ever(), FRAMES);
}

#[test]
fn row_8_a_process_stopped_for_twice_the_lease_goes_on() {
    let rehearsal = Rehearsal { hang_seconds: 1, ..Rehearsal::new() };
    let mut run = rehearsal.until_scored(SLOW, 20);
    run.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(2200));
    run.signal(Signal::CONT);
    assert_eq!(run.wait().code(), Some(0));
    rehearsal.is_identical();
    assert!(rehearsal.scored_ever() <= FRAMES + in_flight(2), "{} frames", rehearsal.scored_ever());
}

#[test]
fn a_lost_device_ends_its_node_and_the_others_finish() {
    let rehearsal = Rehearsal::new();
    let (code, events, stderr) = finish(&mut rehearsal.run("scorer:device=5*error"));
    assert_eq!(code, 0, "{stderr}");
    rehearsal.is_identical();
    let says = |what: &str| events.iter().any(|e| e["message"].as_str().is_some_and(|m| m.contains(what)));
    assert!(says("device lost") && says("is not started again"), "{events:?}");
    assert_eq!(rehearsal.scored_ever(), FRAMES);
}

#[test]
fn the_last_lost_device_ends_the_process_with_its_own_code_and_the_job_resumes() {
    let rehearsal = Rehearsal::new();
    let (code, last, stderr) = rehearsal.ends(&format!("{SLOW};scorer:device=90*error;scorer:device=91*error"));
    assert_eq!((code, last["kind"].as_str()), (6, Some("device_lost")), "{last} {stderr}");
    assert_eq!(last["resumable"], true, "{last}");
    assert!(last["message"].as_str().unwrap().contains("no scorer is left"), "{last}");
    let done = rehearsal.finishes("");
    assert!(done["frames_reused"].as_u64().unwrap() >= SEGMENT_FRAMES, "{done}");
}

#[test]
fn a_device_that_cannot_be_had_ends_the_process_with_its_own_code() {
    let rehearsal = Rehearsal::new();
    let (code, last, stderr) = rehearsal.ends("scorer:start=error");
    assert_eq!((code, last["kind"].as_str()), (6, Some("device")), "{last} {stderr}");
    rehearsal.finishes("");
}

fn peak_of_clip(seconds: &str, faults: &str) -> u64 {
    let bench = Bench::new();
    let input = bench.path("in.mp4");
    make_clip(&input, "640x360", seconds);
    let mut command = bench.run(&input, &bench.path("out.mp4"));
    peak_kib(command.args(["--workers", "2"]).env("RESTYLE_FAULTS", faults))
}

/// Runs to success; the largest resident set in KiB, as the kernel saw it.
pub(crate) fn peak_kib(command: &mut Command) -> u64 {
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kib = text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
fn row_29_a_slow_encoder_stops_the_decoder_and_fills_no_memory() {
    let slow = "encode:frame=delay(25)";
    let (short, long) = (peak_of_clip("2", slow), peak_of_clip("6", slow));
    // A hundred frames more, decoded and scored, would be 67 MiB.
    println!("peak {short} KiB for 50 frames, {long} KiB for 150");
    assert!(long < short + 20 * 1024, "{short} KiB for 50 frames, {long} KiB for 150");
}
