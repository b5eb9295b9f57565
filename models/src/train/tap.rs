//! Direct convolution over "taps", the arithmetic under the training convolutions.
//!
//! A convolution output is a sum over taps, one for each (input channel, kernel row, kernel column): `out[c][y][x] = sum_t
//! w[t][c] * input[base_t + y * row_stride + x]`. Once the input lies in a padded (and, for strides, phase-split) buffer,
//! every stride and every gradient has this form and only the bases differ, so two kernels serve the whole of training: no
//! unfolded copy of the input is ever written, which is what made the stock convolution slow. The vectors are as wide as the
//! processor has them (`pulp` chooses at run time), all sums run in a fixed order.

use pulp::{Arch, Simd, WithSimd};

/// Output channels that one register block of the weight gradient holds.
const CHANNEL_BLOCK: usize = 4;
/// Taps that one block of the weight gradient holds.
const TAP_BLOCK: usize = 3;
/// Pixels of a row group of the weight gradient: enough to pay for loading the sums.
const GROUP_PIXELS: usize = 192;

/// Where the taps of a convolution read: base offsets into a padded buffer, its row stride, and the output size.
///
/// Taps come in runs of neighbours (a kernel row, where the stride is one), so that one check serves a run.
#[derive(Debug, Clone)]
pub(crate) struct TapGrid {
    /// Base offset of the first tap of each run; the others follow at one float each.
    pub(crate) bases: Vec<usize>,
    /// Taps of a run.
    pub(crate) run: usize,
    /// Floats from one row of the buffer to the next.
    pub(crate) row_stride: usize,
    /// Output rows.
    pub(crate) height: usize,
    /// Output columns.
    pub(crate) width: usize,
}

impl TapGrid {
    /// Number of taps.
    pub(crate) fn taps(&self) -> usize {
        self.bases.len() * self.run
    }

    /// The same taps as runs of one.
    fn single(&self) -> Self {
        let bases = self.bases.iter().flat_map(|&base| base..base + self.run).collect();
        Self { bases, run: 1, ..*self }
    }
}

/// Weights as the kernel reads them: blocks of output channels, in each block tap by tap.
#[derive(Debug, Clone)]
pub(crate) struct PackedWeights {
    channels: usize,
    taps: usize,
    values: Vec<f32>,
}

impl PackedWeights {
    /// Packs `weight(tap, channel)`.
    pub(crate) fn pack(taps: usize, channels: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        let mut values = Vec::with_capacity(taps * channels);
        let mut first = 0;
        while first < channels {
            let last = first + block_channels(channels - first);
            for tap in 0..taps {
                values.extend((first..last).map(|channel| weight(tap, channel)));
            }
            first = last;
        }
        Self { channels, taps, values }
    }
}

/// Output channels of the next register block, of `left` ones: with six channels, twelve sums, two vectors of pixels and one
/// weight just fit the sixteen registers of AVX2; so sixes, and fours rather than a six with a rest of one or two.
#[inline(always)]
fn block_channels(left: usize) -> usize {
    match left {
        0..=6 => left,
        7 | 8 => 4,
        _ => 6,
    }
}

/// Writes `out[c][y][x] = bias[c] + sum_t w[t][c] * input[base_t + y * row_stride + x]`, through ReLU where `relu`.
///
/// `out` is channel planes without gaps.
///
/// # Panics
/// When a buffer is shorter than the grid and the weights say.
pub(crate) fn correlate(
    input: &[f32],
    grid: &TapGrid,
    weights: &PackedWeights,
    bias: Option<&[f32]>,
    relu: bool,
    out: &mut [f32],
) {
    assert_eq!(grid.taps(), weights.taps, "a weight for every tap");
    assert_eq!(out.len(), weights.channels * grid.height * grid.width, "output planes");
    match grid.run {
        9 => Arch::new().dispatch(Correlate::<9> { input, grid, weights, bias, relu, out }),
        3 => Arch::new().dispatch(Correlate::<3> { input, grid, weights, bias, relu, out }),
        1 => Arch::new().dispatch(Correlate::<1> { input, grid, weights, bias, relu, out }),
        _ => {
            let grid = &grid.single();
            Arch::new().dispatch(Correlate::<1> { input, grid, weights, bias, relu, out });
        }
    }
}

