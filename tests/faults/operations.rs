//! Rows 11, 12, 13: every n-th operation of the local work store fails, before it took effect and after.

use crate::rehearsal::make_clip;
use crate::support::{Bench, finish};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs that must all lack an n-th call before there is taken to be none.
const TURNS: u32 = 3;

/// A clip of two segments, and what an undisturbed run makes of it.
struct Small {
    bench: Bench,
    clip: PathBuf,
    output: Vec<u8>,
}

fn small() -> &'static Small {
    static SMALL: OnceLock<Small> = OnceLock::new();
    SMALL.get_or_init(|| {
        let bench = Bench::new();
        let (whole, clip, output) = (bench.path("whole.mp4"), bench.path("in.mp4"), bench.path("out.mp4"));
        make_clip(&whole, "64x48", "3");
        // Few frames in each segment: what is looked at is the store.
        let (from, to) = (whole.to_str().unwrap(), clip.to_str().unwrap());
        crate::support::ffmpeg(&["-i", from, "-r", "4", "-c:v", "libx264", "-g", "4", "-an", to]);
        let done = crate::support::finished(&mut bench.run(&clip, &output));
        assert_eq!(done["segments"], 2, "{done}");
        let output = std::fs::read(output).unwrap();
        Small { bench, clip, output }
    })
}

/// Runs the job under a script; true when a fault struck.
fn is_struck(folder: &Path, script: &str) -> bool {
    let small = small();
    let output = folder.join("out.mp4");
    let mut command = crate::support::restyle();
    command.arg("run").arg(&small.clip).arg(&output).arg("--style").arg(small.bench.path("tiny.safetensors"));
    command.arg("--work-dir").arg(folder.join("work"));
    command.args(["--size", "48", "--preset", "ultrafast", "--json", "--progress", "none", "--workers", "1"]);
    command.env("RESTYLE_STORE_FAULTS", script).env("RESTYLE_LOG", "warn,restyle_engine::ledger=debug");
    let (code, events, stderr) = finish(&mut command);
    assert_eq!(code, 0, "{script}: {events:?} {stderr}");
    assert!(std::fs::read(output).unwrap() == small.output, "{script}: the output differs from the undisturbed run's");
    ["is tried again", "segment failed", "no room to make a pack durable"].iter().any(|sign| stderr.contains(sign))
}

/// Fails the n-th of each kind of call, for every n until there is none left, two jobs at a time; how many were.
fn failed_at_every(script: impl Fn(u64) -> String + Sync) -> u64 {
    let (next, last) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    let run = || {
        let bench = tempfile::tempdir().unwrap();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n > last.load(Ordering::Relaxed) {
                return;
            }
            assert!(n < 200, "the calls have no end: {}", script(n));
            let is_struck = |turn: u32| {
                let folder = bench.path().join(format!("{n}-{turn}"));
                std::fs::create_dir(&folder).unwrap();
                is_struck(&folder, &script(n))
            };
            // Whether the first frames are packed hangs on how soon the pace is known, so one run without an n-th call is no proof.
            if !(0..TURNS).any(is_struck) {
                last.fetch_min(n - 1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let both = [scope.spawn(run), scope.spawn(run)];
        both.into_iter().for_each(|thread| thread.join().unwrap());
    });
    last.into_inner()
}

#[test]
fn row_12_every_create_fails_before_it_took_effect() {
    let creates = failed_at_every(|n| format!("create@{n}=before(503)"));
    println!("{creates} creates");
    assert!(creates >= 8, "a job, a plan, two attempts, two segments, an intent, an output: {creates}");
}

#[test]
fn row_13_every_create_takes_effect_and_its_answer_is_lost() {
    let creates = failed_at_every(|n| format!("create@{n}=after(timeout)"));
    assert!(creates >= 8, "a job, a plan, two attempts, two segments, an intent, an output: {creates}");
}

#[test]
fn row_11_every_read_and_listing_fails_before_and_after() {
    for kind in ["before(503)", "after(timeout)"] {
        // One of each at a time: they fail independently of each other.
        let calls = failed_at_every(|n| format!("get@{n}={kind};list@{n}={kind};delete@{n}={kind}"));
        println!("{calls} reads, {kind}");
        assert!(calls >= 8, "{calls} reads, {kind}");
    }
}

#[test]
fn row_12_every_write_to_a_pack_fails_before_and_after() {
    for kind in ["before(full)", "before(503)", "after(timeout)"] {
        let writes = failed_at_every(|n| format!("append@{n}={kind}"));
        println!("{writes} writes to packs, {kind}");
        assert!(writes >= 3, "opening a pack, its head, an item: {writes} writes to packs, {kind}");
    }
}
