//! Damaged sources: named or concealed, never passed off as good, never endless.

mod support;

use std::path::{Path, PathBuf};

use restyle_actors::{ActorError, Anchor, ErrorKind};
use support::{clips, decoder, generate, output_of, rest};

/// Position and size of every packet of the first video stream.
fn packets(path: &Path) -> Vec<(usize, usize)> {
    let arguments = [
        "-v",
        "quiet",
        "-select_streams",
        "v:0",
        "-show_entries",
        "packet=pos,size",
        "-of",
        "csv=p=0",
        path.to_str().expect("unicode path"),
    ];
    let text = String::from_utf8(output_of("ffprobe", &arguments).expect("ffprobe")).expect("ascii");
    let number = |cell: Option<&str>| cell.and_then(|cell| cell.trim().parse().ok());
    text.lines()
        .filter_map(|line| {
            let mut cells = line.split(',');
            let size = number(cells.next())?;
            Some((number(cells.next())?, size))
        })
        .collect()
}

/// Makes a film of 60 frames and ruins packet `packet`.
///
/// H.264 is ruined from its first byte on: entropy-coded noise behind an intact header decodes to wrong pixels that no
/// decoder can tell from right ones.
fn ruined(folder: &Path, codec: &str, packet: usize) -> Option<(PathBuf, PathBuf)> {
    let source = format!("-f lavfi -i testsrc2=s=160x120:r=25 -frames:v 60 -pix_fmt yuv420p -threads 1 {codec}");
    let good = generate(folder, "good.mp4", &source)?;
    let mut bytes = std::fs::read(&good).expect("read");
    let (at, size) = packets(&good)[packet];
    let intact = if codec.contains("264") { 0 } else { size / 4 };
    bytes[at + intact..at + size].iter_mut().enumerate().for_each(|(i, b)| *b = (i * 37) as u8);
    let bad = folder.join("bad.mp4");
    std::fs::write(&bad, bytes).expect("written");
    Some((good, bad))
}

fn first_error(path: &Path) -> ActorError {
    let mut decoder = decoder(path, false);
    loop {
        match decoder.next_frame() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("{} decoded without a word", path.display()),
            Err(error) => return error,
        }
    }
}

#[test]
fn a_ruined_packet_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for codec in ["-c:v libx264 -g 250 -bf 0", "-c:v libx264 -g 12 -bf 2", "-c:v mpeg4 -g 12"] {
        let Some((_, bad)) = ruined(folder.path(), codec, 30) else { return };
        let error = first_error(&bad);
        assert_eq!(error.kind(), ErrorKind::Damaged, "{codec}: {error}");
        assert!(matches!(error.frames(), [28..=33]), "{codec}: {:?} {error}", error.frames());
        assert!(error.to_string().contains("--conceal"), "{error}");
    }
}

#[test]
fn concealment_keeps_count_and_timestamps() {
    let folder = tempfile::tempdir().expect("a folder");
    for codec in ["-c:v libx264 -g 250 -bf 0", "-c:v libx264 -g 12 -bf 2", "-c:v mpeg4 -g 12"] {
        let Some((good, bad)) = ruined(folder.path(), codec, 30) else { return };
        let expected: Vec<i64> = rest(&mut decoder(&good, false)).into_iter().map(|f| f.pts).collect();
        let mut decoder = decoder(&bad, true);
        let (mut pts, mut concealed, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(frame) = decoder.next_frame().unwrap_or_else(|e| panic!("{codec}: {e}")) {
            if frame.concealed.is_some() {
                concealed.push(frame.index as usize);
            }
            pts.push(frame.pts);
            hashes.push(frame.hash);
        }
        assert_eq!(pts, expected, "{codec}");
        assert!(!concealed.is_empty(), "{codec}");
        for index in concealed {
            assert_eq!(hashes[index], hashes[index - 1], "{codec}: frame {index} repeats the one before");
        }
    }
}

#[test]
fn a_concealed_film_resumes_to_the_same_frames() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((_, bad)) = ruined(folder.path(), "-c:v libx264 -g 12 -bf 2", 30) else { return };
    let mut decoder = decoder(&bad, true);
    let whole = rest(&mut decoder);
    for place in [0, 20, 27, 28, 29, 30, 31, 32, 40, 59] {
        let at = whole[place];
        decoder.resume_after(Anchor { index: at.index, pts: at.pts, hash: at.hash }).expect("resumed");
        assert_eq!(rest(&mut decoder), whole[place + 1..], "behind frame {place}");
    }
}

#[test]
fn a_stream_without_a_first_key_frame_gives_its_good_frames() {
    let Some(clips) = clips() else { return };
    let mut decoder = decoder(&clips.join("broken-no-initial-keyframe.ts"), false);
    assert_eq!(rest(&mut decoder).len(), 15);
    let warnings = decoder.take_warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("before the first good one"), "{warnings:?}");
    assert!(decoder.take_warnings().is_empty(), "said once");
}

#[test]
fn a_lost_transport_packet_is_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let source =
        "-f lavfi -i testsrc2=s=320x240:r=25 -frames:v 60 -pix_fmt yuv420p -threads 1 -c:v libx264 -g 12 -bf 0 -b:v 2M";
    let Some(good) = generate(folder.path(), "good.ts", source) else { return };
    let mut bytes = std::fs::read(&good).expect("read");
    let middle = bytes.len() / 2 / 188 * 188;
    bytes.drain(middle..middle + 188);
    let bad = folder.path().join("bad.ts");
    std::fs::write(&bad, bytes).expect("written");
    let error = first_error(&bad);
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(matches!(error.frames(), [15..=45]), "{error}");
    assert_eq!(rest(&mut decoder(&bad, true)).len(), 60);
}

#[test]
fn a_film_cut_short_with_its_index_in_front_is_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let source =
        "-f lavfi -i testsrc2=s=160x120:r=25 -frames:v 60 -pix_fmt yuv420p -threads 1 -c:v libx264 -movflags faststart";
    let Some(good) = generate(folder.path(), "good.mp4", source) else { return };
    let bytes = std::fs::read(&good).expect("read");
    let bad = folder.path().join("bad.mp4");
    std::fs::write(&bad, &bytes[..bytes.len() * 7 / 10]).expect("written");
    let error = first_error(&bad);
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}