/// Adds `sum_{y,x} gradient[c][y][x] * input[base_t + y * row_stride + x]` to `out[c][t]`.
///
/// `gradient` is channel planes without gaps.
///
/// # Panics
/// When a buffer is shorter than the grid says.
pub(crate) fn accumulate_weight_gradient(
    input: &[f32],
    grid: &TapGrid,
    gradient: &[f32],
    channels: usize,
    out: &mut [f32],
) {
    assert_eq!(gradient.len(), channels * grid.height * grid.width, "gradient planes");
    assert_eq!(out.len(), channels * grid.taps(), "weight gradient");
    let grid = &grid.single();
    Arch::new().dispatch(WeightGradient { input, grid, gradient, channels, out });
}

struct Correlate<'a, const RUN: usize> {
    input: &'a [f32],
    grid: &'a TapGrid,
    weights: &'a PackedWeights,
    bias: Option<&'a [f32]>,
    relu: bool,
    out: &'a mut [f32],
}

impl<const RUN: usize> WithSimd for Correlate<'_, RUN> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // With few channels more pixels make up for the sums that are missing to keep the multipliers busy.
        if self.weights.channels <= 3 { self.rows::<S, 3>(simd) } else { self.rows::<S, 2>(simd) }
    }
}

// Loops over indices, not iterators: everything here must become part of one function with the wide instructions, and
// iterator adapters were left out of it as calls.
#[allow(clippy::needless_range_loop)]
impl<const RUN: usize> Correlate<'_, RUN> {
    #[inline(always)]
    fn rows<S: Simd, const V: usize>(&mut self, simd: S) {
        let step = V * S::F32_LANES;
        for y in 0..self.grid.height {
            let mut x = 0;
            while x < self.grid.width {
                let width = self.grid.width - x;
                if width >= step {
                    self.pixels::<S, V>(simd, y, x, step);
                    x += step;
                } else {
                    self.pixels::<S, 1>(simd, y, x, width.min(S::F32_LANES));
                    x += S::F32_LANES;
                }
            }
        }
    }

    #[inline(always)]
    fn pixels<S: Simd, const V: usize>(&mut self, simd: S, y: usize, x: usize, width: usize) {
        let mut channel = 0;
        while channel < self.weights.channels {
            let count = block_channels(self.weights.channels - channel);
            match count {
                6 if V < 3 => self.block::<S, V, 6>(simd, channel, y, x, width),
                5 if V < 3 => self.block::<S, V, 5>(simd, channel, y, x, width),
                4 if V < 3 => self.block::<S, V, 4>(simd, channel, y, x, width),
                3 => self.block::<S, V, 3>(simd, channel, y, x, width),
                2 => self.block::<S, V, 2>(simd, channel, y, x, width),
                _ => self.block::<S, V, 1>(simd, channel, y, x, width),
            }
            channel += count;
        }
    }

    #[inline(always)]
    fn block<S: Simd, const V: usize, const C: usize>(
        &mut self,
        simd: S,
        channel: usize,
        y: usize,
        x: usize,
        width: usize,
    ) {
        // Several vectors are always whole: a constant width frees the inner loop of checks.
        let width = if V > 1 { V * S::F32_LANES } else { width };
        let taps = self.weights.taps;
        let weights = &self.weights.values[channel * taps..(channel + C) * taps];
        let (weights, _) = weights.as_chunks::<C>();
        let (runs, _) = weights.as_chunks::<RUN>();
        let origin = y * self.grid.row_stride + x;
        let mut sums = [[simd.splat_f32s(0.0); V]; C];
        if let Some(bias) = self.bias {
            for c in 0..C {
                sums[c] = [simd.splat_f32s(bias[channel + c]); V];
            }
        }
        let bases = &self.grid.bases[..runs.len()];
        for run in 0..runs.len() {
            let start = bases[run] + origin;
            let row = &self.input[start..start + (width + RUN - 1)];
            let weights = &runs[run];
            for tap in 0..RUN {
                let pixels = load::<S, V>(simd, &row[tap..tap + width]);
                for c in 0..C {
                    let weight = simd.splat_f32s(weights[tap][c]);
                    for v in 0..V {
                        sums[c][v] = simd.mul_add_e_f32s(pixels[v], weight, sums[c][v]);
                    }
                }
            }
        }
        let plane = self.grid.height * self.grid.width;
        for c in 0..C {
            let start = (channel + c) * plane + y * self.grid.width + x;
            if self.relu {
                for v in 0..V {
                    sums[c][v] = simd.max_f32s(sums[c][v], simd.splat_f32s(0.0));
                }
            }
            store::<S, V>(simd, &mut self.out[start..start + width], sums[c]);
        }
    }
}

