//! Joining: every other track of real and generated sources comes through, with the styled frames at their times.
//!
//! Styled frames are small gradients here; what counts is where they lie and what lies beside them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

mod media;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use media::{
    ShownPacket, check_decode_times, clips, decoded_md5, described, encoded, frame_times, generate, joined, open,
    packets, probed,
};
use restyle_actors::encode::{Container, EncodeRequest, EncoderSettings};
use restyle_actors::join::{JoinReport, JoinRequest, join, preview};
use restyle_actors::{Blob, ErrorKind, SourceInfo, StreamKind, probe};
use restyle_engine::CancelToken;
use serde_json::Value;

/// A source and what ffprobe says of it.
struct Case {
    path: PathBuf,
    blob: Arc<Blob>,
    source: SourceInfo,
    shown: Value,
    times: Vec<i64>,
}

/// A joined file of a case.
struct Joined {
    path: PathBuf,
    report: JoinReport,
    container: Container,
    shown: Value,
}

impl Case {
    fn open(path: &Path) -> Self {
        let blob = open(path);
        let source = probe(&blob).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let shown = described(path);
        let times = frame_times(path, source.video.index);
        Self { path: path.to_owned(), blob, source, shown, times }
    }

    fn settings(&self, extension: &str) -> EncoderSettings {
        // webm's only fast enough codec would be slow here; its speed preset is what a test can pay.
        let request = EncodeRequest {
            container: extension.to_owned(),
            preset: Some("ultrafast".into()),
            ..EncodeRequest::default()
        };
        let (mut settings, _) = EncoderSettings::choose(&self.source, &request).unwrap();
        (settings.width, settings.height) = (64, 48);
        settings
    }

    fn join(&self, folder: &Path, extension: &str) -> Joined {
        let settings = self.settings(extension);
        let third = (self.times.len() / 3).max(1);
        let segments = encoded(&settings, &self.times, &[third, 1, third]);
        let path = folder.join(format!("out.{extension}"));
        let report = joined(&self.blob, &self.source, &settings, segments, &path)
            .unwrap_or_else(|e| panic!("{} to {extension}: {e}", self.path.display()));
        let shown = described(&path);
        Joined { path, report, container: settings.container, shown }
    }

    fn stream(&self, index: usize) -> &Value {
        &self.shown["streams"][index]
    }
}

fn unit(stream: &Value) -> f64 {
    let (num, den) = stream["time_base"].as_str().unwrap().split_once('/').unwrap();
    num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap()
}

fn kind(stream: &Value) -> &str {
    stream["codec_type"].as_str().unwrap_or_default()
}

fn is_cover(stream: &Value) -> bool {
    stream["disposition"]["attached_pic"] == 1
}

/// By how much a join says that every time moved.
fn shift(report: &JoinReport) -> f64 {
    let line = report.warnings.iter().find(|w| w.contains("every time moves"));
    line.map_or(0.0, |line| line.split_whitespace().nth(3).unwrap().parse().unwrap())
}

