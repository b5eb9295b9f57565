//! Compares a source and its styled output through ffprobe, which knows nothing of restyle.
#![allow(unreachable_pub, reason = "a module of a test binary")]

use crate::support::ffprobe;
use serde_json::Value;
use std::path::Path;

/// What ffprobe says about a file.
pub struct Witness {
    pub streams: Vec<Value>,
    pub chapters: Vec<Value>,
    pub format: Value,
    /// Stream index of the styled video.
    pub video: usize,
    /// Timestamps of its decoded frames, in seconds.
    pub times: Vec<f64>,
}

impl Witness {
    pub fn of(path: &Path) -> Self {
        let all = ffprobe(path, &["-show_streams", "-show_chapters", "-show_format"]);
        let streams = all["streams"].as_array().unwrap().clone();
        let is_main = |s: &&Value| s["codec_type"] == "video" && s["disposition"]["attached_pic"] == 0;
        let video = streams.iter().find(is_main).unwrap()["index"].as_u64().unwrap() as usize;
        let times = frame_times(path, video);
        Self {
            streams,
            chapters: all["chapters"].as_array().unwrap().clone(),
            format: all["format"].clone(),
            video,
            times,
        }
    }

    pub fn main_video(&self) -> &Value {
        &self.streams[self.video]
    }

    /// Length of a tick of the styled video's time base, in seconds.
    pub fn tick(&self) -> f64 {
        let base = self.main_video()["time_base"].as_str().unwrap();
        let (num, den) = base.split_once('/').unwrap();
        num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap()
    }
}

/// Best-effort timestamps of the frames of a stream, in seconds.
pub fn frame_times(path: &Path, stream: usize) -> Vec<f64> {
    let select = stream.to_string();
    let shown = ffprobe(
        path,
        &["-select_streams", &select, "-show_frames", "-show_entries", "frame=best_effort_timestamp_time"],
    );
    let time = |f: &Value| f["best_effort_timestamp_time"].as_str().map(|t| t.parse().unwrap());
    shown["frames"].as_array().unwrap().iter().filter_map(time).collect()
}

/// Times in seconds and digests of the packets of a stream.
pub fn packets(path: &Path, stream: usize) -> Vec<(f64, String)> {
    let select = stream.to_string();
    let shown = ffprobe(path, &["-select_streams", &select, "-show_packets", "-show_data_hash", "md5"]);
    let packets = shown["packets"].as_array().cloned().unwrap_or_default();
    let time = |p: &Value| p["pts_time"].as_str().or(p["dts_time"].as_str()).map_or(f64::NAN, |t| t.parse().unwrap());
    packets.iter().map(|p| (time(p), p["data_hash"].as_str().unwrap_or_default().to_owned())).collect()
}

