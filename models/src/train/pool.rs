//! Max-pooling of 2x2 for candle autograd.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::buffer::{floats, tensor, with_floats};
use super::stock;

/// Keeps the largest of each 2x2 block of `input` (N, C, H, W); an odd last row or column is dropped, as PyTorch does.
///
/// # Errors
/// When the tensor is not f32 with four dimensions.
pub fn max_pool(input: &Tensor) -> Result<Tensor> {
    if stock::serves(input.device()) {
        return stock::max_pool(input);
    }
    input.contiguous()?.apply_op1(MaxPool)
}

#[derive(Debug)]
struct MaxPool;

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let (out_height, out_width) = (height / 2, width / 2);
        let input = floats(input, layout)?;
        let mut out = vec![0.0; batch * channels * out_height * out_width];
        for (line, out) in out.chunks_exact_mut(out_width.max(1)).enumerate() {
            let (top, bottom) = rows(input, line, (height, width));
            for (x, out) in out.iter_mut().enumerate() {
                *out = top[2 * x].max(top[2 * x + 1]).max(bottom[2 * x].max(bottom[2 * x + 1]));
            }
        }
        Ok((CpuStorage::F32(out), (batch, channels, out_height, out_width).into()))
    }

    fn bwd(&self, input: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, height, width) = input.dims4()?;
        let out_width = width / 2;
        let mut slopes = vec![0.0; input.elem_count()];
        with_floats(input, |input| {
            with_floats(result, |result| {
                with_floats(gradient, |gradient| {
                    let lines = result.chunks_exact(out_width.max(1)).zip(gradient.chunks_exact(out_width.max(1)));
                    for (line, (result, gradient)) in lines.enumerate() {
                        let (top, bottom) = rows(input, line, (height, width));
                        let start = row_start(line, (height, width));
                        let (top_slopes, bottom_slopes) = slopes[start..start + 2 * width].split_at_mut(width);
                        for x in 0..out_width {
                            // The first of equal values takes the gradient.
                            let left = 2 * x;
                            let slot = if top[left] == result[x] {
                                &mut top_slopes[left]
                            } else if top[left + 1] == result[x] {
                                &mut top_slopes[left + 1]
                            } else if bottom[left] == result[x] {
                                &mut bottom_slopes[left]
                            } else {
                                &mut bottom_slopes[left + 1]
                            };
                            *slot = gradient[x];
                        }
                    }
                    Ok(())
                })
            })
        })?;
        Ok(Some(tensor(slopes, input.shape())?))
    }
}

/// Offset of the upper of the two input rows behind an output line.
fn row_start(line: usize, (height, width): (usize, usize)) -> usize {
    let out_height = height / 2;
    ((line / out_height) * height + 2 * (line % out_height)) * width
}

fn rows(input: &[f32], line: usize, size: (usize, usize)) -> (&[f32], &[f32]) {
    let start = row_start(line, size);
    input[start..start + 2 * size.1].split_at(size.1)
}