/// Checks the styled track's place, times and aspect; returns its stream in the output.
fn check_styled(case: &Case, joined: &Joined, label: &str) -> usize {
    let source_stream = case.stream(case.source.video.index);
    let streams = joined.shown["streams"].as_array().unwrap();
    let before = case.shown["streams"].as_array().unwrap()[..case.source.video.index].iter();
    let dropped_before = before
        .enumerate()
        .filter(|(index, _)| joined.report.warnings.iter().any(|w| w.contains(&format!("track {index} "))))
        .count();
    let at = case.source.video.index - dropped_before;
    let stream = &streams[at];
    assert_eq!(kind(stream), "video", "{label}");
    let times = frame_times(&joined.path, at);
    assert_eq!(times.len(), case.times.len(), "{label}: frames");
    assert_eq!(joined.report.frames, case.times.len() as u64, "{label}");
    let moved = shift(&joined.report);
    let (from, to) = (unit(source_stream), unit(stream));
    let allowed =
        if joined.container == Container::Mp4 || joined.container == Container::Mov { 1e-6 } else { to / 2.0 + 1e-6 };
    for (shown, tick) in times.iter().zip(&case.times) {
        let difference = *shown as f64 * to - *tick as f64 * from - moved;
        assert!(difference.abs() <= allowed, "{label}: {shown} should be {tick} of {from}, moved by {moved}");
    }
    check_decode_times(&packets(&joined.path, at), label);
    let aspect = |stream: &Value| {
        stream["sample_aspect_ratio"].as_str().filter(|sar| *sar != "1:1" && *sar != "0:1").map(str::to_owned)
    };
    let expected = case
        .source
        .video
        .upright_aspect_ratio()
        .map(|sar| format!("{}:{}", sar.num, sar.den))
        .filter(|sar| sar != "1:1");
    assert!(
        aspect(stream) == expected || joined.container == Container::Webm,
        "{label}: {:?} {expected:?}",
        aspect(stream)
    );
    // The probe decodes a frame: some codecs say their colours in no other place.
    let colour = &case.source.video.colour;
    for (tag, point) in
        [("color_primaries", &colour.primaries), ("color_transfer", &colour.transfer), ("color_space", &colour.matrix)]
    {
        let expected = if point.code == 2 { Value::Null } else { point.name.as_str().into() };
        assert_eq!(stream[tag], expected, "{label}: {tag}");
    }
    assert!(!stream["side_data_list"].to_string().contains("rotation"), "{label}: the rotation tag is dropped");
    at
}

/// Checks one copied track: packets, beginning and language.
fn check_copied(case: &Case, joined: &Joined, from: usize, to: usize, label: &str) {
    let (source, output) = (case.stream(from), &joined.shown["streams"][to]);
    assert_eq!(source["codec_name"], output["codec_name"], "{label}");
    let hashes = |packets: &[ShownPacket]| packets.iter().map(|p| p.hash.clone()).collect::<Vec<_>>();
    let (before, after) = (packets(&case.path, from), packets(&joined.path, to));
    if hashes(&before) != hashes(&after) {
        assert_eq!(decoded_md5(&case.path, from), decoded_md5(&joined.path, to), "{label}: repackaged, decoded alike");
    }
    let language = |stream: &Value| stream["tags"]["language"].as_str().filter(|l| *l != "und").map(str::to_owned);
    assert_eq!(language(source), language(output), "{label}");
    let allowed = unit(source).max(unit(output)) + 1e-6;
    let moved = shift(&joined.report);
    for (one, other) in before.iter().zip(&after) {
        let (Some(a), Some(b)) = (one.seconds, other.seconds) else { continue };
        assert!((b - a - moved).abs() <= allowed, "{label}: a packet at {a} came out at {b}, moved by {moved}");
    }
}

/// Checks everything that came through; what did not has to be named in a warning.
fn check_all(case: &Case, joined: &Joined, label: &str) {
    let styled = check_styled(case, joined, label);
    let outputs = joined.shown["streams"].as_array().unwrap();
    let mut rest: Vec<usize> = (0..outputs.len()).filter(|at| *at != styled).collect();
    for (index, source) in case.shown["streams"].as_array().unwrap().iter().enumerate() {
        // Containers of this family make the tracks behind timecodes and chapters anew, others say the same otherwise.
        let is_implied = matches!(source["codec_tag_string"].as_str(), Some("tmcd" | "text"));
        if index == case.source.video.index || is_implied {
            continue;
        }
        if joined.report.warnings.iter().any(|w| w.contains(&format!("track {index} ")) && w.contains("not carried")) {
            continue;
        }
        let found = rest.iter().position(|at| {
            let output = &outputs[*at];
            kind(output) == kind(source)
                && output["codec_name"] == source["codec_name"]
                && is_cover(output) == is_cover(source)
        });
        let to = rest.remove(found.unwrap_or_else(|| {
            panic!("{label}: track {index} is neither there nor named: {:?}", joined.report.warnings)
        }));
        check_copied(case, joined, index, to, &format!("{label}, track {index}"));
    }
    let extra: Vec<_> = rest
        .iter()
        .map(|at| &outputs[*at])
        .filter(|s| s["codec_tag_string"] != "tmcd" && s["codec_tag_string"] != "text")
        .collect();
    assert!(extra.is_empty(), "{label}: tracks from nowhere: {extra:?}");
    check_chapters(case, joined, label);
}

