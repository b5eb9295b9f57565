//! Reduced precision: what calibration found is one object that every run reads, and a style that loses too much is refused.

use crate::rehearsal::make_clip;
use crate::support::{Bench, finish, finished};
use std::path::PathBuf;
use std::process::Command;

/// A style, a clip of three segments, and the command at reduced precision.
fn bench() -> (Bench, PathBuf) {
    let bench = Bench::new();
    let clip = bench.path("in.mp4");
    make_clip(&clip, "96x64", "5");
    (bench, clip)
}

fn reduced(bench: &Bench, output: &str, faults: &str) -> Command {
    let mut command = bench.run(&bench.path("in.mp4"), &bench.path(output));
    command.args(["--precision", "reduced"]).env("RESTYLE_FAULTS", faults);
    command
}

/// The calibrations of all jobs of a bench.
fn calibrations(bench: &Bench) -> Vec<Vec<u8>> {
    let jobs = std::fs::read_dir(bench.path("work/jobs")).unwrap().flatten();
    jobs.filter_map(|job| std::fs::read(job.path().join("calibration.json")).ok()).collect()
}

#[test]
fn a_calibration_stands_through_kills_and_later_runs_read_it() {
    let (whole, clip) = bench();
    finished(reduced(&whole, "out.mp4", "").args(["--workers", "1"]));
    let expected = std::fs::read(whole.path("out.mp4")).unwrap();
    let standing = calibrations(&whole);
    assert_eq!(standing.len(), 1);

    let broken = Bench::new();
    std::fs::copy(clip, broken.path("in.mp4")).unwrap();
    let (code, ..) = finish(&mut reduced(&broken, "out.mp4", "calibrate:before=1*abort"));
    assert!(code == -1 && calibrations(&broken).is_empty(), "it ended before it wrote");
    let (code, ..) = finish(&mut reduced(&broken, "out.mp4", "calibrate:after=1*abort"));
    assert_eq!(code, -1);
    let written = calibrations(&broken);
    assert_eq!(written.len(), 1);
    // The point is not reached again: what stands is read.
    let (code, ..) = finish(&mut reduced(&broken, "out.mp4", "calibrate:before=1*abort;score:70=1*abort"));
    assert_eq!(code, -1, "frame 70");
    finished(reduced(&broken, "out.mp4", "calibrate:before=1*abort").args(["--workers", "2"]));
    assert!(std::fs::read(broken.path("out.mp4")).unwrap() == expected, "neither kills nor workers show");
    assert_eq!(calibrations(&broken), written, "create once");
}

#[test]
fn another_precision_is_another_job() {
    let (bench, clip) = bench();
    let full = finished(&mut bench.run(&clip, &bench.path("out.mkv")));
    let job = |events: &[serde_json::Value]| events.iter().find_map(|e| e["job"].as_str().map(str::to_owned)).unwrap();
    let (code, events, _) = finish(reduced(&bench, "out.mkv", "").arg("--dry-run"));
    assert_eq!(code, 0);
    assert_ne!(full["job"].as_str().unwrap(), job(&events));
    assert!(calibrations(&bench).is_empty());
}

#[test]
fn a_style_that_loses_too_much_is_scored_in_full_precision_or_refused() {
    let (bench, clip) = bench();
    let style = bench.path("tiny.safetensors");
    std::fs::write(&style, lopsided(&std::fs::read(&style).unwrap())).unwrap();
    let (code, events, stderr) = finish(&mut reduced(&bench, "reduced.mp4", ""));
    assert_eq!(code, 0, "{stderr}");
    let warned = |e: &serde_json::Value| e["message"].as_str().is_some_and(|m| m.contains("full precision is used"));
    assert!(events.iter().any(warned), "{events:?}");
    finished(&mut bench.run(&clip, &bench.path("full.mp4")));
    let read = |name: &str| std::fs::read(bench.path(name)).unwrap();
    assert!(read("reduced.mp4") == read("full.mp4"), "the same pictures as without asking");

    let (code, events, _) = finish(reduced(&bench, "strict.mp4", "").arg("--strict"));
    assert_eq!((code, events.last().unwrap()["kind"].as_str()), (4, Some("configuration")));
    assert!(!bench.path("strict.mp4").exists());
}

/// Multiplies one channel by a hundred thousand before the second convolution and divides its weights by as much: the same
/// network in full precision, while in integers all other channels vanish beside this one.
fn lopsided(style: &[u8]) -> Vec<u8> {
    let mut style = style.to_vec();
    let header_len = u64::from_le_bytes(style[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&style[8..8 + header_len]).unwrap();
    let mut scale = |name: &str, pick: fn(usize) -> bool, factor: f32| {
        let offset = |at: usize| 8 + header_len + header[name]["data_offsets"][at].as_u64().unwrap() as usize;
        let bytes = &mut style[offset(0)..offset(1)];
        for (at, value) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            if pick(at) {
                *value = (f32::from_le_bytes(*value) * factor).to_le_bytes();
            }
        }
    };
    scale("in1.weight", |at| at == 0, 1e5);
    scale("in1.bias", |at| at == 0, 1e5);
    scale("conv2.conv2d.weight", |at| at / 9 % 4 == 0, 1e-5);
    style
}
