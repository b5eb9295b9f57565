//! The last convolution: 9x9 to three planes, as a 3x3 grid of 3x3 kernels.
//!
//! Three outputs would waste registers that hold output channels, so here registers hold neighbouring tiles: the
//! input is normalised, transposed and split by column modulo 3, and the three outputs are three rows of sums.

#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::emit::transform_products;
use super::extent::{Extent, View, reflect};
use super::first::{KERNEL, POSITIONS, TILE, transform_grid, transform_patches};
use super::isa::{Isa, Kernel};
use super::moments::Affine;
use super::scheme::{Nested, Scheme};
use super::team::Team;
use super::vector::Vector;
use crate::pixels::RgbPlanes;
use crate::weights::ConvWeights;

const PLANES: usize = 3;
/// Registers of neighbouring tiles in a register block: with three planes, nine sums.
const BLOCK_VECTORS: usize = 3;
/// Tiles of a strip across: a whole number of register blocks on every set.
const STRIP_TILES: usize = 48;
/// Tile rows of a task: its first two rows of transformed inputs are computed again by the task below.
const TASK_ROWS: usize = 24;
/// The most transformed tiles of a strip, over all sets.
const SIDE_TILES_MAX: usize = STRIP_TILES + 16;
/// Values of one tile row's products.
const PRODUCTS: usize = POSITIONS * POSITIONS * PLANES * STRIP_TILES;

/// Weights of the last convolution, transformed and packed for one instruction set.
#[derive(Clone, Debug)]
pub struct PackedLast {
    isa: Isa,
    in_channels: usize,
    /// `[position][grid row][grid column][channel][plane]`
    packed: Buffer,
    bias: [f32; PLANES],
}

impl PackedLast {
    /// Transforms and packs weights of shape `[3, in, 9, 9]` with their bias.
    ///
    /// # Panics
    /// Where the weights have another shape.
    pub fn pack(isa: Isa, weights: &ConvWeights) -> Self {
        assert_eq!((weights.kernel_size, weights.out_channels), (KERNEL, PLANES), "a 9x9 kernel to three planes");
        let ins = weights.in_channels;
        let grid = transform_grid(weights);
        let mut packed = Vec::with_capacity(POSITIONS * POSITIONS * 9 * ins * PLANES);
        for q in 0..POSITIONS {
            for p in 0..POSITIONS {
                for cell in 0..9 {
                    for channel in 0..ins {
                        packed.extend((0..PLANES).map(|plane| grid[(plane * ins + channel) * 9 + cell][q][p] as f32));
                    }
                }
            }
        }
        let bias = [weights.bias[0], weights.bias[1], weights.bias[2]];
        Self { isa, in_channels: ins, packed: Buffer::from_values(&packed), bias }
    }

    /// Returns the bytes of the packed weights.
    pub fn byte_len(&self) -> usize {
        self.packed.byte_len()
    }

