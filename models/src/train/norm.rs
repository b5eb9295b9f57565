//! Instance normalisation for candle autograd, optionally ending in ReLU, in one operation with its gradients.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::buffer::{floats, tensor, with_floats};
use super::stock;

/// Added to the variance, as PyTorch does.
pub const EPSILON: f32 = 1e-5;

/// Normalises each plane of `input` (N, C, H, W) to mean 0 and variance 1, scales by `gamma` (C), adds `beta` (C), then
/// ReLU where `relu` (Ulyanov, Vedaldi and Lempitsky 2016; variance over H * W as in PyTorch).
///
/// # Errors
/// When shapes disagree or the tensors are not f32 on one device.
pub fn normalize(input: &Tensor, gamma: &Tensor, beta: &Tensor, relu: bool) -> Result<Tensor> {
    if stock::serves(input.device()) {
        return stock::normalize(input, gamma, beta, relu);
    }
    input.contiguous()?.apply_op3(gamma, beta, InstanceNorm { relu })
}

#[derive(Debug)]
struct InstanceNorm {
    relu: bool,
}

const LANES: usize = 16;

/// Sum of `f(a, b)` over two equal slices, in lanes that the compiler turns into vectors.
pub(super) fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f(a, b)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Mean and reciprocal deviation of a plane.
fn moments(plane: &[f32]) -> (f32, f32) {
    let count = plane.len() as f32;
    let mean = sum_pairs(plane, plane, |value, _| value) / count;
    let variance = sum_pairs(plane, plane, |value, _| (value - mean) * (value - mean)) / count;
    (mean, 1.0 / (variance + EPSILON).sqrt())
}

impl CustomOp3 for InstanceNorm {
    fn name(&self) -> &'static str {
        "instance-norm"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
        beta: &CpuStorage,
        beta_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, channels, height, width) = input_layout.shape().dims4()?;
        let input = floats(input, input_layout)?;
        let (gamma, beta) = (floats(gamma, gamma_layout)?, floats(beta, beta_layout)?);
        if gamma.len() != channels || beta.len() != channels {
            candle_core::bail!("norm of {channels} channels by {} scales and {} offsets", gamma.len(), beta.len());
        }
        let mut out = vec![0.0; input.len()];
        let planes = input.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width));
        for (index, (plane, out)) in planes.enumerate() {
            let (mean, reciprocal) = moments(plane);
            let scale = gamma[index % channels] * reciprocal;
            let offset = beta[index % channels] - mean * scale;
            let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
            for (out, value) in out.iter_mut().zip(plane) {
                *out = (value * scale + offset).max(floor);
            }
        }
        Ok((CpuStorage::F32(out), input_layout.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, channels, height, width) = input.dims4()?;
        let gamma_values = gamma.to_vec1::<f32>()?;
        let mut gamma_gradient = vec![0.0; channels];
        let mut beta_gradient = vec![0.0; channels];
        let mut input_gradient = vec![0.0; input.elem_count()];
        let size = height * width;
        with_floats(input, |inputs| {
            with_floats(result, |results| {
                with_floats(gradient, |gradients| {
                    for (index, out) in input_gradient.chunks_exact_mut(size).enumerate() {
                        let range = index * size..(index + 1) * size;
                        let channel = index % channels;
                        let gate = self.relu.then(|| &results[range.clone()]);
                        let (slope, offset) =
                            plane_gradient(&inputs[range.clone()], gate, &gradients[range], gamma_values[channel], out);
                        gamma_gradient[channel] += slope;
                        beta_gradient[channel] += offset;
                    }
                    Ok(())
                })
            })
        })?;
        Ok((
            Some(tensor(input_gradient, input.shape())?),
            Some(tensor(gamma_gradient, gamma.shape())?),
            Some(tensor(beta_gradient, beta.shape())?),
        ))
    }
}

/// Writes the gradient of one plane's input to `out`; returns those of its scale and offset.
///
/// `gate` is the result of the ReLU, where there is one: where it is zero no gradient passes.
fn plane_gradient(input: &[f32], gate: Option<&[f32]>, gradient: &[f32], gamma: f32, out: &mut [f32]) -> (f32, f32) {
    let (mean, reciprocal) = moments(input);
    match gate {
        None => out.copy_from_slice(gradient),
        Some(gate) => {
            for ((out, gradient), gate) in out.iter_mut().zip(gradient).zip(gate) {
                *out = if *gate > 0.0 { *gradient } else { 0.0 };
            }
        }
    }
    let total = sum_pairs(out, out, |value, _| value);
    let correlation = sum_pairs(out, input, |value, input| value * (input - mean)) * reciprocal;
    let count = out.len() as f32;
    let scale = gamma * reciprocal;
    let slope = correlation / count * reciprocal;
    let shift = total / count;
    for (out, input) in out.iter_mut().zip(input) {
        *out = scale * (*out - shift - (input - mean) * slope);
    }
    (correlation, total)
}
