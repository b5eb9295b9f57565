//! The feed-forward transformer network of Johnson, Alahi and Fei-Fei (2016, "Perceptual losses for real-time style
//! transfer", with the architecture of its supplementary material), as the PyTorch examples have it: instance norm for
//! batch norm (Ulyanov et al. 2016), mirrored borders, nearest-neighbour upsampling before a convolution for
//! transposed convolutions, no final tanh.
//!
//! It runs on the CPU through [`crate::kernels`]; [`TransformNet::forward`] gives the raw output, which for a size
//! that is no multiple of four is the next one (150x101 gives 152x104), not clamped.

use crate::ModelError;
use crate::kernels::{
    Affine, Buffer, Extent, Input, Isa, Load, Moments, PackedConv, PackedFirst, PackedLast, Sampling, Team, View,
    ViewMut,
};
use crate::pixels::RgbPlanes;
use crate::ranges::Ranges;
use crate::weights::{NormWeights, StyleWeights};
use std::mem::swap;

/// A residual block: two convolutions with their norms.
struct Block {
    conv1: PackedConv,
    norm1: NormWeights,
    conv2: PackedConv,
    norm2: NormWeights,
}

/// The network with its weights packed for one instruction set, and the memory of a picture at work.
///
/// Memory grows to what the largest picture needs and is kept. It is not shared: one thread uses it, with a team of
/// its own.
pub struct TransformNet {
    isa: Isa,
    first: PackedFirst,
    first_norm: NormWeights,
    down: [(PackedConv, NormWeights); 2],
    blocks: Vec<Block>,
    up: [(PackedConv, NormWeights); 2],
    last: PackedLast,
    team: Team,
    memory: Memory,
    /// What was seen so far, where somebody asks.
    observed: Option<Ranges>,
}

/// Activations lie in two places by turns, so that a layer's input and output are never the same.
#[derive(Default)]
struct Memory {
    /// First layer; then the trunk's four parts; then the last layer's input.
    wide: Buffer,
    /// Second layer; then the first layer after the trunk.
    narrow: Buffer,
    moments: Moments,
    affine: Affine,
}

/// Layouts of all activations for one picture size.
struct Layouts {
    first: Extent,
    second: Extent,
    trunk: Extent,
    third: Extent,
    fourth: Extent,
}

impl TransformNet {
    /// Packs the weights for the best instruction set of this processor and starts `threads - 1` helpers.
    ///
    /// # Errors
    /// `Weights` where a layer is missing, `Device` where a thread cannot be started.
    pub fn new(weights: &StyleWeights, threads: usize) -> Result<Self, ModelError> {
        Self::with_isa(weights, threads, Isa::detect())
    }

    /// As [`Self::new`] for a given instruction set.
    ///
    /// # Errors
    /// Also `Device` where this processor lacks the set.
    pub fn with_isa(weights: &StyleWeights, threads: usize, isa: Isa) -> Result<Self, ModelError> {
        Self::with_ranges(weights, threads, isa, None)
    }

