//! A 3x3 convolution at work: each task transforms, multiplies and transforms back a few neighbouring tiles.

#![allow(unsafe_code)]

use super::super::emit::Emitter;
use super::super::extent::{Extent, reflect};
use super::super::isa::{Isa, Kernel};
use super::super::pairs::{PairProduct, multiply_pairs};
use super::super::product::{Product, multiply_rows};
use super::super::reduced::ReducedWeights;
use super::super::scheme::{Down, Same, Scheme, Up};
use super::super::vector::Vector;
use super::{ADD, KEEP, REDUCED, RELU, Sampling};
use std::marker::PhantomData;

/// A layer at work, as its tasks see it.
#[derive(Clone, Copy)]
pub(super) struct Layer {
    pub(super) values: *const f32,
    pub(super) residual: *const f32,
    pub(super) keep: *mut f32,
    pub(super) from: Extent,
    pub(super) scale: *const f32,
    pub(super) shift: *const f32,
    pub(super) packed: *const f32,
    /// Null in full precision.
    pub(super) reduced: *const ReducedWeights,
    /// Largest absolute transformed inputs, `[task][side]`; null where nobody asks.
    pub(super) seen: *mut f32,
    pub(super) out: *mut f32,
    pub(super) to: Extent,
    pub(super) records: *mut f32,
    pub(super) record_len: usize,
    pub(super) tiles: usize,
    pub(super) tile_columns: usize,
    pub(super) tiles_per_task: usize,
    pub(super) side_stride: usize,
    pub(super) position_stride: usize,
    pub(super) sides_len: usize,
    pub(super) half: usize,
}

// SAFETY: tasks read what nobody writes meanwhile, and write disjoint tiles of the output, disjoint pixels of the kept
// input, and a record each; `PackedConv::run` keeps everything borrowed until the round is over.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

/// One task: neighbouring tiles from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) layer: &'a Layer,
    pub(super) task: usize,
    pub(super) first: usize,
    pub(super) scratch: *mut f32,
}

