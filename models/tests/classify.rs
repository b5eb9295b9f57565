//! SqueezeNet against what ONNX Runtime computed from the same weights.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

use restyle_models::pixels::{Picture, PixelFormat, RgbPlanes, from_rgb};
use restyle_models::squeeze_net::SqueezeNet;
use std::path::{Path, PathBuf};

/// Side of the pictures, the one that the network sees: resizing has no part in the numbers.
const SIDE: usize = 224;
/// Sums in another order; measured below 0.00002.
const TOLERANCE: f32 = 0.0001;

fn weights() -> Option<Vec<u8>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("RESTYLE_SHARED").map_or(beside, PathBuf::from);
    let path = folder.join("weights/squeezenet11/squeezenet1_1_caffe_bgr_fp16.safetensors");
    let found = std::fs::read(&path).ok();
    if found.is_none() {
        println!("skipped: {} is not there; set RESTYLE_SHARED", path.display());
    }
    found
}

fn picture(colour: impl Fn(usize, usize) -> [usize; 3]) -> Picture {
    let mut rgb = RgbPlanes::new(SIDE, SIDE);
    for at in 0..SIDE * SIDE {
        let colour = colour(at % SIDE, at / SIDE);
        for (plane, value) in rgb.planes.iter_mut().zip(colour) {
            plane[at] = value as f32;
        }
    }
    from_rgb(&rgb, PixelFormat::RGB8, SIDE as u32, SIDE as u32).unwrap()
}

/// Red and green squares, and blue stripes across.
fn squares(x: usize, y: usize) -> [usize; 3] {
    [x / 14 % 2 * 255, y / 14 % 2 * 255, (x + y) % 256]
}

/// A ball with a spot, on blue.
fn ball(x: usize, y: usize) -> [usize; 3] {
    let square = x.abs_diff(112).pow(2) + y.abs_diff(112).pow(2);
    let green = if square < 50 * 50 { 40 } else { 120 };
    if square < 80 * 80 { [230, green, x * 255 / 224] } else { [20, green, 200] }
}

/// Classes and probabilities: ONNX Runtime 1.31.1 (CPU, optimisations off) on the graph `SqueezeNet_fp16.onnx` that the weights come
/// from, its weights widened to single precision by onnx 1.23.2, on the same formulas in numpy 2.4.6, BGR less the means.
#[test]
fn the_classes_are_those_of_onnx_runtime() {
    let Some(weights) = weights() else { return };
    let mut net = SqueezeNet::load(&weights).unwrap();
    let mut check = |picture: &Picture, expected: [(usize, f32); 5]| {
        let found = net.classify(picture, 5).unwrap();
        for (label, (class, probability)) in found.iter().zip(expected) {
            assert_eq!(label.class, class, "{found:?}");
            assert!((label.probability - probability).abs() < TOLERANCE, "expected {probability}: {label:?}");
        }
        assert_eq!(found.len(), 5);
    };
    let as_squares = [(828, 0.732_827), (716, 0.029_740), (811, 0.024_601), (794, 0.018_362), (315, 0.014_627)];
    check(&picture(squares), as_squares);
    let as_ball = [(417, 0.606_548), (722, 0.110_724), (920, 0.056_225), (463, 0.043_871), (647, 0.012_936)];
    check(&picture(ball), as_ball);
}
