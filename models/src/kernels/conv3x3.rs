//! 3x3 convolutions: stride 1, stride 2, and stride 1 after nearest-neighbour upsampling by two.

#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::emit::Emitter;
use super::extent::{Extent, View, ViewMut, reflect};
use super::isa::{Isa, Kernel};
use super::moments::{Affine, Moments};
use super::product::{Product, multiply_rows, pack_columns};
use super::scheme::{Down, Same, Scheme, Up, filter_square};
use super::team::Team;
use super::vector::Vector;
use crate::weights::ConvWeights;
use std::marker::PhantomData;

/// How a 3x3 convolution moves over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// Every pixel, mirrored at the border.
    Same,
    /// Every second pixel of every second row, mirrored at the border.
    Down,
    /// The input with every pixel repeated twice along both axes, mirrored at the border.
    Up,
}

/// What happens to a value on its way from memory into the convolution; scale and shift come first.
#[derive(Debug)]
pub enum Load<'a> {
    /// ReLU.
    Relu,
    /// ReLU; the result is also written to the view.
    ReluKeep(ViewMut<'a>),
    /// The residual is added.
    Add(View<'a>),
    /// The residual is added; the result is also written to the view.
    AddKeep(View<'a>, ViewMut<'a>),
}

/// The input of a convolution.
#[derive(Debug)]
pub struct Input<'a> {
    /// Values before normalisation.
    pub values: View<'a>,
    /// Scale and shift of each channel.
    pub affine: &'a Affine,
    /// What follows them.
    pub load: Load<'a>,
}

/// Bits of a load, as a constant of the compiled kernel.
const RELU: u8 = 1;
const ADD: u8 = 2;
const KEEP: u8 = 4;

/// Weights of a 3x3 convolution, transformed and packed for one instruction set.
#[derive(Clone, Debug)]
pub struct PackedConv {
    isa: Isa,
    sampling: Sampling,
    in_channels: usize,
    out_channels: usize,
    packed: Buffer,
}

/// The numbers of a scheme that decide about memory.
struct Geometry {
    samples: usize,
    sides: usize,
    positions: usize,
    out: usize,
}

impl PackedConv {
    /// Transforms and packs weights of shape `[out, in, 3, 3]`; the bias is left out, since a norm follows.
    ///
    /// # Panics
    /// Where the kernel is not 3x3.
    pub fn pack(isa: Isa, sampling: Sampling, weights: &ConvWeights) -> Self {
        assert_eq!(weights.kernel_size, 3, "a 3x3 kernel");
        let packed = match sampling {
            Sampling::Same => pack::<Same, 6, 6, 6, 4>(isa, weights),
            Sampling::Down => pack::<Down, 9, 9, 9, 4>(isa, weights),
            Sampling::Up => pack::<Up, 4, 4, 5, 4>(isa, weights),
        };
        let (in_channels, out_channels) = (weights.in_channels, weights.out_channels);
        Self { isa, sampling, in_channels, out_channels, packed: Buffer::from_values(&packed) }
    }

    /// Returns the layout of the output for an input of the given size.
    pub fn output(&self, height: usize, width: usize) -> Extent {
        let size = |len: usize| match self.sampling {
            Sampling::Same => len,
            Sampling::Down => len.div_ceil(2),
            Sampling::Up => len * 2,
        };
        Extent::new(size(height), size(width), self.out_channels, self.isa.lanes())
    }

    /// Returns the bytes of the packed weights.
    pub fn byte_len(&self) -> usize {
        self.packed.byte_len()
    }

    fn geometry(&self) -> Geometry {
        match self.sampling {
            Sampling::Same => Geometry { samples: 6, sides: 6, positions: 6, out: 4 },
            Sampling::Down => Geometry { samples: 9, sides: 9, positions: 9, out: 4 },
            Sampling::Up => Geometry { samples: 4, sides: 4, positions: 5, out: 4 },
        }
    }

    /// Returns the tiles of a task: a whole number of register blocks, small enough for the second-level cache.
    fn tiles_per_task(&self) -> usize {
        if self.isa.lanes() < 16 { 24 } else { 48 }
    }

