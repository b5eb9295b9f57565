//! What the decoder hands on: one picture with its place in time.
//!
//! The hash is what makes resuming inside a source safe: it is recorded with every finished segment and must be
//! reproduced before decoding goes on from the middle. It must never depend on the machine's byte order.

use restyle_models::pixels::{Picture, PixelFormat, Samples};
use xxhash_rust::xxh3::Xxh3;

/// One decoded frame, ready to be scored.
///
/// The picture is planar, upright (rotation applied) and progressive. `pts` counts in the video stream's time base and
/// grows strictly from frame to frame.
#[derive(Debug, Clone)]
pub struct DecodedFrame {
    /// Global index, counted from the first frame that is delivered.
    pub index: u64,
    /// Presentation time in ticks of the stream's time base.
    pub pts: i64,
    /// How long the frame is shown, in the same ticks; an estimate from the frame rate where the file does not say.
    pub duration: i64,
    /// 128-bit hash of the picture; see [`picture_hash`].
    pub hash: u128,
    /// The picture.
    pub picture: Picture,
    /// Why this picture repeats another, where the real one was damaged and concealment was asked for.
    pub concealed: Option<String>,
}

/// The frame after which decoding goes on: the last one of the segment before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Anchor {
    /// Global index of that frame; the next one delivered has `index + 1`.
    pub index: u64,
    /// Its presentation time.
    pub pts: i64,
    /// Its picture's hash.
    pub hash: u128,
}

impl DecodedFrame {
    /// Returns the anchor with which decoding can be taken up behind this frame.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        Anchor { index: self.index, pts: self.pts, hash: self.hash }
    }
}

/// Hashes a picture with xxh3-128: format, size, then the samples of every plane, 16-bit ones little endian.
///
/// Equal pictures have equal hashes on every machine; it is no defence against an adversary.
#[must_use]
pub fn picture_hash(picture: &Picture) -> u128 {
    let mut state = Xxh3::new();
    state.update(&format_bytes(&picture.format));
    state.update(&picture.width.to_le_bytes());
    state.update(&picture.height.to_le_bytes());
    let mut bytes = Vec::new();
    for plane in &picture.planes {
        match &plane.samples {
            Samples::U8(samples) => state.update(samples),
            Samples::U16(samples) => {
                for chunk in samples.chunks(4096) {
                    bytes.clear();
                    bytes.extend(chunk.iter().flat_map(|sample| sample.to_le_bytes()));
                    state.update(&bytes);
                }
            }
        }
    }
    state.digest128()
}

/// Spells a format out in bytes that do not change when the types are reordered.
fn format_bytes(format: &PixelFormat) -> Vec<u8> {
    format!("{:?}/{}/{:?}/{:?}/{:?}", format.layout, format.bits, format.range, format.matrix, format.site).into_bytes()
}