/// `V` vectors from `row`; a single vector may be short, then zeros fill it.
#[allow(clippy::manual_memcpy)]
#[inline(always)]
fn load<S: Simd, const V: usize>(simd: S, row: &[f32]) -> [S::f32s; V] {
    let mut vectors = [simd.splat_f32s(0.0); V];
    if V > 1 || row.len() == S::F32_LANES {
        let (whole, _) = S::as_simd_f32s(row);
        for v in 0..V {
            vectors[v] = whole[v];
        }
    } else {
        vectors[0] = simd.partial_load_f32s(row);
    }
    vectors
}

/// The counterpart of [`load`].
#[allow(clippy::manual_memcpy)]
#[inline(always)]
fn store<S: Simd, const V: usize>(simd: S, row: &mut [f32], vectors: [S::f32s; V]) {
    if V > 1 || row.len() == S::F32_LANES {
        let (whole, _) = S::as_mut_simd_f32s(row);
        for v in 0..V {
            whole[v] = vectors[v];
        }
    } else {
        simd.partial_store_f32s(row, vectors[0]);
    }
}

struct WeightGradient<'a> {
    input: &'a [f32],
    grid: &'a TapGrid,
    gradient: &'a [f32],
    channels: usize,
    out: &'a mut [f32],
}

#[allow(clippy::needless_range_loop)]
impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let taps = self.grid.bases.len();
        // One vector of partial sums for each weight, so that the sums over lanes happen once.
        let mut sums = vec![simd.splat_f32s(0.0); self.channels * taps];
        let rows = (GROUP_PIXELS / self.grid.width.max(1)).clamp(1, self.grid.height.max(1));
        let mut top = 0;
        while top < self.grid.height {
            let bottom = self.grid.height.min(top + rows);
            let mut channel = 0;
            while channel < self.channels {
                match self.channels - channel {
                    1 => self.channels::<S, 1>(simd, channel, (top, bottom), &mut sums),
                    2 => self.channels::<S, 2>(simd, channel, (top, bottom), &mut sums),
                    3 => self.channels::<S, 3>(simd, channel, (top, bottom), &mut sums),
                    _ => self.channels::<S, 4>(simd, channel, (top, bottom), &mut sums),
                }
                channel += CHANNEL_BLOCK;
            }
            top = bottom;
        }
        for weight in 0..sums.len() {
            self.out[weight] += simd.reduce_sum_f32s(sums[weight]);
        }
    }
}

