//! The first convolution: 9x9 over three planes, as a 3x3 grid of 3x3 kernels.
//!
//! With tiles of 3x3 outputs, the tile at (i, j) needs the transformed inputs at (i..i+3, j..j+3), each of which is
//! computed once: registers hold neighbouring tiles of one plane, so the planes are first split by column modulo 3.

#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::emit::Emitter;
use super::extent::{Extent, ViewMut, reflect};
use super::isa::{Isa, Kernel};
use super::moments::Moments;
use super::product::{GatheredProduct, multiply_windows, pack_columns};
use super::scheme::{Nested, Scheme, filter_square};
use super::team::Team;
use super::vector::Vector;
use crate::pixels::RgbPlanes;
use crate::weights::ConvWeights;

/// Products along one axis.
pub(super) const POSITIONS: usize = 5;
/// Taps of a 3x3 grid of 3x3 kernels along one axis.
pub(super) const KERNEL: usize = 9;
/// Output pixels of a tile along one axis.
pub(super) const TILE: usize = 3;
const PLANES: usize = 3;
/// Tiles of a strip across: a whole number of register blocks on every set.
const STRIP_TILES: usize = 48;
/// Tile rows of a task: its first two rows of transformed inputs are computed again by the task below.
const TASK_ROWS: usize = 12;
/// Transformed tiles across: two more than outputs, in whole registers of every set.
const SIDE_TILES: usize = 64;
/// Samples of a third of a split row.
const SPLIT: usize = SIDE_TILES + 16;
/// Terms of a product: grid row, grid column, plane.
const DEPTH: usize = 3 * 3 * PLANES;
/// Values of one position: three tile rows in turn, each of three planes.
const POSITION_STRIDE: usize = 3 * PLANES * SIDE_TILES + 16;
/// Values of one split row of one plane.
const SPLIT_ROW: usize = TILE * SPLIT;

/// Weights of the first convolution, transformed and packed for one instruction set.
#[derive(Clone, Debug)]
pub struct PackedFirst {
    isa: Isa,
    out_channels: usize,
    packed: Buffer,
}

impl PackedFirst {
    /// Transforms and packs weights of shape `[out, 3, 9, 9]`; the bias is left out, since a norm follows.
    ///
    /// # Panics
    /// Where the weights have another shape.
    pub fn pack(isa: Isa, weights: &ConvWeights) -> Self {
        assert_eq!((weights.kernel_size, weights.in_channels), (KERNEL, PLANES), "a 9x9 kernel over three planes");
        let mut packed = Vec::new();
        let grid = transform_grid(weights);
        for q in 0..POSITIONS {
            for p in 0..POSITIONS {
                let value = |k: usize, out: usize| {
                    let (cell, plane) = (k / PLANES, k % PLANES);
                    grid[(out * PLANES + plane) * 9 + cell][q][p] as f32
                };
                pack_columns(DEPTH, weights.out_channels, isa.lanes(), value, &mut packed);
            }
        }
        Self { isa, out_channels: weights.out_channels, packed: Buffer::from_values(&packed) }
    }

    /// Returns the layout of the output for planes of the given size.
    pub fn output(&self, height: usize, width: usize) -> Extent {
        Extent::new(height, width, self.out_channels, self.isa.lanes())
    }

    /// Returns the bytes of the packed weights.
    pub fn byte_len(&self) -> usize {
        self.packed.byte_len()
    }

