//! Matrix products of a register block: a few rows by two vectors of columns, summed in registers.
//!
//! Rows are broadcast value by value, columns are packed so that one step reads two adjacent vectors. The order of
//! the sum is the order of the terms, whatever the number of rows: results do not depend on how work was divided.

#![allow(unsafe_code)]

use super::vector::Vector;

/// `out[row][column] = sum over k of rows[row][k] * packed[k][column]`.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// First value of row 0.
    pub(crate) rows: *const f32,
    /// Values from one row to the next.
    pub(crate) row_stride: usize,
    /// Terms of each sum.
    pub(crate) depth: usize,
    /// Columns packed by panels of two vectors (a last one of one), each `[depth][panel width]`.
    pub(crate) packed: *const f32,
    /// First value of output row 0.
    pub(crate) out: *mut f32,
    /// Values from one output row to the next.
    pub(crate) out_stride: usize,
}

/// As [`Product`], with value `k` of a row at `rows + row + offsets[k]`: rows that overlap, as windows do.
#[derive(Clone, Copy)]
pub(crate) struct GatheredProduct {
    /// First value of row 0.
    pub(crate) rows: *const f32,
    /// Offsets of the terms, `depth` of them.
    pub(crate) offsets: *const usize,
    /// Terms of each sum.
    pub(crate) depth: usize,
    /// Columns packed as in [`Product`].
    pub(crate) packed: *const f32,
    /// First value of output row 0.
    pub(crate) out: *mut f32,
    /// Values from one output row to the next.
    pub(crate) out_stride: usize,
}

/// Computes `count` rows, rounded up to whole blocks, by `vectors` vectors of columns.
///
/// # Safety
/// Rows, packed columns and output must hold what [`Product`] says for the rounded number of rows; the output must
/// not be read or written by another thread meanwhile. The caller runs with `V`'s instructions enabled.
#[inline(always)]
pub(crate) unsafe fn multiply_rows<V: Vector>(product: &Product, count: usize, vectors: usize) {
    for panel in 0..vectors / 2 {
        let mut row = 0;
        while row < count {
            // SAFETY: the row is within the rounded count and the panel within the packed columns.
            unsafe { V::multiply_pair(product, row, panel * 2 * V::LANES) };
            row += V::BLOCK_ROWS;
        }
    }
    if vectors % 2 == 1 {
        let mut row = 0;
        while row < count {
            // SAFETY: as above, the last panel has one vector.
            unsafe { V::multiply_single(product, row, (vectors - 1) * V::LANES) };
            row += V::BLOCK_ROWS;
        }
    }
}

/// As [`multiply_rows`] for windows.
///
/// # Safety
/// As for [`multiply_rows`], with every offset leading to a readable value for every row.
#[inline(always)]
pub(crate) unsafe fn multiply_windows<V: Vector>(product: &GatheredProduct, count: usize, vectors: usize) {
    for panel in 0..vectors / 2 {
        let mut row = 0;
        while row < count {
            // SAFETY: the row is within the rounded count and the panel within the packed columns.
            unsafe { V::gather_pair(product, row, panel * 2 * V::LANES) };
            row += V::BLOCK_ROWS;
        }
    }
    if vectors % 2 == 1 {
        let mut row = 0;
        while row < count {
            // SAFETY: as above, the last panel has one vector.
            unsafe { V::gather_single(product, row, (vectors - 1) * V::LANES) };
            row += V::BLOCK_ROWS;
        }
    }
}

/// One register block of `R` rows by `C` vectors starting at `row` and `column`.
///
/// # Safety
/// As for [`multiply_rows`].
#[inline(always)]
pub(crate) unsafe fn multiply_block<V: Vector, const R: usize, const C: usize>(
    product: &Product,
    row: usize,
    column: usize,
) {
    // SAFETY: offsets stay within what the caller promised: rows `row..row + R`, columns of one panel.
    unsafe {
        let mut a = product.rows.add(row * product.row_stride);
        let mut b = product.packed.add(column * product.depth);
        let mut sums = [[V::zero(); C]; R];
        for _ in 0..product.depth {
            let mut columns = [V::zero(); C];
            for c in 0..C {
                columns[c] = V::load(b.add(c * V::LANES));
            }
            for r in 0..R {
                let value = V::splat(*a.add(r * product.row_stride));
                for c in 0..C {
                    sums[r][c] = value.mul_add(columns[c], sums[r][c]);
                }
            }
            a = a.add(1);
            b = b.add(C * V::LANES);
        }
        let out = product.out.add(row * product.out_stride + column);
        for r in 0..R {
            for c in 0..C {
                sums[r][c].store(out.add(r * product.out_stride + c * V::LANES));
            }
        }
    }
}