    /// Convolves ReLU of the normalised input and writes planes of the input's size, not clamped. Blocks until done.
    ///
    /// # Panics
    /// Where layouts do not fit the convolution.
    pub fn run(&self, team: &mut Team, input: View<'_>, affine: &Affine, out: &mut RgbPlanes) {
        let from = input.extent;
        let lanes = self.isa.lanes();
        assert!(self.isa.is_available(), "{} is not available here", self.isa);
        assert!(!from.is_empty(), "an input without pixels");
        assert_eq!(from, Extent::new(from.height, from.width, self.in_channels, lanes), "input layout");
        assert!(input.values.len() >= from.len(), "input length");
        assert!(affine.scale.len() == from.pixel_stride && affine.shift.len() == from.pixel_stride, "affine");
        out.reshape(from.width, from.height);

        let strips = from.width.div_ceil(TILE * STRIP_TILES);
        let tasks = strips * from.height.div_ceil(TILE).div_ceil(TASK_ROWS);
        let side_tiles = (STRIP_TILES + 2).next_multiple_of(lanes);
        let split = side_tiles + lanes;
        let layer = Layer {
            values: input.values.as_ptr(),
            from,
            scale: affine.scale.as_ptr(),
            shift: affine.shift.as_ptr(),
            packed: self.packed.as_slice().as_ptr(),
            bias: self.bias,
            planes: out.planes.each_mut().map(|plane| plane.as_mut_ptr()),
            strips,
            side_tiles,
            split,
            position_stride: from.pixel_stride * side_tiles + 16,
        };
        let sides_len = POSITIONS * POSITIONS * layer.position_stride;
        let split_len = POSITIONS * from.pixel_stride * TILE * split;
        let scratch_len = sides_len + split_len + 3 * PRODUCTS;
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

#[derive(Clone, Copy)]
struct Layer {
    values: *const f32,
    from: Extent,
    scale: *const f32,
    shift: *const f32,
    packed: *const f32,
    bias: [f32; PLANES],
    planes: [*mut f32; PLANES],
    strips: usize,
    /// Transformed tiles of a strip.
    side_tiles: usize,
    /// Samples of a third of a split row.
    split: usize,
    position_stride: usize,
}

// SAFETY: tasks read the input, which nobody writes meanwhile, and write disjoint tiles of the planes.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

/// One task: a strip's tiles in a few tile rows.
struct Part<'a> {
    layer: &'a Layer,
    task: usize,
    /// `[position][channel][tile]` of one tile row
    sides: *mut f32,
    /// `[row modulo 5][channel][column modulo 3][tile]`
    split: *mut f32,
    /// `[tile row modulo 3][position][plane][tile]`
    products: *mut f32,
}

/// Offsets of a strip's pixels within a row: `[column modulo 3][tile]`.
type Columns = [[usize; SIDE_TILES_MAX]; TILE];

impl Part<'_> {
    /// Normalises, transposes and splits input row `row` (counted from 4 above the picture).
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn split_row<V: Vector>(&self, row: usize, columns: &Columns) {
        let layer = self.layer;
        let y = reflect(row as isize - Nested::LEAD as isize, layer.from.height);
        let slot = (row % POSITIONS) * layer.from.pixel_stride;
        // SAFETY: pixels are inside the input; the slot is inside the scratch, a third longer than the tiles.
        unsafe {
            let from = layer.values.add(y * layer.from.row_stride);
            let mut channel = 0;
            while channel < layer.from.pixel_stride {
                let scale = V::load(layer.scale.add(channel));
                let shift = V::load(layer.shift.add(channel));
                for third in 0..TILE {
                    let to = self.split.add(((slot + channel) * TILE + third) * layer.split);
                    let mut tile = 0;
                    // The register beyond only feeds tiles that nobody reads.
                    while tile < layer.side_tiles {
                        let mut registers = [V::zero(); 16];
                        for lane in 0..V::LANES {
                            let value = V::load(from.add(columns[third][tile + lane] + channel));
                            registers[lane] = value.mul_add(scale, shift).max(V::zero());
                        }
                        V::transpose(&mut registers);
                        for lane in 0..V::LANES {
                            registers[lane].store(to.add(lane * TILE * layer.split + tile));
                        }
                        tile += V::LANES;
                    }
                }
                channel += V::LANES;
            }
        }
    }