    /// Convolves the input, writes the raw output and gathers its moments. Blocks until done.
    ///
    /// # Panics
    /// Where layouts do not fit the convolution.
    pub fn run(&self, team: &mut Team, input: Input<'_>, out: ViewMut<'_>, moments: &mut Moments) {
        let from = input.values.extent;
        self.assert_fits(&input, &out);
        let geometry = self.geometry();
        let tile_columns = out.extent.width.div_ceil(geometry.out);
        let tiles = out.extent.height.div_ceil(geometry.out) * tile_columns;
        let tiles_per_task = self.tiles_per_task();
        let tasks = tiles.div_ceil(tiles_per_task);

        let side_stride = tiles_per_task * from.pixel_stride + 16;
        let position_stride = tiles_per_task * out.extent.pixel_stride + 16;
        let sides_len = geometry.sides * geometry.sides * side_stride;
        let half = sides_len + geometry.positions * geometry.positions * position_stride;
        let scratch_len = half + geometry.samples * geometry.sides * from.pixel_stride;

        let records = moments.begin(tasks, out.extent.pixel_stride);
        let (residual, keep, mode) = match input.load {
            Load::Relu => (None, None, RELU),
            Load::ReluKeep(keep) => (None, Some(keep), RELU | KEEP),
            Load::Add(residual) => (Some(residual), None, ADD),
            Load::AddKeep(residual, keep) => (Some(residual), Some(keep), ADD | KEEP),
        };
        let layer = Layer {
            values: input.values.values.as_ptr(),
            residual: residual.map_or(std::ptr::null(), |view| view.values.as_ptr()),
            keep: keep.map_or(std::ptr::null_mut(), |view| view.values.as_mut_ptr()),
            from,
            scale: input.affine.scale.as_ptr(),
            shift: input.affine.shift.as_ptr(),
            packed: self.packed.as_slice().as_ptr(),
            out: out.values.as_mut_ptr(),
            to: out.extent,
            records,
            record_len: moments.record_len(),
            tiles,
            tile_columns,
            tiles_per_task,
            side_stride,
            position_stride,
            sides_len,
            half,
        };
        let (isa, sampling) = (self.isa, self.sampling);
        team.run(tasks, scratch_len, &move |task| {
            let first = task.index * layer.tiles_per_task;
            let part = Part { layer: &layer, task: task.index, first, scratch: task.scratch };
            // SAFETY: `pack` was given a set that the processor has; pointers and layouts were checked above, tasks
            // own disjoint tiles, and scratch has the length asked for.
            unsafe { part.run_on(isa, sampling, mode) }
        });
    }

    fn assert_fits(&self, input: &Input<'_>, out: &ViewMut<'_>) {
        let from = input.values.extent;
        assert!(Isa::available().contains(&self.isa), "{} is not available here", self.isa);
        assert!(!from.is_empty(), "an input without pixels");
        assert_eq!(from.channels, self.in_channels, "input channels");
        assert_eq!(from, Extent::new(from.height, from.width, from.channels, self.isa.lanes()), "input layout");
        assert_eq!(out.extent, self.output(from.height, from.width), "output layout");
        assert!(input.values.values.len() >= from.len() && out.values.len() >= out.extent.len(), "lengths");
        assert_eq!(input.affine.scale.len(), from.pixel_stride, "scales");
        assert_eq!(input.affine.shift.len(), from.pixel_stride, "shifts");
        let (residual, keep) = match &input.load {
            Load::Relu => (None, None),
            Load::ReluKeep(keep) => (None, Some(keep)),
            Load::Add(residual) => (Some(residual), None),
            Load::AddKeep(residual, keep) => (Some(residual), Some(keep)),
        };
        if let Some(residual) = residual {
            assert!(residual.extent == from && residual.values.len() >= from.len(), "residual layout");
        }
        if let Some(keep) = keep {
            assert!(keep.extent == from && keep.values.len() >= from.len(), "kept layout");
            assert_eq!(self.sampling, Sampling::Same, "inputs are kept at stride 1 alone");
        }
    }
}

/// Packs position by position: `[position][panel][in][panel width]`.
fn pack<S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize>(
    isa: Isa,
    weights: &ConvWeights,
) -> Vec<f32>
where
    S: Scheme<IN, SIDES, POS, OUT>,
{
    let (ins, outs) = (weights.in_channels, weights.out_channels);
    let transformed: Vec<[[f64; POS]; POS]> = weights
        .kernel
        .chunks_exact(9)
        .map(|k| {
            let row = |r: usize| [f64::from(k[3 * r]), f64::from(k[3 * r + 1]), f64::from(k[3 * r + 2])];
            filter_square::<S, IN, SIDES, POS, OUT>([row(0), row(1), row(2)])
        })
        .collect();
    let mut packed = Vec::with_capacity(POS * POS * ins * outs.next_multiple_of(isa.lanes()));
    for q in 0..POS {
        for p in 0..POS {
            let value = |k: usize, column: usize| transformed[column * ins + k][q][p] as f32;
            pack_columns(ins, outs, isa.lanes(), value, &mut packed);
        }
    }
    packed
}

