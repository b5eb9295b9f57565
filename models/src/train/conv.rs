//! Convolution for candle autograd: reflection padding, stride, nearest upsampling, bias and ReLU in one operation, with
//! its gradients, all by direct sums over taps.
//!
//! Stock candle has no reflection padding and its convolution is an order of magnitude slower on a processor; composed from
//! primitives a layer would also write every intermediate picture. Here the forward pass reads the input once into a padded
//! buffer (upsampled by index on the way) and writes the output once.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::buffer::{Scratch, floats, tensor, with_floats};
use super::stock;
use super::tap::{PackedWeights, TapGrid, accumulate_weight_gradient, correlate};

/// What a convolution does around its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Step of the output over the (upsampled) input, 1 or 2.
    pub stride: usize,
    /// Nearest-neighbour factor before the padding, 1 or 2.
    pub upsample: usize,
    /// Ends in ReLU.
    pub relu: bool,
    /// The input wants a gradient.
    pub input_gradient: bool,
    /// Weights and bias want gradients.
    pub weight_gradient: bool,
}

impl ConvSpec {
    /// A trained convolution of stride 1 without upsampling or ReLU.
    pub const TRAINED: Self = Self { stride: 1, upsample: 1, relu: false, input_gradient: true, weight_gradient: true };
    /// A frozen convolution ending in ReLU, as feature networks are made of.
    pub const FROZEN_RELU: Self =
        Self { stride: 1, upsample: 1, relu: true, input_gradient: true, weight_gradient: false };
}

/// Convolves `input` (N, C, H, W) f32 with `weight` (O, C, K, K), K odd, after reflection padding of K/2, and adds `bias` (O).
///
/// The output is (N, O, ceil(uH / s), ceil(uW / s)) for upsampling u and stride s.
///
/// # Errors
/// When shapes disagree, a side is not larger than the padding, or the tensors are not f32 on one device.
pub fn convolve(input: &Tensor, weight: &Tensor, bias: &Tensor, spec: ConvSpec) -> Result<Tensor> {
    if stock::serves(input.device()) {
        return stock::convolve(input, weight, bias, spec);
    }
    input.contiguous()?.apply_op3(weight, bias, Convolution { spec })
}

#[derive(Debug)]
struct Convolution {
    spec: ConvSpec,
}

/// Sizes and index maps of one convolution.
#[derive(Debug)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    height: usize,
    width: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    /// Input row of each padded row.
    pub(super) rows: Vec<usize>,
    /// Input column of each padded column.
    pub(super) columns: Vec<usize>,
}

/// Index of the input for each padded index: reflection of the upsampled line, then the nearest sample.
fn reflected(size: usize, upsample: usize, padding: usize) -> Result<Vec<usize>> {
    let upsampled = size * upsample;
    if upsampled <= padding {
        candle_core::bail!("reflection padding of {padding} needs a side above it, got {upsampled}");
    }
    let last = upsampled - 1;
    Ok((0..upsampled + 2 * padding)
        .map(|index| {
            let mirrored = index.abs_diff(padding);
            let mirrored = if mirrored > last { 2 * last - mirrored } else { mirrored };
            mirrored / upsample
        })
        .collect())
}

impl Geometry {
    pub(super) fn new(input: &Shape, weight: &Shape, spec: ConvSpec) -> Result<Self> {
        let (batch, inputs, height, width) = input.dims4()?;
        let (outputs, weight_inputs, kernel, kernel_width) = weight.dims4()?;
        if inputs != weight_inputs || kernel != kernel_width || kernel % 2 == 0 {
            candle_core::bail!("convolution of {input:?} by {weight:?}: expected (O, {inputs}, K, K) with odd K");
        }
        let padding = kernel / 2;
        let rows = reflected(height, spec.upsample, padding)?;
        let columns = reflected(width, spec.upsample, padding)?;
        let out_height = (rows.len() - kernel) / spec.stride + 1;
        let out_width = (columns.len() - kernel) / spec.stride + 1;
        let stride = spec.stride;
        Ok(Self { batch, inputs, outputs, kernel, stride, height, width, out_height, out_width, rows, columns })
    }

    /// Rows and columns of one phase plane of the padded input.
    fn phase_size(&self) -> (usize, usize) {
        (self.rows.len().div_ceil(self.stride), self.columns.len().div_ceil(self.stride))
    }

    fn input_len(&self) -> usize {
        self.inputs * self.height * self.width
    }

    fn output_len(&self) -> usize {
        self.outputs * self.out_height * self.out_width
    }