    /// Convolves the planes, writes the raw output and gathers its moments. Blocks until done.
    ///
    /// # Panics
    /// Where the output's layout does not fit the planes.
    pub fn run(&self, team: &mut Team, input: &RgbPlanes, out: ViewMut<'_>, moments: &mut Moments) {
        let (height, width) = (input.height, input.width);
        assert!(self.isa.is_available(), "{} is not available here", self.isa);
        assert!(height > 0 && width > 0, "planes without pixels");
        assert!(input.planes.iter().all(|plane| plane.len() >= height * width), "plane lengths");
        assert_eq!(out.extent, self.output(height, width), "output layout");
        assert!(out.values.len() >= out.extent.len(), "output length");

        let tile_rows = height.div_ceil(TILE);
        let strips = width.div_ceil(TILE * STRIP_TILES);
        let tasks = strips * tile_rows.div_ceil(TASK_ROWS);
        let product_stride = STRIP_TILES * out.extent.pixel_stride + 16;
        let sides_len = POSITIONS * POSITIONS * POSITION_STRIDE;
        let split_len = POSITIONS * PLANES * SPLIT_ROW;
        let scratch_len = sides_len + split_len + POSITIONS * POSITIONS * product_stride;
        let layer = Layer {
            planes: input.planes.each_ref().map(|plane| plane.as_ptr()),
            height,
            width,
            packed: self.packed.as_slice().as_ptr(),
            out: out.values.as_mut_ptr(),
            to: out.extent,
            records: moments.begin(tasks, out.extent.pixel_stride),
            record_len: moments.record_len(),
            strips,
            product_stride,
        };
        let isa = self.isa;
        team.run(tasks, scratch_len, &move |task| {
            let layer = &layer;
            let sides = task.scratch;
            // SAFETY: the scratch has the three parts asked for; the processor has the set, which was checked above;
            // tasks own disjoint tiles.
            unsafe {
                let split = sides.add(sides_len);
                let part = Part { layer, task: task.index, sides, split, products: split.add(split_len) };
                isa.run(part);
            }
        });
    }
}

/// Cuts `[out, in, 9, 9]` into `[out][in][grid cell]` kernels of 3x3, transformed.
pub(super) fn transform_grid(weights: &ConvWeights) -> Vec<[[f64; POSITIONS]; POSITIONS]> {
    let mut grid = Vec::with_capacity(weights.kernel.len() / 9);
    for kernel in weights.kernel.chunks_exact(KERNEL * KERNEL) {
        for cell in 0..9 {
            let tap = |r: usize, s: usize| {
                let (y, x) = (3 * (cell / 3) + r, 3 * (cell % 3) + s);
                f64::from(kernel[y * KERNEL + x])
            };
            let taps = [0, 1, 2].map(|r| [tap(r, 0), tap(r, 1), tap(r, 2)]);
            grid.push(filter_square::<Nested, 5, 5, 5, 3>(taps));
        }
    }
    grid
}

#[derive(Clone, Copy)]
struct Layer {
    planes: [*const f32; PLANES],
    height: usize,
    width: usize,
    packed: *const f32,
    out: *mut f32,
    to: Extent,
    records: *mut f32,
    record_len: usize,
    strips: usize,
    product_stride: usize,
}

// SAFETY: tasks read the planes, which nobody writes meanwhile, and write disjoint tiles and a record each.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

/// One task: a strip's tiles in a few tile rows.
struct Part<'a> {
    layer: &'a Layer,
    task: usize,
    /// `[position][tile row modulo 3][plane][tile]`
    sides: *mut f32,
    /// `[row modulo 5][plane][column modulo 3][tile]`
    split: *mut f32,
    /// `[position][tile][channel]`
    products: *mut f32,
}

impl Part<'_> {
    /// Splits input row `row` (counted from 4 above the picture) by column modulo 3.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn split_row(&self, row: usize, columns: &[usize; SPLIT_ROW]) {
        let layer = self.layer;
        let y = reflect(row as isize - Nested::LEAD as isize, layer.height);
        for plane in 0..PLANES {
            // SAFETY: the row is inside the plane and the columns inside the row; the slot is inside the scratch.
            unsafe {
                let from = layer.planes[plane].add(y * layer.width);
                let to = self.split.add(((row % POSITIONS) * PLANES + plane) * SPLIT_ROW);
                for (at, &column) in columns.iter().enumerate() {
                    *to.add(at) = *from.add(column);
                }
            }
        }
    }

    /// Transforms the inputs of tile row `tile_y`, whose split rows must be there.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn transform_row<V: Vector>(&self, tile_y: usize) {
        for plane in 0..PLANES {
            let mut tile = 0;
            while tile < SIDE_TILES {
                // SAFETY: split rows and sides are inside the scratch; a split third is longer than the tiles.
                unsafe {
                    let row = |r: usize| {
                        let slot = (TILE * tile_y + r) % POSITIONS;
                        self.split.add((slot * PLANES + plane) * SPLIT_ROW + tile).cast_const()
                    };
                    let out = self.sides.add(((tile_y % 3) * PLANES + plane) * SIDE_TILES + tile);
                    transform_patches::<V>([row(0), row(1), row(2), row(3), row(4)], SPLIT, out, POSITION_STRIDE);
                }
                tile += V::LANES;
            }
        }
    }

    /// Multiplies the tile row's windows by the weights.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn multiply<V: Vector>(&self, tile_y: usize, count: usize) {
        let layer = self.layer;
        let mut offsets = [0; DEPTH];
        for (k, offset) in offsets.iter_mut().enumerate() {
            let (a, b, plane) = (k / 9, k / PLANES % 3, k % PLANES);
            *offset = (((tile_y + a) % 3) * PLANES + plane) * SIDE_TILES + b;
        }
        let vectors = layer.to.pixel_stride / V::LANES;
        for position in 0..POSITIONS * POSITIONS {
            // SAFETY: windows reach two tiles past the rounded count, which `SIDE_TILES` has; products and packed
            // weights are where `run` and `pack` laid them out.
            unsafe {
                let product = GatheredProduct {
                    rows: self.sides.add(position * POSITION_STRIDE),
                    offsets: offsets.as_ptr(),
                    depth: DEPTH,
                    packed: layer.packed.add(position * DEPTH * layer.to.pixel_stride),
                    out: self.products.add(position * layer.product_stride),
                    out_stride: layer.to.pixel_stride,
                };
                multiply_windows::<V>(&product, count, vectors);
            }
        }
    }
}