fn check_chapters(case: &Case, joined: &Joined, label: &str) {
    let list = |shown: &Value| {
        let chapters = shown["chapters"].as_array().cloned().unwrap_or_default();
        chapters
            .iter()
            .map(|c| (c["start_time"].as_str().unwrap().parse::<f64>().unwrap(), c["tags"]["title"].clone()))
            .collect::<Vec<_>>()
    };
    let (before, after) = (list(&case.shown), list(&joined.shown));
    assert_eq!(before.len(), after.len(), "{label}: chapters");
    for ((start, title), (start_after, title_after)) in before.iter().zip(&after) {
        assert!((start - start_after + shift(&joined.report)).abs() < 2e-3, "{label}: {start} {start_after}");
        assert_eq!(title, title_after, "{label}");
    }
}

fn check_clip(name: &str, extensions: &[&str]) {
    let Some(clips) = clips() else { return };
    let case = Case::open(&clips.join(name));
    let folder = tempfile::tempdir().unwrap();
    for extension in extensions {
        check_all(&case, &case.join(folder.path(), extension), &format!("{name} to {extension}"));
    }
}

#[test]
fn av1_mp4() {
    check_clip("av1-aac-1080x720.mp4", &["mp4", "mkv"]);
}

#[test]
fn surround_mp4() {
    check_clip("bbb-h264-aac51-720p.mp4", &["mp4", "mov", "mkv"]);
}

#[test]
fn rotated_mp4_whose_video_starts_late() {
    check_clip("bbb-rotate90-h264-aac51-1080p.mp4", &["mp4", "mov", "mkv"]);
}

#[test]
fn vorbis_webm() {
    check_clip("bear-vp9-161x121.webm", &["webm", "mp4", "mkv"]);
    check_clip("bbb-vp8-vorbis-30s-720p.webm", &["mkv", "mp4"]);
}

#[test]
fn silent_mp4() {
    check_clip("bikes-h264-noaudio-640x272.mp4", &["mp4", "mkv", "webm"]);
    check_clip("carphone-h264-sar-ntsc-176x144.mp4", &["mp4", "mov", "mkv"]);
    check_clip("sar-2x1-h264-640x360.mp4", &["mp4", "webm"]);
}

#[test]
fn mp3_with_priming() {
    check_clip("chaplin-h264-mp3-640x360.mp4", &["mp4", "mov", "mkv"]);
    check_clip("cockatoo-h264-yuv444-mp3mono-14s.mp4", &["mp4", "mkv"]);
}

#[test]
fn variable_rate() {
    check_clip("cursed-vfr-3026x1386.mp4", &["mp4", "mov", "mkv"]);
}

#[test]
fn interlaced_with_an_odd_first_audio_packet() {
    check_clip("derived-interlaced-tff-h264-aac.mp4", &["mp4", "mkv"]);
}

#[test]
fn ten_bits() {
    check_clip("hevc-main10-200x200.mp4", &["mp4", "mkv", "webm"]);
}

#[test]
fn quicktime() {
    check_clip("mov-h264-aac-30s-720p.mov", &["mov", "mp4", "mkv"]);
}

#[test]
fn avi() {
    check_clip("mpeg4-mp3-960x400.avi", &["mp4", "mkv", "mov"]);
}

#[test]
fn two_videos_two_sounds_subtitles() {
    check_clip("nasa-2video-2audio-subs.mp4", &["mp4", "mov", "mkv"]);
}

