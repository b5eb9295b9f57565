//! Rows 10, 15, 16, 17, 18, 30: no room, a folder that hangs, damaged, foreign and outdated objects.
#![allow(clippy::disallowed_methods, reason = "a test waits for another process in real time")]

use crate::rehearsal::{FRAMES, PACKED, Rehearsal, SLOW, in_flight};
use crate::support::{finish, tiny_style};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Frames of the segments of the clip.
const SEGMENT_FRAMES: [u64; 3] = [50, 50, 25];

#[test]
fn row_16_a_truncated_segment_is_detected_and_only_that_one_is_made_again() {
    let rehearsal = Rehearsal::new();
    rehearsal.finishes("");
    for (k, cut) in [(0, 0), (1, 1), (2, 2), (1, 3)] {
        let segments = rehearsal.objects("seg");
        // Later generations sort behind the first of the same segment.
        let newest = segments.iter().rfind(|s| s.parent().unwrap().file_name().unwrap() == k.to_string().as_str());
        let newest = newest.unwrap();
        let bytes = std::fs::read(newest).unwrap();
        let kept = [0, 1, bytes.len() / 2, bytes.len() - 1][cut];
        std::fs::write(newest, &bytes[..kept]).unwrap();
        std::fs::remove_file(&rehearsal.output).unwrap();
        let done = rehearsal.finishes("");
        assert_eq!(done["frames_scored"], SEGMENT_FRAMES[k], "cut to {kept}: {done}");
    }
}

#[test]
fn row_17_a_flipped_bit_in_a_segment_costs_that_segment() {
    let rehearsal = Rehearsal::new();
    rehearsal.finishes("");
    let segment = rehearsal.objects("seg").remove(1);
    flip(&segment, 0.6);
    std::fs::remove_file(&rehearsal.output).unwrap();
    let (code, events, _) = finish(&mut rehearsal.run(""));
    assert_eq!(code, 0);
    rehearsal.is_identical();
    assert_eq!(events.last().unwrap()["frames_scored"], SEGMENT_FRAMES[1]);
    assert_eq!(events.last().unwrap()["objects_damaged"], 1);
    let warned = |e: &serde_json::Value| e["message"].as_str().is_some_and(|m| m.contains("is not used"));
    assert!(events.iter().any(warned), "{events:?}");
}

#[test]
fn row_17_a_flipped_bit_in_a_pack_costs_that_frame() {
    let rehearsal = Rehearsal::new();
    rehearsal.until_scored(PACKED, 20).kill();
    let packs = rehearsal.objects("pack-");
    assert!(!packs.is_empty(), "a slow scorer packs");
    flip(&packs[0], 0.5);
    let done = rehearsal.finishes("");
    let again = done["frames_rescored"].as_u64().unwrap();
    assert!((1..=1 + in_flight(2)).contains(&again), "{again} frames scored again");
    assert_eq!(done["objects_damaged"], 1, "{done}");
}

fn flip(path: &Path, place: f64) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = (bytes.len() as f64 * place) as usize;
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn row_18_a_pack_of_another_job_is_rejected() {
    let (ours, theirs) = (Rehearsal::new(), Rehearsal::new());
    std::fs::write(theirs.bench.path("tiny.safetensors"), tiny_style(8)).unwrap();
    ours.until_scored(PACKED, 12).kill();
    theirs.until_scored(PACKED, 12).kill();
    let (to, from) = (ours.objects("pack-"), theirs.objects("pack-"));
    assert!(to.len() == 1 && from.len() == 1, "one segment was open: {to:?}, {from:?}");
    std::fs::copy(&from[0], &to[0]).unwrap();
    let done = ours.finishes("");
    assert_eq!(done["frames_scored"], FRAMES, "nothing of the packs may be used: {done}");
}

#[test]
fn row_30_work_of_another_build_is_not_mixed_in() {
    use restyle_actors::ledger_store::LocalStore;
    use restyle_engine::ledger::Ledger;
    let rehearsal = Rehearsal::new();
    rehearsal.until_scored(SLOW, 10).kill();
    let name = rehearsal.job_folder().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    // The plan as another build would have written it.
    let store = std::sync::Arc::new(LocalStore::open(rehearsal.bench.path("work")).unwrap());
    let ledger = Ledger::new(store, name.parse().unwrap(), "other");
    let request: serde_json::Value = ledger.request().unwrap().unwrap().content().unwrap();
    let mut plan: serde_json::Value = ledger.plan().unwrap().unwrap().content().unwrap();
    plan["numeric_class"] = "another build".into();
    ledger.forget().unwrap();
    ledger.open_or_create_job(&request).unwrap();
    ledger.fix_plan(&plan).unwrap();
    let (code, last, _) = rehearsal.ends("");
    assert_eq!((code, last["kind"].as_str()), (4, Some("configuration")), "{last}");
    let done = crate::support::finished(rehearsal.run("").arg("--fresh"));
    assert_eq!(done["frames_scored"], FRAMES);
    rehearsal.is_identical();
}

/// A small file system of its own; unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], folder).then_some(Self(folder))
    }

    fn grow(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}")], self.0));
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn mount(args: &[&str], folder: &Path) -> bool {
    let output = Command::new("mount").args(args).arg(folder).output();
    output.is_ok_and(|o| o.status.success())
}

/// A rehearsal whose work folder is a small disk.
fn on_small_disk<'a>(work: &'a Path, size: &str) -> Option<SmallDisk<'a>> {
    let disk = SmallDisk::mount(work, size);
    if disk.is_none() {
        println!("skipped: mounting a tmpfs needs rights that this machine does not give");
    }
    disk
}

const FULL: &str = "no room in the work store";

