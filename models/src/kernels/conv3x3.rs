//! 3x3 convolutions: stride 1, stride 2, and stride 1 after nearest-neighbour upsampling by two.

#![allow(unsafe_code)]

mod pack;
mod tiles;

use super::buffer::Buffer;
use super::extent::{Extent, View, ViewMut};
use super::isa::Isa;
use super::moments::{Affine, Moments};
use super::reduced::ReducedWeights;
use super::scheme::{Down, Same, Scheme, Up};
use super::team::Team;
use crate::weights::ConvWeights;
use pack::{pack, pack_reduced};
use tiles::{Layer, Part};

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
/// 16-bit integers in the products.
const REDUCED: u8 = 8;

/// Weights of a 3x3 convolution, transformed and packed for one instruction set.
#[derive(Clone, Debug)]
pub struct PackedConv {
    isa: Isa,
    sampling: Sampling,
    in_channels: usize,
    out_channels: usize,
    /// Empty where there are reduced ones.
    packed: Buffer,
    reduced: Option<ReducedWeights>,
}

/// The numbers of a scheme that decide about memory.
struct Geometry {
    samples: usize,
    sides: usize,
    positions: usize,
    out: usize,
}

/// The scheme itself says its numbers: scratch is laid out by the same ones that the kernels are compiled for.
fn geometry(sampling: Sampling) -> Geometry {
    match sampling {
        Sampling::Same => geometry_of(&Same),
        Sampling::Down => geometry_of(&Down),
        Sampling::Up => geometry_of(&Up),
    }
}

fn geometry_of<S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize>(_: &S) -> Geometry
where
    S: Scheme<IN, SIDES, POS, OUT>,
{
    Geometry { samples: IN, sides: SIDES, positions: POS, out: OUT }
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
        Self { isa, sampling, in_channels, out_channels, packed: Buffer::from_values(&packed), reduced: None }
    }

    /// As [`Self::pack`] in 16-bit integers; `peaks` are what [`Self::run_observed`] saw.
    ///
    /// # Panics
    /// Where the kernel is not 3x3, or the peaks are of another sampling.
    pub fn pack_reduced(isa: Isa, sampling: Sampling, weights: &ConvWeights, peaks: &[f32]) -> Self {
        assert_eq!(weights.kernel_size, 3, "a 3x3 kernel");
        let reduced = match sampling {
            Sampling::Same => pack_reduced::<Same, 6, 6, 6, 4>(isa, weights, peaks),
            Sampling::Down => pack_reduced::<Down, 9, 9, 9, 4>(isa, weights, peaks),
            Sampling::Up => pack_reduced::<Up, 4, 4, 5, 4>(isa, weights, peaks),
        };
        let (in_channels, out_channels) = (weights.in_channels, weights.out_channels);
        Self { isa, sampling, in_channels, out_channels, packed: Buffer::default(), reduced: Some(reduced) }
    }

    /// Returns how many peaks [`Self::run_observed`] finds.
    pub fn peak_count(sampling: Sampling) -> usize {
        let sides = geometry(sampling).sides;
        sides * sides
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
        self.packed.byte_len() + self.reduced.as_ref().map_or(0, ReducedWeights::byte_len)
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
        self.run_layer(team, input, out, moments, None);
    }

    /// As [`Self::run`], and raises `peaks` to the largest absolute transformed inputs, by side.
    ///
    /// # Panics
    /// Where layouts do not fit, there are other than [`Self::peak_count`] peaks, or the weights are reduced.
    pub fn run_observed(
        &self,
        team: &mut Team,
        input: Input<'_>,
        out: ViewMut<'_>,
        moments: &mut Moments,
        peaks: &mut [f32],
    ) {
        assert!(self.reduced.is_none(), "peaks are seen in full precision");
        assert_eq!(peaks.len(), Self::peak_count(self.sampling), "peaks");
        let mut seen = Vec::new();
        self.run_layer(team, input, out, moments, Some(&mut seen));
        for (at, &value) in seen.iter().enumerate() {
            let peak = &mut peaks[at % Self::peak_count(self.sampling)];
            *peak = peak.max(value);
        }
    }

    fn run_layer(
        &self,
        team: &mut Team,
        input: Input<'_>,
        out: ViewMut<'_>,
        moments: &mut Moments,
        seen: Option<&mut Vec<f32>>,
    ) {
        let from = input.values.extent;
        self.assert_fits(&input, &out);
        let geometry = geometry(self.sampling);
        let tile_columns = out.extent.width.div_ceil(geometry.out);
        let tiles = out.extent.height.div_ceil(geometry.out) * tile_columns;
        let tiles_per_task = self.tiles_per_task();
        let tasks = tiles.div_ceil(tiles_per_task);

        let side_stride = tiles_per_task * from.pixel_stride + 16;
        let position_stride = tiles_per_task * out.extent.pixel_stride + 16;
        // Sixteen-bit sides take half the room; a stride is a whole number of registers and therefore even.
        let side_values = if self.reduced.is_some() { side_stride / 2 } else { side_stride };
        let sides_len = geometry.sides * geometry.sides * side_values;
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
            reduced: self.reduced.as_ref().map_or(std::ptr::null(), |reduced| &raw const *reduced),
            seen: seen.map_or(std::ptr::null_mut(), |seen| {
                seen.resize(tasks * geometry.sides * geometry.sides, 0.0);
                seen.as_mut_ptr()
            }),
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
        let mode = if self.reduced.is_some() { mode | REDUCED } else { mode };
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
        assert!(self.isa.is_available(), "{} is not available here", self.isa);
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

#[cfg(test)]
#[path = "conv3x3_tests.rs"]
mod tests;
