//! What the tests of this crate share: where the data lies, clips made on the spot, whole decodes.
#![allow(dead_code, unreachable_pub, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use restyle_actors::{Blob, DecodeOptions, DecodedFrame, FrameDecoder, Location, SourceInfo, probe};

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

/// Reads the frame counts that the manifest states: file name and frames, the refused ones (0 frames) left out.
pub fn manifest_frames(clips: &Path) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(clips.join("../MANIFEST.md")).expect("manifest beside the clips");
    let section = text.split("## media-dev/").nth(1).expect("section of the clips");
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| file"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells[1].to_owned(), cells[4].parse().expect("a frame count"))
    })
    .filter(|(_, frames)| *frames > 0)
    .collect()
}

/// Runs the ffmpeg command; says so and returns false where there is none.
///
/// # Panics
/// When it fails.
pub fn ffmpeg(arguments: &[&str]) -> bool {
    let run = Command::new("ffmpeg").args(["-v", "error", "-nostdin", "-y"]).args(arguments).output();
    match run {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "ffmpeg {arguments:?} failed: {errors}");
            true
        }
        Err(error) => {
            eprintln!("skipped: no ffmpeg command ({error})");
            false
        }
    }
}

/// Runs a command and returns its output, or nothing where it is not installed.
pub fn output_of(program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let run = Command::new(program).args(arguments).output();
    if run.is_err() {
        eprintln!("skipped: no {program} command");
    }
    run.ok().map(|output| output.stdout)
}

/// Makes a clip with `ffmpeg ARGUMENTS FOLDER/NAME`.
pub fn generate(folder: &Path, name: &str, arguments: &str) -> Option<PathBuf> {
    let path = folder.join(name);
    let mut words: Vec<&str> = arguments.split_whitespace().collect();
    words.push(path.to_str().expect("unicode path"));
    ffmpeg(&words).then_some(path)
}

/// Opens a local file.
///
/// # Panics
/// When that fails.
pub fn open(path: &Path) -> Arc<Blob> {
    Arc::new(Blob::open(&Location::File(path.to_owned())).unwrap_or_else(|e| panic!("{e}")))
}

/// Opens and probes a local file.
///
/// # Panics
/// When that fails.
pub fn open_and_probe(path: &Path) -> (Arc<Blob>, SourceInfo) {
    let blob = open(path);
    let info = probe(&blob).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (blob, info)
}

/// A decoder at the beginning of a local file.
///
/// # Panics
/// When that fails.
pub fn decoder(path: &Path, conceal: bool) -> FrameDecoder {
    let (blob, info) = open_and_probe(path);
    let options = DecodeOptions { conceal, ..DecodeOptions::default() };
    FrameDecoder::open(blob, &info, options).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Everything of a frame but its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub index: u64,
    pub pts: i64,
    pub hash: u128,
}

impl Seen {
    pub fn of(frame: &DecodedFrame) -> Self {
        Self { index: frame.index, pts: frame.pts, hash: frame.hash }
    }
}

/// Decodes what is left.
///
/// # Panics
/// When that fails.
pub fn rest(decoder: &mut FrameDecoder) -> Vec<Seen> {
    let mut seen = Vec::new();
    while let Some(frame) = decoder.next_frame().unwrap_or_else(|e| panic!("{e}")) {
        seen.push(Seen::of(&frame));
    }
    seen
}
