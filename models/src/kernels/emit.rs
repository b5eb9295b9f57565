//! The last step of a tile: products to outputs, outputs to memory, their moments to the task's record.

#![allow(unsafe_code)]

use super::extent::Extent;
use super::moments::RECORD_HEAD;
use super::scheme::Scheme;
use super::vector::Vector;
use std::mem::MaybeUninit;

/// Where a task's outputs and moments go.
#[derive(Clone, Copy)]
pub(crate) struct Emitter {
    /// Products of tile 0: `[position][tile][channel]`.
    pub(crate) products: *const f32,
    /// Values from one position to the next.
    pub(crate) position_stride: usize,
    /// First value of the layer's output.
    pub(crate) out: *mut f32,
    /// Layout of the output.
    pub(crate) extent: Extent,
    /// The task's record.
    pub(crate) record: *mut f32,
}

impl Emitter {
    /// Writes the tile whose first output is (`y`, `x`), `tile` among the task's products.
    ///
    /// # Safety
    /// The products of the tile must be there, (`y`, `x`) must lie in the output, no other task may write the same
    /// tile, and `V`'s instructions must be enabled.
    #[inline(always)]
    pub(crate) unsafe fn emit<V, S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize>(
        &self,
        tile: usize,
        (y, x): (usize, usize),
    ) where
        V: Vector,
        S: Scheme<IN, SIDES, POS, OUT>,
    {
        let extent = &self.extent;
        let stride = extent.pixel_stride;
        let rows = OUT.min(extent.height - y);
        let columns = OUT.min(extent.width - x);
        // SAFETY: products, outputs and record are in range by the caller's promise; stores are limited to the
        // rows and columns inside the output.
        unsafe {
            let first_tile = *self.record == 0.0;
            *self.record += (rows * columns) as f32;
            let mut channel = 0;
            while channel < stride {
                let products = self.products.add(tile * stride + channel);
                let outputs = transform_products::<V, S, IN, SIDES, POS, OUT>(products, self.position_stride);
                let out = self.out.add(y * extent.row_stride + x * stride + channel);
                let record = self.record.add(RECORD_HEAD + channel);
                if first_tile {
                    outputs[0][0].store(record);
                    V::zero().store(record.add(stride));
                    V::zero().store(record.add(2 * stride));
                }
                let shift = V::load(record);
                let mut sum = V::load(record.add(stride));
                let mut square = V::load(record.add(2 * stride));
                if rows == OUT && columns == OUT {
                    for r in 0..OUT {
                        for c in 0..OUT {
                            outputs[r][c].store(out.add(r * extent.row_stride + c * stride));
                            let difference = outputs[r][c].sub(shift);
                            sum = sum.add(difference);
                            square = difference.mul_add(difference, square);
                        }
                    }
                } else {
                    for r in 0..rows {
                        for c in 0..columns {
                            outputs[r][c].store(out.add(r * extent.row_stride + c * stride));
                            let difference = outputs[r][c].sub(shift);
                            sum = sum.add(difference);
                            square = difference.mul_add(difference, square);
                        }
                    }
                }
                sum.store(record.add(stride));
                square.store(record.add(2 * stride));
                channel += V::LANES;
            }
        }
    }
}

/// Loads `POS * POS` products `stride` apart and transforms them along both axes.
///
/// # Safety
/// The products must be readable and `V`'s instructions enabled.
#[inline(always)]
pub(crate) unsafe fn transform_products<V, S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize>(
    products: *const f32,
    stride: usize,
) -> [[V; OUT]; OUT]
where
    V: Vector,
    S: Scheme<IN, SIDES, POS, OUT>,
{
    // SAFETY: loads are within the promised products; every element of `half` and `full` is written before it is
    // read, and `MaybeUninit<[[V; _]; _]>` has the layout of its elements.
    unsafe {
        let mut half = [[MaybeUninit::<V>::uninit(); POS]; OUT];
        for p in 0..POS {
            let mut column = [V::zero(); POS];
            for q in 0..POS {
                column[q] = V::load(products.add((q * POS + p) * stride));
            }
            let column = S::output(column);
            for r in 0..OUT {
                half[r][p] = MaybeUninit::new(column[r]);
            }
        }
        let mut full = [[V::zero(); OUT]; OUT];
        for r in 0..OUT {
            let mut row = [V::zero(); POS];
            for p in 0..POS {
                row[p] = half[r][p].assume_init();
            }
            full[r] = S::output(row);
        }
        full
    }
}
