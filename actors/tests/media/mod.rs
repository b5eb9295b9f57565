//! What the tests of encoding and joining share: synthetic pictures, made clips, and what ffprobe says of a file.
#![allow(dead_code, unreachable_pub, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use restyle_actors::encode::{EncodedSegment, EncoderSettings, SegmentEncoder};
use restyle_actors::join::{JoinReport, JoinRequest, join};
use restyle_actors::{Blob, Location, Result, SourceInfo};
use restyle_engine::CancelToken;
use restyle_models::pixels::{Picture, PixelFormat, Samples};
use serde_json::Value;

/// Returns the folder of shared clips; says so and returns nothing where there is none.
pub fn clips() -> Option<PathBuf> {
    let shared = match std::env::var_os("RESTYLE_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let clips = shared.join("media-dev");
    if clips.is_dir() {
        return Some(clips);
    }
    eprintln!("skipped: no shared clips at {}", clips.display());
    None
}

/// Opens a local file.
pub fn open(path: &Path) -> Arc<Blob> {
    Arc::new(Blob::open(&Location::File(path.to_owned())).unwrap_or_else(|e| panic!("{e}")))
}

/// Runs a command and returns its output; panics where it fails or complains.
pub fn quiet(program: &str, arguments: &[&str]) -> Vec<u8> {
    let run = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let complaint = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && complaint.is_empty(), "{program} {arguments:?}: {complaint}");
    run.stdout
}

/// Makes a clip with `ffmpeg ARGUMENTS FOLDER/NAME`; arguments are parted by blanks.
pub fn generate(folder: &Path, name: &str, arguments: &str) -> PathBuf {
    let path = folder.join(name);
    let mut words = vec!["-v", "error", "-nostdin", "-y"];
    words.extend(arguments.split_whitespace());
    words.push(path.to_str().expect("unicode path"));
    let run = Command::new("ffmpeg").args(&words).output().expect("ffmpeg runs");
    assert!(run.status.success(), "{words:?}: {}", String::from_utf8_lossy(&run.stderr));
    path
}

/// Asks ffprobe; the answer is its JSON.
pub fn probed(path: &Path, arguments: &str) -> Value {
    let mut words = vec!["-v", "error", "-of", "json"];
    words.extend(arguments.split_whitespace());
    words.push(path.to_str().expect("unicode path"));
    let run = Command::new("ffprobe").args(&words).output().expect("ffprobe runs");
    serde_json::from_slice(&run.stdout).expect("ffprobe writes JSON")
}

/// Streams, chapters and tags of a file.
pub fn described(path: &Path) -> Value {
    probed(path, "-show_streams -show_format -show_chapters")
}

/// Presentation times, in ticks, of the frames that a stream decodes to.
pub fn frame_times(path: &Path, stream: usize) -> Vec<i64> {
    let answer =
        probed(path, &format!("-select_streams {stream} -show_frames -show_entries frame=pts,best_effort_timestamp"));
    let frames = answer["frames"].as_array().cloned().unwrap_or_default();
    frames.iter().map(|f| f["pts"].as_i64().or(f["best_effort_timestamp"].as_i64()).expect("a time")).collect()
}

/// One packet as ffprobe shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownPacket {
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub seconds: Option<f64>,
    pub key: bool,
    pub hash: String,
}

/// Packets of one stream in file order.
pub fn packets(path: &Path, stream: usize) -> Vec<ShownPacket> {
    let answer = probed(path, &format!("-select_streams {stream} -show_packets -show_data_hash md5"));
    let shown = answer["packets"].as_array().cloned().unwrap_or_default();
    shown
        .iter()
        .map(|p| ShownPacket {
            pts: p["pts"].as_i64(),
            dts: p["dts"].as_i64(),
            seconds: p["pts_time"].as_str().map(|text| text.parse().expect("seconds")),
            key: p["flags"].as_str().is_some_and(|flags| flags.starts_with('K')),
            hash: p["data_hash"].as_str().unwrap_or_default().to_owned(),
        })
        .collect()
}

/// md5 of what a stream decodes to, timestamps left out.
pub fn decoded_md5(path: &Path, stream: usize) -> String {
    let path = path.to_str().expect("unicode path");
    let map = format!("0:{stream}");
    let run = Command::new("ffmpeg")
        .args(["-v", "quiet", "-nostdin", "-i", path, "-map", &map, "-vsync", "passthrough", "-f", "md5", "-"])
        .output()
        .expect("ffmpeg runs");
    String::from_utf8_lossy(&run.stdout).trim().to_owned()
}

/// A gradient that moves from picture to picture, different in every plane.
pub fn gradient(format: PixelFormat, width: u32, height: u32, number: usize) -> Picture {
    let mut picture = Picture::zeroed(format, width, height).expect("a valid format");
    let (least, most) = (u32::from(format.code_max()) / 16, u32::from(format.code_max()) * 14 / 16);
    for (at, plane) in picture.planes.iter_mut().enumerate() {
        let row = plane.width as usize;
        let value = |index: usize| {
            let (x, y) = ((index % row) as u32, (index / row) as u32);
            let phase = (x * 3 + y * 2 * (at as u32 + 1) + number as u32 * 5) % 256;
            (least + phase * (most - least) / 255) as u16
        };
        match &mut plane.samples {
            Samples::U8(samples) => samples.iter_mut().enumerate().for_each(|(i, s)| *s = value(i) as u8),
            Samples::U16(samples) => samples.iter_mut().enumerate().for_each(|(i, s)| *s = value(i)),
        }
    }
    picture
}

/// Encodes gradients with the given times, cut into segments of the given lengths; the last takes the rest.
pub fn encoded(settings: &EncoderSettings, times: &[i64], lengths: &[usize]) -> Vec<EncodedSegment> {
    let mut segments = Vec::new();
    let mut at = 0;
    let mut lengths = lengths.iter().copied();
    while at < times.len() {
        let end = lengths.next().map_or(times.len(), |length| (at + length).min(times.len()));
        let mut encoder = SegmentEncoder::new(settings).unwrap_or_else(|e| panic!("{e}"));
        for number in at..end {
            let duration = times.get(number + 1).map_or(1, |next| next - times[number]);
            let picture = gradient(settings.format, settings.width, settings.height, number);
            encoder.push(&picture, times[number], duration).unwrap_or_else(|e| panic!("{e}"));
        }
        segments.push(encoder.finish().unwrap_or_else(|e| panic!("{e}")));
        at = end;
    }
    segments
}

/// Joins segments with the other tracks of a source.
pub fn joined(
    blob: &Arc<Blob>,
    source: &SourceInfo,
    settings: &EncoderSettings,
    segments: Vec<EncodedSegment>,
    staged: &Path,
) -> Result<JoinReport> {
    let mut segments = segments.into_iter().map(Ok);
    let cancel = CancelToken::new();
    join(JoinRequest { blob, source, settings, segments: &mut segments, staged, cancel: &cancel })
}

/// Asserts what every packet list of a styled track promises: decode times grow and never pass presentation times.
pub fn check_decode_times(packets: &[ShownPacket], label: &str) {
    let times: Vec<(i64, i64)> = packets
        .iter()
        .filter_map(|p| Some((p.dts?, p.pts.unwrap_or_else(|| panic!("{label}: a packet has no time")))))
        .collect();
    assert!(times.windows(2).all(|pair| pair[0].0 < pair[1].0), "{label}: decode times grow: {times:?}");
    assert!(times.iter().all(|(dts, pts)| dts <= pts), "{label}: decode times pass presentation times: {times:?}");
}
