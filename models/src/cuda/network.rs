//! The transformer network as a program.

use super::pack::{Kind, PackedConv, Precision};
use super::program::{Arguments, Buffer, Program, Shape, blocks};
use super::source::{File, Kernel};
use crate::ModelError;
use crate::weights::{NormWeights, StyleWeights};

/// How many pictures of which size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pictures at once.
    pub images: usize,
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
}

impl Size {
    fn of(self, height: usize, width: usize) -> Self {
        Self { height, width, ..self }
    }

    fn halved(self) -> Self {
        self.of(self.height.div_ceil(2), self.width.div_ceil(2))
    }

    fn doubled(self) -> Self {
        self.of(self.height * 2, self.width * 2)
    }

    fn pixels(self) -> usize {
        self.height * self.width
    }
}

/// A convolution and where its weights and its norm's lie among the constants.
struct Layer {
    name: String,
    conv: PackedConv,
    weights: Buffer,
    /// Scale and shift; for the last layer there is a bias in place of the scale.
    scale: Buffer,
    shift: Buffer,
}

/// A style packed for a precision: layers and the constants that they read.
pub struct Network {
    precision: Precision,
    layers: Vec<Layer>,
    blocks: usize,
    constants: Vec<Vec<u8>>,
}

impl Network {
    /// Packs the weights.
    ///
    /// # Errors
    /// `Weights` where a layer is missing.
    pub fn pack(weights: &StyleWeights, precision: Precision) -> Result<Self, ModelError> {
        let mut network = Self { precision, layers: Vec::new(), blocks: weights.shape().blocks, constants: Vec::new() };
        network.add(weights, Kind::First, "conv1", Some("in1"))?;
        network.add(weights, Kind::Down, "conv2", Some("in2"))?;
        network.add(weights, Kind::Down, "conv3", Some("in3"))?;
        for block in 1..=network.blocks {
            for half in 1..=2 {
                let norm = format!("res{block}.in{half}");
                network.add(weights, Kind::Same, &format!("res{block}.conv{half}"), Some(&norm))?;
            }
        }
        network.add(weights, Kind::Up, "deconv1", Some("in4"))?;
        network.add(weights, Kind::Up, "deconv2", Some("in5"))?;
        network.add(weights, Kind::Last, "deconv3", None)?;
        Ok(network)
    }

    fn add(&mut self, weights: &StyleWeights, kind: Kind, name: &str, norm: Option<&str>) -> Result<(), ModelError> {
        let values = weights.conv(name)?;
        let mut conv = PackedConv::pack(kind, self.precision, &values);
        let mut hold = |bytes: Vec<u8>| {
            self.constants.push(bytes);
            Buffer::Constant(self.constants.len() - 1)
        };
        let packed = hold(std::mem::take(&mut conv.weights));
        let norm = match norm {
            Some(norm) => weights.norm(norm)?,
            None => NormWeights { scale: values.bias, shift: vec![0.0] },
        };
        let floats = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        let (scale, shift) = (hold(floats(norm.scale)), hold(floats(norm.shift)));
        self.layers.push(Layer { name: name.to_owned(), conv, weights: packed, scale, shift });
        Ok(())
    }

    /// Returns what every program of this network reads, by number.
    pub fn constants(&self) -> &[Vec<u8>] {
        &self.constants
    }

    /// Returns how values are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Returns every layer's name, its operations for an image of that size, and the bytes that have to move at least.
    pub fn costs(&self, size: Size) -> Vec<(String, f64, f64)> {
        let mut grid = size;
        let mut costs = Vec::new();
        for layer in &self.layers {
            if layer.conv.kind == Kind::Down {
                grid = grid.halved();
            }
            let conv = &layer.conv;
            let from = if conv.kind == Kind::Down { grid.pixels() * 4 } else { grid.pixels() } * conv.channels_in;
            let to = grid.pixels() * conv.phases() * if conv.kind == Kind::Last { 6 } else { conv.channels_out };
            let bytes = (from + to) * self.precision.bytes();
            costs.push((layer.name.clone(), conv.flops(grid.height, grid.width), bytes as f64));
            if conv.kind == Kind::Up {
                grid = grid.doubled();
            }
        }
        costs
    }

    /// Adds the network to a program: planes of f32 RGB on 0..255 at `rgb`, the raw output's planes go to `out`,
    /// whose size is returned: the next multiple of four.
    pub fn forward(&self, program: &mut Program, size: Size, rgb: Buffer, out: Buffer) -> Size {
        let rooms = self.rooms(program, size);
        pack_input(program, self.precision, size, rgb, rooms.pixels);
        let mut layers = self.layers.iter();
        let mut next = || layers.next().expect("a network has its layers");
        let Rooms { wide: [a, b], spare, .. } = rooms;

        let mut grid = size;
        self.normed(program, next(), grid, (rooms.pixels, a), Finish::Relu, &rooms);
        grid = self.normed(program, next(), grid, (a, b), Finish::Relu, &rooms);
        grid = self.normed(program, next(), grid, (b, a), Finish::Relu, &rooms);

        // The residual, and two places for what is computed meanwhile.
        let (mut x, mut inner, mut outer) = (a, b, spare);
        for _ in 0..self.blocks {
            self.normed(program, next(), grid, (x, inner), Finish::Relu, &rooms);
            self.normed(program, next(), grid, (inner, outer), Finish::Add(x), &rooms);
            (x, inner, outer) = (outer, x, inner);
        }
        // The spare room has the trunk's size only.
        let to = if inner == spare { outer } else { inner };
        grid = self.normed(program, next(), grid, (x, to), Finish::Relu, &rooms);
        let wide = if to == a { b } else { a };
        grid = self.normed(program, next(), grid, (to, wide), Finish::Relu, &rooms);
        self.convolve(program, next(), grid, wide, out, &rooms);
        grid
    }