#[test]
fn matroska_with_styled_subtitles() {
    check_clip("ssa-subs-h264-ac3.mkv", &["mkv", "mp4", "webm"]);
}

#[test]
fn transport_stream_and_odd_ends() {
    check_clip("broken-no-initial-keyframe.ts", &["mkv", "mp4"]);
    check_clip("broken-mdat-too-long.mp4", &["mp4", "mkv"]);
}

/// A Matroska file with everything that it can hold beside the video.
fn rich_matroska(folder: &Path) -> PathBuf {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("subs.srt", "1\n00:00:00,200 --> 00:00:00,900\nHello\n\n2\n00:00:01,000 --> 00:00:01,500\nWorld\n");
    write("font.ttf", "not really a font");
    write(
        "meta.txt",
        ";FFMETADATA1\ntitle=A film\nartist=Somebody\nmood=cheerful\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=700\ntitle=One\n\
         [CHAPTER]\nTIMEBASE=1/1000\nSTART=700\nEND=2000\ntitle=Two\n",
    );
    let dir = folder.to_str().unwrap();
    generate(folder, "cover.png", "-f lavfi -i testsrc2=s=32x32 -frames:v 1");
    generate(
        folder,
        "rich.mkv",
        &format!(
            "-f lavfi -i testsrc2=s=64x48:r=25:d=2 -f lavfi -i sine=d=2 -f lavfi -i sine=f=880:d=2 -i {dir}/subs.srt -i {dir}/meta.txt \
             -attach {dir}/font.ttf -metadata:s:t:0 mimetype=font/ttf -attach {dir}/cover.png -metadata:s:t:1 mimetype=image/png \
             -map 1 -map 0 -map 2 -map 3 -map_metadata 4 -c:v libx264 -preset ultrafast -c:a libopus -c:a:1 aac -c:s srt \
             -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu -metadata:s:a:1 title=Kommentar -metadata:s:s:0 language=fra \
             -disposition:a:1 comment -disposition:s:0 forced"
        ),
    )
}

#[test]
fn everything_matroska_holds_comes_through() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::open(&rich_matroska(folder.path()));
    let joined = case.join(folder.path(), "mkv");
    assert_eq!(joined.report.warnings, Vec::<String>::new());
    check_all(&case, &joined, "rich");
    let tags = &joined.shown["format"]["tags"];
    assert_eq!(
        (&tags["title"], &tags["ARTIST"], &tags["MOOD"]),
        (&"A film".into(), &"Somebody".into(), &"cheerful".into())
    );
    for (before, after) in
        case.shown["streams"].as_array().unwrap().iter().zip(joined.shown["streams"].as_array().unwrap())
    {
        assert_eq!(kind(before), kind(after));
        assert_eq!(before["disposition"], after["disposition"]);
        assert_eq!(before["tags"]["title"], after["tags"]["title"]);
        assert_eq!(before["tags"]["filename"], after["tags"]["filename"]);
    }
    let attached = |path: &Path| {
        let to = folder.path().join("dumped");
        let run = Command::new("ffmpeg")
            .args(["-v", "quiet", "-y", "-dump_attachment:t:0", to.to_str().unwrap(), "-i", path.to_str().unwrap()])
            .status();
        run.unwrap();
        std::fs::read(to).unwrap()
    };
    assert_eq!(attached(&joined.path), b"not really a font");
    assert!(probed(&joined.path, "-show_streams")["streams"].as_array().unwrap().iter().any(is_cover));
}

