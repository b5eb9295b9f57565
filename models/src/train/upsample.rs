//! Bilinear upsampling to twice the size for candle autograd, as the network for any style runs it.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::buffer::{floats, tensor, with_floats};
use super::stock;
use crate::any_style::{FAR, NEAR, neighbours, upsampled};

/// Twice the size of `input` (N, C, H, W): bilinear, pixel centres kept in place and edges repeated.
///
/// # Errors
/// When the tensor is not f32 with four dimensions.
pub fn upsample(input: &Tensor) -> Result<Tensor> {
    if stock::serves(input.device()) {
        return stock::upsample(input);
    }
    input.contiguous()?.apply_op1(Upsample)
}

#[derive(Debug)]
struct Upsample;

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "bilinear-upsample"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let out = upsampled(floats(input, layout)?, (height, width));
        Ok((CpuStorage::F32(out), (batch, channels, 2 * height, 2 * width).into()))
    }

    fn bwd(&self, input: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, height, width) = input.dims4()?;
        let mut slopes = vec![0.0; input.elem_count()];
        with_floats(gradient, |gradient| {
            let planes = slopes.chunks_exact_mut(height * width).zip(gradient.chunks_exact(4 * height * width));
            let mut row = vec![0.0; width];
            for (slopes, gradient) in planes {
                for (y, line) in gradient.chunks_exact(2 * width).enumerate() {
                    narrow(line, &mut row);
                    let (near, far) = neighbours(y, height);
                    add_scaled(&mut slopes[near * width..][..width], &row, NEAR);
                    add_scaled(&mut slopes[far * width..][..width], &row, FAR);
                }
            }
            Ok(())
        })?;
        Ok(Some(tensor(slopes, input.shape())?))
    }
}

/// Gradient of a row from that of the row of twice its width.
fn narrow(line: &[f32], row: &mut [f32]) {
    let last = row.len() - 1;
    let (pairs, _) = line.as_chunks::<2>();
    for (slope, pair) in row.iter_mut().zip(pairs) {
        *slope = NEAR * (pair[0] + pair[1]);
    }
    for (slope, pair) in row.iter_mut().zip(&pairs[1..]) {
        *slope += FAR * pair[0];
    }
    for (slope, pair) in row[1..].iter_mut().zip(pairs) {
        *slope += FAR * pair[1];
    }
    // At the edges both samples are the same one.
    row[0] += FAR * pairs[0][0];
    row[last] += FAR * pairs[last][1];
}

fn add_scaled(sums: &mut [f32], values: &[f32], factor: f32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += factor * value;
    }
}
