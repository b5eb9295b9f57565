//! Decides whether a style may run in reduced precision on a clip, by frames of that clip.

use crate::ModelError;
use crate::kernels::Isa;
use crate::pixels::{Picture, RgbPlanes, Samples};
use crate::ranges::Ranges;
use crate::style::ScoredPlanes;
use crate::transform_net::TransformNet;
use crate::weights::StyleWeights;
use serde::{Deserialize, Serialize};

/// The least PSNR in decibels, over the range 0..255 and the worst frame, with which reduced precision is accepted.
pub const PSNR_MIN: f64 = 40.0;

/// Luma that deviates less than this, of its range, is a flat picture.
const DEVIATION_MIN: f64 = 0.01;

/// What a calibration found. All who score a job must use the same one: its pictures depend on every number in here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Whether reduced precision is good enough.
    pub accepted: bool,
    /// PSNR in decibels of the worst frame against full precision; `None` where they are equal or there was no frame.
    pub psnr_db: Option<f64>,
    /// How many frames were compared.
    pub frames: usize,
    /// What the layers took in.
    pub ranges: Ranges,
}

impl Calibration {
    /// Returns the ranges to score with; `None` asks for full precision.
    #[must_use]
    pub fn ranges(&self) -> Option<&Ranges> {
        self.accepted.then_some(&self.ranges)
    }
}

/// Tells whether a picture says something about ranges: instance norm makes the same of every contrast, except of none.
#[must_use]
pub fn has_texture(picture: &Picture) -> bool {
    let Some(plane) = picture.planes.first() else { return false };
    let variance = match &plane.samples {
        Samples::U8(samples) => variance(samples.iter().map(|&value| f64::from(value) / 255.0)),
        Samples::U16(samples) => {
            let most = f64::from((1u32 << picture.format.bits) - 1);
            variance(samples.iter().map(|&value| f64::from(value) / most))
        }
    };
    variance > DEVIATION_MIN * DEVIATION_MIN
}

fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let add = |(sum, squares, count), value| (sum + value, squares + value * value, count + 1.0);
    let (sum, squares, count) = values.fold((0.0, 0.0, 0.0), add);
    let mean = sum / count;
    squares / count - mean * mean
}