    /// A convolution with its norm; returns the size of what it gives.
    fn normed(
        &self,
        program: &mut Program,
        layer: &Layer,
        from: Size,
        (input, output): (Buffer, Buffer),
        finish: Finish,
        rooms: &Rooms,
    ) -> Size {
        let grid = self.convolve(program, layer, from, input, output, rooms);
        let conv = &layer.conv;
        let element = ("ELEMENT", self.precision.element().to_owned());
        let channels = ("CHANNELS", conv.channels_out.to_string());
        program.launch(
            format!("{} moments", layer.name),
            Kernel::new(File::Norm, "join_moments", &[element.clone(), channels.clone()]),
            Shape {
                grid: [blocks(conv.channels_out, 8), blocks(grid.images, 1), 1],
                threads: 512,
                shared_bytes: 512 * 8,
            },
            Arguments {
                pointers: &[rooms.moments, layer.scale, layer.shift, rooms.affine],
                ints: &[
                    conv.pixel_tiles(grid.height, grid.width) as i64,
                    conv.phases() as i64,
                    grid.pixels() as i64,
                    conv.tiles.m as i64,
                    conv.channels as i64,
                ],
                floats: &[],
            },
        );
        let result = if conv.kind == Kind::Up { grid.doubled() } else { grid };
        let (relu, residual) = match finish {
            Finish::Relu => (1, None),
            Finish::Add(residual) => (0, Some(residual)),
        };
        let vectors = result.pixels() * conv.channels_out / 8;
        let defines =
            [element, channels, ("RELU", relu.to_string()), ("RESIDUAL", u8::from(residual.is_some()).to_string())];
        program.launch(
            format!("{} norm", layer.name),
            Kernel::new(File::Norm, "apply", &defines),
            Shape { grid: [blocks(vectors, 256), blocks(grid.images, 1), 1], threads: 256, shared_bytes: 0 },
            Arguments {
                pointers: &[output, rooms.affine, residual.unwrap_or(output)],
                ints: &[vectors as i64],
                floats: &[],
            },
        );
        result
    }

    /// A convolution alone; returns the grid of pixels that it ran over.
    fn convolve(
        &self,
        program: &mut Program,
        layer: &Layer,
        from: Size,
        input: Buffer,
        output: Buffer,
        rooms: &Rooms,
    ) -> Size {
        let conv = &layer.conv;
        let grid = if conv.kind == Kind::Down { from.halved() } else { from };
        let tiles = conv.pixel_tiles(grid.height, grid.width);
        let tail = if conv.kind == Kind::Last { layer.scale } else { rooms.moments };
        program.launch(
            format!("{} conv", layer.name),
            conv.kernel(),
            Shape {
                grid: [blocks(tiles, 1), blocks(conv.channel_tiles(), 1), blocks(grid.images * conv.phases(), 1)],
                threads: conv.tiles.threads() as u32,
                shared_bytes: conv.tiles.shared_bytes() as u32,
            },
            Arguments {
                pointers: &[input, layer.weights, output, tail],
                ints: &[from.height, from.width, grid.height, grid.width].map(|value| value as i64),
                floats: &[],
            },
        );
        grid
    }

    /// Reserves what the layers need at most.
    fn rooms(&self, program: &mut Program, size: Size) -> Rooms {
        let (mut grid, mut wide, mut trunk, mut moments, mut channels) = (size, 0, 0, 0, 0);
        for layer in &self.layers {
            let conv = &layer.conv;
            if conv.kind == Kind::Down {
                grid = grid.halved();
            }
            let tiles = conv.pixel_tiles(grid.height, grid.width) * conv.phases();
            if conv.kind == Kind::Up {
                grid = grid.doubled();
            }
            if conv.kind == Kind::Last {
                continue;
            }
            let values = grid.images * grid.pixels() * conv.channels_out;
            wide = values.max(wide);
            if conv.kind == Kind::Same {
                trunk = values.max(trunk);
            }
            moments = (grid.images * tiles * 2 * conv.channels_out).max(moments);
            channels = conv.channels_out.max(channels);
        }
        let bytes = self.precision.bytes();
        Rooms {
            pixels: program.reserve(size.images * size.pixels() * 4 * bytes),
            wide: [program.reserve(wide * bytes), program.reserve(wide * bytes)],
            spare: program.reserve(trunk.max(8) * bytes),
            moments: program.reserve(moments * 4),
            affine: program.reserve(size.images * 2 * channels * 4),
        }
    }
}

/// What follows the norm.
enum Finish {
    Relu,
    Add(Buffer),
}

/// Memory between layers.
struct Rooms {
    /// The network's input.
    pixels: Buffer,
    /// Room for the widest activation, twice.
    wide: [Buffer; 2],
    /// Room for an activation of the trunk.
    spare: Buffer,
    moments: Buffer,
    affine: Buffer,
}

fn pack_input(program: &mut Program, precision: Precision, size: Size, rgb: Buffer, pixels: Buffer) {
    program.launch(
        "input",
        Kernel::new(File::Frame, "pack_input", &[("ELEMENT", precision.element().to_owned())]),
        Shape::over(size.width, size.height, size.images),
        Arguments { pointers: &[rgb, pixels], ints: &[size.width as i64, size.height as i64], floats: &[] },
    );
}