/// One register block of windows.
///
/// # Safety
/// As for [`multiply_windows`].
#[inline(always)]
pub(crate) unsafe fn gather_block<V: Vector, const R: usize, const C: usize>(
    product: &GatheredProduct,
    row: usize,
    column: usize,
) {
    // SAFETY: offsets stay within what the caller promised: windows `row..row + R`, columns of one panel.
    unsafe {
        let base = product.rows.add(row);
        let mut b = product.packed.add(column * product.depth);
        let mut sums = [[V::zero(); C]; R];
        for k in 0..product.depth {
            let a = base.add(*product.offsets.add(k));
            let mut columns = [V::zero(); C];
            for c in 0..C {
                columns[c] = V::load(b.add(c * V::LANES));
            }
            for r in 0..R {
                let value = V::splat(*a.add(r));
                for c in 0..C {
                    sums[r][c] = value.mul_add(columns[c], sums[r][c]);
                }
            }
            b = b.add(C * V::LANES);
        }
        let out = product.out.add(row * product.out_stride + column);
        for r in 0..R {
            for c in 0..C {
                sums[r][c].store(out.add(r * product.out_stride + c * V::LANES));
            }
        }
    }
}

/// Gives a [`Vector`] its register blocks of the given number of rows.
macro_rules! register_blocks {
    ($rows:literal) => {
        #[inline(always)]
        unsafe fn multiply_pair(product: &super::product::Product, row: usize, column: usize) {
            // SAFETY: the caller's promise is the callee's.
            unsafe { super::product::multiply_block::<Self, $rows, 2>(product, row, column) }
        }
        #[inline(always)]
        unsafe fn multiply_single(product: &super::product::Product, row: usize, column: usize) {
            // SAFETY: the caller's promise is the callee's.
            unsafe { super::product::multiply_block::<Self, $rows, 1>(product, row, column) }
        }
        #[inline(always)]
        unsafe fn gather_pair(product: &super::product::GatheredProduct, row: usize, column: usize) {
            // SAFETY: the caller's promise is the callee's.
            unsafe { super::product::gather_block::<Self, $rows, 2>(product, row, column) }
        }
        #[inline(always)]
        unsafe fn gather_single(product: &super::product::GatheredProduct, row: usize, column: usize) {
            // SAFETY: the caller's promise is the callee's.
            unsafe { super::product::gather_block::<Self, $rows, 1>(product, row, column) }
        }
        #[inline(always)]
        unsafe fn pairs_pair(product: &super::pairs::PairProduct, row: usize, column: usize) {
            // SAFETY: the caller's promise is the callee's.
            unsafe { super::pairs::pairs_block::<Self, $rows, 2>(product, row, column) }
        }
        #[inline(always)]
        unsafe fn pairs_single(product: &super::pairs::PairProduct, row: usize, column: usize) {
            // SAFETY: the caller's promise is the callee's.
            unsafe { super::pairs::pairs_block::<Self, $rows, 1>(product, row, column) }
        }
    };
}
pub(crate) use register_blocks;

/// Packs columns `[depth][columns]` given by `value(k, column)` into panels of two vectors of `lanes`, a last one of
/// one, padding with zeros up to whole vectors. Appends `depth * columns rounded up` values to `out`.
pub(crate) fn pack_columns(
    depth: usize,
    columns: usize,
    lanes: usize,
    value: impl Fn(usize, usize) -> f32,
    out: &mut Vec<f32>,
) {
    let vectors = columns.div_ceil(lanes);
    let mut first = 0;
    while first < vectors {
        let width = (vectors - first).min(2) * lanes;
        for k in 0..depth {
            for lane in 0..width {
                let column = first * lanes + lane;
                out.push(if column < columns { value(k, column) } else { 0.0 });
            }
        }
        first += 2;
    }
}
