//! Taking a source up behind a frame gives the very frames that decoding it whole gives.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

mod support;

use std::path::Path;

use restyle_actors::{Anchor, ErrorKind};
use support::{Seen, clips, decoder, generate, manifest_frames, rest};

/// Resumes behind several frames and compares all that follows with the whole decode.
fn check_resumes(path: &Path, conceal: bool) {
    let mut decoder = decoder(path, conceal);
    let whole = rest(&mut decoder);
    let last = whole.len() - 1;
    let mut places = match last {
        0..=330 => vec![0, 1, last / 4, last / 2, (last / 2 + 1).min(last), last * 3 / 4, last.saturating_sub(1), last],
        _ => vec![0, last / 2, last * 3 / 4, last],
    };
    places.dedup();
    for place in places {
        let Seen { index, pts, hash } = whole[place];
        let report = decoder
            .resume_after(Anchor { index, pts, hash })
            .unwrap_or_else(|e| panic!("{} behind frame {place}: {e}", path.display()));
        let name = path.file_name().expect("a name").to_string_lossy();
        eprintln!("{name} behind {place}: {report:?}");
        assert_eq!(rest(&mut decoder), whole[place + 1..], "{} behind frame {place}", path.display());
    }
}

#[test]
fn every_clip_resumes_anywhere_to_the_same_frames() {
    let Some(clips) = clips() else { return };
    for (name, frames) in manifest_frames(&clips) {
        if frames <= 330 {
            check_resumes(&clips.join(&name), false);
        }
    }
}

#[test]
fn long_clips_resume_to_the_same_frames() {
    let Some(clips) = clips() else { return };
    for (name, frames) in manifest_frames(&clips) {
        if frames > 330 {
            check_resumes(&clips.join(&name), false);
        }
    }
}

#[test]
fn generated_streams_resume_anywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = "-f lavfi -i testsrc2=s=96x64:r=25:d=4 -pix_fmt yuv420p -threads 1";
    for (name, codec) in [
        ("open-gop.mp4", "-c:v libx264 -g 20 -bf 3 -x264-params open-gop=1:keyint=20"),
        ("intra-refresh.mp4", "-c:v libx264 -x264-params intra-refresh=1:keyint=20:bframes=0"),
        (
            "open-gop-hevc.mkv",
            "-c:v libx265 -x265-params open-gop=1:keyint=20:log-level=error:pools=none:frame-threads=1",
        ),
        ("mpeg2.ts", "-c:v mpeg2video -g 12 -bf 2"),
        ("mpeg2.mpg", "-c:v mpeg2video -g 12 -bf 2"),
        ("mpeg4.avi", "-c:v mpeg4 -g 20 -bf 2"),
        ("raw.h264", "-c:v libx264 -g 20 -bf 2 -f h264"),
        ("vp9.webm", "-c:v libvpx-vp9 -g 20 -deadline realtime"),
        ("flv.flv", "-c:v flv -g 20"),
        ("mjpeg.mkv", "-c:v mjpeg -pix_fmt yuvj422p"),
        (
            "interlaced.ts",
            "-vf tinterlace=interleave_top,fieldorder=tff -c:v mpeg2video -g 12 -bf 2 -flags +ilme+ildct",
        ),
        ("one-key.mp4", "-c:v libx264 -g 1000 -bf 3"),
    ] {
        if let Some(path) = generate(folder.path(), name, &format!("{source} {codec}")) {
            check_resumes(&path, false);
        }
    }
}

#[test]
fn an_anchor_that_never_was_is_refused() {
    let Some(clips) = clips() else { return };
    let path = clips.join("bear-vp9-161x121.webm");
    let mut decoder = decoder(&path, false);
    let frame = decoder.next_frame().unwrap().unwrap();
    let anchor = Anchor { hash: frame.hash ^ 1, ..frame.anchor() };
    let error = decoder.resume_after(anchor).expect_err("no such frame");
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert!(error.to_string().contains("cannot be reproduced"), "{error}");
}
