//! kill -9 and the same command again: finished segments are reused, the output is byte-identical.
#![allow(clippy::disallowed_methods, reason = "a test waits for another process in real time")]

use crate::support::{Bench, ffmpeg, finished, shared, spawn};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Kills the run when `segments` segments stand in its work folder; false when it finished before.
fn kill_after(bench: &Bench, input: &Path, output: &Path, workers: usize, segments: usize) -> bool {
    let mut child = spawn(bench.run(input, output).args(["--workers", &workers.to_string()]));
    let begun = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if segment_objects(&bench.path("work")) >= segments {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "no {segments} segments after five minutes");
        std::thread::yield_now();
    }
}

fn segment_objects(work: &Path) -> usize {
    let mut found = 0;
    let mut folders = vec![work.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|n| n == "seg") {
                found += 1;
            }
        }
    }
    found
}

/// Runs undisturbed, then killed after each number of segments, and compares bytes.
fn killed_and_resumed(input: &Path, extension: &str, workers: &[usize], kills: &[usize]) {
    let name = input.file_name().unwrap().to_string_lossy().into_owned();
    let undisturbed = Bench::new();
    // The output is part of a job's identity, not of its bytes.
    let expected = finished(&mut undisturbed.run(input, &undisturbed.path(&format!("out.{extension}"))));
    let bytes = std::fs::read(undisturbed.path(&format!("out.{extension}"))).unwrap();
    for &workers in workers {
        let bench = Bench::new();
        let output = bench.path(&format!("out.{extension}"));
        for &segments in kills {
            if !kill_after(&bench, input, &output, workers, segments) {
                break;
            }
            assert!(!output.exists(), "{name}: an output is seen before it is whole");
        }
        let done = finished(bench.run(input, &output).args(["--workers", &workers.to_string()]));
        assert!(done["segments_reused"].as_u64().unwrap() > 0 || done["nothing_to_do"] == true, "{name}: {done}");
        assert_eq!(done["frames"], expected["frames"], "{name}");
        assert_eq!(
            done["frames_scored"].as_u64().unwrap() + done["frames_reused"].as_u64().unwrap(),
            done["frames"].as_u64().unwrap()
        );
        assert!(bytes == std::fs::read(&output).unwrap(), "{name}: bytes differ with {workers} workers");
    }
}

fn generated(bench: &Bench) -> PathBuf {
    let path = bench.path("long.mp4");
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=128x96:rate=25",
        "-f",
        "lavfi",
        "-i",
        "sine=440:sample_rate=48000",
        "-t",
        "12",
        "-c:v",
        "libx264",
        "-preset",
        "fast",
        "-g",
        "75",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
        path.to_str().unwrap(),
    ]);
    path
}

#[test]
fn kill_9_loses_no_finished_segment_with_one_two_and_three_workers() {
    let bench = Bench::new();
    killed_and_resumed(&generated(&bench), "mp4", &[1, 2, 3], &[1, 3, 5]);
}

#[test]
fn clips_that_decode_differently_from_the_middle_resume_to_the_same_bytes() {
    for (clip, extension) in [
        ("cockatoo-h264-yuv444-mp3mono-14s.mp4", "mp4"),
        ("derived-interlaced-tff-h264-aac.mp4", "mp4"),
        ("mpeg4-mp3-960x400.avi", "mkv"),
    ] {
        let Some(path) = shared(&format!("media-dev/{clip}")) else { return };
        killed_and_resumed(&path, extension, &[2], &[1]);
    }
}

#[test]
fn workers_do_not_change_a_byte() {
    let bench = Bench::new();
    let input = generated(&bench);
    let bytes = |workers: &str| {
        let own = Bench::new();
        finished(own.run(&input, &own.path("out.mp4")).args(["--workers", workers]));
        std::fs::read(own.path("out.mp4")).unwrap()
    };
    assert!(bytes("1") == bytes("3"));
}

#[test]
fn another_parameter_is_another_job_and_fresh_forgets() {
    let bench = Bench::new();
    let input = generated(&bench);
    finished(&mut bench.run(&input, &bench.path("a.mp4")));
    let other = finished(bench.run(&input, &bench.path("a.mp4")).args(["--crf", "35", "--overwrite"]));
    assert_eq!(other["frames_reused"], 0);
    let fresh = finished(bench.run(&input, &bench.path("a.mp4")).args(["--crf", "35", "--fresh", "--overwrite"]));
    assert_eq!(fresh["frames_reused"], 0);
}

#[test]
fn a_source_replaced_meanwhile_is_another_job() {
    let bench = Bench::new();
    let input = generated(&bench);
    let output = bench.path("out.mp4");
    assert!(kill_after(&bench, &input, &output, 1, 1));
    let bytes = std::fs::read(&input).unwrap();
    std::fs::write(&input, bytes).unwrap();
    let done = finished(&mut bench.run(&input, &output));
    assert_eq!(done["frames_reused"], 0, "a touched source may not be mixed with work on the old one");
}
