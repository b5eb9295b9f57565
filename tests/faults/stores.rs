//! Rows 10, 16, 17, 18, 30: no room, damaged, foreign and outdated objects.

use crate::rehearsal::{FRAMES, PACKED, Rehearsal, SLOW, in_flight};
use crate::support::{finish, tiny_style};
use std::path::Path;
use std::process::Command;

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
    let store = std::sync::Arc::new(LocalStore::open(&rehearsal.bench.path("work")).unwrap());
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

#[test]
fn row_10_a_full_disk_stops_the_job_and_more_room_completes_it() {
    let rehearsal = Rehearsal::new();
    let work = rehearsal.bench.path("work");
    let Some(disk) = SmallDisk::mount(&work, "300k") else {
        println!("skipped: mounting a tmpfs needs rights that this machine does not give");
        return;
    };
    let (code, last, stderr) = rehearsal.ends(SLOW);
    assert_eq!((code, last["kind"].as_str()), (5, Some("disk_full")), "{last} {stderr}");
    assert!(!rehearsal.output.exists());
    disk.grow("64m");
    let done = rehearsal.finishes("");
    println!("{done}");
    drop(disk);
}
