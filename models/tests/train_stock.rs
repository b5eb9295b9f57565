//! The operations that a card trains by, composed of candle's own, against the processor's: values, gradients, whole trainings.
//! All of it on the processor, which needs no card.
#![cfg(feature = "train")]

use std::path::Path;

use candle_core::{Device, Result, Tensor, Var};
use restyle_models::loss::gram;
use restyle_models::train::conv::{ConvSpec, convolve};
use restyle_models::train::moments::{impose, moments};
use restyle_models::train::norm::normalize;
use restyle_models::train::pool::max_pool;
use restyle_models::train::stock;
use restyle_models::train::upsample::upsample;
use restyle_models::train::{Losses, Photo, PhotoSet, Random, TrainConfig, Trainer};
use restyle_models::vgg::FeatureNetwork;

use layers::Layer;

mod layers;

/// Largest difference of a value or gradient, relative to the largest one: both sum in single precision, in other orders.
const TOLERANCE: f32 = 1e-5;
/// Largest relative difference of a loss of equal weights.
const LOSS_TOLERANCE: f32 = 1e-4;
/// Largest relative difference of the loss of trainings that go their own ways: Adam's first steps follow the sign of gradients,
/// also of those that are rounding alone.
const DRIFT_TOLERANCE: f32 = 1e-2;
/// Largest difference of a gradient through whole networks, relative to the variable's largest, in the iteration that agrees best.
/// In others rounding has a ReLU or a maximum of near equals decide otherwise, which moves gradients by hundredths.
const GRADIENT_TOLERANCE: f32 = 1e-4;
/// Gradients below this count as this: those of biases that cancel in the norm behind them are rounding alone.
const GRADIENT_MIN: f32 = 1e-4;
/// A term below this counts as this: the range term at first is a millionth, of what few pixels leave the range by.
const TERM_MIN: f32 = 1e-3;

fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut random = Random::new(seed, 0);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.between(-1.0, 1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn largest(values: &Tensor) -> f32 {
    values.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

fn assert_near(what: &str, got: &Tensor, expected: &Tensor) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let (worst, scale) = (largest(&(got - expected).unwrap()), largest(expected));
    assert!(worst <= TOLERANCE * scale, "{what}: differs by {worst} of {scale}");
}

/// Compares values and the gradients of every input, in random directions of the output.
fn check(
    what: &str,
    inputs: &[Tensor],
    custom: impl Fn(&[Tensor]) -> Result<Tensor>,
    stock: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let variables: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(&input.copy().unwrap()).unwrap()).collect();
    let tracked: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let (expected, got) = (custom(&tracked).unwrap(), stock(&tracked).unwrap());
    assert_near(what, &got, &expected);
    let probe = noise(expected.dims(), 77);
    let gradients = |result: &Tensor| (result * &probe).unwrap().sum_all().unwrap().backward().unwrap();
    let (got, expected) = (gradients(&got), gradients(&expected));
    for (index, tensor) in tracked.iter().enumerate() {
        let what = format!("{what}, gradient of input {index}");
        match (got.get(tensor), expected.get(tensor)) {
            (Some(got), Some(expected)) => assert_near(&what, got, expected),
            (got, expected) => assert_eq!(got.is_some(), expected.is_some(), "{what}"),
        }
    }
}

/// Those and what candle's own convolution is apt to get wrong: of each side the rest of a stride, frozen weights, no gradient.
fn layers() -> Vec<Layer> {
    let plain = ConvSpec::TRAINED;
    let half = ConvSpec { stride: 2, ..plain };
    let double = ConvSpec { upsample: 2, ..plain };
    let more = [
        (5, 6, 3, half, 16, 13),
        (2, 3, 3, half, 7, 10),
        (3, 4, 3, ConvSpec { relu: true, ..half }, 9, 9),
        (3, 2, 3, ConvSpec { stride: 2, ..double }, 5, 8),
        (3, 4, 1, half, 5, 8),
        (3, 4, 3, ConvSpec::FROZEN_RELU, 11, 6),
        (3, 4, 9, ConvSpec { input_gradient: false, ..plain }, 13, 12),
    ];
    layers::layers().into_iter().chain(more).collect()
}