impl Part<'_> {
    /// # Safety
    /// The processor must have `isa`; the layer's pointers and the scratch must be valid.
    pub(super) unsafe fn run_on(self, isa: Isa, sampling: Sampling, mode: u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match (sampling, mode) {
                (Sampling::Same, 1) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { RELU }>::of(self)),
                (Sampling::Same, 2) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { ADD }>::of(self)),
                (Sampling::Same, 5) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { RELU | KEEP }>::of(self)),
                (Sampling::Same, 6) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { ADD | KEEP }>::of(self)),
                (Sampling::Same, 9) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { RELU | REDUCED }>::of(self)),
                (Sampling::Same, 10) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { ADD | REDUCED }>::of(self)),
                (Sampling::Same, 13) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { RELU | KEEP | REDUCED }>::of(self)),
                (Sampling::Same, _) => isa.run(Tiles::<'_, Same, 6, 6, 6, 4, { ADD | KEEP | REDUCED }>::of(self)),
                (Sampling::Up, 1) => isa.run(Tiles::<'_, Up, 4, 4, 5, 4, { RELU }>::of(self)),
                (Sampling::Up, 2) => isa.run(Tiles::<'_, Up, 4, 4, 5, 4, { ADD }>::of(self)),
                (Sampling::Up, 9) => isa.run(Tiles::<'_, Up, 4, 4, 5, 4, { RELU | REDUCED }>::of(self)),
                (Sampling::Up, _) => isa.run(Tiles::<'_, Up, 4, 4, 5, 4, { ADD | REDUCED }>::of(self)),
                (Sampling::Down, 1) => isa.run(Tiles::<'_, Down, 9, 9, 9, 4, { RELU }>::of(self)),
                (Sampling::Down, 2) => isa.run(Tiles::<'_, Down, 9, 9, 9, 4, { ADD }>::of(self)),
                (Sampling::Down, 9) => isa.run(Tiles::<'_, Down, 9, 9, 9, 4, { RELU | REDUCED }>::of(self)),
                (Sampling::Down, _) => isa.run(Tiles::<'_, Down, 9, 9, 9, 4, { ADD | REDUCED }>::of(self)),
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
            let side_scales = self.side_scales();
            for r in 0..IN {
                let row = place(tile_y, r, from.height) * from.row_stride;
                let kept = if own_rows.contains(&r) { own_columns } else { 0 };
                self.transform_row::<V>(row, &columns, kept, half.add(r * stride));
            }
            for p in 0..SIDES {
                let half = half.add(p * IN * stride);
                let side = p * layer.side_stride + slot * stride;
                let mut channel = 0;
                while channel < stride {
                    let mut samples = [V::zero(); IN];
                    for r in 0..IN {
                        samples[r] = V::load(half.add(r * stride + channel));
                    }
                    let column = S::input(samples);
                    for q in 0..SIDES {
                        let at = side + q * SIDES * layer.side_stride + channel;
                        if MODE & REDUCED != 0 {
                            let scale = V::splat(*side_scales.add(q * SIDES + p));
                            column[q].mul_add(scale, V::zero()).store_rounded(self.part.scratch.cast::<i16>().add(at));
                        } else {
                            column[q].store(self.part.scratch.add(at));
                        }
                    }
                    channel += V::LANES;
                }
            }
        }
    }

    /// Returns the scales of the sides; dangling in full precision.
    ///
    /// # Safety
    /// In reduced precision the layer must have its weights.
    #[inline(always)]
    unsafe fn side_scales(&self) -> *const f32 {
        if MODE & REDUCED == 0 {
            return std::ptr::null();
        }
        // SAFETY: the caller's promise.
        unsafe { (*self.part.layer.reduced).side_scales.as_slice().as_ptr() }
    }

    /// Notes the largest absolute transformed inputs of the task, by side.
    ///
    /// # Safety
    /// As for [`Kernel::run`], with the sides of `count` tiles in full precision and room for what is seen.
    #[inline(always)]
    unsafe fn observe<V: Vector>(&self, count: usize) {
        let layer = self.part.layer;
        for side in 0..SIDES * SIDES {
            // SAFETY: sides are where `transform_input` wrote them; `lanes` is as long as the longest register.
            unsafe {
                let from = self.part.scratch.add(side * layer.side_stride).cast_const();
                let mut peak = V::zero();
                let mut at = 0;
                while at < count * layer.from.pixel_stride {
                    let value = V::load(from.add(at));
                    peak = peak.max(value).max(V::zero().sub(value));
                    at += V::LANES;
                }
                let mut lanes = [0.0f32; 16];
                peak.store(lanes.as_mut_ptr());
                let peak = lanes.iter().fold(0.0f32, |a, &b| a.max(b));
                *layer.seen.add(self.part.task * SIDES * SIDES + side) = peak;
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
        if MODE & REDUCED != 0 {
            // SAFETY: the caller's promise.
            unsafe { self.multiply_reduced::<V>(count, vectors) };
            return;
        }
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

    /// The same with 16-bit integers.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn multiply_reduced<V: Vector>(&self, count: usize, vectors: usize) {
        let layer = self.part.layer;
        let pairs = layer.from.channels.div_ceil(2);
        let stride = layer.to.pixel_stride;
        // SAFETY: as in `multiply`; an odd last channel is paired with one of padding or the next pixel's, whose weight
        // is zero.
        unsafe {
            let reduced = &*layer.reduced;
            let packed = reduced.packed.as_slice().as_ptr().cast::<i16>();
            let scales = reduced.column_scales.as_slice().as_ptr();
            for position in 0..POS * POS {
                let side = S::SIDE[position / POS] * SIDES + S::SIDE[position % POS];
                let product = PairProduct {
                    rows: self.part.scratch.cast::<i16>().add(side * layer.side_stride).cast_const(),
                    row_stride: layer.from.pixel_stride,
                    pairs,
                    packed: packed.add(position * 2 * pairs * stride),
                    scales: scales.add(position * stride),
                    out: self.part.scratch.add(layer.sides_len + position * layer.position_stride),
                    out_stride: stride,
                };
                multiply_pairs::<V>(&product, count, vectors);
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
            if MODE & REDUCED == 0 && !layer.seen.is_null() {
                self.observe::<V>(count);
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