    /// As [`Self::with_isa`] in reduced precision, scaled by the ranges that [`Self::observe`] found: 16-bit integers in the
    /// products of all 3x3 convolutions, f32 elsewhere.
    ///
    /// # Errors
    /// Also `Weights` where the ranges are of another network.
    pub fn with_ranges(
        weights: &StyleWeights,
        threads: usize,
        isa: Isa,
        ranges: Option<&Ranges>,
    ) -> Result<Self, ModelError> {
        if !Isa::available().contains(&isa) {
            return Err(ModelError::Device(format!("this processor has no {isa}")));
        }
        if let Some(ranges) = ranges {
            ranges.check(weights.shape().blocks)?;
        }
        // Layers are built in the order in which they run, which is that of their ranges.
        let mut layers = 0..;
        let mut conv = |name: &str, sampling| {
            let (layer, weights) = (layers.next().unwrap_or_default(), weights.conv(name)?);
            Ok::<_, ModelError>(match ranges {
                None => PackedConv::pack(isa, sampling, &weights),
                Some(ranges) => PackedConv::pack_reduced(isa, sampling, &weights, ranges.layer(layer)),
            })
        };
        let down = [
            (conv("conv2", Sampling::Down)?, weights.norm("in2")?),
            (conv("conv3", Sampling::Down)?, weights.norm("in3")?),
        ];
        let blocks = (1..=weights.shape().blocks)
            .map(|block| {
                Ok(Block {
                    conv1: conv(&format!("res{block}.conv1"), Sampling::Same)?,
                    norm1: weights.norm(&format!("res{block}.in1"))?,
                    conv2: conv(&format!("res{block}.conv2"), Sampling::Same)?,
                    norm2: weights.norm(&format!("res{block}.in2"))?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let team = Team::new(threads)
            .map_err(|error| ModelError::Device(format!("cannot start {threads} threads for the model: {error}")))?;
        Ok(Self {
            isa,
            first: PackedFirst::pack(isa, &weights.conv("conv1")?),
            first_norm: weights.norm("in1")?,
            down,
            blocks,
            up: [
                (conv("deconv1", Sampling::Up)?, weights.norm("in4")?),
                (conv("deconv2", Sampling::Up)?, weights.norm("in5")?),
            ],
            last: PackedLast::pack(isa, &weights.conv("deconv3")?),
            team,
            memory: Memory::default(),
            observed: None,
        })
    }

    /// As [`Self::forward`], and widens `ranges` by what the 3x3 convolutions took in.
    ///
    /// # Panics
    /// Also where the network is of reduced precision.
    pub fn observe(&mut self, rgb: &RgbPlanes, out: &mut RgbPlanes, ranges: &mut Ranges) {
        if ranges.is_empty() {
            *ranges = Ranges::nothing(self.blocks.len());
        }
        self.observed = Some(std::mem::take(ranges));
        self.forward(rgb, out);
        *ranges = self.observed.take().unwrap_or_default();
    }

    /// Returns the instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Returns the size of the output for an input of `width` x `height`.
    pub fn output_size(width: usize, height: usize) -> (usize, usize) {
        let size = |len: usize| len.div_ceil(2).div_ceil(2) * 4;
        (size(width), size(height))
    }

    /// Returns the bytes of working memory held: activations and scratch, without weights and pictures.
    pub fn memory_bytes(&self) -> usize {
        self.memory.wide.byte_len() + self.memory.narrow.byte_len() + self.team.scratch_bytes()
    }

    /// Returns the bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        let convs = self.down.iter().chain(&self.up).map(|(conv, _)| conv.byte_len());
        let blocks = self.blocks.iter().map(|block| block.conv1.byte_len() + block.conv2.byte_len());
        self.first.byte_len() + self.last.byte_len() + convs.sum::<usize>() + blocks.sum::<usize>()
    }

    /// Stylizes planes of RGB on 0..255; `out` takes the size of [`Self::output_size`]. Blocks until done.
    ///
    /// # Panics
    /// Where the planes have no pixel.
    pub fn forward(&mut self, rgb: &RgbPlanes, out: &mut RgbPlanes) {
        let layouts = self.layouts(rgb);
        self.reserve(&layouts);
        self.narrow(rgb, &layouts);
        let parts = self.trunk(&layouts);
        self.widen(&layouts, parts, out);
    }

    fn layouts(&self, rgb: &RgbPlanes) -> Layouts {
        let next = |conv: &PackedConv, from: &Extent| conv.output(from.height, from.width);
        let first = self.first.output(rgb.height, rgb.width);
        let second = next(&self.down[0].0, &first);
        let trunk = next(&self.down[1].0, &second);
        let third = next(&self.up[0].0, &trunk);
        let fourth = next(&self.up[1].0, &third);
        Layouts { first, second, trunk, third, fourth }
    }

    fn reserve(&mut self, layouts: &Layouts) {
        let trunk_parts = 4 * part_len(&layouts.trunk);
        self.memory.wide.reserve(layouts.first.len().max(trunk_parts).max(layouts.fourth.len()));
        self.memory.narrow.reserve(layouts.second.len().max(layouts.third.len()));
    }

    /// The picture to the trunk's first raw activation, at the start of `wide`.
    fn narrow(&mut self, rgb: &RgbPlanes, layouts: &Layouts) {
        let Memory { wide, narrow, moments, affine } = &mut self.memory;
        let (wide, narrow) = (wide.as_mut_slice(), narrow.as_mut_slice());
        let (team, observed) = (&mut self.team, &mut self.observed);
        self.first.run(team, rgb, ViewMut::new(layouts.first, wide), moments);
        set_affine(affine, moments, &self.first_norm);

        let (conv, norm) = &self.down[0];
        let input = Input { values: View::new(layouts.first, wide), affine, load: Load::Relu };
        run(conv, team, input, ViewMut::new(layouts.second, narrow), moments, seen(observed, 0));
        set_affine(affine, moments, norm);

        let (conv, norm) = &self.down[1];
        let input = Input { values: View::new(layouts.second, narrow), affine, load: Load::Relu };
        run(conv, team, input, ViewMut::new(layouts.trunk, wide), moments, seen(observed, 1));
        set_affine(affine, moments, norm);
    }

    /// The residual blocks. Raw values stay in the first of the trunk's parts; returns which part holds the residual.
    fn trunk(&mut self, layouts: &Layouts) -> usize {
        let Memory { wide, moments, affine, .. } = &mut self.memory;
        let extent = layouts.trunk;
        let part = part_len(&extent);
        let (raw, rest) = wide.as_mut_slice().split_at_mut(part);
        let (inner, rest) = rest.split_at_mut(part);
        let (mut residual, rest) = rest.split_at_mut(part);
        let (mut kept, _) = rest.split_at_mut(part);
        let mut residual_part = 2;
        for (index, block) in self.blocks.iter().enumerate() {
            let keep = ViewMut::new(extent, kept);
            let load = match index {
                0 => Load::ReluKeep(keep),
                _ => Load::AddKeep(View::new(extent, residual), keep),
            };
            let input = Input { values: View::new(extent, raw), affine, load };
            let (team, observed) = (&mut self.team, &mut self.observed);
            let out = ViewMut::new(extent, inner);
            run(&block.conv1, team, input, out, moments, seen(observed, 2 + 2 * index));
            set_affine(affine, moments, &block.norm1);

            let input = Input { values: View::new(extent, inner), affine, load: Load::Relu };
            let out = ViewMut::new(extent, raw);
            run(&block.conv2, team, input, out, moments, seen(observed, 3 + 2 * index));
            set_affine(affine, moments, &block.norm2);
            swap(&mut residual, &mut kept);
            residual_part = 5 - residual_part;
        }
        residual_part
    }

    /// The trunk's last raw activation and residual to the picture.
    fn widen(&mut self, layouts: &Layouts, residual_part: usize, out: &mut RgbPlanes) {
        let Memory { wide, narrow, moments, affine } = &mut self.memory;
        let (wide, narrow) = (wide.as_mut_slice(), narrow.as_mut_slice());
        let (team, observed) = (&mut self.team, &mut self.observed);
        let layer = 2 + 2 * self.blocks.len();
        let part = part_len(&layouts.trunk);

        let (conv, norm) = &self.up[0];
        let residual = View::new(layouts.trunk, &wide[residual_part * part..]);
        let load = if self.blocks.is_empty() { Load::Relu } else { Load::Add(residual) };
        let input = Input { values: View::new(layouts.trunk, &wide[..part]), affine, load };
        run(conv, team, input, ViewMut::new(layouts.third, narrow), moments, seen(observed, layer));
        set_affine(affine, moments, norm);

        let (conv, norm) = &self.up[1];
        let input = Input { values: View::new(layouts.third, narrow), affine, load: Load::Relu };
        run(conv, team, input, ViewMut::new(layouts.fourth, wide), moments, seen(observed, layer + 1));
        set_affine(affine, moments, norm);

        self.last.run(team, View::new(layouts.fourth, wide), affine, out);
    }
}

/// Values of one part of the trunk's memory, in whole cache lines.
fn part_len(extent: &Extent) -> usize {
    extent.len().next_multiple_of(16)
}

/// Runs a convolution, and notes what it takes in where somebody asks.
fn run(
    conv: &PackedConv,
    team: &mut Team,
    input: Input<'_>,
    out: ViewMut<'_>,
    moments: &mut Moments,
    seen: Option<&mut [f32]>,
) {
    match seen {
        None => conv.run(team, input, out, moments),
        Some(peaks) => conv.run_observed(team, input, out, moments, peaks),
    }
}

/// Returns the peaks of a layer, where they are asked for.
fn seen(observed: &mut Option<Ranges>, layer: usize) -> Option<&mut [f32]> {
    observed.as_mut().map(|ranges| ranges.layer_mut(layer))
}

fn set_affine(affine: &mut Affine, moments: &Moments, norm: &NormWeights) {
    affine.set_from(moments, &norm.scale, &norm.shift);
}

#[cfg(test)]
#[path = "transform_net_tests.rs"]
mod tests;
