//! Products of 16-bit integers summed in 32 bits: the reduced precision of the 3x3 convolutions.
//!
//! A register of pairs holds two neighbouring terms of every column, so that one instruction multiplies and adds both.
//! Weights are scaled such that no sum can overflow ([`super::reduced`]); sums are therefore exact, and their order has
//! no influence.

#![allow(unsafe_code)]

use super::vector::Vector;

/// The integer side of a [`Vector`]: as many 32-bit lanes as it has f32 lanes.
///
/// # Safety
/// As for [`Vector`]; pointers must be valid for what each function reads or writes.
pub(crate) trait Pairs: Copy {
    /// 32-bit lanes: sums, or pairs of 16-bit terms.
    type Register: Copy;

    unsafe fn no_sums() -> Self::Register;
    /// Loads a pair for every lane.
    unsafe fn load_pairs(from: *const i16) -> Self::Register;
    /// Loads one pair into every lane.
    unsafe fn splat_pair(from: *const i16) -> Self::Register;
    /// `sums + a.0 * b.0 + a.1 * b.1` in every lane.
    unsafe fn add_products(sums: Self::Register, a: Self::Register, b: Self::Register) -> Self::Register;
    unsafe fn to_float(sums: Self::Register) -> Self;
    /// Rounds to the nearest integer (halves to even), limits to 16 bits and writes one value a lane.
    unsafe fn store_rounded(self, to: *mut i16);
}

/// `out[row][column] = scales[column] * sum over k of rows[row][k] * packed[k][column]`.
#[derive(Clone, Copy)]
pub(crate) struct PairProduct {
    /// First value of row 0.
    pub(crate) rows: *const i16,
    /// Values from one row to the next.
    pub(crate) row_stride: usize,
    /// Pairs of terms of each sum.
    pub(crate) pairs: usize,
    /// Columns packed by panels of two vectors (a last one of one), each `[pair][panel width][2]`.
    pub(crate) packed: *const i16,
    /// Factor of each column.
    pub(crate) scales: *const f32,
    /// First value of output row 0.
    pub(crate) out: *mut f32,
    /// Values from one output row to the next.
    pub(crate) out_stride: usize,
}

/// Computes `count` rows, rounded up to whole blocks, by `vectors` vectors of columns.
///
/// # Safety
/// Rows, packed columns, scales and output must hold what [`PairProduct`] says for the rounded number of rows; the
/// output must not be read or written by another thread meanwhile. The caller runs with `V`'s instructions enabled.
#[inline(always)]
pub(crate) unsafe fn multiply_pairs<V: Vector>(product: &PairProduct, count: usize, vectors: usize) {
    for panel in 0..vectors / 2 {
        let mut row = 0;
        while row < count {
            // SAFETY: the row is within the rounded count and the panel within the packed columns.
            unsafe { V::pairs_pair(product, row, panel * 2 * V::LANES) };
            row += V::BLOCK_ROWS;
        }
    }
    if vectors % 2 == 1 {
        let mut row = 0;
        while row < count {
            // SAFETY: as above, the last panel has one vector.
            unsafe { V::pairs_single(product, row, (vectors - 1) * V::LANES) };
            row += V::BLOCK_ROWS;
        }
    }
}

/// One register block of `R` rows by `C` vectors starting at `row` and `column`.
///
/// # Safety
/// As for [`multiply_pairs`].
#[inline(always)]
pub(crate) unsafe fn pairs_block<V: Vector, const R: usize, const C: usize>(
    product: &PairProduct,
    row: usize,
    column: usize,
) {
    // SAFETY: offsets stay within what the caller promised: rows `row..row + R`, columns of one panel.
    unsafe {
        let mut a = product.rows.add(row * product.row_stride);
        let mut b = product.packed.add(column * 2 * product.pairs);
        let mut sums = [[V::no_sums(); C]; R];
        for _ in 0..product.pairs {
            let mut columns = [V::no_sums(); C];
            for c in 0..C {
                columns[c] = V::load_pairs(b.add(c * 2 * V::LANES));
            }
            for r in 0..R {
                let pair = V::splat_pair(a.add(r * product.row_stride));
                for c in 0..C {
                    sums[r][c] = V::add_products(sums[r][c], pair, columns[c]);
                }
            }
            a = a.add(2);
            b = b.add(C * 2 * V::LANES);
        }
        let out = product.out.add(row * product.out_stride + column);
        for c in 0..C {
            let scale = V::load(product.scales.add(column + c * V::LANES));
            for r in 0..R {
                let value = V::to_float(sums[r][c]).mul_add(scale, V::zero());
                value.store(out.add(r * product.out_stride + c * V::LANES));
            }
        }
    }
}