    /// Transforms the inputs of tile row `tile_y`, whose split rows must be there.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn transform_row<V: Vector>(&self, tile_y: usize) {
        let layer = self.layer;
        let stride = layer.from.pixel_stride;
        for channel in 0..layer.from.channels {
            let mut tile = 0;
            while tile < layer.side_tiles {
                // SAFETY: split rows and sides are inside the scratch; a third has a register more than the tiles.
                unsafe {
                    let row = |r: usize| {
                        let slot = ((TILE * tile_y + r) % POSITIONS) * stride + channel;
                        self.split.add(slot * TILE * layer.split + tile).cast_const()
                    };
                    let out = self.sides.add(channel * layer.side_tiles + tile);
                    let rows = [row(0), row(1), row(2), row(3), row(4)];
                    transform_patches::<V>(rows, layer.split, out, layer.position_stride);
                }
                tile += V::LANES;
            }
        }
    }

    /// Adds grid row `grid` of one position to the products of tile row `tile_y`: three planes by
    /// [`BLOCK_VECTORS`] registers of tiles at a time. Grid row 0 begins the sums.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn multiply<V: Vector>(&self, tile_y: usize, grid: usize, position: usize) {
        let layer = self.layer;
        let channels = layer.from.channels;
        let mut block = 0;
        while block < STRIP_TILES {
            // SAFETY: windows reach two tiles past the strip, which the sides have; weights are read in packed order.
            unsafe {
                let mut weights = layer.packed.add((position * 3 + grid) * 3 * channels * PLANES);
                let sides = self.sides.add(position * layer.position_stride + block).cast_const();
                let out = self.products.add((tile_y % 3) * PRODUCTS + position * PLANES * STRIP_TILES + block);
                let mut sums = [[V::zero(); BLOCK_VECTORS]; PLANES];
                if grid > 0 {
                    for plane in 0..PLANES {
                        for v in 0..BLOCK_VECTORS {
                            sums[plane][v] = V::load(out.add(plane * STRIP_TILES + v * V::LANES));
                        }
                    }
                }
                for column in 0..3 {
                    let mut from = sides.add(column);
                    for _ in 0..channels {
                        let mut tiles = [V::zero(); BLOCK_VECTORS];
                        for v in 0..BLOCK_VECTORS {
                            tiles[v] = V::load(from.add(v * V::LANES));
                        }
                        for plane in 0..PLANES {
                            let weight = V::splat(*weights.add(plane));
                            for v in 0..BLOCK_VECTORS {
                                sums[plane][v] = weight.mul_add(tiles[v], sums[plane][v]);
                            }
                        }
                        from = from.add(layer.side_tiles);
                        weights = weights.add(PLANES);
                    }
                }
                for plane in 0..PLANES {
                    for v in 0..BLOCK_VECTORS {
                        sums[plane][v].store(out.add(plane * STRIP_TILES + v * V::LANES));
                    }
                }
            }
            block += BLOCK_VECTORS * V::LANES;
        }
    }

    /// Transforms the products of the tile row and writes the pixels that lie inside the picture.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn emit<V: Vector>(&self, tile_y: usize, first_tile: usize) {
        let layer = self.layer;
        let (height, width) = (layer.from.height, layer.from.width);
        let rows = TILE.min(height - TILE * tile_y);
        for plane in 0..PLANES {
            let mut tile = 0;
            while tile < STRIP_TILES && TILE * (first_tile + tile) < width {
                // SAFETY: products are inside the scratch; pixels are limited to the rows and columns of the plane.
                unsafe {
                    let products = self.products.add((tile_y % 3) * PRODUCTS + plane * STRIP_TILES + tile);
                    let stride = PLANES * STRIP_TILES;
                    let outputs = transform_products::<V, Nested, 5, 5, 5, 3>(products, stride);
                    let x = TILE * (first_tile + tile);
                    let columns = (TILE * V::LANES).min(width - x);
                    for r in 0..rows {
                        let mut line = [[0.0f32; 16]; TILE];
                        for s in 0..TILE {
                            outputs[r][s].add(V::splat(layer.bias[plane])).store(line[s].as_mut_ptr());
                        }
                        let to = layer.planes[plane].add((TILE * tile_y + r) * width + x);
                        for column in 0..columns {
                            *to.add(column) = line[column % TILE][column / TILE];
                        }
                    }
                }
                tile += V::LANES;
            }
        }
    }
}

impl Kernel for Part<'_> {
    /// # Safety
    /// The layer's pointers must be valid for its sizes, the scratch parts for what `PackedLast::run` asks for.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let layer = self.layer;
        let first_tile = self.task % layer.strips * STRIP_TILES;
        let first_row = self.task / layer.strips * TASK_ROWS;
        let end_row = layer.from.height.div_ceil(TILE).min(first_row + TASK_ROWS);
        let mut columns: Columns = [[0; SIDE_TILES_MAX]; TILE];
        for (third, columns) in columns.iter_mut().enumerate() {
            for (tile, column) in columns.iter_mut().enumerate() {
                let x = (TILE * (first_tile + tile) + third) as isize - Nested::LEAD as isize;
                *column = reflect(x, layer.from.width) * layer.from.pixel_stride;
            }
        }
        let mut split_rows = TILE * first_row;
        for side_row in first_row..end_row + 2 {
            // SAFETY: the caller's promise; rows are computed before they are read.
            unsafe {
                while split_rows < TILE * side_row + POSITIONS {
                    self.split_row::<V>(split_rows, &columns);
                    split_rows += 1;
                }
                self.transform_row::<V>(side_row);
                // This row of inputs is grid row 0 of its own tiles, 1 of those above and 2 of those above them.
                let grids = side_row.saturating_sub(end_row - 1)..(side_row - first_row).min(2) + 1;
                for position in 0..POSITIONS * POSITIONS {
                    for grid in grids.clone() {
                        self.multiply::<V>(side_row - grid, grid, position);
                    }
                }
                if side_row >= first_row + 2 {
                    self.emit::<V>(side_row - 2, first_tile);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "edge_tests.rs"]
mod tests;
