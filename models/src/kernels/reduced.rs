//! Weights of a 3x3 convolution in 16-bit integers, with the scales that a calibration found.
//!
//! A transformed input is scaled per position so that the largest value that calibration saw becomes a quarter of what 16 bits
//! hold; what goes beyond the whole is limited. A column of weights is scaled so that the sum of its absolute values,
//! times the largest input, stays below 2^31: no sum overflows, whatever the input.

use super::buffer::Buffer;
use super::isa::Isa;

/// The input that the largest value of calibration becomes: three times as much again is left for frames it did not see.
const PEAK: f32 = 8_191.0;
/// Sides in which calibration saw next to nothing are scaled as if it had seen this share of the layer's largest: their
/// rounding stays below that of the largest, and they are not limited at the first frame that has something there.
const PEAK_SHARE_MIN: f32 = 1.0 / 16.0;
/// The most that absolute weights of a column add up to: times 2^15 it is below 2^31.
const COLUMN_SUM_MAX: f64 = 65_535.0;

/// Weights of one convolution, packed for one instruction set.
#[derive(Clone, Debug)]
pub(crate) struct ReducedWeights {
    /// 16-bit integers: `[position][panel][pair of inputs][panel width][2]`
    pub(crate) packed: Buffer,
    /// Factor from sums to products: `[position][output]`, outputs padded to whole registers.
    pub(crate) column_scales: Buffer,
    /// Factor from transformed inputs to integers, by side.
    pub(crate) side_scales: Buffer,
}

/// Which weight a column of a position has for an input: `value(position, input, output)`.
pub(crate) trait Weight: Fn(usize, usize, usize) -> f64 {}
impl<F: Fn(usize, usize, usize) -> f64> Weight for F {}

/// What the weights are packed for.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub(crate) isa: Isa,
    pub(crate) ins: usize,
    pub(crate) outs: usize,
    /// Which side each position takes.
    pub(crate) sides: &'a [usize],
    /// The largest absolute input that calibration saw, by side.
    pub(crate) peaks: &'a [f32],
}

impl ReducedWeights {
    pub(crate) fn pack(shape: &Shape<'_>, weight: impl Weight) -> Self {
        let lanes = shape.isa.lanes();
        let stride = shape.outs.next_multiple_of(lanes);
        let largest = shape.peaks.iter().copied().filter(|peak| peak.is_finite()).fold(0.0, f32::max);
        let side_scales: Vec<f32> =
            shape.peaks.iter().map(|&peak| side_scale(peak.max(largest * PEAK_SHARE_MIN))).collect();
        let (mut packed, mut column_scales) = (Vec::new(), Vec::new());
        for (position, &side) in shape.sides.iter().enumerate() {
            let columns: Vec<Column> =
                (0..shape.outs).map(|out| Column::of(shape.ins, |input| weight(position, input, out))).collect();
            pack_position(&columns, shape.ins, lanes, &mut packed);
            let scale = |out: usize| columns.get(out).map_or(0.0, |c| (c.scale / f64::from(side_scales[side])) as f32);
            column_scales.extend((0..stride).map(scale));
        }
        Self {
            packed: buffer_of(&packed),
            column_scales: Buffer::from_values(&column_scales),
            side_scales: Buffer::from_values(&side_scales),
        }
    }

    pub(crate) fn byte_len(&self) -> usize {
        self.packed.byte_len() + self.column_scales.byte_len() + self.side_scales.byte_len()
    }
}

/// Where nothing but zeros was seen, or nothing that is a number, any scale does.
fn side_scale(peak: f32) -> f32 {
    let scale = PEAK / peak;
    if scale.is_normal() { scale } else { 1.0 }
}

/// The weights of one output at one position, and the factor from integers back to them.
struct Column {
    values: Vec<i16>,
    scale: f64,
}

impl Column {
    fn of(ins: usize, weight: impl Fn(usize) -> f64) -> Self {
        let weights: Vec<f64> = (0..ins).map(weight).collect();
        let sum: f64 = weights.iter().map(|w| w.abs()).sum();
        let largest = weights.iter().fold(0.0f64, |largest, w| largest.max(w.abs()));
        // Rounding adds at most a half to each.
        let scale = (sum / (COLUMN_SUM_MAX - ins as f64 / 2.0)).max(largest / f64::from(i16::MAX));
        let whole = |w: &f64| if scale > 0.0 { (w / scale).round() as i16 } else { 0 };
        Self { values: weights.iter().map(whole).collect(), scale }
    }
}

/// Appends the columns by panels of two registers, a last one of one; inputs in pairs, a last one paired with zero.
fn pack_position(columns: &[Column], ins: usize, lanes: usize, out: &mut Vec<i16>) {
    let value = |column: usize, input: usize| {
        columns.get(column).and_then(|column| column.values.get(input)).copied().unwrap_or_default()
    };
    let vectors = columns.len().div_ceil(lanes);
    for first in (0..vectors).step_by(2) {
        let width = (vectors - first).min(2) * lanes;
        for pair in 0..ins.div_ceil(2) {
            for column in first * lanes..first * lanes + width {
                out.extend([value(column, 2 * pair), value(column, 2 * pair + 1)]);
            }
        }
    }
}

fn buffer_of(values: &[i16]) -> Buffer {
    let mut buffer = Buffer::default();
    buffer.reserve(values.len().div_ceil(2));
    bytemuck::cast_slice_mut(buffer.as_mut_slice())[..values.len()].copy_from_slice(values);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_input_can_overflow_a_sum(weights in prop::collection::vec(-3.0f64..3.0, 1..600)) {
            let column = Column::of(weights.len(), |input| weights[input]);
            let worst: i64 = column.values.iter().map(|&w| i64::from(w).abs() * 32_768).sum();
            prop_assert!(worst < 1 << 31, "{worst}");
            for (&whole, weight) in column.values.iter().zip(&weights) {
                prop_assert!((f64::from(whole) * column.scale - weight).abs() <= 0.5001 * column.scale);
            }
        }
    }

    #[test]
    fn strange_peaks_and_weights_are_survived() {
        for peak in [0.0, f32::NAN, f32::INFINITY, 1e-42] {
            assert_eq!(side_scale(peak), 1.0, "{peak}");
        }
        assert_eq!(Column::of(3, |_| 0.0).values, [0, 0, 0]);
        assert_eq!(Column::of(1, |_| -2.0).values, [-32_767], "a lone weight fills its sixteen bits");
    }
}