/// Integer lanes in plain Rust.
macro_rules! plain_pairs {
    ($vector:ident, $lanes:literal) => {
        impl super::pairs::Pairs for $vector {
            type Register = [i32; $lanes];

            #[inline(always)]
            unsafe fn no_sums() -> Self::Register {
                [0; $lanes]
            }
            #[inline(always)]
            unsafe fn load_pairs(from: *const i16) -> Self::Register {
                // SAFETY: the caller promises a pair a lane; alignment is not assumed.
                unsafe { from.cast::<[i32; $lanes]>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn splat_pair(from: *const i16) -> Self::Register {
                // SAFETY: the caller promises a pair; alignment is not assumed.
                [unsafe { from.cast::<i32>().read_unaligned() }; $lanes]
            }
            #[inline(always)]
            unsafe fn add_products(mut sums: Self::Register, a: Self::Register, b: Self::Register) -> Self::Register {
                for lane in 0..$lanes {
                    let low = i32::from(a[lane] as i16) * i32::from(b[lane] as i16);
                    sums[lane] += low + (a[lane] >> 16) * (b[lane] >> 16);
                }
                sums
            }
            #[inline(always)]
            unsafe fn to_float(sums: Self::Register) -> Self {
                Self(sums.map(|sum| sum as f32))
            }
            #[inline(always)]
            unsafe fn store_rounded(self, to: *mut i16) {
                // A cast from float to integer limits; halves go to even as in the instruction sets.
                let rounded = self.0.map(|value| value.round_ties_even() as i16);
                // SAFETY: the caller promises a value a lane; alignment is not assumed.
                unsafe { to.cast::<[i16; $lanes]>().write_unaligned(rounded) }
            }
        }
    };
}
pub(crate) use plain_pairs;

#[cfg(test)]
mod tests {
    use super::super::isa::{Isa, Kernel};
    use super::*;
    use proptest::prelude::*;

    struct Multiply(PairProduct, usize, usize);

    impl Kernel for Multiply {
        unsafe fn run<V: Vector>(self) {
            // SAFETY: the test lays out what the product says.
            unsafe { multiply_pairs::<V>(&self.0, self.1, self.2) }
        }
    }

    struct Round<'a>(&'a [f32], &'a mut [i16]);

    impl Kernel for Round<'_> {
        unsafe fn run<V: Vector>(self) {
            for at in (0..self.0.len()).step_by(V::LANES) {
                // SAFETY: both slices are whole registers long.
                unsafe { V::load(self.0.as_ptr().add(at)).store_rounded(self.1.as_mut_ptr().add(at)) };
            }
        }
    }

    /// Packs `weights[k][column]` as [`PairProduct`] says; terms come in pairs.
    fn packed(weights: &[Vec<i16>], lanes: usize) -> Vec<i16> {
        let (mut out, columns) = (Vec::new(), weights[0].len());
        for first in (0..columns).step_by(2 * lanes) {
            for pair in weights.chunks_exact(2) {
                for column in first..columns.min(first + 2 * lanes) {
                    out.extend([pair[0][column], pair[1][column]]);
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn products_equal_plain_sums(pairs in 1usize..40, rows in 1usize..30, vectors in 1usize..6, seed in any::<u64>()) {
            let mut random = crate::testkit::Seeded(seed);
            let mut whole = |limit: f32| (random.next_f32() * limit) as i16;
            for isa in Isa::available() {
                let columns = vectors * isa.lanes();
                let weights: Vec<Vec<i16>> = (0..2 * pairs).map(|_| (0..columns).map(|_| whole(800.0)).collect()).collect();
                let stride = 2 * pairs + 6;
                // Blocks are rounded up to at most twelve rows.
                let values: Vec<i16> = (0..(rows + 12) * stride).map(|_| whole(32767.0)).collect();
                let scales: Vec<f32> = (0..columns).map(|column| 1.0 / (1.0 + column as f32)).collect();
                let mut out = vec![f32::NAN; (rows + 12) * columns];
                let weights_packed = packed(&weights, isa.lanes());
                let product = PairProduct {
                    rows: values.as_ptr(),
                    row_stride: stride,
                    pairs,
                    packed: weights_packed.as_ptr(),
                    scales: scales.as_ptr(),
                    out: out.as_mut_ptr(),
                    out_stride: columns,
                };
                // SAFETY: everything is laid out for the rows rounded up.
                unsafe { isa.run(Multiply(product, rows, vectors)) };
                for row in 0..rows {
                    for column in 0..columns {
                        let sum: i32 = (0..2 * pairs)
                            .map(|k| i32::from(values[row * stride + k]) * i32::from(weights[k][column]))
                            .sum();
                        prop_assert_eq!(out[row * columns + column], sum as f32 * scales[column], "{} {} {}", isa, row, column);
                    }
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_even_and_limited_on_every_set() {
        let values =
            [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49, 1e9, -1e9, 32767.4, -32768.4, 40000.0, 7.0, -7.0, 0.0, 3.51];
        let wanted = [0, 2, 2, 0, -2, -2, 0, 32767, -32768, 32767, -32768, 32767, 7, -7, 0, 4];
        for isa in Isa::available() {
            let mut out = [99; 16];
            // SAFETY: sixteen values are whole registers of every set.
            unsafe { isa.run(Round(&values, &mut out)) };
            assert_eq!(out, wanted, "{isa}");
        }
    }
}
