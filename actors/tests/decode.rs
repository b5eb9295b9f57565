//! Decoding gives exactly the frames that FFmpeg gives, with its timestamps and pixels.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

mod support;

use restyle_actors::{Rational, SourceInfo};
use restyle_models::pixels::{Layout, Picture, Samples};
use support::{clips, decoder, manifest_frames, open_and_probe, output_of, rest};

/// Asks ffprobe for the timestamps of every frame of the chosen stream.
fn probed_timestamps(path: &std::path::Path, info: &SourceInfo) -> Option<Vec<i64>> {
    let stream = info.video.index.to_string();
    let arguments = [
        "-v",
        "quiet",
        "-select_streams",
        &stream,
        "-show_entries",
        "frame=best_effort_timestamp",
        "-of",
        "csv=p=0",
        path.to_str().expect("unicode path"),
    ];
    let text = String::from_utf8(output_of("ffprobe", &arguments)?).expect("ascii");
    Some(text.lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect())
}

#[test]
fn every_clip_gives_the_frames_and_timestamps_that_ffmpeg_gives() {
    let Some(clips) = clips() else { return };
    for (name, frames) in manifest_frames(&clips) {
        let path = clips.join(&name);
        let mut decoder = decoder(&path, false);
        let seen = rest(&mut decoder);
        let warnings = decoder.take_warnings();
        eprintln!("{name}: {} frames, warnings {warnings:?}", seen.len());
        assert_eq!(seen.len() as u64, frames, "{name}");
        assert!(seen.iter().enumerate().all(|(at, frame)| frame.index == at as u64), "{name}");
        let (_, info) = open_and_probe(&path);
        assert_eq!(seen[0].pts, info.video.start_pts, "{name}");
        let expected = probed_timestamps(&path, &info).expect("ffprobe");
        let expected = &expected[expected.len() - seen.len()..];
        let pts: Vec<i64> = seen.iter().map(|frame| frame.pts).collect();
        assert_eq!(pts, expected, "{name}");
        assert_eq!(name.starts_with("broken-no-initial"), !warnings.is_empty(), "{name}: {warnings:?}");
    }
}

/// The samples of a picture in FFmpeg's rawvideo order.
fn raw_bytes(picture: &Picture) -> Vec<u8> {
    let order: &[usize] = match picture.format.layout {
        Layout::Gray => &[0],
        Layout::Rgb => &[1, 2, 0],
        _ => &[0, 1, 2],
    };
    let mut bytes = Vec::new();
    for plane in order {
        match &picture.planes[*plane].samples {
            Samples::U8(samples) => bytes.extend_from_slice(samples),
            Samples::U16(samples) => bytes.extend(samples.iter().flat_map(|s| s.to_le_bytes())),
        }
    }
    bytes
}

/// 8-bit RGB planes pixel by pixel.
fn packed_bytes(picture: &Picture) -> Vec<u8> {
    let planes = picture.planes.iter().map(|plane| match &plane.samples {
        Samples::U8(samples) => samples.as_slice(),
        Samples::U16(_) => panic!("8-bit planes"),
    });
    let planes: Vec<&[u8]> = planes.collect();
    (0..planes[0].len()).flat_map(|at| planes.iter().map(move |plane| plane[at])).collect()
}

/// Compares the first frames with what the ffmpeg command writes as raw video of a planar format.
fn check_pixels(path: &std::path::Path, frames: usize, pix_fmt: &str, filter: &str) {
    check_planes(path, frames, pix_fmt, filter, 3);
}

/// The same for the first planes only.
fn check_planes(path: &std::path::Path, frames: usize, pix_fmt: &str, filter: &str, planes: usize) {
    let (_, info) = open_and_probe(path);
    let (map, count) = (format!("0:{}", info.video.index), frames.to_string());
    let mut arguments = vec!["-v", "error", "-nostdin", "-i", path.to_str().expect("unicode path"), "-map", &map];
    if !filter.is_empty() {
        arguments.extend(["-vf", filter]);
    }
    arguments.extend(["-frames:v", &count, "-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", pix_fmt, "-"]);
    let Some(expected) = output_of("ffmpeg", &arguments) else { return };
    let mut decoder = decoder(path, false);
    let mut at = 0;
    for number in 0..frames {
        let Some(frame) = decoder.next_frame().unwrap_or_else(|e| panic!("{}: {e}", path.display())) else { break };
        frame.picture.validate().expect("a picture in order");
        let bytes = if pix_fmt == "rgb24" { packed_bytes(&frame.picture) } else { raw_bytes(&frame.picture) };
        let compared = if planes == 1 { frame.picture.planes[0].samples.byte_len() } else { bytes.len() };
        let same = expected.get(at..at + compared).is_some_and(|e| e == &bytes[..compared]);
        assert!(same, "{}: frame {number} differs from ffmpeg's", path.display());
        at += bytes.len();
    }
    assert_eq!(at, expected.len(), "{}: frames of another size", path.display());
}