/// Digest of the decoded samples of an audio stream.
pub fn samples(path: &Path, stream: usize) -> String {
    let output = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-map", &format!("0:{stream}"), "-f", "md5", "-"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Checks frame count and every timestamp relative to the first, within a tick of the output where its time base is coarser.
pub fn same_times(name: &str, source: &Witness, output: &Witness) {
    assert_eq!(source.times.len(), output.times.len(), "{name}: frames");
    let tolerance = if output.tick() > source.tick() { output.tick() } else { source.tick() * 0.51 } + 1e-6;
    for (k, (a, b)) in std::iter::zip(&source.times, &output.times).enumerate() {
        let (a, b) = (a - source.times[0], b - output.times[0]);
        assert!((a - b).abs() <= tolerance, "{name}: frame {k} is at {b}, the source's at {a}");
    }
}

/// Checks what a viewer sees besides the pixels: size as shown, aspect, colour tags, chroma format and depth.
pub fn same_look(name: &str, source: &Witness, output: &Witness, turned: bool) {
    let (a, b) = (source.main_video(), output.main_video());
    let (w, h) = if turned { ("height", "width") } else { ("width", "height") };
    assert_eq!((&a[w], &a[h]), (&b["width"], &b["height"]), "{name}: size");
    let sar = |v: &Value| v["sample_aspect_ratio"].as_str().filter(|s| *s != "0:1").unwrap_or("1:1").to_owned();
    if !turned {
        assert_eq!(sar(a), sar(b), "{name}: sample aspect ratio");
    }
    for tag in ["color_range", "color_space", "color_transfer", "color_primaries"] {
        let said = |v: &Value| v[tag].as_str().filter(|t| *t != "unknown" && *t != "reserved").map(str::to_owned);
        if said(a).is_some() {
            assert_eq!(said(a), said(b), "{name}: {tag}");
        }
    }
    assert!(
        b["side_data_list"].as_array().is_none_or(|l| l.iter().all(|d| d["rotation"].is_null())),
        "{name}: rotation is left"
    );
}

/// Checks every other track: packets equal, or samples where repackaging changes packets; offset to the video within a tick.
pub fn same_tracks(name: &str, (source_path, source): (&Path, &Witness), (output_path, output): (&Path, &Witness)) {
    let others = |w: &Witness| -> Vec<Value> { w.streams.iter().filter(|s| s["index"] != w.video).cloned().collect() };
    let (from, to) = (others(source), others(output));
    assert_eq!(from.len(), to.len(), "{name}: tracks {from:?} became {to:?}");
    for (a, b) in std::iter::zip(&from, &to) {
        let index = |v: &Value| v["index"].as_u64().unwrap() as usize;
        assert_eq!((&a["codec_type"], &a["codec_name"]), (&b["codec_type"], &b["codec_name"]), "{name}");
        assert_eq!(language(a), language(b), "{name}: language of track {}", a["index"]);
        let (pa, pb) = (packets(source_path, index(a)), packets(output_path, index(b)));
        let digests = |p: &[(f64, String)]| p.iter().map(|x| x.1.clone()).collect::<Vec<_>>();
        if digests(&pa) != digests(&pb) {
            assert_eq!(a["codec_type"], "audio", "{name}: packets of track {} differ", a["index"]);
            assert_eq!(
                samples(source_path, index(a)),
                samples(output_path, index(b)),
                "{name}: samples of track {}",
                a["index"]
            );
        }
        if let (Some(x), Some(y)) = (pa.first(), pb.first()) {
            let (x, y) = (x.0 - source.times[0], y.0 - output.times[0]);
            let tolerance =
                [output.tick(), source.tick(), tick_of(a), tick_of(b)].into_iter().fold(0.0, f64::max) + 1e-6;
            // A picture that is attached has no time at all.
            let timeless = x.is_nan() && y.is_nan();
            assert!(
                timeless || (x - y).abs() <= tolerance,
                "{name}: track {} is {y} s from the video, the source's {x} s",
                a["index"]
            );
        }
    }
}

fn language(stream: &Value) -> Option<&str> {
    stream["tags"]["language"].as_str().filter(|l| *l != "und")
}

fn tick_of(stream: &Value) -> f64 {
    let Some((num, den)) = stream["time_base"].as_str().and_then(|b| b.split_once('/')) else { return 0.0 };
    num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap()
}

/// Checks chapters (times and titles) and the file's own tags that every container can hold.
pub fn same_chapters_and_tags(name: &str, source: &Witness, output: &Witness) {
    let chapters = |w: &Witness| -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        w.chapters.iter().map(|c| (text(&c["start_time"]), text(&c["tags"]["title"]))).collect()
    };
    assert_eq!(chapters(source), chapters(output), "{name}: chapters");
    for tag in ["title", "artist", "comment"] {
        let said = |w: &Witness| {
            let tags = w.format["tags"].as_object().cloned().unwrap_or_default();
            tags.iter().find(|(k, _)| k.eq_ignore_ascii_case(tag)).map(|(_, v)| v.clone())
        };
        if said(source).is_some() {
            assert_eq!(said(source), said(output), "{name}: tag {tag}");
        }
    }
}
