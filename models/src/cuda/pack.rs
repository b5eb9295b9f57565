//! Convolutions of the network as the kernel wants them: tiles chosen, weights in the order in which they are read.

use super::source::{File, Kernel};
use crate::weights::ConvWeights;
use half::bf16;

/// How activations and weights are stored; sums are f32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// bfloat16 on tensor cores.
    Bf16,
    /// bfloat16 with the plain body, to check the one on tensor cores.
    PlainBf16,
    /// f32 with the plain body: the reference, slow.
    F32,
}

impl Precision {
    /// Returns the type's name in the kernels.
    pub fn element(self) -> &'static str {
        if self == Self::F32 { "float" } else { "bf16" }
    }

    /// Returns the bytes of a value.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// Stores values as this type.
    pub fn store(self, values: impl Iterator<Item = f32>) -> Vec<u8> {
        match self {
            Self::F32 => values.flat_map(f32::to_le_bytes).collect(),
            Self::Bf16 | Self::PlainBf16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        }
    }
}

/// Which convolution of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 9x9 on the picture.
    First,
    /// 3x3.
    Same,
    /// 3x3 at every second pixel.
    Down,
    /// 3x3 after repeating every pixel twice in both directions.
    Up,
    /// 9x9 to three planes.
    Last,
}

/// Taps of the edge layers' kernels along one axis.
const EDGE: usize = 9;

/// How a block cuts its work; see `conv.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Pixels.
    pub m: usize,
    /// Channels.
    pub n: usize,
    /// Values of the sum in a step.
    pub k: usize,
    /// Steps in flight, the one at work included.
    pub stages: usize,
    /// Warps along the pixels.
    pub warps_m: usize,
    /// Warps along the channels.
    pub warps_n: usize,
}

impl Tiles {
    /// Chooses tiles for so many output channels. Shared memory stays below 99 KiB, which every card since Ampere has.
    ///
    /// Not measured: no card was at hand. `benches/gpu` prints each layer's share of the peak, which is where to begin.
    pub fn choose(channels_out: usize) -> Self {
        match channels_out {
            0..=32 => Self { m: 256, n: 32, k: 32, stages: 4, warps_m: 8, warps_n: 1 },
            33..=64 => Self { m: 128, n: 64, k: 64, stages: 3, warps_m: 4, warps_n: 2 },
            _ => Self { m: 128, n: 128, k: 64, stages: 3, warps_m: 4, warps_n: 2 },
        }
    }

    /// Returns the threads of a block.
    pub fn threads(self) -> usize {
        32 * self.warps_m * self.warps_n
    }

    /// Returns the shared memory of a block: stages of the sum, afterwards the tile and parts of its moments.
    pub fn shared_bytes(self) -> usize {
        let stages = self.stages * (self.m + self.n) * self.k * 2;
        let parts = (self.threads() / self.n).max(1) * 2 * self.n * 4;
        stages.max(self.m * (self.n + 8) * 4 + parts)
    }
}

/// A convolution ready for the kernel.
#[derive(Clone, Debug)]
pub struct PackedConv {
    /// Which one.
    pub kind: Kind,
    /// Stored input channels.
    pub channels_in: usize,
    /// Output channels of meaning.
    pub channels: usize,
    /// Stored output channels; for the last layer the columns of its product.
    pub channels_out: usize,
    /// How a block cuts its work.
    pub tiles: Tiles,
    /// Weights as `[phase][channel tile][step][channel][value of the step]`.
    pub weights: Vec<u8>,
    precision: Precision,
}

impl PackedConv {
    /// Chooses tiles and packs the weights; biases are left to others, since instance norm cancels them.
    pub fn pack(kind: Kind, precision: Precision, conv: &ConvWeights) -> Self {
        let columns = if kind == Kind::Last { EDGE * 3 } else { conv.out_channels };
        let tiles = Tiles::choose(columns);
        let mut packed = Self {
            kind,
            channels_in: if kind == Kind::First { 4 } else { conv.in_channels.next_multiple_of(8) },
            channels: conv.out_channels,
            channels_out: columns.next_multiple_of(8),
            tiles,
            weights: Vec::new(),
            precision,
        };
        packed.weights = packed.pack_weights(conv);
        packed
    }

    /// Returns the taps of one phase.
    pub fn taps(&self) -> usize {
        match self.kind {
            Kind::First => EDGE * EDGE,
            Kind::Same | Kind::Down => 9,
            Kind::Up => 4,
            Kind::Last => EDGE,
        }
    }

    /// Returns 4 where every pixel gives four, else 1.
    pub fn phases(&self) -> usize {
        if self.kind == Kind::Up { 4 } else { 1 }
    }

    /// Returns the blocks along the channels.
    pub fn channel_tiles(&self) -> usize {
        self.channels_out.div_ceil(self.tiles.n)
    }

