//! Rows 6, 7, 9: kill -9 at every step of a commit, at random, and around publishing.

use crate::rehearsal::{Dice, PACKED, Rehearsal, SEGMENT_FRAMES, in_flight};
use crate::support::{Bench, ffmpeg, shared};
use std::time::Duration;

/// Kills a fresh job at the n-th time a point is reached, for every n until it gets through; each must finish from there.
fn killed_at_every(point: &str) {
    let mut kills = 0;
    for n in 1.. {
        let rehearsal = Rehearsal::new();
        let (code, ..) = rehearsal.ends(&format!("{point}={n}*abort"));
        if code == 0 {
            rehearsal.is_identical();
            break;
        }
        kills += 1;
        assert!(n < 60, "{point} is reached without an end");
        let scored = rehearsal.scored_ever();
        let done = rehearsal.finishes("");
        // Scoring is fast enough here to go without packs after the first frames: what was not committed may be lost, and no more.
        let again = done["frames_rescored"].as_u64().unwrap();
        let committed = done["frames_reused"].as_u64().unwrap();
        assert!(again + committed <= scored, "{point}, {n}: {scored} scored, {committed} reused, {again} again");
        let two_segments = 2 * SEGMENT_FRAMES;
        assert!(again <= two_segments + in_flight(2), "{point}, {n}: {again} frames scored again");
        assert_eq!(rehearsal.objects("out.json").len(), 1, "{point}, {n}");
        assert_eq!(rehearsal.objects("seg").len(), 3, "{point}, {n}");
    }
    println!("{point}: {kills} kills");
    assert!(kills >= 9, "only {kills} kills at {point}: a job, a plan, three attempts, three segments, an output");
}

#[test]
fn row_6_killed_at_every_object_written() {
    killed_at_every("store:written");
}

#[test]
fn row_6_killed_at_every_object_synced() {
    killed_at_every("store:synced");
}

#[test]
fn row_6_killed_at_every_object_named() {
    killed_at_every("store:named");
}

#[test]
fn row_6_killed_around_the_commit_of_a_slow_segment_costs_what_was_in_flight() {
    for point in ["assemble:before_commit", "assemble:after_commit", "pack:append"] {
        let rehearsal = Rehearsal::new();
        let (code, ..) = rehearsal.ends(&format!("{point}=1*abort;{PACKED}"));
        assert_eq!(code, -1, "{point} was not reached");
        let done = rehearsal.finishes("");
        let again = done["frames_rescored"].as_u64().unwrap();
        assert!(again <= in_flight(2), "{point}: {again} frames scored again");
        println!("{point}: {again} of at most {} frames scored again", in_flight(2));
    }
}

/// Five seconds of a real clip, small enough to be quick; of the made one where it is not there.
fn real_clip() -> Rehearsal {
    let Some(clip) = shared("media-dev/chaplin-h264-mp3-640x360.mp4") else { return Rehearsal::new() };
    let bench = Bench::new();
    let small = bench.path("small.mp4");
    let (from, to) = (clip.to_str().unwrap(), small.to_str().unwrap());
    ffmpeg(&["-i", from, "-t", "5", "-vf", "scale=160:90", "-c:v", "libx264", "-g", "40", "-c:a", "copy", to]);
    Rehearsal::on(&small)
}

#[test]
fn row_7_twenty_random_kills_on_a_real_clip_cost_no_more_than_what_was_in_flight() {
    let rehearsal = real_clip();
    let mut dice = Dice(20_061);
    let mut kills = 0;
    let mut seen = Vec::new();
    for kill in 0..20 {
        // Every fourth falls wherever the process is by then, the others while it scores.
        let run = match kill % 4 {
            0 => rehearsal.started(PACKED),
            _ => rehearsal.until_scored(PACKED, rehearsal.scored_ever() + 1 + dice.below(4)),
        };
        std::thread::sleep(Duration::from_millis(dice.below(300)));
        run.kill();
        assert!(!rehearsal.output.exists(), "an output is seen before it is whole");
        kills += 1;
        seen.push(rehearsal.scored_ever());
    }
    println!("frames scored by the time of each kill: {seen:?}");
    let done = rehearsal.finishes("");
    assert!(done["frames_reused"].as_u64().unwrap() >= 20, "{done}");
    let (scored, frames) = (rehearsal.scored_ever(), rehearsal.frames());
    let bound = frames + kills * in_flight(2);
    println!("{kills} kills: {scored} frames scored, {frames} in the video, at most {bound} allowed");
    assert!(scored <= bound, "{scored} frames scored, at most {bound}");
}

#[test]
fn row_9_killed_around_publishing_nothing_partial_is_seen_and_nothing_is_scored_again() {
    for point in ["join:before", "publish:before", "publish:after", "out:after"] {
        let rehearsal = Rehearsal::new();
        let (code, ..) = rehearsal.ends(&format!("{point}=1*abort"));
        assert_eq!(code, -1, "{point} was not reached");
        match point {
            "join:before" | "publish:before" => assert!(!rehearsal.output.exists(), "{point}"),
            _ => rehearsal.is_identical(),
        }
        let done = rehearsal.finishes("");
        assert_eq!(done["frames_scored"], 0, "{point}: {done}");
        assert_eq!(rehearsal.objects("out.json").len(), 1, "{point}");
    }
}
