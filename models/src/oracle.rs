//! The transformer network on candle's own operations: slow, and what the kernels are checked against.
//!
//! Training has its own network for automatic differentiation; this one only runs forward.

use crate::ModelError;
use crate::kernels::moments::NORM_EPSILON;
use crate::weights::StyleWeights;
use candle_core::{Device, Tensor};

/// Runs the network on `[batch, 3, height, width]` of RGB on 0..255 and returns the raw output.
///
/// # Errors
/// `Weights` where a layer is missing, `Tensor` where candle refuses (borders need more than four pixels).
pub fn forward(weights: &StyleWeights, frames_nchw: &Tensor) -> Result<Tensor, ModelError> {
    let normed = |x: &Tensor, conv: &str, norm: &str, stride: usize| -> Result<Tensor, ModelError> {
        instance_norm(weights, norm, &convolved(weights, conv, x, stride)?)
    };
    let mut x = normed(frames_nchw, "conv1", "in1", 1)?.relu()?;
    x = normed(&x, "conv2", "in2", 2)?.relu()?;
    x = normed(&x, "conv3", "in3", 2)?.relu()?;
    for block in 1..=weights.shape().blocks {
        let inner = normed(&x, &format!("res{block}.conv1"), &format!("res{block}.in1"), 1)?.relu()?;
        let inner = normed(&inner, &format!("res{block}.conv2"), &format!("res{block}.in2"), 1)?;
        x = (inner + x)?;
    }
    x = normed(&doubled(&x)?, "deconv1", "in4", 1)?.relu()?;
    x = normed(&doubled(&x)?, "deconv2", "in5", 1)?.relu()?;
    convolved(weights, "deconv3", &x, 1)
}

fn doubled(x: &Tensor) -> Result<Tensor, ModelError> {
    let (_, _, height, width) = x.dims4()?;
    Ok(x.upsample_nearest2d(height * 2, width * 2)?)
}

fn convolved(weights: &StyleWeights, name: &str, x: &Tensor, stride: usize) -> Result<Tensor, ModelError> {
    let kernel = weights.tensor(&format!("{name}.conv2d.weight"))?;
    let bias = weights.tensor(&format!("{name}.conv2d.bias"))?;
    let pad = kernel.dim(3)? / 2;
    let x = reflected(&reflected(x, 2, pad)?, 3, pad)?;
    let y = x.conv2d(kernel, 0, stride, 1, 1)?;
    Ok(y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?)
}

/// Mirrors `pad` samples at both ends of a dimension, the border itself not repeated.
fn reflected(x: &Tensor, dim: usize, pad: usize) -> Result<Tensor, ModelError> {
    let len = x.dim(dim)?;
    let head = (1..=pad).rev();
    let tail = (1..=pad).map(|k| len.saturating_sub(1 + k));
    let index: Vec<u32> = head.chain(0..len).chain(tail).map(|at| at as u32).collect();
    Ok(x.contiguous()?.index_select(&Tensor::new(index, &Device::Cpu)?, dim)?)
}

fn instance_norm(weights: &StyleWeights, name: &str, x: &Tensor) -> Result<Tensor, ModelError> {
    let mean = x.mean_keepdim(3)?.mean_keepdim(2)?;
    let centred = x.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim(3)?.mean_keepdim(2)?;
    let normalised = centred.broadcast_div(&(variance + NORM_EPSILON)?.sqrt()?)?;
    let scale = weights.tensor(&format!("{name}.weight"))?.reshape((1, (), 1, 1))?;
    let shift = weights.tensor(&format!("{name}.bias"))?.reshape((1, (), 1, 1))?;
    Ok(normalised.broadcast_mul(&scale)?.broadcast_add(&shift)?)
}
