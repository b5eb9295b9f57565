//! Mean and deviation of every channel for candle autograd: what adaptive instance normalisation (Huang and Belongie 2017)
//! takes of a style, and what its style term compares.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::buffer::{floats, tensor, with_floats};
use super::norm::{normalize, sum_pairs};
use super::stock;
use crate::any_style::VARIANCE_MIN;

/// Means and deviations (2, C) of one sample's features (1, C, H, W), the variance over HW - 1 and 1e-5 added to it, as the
/// network for any style has them.
///
/// # Errors
/// When the batch is not one, or the tensor is not f32.
pub fn moments(features: &Tensor) -> Result<Tensor> {
    if stock::serves(features.device()) {
        return stock::moments(features);
    }
    features.contiguous()?.apply_op1(Moments)
}

/// Gives every plane of `features` (N, C, H, W) the mean and deviation of `moments` (2, C).
///
/// # Errors
/// When the channels disagree.
pub fn impose(features: &Tensor, moments: &Tensor) -> Result<Tensor> {
    normalize(features, &moments.get(1)?, &moments.get(0)?, false)
}

#[derive(Debug)]
struct Moments;

/// Mean and deviation of a plane.
fn of_plane(plane: &[f32]) -> (f32, f32) {
    let mean = sum_pairs(plane, plane, |value, _| value) / plane.len() as f32;
    let squares = sum_pairs(plane, plane, |value, _| (value - mean) * (value - mean));
    (mean, (squares / degrees(plane) + VARIANCE_MIN as f32).sqrt())
}

/// What the sum of squares is divided by.
fn degrees(plane: &[f32]) -> f32 {
    plane.len().saturating_sub(1).max(1) as f32
}

impl CustomOp1 for Moments {
    fn name(&self) -> &'static str {
        "moments"
    }

    fn cpu_fwd(&self, features: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        if batch != 1 {
            candle_core::bail!("moments of one sample, got {batch}");
        }
        let planes = floats(features, layout)?.chunks_exact(height * width);
        let (means, deviations): (Vec<f32>, Vec<f32>) = planes.map(of_plane).unzip();
        Ok((CpuStorage::F32([means, deviations].concat()), (2, channels).into()))
    }

    fn bwd(&self, features: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, height, width) = features.dims4()?;
        let slopes_of = gradient.to_vec2::<f32>()?;
        let mut slopes = vec![0.0; features.elem_count()];
        with_floats(features, |features| {
            let planes = features.chunks_exact(height * width).zip(slopes.chunks_exact_mut(height * width));
            for (channel, (plane, slopes)) in planes.enumerate() {
                let (mean, deviation) = of_plane(plane);
                let shift = slopes_of[0][channel] / plane.len() as f32;
                let scale = slopes_of[1][channel] / (degrees(plane) * deviation);
                for (slope, value) in slopes.iter_mut().zip(plane) {
                    *slope = shift + scale * (value - mean);
                }
            }
            Ok(())
        })?;
        Ok(Some(tensor(slopes, features.shape())?))
    }
}