#[test]
fn pixels_are_those_of_ffmpeg() {
    let Some(clips) = clips() else { return };
    for (name, _) in manifest_frames(&clips) {
        let (_, info) = open_and_probe(&clips.join(&name));
        let filter = if info.video.interlaced { "bwdif=mode=send_frame:deint=interlaced" } else { "" };
        let pix_fmt = info.video.pix_fmt.replace("yuvj", "yuv");
        check_pixels(&clips.join(&name), 24, &pix_fmt, filter);
    }
}

#[test]
fn rotation_is_applied_and_shape_turned() {
    let Some(clips) = clips() else { return };
    let (_, info) = open_and_probe(&clips.join("bbb-rotate90-h264-aac51-1080p.mp4"));
    assert_eq!((info.video.width, info.video.height), (1920, 1080));
    assert_eq!((info.video.orientation.quarter_turns, info.video.orientation.flip), (1, false));
    assert_eq!(info.video.upright_size(), (1080, 1920));
    let frame = decoder(&clips.join("bbb-rotate90-h264-aac51-1080p.mp4"), false).next_frame().unwrap().unwrap();
    assert_eq!((frame.picture.width, frame.picture.height), (1080, 1920));
    assert_eq!(frame.picture.format, info.video.format);
}

#[test]
fn aspect_ratio_turns_with_the_picture() {
    let Some(clips) = clips() else { return };
    let (_, mut info) = open_and_probe(&clips.join("sar-2x1-h264-640x360.mp4"));
    assert_eq!(info.video.upright_aspect_ratio(), Some(Rational::new(2, 1)));
    info.video.orientation.quarter_turns = 3;
    assert_eq!(info.video.upright_aspect_ratio(), Some(Rational::new(1, 2)));
}

/// Makes a clip in a pixel format with a lossless codec and compares all of it.
fn check_generated(folder: &std::path::Path, source_format: &str, codec: &str, name: &str, delivered: &str) {
    let arguments = format!("-f lavfi -i testsrc2=s=37x23:r=10:d=0.5 -pix_fmt {source_format} -c:v {codec}");
    let Some(path) = support::generate(folder, name, &arguments) else { return };
    let (_, info) = open_and_probe(&path);
    assert_eq!(info.video.pix_fmt, source_format, "{name}");
    check_pixels(&path, 5, delivered, "");
}

#[test]
fn every_layout_and_depth_is_read_without_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    for (format, codec, delivered) in [
        ("yuv420p", "ffv1", "yuv420p"),
        ("yuv422p10le", "ffv1", "yuv422p10le"),
        ("yuv444p16le", "ffv1", "yuv444p16le"),
        ("yuv440p", "ffv1", "yuv440p"),
        ("yuv411p", "ffv1", "yuv411p"),
        ("yuv410p", "ffv1", "yuv410p"),
        ("yuva420p", "ffv1", "yuv420p"),
        ("gray", "ffv1", "gray"),
        ("gray10le", "ffv1", "gray10le"),
        ("gray16le", "ffv1", "gray16le"),
        ("gbrp10le", "ffv1", "gbrp10le"),
        ("gbrp16le", "ffv1", "gbrp16le"),
        ("bgr0", "ffv1", "gbrp"),
        ("bgra", "ffv1", "gbrp"),
        ("nv12", "rawvideo", "yuv420p"),
        ("yuyv422", "rawvideo", "yuv422p"),
        ("uyvy422", "rawvideo", "yuv422p"),
        ("rgb24", "rawvideo", "gbrp"),
        ("rgb48le", "rawvideo", "gbrp16le"),
        ("rgb48be", "rawvideo", "gbrp16le"),
        ("pal8", "rawvideo", "rgb24"),
        ("rgb565le", "rawvideo", "gbrp"),
        ("yuv444p10be", "rawvideo", "yuv444p10le"),
    ] {
        let container = if codec == "ffv1" { "mkv" } else { "nut" };
        if format == "rgb565le" {
            check_rgb565(at);
        } else {
            check_generated(at, format, codec, &format!("{format}.{container}"), delivered);
        }
    }
}

/// Five and six bits are widened so that their largest value becomes 255.
fn check_rgb565(folder: &std::path::Path) {
    let source = "-f lavfi -i color=white:s=16x16:r=10:d=0.2 -pix_fmt rgb565le -c:v rawvideo";
    let Some(path) = support::generate(folder, "rgb565.nut", source) else { return };
    let frame = decoder(&path, false).next_frame().unwrap().unwrap();
    for plane in &frame.picture.planes {
        assert_eq!(plane.samples, Samples::U8(vec![255; 256]));
    }
}

#[test]
fn alpha_is_dropped_with_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = "-f lavfi -i testsrc2=s=32x32:r=10:d=0.2 -pix_fmt yuva444p -c:v ffv1";
    let Some(path) = support::generate(folder.path(), "alpha.mkv", source) else { return };
    let (_, info) = open_and_probe(&path);
    assert!(info.video.alpha);
    assert!(info.warnings.iter().any(|w| w.contains("alpha")), "{:?}", info.warnings);
    assert_eq!(info.video.format.layout, Layout::Yuv444);
}