    /// The padded input of one sample as planes `[channel][row phase][column phase]`.
    fn pad(&self, input: &[f32]) -> Scratch {
        let (phase_height, phase_width) = self.phase_size();
        let stride = self.stride;
        let mut padded = Scratch::of(self.inputs * stride * stride * phase_height * phase_width);
        for (channel, plane) in input.chunks_exact(self.height * self.width).enumerate() {
            for (y, &row) in self.rows.iter().enumerate() {
                let source = &plane[row * self.width..][..self.width];
                for phase in 0..stride {
                    let plane = (channel * stride + y % stride) * stride + phase;
                    let target = &mut padded[(plane * phase_height + y / stride) * phase_width..][..phase_width];
                    self.pad_row(source, phase, target);
                }
            }
        }
        padded
    }

    fn pad_row(&self, source: &[f32], phase: usize, target: &mut [f32]) {
        if self.columns.len() == self.width + self.kernel - 1 && self.stride == 1 {
            let padding = self.kernel / 2;
            target[padding..padding + self.width].copy_from_slice(source);
            for side in (0..padding).chain(padding + self.width..target.len()) {
                target[side] = source[self.columns[side]];
            }
            return;
        }
        let columns = self.columns.iter().skip(phase).step_by(self.stride);
        for (target, &column) in target.iter_mut().zip(columns) {
            *target = source[column];
        }
    }

    /// Taps in the order of the weight tensor's (input channel, row, column).
    fn forward_grid(&self) -> TapGrid {
        let (phase_height, phase_width) = self.phase_size();
        let stride = self.stride;
        // Neighbours in a kernel row are neighbours in the buffer unless the phases part them.
        let run = if stride == 1 { self.kernel } else { 1 };
        let mut bases = Vec::with_capacity(self.inputs * self.kernel * self.kernel / run);
        for channel in 0..self.inputs {
            for ky in 0..self.kernel {
                for kx in (0..self.kernel).step_by(run) {
                    let plane = (channel * stride + ky % stride) * stride + kx % stride;
                    bases.push((plane * phase_height + ky / stride) * phase_width + kx / stride);
                }
            }
        }
        TapGrid { bases, run, row_stride: phase_width, height: self.out_height, width: self.out_width }
    }

    /// Adds the gradient of one sample's input to `out`.
    fn add_input_gradient(&self, gradient: &[f32], weight: &[f32], out: &mut [f32]) {
        let reach = (self.kernel - 1) / self.stride;
        let (phase_height, phase_width) = self.phase_size();
        let (rows, columns) = (phase_height + reach, phase_width + reach);
        let mut padded = Scratch::zeroed(self.outputs * rows * columns);
        for (line, source) in gradient.chunks_exact(self.out_width).enumerate() {
            let (channel, y) = (line / self.out_height, line % self.out_height);
            let start = (channel * rows + reach + y) * columns + reach;
            padded[start..start + self.out_width].copy_from_slice(source);
        }
        for row_phase in 0..self.stride {
            for column_phase in 0..self.stride {
                self.add_phase_gradient(&padded, (rows, columns), (row_phase, column_phase), weight, out);
            }
        }
    }

    /// Gradient of the padded pixels of one phase, folded onto the pixels that they were copied from.
    fn add_phase_gradient(
        &self,
        padded: &[f32],
        (rows, columns): (usize, usize),
        (row_phase, column_phase): (usize, usize),
        weight: &[f32],
        out: &mut [f32],
    ) {
        let (kernel, stride) = (self.kernel, self.stride);
        let reach = (kernel - 1) / stride;
        let run = (kernel - column_phase).div_ceil(stride);
        let mut bases = Vec::new();
        let mut offsets = Vec::new();
        for channel in 0..self.outputs {
            for ky in (row_phase..kernel).step_by(stride) {
                // From the right to the left, which in the buffer is from the left to the right.
                for (tap, kx) in (column_phase..kernel).step_by(stride).rev().enumerate() {
                    if tap % run == 0 {
                        bases.push((channel * rows + reach - ky / stride) * columns + reach - kx / stride);
                    }
                    offsets.push(channel * self.inputs * kernel * kernel + ky * kernel + kx);
                }
            }
        }
        let height = (self.rows.len() - row_phase).div_ceil(stride);
        let width = (self.columns.len() - column_phase).div_ceil(stride);
        let packed = PackedWeights::pack(offsets.len(), self.inputs, |tap, channel| {
            weight[offsets[tap] + channel * kernel * kernel]
        });
        let grid = TapGrid { bases, run, row_stride: columns, height, width };
        let mut slopes = Scratch::of(self.inputs * height * width);
        correlate(padded, &grid, &packed, None, false, &mut slopes);
        for (line, source) in slopes.chunks_exact(width).enumerate() {
            let (channel, y) = (line / height, line % height);
            let row = self.rows[y * stride + row_phase];
            let target = &mut out[(channel * self.height + row) * self.width..][..self.width];
            self.fold_row(source, column_phase, target);
        }
    }