/// Transforms `LANES` neighbouring patches of 5x5 whose columns are split by three.
///
/// # Safety
/// Each row must have three thirds `third` apart, readable for `LANES + 1` values; `out` must have room at every
/// position. `V`'s instructions must be enabled.
#[inline(always)]
pub(super) unsafe fn transform_patches<V: Vector>(
    rows: [*const f32; POSITIONS],
    third: usize,
    out: *mut f32,
    position_stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut half = [[V::zero(); POSITIONS]; POSITIONS];
        for r in 0..POSITIONS {
            let from = rows[r];
            let sides = Nested::input([
                V::load(from),
                V::load(from.add(third)),
                V::load(from.add(2 * third)),
                V::load(from.add(1)),
                V::load(from.add(third + 1)),
            ]);
            for p in 0..POSITIONS {
                half[p][r] = sides[p];
            }
        }
        for p in 0..POSITIONS {
            let sides = Nested::input(half[p]);
            for q in 0..POSITIONS {
                sides[q].store(out.add((q * POSITIONS + p) * position_stride));
            }
        }
    }
}

impl Kernel for Part<'_> {
    /// # Safety
    /// The layer's pointers must be valid for its sizes, the scratch parts for what `PackedFirst::run` asks for.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let layer = self.layer;
        let first_tile = self.task % layer.strips * STRIP_TILES;
        let first_row = self.task / layer.strips * TASK_ROWS;
        let tile_rows = layer.height.div_ceil(TILE);
        let tile_columns = layer.width.div_ceil(TILE);
        let count = STRIP_TILES.min(tile_columns - first_tile);
        let mut columns = [0; SPLIT_ROW];
        for (at, column) in columns.iter_mut().enumerate() {
            let x = TILE * (first_tile + at % SPLIT) + at / SPLIT;
            *column = reflect(x as isize - Nested::LEAD as isize, layer.width);
        }
        // SAFETY: the caller's promise; tiles and rows are inside the output.
        unsafe {
            let emitter = Emitter {
                products: self.products,
                position_stride: layer.product_stride,
                out: layer.out,
                extent: layer.to,
                record: layer.records.add(self.task * layer.record_len),
            };
            *emitter.record = 0.0;
            let (mut split_rows, mut side_rows) = (TILE * first_row, first_row);
            for tile_y in first_row..tile_rows.min(first_row + TASK_ROWS) {
                while side_rows < tile_y + 3 {
                    while split_rows < TILE * side_rows + POSITIONS {
                        self.split_row(split_rows, &columns);
                        split_rows += 1;
                    }
                    self.transform_row::<V>(side_rows);
                    side_rows += 1;
                }
                self.multiply::<V>(tile_y, count);
                for tile in 0..count {
                    let at = (TILE * tile_y, TILE * (first_tile + tile));
                    emitter.emit::<V, Nested, 5, 5, 5, 3>(tile, at);
                }
            }
        }
    }
}
