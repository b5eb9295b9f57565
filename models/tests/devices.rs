//! The network as one operation of candle on every device that answers here: one body, tolerances by precision.
//!
//! Without feature `cuda`, or where no card answers, the card's part says so and is skipped.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

use candle_core::{Device, Tensor};
use restyle_models::pixels::{Picture, PixelFormat, RgbPlanes, from_rgb, to_rgb};
use restyle_models::style::PictureShape;
use restyle_models::stylize_op::StylizeOp;
use restyle_models::{DeviceChoice, StyleWeights, StylizeOptions, build};
use std::sync::Arc;
use support::{read_npy, read_picture, shared};

mod support;

/// A device with the operation made for it, and the largest mean error it may show, as PSNR in dB to the golden output.
struct Case {
    name: &'static str,
    device: Device,
    op: StylizeOp,
    psnr_min: f64,
}

/// Says why a test is skipped, which `make check-gpu` does not accept.
fn skip(why: &str) {
    assert!(std::env::var_os("RESTYLE_NEED_CARD").is_none(), "a card is to be tested, but {why}");
    println!("skipped: {why}");
}

#[cfg(feature = "cuda")]
fn card() -> Option<Device> {
    match Device::new_cuda_with_stream(0) {
        Ok(device) => Some(device),
        Err(error) => {
            skip(&format!("no CUDA device answers: {error}"));
            None
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn card() -> Option<Device> {
    skip("built without feature cuda");
    None
}

fn cases(weights: &Arc<StyleWeights>) -> Vec<Case> {
    let op = || StylizeOp::new(weights, 2).unwrap();
    let mut cases = vec![Case { name: "cpu f32", device: Device::Cpu, op: op(), psnr_min: 80.0 }];
    if let Some(device) = card() {
        cases.extend(on_card(device, op));
    }
    cases
}

#[cfg(feature = "cuda")]
fn on_card(device: Device, op: impl Fn() -> StylizeOp) -> Vec<Case> {
    use restyle_models::cuda::Precision;
    let case =
        |name, precision, psnr_min| Case { name, device: device.clone(), op: op().with_precision(precision), psnr_min };
    vec![case("cuda f32", Precision::F32, 80.0), case("cuda bf16", Precision::Bf16, 40.0)]
}

#[cfg(not(feature = "cuda"))]
fn on_card(_: Device, _: impl Fn() -> StylizeOp) -> Vec<Case> {
    Vec::new()
}

fn tensor(rgb: &RgbPlanes, device: &Device) -> Tensor {
    Tensor::from_vec(rgb.planes.concat(), (1, 3, rgb.height, rgb.width), device).unwrap()
}

fn run(op: &StylizeOp, frames: &Tensor) -> Vec<f32> {
    frames.apply_op1_no_bwd(op).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// PSNR of values clamped to 0..255.
fn psnr(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|value| value.is_finite()));
    let squares = found.iter().zip(expected).map(|(a, b)| f64::from(a.clamp(0.0, 255.0) - b.clamp(0.0, 255.0)).powi(2));
    10.0 * (255.0f64.powi(2) * found.len() as f64 / squares.sum::<f64>().max(1e-9)).log10()
}

fn waves(width: usize, height: usize) -> RgbPlanes {
    let mut rgb = RgbPlanes::new(width, height);
    for (channel, plane) in rgb.planes.iter_mut().enumerate() {
        for (at, value) in plane.iter_mut().enumerate() {
            let (x, y) = ((at % width) as f32, (at / width) as f32);
            *value =
                127.0 + 60.0 * (x / 9.0 + channel as f32).sin() * (y / 13.0).cos() + 40.0 * ((x + y) / 150.0).sin();
        }
    }
    rgb
}

#[test]
fn golden_outputs() {
    let Some(shared) = shared() else {
        println!("skipped: no golden outputs are here; set RESTYLE_SHARED to the folder that holds them");
        return;
    };
    for (style, size) in [("candy", "160x112"), ("mosaic", "150x101"), ("udnie", "160x112")] {
        let bytes = std::fs::read(shared.join(format!("weights/transformernet/{style}.safetensors"))).unwrap();
        let weights = Arc::new(StyleWeights::load(&bytes).unwrap());
        let rgb = read_picture(&shared.join(format!("golden/input_{size}.png")));
        let (_, expected) = read_npy(&shared.join(format!("golden/transformernet_{style}_{size}.npy")));
        for case in cases(&weights) {
            let quality = psnr(&run(&case.op, &tensor(&rgb, &case.device)), &expected);
            println!("{style} {size} {}: {quality:.1} dB", case.name);
            assert!(quality >= case.psnr_min, "{style} {size} {}: {quality:.1} dB", case.name);
        }
    }
}

/// Large pictures are where index arithmetic breaks; the processor's result is what they are compared with.
#[test]
fn large_pictures_equal_the_processor() {
    let Some(device) = card() else { return };
    let weights = Arc::new(StyleWeights::load(restyle_models::shipped::ALL[0].bytes).unwrap());
    for (width, height) in [(1920, 1080), (3840, 2160)] {
        let rgb = waves(width, height);
        let expected = run(&StylizeOp::new(&weights, 8).unwrap(), &tensor(&rgb, &Device::Cpu));
        for case in on_card(device.clone(), || StylizeOp::new(&weights, 1).unwrap()) {
            let quality = psnr(&run(&case.op, &tensor(&rgb, &case.device)), &expected);
            assert!(quality >= case.psnr_min, "{width}x{height} {}: {quality:.1} dB", case.name);
        }
    }
}

/// What was in memory before has no influence: neither other pictures, nor other sizes, nor values that are no numbers.
#[test]
fn memory_that_was_used_before_does_not_show() {
    let weights = Arc::new(StyleWeights::load(restyle_models::shipped::ALL[0].bytes).unwrap());
    for case in cases(&weights) {
        let (wanted, larger) = (tensor(&waves(70, 45), &case.device), tensor(&waves(133, 90), &case.device));
        let mut poison = waves(70, 45);
        poison.planes.iter_mut().for_each(|plane| plane.fill(f32::NAN));
        let first = run(&case.op, &wanted);
        let _ = run(&case.op, &tensor(&poison, &case.device));
        let _ = run(&case.op, &larger);
        assert!(run(&case.op, &wanted) == first, "{}", case.name);
    }
}

fn painted(
    weights: &Arc<StyleWeights>,
    device: DeviceChoice,
    pictures: &[Picture],
    options: &StylizeOptions,
) -> Vec<f32> {
    let mut model = build(weights, &device, 1).unwrap();
    assert!(model.make_room(PictureShape::of(&pictures[0]), options).unwrap() >= 1);
    let painted = model.stylize(&pictures.iter().collect::<Vec<_>>(), options).unwrap();
    let mut rgb = RgbPlanes::default();
    let values = painted.iter().flat_map(|picture| {
        to_rgb(picture, &mut rgb).unwrap();
        rgb.planes.concat()
    });
    values.collect()
}

/// Whole pictures, integer planes in and out, more of them than a group holds: as many come back, in their order.
#[test]
fn pictures_equal_the_processors() {
    let weights = Arc::new(StyleWeights::load(restyle_models::shipped::ALL[0].bytes).unwrap());
    let ten = PixelFormat { bits: 10, ..PixelFormat::YUV420P8 };
    for (format, score_width) in [(PixelFormat::YUV420P8, None), (ten, None), (PixelFormat::YUV420P8, Some(96))] {
        let picture = |k: usize| {
            let mut rgb = waves(141, 77);
            rgb.planes.iter_mut().flatten().for_each(|value| *value = (*value + 9.0 * k as f32).min(255.0));
            from_rgb(&rgb, format, 141, 77).unwrap()
        };
        let pictures: Vec<Picture> = (0..11).map(picture).collect();
        let options = StylizeOptions { score_width, output: format };
        let expected = painted(&weights, DeviceChoice::Cpu, &pictures, &options);
        for device in restyle_models::device::available() {
            let quality = psnr(&painted(&weights, device, &pictures, &options), &expected);
            assert!(quality >= 40.0, "{device}, {} bits, {score_width:?}: {quality:.1} dB", format.bits);
        }
    }
}

/// Two owners of one card, each with its own stream, at the same time: no result may take anything from the other.
#[test]
fn two_streams_do_not_disturb_each_other() {
    if card().is_none() {
        return;
    }
    let weights = Arc::new(StyleWeights::load(restyle_models::shipped::ALL[0].bytes).unwrap());
    // Both are open before either captures its graph: candle opens a card without asking who is at it.
    let open = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for size in [(320, 200), (200, 320)] {
            let (weights, open) = (&weights, &open);
            scope.spawn(move || {
                let case = cases(weights).pop().unwrap();
                assert!(case.name.starts_with("cuda"), "the card's case is the last");
                open.wait();
                let frames = tensor(&waves(size.0, size.1), &case.device);
                let first = run(&case.op, &frames);
                for turn in 0..200 {
                    assert!(run(&case.op, &frames) == first, "{size:?}, turn {turn}");
                }
            });
        }
    });
}