    /// Returns the blocks along the pixels of a grid of `height` x `width`.
    pub fn pixel_tiles(&self, height: usize, width: usize) -> usize {
        if self.kind == Kind::Last {
            return height * width.div_ceil(self.tiles.m - EDGE + 1);
        }
        (height * width).div_ceil(self.tiles.m)
    }

    /// Returns multiplications and additions for one image of the grid, without what padding adds.
    pub fn flops(&self, height: usize, width: usize) -> f64 {
        let (inputs, outputs) =
            if self.kind == Kind::Last { (self.channels_in, EDGE * 3) } else { (self.channels_in, self.channels) };
        let inputs = if self.kind == Kind::First { 3 } else { inputs };
        2.0 * (height * width * self.phases() * self.taps() * inputs * outputs) as f64
    }

    /// Returns the kernel with its definitions.
    pub fn kernel(&self) -> Kernel {
        let (tap_y, tap_x, border, stride, rows) = match self.kind {
            Kind::First => ("((t) / 9 - 4)", "((t) % 9 - 4)", "mirrored", 1, 0),
            Kind::Same => ("((t) / 3 - 1)", "((t) % 3 - 1)", "mirrored", 1, 0),
            Kind::Down => ("((t) / 3 - 1)", "((t) % 3 - 1)", "mirrored", 2, 0),
            Kind::Up => ("((t) / 2 - 1 + (phase) / 2)", "((t) % 2 - 1 + (phase) % 2)", "clamped", 1, 0),
            Kind::Last => ("((t) - 4)", "0", "mirrored", 1, EDGE),
        };
        let number = |value: usize| value.to_string();
        let mut defines = vec![
            ("ELEMENT", self.precision.element().to_owned()),
            ("CHANNELS_IN", number(self.channels_in)),
            ("CHANNELS_OUT", number(self.channels_out)),
            ("TAPS", number(self.taps())),
            ("TAP_Y(t, phase)", tap_y.to_owned()),
            ("TAP_X(t, phase)", tap_x.to_owned()),
            ("PHASES", number(self.phases())),
            ("BORDER", border.to_owned()),
            ("STRIDE", number(stride)),
            ("ROWS", number(rows)),
            ("TILE_M", number(self.tiles.m)),
            ("TILE_N", number(self.tiles.n)),
            ("TILE_K", number(self.tiles.k)),
            ("STAGES", number(self.tiles.stages)),
            ("WARPS_M", number(self.tiles.warps_m)),
            ("WARPS_N", number(self.tiles.warps_n)),
        ];
        if self.precision != Precision::Bf16 {
            defines.push(("PLAIN", "1".to_owned()));
        }
        Kernel::new(File::Conv, "conv", &defines)
    }

    fn pack_weights(&self, conv: &ConvWeights) -> Vec<u8> {
        let group = self.channels_in.min(8);
        let values = self.taps() * self.channels_in;
        let steps = values.div_ceil(self.tiles.k);
        let mut packed = Vec::with_capacity(self.phases() * self.channel_tiles() * steps * self.tiles.n * self.tiles.k);
        for phase in 0..self.phases() {
            for column in 0..self.channel_tiles() {
                for step in 0..steps {
                    for n in 0..self.tiles.n {
                        for k in 0..self.tiles.k {
                            // Groups of channels follow each other within a tap, taps within the sum.
                            let at = (step * self.tiles.k + k) / group * group + k % group;
                            let (tap, channel) = (at / self.channels_in, at % self.channels_in);
                            packed.push(self.weight(conv, phase, column * self.tiles.n + n, tap, channel));
                        }
                    }
                }
            }
        }
        self.precision.store(packed.into_iter())
    }

    /// The weight between an input channel and an output of the product; zero where padding has none.
    fn weight(&self, conv: &ConvWeights, phase: usize, out: usize, tap: usize, input: usize) -> f32 {
        let side = conv.kernel_size;
        let kernel =
            |out: usize, y: usize, x: usize| conv.kernel[((out * conv.in_channels + input) * side + y) * side + x];
        if tap >= self.taps() || input >= conv.in_channels {
            return 0.0;
        }
        match self.kind {
            Kind::Last if out < 3 * EDGE => kernel(out % 3, tap, out / 3),
            Kind::Last => 0.0,
            _ if out >= conv.out_channels => 0.0,
            Kind::Up => {
                let (rows, columns) = (folded(phase / 2, tap / 2), folded(phase % 2, tap % 2));
                rows.iter().flat_map(|&y| columns.iter().map(move |&x| kernel(out, y, x))).sum()
            }
            _ => kernel(out, tap / side, tap % side),
        }
    }
}

/// Which of three taps fall on the same source pixel when every pixel was repeated.
fn folded(phase: usize, tap: usize) -> &'static [usize] {
    match (phase, tap) {
        (0, 0) => &[0],
        (0, _) => &[1, 2],
        (_, 0) => &[0, 1],
        _ => &[2],
    }
}
