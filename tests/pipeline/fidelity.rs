//! Every clip of the shared data, into every container that people use for it.

use crate::support::{Bench, finished, shared};
use crate::witness::{Witness, same_chapters_and_tags, same_look, same_times, same_tracks};
use std::path::Path;

/// Clip, frames that decoding it gives, whether it is shown turned by a quarter.
const CLIPS: &[(&str, usize, bool)] = &[
    ("av1-aac-1080x720.mp4", 30, false),
    ("bbb-h264-aac51-720p.mp4", 132, false),
    ("bbb-rotate90-h264-aac51-1080p.mp4", 45, true),
    ("bbb-vp8-vorbis-30s-720p.webm", 720, false),
    ("bear-vp9-161x121.webm", 30, false),
    ("bikes-h264-noaudio-640x272.mp4", 250, false),
    ("broken-mdat-too-long.mp4", 30, false),
    ("carphone-h264-sar-ntsc-176x144.mp4", 120, false),
    ("chaplin-h264-mp3-640x360.mp4", 241, false),
    ("cockatoo-h264-yuv444-mp3mono-14s.mp4", 280, false),
    ("cursed-vfr-3026x1386.mp4", 63, false),
    ("derived-interlaced-tff-h264-aac.mp4", 240, false),
    ("hevc-main10-200x200.mp4", 30, false),
    ("mov-h264-aac-30s-720p.mov", 901, false),
    ("mpeg4-mp3-960x400.avi", 96, false),
    ("nasa-2video-2audio-subs.mp4", 325, false),
    ("sar-2x1-h264-640x360.mp4", 150, false),
    ("ssa-subs-h264-ac3.mkv", 30, false),
];

/// Styles a clip and compares everything that must be kept.
pub(crate) fn check(bench: &Bench, name: &str, input: &Path, output: &Path, frames: Option<usize>, turned: bool) {
    let done = finished(&mut bench.run(input, output));
    let (a, b) = (Witness::of(input), Witness::of(output));
    if let Some(frames) = frames {
        assert_eq!(a.times.len(), frames, "{name}: the source's own frames");
    }
    assert_eq!(done["frames"], a.times.len(), "{name}");
    same_times(name, &a, &b);
    same_look(name, &a, &b, turned);
    same_tracks(name, (input, &a), (output, &b));
    same_chapters_and_tags(name, &a, &b);
    let (chroma, depth) = (&a.main_video()["pix_fmt"], &b.main_video()["pix_fmt"]);
    let kept = chroma == depth
        || depth.as_str().is_some_and(|f| f == chroma.as_str().unwrap_or_default().replace("yuvj", "yuv"));
    assert!(kept, "{name}: pixel format {chroma} became {depth}");
}

fn check_clips(wanted: impl Fn(&str) -> bool, extension_of: impl Fn(&str) -> Option<&'static str>) {
    for (clip, frames, turned) in CLIPS.iter().filter(|(c, ..)| wanted(c)) {
        let (Some(input), Some(extension)) = (shared(&format!("media-dev/{clip}")), extension_of(clip)) else {
            continue;
        };
        let bench = Bench::new();
        check(&bench, clip, &input, &bench.path(&format!("out.{extension}")), Some(*frames), *turned);
    }
}

/// The container that is nearest to the source's own.
fn own_container(clip: &str) -> Option<&'static str> {
    match clip.rsplit('.').next()? {
        "mp4" => Some("mp4"),
        "mov" => Some("mov"),
        "webm" => Some("webm"),
        _ => Some("mkv"),
    }
}

#[test]
fn small_clips_keep_everything_in_their_own_container() {
    check_clips(|c| !LARGE.contains(&c), own_container);
}

#[test]
fn large_clips_keep_everything_in_their_own_container() {
    check_clips(|c| LARGE.contains(&c), own_container);
}

const LARGE: &[&str] = &[
    "bbb-vp8-vorbis-30s-720p.webm",
    "mov-h264-aac-30s-720p.mov",
    "cursed-vfr-3026x1386.mp4",
    "bbb-rotate90-h264-aac51-1080p.mp4",
];

#[test]
fn clips_move_between_containers() {
    let moves = [
        ("nasa-2video-2audio-subs.mp4", "mov"),
        ("chaplin-h264-mp3-640x360.mp4", "mkv"),
        ("av1-aac-1080x720.mp4", "mov"),
        ("mpeg4-mp3-960x400.avi", "mp4"),
        ("bear-vp9-161x121.webm", "mkv"),
        ("hevc-main10-200x200.mp4", "mkv"),
    ];
    for (clip, extension) in moves {
        let Some(input) = shared(&format!("media-dev/{clip}")) else { continue };
        let bench = Bench::new();
        let (_, frames, turned) = CLIPS.iter().find(|(c, ..)| *c == clip).unwrap();
        check(
            &bench,
            &format!("{clip} to {extension}"),
            &input,
            &bench.path(&format!("out.{extension}")),
            Some(*frames),
            *turned,
        );
    }
}
