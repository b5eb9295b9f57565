//! The 3x3 convolutions against the scalar reference, on every instruction set of this processor.

use super::super::reference::Planar;
use super::*;
use crate::testkit::Seeded;
use proptest::prelude::*;

/// F(4, 3) in f32 over up to a few dozen channels; a wrong index gives errors of the order of one.
const TOLERANCE: f64 = 3e-4;

#[derive(Clone, Debug)]
struct Case {
    sampling: Sampling,
    load: u8,
    ins: usize,
    outs: usize,
    height: usize,
    width: usize,
    threads: usize,
    seed: u64,
}

fn random_planar(random: &mut Seeded, channels: usize, height: usize, width: usize) -> Planar {
    Planar { channels, height, width, values: random.values(channels * height * width) }
}

fn padded(values: &[f32], lanes: usize) -> Vec<f32> {
    let mut values = values.to_vec();
    values.resize(values.len().next_multiple_of(lanes), 0.0);
    values
}

fn check(isa: Isa, case: &Case) {
    let mut random = Seeded(case.seed);
    let (ins, outs) = (case.ins, case.outs);
    let weights = ConvWeights {
        kernel: random.values(ins * outs * 9),
        bias: random.values(outs),
        out_channels: outs,
        in_channels: ins,
        kernel_size: 3,
    };
    let x = random_planar(&mut random, ins, case.height, case.width);
    let residual = random_planar(&mut random, ins, case.height, case.width);
    let (scale, shift) = (random.values(ins), random.values(ins));

    let normalised = x.scaled(&scale, &shift);
    let loaded = if case.load & ADD != 0 { normalised.plus(&residual) } else { normalised.relu() };
    let expected = match case.sampling {
        Sampling::Same => loaded.convolved(&weights, 1),
        Sampling::Down => loaded.convolved(&weights, 2),
        Sampling::Up => loaded.doubled().convolved(&weights, 1),
    };

    let conv = PackedConv::pack(isa, case.sampling, &weights);
    let (extent, values) = x.packed(isa.lanes());
    let (_, residual) = residual.packed(isa.lanes());
    let mut kept = vec![f32::NAN; extent.len()];
    let to = conv.output(case.height, case.width);
    let mut out = vec![f32::NAN; to.len()];
    let affine = Affine { scale: padded(&scale, isa.lanes()), shift: padded(&shift, isa.lanes()) };
    let keep = ViewMut::new(extent, &mut kept);
    let load = match case.load {
        RELU => Load::Relu,
        ADD => Load::Add(View::new(extent, &residual)),
        5 => Load::ReluKeep(keep),
        _ => Load::AddKeep(View::new(extent, &residual), keep),
    };
    let mut team = Team::new(case.threads).unwrap();
    let mut moments = Moments::default();
    let input = Input { values: View::new(extent, &values), affine: &affine, load };
    conv.run(&mut team, input, ViewMut::new(to, &mut out), &mut moments);

    let what = format!("{isa} {case:?}");
    let found = Planar::unpacked(to, &out);
    found.assert_close(&expected, TOLERANCE, &what);
    if case.load & KEEP != 0 {
        Planar::unpacked(extent, &kept).assert_close(&loaded, 1e-5, &what);
    }
    for channel in 0..outs {
        let ((mean, variance), (wanted_mean, wanted_variance)) = (moments.join(channel), found.moments(channel));
        let scale = wanted_variance.sqrt().max(1e-3);
        assert!((mean - wanted_mean).abs() < 1e-5 * scale, "{what}: mean {mean} for {wanted_mean}");
        assert!(
            (variance - wanted_variance).abs() < 1e-4 * scale * scale,
            "{what}: variance {variance} for {wanted_variance}"
        );
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let sampling = prop::sample::select(vec![Sampling::Same, Sampling::Down, Sampling::Up]);
    (sampling, 0usize..4, 1usize..40, 1usize..40, 1usize..24, 1usize..40, 1usize..4, any::<u64>()).prop_map(
        |(sampling, load, ins, outs, height, width, threads, seed)| {
            let loads: &[u8] = if sampling == Sampling::Same { &[1, 2, 5, 6] } else { &[1, 2] };
            let load = loads[load % loads.len()];
            Case { sampling, load, ins, outs, height, width, threads, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_shapes_equal_the_reference(case in any_case()) {
        for isa in Isa::available() {
            check(isa, &case);
        }
    }
}

#[test]
fn channels_equal_to_both_sides_equal_the_reference() {
    for sampling in [Sampling::Same, Sampling::Down, Sampling::Up] {
        for side in [8, 16, 17] {
            for isa in Isa::available() {
                let case = Case {
                    sampling,
                    load: RELU,
                    ins: side,
                    outs: side,
                    height: side,
                    width: side,
                    threads: 2,
                    seed: 9,
                };
                check(isa, &case);
            }
        }
    }
}

#[test]
fn results_depend_on_no_thread() {
    let mut random = Seeded(5);
    let weights = ConvWeights {
        kernel: random.values(16 * 16 * 9),
        bias: vec![0.0; 16],
        out_channels: 16,
        in_channels: 16,
        kernel_size: 3,
    };
    let x = random_planar(&mut random, 16, 61, 75);
    for isa in Isa::available() {
        let conv = PackedConv::pack(isa, Sampling::Same, &weights);
        let (extent, values) = x.packed(isa.lanes());
        let affine = Affine { scale: vec![1.0; 16], shift: vec![0.1; 16] };
        let run = |threads| {
            let mut team = Team::new(threads).unwrap();
            let mut moments = Moments::default();
            let mut out = vec![0.0; extent.len()];
            let input = Input { values: View::new(extent, &values), affine: &affine, load: Load::Relu };
            conv.run(&mut team, input, ViewMut::new(extent, &mut out), &mut moments);
            let moments: Vec<_> = (0..16).map(|channel| moments.join(channel)).collect();
            (Planar::unpacked(extent, &out), moments)
        };
        let alone = run(1);
        assert!(run(2) == alone && run(5) == alone, "{isa}");
    }
}

/// Runs a convolution over a picture and returns its output and moments.
fn convolved(conv: &PackedConv, isa: Isa, x: &Planar, affine: &Affine, threads: usize) -> (Planar, Vec<(f64, f64)>) {
    let (extent, values) = x.packed(isa.lanes());
    let to = conv.output(x.height, x.width);
    let (mut team, mut moments) = (Team::new(threads).unwrap(), Moments::default());
    let mut out = vec![f32::NAN; to.len()];
    let input = Input { values: View::new(extent, &values), affine, load: Load::Relu };
    conv.run(&mut team, input, ViewMut::new(to, &mut out), &mut moments);
    (Planar::unpacked(to, &out), (0..to.channels).map(|channel| moments.join(channel)).collect())
}

fn observed(conv: &PackedConv, isa: Isa, x: &Planar, affine: &Affine) -> Vec<f32> {
    let (extent, values) = x.packed(isa.lanes());
    let to = conv.output(x.height, x.width);
    let (mut team, mut moments) = (Team::new(2).unwrap(), Moments::default());
    let (mut out, mut peaks) = (vec![f32::NAN; to.len()], vec![0.0; PackedConv::peak_count(conv.sampling)]);
    let input = Input { values: View::new(extent, &values), affine, load: Load::Relu };
    conv.run_observed(&mut team, input, ViewMut::new(to, &mut out), &mut moments, &mut peaks);
    peaks
}

fn check_reduced(isa: Isa, case: &Case) {
    let mut random = Seeded(case.seed);
    let weights = ConvWeights {
        kernel: random.values(case.ins * case.outs * 9),
        bias: vec![0.0; case.outs],
        out_channels: case.outs,
        in_channels: case.ins,
        kernel_size: 3,
    };
    let x = random_planar(&mut random, case.ins, case.height, case.width);
    let pad = |value: f32| padded(&vec![value; case.ins], isa.lanes());
    let affine = Affine { scale: pad(1.0), shift: pad(0.1) };
    let full = PackedConv::pack(isa, case.sampling, &weights);
    let peaks = observed(&full, isa, &x, &affine);
    assert!(peaks.iter().all(|peak| peak.is_finite()), "{peaks:?}");
    let reduced = PackedConv::pack_reduced(isa, case.sampling, &weights, &peaks);
    let (expected, _) = convolved(&full, isa, &x, &affine, 1);
    let (found, moments) = convolved(&reduced, isa, &x, &affine, case.threads);
    // Rounding is noise, and louder where the output transform weighs most: its size is bounded, and its peaks by ten times that.
    // A wrong index gives errors of the order of one.
    let what = format!("{isa} {case:?}");
    let noise = expected.distance_rms(&found) / expected.rms().max(1e-3);
    assert!(noise <= 0.005, "{what}: noise is {noise} of the values");
    expected.assert_close(&found, 0.05, &what);
    assert_eq!(convolved(&reduced, isa, &x, &affine, 1), (found, moments), "threads have no influence");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn reduced_precision_is_close_on_random_shapes(case in any_case()) {
        for isa in Isa::available() {
            check_reduced(isa, &case);
        }
    }

    #[test]
    fn inputs_beyond_what_was_seen_are_limited_and_nothing_overflows(seed in any::<u64>(), louder in 1.0f32..1e6) {
        let mut random = Seeded(seed);
        let weights = ConvWeights {
            kernel: random.values(16 * 16 * 9), bias: vec![0.0; 16], out_channels: 16, in_channels: 16, kernel_size: 3,
        };
        let x = random_planar(&mut random, 16, 13, 17);
        for isa in Isa::available() {
            let affine = Affine { scale: vec![1.0; 16], shift: vec![0.0; 16] };
            let peaks = observed(&PackedConv::pack(isa, Sampling::Same, &weights), isa, &x, &affine);
            let reduced = PackedConv::pack_reduced(isa, Sampling::Same, &weights, &peaks);
            let (quiet, _) = convolved(&reduced, isa, &x, &affine, 1);
            let largest = |planar: &Planar| planar.values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            let affine = Affine { scale: vec![louder; 16], shift: vec![0.0; 16] };
            let (loud, _) = convolved(&reduced, isa, &x, &affine, 1);
            // Limited inputs are no larger than four times the peaks; transforms amplify limited ones by what they sum up.
            prop_assert!(largest(&loud).is_finite() && largest(&loud) < 400.0 * largest(&quiet).max(1.0));
        }
    }
}