/// A layer at work, as its tasks see it.
#[derive(Clone, Copy)]
struct Layer {
    values: *const f32,
    residual: *const f32,
    keep: *mut f32,
    from: Extent,
    scale: *const f32,
    shift: *const f32,
    packed: *const f32,
    out: *mut f32,
    to: Extent,
    records: *mut f32,
    record_len: usize,
    tiles: usize,
    tile_columns: usize,
    tiles_per_task: usize,
    side_stride: usize,
    position_stride: usize,
    sides_len: usize,
    half: usize,
}

// SAFETY: tasks read what nobody writes meanwhile, and write disjoint tiles of the output, disjoint pixels of the kept
// input, and a record each; `PackedConv::run` keeps everything borrowed until the round is over.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

/// One task: neighbouring tiles from `first` on.
#[derive(Clone, Copy)]
struct Part<'a> {
    layer: &'a Layer,
    task: usize,
    first: usize,
    scratch: *mut f32,
}

impl Part<'_> {
    /// # Safety
    /// The processor must have `isa`; the layer's pointers and the scratch must be valid.
    unsafe fn run_on(self, isa: Isa, sampling: Sampling, mode: u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match (sampling, mode) {
                (Sampling::Same, 1) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { RELU }>::of(self)),
                (Sampling::Same, 2) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { ADD }>::of(self)),
                (Sampling::Same, 5) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { RELU | KEEP }>::of(self)),
                (Sampling::Same, _) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { ADD | KEEP }>::of(self)),
                (Sampling::Up, 1) => isa.run(Tiles::<'_, Up, 4, 4, 5, 4, { RELU }>::of(self)),
                (Sampling::Up, _) => isa.run(Tiles::<'_, Up, 4, 4, 5, 4, { ADD }>::of(self)),
                (Sampling::Down, 1) => isa.run(Tiles::<'_, Down, 9, 9, 9, 4, { RELU }>::of(self)),
                (Sampling::Down, _) => isa.run(Tiles::<'_, Down, 9, 9, 9, 4, { ADD }>::of(self)),
            }
        }
    }
}

/// A task compiled for a scheme and a load.
struct Tiles<'a, S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize, const MODE: u8> {
    part: Part<'a>,
    scheme: PhantomData<S>,
}

impl<'a, S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize, const MODE: u8>
    Tiles<'a, S, IN, SIDES, POS, OUT, MODE>