/// Scores pictures in full precision while it notes ranges, then in reduced precision, and compares; `None` once `go_on`,
/// which is asked between pictures, says no.
///
/// Blocks for two to three times as long as scoring the pictures takes. Pictures without texture are passed over: they
/// would be called equal whatever the ranges. Where none is left nothing is accepted. The result depends on neither threads
/// nor the order of the pictures.
///
/// # Errors
/// `Picture` and `Options` as in [`crate::StyleModel::stylize`], `Weights` and `Device` as in [`crate::build`].
pub fn calibrate(
    weights: &StyleWeights,
    threads: usize,
    pictures: &[Picture],
    score_width: Option<u32>,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Calibration>, ModelError> {
    let pictures: Vec<&Picture> = pictures.iter().filter(|picture| has_texture(picture)).collect();
    let isa = Isa::detect();
    let mut scored = ScoredPlanes::default();
    let mut ranges = Ranges::default();
    let mut full = TransformNet::with_isa(weights, threads, isa)?;
    let mut expected = Vec::new();
    for picture in &pictures {
        if !go_on() {
            return Ok(None);
        }
        let mut out = RgbPlanes::default();
        full.observe(scored.of(picture, score_width)?, &mut out, &mut ranges);
        expected.push(out);
    }
    drop(full);
    if pictures.is_empty() {
        return Ok(Some(Calibration { accepted: false, psnr_db: None, frames: 0, ranges }));
    }
    let mut reduced = TransformNet::with_ranges(weights, threads, isa, Some(&ranges))?;
    let (mut found, mut out) = (Vec::new(), RgbPlanes::default());
    for (picture, expected) in pictures.iter().zip(&expected) {
        if !go_on() {
            return Ok(None);
        }
        reduced.forward(scored.of(picture, score_width)?, &mut out);
        found.push(psnr_db(expected, &out));
    }
    let (accepted, psnr_db) = verdict(&found);
    Ok(Some(Calibration { accepted, psnr_db, frames: pictures.len(), ranges }))
}

/// Whether every frame is close enough, and the worst of those that can be told; what is no number refuses.
fn verdict(found: &[f64]) -> (bool, Option<f64>) {
    let worst = found.iter().copied().fold(f64::INFINITY, f64::min);
    (found.iter().all(|&psnr| psnr >= PSNR_MIN), worst.is_finite().then_some(worst))
}

/// Compares planes on 0..255, limited as they are when they become pictures; infinite where they are equal.
fn psnr_db(a: &RgbPlanes, b: &RgbPlanes) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for (a, b) in a.planes.iter().zip(&b.planes) {
        for (a, b) in a.iter().zip(b) {
            sum += f64::from(a.clamp(0.0, 255.0) - b.clamp(0.0, 255.0)).powi(2);
        }
        count += a.len();
    }
    10.0 * (255.0f64.powi(2) * count as f64 / sum).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::{PixelFormat, from_rgb};
    use crate::testkit::{Seeded, random_tensors, random_weights, serialize};
    use crate::weights::NetShape;

    fn picture(seed: u64) -> Picture {
        let mut random = Seeded(seed);
        let mut rgb = RgbPlanes::new(72, 56);
        for plane in &mut rgb.planes {
            plane.iter_mut().for_each(|value| *value = 127.0 + 100.0 * random.next_f32());
        }
        from_rgb(&rgb, PixelFormat::YUV420P8, 72, 56).unwrap()
    }

    fn weights() -> StyleWeights {
        random_weights(&NetShape { down: [8, 11, 16], blocks: 2, up: [12, 8] }, 7)
    }

    fn found(weights: &StyleWeights, threads: usize, pictures: &[Picture], width: Option<u32>) -> Calibration {
        calibrate(weights, threads, pictures, width, &|| true).unwrap().unwrap()
    }

    #[test]
    fn ordinary_frames_pass_the_gate_and_the_record_is_read_back_the_same() {
        let found = found(&weights(), 1, &[picture(1), picture(2)], None);
        assert!(found.accepted && found.ranges().is_some(), "{:?}", found.psnr_db);
        assert!(found.psnr_db.is_some_and(|psnr| psnr < 200.0), "something was rounded");
        let text = serde_json::to_string(&found).unwrap();
        let read: Calibration = serde_json::from_str(&text).unwrap();
        assert_eq!(read.ranges, found.ranges);
        assert_eq!(read.accepted, found.accepted);
    }

    #[test]
    fn neither_threads_nor_order_change_what_is_found() {
        let alone = found(&weights(), 1, &[picture(1), picture(2)], Some(48));
        assert_eq!(found(&weights(), 3, &[picture(2), picture(1)], Some(48)), alone);
    }

    #[test]
    fn without_frames_that_show_something_nothing_is_accepted() {
        assert!(found(&weights(), 1, &[], None).ranges().is_none());
        let mut grey = RgbPlanes::new(72, 56);
        grey.planes.iter_mut().for_each(|plane| plane.fill(99.0));
        let flat = |format| from_rgb(&grey, format, 72, 56).unwrap();
        for format in [PixelFormat::YUV420P8, PixelFormat { bits: 10, ..PixelFormat::YUV420P8 }] {
            assert!(!has_texture(&flat(format)));
            let refused = found(&weights(), 1, &[flat(format)], None);
            assert!((refused.accepted, refused.frames) == (false, 0));
        }
        let mixed = found(&weights(), 1, &[flat(PixelFormat::YUV420P8), picture(1)], None);
        assert_eq!(mixed, found(&weights(), 1, &[picture(1)], None), "a flat frame has no say");
    }

    #[test]
    fn it_ends_when_told_and_what_is_no_number_refuses() {
        assert!(calibrate(&weights(), 1, &[picture(1)], None, &|| false).unwrap().is_none());
        assert_eq!(verdict(&[50.0, f64::NAN]), (false, Some(50.0)));
        assert_eq!(verdict(&[f64::NAN]), (false, None));
        assert_eq!(verdict(&[f64::INFINITY]), (true, None));
        assert_eq!(verdict(&[50.0, 39.9]), (false, Some(39.9)));
    }

    #[test]
    fn ranges_of_another_network_are_refused() {
        let found = found(&weights(), 1, &[picture(1)], None);
        let other = random_weights(&NetShape { down: [8, 11, 16], blocks: 3, up: [12, 8] }, 7);
        let refused = TransformNet::with_ranges(&other, 1, Isa::detect(), Some(&found.ranges));
        assert!(refused.err().is_some_and(|error| error.to_string().contains("calibrate again")));
        let text = serde_json::to_string(&found.ranges).unwrap().replacen("[[", "[[-1e3,", 1).replacen(",", ",1e9,", 1);
        let odd: Ranges = serde_json::from_str(&text).unwrap();
        assert!(TransformNet::with_ranges(&weights(), 1, Isa::detect(), Some(&odd)).is_err());
    }

    #[test]
    fn frames_are_compared_as_they_are_seen() {
        let mut planes = (RgbPlanes::new(4, 4), RgbPlanes::new(4, 4));
        assert_eq!(psnr_db(&planes.0, &planes.0), f64::INFINITY);
        planes.1.planes[0].fill(3.0);
        assert!((psnr_db(&planes.0, &planes.1) - 43.36).abs() < 0.01, "a mean square of 3");
        planes.1.planes[0].fill(-900.0);
        assert_eq!(psnr_db(&planes.0, &planes.1), f64::INFINITY, "both are black");
        planes.1.planes[0].fill(f32::NAN);
        assert!(psnr_db(&planes.0, &planes.1).is_nan());
    }

    /// Multiplies one channel by a hundred thousand before the second convolution and divides its weights by as much:
    /// the same network in full precision, while in integers the other channels vanish beside this one.
    fn lopsided() -> StyleWeights {
        let shape = NetShape { down: [8, 11, 16], blocks: 2, up: [12, 8] };
        let mut tensors = random_tensors(&shape, 7);
        let mut scale = |name: &str, pick: fn(usize) -> bool, factor: f32| {
            let (_, bytes) = tensors.get_mut(name).unwrap();
            for (_, value) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate().filter(|(at, _)| pick(*at)) {
                *value = (f32::from_le_bytes(*value) * factor).to_le_bytes();
            }
        };
        scale("in1.weight", |at| at == 0, 1e5);
        scale("in1.bias", |at| at == 0, 1e5);
        scale("conv2.conv2d.weight", |at| at / 9 % 8 == 0, 1e-5);
        // Colours that show: random weights paint nearly black.
        scale("deconv3.conv2d.weight", |_| true, 60.0);
        StyleWeights::load(&serialize(&tensors, safetensors::Dtype::F32)).unwrap()
    }

    #[test]
    fn a_network_that_loses_too_much_is_refused() {
        let found = found(&lopsided(), 1, &[picture(1)], None);
        assert!(found.ranges().is_none() && found.psnr_db.is_some_and(|psnr| psnr < PSNR_MIN), "{:?}", found.psnr_db);
    }
}
