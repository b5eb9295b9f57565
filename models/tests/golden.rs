//! The published styles against reference outputs that ONNX Runtime 1.31.1 computed in f32 from the same weights.
//!
//! `golden/*.npy` are raw outputs, not clamped; the inputs are the pictures beside them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

use restyle_models::calibrate::PSNR_MIN;
use restyle_models::kernels::Isa;
use restyle_models::pixels::RgbPlanes;
use restyle_models::ranges::Ranges;
use restyle_models::transform_net::TransformNet;
use restyle_models::weights::StyleWeights;
use support::{read_npy, read_picture, shared};

mod support;

/// Largest error allowed, on the scale 0..255.
const TOLERANCE: f32 = 0.05;

fn check(style: &str, size: &str) {
    let Some(shared) = shared() else {
        println!("skipped: no golden outputs; set RESTYLE_SHARED to the folder that holds them");
        return;
    };
    let bytes = std::fs::read(shared.join(format!("weights/transformernet/{style}.safetensors"))).unwrap();
    let weights = StyleWeights::load(&bytes).unwrap();
    let rgb = read_picture(&shared.join(format!("golden/input_{size}.png")));
    let (dims, expected) = read_npy(&shared.join(format!("golden/transformernet_{style}_{size}.npy")));
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut net = TransformNet::with_isa(&weights, threads, isa).unwrap();
            let mut out = RgbPlanes::default();
            net.forward(&rgb, &mut out);
            assert_eq!(dims, [1, 3, out.height, out.width]);
            let found = out.planes.concat();
            let errors = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
            let worst =
                errors.fold(0.0, |worst: f32, error| if error > worst || error.is_nan() { error } else { worst });
            println!("{style} {size} {isa}, {threads} threads: largest error {worst:.5}");
            assert!(worst <= TOLERANCE, "{style} {size} {isa}: largest error {worst}");
        }
        let psnr = psnr_db(&reduced(&weights, isa, &rgb).planes.concat(), &expected);
        println!("{style} {size} {isa}, reduced: {psnr:.1} dB");
        assert!(psnr >= PSNR_MIN, "{style} {size} {isa}, reduced: {psnr} dB");
    }
}

/// In reduced precision, with what was seen on the picture upside down.
fn reduced(weights: &StyleWeights, isa: Isa, rgb: &RgbPlanes) -> RgbPlanes {
    let (mut turned, mut out, mut ranges) = (rgb.clone(), RgbPlanes::default(), Ranges::default());
    turned.planes.iter_mut().for_each(|plane| plane.reverse());
    TransformNet::with_isa(weights, 2, isa).unwrap().observe(&turned, &mut out, &mut ranges);
    TransformNet::with_ranges(weights, 2, isa, Some(&ranges)).unwrap().forward(rgb, &mut out);
    out
}

/// Of outputs limited to 0..255, as pictures are.
fn psnr_db(found: &[f32], expected: &[f32]) -> f64 {
    let limited = |value: &f32| f64::from(value.clamp(0.0, 255.0));
    let squares: f64 = found.iter().zip(expected).map(|(a, b)| (limited(a) - limited(b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * found.len() as f64 / squares).log10()
}

#[test]
fn candy() {
    check("candy", "160x112");
}

#[test]
fn mosaic() {
    check("mosaic", "160x112");
}

#[test]
fn mosaic_at_an_odd_size() {
    check("mosaic", "150x101");
}

#[test]
fn pointilism() {
    check("pointilism", "160x112");
}

#[test]
fn rain_princess() {
    check("rain_princess", "160x112");
}

#[test]
fn udnie() {
    check("udnie", "160x112");
}