where
    S: Scheme<IN, SIDES, POS, OUT>,
{
    fn of(part: Part<'a>) -> Self {
        Self { part, scheme: PhantomData }
    }

    /// Transforms one tile of the input for every channel and writes it as tile `slot`.
    ///
    /// Both axes are passes over whole pixels, so that memory is read and written in a few long runs.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn transform_input<V: Vector>(&self, slot: usize, tile_y: usize, tile_x: usize) {
        let layer = self.part.layer;
        let from = &layer.from;
        let stride = from.pixel_stride;
        let place = |tile: usize, k: usize, len: usize| {
            let index = (tile * S::ADVANCE + k) as isize - S::LEAD as isize;
            if S::CLAMPS { index.clamp(0, len as isize - 1) as usize } else { reflect(index, len) }
        };
        let mut columns = [0; IN];
        for k in 0..IN {
            columns[k] = place(tile_x, k, from.width) * stride;
        }
        // The tile's own pixels, which no other tile keeps.
        let own_rows = S::LEAD..S::LEAD + S::ADVANCE.min(from.height.saturating_sub(tile_y * S::ADVANCE));
        let own_columns = S::ADVANCE.min(from.width.saturating_sub(tile_x * S::ADVANCE));
        // SAFETY: rows and columns are inside the input; halves and sides are inside the scratch.
        unsafe {
            let half = self.part.scratch.add(layer.half);
            for r in 0..IN {
                let row = place(tile_y, r, from.height) * from.row_stride;
                let kept = if own_rows.contains(&r) { own_columns } else { 0 };
                self.transform_row::<V>(row, &columns, kept, half.add(r * stride));
            }
            for p in 0..SIDES {
                let half = half.add(p * IN * stride);
                let out = self.part.scratch.add(p * layer.side_stride + slot * stride);
                let mut channel = 0;
                while channel < stride {
                    let mut samples = [V::zero(); IN];
                    for r in 0..IN {
                        samples[r] = V::load(half.add(r * stride + channel));
                    }
                    let column = S::input(samples);
                    for q in 0..SIDES {
                        column[q].store(out.add(q * SIDES * layer.side_stride + channel));
                    }
                    channel += V::LANES;
                }
            }
        }
    }

    /// Loads one row of a tile and transforms it along the row; side `p` goes to `out + p * IN * pixel_stride`.
    ///
    /// # Safety
    /// As for [`Kernel::run`]; `kept` pixels from the tile's own first one on must be inside the input.
    #[inline(always)]
    unsafe fn transform_row<V: Vector>(&self, row: usize, columns: &[usize; IN], kept: usize, out: *mut f32) {
        let layer = self.part.layer;
        let stride = layer.from.pixel_stride;
        // SAFETY: the row and columns are inside the input, `out` inside the scratch.
        unsafe {
            let mut channel = 0;
            while channel < stride {
                let scale = V::load(layer.scale.add(channel));
                let shift = V::load(layer.shift.add(channel));
                let mut samples = [V::zero(); IN];
                for c in 0..IN {
                    let at = row + columns[c] + channel;
                    let mut value = V::load(layer.values.add(at)).mul_add(scale, shift);
                    if MODE & RELU != 0 {
                        value = value.max(V::zero());
                    }
                    if MODE & ADD != 0 {
                        value = value.add(V::load(layer.residual.add(at)));
                    }
                    samples[c] = value;
                }
                if MODE & KEEP != 0 {
                    for c in S::LEAD..S::LEAD + S::ADVANCE {
                        if c < S::LEAD + kept {
                            samples[c].store(layer.keep.add(row + columns[c] + channel));
                        }
                    }
                }
                let sides = S::input(samples);
                for p in 0..SIDES {
                    sides[p].store(out.add(p * IN * stride + channel));
                }
                channel += V::LANES;
            }
        }
    }

    /// Multiplies every position of the task's tiles by its weights.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn multiply<V: Vector>(&self, count: usize) {
        let layer = self.part.layer;
        let vectors = layer.to.pixel_stride / V::LANES;
        let weights = layer.from.channels * layer.to.pixel_stride;
        for q in 0..POS {
            for p in 0..POS {
                let side = S::SIDE[q] * SIDES + S::SIDE[p];
                let position = q * POS + p;
                // SAFETY: sides, products and packed weights are where `run` laid them out; the count rounded to
                // register blocks is at most `tiles_per_task`.
                unsafe {
                    let product = Product {
                        rows: self.part.scratch.add(side * layer.side_stride),
                        row_stride: layer.from.pixel_stride,
                        depth: layer.from.channels,
                        packed: layer.packed.add(position * weights),
                        out: self.part.scratch.add(layer.sides_len + position * layer.position_stride),
                        out_stride: layer.to.pixel_stride,
                    };
                    multiply_rows::<V>(&product, count, vectors);
                }
            }
        }
    }
}

impl<S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize, const MODE: u8> Kernel
    for Tiles<'_, S, IN, SIDES, POS, OUT, MODE>
where
    S: Scheme<IN, SIDES, POS, OUT>,
{
    /// # Safety
    /// The layer's pointers must be valid for its layouts, the scratch for the length that `PackedConv::run` asks for.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let layer = self.part.layer;
        let count = layer.tiles_per_task.min(layer.tiles - self.part.first);
        let place = |slot: usize| {
            let tile = self.part.first + slot;
            (tile / layer.tile_columns, tile % layer.tile_columns)
        };
        // SAFETY: the caller's promise; tile numbers are below `tiles`, slots below `tiles_per_task`.
        unsafe {
            for slot in 0..count {
                let (tile_y, tile_x) = place(slot);
                self.transform_input::<V>(slot, tile_y, tile_x);
            }
            self.multiply::<V>(count);
            let emitter = Emitter {
                products: self.part.scratch.add(layer.sides_len),
                position_stride: layer.position_stride,
                out: layer.out,
                extent: layer.to,
                record: layer.records.add(self.part.task * layer.record_len),
            };
            *emitter.record = 0.0;
            for slot in 0..count {
                let (tile_y, tile_x) = place(slot);
                emitter.emit::<V, S, IN, SIDES, POS, OUT>(slot, (tile_y * OUT, tile_x * OUT));
            }
        }
    }
}

#[cfg(test)]
#[path = "conv3x3_tests.rs"]
mod tests;