#[allow(clippy::needless_range_loop)]
impl WeightGradient<'_> {
    #[inline(always)]
    fn channels<S: Simd, const C: usize>(
        &self,
        simd: S,
        channel: usize,
        (top, bottom): (usize, usize),
        sums: &mut [S::f32s],
    ) {
        let taps = self.grid.bases.len();
        let mut tap = 0;
        while tap < taps {
            if tap + TAP_BLOCK <= taps {
                self.block::<S, C, TAP_BLOCK>(simd, channel, tap, (top, bottom), sums);
                tap += TAP_BLOCK;
            } else {
                self.block::<S, C, 1>(simd, channel, tap, (top, bottom), sums);
                tap += 1;
            }
        }
    }

    #[inline(always)]
    fn block<S: Simd, const C: usize, const T: usize>(
        &self,
        simd: S,
        channel: usize,
        tap: usize,
        (top, bottom): (usize, usize),
        sums: &mut [S::f32s],
    ) {
        let (height, width, taps) = (self.grid.height, self.grid.width, self.grid.bases.len());
        let mut block = [[simd.splat_f32s(0.0); T]; C];
        for y in top..bottom {
            let mut gradients: [&[S::f32s]; C] = [&[]; C];
            let mut gradient_tails: [&[f32]; C] = [&[]; C];
            for c in 0..C {
                let start = ((channel + c) * height + y) * width;
                (gradients[c], gradient_tails[c]) = S::as_simd_f32s(&self.gradient[start..start + width]);
            }
            let mut inputs: [&[S::f32s]; T] = [&[]; T];
            let mut input_tails: [&[f32]; T] = [&[]; T];
            for t in 0..T {
                let start = self.grid.bases[tap + t] + y * self.grid.row_stride;
                (inputs[t], input_tails[t]) = S::as_simd_f32s(&self.input[start..start + width]);
            }
            for x in 0..width / S::F32_LANES {
                let mut pixels = [simd.splat_f32s(0.0); T];
                for t in 0..T {
                    pixels[t] = inputs[t][x];
                }
                for c in 0..C {
                    for t in 0..T {
                        block[c][t] = simd.mul_add_e_f32s(gradients[c][x], pixels[t], block[c][t]);
                    }
                }
            }
            if !width.is_multiple_of(S::F32_LANES) {
                for c in 0..C {
                    let gradient = simd.partial_load_f32s(gradient_tails[c]);
                    for t in 0..T {
                        let pixel = simd.partial_load_f32s(input_tails[t]);
                        block[c][t] = simd.mul_add_e_f32s(gradient, pixel, block[c][t]);
                    }
                }
            }
        }
        for c in 0..C {
            for t in 0..T {
                let sum = &mut sums[(channel + c) * taps + tap + t];
                *sum = simd.add_f32s(*sum, block[c][t]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::random::Random;

    fn noise(len: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, 0);
        (0..len).map(|_| random.between(-1.0, 1.0)).collect()
    }

    fn check(channels: usize, run: usize, height: usize, width: usize) {
        let row_stride = width + 10;
        let bases: Vec<usize> = (0..4).map(|row| row * 5 + row % 3).collect();
        let grid = TapGrid { bases, run, row_stride, height, width };
        let taps = grid.taps();
        let input = noise(height * row_stride + 64, 1);
        let weights = noise(taps * channels, 2);
        let bias = noise(channels, 3);
        let gradient = noise(channels * height * width, 4);
        let mut out = vec![0.0; channels * height * width];
        let packed = PackedWeights::pack(taps, channels, |tap, channel| weights[channel * taps + tap]);
        correlate(&input, &grid, &packed, Some(&bias), false, &mut out);
        let mut slopes = vec![0.0; channels * taps];
        accumulate_weight_gradient(&input, &grid, &gradient, channels, &mut slopes);
        for c in 0..channels {
            let mut expected_slopes = vec![0.0_f64; taps];
            for pixel in 0..height * width {
                let (y, x) = (pixel / width, pixel % width);
                let mut expected = f64::from(bias[c]);
                for tap in 0..taps {
                    let base = grid.bases[tap / run] + tap % run;
                    let value = f64::from(input[base + y * row_stride + x]);
                    expected += f64::from(weights[c * taps + tap]) * value;
                    expected_slopes[tap] += f64::from(gradient[c * height * width + pixel]) * value;
                }
                let got = f64::from(out[c * height * width + pixel]);
                assert!((got - expected).abs() < 1e-4, "c {c} y {y} x {x}: {got} for {expected}");
            }
            for tap in 0..taps {
                let got = f64::from(slopes[c * taps + tap]);
                assert!((got - expected_slopes[tap]).abs() < 1e-3, "c {c} tap {tap}");
            }
        }
    }

    #[test]
    fn every_block_size_and_tail_sums_right() {
        for channels in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16] {
            for width in [1, 7, 8, 16, 23, 24, 33, 50] {
                for run in [1, 2, 3, 9] {
                    check(channels, run, 3, width);
                }
            }
        }
    }
}
