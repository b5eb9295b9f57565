//! Ruined files of every container: no panic, no endless work, one line of reason.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use restyle_actors::storage::MemoryStore;
use restyle_actors::{Blob, DecodeOptions, FrameDecoder, probe};
use support::{clips, generate};

/// Frames and errors after which a decode of a tiny clip is certainly endless.
const STEPS_MAX: usize = 3_000;

/// One way to ruin a file.
#[derive(Debug, Clone)]
enum Ruin {
    /// Overwrite bytes at a place given in millionths of the length.
    Write(u32, Vec<u8>),
    /// Cut off behind a place.
    Cut(u32),
    /// Take a stretch out.
    Remove(u32, u16),
    /// Put a stretch in twice.
    Repeat(u32, u16),
}

fn place(bytes: &[u8], millionths: u32) -> usize {
    (bytes.len() as u64 * u64::from(millionths) / 1_000_000) as usize
}

fn ruin(bytes: &mut Vec<u8>, how: &Ruin) {
    match how {
        Ruin::Write(at, new) => {
            let at = place(bytes, *at);
            bytes[at..].iter_mut().zip(new).for_each(|(old, new)| *old = *new);
        }
        Ruin::Cut(at) => bytes.truncate(place(bytes, *at)),
        Ruin::Remove(at, count) => {
            let at = place(bytes, *at);
            let end = (at + usize::from(*count)).min(bytes.len());
            bytes.drain(at..end);
        }
        Ruin::Repeat(at, count) => {
            let at = place(bytes, *at);
            let end = (at + usize::from(*count)).min(bytes.len());
            let stretch = bytes[at..end].to_vec();
            bytes.splice(at..at, stretch);
        }
    }
}

/// Places near the front are likelier: headers and indices lie there.
fn places() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..20_000, 0u32..1_000_000, 900_000u32..1_000_000]
}

fn ruins() -> impl Strategy<Value = Vec<Ruin>> {
    let one = prop_oneof![
        6 => (places(), proptest::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, new)| Ruin::Write(at, new)),
        1 => places().prop_map(Ruin::Cut),
        1 => (places(), 1u16..2000).prop_map(|(at, count)| Ruin::Remove(at, count)),
        1 => (places(), 1u16..2000).prop_map(|(at, count)| Ruin::Repeat(at, count)),
    ];
    proptest::collection::vec(one, 1..6)
}

/// Probes and decodes to the end, with and without concealment, and resumes once.
fn survive(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let store = MemoryStore::new().expect("a store");
    store.put("input", bytes).expect("put");
    let Ok(blob) = Blob::open(&store.location("input")).map(Arc::new) else { return Ok(()) };
    let info = match probe(&blob) {
        Ok(info) => info,
        Err(error) => {
            let message = error.to_string();
            prop_assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
            return Ok(());
        }
    };
    for conceal in [false, true] {
        let options = DecodeOptions { conceal, ..DecodeOptions::default() };
        let Ok(mut decoder) = FrameDecoder::open(blob.clone(), &info, options) else { continue };
        let (mut last_pts, mut anchor, mut steps) = (None, None, 0);
        loop {
            steps += 1;
            prop_assert!(steps < STEPS_MAX, "endless");
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    frame.picture.validate().expect("a picture in order");
                    prop_assert!(last_pts.is_none_or(|last| last < frame.pts), "timestamps grow");
                    last_pts = Some(frame.pts);
                    anchor = Some(frame.anchor()).filter(|a| a.index == 7).or(anchor);
                }
                Ok(None) => break,
                Err(error) if error.frames().is_empty() => break,
                Err(error) => prop_assert!(!conceal, "damage while concealing: {error}"),
            }
        }
        if let Some(anchor) = anchor {
            let _ = decoder.resume_after(anchor);
        }
    }
    Ok(())
}

/// `RESTYLE_FUZZ_FACTOR=50` makes 50 times as many cases; the first ones are always the same.
fn check(name: &str, path: &Path, cases: u32) {
    let factor: u32 = std::env::var("RESTYLE_FUZZ_FACTOR").ok().and_then(|f| f.parse().ok()).unwrap_or(1);
    let cases = cases.saturating_mul(factor);
    let whole = std::fs::read(path).expect("read");
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let seed = *blake3_of(name).as_bytes();
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    runner
        .run(&ruins(), |how| {
            let mut bytes = whole.clone();
            how.iter().for_each(|one| ruin(&mut bytes, one));
            survive(bytes)
        })
        .unwrap_or_else(|e| panic!("{name}: {e}"));
}

fn blake3_of(name: &str) -> blake3::Hash {
    blake3::hash(name.as_bytes())
}

/// Tiny clips of every container and several codecs.
fn tiny_clips(folder: &Path) -> Vec<(String, PathBuf)> {
    let source = "-f lavfi -i testsrc2=s=64x64:r=10:d=1.2 -f lavfi -i sine=d=1.2 -pix_fmt yuv420p -threads 1";
    let kinds = [
        ("h264.mp4", "-c:v libx264 -g 6 -bf 2 -c:a aac"),
        ("fragments.mp4", "-c:v libx264 -g 6 -movflags frag_keyframe+empty_moov -c:a aac"),
        ("h264.mkv", "-c:v libx264 -g 6 -bf 2 -c:a flac"),
        ("h264.ts", "-c:v libx264 -g 6 -bf 2 -c:a mp2"),
        ("mpeg4.avi", "-c:v mpeg4 -bf 2 -g 6 -c:a mp2"),
        ("mpeg2.mpg", "-c:v mpeg2video -r 25 -g 6 -bf 2 -flags +ilme+ildct -c:a mp2"),
        ("flv.flv", "-c:v flv -c:a mp3 -ar 44100"),
        ("theora.ogg", "-c:v libtheora -an"),
        ("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -an"),
        ("raw.nut", "-c:v rawvideo -pix_fmt pal8 -an"),
        ("anim.gif", "-c:v gif -an"),
        ("hevc.mp4", "-c:v libx265 -x265-params log-level=error:pools=none:frame-threads=1 -an"),
        ("ffv1.mkv", "-c:v ffv1 -an"),
        ("wmv.asf", "-c:v wmv2 -an"),
        ("mpeg2.mxf", "-c:v mpeg2video -r 25 -an"),
    ];
    let made = kinds.into_iter().map(|(name, codec)| (name, generate(folder, name, &format!("{source} {codec}"))));
    made.filter_map(|(name, path)| path.map(|path| (name.to_owned(), path))).collect()
}

#[test]
fn ruined_tiny_clips_never_panic_and_always_end() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, path) in tiny_clips(folder.path()) {
        check(&name, &path, 24);
    }
}

#[test]
fn ruined_real_clips_never_panic_and_always_end() {
    let Some(clips) = clips() else { return };
    for name in ["bear-vp9-161x121.webm", "hevc-main10-200x200.mp4"] {
        check(name, &clips.join(name), 12);
    }
}
