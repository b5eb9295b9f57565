//! Rows 27, 31, 32: damaged and replaced sources, replaced styles.

use crate::rehearsal::{FRAMES, Rehearsal, SLOW};
use crate::support::tiny_style;
use std::io::Write;

#[test]
fn row_27_damage_in_the_middle_fails_naming_frames_or_is_concealed() {
    let rehearsal = Rehearsal::new();
    let mut bytes = std::fs::read(&rehearsal.input).unwrap();
    // The tables of an mp4 are at its end, so the middle is pictures.
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 600] {
        *byte = byte.wrapping_mul(31).wrapping_add(97);
    }
    std::fs::write(&rehearsal.input, bytes).unwrap();
    for _ in 0..4 {
        let (code, last, stderr) = rehearsal.ends("");
        assert_eq!((code, last["kind"].as_str()), (1, Some("job_failed")), "{last} {stderr}");
        assert!(!last["frames"].as_array().unwrap().is_empty(), "{last}");
        assert!(!rehearsal.output.exists());
    }
    let done = crate::support::finished(rehearsal.run("").arg("--conceal"));
    assert_eq!(done["frames"], FRAMES);
}

#[test]
fn row_31_a_style_truncated_or_replaced_while_it_is_used_changes_nothing() {
    let rehearsal = Rehearsal::new();
    let style = rehearsal.bench.path("tiny.safetensors");
    let mut run = rehearsal.until_scored(SLOW, 5);
    std::fs::File::options().write(true).open(&style).unwrap().set_len(10).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    std::fs::write(&style, tiny_style(8)).unwrap();
    assert_eq!(run.wait().code(), Some(0));
    rehearsal.is_identical();
    // The new style is another job.
    let done = crate::support::finished(rehearsal.run("").arg("--overwrite"));
    assert_eq!(done["frames_scored"], FRAMES);
}

/// Changes the source while frames are scored; the job must say so.
fn changed_meanwhile(change: impl FnOnce(&std::path::Path)) {
    let rehearsal = Rehearsal::new();
    let mut run = rehearsal.until_scored(SLOW, 5);
    change(&rehearsal.input);
    let code = run.wait().code();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut run.child.stdout.take().unwrap(), &mut said).unwrap();
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((code, last["kind"].as_str()), (Some(3), Some("input_changed")), "{last}");
    assert!(!rehearsal.output.exists());
}

#[test]
fn row_32_a_source_that_grows_meanwhile_is_refused() {
    changed_meanwhile(|path| {
        std::fs::File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
    });
}

#[test]
fn row_32_a_source_overwritten_meanwhile_is_refused() {
    changed_meanwhile(|path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    });
}

#[test]
fn row_32_a_source_replaced_by_another_file_meanwhile_is_refused() {
    changed_meanwhile(|path| {
        let other = path.with_extension("new");
        std::fs::copy(path, &other).unwrap();
        std::fs::rename(other, path).unwrap();
    });
}
