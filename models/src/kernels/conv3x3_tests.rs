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

/// What a case is made of.
struct Drawn {
    weights: ConvWeights,
    x: Planar,
    residual: Planar,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// What a convolution made of it.
#[derive(PartialEq)]
struct Found {
    out: Planar,
    kept: Option<Planar>,
    moments: Vec<(f64, f64)>,
}

fn draw(case: &Case) -> Drawn {
    let mut random = Seeded(case.seed);
    let weights = ConvWeights {
        kernel: random.values(case.ins * case.outs * 9),
        bias: random.values(case.outs),
        out_channels: case.outs,
        in_channels: case.ins,
        kernel_size: 3,
    };
    let x = random_planar(&mut random, case.ins, case.height, case.width);
    let residual = random_planar(&mut random, case.ins, case.height, case.width);
    Drawn { weights, x, residual, scale: random.values(case.ins), shift: random.values(case.ins) }
}

/// Runs a convolution as the case says, into poisoned memory.
fn convolved(conv: &PackedConv, case: &Case, drawn: &Drawn, threads: usize, peaks: Option<&mut [f32]>) -> Found {
    let lanes = conv.isa.lanes();
    let (extent, values) = drawn.x.packed(lanes);
    let (_, residual) = drawn.residual.packed(lanes);
    let mut kept = vec![f32::NAN; extent.len()];
    let to = conv.output(case.height, case.width);
    let mut out = vec![f32::NAN; to.len()];
    let affine = Affine { scale: padded(&drawn.scale, lanes), shift: padded(&drawn.shift, lanes) };
    let keep = ViewMut::new(extent, &mut kept);
    let load = match case.load {
        RELU => Load::Relu,
        ADD => Load::Add(View::new(extent, &residual)),
        5 => Load::ReluKeep(keep),
        _ => Load::AddKeep(View::new(extent, &residual), keep),
    };
    let (mut team, mut moments) = (Team::new(threads).unwrap(), Moments::default());
    let input = Input { values: View::new(extent, &values), affine: &affine, load };
    match peaks {
        None => conv.run(&mut team, input, ViewMut::new(to, &mut out), &mut moments),
        Some(peaks) => conv.run_observed(&mut team, input, ViewMut::new(to, &mut out), &mut moments, peaks),
    }
    Found {
        out: Planar::unpacked(to, &out),
        kept: (case.load & KEEP != 0).then(|| Planar::unpacked(extent, &kept)),
        moments: (0..to.channels).map(|channel| moments.join(channel)).collect(),
    }
}

fn check(isa: Isa, case: &Case) {
    let drawn = draw(case);
    let normalised = drawn.x.scaled(&drawn.scale, &drawn.shift);
    let loaded = if case.load & ADD != 0 { normalised.plus(&drawn.residual) } else { normalised.relu() };
    let expected = match case.sampling {
        Sampling::Same => loaded.convolved(&drawn.weights, 1),
        Sampling::Down => loaded.convolved(&drawn.weights, 2),
        Sampling::Up => loaded.doubled().convolved(&drawn.weights, 1),
    };
    let conv = PackedConv::pack(isa, case.sampling, &drawn.weights);
    let found = convolved(&conv, case, &drawn, case.threads, None);
    let what = format!("{isa} {case:?}");
    found.out.assert_close(&expected, TOLERANCE, &what);
    if let Some(kept) = &found.kept {
        kept.assert_close(&loaded, 1e-5, &what);
    }
    for (channel, (mean, variance)) in found.moments.iter().enumerate() {
        let (wanted_mean, wanted_variance) = found.out.moments(channel);
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
    let case =
        Case { sampling: Sampling::Same, load: RELU, ins: 16, outs: 16, height: 61, width: 75, threads: 1, seed: 5 };
    let drawn = draw(&case);
    for isa in Isa::available() {
        let conv = PackedConv::pack(isa, case.sampling, &drawn.weights);
        let run = |threads| convolved(&conv, &case, &drawn, threads, None);
        let alone = run(1);
        assert!(run(2) == alone && run(5) == alone, "{isa}");
    }
}

fn observed(full: &PackedConv, case: &Case, drawn: &Drawn) -> Vec<f32> {
    let mut peaks = vec![0.0; PackedConv::peak_count(case.sampling)];
    convolved(full, case, drawn, 2, Some(&mut peaks));
    assert!(peaks.iter().all(|peak| peak.is_finite()), "{peaks:?}");
    peaks
}

fn check_reduced(isa: Isa, case: &Case) {
    let mut drawn = draw(case);
    drawn.scale.fill(1.0);
    drawn.shift.fill(0.1);
    let full = PackedConv::pack(isa, case.sampling, &drawn.weights);
    let peaks = observed(&full, case, &drawn);
    let reduced = PackedConv::pack_reduced(isa, case.sampling, &drawn.weights, &peaks);
    let expected = convolved(&full, case, &drawn, 1, None);
    let found = convolved(&reduced, case, &drawn, case.threads, None);
    // Rounding is noise, and louder where the output transform weighs most: its size is bounded, and its peaks by ten times that.
    // A wrong index gives errors of the order of one.
    let what = format!("{isa} {case:?}");
    let noise = expected.out.distance_rms(&found.out) / expected.out.rms().max(1e-3);
    assert!(noise <= 0.005, "{what}: noise is {noise} of the values");
    expected.out.assert_close(&found.out, 0.05, &what);
    assert!(expected.kept == found.kept, "{what}: what is kept is never rounded");
    assert!(convolved(&reduced, case, &drawn, 1, None) == found, "{what}: threads have no influence");
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
        let case = Case {
            sampling: Sampling::Same, load: RELU, ins: 16, outs: 16, height: 13, width: 17, threads: 1, seed,
        };
        let mut drawn = draw(&case);
        drawn.shift.fill(0.0);
        for isa in Isa::available() {
            drawn.scale.fill(1.0);
            let full = PackedConv::pack(isa, case.sampling, &drawn.weights);
            let peaks = observed(&full, &case, &drawn);
            let reduced = PackedConv::pack_reduced(isa, case.sampling, &drawn.weights, &peaks);
            let quiet = convolved(&reduced, &case, &drawn, 1, None).out;
            let largest = |planar: &Planar| planar.values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            drawn.scale.fill(louder);
            let loud = convolved(&reduced, &case, &drawn, 1, None).out;
            // Limited inputs are no larger than four times the peaks; transforms amplify limited ones by what they sum up.
            prop_assert!(largest(&loud).is_finite() && largest(&loud) < 400.0 * largest(&quiet).max(1.0));
        }
    }
}