#[test]
fn convolution() {
    for (inputs, outputs, kernel, spec, height, width) in layers() {
        let tensors =
            [noise(&[2, inputs, height, width], 1), noise(&[outputs, inputs, kernel, kernel], 2), noise(&[outputs], 3)];
        let what = format!("{kernel}x{kernel} on {height}x{width}, {spec:?}");
        let custom = |inputs: &[Tensor]| convolve(&inputs[0], &inputs[1], &inputs[2], spec);
        check(&what, &tensors, custom, |inputs| stock::convolve(&inputs[0], &inputs[1], &inputs[2], spec));
        // Bands of one row, of a few, and with a rest.
        for unfolded_max in [0, 3 * 2 * width * inputs * kernel * kernel] {
            let banded =
                |inputs: &[Tensor]| stock::convolve_in_bands(&inputs[0], &inputs[1], &inputs[2], spec, unfolded_max);
            check(&format!("{what} in bands"), &tensors, custom, banded);
        }
    }
}

#[test]
fn no_gradient_passes_a_value_of_zero() {
    let [input, weight] =
        [noise(&[1, 2, 5, 5], 1), Tensor::zeros((3, 2, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap()];
    let spec = ConvSpec { relu: true, ..ConvSpec::TRAINED };
    let bias = Var::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
    let out = stock::convolve(&input, &weight, bias.as_tensor(), spec).unwrap();
    let gradients = out.sum_all().unwrap().backward().unwrap();
    assert_eq!(largest(gradients.get(bias.as_tensor()).unwrap()), 0.0);
}

#[test]
fn a_side_as_small_as_the_padding_is_refused_alike() {
    let tensors = [noise(&[1, 2, 4, 20], 1), noise(&[3, 2, 9, 9], 2), noise(&[3], 3)];
    let [input, weight, bias] = &tensors;
    let custom = convolve(input, weight, bias, ConvSpec::TRAINED).unwrap_err().to_string();
    let stock = stock::convolve(input, weight, bias, ConvSpec::TRAINED).unwrap_err().to_string();
    assert!(custom.contains("padding of 4") && stock.contains("padding of 4"), "{custom}; {stock}");
}

#[test]
fn instance_norm() {
    for (height, width) in [(6, 7), (1, 5), (16, 16)] {
        for relu in [false, true] {
            let inputs = [noise(&[2, 3, height, width], 1), noise(&[3], 2), noise(&[3], 3)];
            let custom = |inputs: &[Tensor]| normalize(&inputs[0], &inputs[1], &inputs[2], relu);
            let stock = |inputs: &[Tensor]| stock::normalize(&inputs[0], &inputs[1], &inputs[2], relu);
            check(&format!("norm of {height}x{width}, relu {relu}"), &inputs, custom, stock);
        }
    }
}

#[test]
fn pooling_and_its_ties() {
    for (height, width) in [(8, 10), (7, 5), (2, 3), (9, 4)] {
        let input = noise(&[2, 3, height, width], 1);
        let what = format!("pooling of {height}x{width}");
        check(&what, std::slice::from_ref(&input), |inputs| max_pool(&inputs[0]), |inputs| stock::max_pool(&inputs[0]));
        // Three values only: nearly every block has its largest twice.
        let tied = input.affine(1.4, 0.0).unwrap().round().unwrap();
        check(
            &format!("{what} with ties"),
            &[tied],
            |inputs| max_pool(&inputs[0]),
            |inputs| stock::max_pool(&inputs[0]),
        );
    }
}

#[test]
fn bilinear_upsampling() {
    for (height, width) in [(1, 1), (2, 1), (5, 4), (4, 7)] {
        let input = noise(&[2, 3, height, width], 1);
        check(
            &format!("upsampling of {height}x{width}"),
            &[input],
            |inputs| upsample(&inputs[0]),
            |inputs| stock::upsample(&inputs[0]),
        );
    }
}

#[test]
fn moments_and_gram_matrices() {
    for (height, width) in [(6, 7), (1, 9), (15, 16)] {
        let input = [noise(&[1, 5, height, width], 1)];
        check("moments", &input, |inputs| moments(&inputs[0]), |inputs| stock::moments(&inputs[0]));
        check("gram", &input, |inputs| gram(&inputs[0]), |inputs| stock::gram(&inputs[0]));
        let both = [noise(&[2, 5, height, width], 2), noise(&[2, 5], 3)];
        let imposed = |inputs: &[Tensor]| impose(&inputs[0], &inputs[1]);
        check("imposed moments", &both, imposed, |inputs| stock::everywhere(|| imposed(inputs)));
    }
    assert!(stock::moments(&noise(&[2, 3, 4, 4], 1)).is_err() && stock::gram(&noise(&[2, 3, 4, 4], 1)).is_err());
}

/// A picture of waves, another for every kind.
fn waves(side: usize, kind: usize) -> Photo {
    let value = |index: usize| {
        let (x, y, channel) = (index / 3 % side, index / 3 / side, index % 3);
        let wave = (x as f32 * 0.13 * (kind + 1) as f32 + channel as f32).sin() + (y as f32 * 0.19 + kind as f32).cos();
        (127.5 + 60.0 * wave) as u8
    };
    Photo::from_rgb(side, side, (0..3 * side * side).map(value).collect())
}

/// Iterations of the two stages.
const MAIN: u32 = 3;
const STEADY: u32 = 3;

/// A small training, for one painting or any.
fn trainer(any: bool) -> Trainer {
    let nowhere = || Path::new("").to_owned();
    let proven = TrainConfig::new("waves", nowhere(), nowhere(), nowhere(), nowhere());
    let config = TrainConfig { any, crop: 64, width: 4, ..proven };
    let photos = PhotoSet::from_photos((0..3).map(|kind| waves(90, kind)).collect());
    let features = FeatureNetwork::random([6, 8, 10, 12], 3).unwrap();
    if any {
        Trainer::any(config, features, PhotoSet::from_photos(vec![waves(80, 5)]), photos).unwrap()
    } else {
        Trainer::new(config, features, &waves(80, 5), photos).unwrap()
    }
}

fn step(trainer: &mut Trainer) -> Losses {
    trainer.step(MAIN, STEADY).unwrap()
}

fn assert_losses_near(what: &str, got: &Losses, expected: &Losses) {
    let terms = |losses: &Losses| {
        [losses.total, losses.content, losses.style, losses.variation, losses.range, losses.steadiness]
    };
    for (got, expected) in terms(got).into_iter().zip(terms(expected)) {
        let tolerance = LOSS_TOLERANCE * expected.abs().max(TERM_MIN);
        assert!((got - expected).abs() <= tolerance, "{what}: {got} for {expected}");
    }
}

#[test]
fn a_training_goes_the_same_way() {
    for any in [false, true] {
        let got = stock::everywhere(|| {
            let mut trainer = trainer(any);
            [(); MAIN as usize + 1].map(|()| step(&mut trainer))
        });
        let mut trainer = trainer(any);
        for (iteration, got) in got.iter().enumerate() {
            let expected = step(&mut trainer);
            let tolerance = if iteration == 0 { LOSS_TOLERANCE } else { DRIFT_TOLERANCE };
            let difference = (got.total - expected.total).abs() / expected.total;
            assert!(difference <= tolerance, "any {any}, iteration {iteration}: {got:?} for {expected:?}");
        }
    }
}

/// Largest relative difference of a variable's first moments in two checkpoints.
fn moments_differ(got: &Path, expected: &Path) -> f32 {
    let [got, expected] = [got, expected].map(|file| candle_core::safetensors::load(file, &Device::Cpu).unwrap());
    let moments = expected.iter().filter(|(name, _)| name.starts_with("first."));
    let differences = moments.map(|(name, expected)| {
        let scale = largest(expected).max(GRADIENT_MIN);
        largest(&(&got[name] - expected).unwrap()) / scale
    });
    differences.fold(0.0, f32::max)
}

#[test]
fn every_iteration_has_the_same_losses_and_gradients() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    for any in [false, true] {
        let (mut own, mut composed) = (trainer(any), trainer(any));
        let mut least = f32::INFINITY;
        for iteration in 0..MAIN + STEADY {
            own.save(&file("before"), (MAIN, STEADY)).unwrap();
            composed.restore(&file("before")).unwrap();
            let got = stock::everywhere(|| step(&mut composed));
            assert_losses_near(&format!("any {any}, iteration {iteration}"), &got, &step(&mut own));
            own.save(&file("own"), (MAIN, STEADY)).unwrap();
            composed.save(&file("composed"), (MAIN, STEADY)).unwrap();
            // They began this iteration as the same, so what differs is this iteration's gradients.
            least = least.min(moments_differ(&file("composed"), &file("own")));
        }
        assert!(least <= GRADIENT_TOLERANCE, "any {any}: gradients differ by {least} at least");
    }
}

#[test]
fn the_processor_has_its_own_operations_again_afterwards() {
    let inputs = [noise(&[1, 3, 9, 9], 1), noise(&[4, 3, 9, 9], 2), noise(&[4], 3)];
    let convolved = || {
        let out = convolve(&inputs[0], &inputs[1], &inputs[2], ConvSpec::TRAINED).unwrap();
        out.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let expected = convolved();
    assert!(stock::everywhere(convolved) != expected, "sums in another order round otherwise");
    let panicked = std::panic::catch_unwind(|| stock::everywhere(|| panic!("on purpose")));
    assert!(panicked.is_err() && convolved() == expected);
}
