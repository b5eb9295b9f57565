//! The operations of training against stock candle, and their gradients against finite differences.
#![cfg(feature = "train")]

use candle_core::{Device, Result, Tensor, Var};
use restyle_models::loss::{content_loss, gram, range_excess, steadiness_loss, style_loss, total_variation};
use restyle_models::train::conv::{ConvSpec, convolve};
use restyle_models::train::moments::{impose, moments};
use restyle_models::train::norm::normalize;
use restyle_models::train::pool::max_pool;
use restyle_models::train::upsample::upsample;
use restyle_models::train::{AnyNetwork, Random, TransformerNetwork};

use layers::layers;

mod layers;

fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut random = Random::new(seed, 0);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.between(-1.0, 1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// `sum(result * probe)` in double precision, so that small differences of it mean something.
fn weighed(result: &Tensor, probe: &Tensor) -> f64 {
    let products = (result * probe).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    products.iter().map(|&product| f64::from(product)).sum()
}

/// Compares the gradient of `sum(f(inputs) * r)` along random directions with central differences.
fn check_gradient(inputs: &[Tensor], step: f64, f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let variables: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tracked: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let result = f(&tracked).unwrap();
    let probe = noise(result.dims(), 77);
    let value = |inputs: &[Tensor]| weighed(&f(inputs).unwrap(), &probe);
    let gradients = (result * &probe).unwrap().sum_all().unwrap().backward().unwrap();
    for (index, variable) in variables.iter().enumerate() {
        let gradient = gradients.get(variable.as_tensor()).expect("a gradient for every input");
        assert_eq!(gradient.dims(), inputs[index].dims());
        for seed in 0..4 {
            let direction = noise(inputs[index].dims(), 100 + seed);
            let along = (gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let moved = |sign: f64| {
                let mut moved = inputs.to_vec();
                moved[index] = (&inputs[index] + direction.affine(sign * step, 0.0).unwrap()).unwrap();
                value(&moved)
            };
            let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            let scale = numeric.abs().max(0.05 * direction.elem_count() as f64).max(0.1);
            let error = (f64::from(along) - numeric).abs() / scale;
            assert!(error < 5e-3, "input {index} direction {seed}: {along} for {numeric}");
        }
    }
}

/// Reflection padding, upsampling and convolution from stock candle operations.
fn stock(input: &Tensor, weight: &Tensor, bias: &Tensor, spec: ConvSpec) -> Result<Tensor> {
    let (_, _, height, width) = input.dims4()?;
    let (outputs, _, kernel, _) = weight.dims4()?;
    let indices = |size: usize| -> Result<Tensor> {
        let (upsampled, padding) = ((size * spec.upsample) as i64, (kernel / 2) as i64);
        let index = |padded: i64| {
            let mirrored = (padded - padding).abs();
            let mirrored = if mirrored >= upsampled { 2 * (upsampled - 1) - mirrored } else { mirrored };
            mirrored as u32 / spec.upsample as u32
        };
        let all: Vec<u32> = (0..upsampled + 2 * padding).map(index).collect();
        Tensor::new(all, &Device::Cpu)
    };
    let padded = input.index_select(&indices(height)?, 2)?.index_select(&indices(width)?, 3)?;
    let out = padded.conv2d(weight, 0, spec.stride, 1, 1)?.broadcast_add(&bias.reshape((1, outputs, 1, 1))?)?;
    if spec.relu { out.relu() } else { Ok(out) }
}

fn assert_near(got: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(got.dims(), expected.dims());
    let worst = (got - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let worst = worst.to_scalar::<f32>().unwrap();
    assert!(worst <= tolerance, "differs by {worst}");
}

#[test]
fn convolution_is_what_stock_candle_computes() {
    for (inputs, outputs, kernel, spec, height, width) in layers() {
        let input = noise(&[2, inputs, height, width], 1);
        let weight = noise(&[outputs, inputs, kernel, kernel], 2);
        let bias = noise(&[outputs], 3);
        let got = convolve(&input, &weight, &bias, spec).unwrap();
        assert_near(&got, &stock(&input, &weight, &bias, spec).unwrap(), 1e-4);
    }
}

#[test]
fn gradients_of_convolution() {
    for (inputs, outputs, kernel, spec, height, width) in layers() {
        let tensors =
            [noise(&[2, inputs, height, width], 1), noise(&[outputs, inputs, kernel, kernel], 2), noise(&[outputs], 3)];
        let variables = tensors.each_ref().map(|tensor| Var::from_tensor(tensor).unwrap());
        let probe = noise(convolve(&tensors[0], &tensors[1], &tensors[2], spec).unwrap().dims(), 4);
        let gradients = |f: &dyn Fn(&Tensor, &Tensor, &Tensor, ConvSpec) -> Result<Tensor>| {
            let [input, weight, bias] = variables.each_ref().map(|variable| variable.as_tensor());
            (f(input, weight, bias, spec).unwrap() * &probe).unwrap().sum_all().unwrap().backward().unwrap()
        };
        let (got, expected) = (gradients(&convolve), gradients(&stock));
        for variable in &variables {
            let expected = expected.get(variable.as_tensor()).unwrap();
            assert_near(got.get(variable.as_tensor()).unwrap(), expected, 2e-3);
        }
        // ReLU has corners, where differences mean nothing; elsewhere the operation is linear in each input.
        if !spec.relu {
            check_gradient(&tensors, 0.05, |inputs| convolve(&inputs[0], &inputs[1], &inputs[2], spec));
        }
    }
}

#[test]
fn frozen_convolution_passes_a_gradient_to_its_input_only() {
    let input = Var::from_tensor(&noise(&[1, 3, 8, 8], 1)).unwrap();
    let weight = Var::from_tensor(&noise(&[4, 3, 3, 3], 2)).unwrap();
    let bias = noise(&[4], 3);
    let out = convolve(input.as_tensor(), weight.as_tensor(), &bias, ConvSpec::FROZEN_RELU).unwrap();
    let gradients = out.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(input.as_tensor()).is_some());
    let ignored = gradients.get(weight.as_tensor());
    assert!(
        ignored.is_none_or(|gradient| gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() == 0.0)
    );
}

#[test]
fn gradients_of_instance_norm() {
    let inputs = [noise(&[2, 3, 6, 7], 1), noise(&[3], 2), noise(&[3], 3)];
    check_gradient(&inputs, 1e-2, |inputs| normalize(&inputs[0], &inputs[1], &inputs[2], false));
    // With ReLU: offsets that keep every value clear of the corner.
    for offset in [6.0, -6.0] {
        let beta = Tensor::full(offset, 3, &Device::Cpu).unwrap().to_dtype(candle_core::DType::F32).unwrap();
        let inputs = [inputs[0].clone(), inputs[1].clone(), beta];
        check_gradient(&inputs, 1e-2, |inputs| normalize(&inputs[0], &inputs[1], &inputs[2], true));
    }
}

#[test]
fn instance_norm_has_mean_zero_and_variance_one() {
    let input = noise(&[2, 3, 9, 11], 5);
    let ones = Tensor::ones(3, candle_core::DType::F32, &Device::Cpu).unwrap();
    let out = normalize(&input, &ones, &ones.zeros_like().unwrap(), false).unwrap();
    for plane in out.reshape((6, 99)).unwrap().to_vec2::<f32>().unwrap() {
        let mean = plane.iter().sum::<f32>() / 99.0;
        let variance = plane.iter().map(|value| value * value).sum::<f32>() / 99.0;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
    }
}

#[test]
fn gradients_of_pooling_and_losses() {
    let input = noise(&[1, 3, 8, 10], 1);
    check_gradient(std::slice::from_ref(&input), 1e-4, |inputs| max_pool(&inputs[0]));
    check_gradient(&[noise(&[1, 2, 7, 5], 2)], 1e-4, |inputs| max_pool(&inputs[0]));
    check_gradient(&[noise(&[1, 5, 6, 9], 3)], 1e-2, |inputs| gram(&inputs[0]));
    let target = gram(&noise(&[1, 5, 6, 9], 4)).unwrap();
    check_gradient(&[noise(&[1, 5, 6, 9], 5)], 1e-2, |inputs| {
        style_loss(inputs, std::slice::from_ref(&target), &[1.0])
    });
    check_gradient(&[noise(&[2, 3, 5, 6], 6)], 1e-2, |inputs| total_variation(&inputs[0]));
    check_gradient(&[noise(&[1, 3, 5, 6], 7)], 1e-3, |inputs| range_excess(&inputs[0]));
    check_gradient(&[noise(&[1, 3, 9, 8], 8), noise(&[1, 3, 9, 8], 9)], 1e-2, |inputs| {
        steadiness_loss(&inputs[0], &inputs[1], (-2, 3))
    });
}

#[test]
fn steadiness_of_an_exactly_moved_picture_is_zero() {
    let wide = noise(&[1, 3, 20, 20], 1);
    let view = |top: usize, left: usize| wide.narrow(2, top, 12).unwrap().narrow(3, left, 12).unwrap();
    // The second view lies 2 rows below and 3 columns left of the first.
    let loss = steadiness_loss(&view(4, 5), &view(6, 2), (2, -3)).unwrap();
    assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
    let wrong = steadiness_loss(&view(4, 5), &view(6, 2), (2, 3)).unwrap();
    assert!(wrong.to_scalar::<f32>().unwrap() > 0.1);
}

#[test]
fn gradients_of_the_content_term() {
    let target = noise(&[1, 4, 5, 6], 12);
    check_gradient(&[noise(&[1, 4, 5, 6], 11)], 1e-2, |inputs| content_loss(&inputs[0], &target, 0.0));
    check_gradient(&[noise(&[1, 4, 5, 6], 11)], 1e-2, |inputs| content_loss(&inputs[0], &target, 1e3));
}

#[test]
fn gradients_of_moments_and_of_imposing_them() {
    check_gradient(&[noise(&[1, 3, 6, 7], 1)], 1e-2, |inputs| moments(&inputs[0]));
    check_gradient(&[noise(&[2, 3, 6, 7], 2), noise(&[2, 3], 3)], 1e-2, |inputs| impose(&inputs[0], &inputs[1]));
}

#[test]
fn imposed_moments_are_found_again() {
    let wanted = noise(&[2, 3], 1).abs().unwrap();
    let found = moments(&impose(&noise(&[1, 3, 40, 50], 2), &wanted).unwrap()).unwrap();
    assert_near(&found, &wanted, 1e-3);
}

#[test]
fn gradients_of_upsampling() {
    for (height, width) in [(1, 1), (2, 1), (5, 4), (4, 7)] {
        check_gradient(&[noise(&[2, 3, height, width], 1)], 1e-2, |inputs| upsample(&inputs[0]));
    }
}

#[test]
fn upsampling_keeps_a_plane_and_its_edges() {
    let ramp = Tensor::new(&[[[[0.0_f32, 4.0], [8.0, 12.0]]]], &Device::Cpu).unwrap();
    let rows = upsample(&ramp).unwrap().flatten_to(2).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(rows[0], [0.0, 1.0, 3.0, 4.0]);
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [0.0, 2.0, 6.0, 8.0]);
}

/// Compares the gradient of a network's picture by each variable with central differences along the gradient itself.
fn check_network(variables: &[(String, Var)], value: impl Fn() -> Tensor) {
    for (index, (_, variable)) in variables.iter().enumerate() {
        // Biases of zero put every pixel behind a dead one on the corner of its ReLU.
        let moved = noise(variable.dims(), index as u64).affine(0.1, 0.0).unwrap();
        variable.set(&(variable.as_tensor() + moved).unwrap()).unwrap();
    }
    let probe = noise(value().dims(), 3);
    let gradients = (value() * &probe).unwrap().sum_all().unwrap().backward().unwrap();
    for (name, variable) in variables {
        let gradient = gradients.get(variable.as_tensor()).expect("a gradient for every variable");
        let kept = variable.as_tensor().copy().unwrap();
        let expected = f64::from(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
        let moved = |step: f64| {
            variable.set(&(&kept + gradient.affine(step, 0.0).unwrap()).unwrap()).unwrap();
            weighed(&value(), &probe)
        };
        // Long steps cross corners of ReLUs, short ones drown in rounding, so one of them must do.
        let numeric = [1e-2, 3e-3, 1e-3, 3e-4].map(|length| {
            let step = length / expected.sqrt().max(1e-6);
            (moved(step) - moved(-step)) / (2.0 * step)
        });
        variable.set(&kept).unwrap();
        let is_near = |found: &f64| (found - expected).abs() < 0.03 * expected + 1e-3;
        assert!(numeric.iter().any(is_near), "{name}: {expected} for {numeric:?}");
    }
}

#[test]
fn gradients_of_a_whole_network_for_any_style() {
    let network = AnyNetwork::new(3, 1).unwrap();
    let (picture, style) = (noise(&[1, 3, 48, 40], 1), noise(&[1, 3, 40, 48], 2));
    check_network(network.variables(), || network.forward(&picture, &network.encode_style(&style).unwrap()).unwrap());
}

#[test]
fn gradients_of_a_whole_network_for_one_painting() {
    let network = TransformerNetwork::new(3, 1).unwrap();
    let picture = noise(&[1, 3, 40, 48], 1);
    check_network(network.variables(), || network.forward(&picture).unwrap());
}
