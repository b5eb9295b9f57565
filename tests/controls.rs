//! `--strength`, `--preserve-color` and `--blend` as a user meets them: other pictures, other jobs, the same bytes every time.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

mod support;

use std::path::Path;
use std::process::Command;
use support::{Bench, finish, finished, restyle, shared};

/// Styles the clip with `options` into `name` and returns the digest of the output and the job.
fn styled(bench: &Bench, clip: &Path, name: &str, options: &[&str]) -> (String, String) {
    let mut command = command(bench, clip, name);
    let done = finished(command.args(options));
    (done["blake3"].as_str().unwrap().to_owned(), done["job"].as_str().unwrap().to_owned())
}

fn command(bench: &Bench, clip: &Path, name: &str) -> Command {
    let mut command = restyle();
    command.arg("run").arg(clip).arg(bench.path(name)).arg("--work-dir").arg(bench.path("work"));
    command.args(["--size", "48", "--codec", "ffv1", "--json", "--progress", "none"]);
    command
}

#[test]
fn controls_change_the_picture_and_the_job_and_nothing_else_does() {
    let Some(clip) = shared("media-dev/bear-vp9-161x121.webm") else { return };
    let bench = Bench::new();
    std::fs::write(bench.path("other.safetensors"), support::tiny_style(8)).unwrap();
    let tiny = bench.path("tiny.safetensors").display().to_string();
    let other = bench.path("other.safetensors").display().to_string();
    let blend = format!("{tiny}:0.7,{other}:0.3");
    let cases: [&[&str]; 5] = [
        &["--style", &tiny],
        &["--style", &tiny, "--strength", "0.4"],
        &["--style", &tiny, "--preserve-color"],
        &["--blend", &blend],
        &["--blend", &blend, "--strength", "0.4", "--preserve-color"],
    ];
    let mut digests = Vec::new();
    for (index, options) in cases.iter().enumerate() {
        let (digest, _) = styled(&bench, &clip, &format!("{index}.mkv"), options);
        assert!(!digests.contains(&digest), "{options:?} changed no byte");
        digests.push(digest);
    }
    let workers = [cases[4], &["--workers", "3"]].concat();
    assert_eq!(styled(&bench, &clip, "again.mkv", &workers).0, digests[4], "three scorers, the same bytes");
    // The same request in other words is the same job; another strength to the same output is not.
    let job = |options: &[&str]| styled(&bench, &clip, "jobs.mkv", options).1;
    let first = job(&["--style", &tiny]);
    assert_eq!(first, job(&["--style", &tiny, "--strength", "1"]));
    assert_ne!(first, job(&["--style", &tiny, "--strength", "0.9", "--overwrite"]));
}

#[test]
fn wrong_controls_end_with_their_code() {
    let Some(clip) = shared("media-dev/bear-vp9-161x121.webm") else { return };
    let bench = Bench::new();
    for (code, options) in [
        (2, ["--strength", "1.5"]),
        (2, ["--strength", "-1"]),
        (2, ["--blend", "starry-night"]),
        (2, ["--blend", "starry-night:1,"]),
        (4, ["--blend", "nobody:1"]),
    ] {
        let mut command = command(&bench, &clip, "out.mkv");
        if options[0] == "--strength" {
            command.args(["--style", "starry-night"]);
        }
        let (found, _, said) = finish(command.args(options));
        assert_eq!(found, code, "{options:?}: {said}");
    }
}

#[test]
fn a_network_that_no_style_uses_is_told() {
    let Some(clip) = shared("media-dev/bear-vp9-161x121.webm") else { return };
    let bench = Bench::new();
    let (code, events, said) = finish(command(&bench, &clip, "out.mkv").args([
        "--style",
        "starry-night",
        "--style-network",
        "no-such-network",
        "--dry-run",
    ]));
    assert_eq!(code, 0, "{said}");
    let warnings = events[0]["warnings"].to_string();
    assert!(warnings.contains("no-such-network is not used"), "{warnings}");
}

#[test]
fn a_picture_is_a_style_without_training() {
    let Some(clip) = shared("media-dev/bear-vp9-161x121.webm") else { return };
    let bench = Bench::new();
    let picture = |name: &str, source: &str| {
        let path = bench.path(name).display().to_string();
        support::ffmpeg(&["-f", "lavfi", "-i", source, "-frames:v", "1", &path]);
        path
    };
    let (one, two) = (picture("one.png", "testsrc2=s=96x64"), picture("two.png", "mandelbrot=s=64x96"));
    let first = styled(&bench, &clip, "one.mkv", &["--style", &one]);
    let second = styled(&bench, &clip, "two.mkv", &["--style", &two]);
    assert_ne!(first.0, second.0, "two pictures, two styles");
    let job = |options: &[&str]| styled(&bench, &clip, "job.mkv", options).1;
    let own = job(&["--style", &one]);
    assert_eq!(own, job(&["--style", &format!("file://{one}")]), "the same picture by its url");
    let network = bench.path("network.safetensors").display().to_string();
    let with_network = ["--style", &one, "--style-network", &network];
    std::fs::write(&network, restyle_models::shipped::ANY.bytes).unwrap();
    assert_eq!(own, job(&with_network), "the built-in network, wherever it lies");
    assert_ne!(own, job(&["--style", &two, "--overwrite"]), "the style picture is part of the job");
    if let Some(published) = shared("weights/microast") {
        let network = published.display().to_string();
        assert_ne!(own, job(&["--style", &one, "--overwrite", "--style-network", &network]), "so is the network");
    }
    std::fs::write(&network, b"no network").unwrap();
    let (code, _, said) = finish(command(&bench, &clip, "job.mkv").args(with_network));
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("network.safetensors"), "{said}");
}