    fn fold_row(&self, source: &[f32], phase: usize, target: &mut [f32]) {
        if self.columns.len() == self.width + self.kernel - 1 && self.stride == 1 {
            let padding = self.kernel / 2;
            for (target, source) in target.iter_mut().zip(&source[padding..]) {
                *target += source;
            }
            for side in (0..padding).chain(padding + self.width..source.len()) {
                target[self.columns[side]] += source[side];
            }
            return;
        }
        let columns = self.columns.iter().skip(phase).step_by(self.stride);
        for (source, &column) in source.iter().zip(columns) {
            target[column] += source;
        }
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "reflected-convolution"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = Geometry::new(input_layout.shape(), weight_layout.shape(), self.spec)?;
        let (input, weight) = (floats(input, input_layout)?, floats(weight, weight_layout)?);
        let bias = floats(bias, bias_layout)?;
        if bias.len() != shape.outputs {
            candle_core::bail!("bias of {} for {} output channels", bias.len(), shape.outputs);
        }
        let grid = shape.forward_grid();
        let taps = grid.taps();
        let packed = PackedWeights::pack(taps, shape.outputs, |tap, channel| weight[channel * taps + tap]);
        let mut out = vec![0.0; shape.batch * shape.output_len()];
        for (input, out) in input.chunks_exact(shape.input_len()).zip(out.chunks_exact_mut(shape.output_len())) {
            correlate(&shape.pad(input), &grid, &packed, Some(bias), self.spec.relu, out);
        }
        let out_shape = (shape.batch, shape.outputs, shape.out_height, shape.out_width);
        Ok((CpuStorage::F32(out), out_shape.into()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let shape = Geometry::new(input.shape(), weight.shape(), self.spec)?;
        let mut slopes = Slopes {
            input: vec![0.0; if self.spec.input_gradient { shape.batch * shape.input_len() } else { 0 }],
            weight: vec![0.0; if self.spec.weight_gradient { weight.elem_count() } else { 0 }],
            bias: vec![0.0; if self.spec.weight_gradient { shape.outputs } else { 0 }],
        };
        with_floats(gradient, |gradient| {
            if !self.spec.relu {
                return slopes.add(&shape, self.spec, input, weight, gradient);
            }
            let mut masked = Scratch::of(gradient.len());
            with_floats(result, |result| {
                for ((masked, gradient), result) in masked.iter_mut().zip(gradient).zip(result) {
                    *masked = if *result > 0.0 { *gradient } else { 0.0 };
                }
                Ok(())
            })?;
            slopes.add(&shape, self.spec, input, weight, &masked)
        })?;
        let input_gradient = if self.spec.input_gradient { Some(tensor(slopes.input, input.shape())?) } else { None };
        if !self.spec.weight_gradient {
            return Ok((input_gradient, None, None));
        }
        let weight_gradient = tensor(slopes.weight, weight.shape())?;
        Ok((input_gradient, Some(weight_gradient), Some(tensor(slopes.bias, bias.shape())?)))
    }
}

/// Gradients of one convolution; empty where not wanted.
struct Slopes {
    input: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Slopes {
    fn add(
        &mut self,
        shape: &Geometry,
        spec: ConvSpec,
        input: &Tensor,
        weight: &Tensor,
        gradient: &[f32],
    ) -> Result<()> {
        if spec.input_gradient {
            with_floats(weight, |weight| {
                let samples = self.input.chunks_exact_mut(shape.input_len());
                for (out, gradient) in samples.zip(gradient.chunks_exact(shape.output_len())) {
                    shape.add_input_gradient(gradient, weight, out);
                }
                Ok(())
            })?;
        }
        if !spec.weight_gradient {
            return Ok(());
        }
        let grid = shape.forward_grid();
        with_floats(input, |input| {
            let samples = input.chunks_exact(shape.input_len());
            for (input, gradient) in samples.zip(gradient.chunks_exact(shape.output_len())) {
                let padded = shape.pad(input);
                accumulate_weight_gradient(&padded, &grid, gradient, shape.outputs, &mut self.weight);
            }
            Ok(())
        })?;
        for (line, plane) in gradient.chunks_exact(shape.out_height * shape.out_width).enumerate() {
            self.bias[line % shape.outputs] += sum(plane);
        }
        Ok(())
    }
}

/// Sum in eight lanes, which the compiler turns into vectors.
pub(super) fn sum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0_f32; 8];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().chain(rest).sum()
}