#[test]
fn what_mp4_cannot_hold_is_named_and_strict_refuses_it() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::open(&rich_matroska(folder.path()));
    let joined = case.join(folder.path(), "mp4");
    check_all(&case, &joined, "rich to mp4");
    let warnings = joined.report.warnings.join("\n");
    assert!(warnings.contains("subrip") && warnings.contains("fra") && warnings.contains("font.ttf"), "{warnings}");
    assert_eq!(joined.shown["format"]["tags"]["title"], "A film");
    let settings = EncoderSettings { strict: true, ..case.settings("mp4") };
    assert_eq!(preview(&case.blob, &case.source, &settings).unwrap_err().kind(), ErrorKind::Usage);
    let segments = encoded(&settings, &case.times, &[]);
    let staged = folder.path().join("strict.mp4");
    let error = joined_with(&case, &settings, segments, &staged).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    assert!(!staged.exists());
    let settings = EncoderSettings { strict: true, ..case.settings("mkv") };
    assert_eq!(preview(&case.blob, &case.source, &settings).unwrap(), Vec::<String>::new());
}

fn joined_with(
    case: &Case,
    settings: &EncoderSettings,
    segments: Vec<restyle_actors::EncodedSegment>,
    staged: &Path,
) -> restyle_actors::Result<JoinReport> {
    joined(&case.blob, &case.source, settings, segments, staged)
}

#[test]
fn mp4_keeps_cover_chapters_timecode_and_free_tags() {
    let folder = tempfile::tempdir().unwrap();
    rich_matroska(folder.path());
    let dir = folder.path().to_str().unwrap();
    let source = generate(
        folder.path(),
        "rich.mp4",
        &format!(
            "-f lavfi -i testsrc2=s=64x48:r=25:d=2 -f lavfi -i sine=d=2 -i {dir}/cover.png -i {dir}/meta.txt -map 0 -map 1 -map 2 \
             -map_metadata 3 -c:v:0 libx264 -preset ultrafast -c:v:1 png -disposition:v:1 attached_pic -timecode 01:02:03:04 \
             -metadata:s:a:0 language=jpn -metadata creation_time=2020-01-02T03:04:05Z"
        ),
    );
    let case = Case::open(&source);
    for extension in ["mp4", "mkv"] {
        let joined = case.join(folder.path(), extension);
        check_all(&case, &joined, extension);
        assert_eq!(joined.report.warnings, Vec::<String>::new(), "{extension}");
        let tags = &joined.shown["format"]["tags"];
        let creation = tags["creation_time"].as_str().unwrap();
        assert!(creation.starts_with("2020-01-02T03:04:05"), "{extension}: {creation}");
        let cover = joined.shown["streams"].as_array().unwrap().iter().position(is_cover).unwrap();
        let was = case.shown["streams"].as_array().unwrap().iter().position(is_cover).unwrap();
        assert_eq!(packets(&case.path, was)[0].hash, packets(&joined.path, cover)[0].hash, "{extension}");
    }
    let timecode = |shown: &Value| {
        let tags = shown["streams"][0]["tags"].clone();
        tags["timecode"].as_str().or(tags["TIMECODE"].as_str()).map(str::to_owned)
    };
    let joined = case.join(folder.path(), "mp4");
    assert_eq!(timecode(&joined.shown), Some("01:02:03:04".into()));
    let free = generate(
        folder.path(),
        "free.mp4",
        "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -c:v libx264 -preset ultrafast -movflags use_metadata_tags -metadata title=T -metadata com.apple.make=Me",
    );
    let joined = Case::open(&free).join(folder.path(), "mov");
    assert_eq!(joined.report.warnings, Vec::<String>::new());
    assert_eq!(joined.shown["format"]["tags"]["com.apple.make"], "Me");
    assert_eq!(joined.shown["format"]["tags"]["title"], "T");
}

#[test]
fn late_and_early_sound_stays_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let aac = "-f lavfi -i testsrc2=s=64x48:r=30000/1001:d=2 -itsoffset OFFSET -f lavfi -i sine=d=1.5:r=44100 -c:v libx264 -preset ultrafast -bf 2 -c:a aac";
    for offset in ["0.731", "-0.1", "0"] {
        let case = Case::open(&generate(folder.path(), "in.mp4", &aac.replace("OFFSET", offset)));
        for extension in ["mp4", "mov", "mkv"] {
            let joined = case.join(folder.path(), extension);
            let label = format!("{offset} to {extension}");
            assert_eq!(shift(&joined.report), 0.0, "{label}");
            check_all(&case, &joined, &label);
            if extension != "mkv" {
                assert_eq!(decoded_md5(&case.path, 1), decoded_md5(&joined.path, 1), "{label}");
            }
        }
    }
}

