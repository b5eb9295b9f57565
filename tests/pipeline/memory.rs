//! Memory does not grow with the length of a clip.
#![allow(clippy::disallowed_methods, reason = "a test waits for another process in real time")]

use crate::support::{Bench, ffmpeg, shared, spawn};
use std::path::Path;
use std::time::Duration;

/// Runs a job and returns the peak of its resident memory in KiB.
fn peak_kib(bench: &Bench, input: &Path, output: &str) -> u64 {
    let mut child = spawn(bench.run(input, &bench.path(output)).args(["--workers", "1"]));
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        peak = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
fn ten_times_the_length_takes_the_same_memory() {
    let Some(clip) = shared("media-dev/carphone-h264-sar-ntsc-176x144.mp4") else { return };
    let bench = Bench::new();
    let looped = |times: &str, name: &str| {
        let path = bench.path(name);
        ffmpeg(&["-stream_loop", times, "-i", clip.to_str().unwrap(), "-c", "copy", path.to_str().unwrap()]);
        path
    };
    // Both are long enough that every buffer has been filled once.
    let (once, tenfold) =
        (peak_kib(&bench, &looped("4", "5.mp4"), "a.mp4"), peak_kib(&bench, &looped("49", "50.mp4"), "b.mp4"));
    println!("peak {once} KiB, ten times the length {tenfold} KiB");
    assert!(tenfold as f64 <= once as f64 * 1.05, "{once} KiB became {tenfold} KiB");
}
