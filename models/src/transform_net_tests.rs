//! The whole network against candle, on every instruction set, with random weights of odd widths.

use super::*;
use crate::oracle;
use crate::testkit::{Seeded, random_weights};
use crate::weights::NetShape;
use candle_core::{Device, Tensor};
use proptest::prelude::*;

fn random_rgb(seed: u64, width: usize, height: usize) -> RgbPlanes {
    let mut random = Seeded(seed);
    let plane = |random: &mut Seeded| random.values(width * height).iter().map(|v| 127.5 + 127.5 * v).collect();
    RgbPlanes { width, height, planes: [plane(&mut random), plane(&mut random), plane(&mut random)] }
}

fn by_candle(weights: &StyleWeights, rgb: &RgbPlanes) -> Vec<f32> {
    let frames = Tensor::from_vec(rgb.planes.concat(), (1, 3, rgb.height, rgb.width), &Device::Cpu).unwrap();
    oracle::forward(weights, &frames).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn check(shape: NetShape, width: usize, height: usize, seed: u64) {
    let weights = random_weights(&shape, seed);
    let rgb = random_rgb(seed, width, height);
    let expected = by_candle(&weights, &rgb);
    let rms = (expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32).sqrt();
    for isa in Isa::available() {
        let mut net = TransformNet::with_isa(&weights, 2, isa).unwrap();
        let mut out = RgbPlanes::default();
        net.forward(&rgb, &mut out);
        assert_eq!((out.width, out.height), TransformNet::output_size(width, height));
        let found = out.planes.concat();
        assert_eq!(found.len(), expected.len());
        for (at, (value, wanted)) in found.iter().zip(&expected).enumerate() {
            let close = (value - wanted).abs() <= 1e-3 * rms;
            assert!(close, "{isa} {shape:?} {width}x{height}: value {at} is {value}, expected {wanted}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_width_and_depth_equals_candle(
        down in prop::array::uniform3(1usize..20),
        up in prop::array::uniform2(1usize..20),
        blocks in 0usize..4,
        width in 20usize..60,
        height in 20usize..60,
        seed in any::<u64>(),
    ) {
        check(NetShape { down, blocks, up }, width, height, seed);
    }
}

#[test]
fn memory_is_kept_and_sizes_may_change() {
    let weights = random_weights(&NetShape { down: [8, 12, 16], blocks: 2, up: [12, 8] }, 3);
    let mut net = TransformNet::new(&weights, 1).unwrap();
    let (large, small) = (random_rgb(1, 70, 50), random_rgb(2, 33, 21));
    let mut outs = Vec::new();
    for rgb in [&large, &small, &large, &small] {
        let mut out = RgbPlanes::default();
        net.forward(rgb, &mut out);
        outs.push((out, net.memory_bytes()));
    }
    assert_eq!(outs[0], outs[2], "what was in memory before has no influence");
    assert_eq!(outs[1], outs[3]);
    assert_eq!(outs[0].1, outs[1].1, "nothing grows after the largest picture");
}

#[test]
fn reduced_precision_stays_close_on_every_instruction_set() {
    let weights = random_weights(&NetShape { down: [8, 11, 16], blocks: 2, up: [12, 8] }, 7);
    let (seen, rgb) = (random_rgb(1, 90, 70), random_rgb(2, 75, 61));
    for isa in Isa::available() {
        let (mut full, mut reduced) = (RgbPlanes::default(), RgbPlanes::default());
        let mut net = TransformNet::with_isa(&weights, 2, isa).unwrap();
        let mut ranges = Ranges::default();
        net.observe(&seen, &mut full, &mut ranges);
        net.forward(&rgb, &mut full);
        TransformNet::with_ranges(&weights, 2, isa, Some(&ranges)).unwrap().forward(&rgb, &mut reduced);
        let (full, reduced) = (full.planes.concat(), reduced.planes.concat());
        let squares: f32 = full.iter().zip(&reduced).map(|(a, b)| (a - b).powi(2)).sum();
        let noise = (squares / full.iter().map(|a| a * a).sum::<f32>()).sqrt();
        assert!(noise > 0.0 && noise < 0.01, "{isa}: noise is {noise} of the values");
    }
}

#[test]
fn results_depend_on_no_thread() {
    let weights = random_weights(&NetShape { down: [8, 12, 16], blocks: 1, up: [12, 8] }, 3);
    let rgb = random_rgb(4, 131, 99);
    for isa in Isa::available() {
        let run = |threads| {
            let mut out = RgbPlanes::default();
            TransformNet::with_isa(&weights, threads, isa).unwrap().forward(&rgb, &mut out);
            out
        };
        let alone = run(1);
        assert!(run(2) == alone && run(3) == alone, "{isa}");
    }
}

#[test]
fn the_smallest_pictures_have_an_output() {
    let weights = random_weights(&NetShape { down: [4, 4, 4], blocks: 1, up: [4, 4] }, 3);
    for (width, height) in [(1, 1), (1, 9), (2, 3), (5, 4)] {
        let mut out = RgbPlanes::default();
        TransformNet::new(&weights, 1).unwrap().forward(&random_rgb(1, width, height), &mut out);
        assert_eq!((out.width, out.height), TransformNet::output_size(width, height));
        assert!(out.planes.iter().flatten().all(|value| value.is_finite()));
    }
}

#[test]
fn flat_pictures_stay_flat() {
    // Norms divide by a standard deviation of nearly nothing here: rounding must not be blown up.
    let weights = random_weights(&NetShape { down: [8, 12, 16], blocks: 2, up: [12, 8] }, 3);
    for level in [0.0, 16.0, 200.0] {
        let mut rgb = RgbPlanes::new(64, 48);
        rgb.planes.iter_mut().for_each(|plane| plane.fill(level));
        let expected = by_candle(&weights, &rgb);
        for isa in Isa::available() {
            let mut out = RgbPlanes::default();
            TransformNet::with_isa(&weights, 1, isa).unwrap().forward(&rgb, &mut out);
            for (value, wanted) in out.planes.concat().iter().zip(&expected) {
                assert!((value - wanted).abs() < 0.5, "{isa} at level {level}: {value} for {wanted}");
            }
        }
    }
}