#[test]
fn opus_keeps_its_place_between_webm_mkv_and_mp4() {
    let folder = tempfile::tempdir().unwrap();
    let opus = "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -f lavfi -i sine=d=1 -c:a libopus";
    for (name, video) in [("in.webm", "-c:v libvpx-vp9 -cpu-used 8"), ("in.mp4", "-c:v libx264 -preset ultrafast")] {
        let case = Case::open(&generate(folder.path(), name, &format!("{opus} {video}")));
        for extension in ["webm", "mkv", "mp4"] {
            let joined = case.join(folder.path(), extension);
            let label = format!("{name} to {extension}");
            check_all(&case, &joined, &label);
            assert_eq!(shift(&joined.report), 0.0, "{label}");
        }
    }
}

#[test]
fn sound_that_no_decoder_reads_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let path = generate(
        folder.path(),
        "in.mkv",
        "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -f lavfi -i sine=d=1 -c:v libx264 -preset ultrafast -c:a ac3 -bsf:a noise=amount=3",
    );
    let case = Case::open(&path);
    let joined = case.join(folder.path(), "mkv");
    let hashes = |path: &Path| packets(path, 1).into_iter().map(|p| p.hash).collect::<Vec<_>>();
    assert_eq!(hashes(&case.path), hashes(&joined.path));
}

#[test]
fn times_before_zero_move_everything_in_matroska() {
    let folder = tempfile::tempdir().unwrap();
    let path = generate(
        folder.path(),
        "in.mkv",
        "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -f lavfi -i sine=d=1 -c:v libx264 -preset ultrafast -c:a aac",
    );
    let mut case = Case::open(&path);
    case.times = case.times.iter().map(|time| time - 40).collect();
    for extension in ["mkv", "mp4"] {
        let joined = case.join(folder.path(), extension);
        let early = -case.times[0] as f64 / 1000.0;
        assert!(early > 0.01 && (shift(&joined.report) - early).abs() < 0.002, "{:?}", joined.report.warnings);
        check_all(&case, &joined, extension);
    }
}

#[test]
fn a_cancelled_join_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        generate(folder.path(), "in.mp4", "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -c:v libx264 -preset ultrafast");
    let case = Case::open(&path);
    let settings = case.settings("mp4");
    let staged = folder.path().join("out.mp4");
    let cancel = CancelToken::new();
    cancel.cancel();
    let mut segments = encoded(&settings, &case.times, &[]).into_iter().map(Ok);
    let request = JoinRequest {
        blob: &case.blob,
        source: &case.source,
        settings: &settings,
        segments: &mut segments,
        staged: &staged,
        cancel: &cancel,
    };
    assert_eq!(join(request).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!staged.exists());
}

#[test]
fn a_full_disk_is_told_as_such() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path =
        generate(folder.path(), "in.mp4", "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -c:v libx264 -preset ultrafast");
    let case = Case::open(&path);
    let staged = folder.path().join("out.mkv");
    std::os::unix::fs::symlink("/dev/full", &staged).unwrap();
    let settings = case.settings("mkv");
    let error = joined(&case.blob, &case.source, &settings, encoded(&settings, &case.times, &[]), &staged).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
}

#[test]
fn streams_are_told_apart_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::open(&rich_matroska(folder.path()));
    let subtitles = case.source.streams.iter().find(|s| s.kind == StreamKind::Subtitle).unwrap();
    assert_eq!(
        restyle_actors::tracks::describe(subtitles),
        format!("track {} (subrip subtitles, fra)", subtitles.index)
    );
}