/// The first thirty frames take so long that they are packed.
fn packed_at_first() -> String {
    (1..=30).map(|n| format!("scorer:before_process={n}*delay(250)")).collect::<Vec<_>>().join(";")
}

#[test]
fn row_10_a_full_disk_is_waited_out_and_the_process_goes_on_when_there_is_room() {
    // The small disk is full of packs, or of segments.
    for (size, faults) in [("160k", packed_at_first()), ("300k", SLOW.to_owned())] {
        let rehearsal = Rehearsal::new();
        let work = rehearsal.bench.path("work");
        let Some(disk) = on_small_disk(&work, size) else { return };
        let mut run = rehearsal.until(&faults, FULL);
        std::thread::sleep(Duration::from_millis(700));
        assert!(run.is_running() && !rehearsal.output.exists(), "{size}: it waits");
        disk.grow("64m");
        let (code, events) = run.ended();
        assert_eq!(code, 0, "{size}: {events:?}");
        rehearsal.is_identical();
        let done = events.last().unwrap();
        assert!(done["storage_full_waits"].as_u64().unwrap() > 0, "{done}");
        assert_eq!((&done["frames_scored"], &done["objects_damaged"]), (&FRAMES.into(), &0.into()), "{done}");
        let warned = |text: &str| events.iter().any(|e| e["message"].as_str().is_some_and(|m| m.contains(text)));
        assert!(warned("storage_full") && warned("room in the work store again"), "{events:?}");
        no_torn_object(&rehearsal, &work);
        drop(disk);
    }
}

/// Every object of the job is whole, and nothing without a name is left.
fn no_torn_object(rehearsal: &Rehearsal, work: &Path) {
    assert_eq!(std::fs::read_dir(work.join(".tmp")).unwrap().count(), 0);
    assert_eq!(rehearsal.objects("seg").len(), 3);
    // Nothing is scored when every segment is read again.
    std::fs::remove_file(&rehearsal.output).unwrap();
    let done = rehearsal.finishes("");
    assert_eq!((&done["frames_scored"], &done["objects_damaged"]), (&0.into(), &0.into()), "{done}");
}

#[test]
fn row_10_no_room_for_the_joined_file_is_waited_out_too() {
    let rehearsal = Rehearsal::new();
    let work = rehearsal.bench.path("work");
    let Some(disk) = on_small_disk(&work, "64m") else { return };
    let (code, ..) = rehearsal.ends("join:before=1*abort");
    assert_eq!(code, -1);
    let staged = std::fs::metadata(&rehearsal.input).unwrap().len();
    let used: u64 =
        rehearsal.objects("").iter().map(|o| std::fs::metadata(o).unwrap().len().next_multiple_of(4096)).sum();
    disk.grow(&format!("{}k", (used + staged / 4) / 1024 + 16));
    let mut run = rehearsal.until("", FULL);
    std::thread::sleep(Duration::from_millis(300));
    assert!(run.is_running() && !rehearsal.output.exists(), "it waits");
    disk.grow("64m");
    let (code, events) = run.ended();
    assert_eq!((code, &events.last().unwrap()["frames_scored"]), (0, &0.into()), "{events:?}");
    rehearsal.is_identical();
    drop(disk);
}

#[test]
fn row_10_a_disk_that_stays_full_ends_the_job_which_goes_on_later() {
    let rehearsal = Rehearsal::new();
    let work = rehearsal.bench.path("work");
    let Some(disk) = on_small_disk(&work, "300k") else { return };
    let (code, events, stderr) = finish(rehearsal.run(SLOW).env("RESTYLE_STORE_TIMES", "room=1000"));
    let last = events.last().unwrap();
    assert_eq!((code, last["kind"].as_str()), (5, Some("disk_full")), "{last} {stderr}");
    assert!(!rehearsal.output.exists());
    // A wait for room ends when the process is told to end.
    let mut waiting = rehearsal.until(SLOW, FULL);
    waiting.signal(rustix::process::Signal::TERM);
    let told = std::time::Instant::now();
    assert_eq!(waiting.wait().code(), Some(75));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    disk.grow("64m");
    let done = rehearsal.finishes("");
    println!("{done}");
    drop(disk);
}

#[test]
fn row_10_without_a_small_disk_no_room_for_packs_and_segments_is_waited_out() {
    let rehearsal = Rehearsal::new();
    let mut run = rehearsal.run("");
    run.env("RESTYLE_STORE_FAULTS", "append@2-6=before(full);create:seg@1-4=before(full);create:out@1-2=before(full)");
    let done = crate::support::finished(&mut run);
    rehearsal.is_identical();
    assert!(done["storage_full_waits"].as_u64().unwrap() >= 11, "{done}");
    assert_eq!(done["frames_scored"], FRAMES, "{done}");
}

#[test]
fn row_15_a_work_folder_that_hangs_times_out_inside_the_attempts() {
    let rehearsal = Rehearsal::new();
    let mut run = rehearsal.run("");
    run.env("RESTYLE_STORE_FAULTS", "create:seg@1=hang;create:out@1-2=hang;get@5=hang;list@2=hang;append@4=hang");
    run.env("RESTYLE_STORE_TIMES", "call=1000");
    crate::support::finished(&mut run);
    rehearsal.is_identical();
}

#[test]
fn scripts_and_times_of_the_store_that_mean_nothing_are_usage_errors() {
    let rehearsal = Rehearsal::new();
    for (variable, value) in [("RESTYLE_STORE_FAULTS", "create=burn"), ("RESTYLE_STORE_TIMES", "room=soon")] {
        let (code, events, _) = finish(rehearsal.run("").env(variable, value));
        assert_eq!((code, events.last().unwrap()["kind"].as_str()), (2, Some("usage")), "{variable}");
    }
}