#[test]
fn flips_and_turns_are_those_of_ffmpeg() {
    let Some(clips) = clips() else { return };
    let source = clips.join("carphone-h264-sar-ntsc-176x144.mp4");
    let folder = tempfile::tempdir().expect("a folder");
    for degrees in [90, 180, 270] {
        let arguments = format!("-display_rotation {degrees} -i {} -c copy -frames:v 10", source.display());
        let older = format!("-i {} -c copy -frames:v 10 -metadata:s:v rotate={degrees}", source.display());
        let name = format!("turned{degrees}.mp4");
        let path = folder.path().join(&name);
        let words: Vec<&str> = arguments.split_whitespace().chain([path.to_str().expect("unicode")]).collect();
        let made = std::process::Command::new("ffmpeg").args(["-v", "quiet", "-nostdin", "-y"]).args(&words).status();
        if !made.is_ok_and(|status| status.success()) && support::generate(folder.path(), &name, &older).is_none() {
            return;
        }
        let (_, info) = open_and_probe(&path);
        assert_eq!(u32::from(info.video.orientation.quarter_turns) % 2, degrees / 90 % 2, "{degrees}");
        assert!(!info.video.orientation.is_upright(), "{degrees}");
        // Upside down, chroma that lay left would lie right, which no format can say: it is moved, FFmpeg leaves it.
        check_planes(&path, 10, "yuv420p", "", if degrees == 180 { 1 } else { 3 });
    }
}

#[test]
fn an_edit_list_hides_what_it_hides() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = "-f lavfi -i testsrc2=s=64x48:r=25:d=4 -c:v libx264 -g 50 -bf 2 -threads 1";
    let Some(whole) = support::generate(folder.path(), "whole.mp4", source) else { return };
    let cut = format!("-ss 1.0 -i {} -c copy", whole.display());
    let Some(path) = support::generate(folder.path(), "cut.mp4", &cut) else { return };
    let (_, info) = open_and_probe(&path);
    let seen = rest(&mut decoder(&path, false));
    let expected = probed_timestamps(&path, &info).expect("ffprobe");
    assert_eq!(seen.iter().map(|f| f.pts).collect::<Vec<_>>(), expected);
    let all = rest(&mut decoder(&whole, false));
    assert!(seen.len() < all.len(), "{} of {}", seen.len(), all.len());
    assert_eq!(seen.last().map(|f| f.hash), all.last().map(|f| f.hash));
}

#[test]
fn a_size_that_changes_is_scaled_to_the_first_with_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let part = |size: &str| {
        format!("-f lavfi -i testsrc2=s={size}:r=25:d=0.4 -pix_fmt yuv420p -c:v libx264 -bf 0 -threads 1 -f mpegts")
    };
    let Some(first) = support::generate(folder.path(), "a.ts", &part("96x64")) else { return };
    let Some(second) = support::generate(folder.path(), "b.ts", &part("48x32")) else { return };
    let mut bytes = std::fs::read(first).expect("first part");
    bytes.extend(std::fs::read(second).expect("second part"));
    let path = folder.path().join("joined.ts");
    std::fs::write(&path, bytes).expect("written");
    let mut decoder = decoder(&path, true);
    let mut sizes = Vec::new();
    while let Some(frame) = decoder.next_frame().unwrap_or_else(|e| panic!("{e}")) {
        sizes.push((frame.picture.width, frame.picture.height));
    }
    assert_eq!(sizes, vec![(96, 64); 20]);
    let warnings = decoder.take_warnings();
    assert!(warnings.iter().any(|w| w.contains("from 96x64 to 48x32")), "{warnings:?}");
}

#[test]
fn one_frame_is_one_frame_interlaced_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, flags) in [("one.mp4", ""), ("one-interlaced.mp4", "-flags +ilme+ildct -x264-params tff=1")] {
        let source = format!("-f lavfi -i testsrc2=s=64x48:r=25 -frames:v 1 -c:v libx264 -threads 1 {flags}");
        let Some(path) = support::generate(folder.path(), name, &source) else { return };
        assert_eq!(rest(&mut decoder(&path, false)).len(), 1, "{name}");
    }
}

#[test]
fn raw_streams_without_timestamps_get_them_from_the_frame_rate() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -c:v libx264 -bf 2 -threads 1 -f h264";
    let Some(path) = support::generate(folder.path(), "raw.h264", source) else { return };
    let (_, info) = open_and_probe(&path);
    let seen = rest(&mut decoder(&path, false));
    assert_eq!(seen.len(), 25);
    let seconds = (seen[24].pts - seen[0].pts) as f64 * info.video.time_base.as_f64();
    assert!((seconds - 24.0 / 25.0).abs() < 1e-6, "{seconds}");
}
