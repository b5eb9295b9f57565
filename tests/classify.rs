//! The second scorer of `examples/classify.rs`: records of every frame, the same after a drain and a resume.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

#[path = "../examples/classify.rs"]
#[allow(unreachable_pub)]
mod classify;
mod support;

use classify::{Labelled, Request, label};
use restyle_actors::control::PassControl;
use restyle_engine::clock::SystemClock;
use std::path::Path;
use std::time::Duration;

/// Frames of the clip, as FFmpeg decodes it.
const FRAMES: usize = 30;

fn request(folder: &Path, name: &str) -> Option<Request> {
    let video = support::shared("media-dev/bear-vp9-161x121.webm")?;
    let weights = support::shared("weights/squeezenet11/squeezenet1_1_caffe_bgr_fp16.safetensors")?;
    Some(Request {
        video: video.display().to_string(),
        weights: std::fs::read(weights).unwrap(),
        labels: folder.join(format!("{name}.jsonl")),
        work: folder.join(name),
    })
}

fn records(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_drained_labelling_resumes_to_the_same_records() {
    let folder = tempfile::tempdir().unwrap();
    let Some(whole) = request(folder.path(), "whole") else { return };
    let control = PassControl::new(SystemClock::shared());
    let done = label(&whole, &control, &mut |_| {}).unwrap();
    assert_eq!(done, Labelled { complete: true, frames_scored: FRAMES as u64 });
    let labels = records(&whole.labels);
    for (number, line) in labels.iter().enumerate() {
        assert_eq!(line["frame"], number);
        let best = &line["record"][0];
        assert!(best["probability"].as_f64().unwrap() > 0.05, "{line}");
        assert_eq!(line["record"].as_array().unwrap().len(), 3);
    }
    assert_eq!(labels.len(), FRAMES);

    let parts = request(folder.path(), "parts").unwrap();
    let control = PassControl::new(SystemClock::shared());
    let drained = label(&parts, &control, &mut |scored| {
        if scored >= 5 {
            control.drain(Duration::from_secs(5));
        }
    })
    .unwrap();
    assert!(!drained.complete && drained.frames_scored >= 5, "{drained:?}");
    assert!(!parts.labels.exists(), "nothing is published before the end");
    let resumed = label(&parts, &PassControl::new(SystemClock::shared()), &mut |_| {}).unwrap();
    assert!(resumed.complete && resumed.frames_scored < FRAMES as u64, "{resumed:?}");
    assert_eq!(std::fs::read(&parts.labels).unwrap(), std::fs::read(&whole.labels).unwrap());
}
