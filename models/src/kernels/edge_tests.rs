//! The 9x9 convolutions against the scalar reference, on every instruction set of this processor.

use super::super::first::PackedFirst;
use super::super::moments::Moments;
use super::super::reference::Planar;
use super::*;
use crate::kernels::ViewMut;
use crate::testkit::Seeded;
use proptest::prelude::*;

const TOLERANCE: f64 = 2e-4;

fn random_conv(random: &mut Seeded, ins: usize, outs: usize) -> ConvWeights {
    ConvWeights {
        kernel: random.values(ins * outs * 81),
        bias: random.values(outs),
        out_channels: outs,
        in_channels: ins,
        kernel_size: 9,
    }
}

fn check_first(isa: Isa, outs: usize, height: usize, width: usize, threads: usize, seed: u64) {
    let mut random = Seeded(seed);
    let weights = random_conv(&mut random, 3, outs);
    let x = Planar { channels: 3, height, width, values: random.values(3 * height * width) };
    let planes = [0, 1, 2].map(|plane| x.values[plane * height * width..][..height * width].to_vec());
    let conv = PackedFirst::pack(isa, &weights);
    let to = conv.output(height, width);
    let mut out = vec![f32::NAN; to.len()];
    let mut moments = Moments::default();
    let mut team = Team::new(threads).unwrap();
    conv.run(&mut team, &RgbPlanes { width, height, planes }, ViewMut::new(to, &mut out), &mut moments);
    let found = Planar::unpacked(to, &out);
    let what = format!("{isa}: 3 to {outs} channels, {width}x{height}, {threads} threads");
    found.assert_close(&x.convolved(&weights, 1), TOLERANCE, &what);
    for channel in 0..outs {
        let ((mean, variance), (wanted_mean, wanted_variance)) = (moments.join(channel), found.moments(channel));
        let scale = wanted_variance.sqrt().max(1e-3);
        assert!((mean - wanted_mean).abs() < 1e-5 * scale, "{what}: mean {mean} for {wanted_mean}");
        assert!((variance - wanted_variance).abs() < 1e-4 * scale * scale, "{what}: variance {variance}");
    }
}

fn check_last(isa: Isa, ins: usize, height: usize, width: usize, threads: usize, seed: u64) {
    let mut random = Seeded(seed);
    let weights = random_conv(&mut random, ins, 3);
    let x = Planar { channels: ins, height, width, values: random.values(ins * height * width) };
    let (mut scale, mut shift) = (random.values(ins), random.values(ins));
    let mut expected = x.scaled(&scale, &shift).relu().convolved(&weights, 1);
    for (plane, bias) in expected.values.chunks_exact_mut(height * width).zip(&weights.bias) {
        plane.iter_mut().for_each(|value| *value += bias);
    }
    let conv = PackedLast::pack(isa, &weights);
    let (extent, values) = x.packed(isa.lanes());
    scale.resize(extent.pixel_stride, 0.0);
    shift.resize(extent.pixel_stride, 0.0);
    let mut out = RgbPlanes::new(width, height);
    out.planes.iter_mut().for_each(|plane| plane.fill(f32::NAN));
    let mut team = Team::new(threads).unwrap();
    conv.run(&mut team, View::new(extent, &values), &Affine { scale, shift }, &mut out);
    let found = Planar { channels: 3, height, width, values: out.planes.concat() };
    found.assert_close(&expected, TOLERANCE, &format!("{isa}: {ins} to 3 channels, {width}x{height}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_shapes_equal_the_reference(
        channels in 1usize..34,
        height in 1usize..50,
        width in 1usize..50,
        threads in 1usize..4,
        seed in any::<u64>(),
    ) {
        for isa in Isa::available() {
            check_first(isa, channels, height, width, threads, seed);
            check_last(isa, channels, height, width, threads, seed);
        }
    }
}

#[test]
fn several_strips_equal_the_reference() {
    for isa in Isa::available() {
        check_first(isa, 5, 10, 331, 2, 1);
        check_last(isa, 5, 10, 431, 2, 1);
        // Several rows of tasks, alone and with several strips.
        check_first(isa, 5, 151, 331, 2, 2);
        check_last(isa, 5, 151, 10, 2, 2);
        check_last(isa, 3, 151, 431, 2, 2);
    }
}
