//! Weights of the transformer network (Johnson et al. 2016), read from the bytes of a safetensors file.
//!
//! The names are those of the PyTorch examples' `TransformerNet`. Widths and the number of residual blocks are
//! read from the shapes. Nothing in the file is trusted: sizes are bounded before anything is allocated, every
//! tensor that the network needs is checked by name, shape, type and for values that are not finite.

use crate::ModelError;
use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// The largest style file, in bytes; the published network of full width has 3.4 MB.
pub const FILE_BYTES_MAX: usize = 512 << 20;
/// The largest header of a style file, in bytes.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// The most residual blocks.
pub(crate) const BLOCKS_MAX: usize = 64;
/// The most channels of a layer.
const CHANNELS_MAX: usize = 1024;
/// Kernel size of the first and the last convolution.
pub(crate) const EDGE_KERNEL: usize = 9;

/// Widths and depth of a transformer network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct NetShape {
    /// Output channels of the three convolutions that narrow the picture (32, 64, 128 in the paper).
    pub down: [usize; 3],
    /// Number of residual blocks (5 in the paper).
    pub blocks: usize,
    /// Output channels of the two convolutions after upsampling (64, 32 in the paper).
    pub up: [usize; 2],
}

impl NetShape {
    /// Returns about how many bytes the CPU path holds for every pixel: two sets of activations that take turns, the second
    /// of a quarter of the pixels, and the planes of the picture before and after.
    pub fn bytes_per_pixel(&self) -> u64 {
        let [d1, d2, d3] = self.down;
        let [u1, u2] = self.up;
        let activations = d1.max(u2).max(d3.div_ceil(4)) + d2.max(u1).div_ceil(4);
        let planes = 4 * 3;
        4 * (activations + planes) as u64
    }

    /// Lists every tensor that the network needs, with its shape.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let [c1, c2, c3] = self.down;
        let [u1, u2] = self.up;
        let mut list = Vec::new();
        let mut conv = |name: &str, out: usize, input: usize, kernel: usize| {
            list.push((format!("{name}.conv2d.weight"), vec![out, input, kernel, kernel]));
            list.push((format!("{name}.conv2d.bias"), vec![out]));
        };
        conv("conv1", c1, 3, EDGE_KERNEL);
        conv("conv2", c2, c1, 3);
        conv("conv3", c3, c2, 3);
        for block in 1..=self.blocks {
            conv(&format!("res{block}.conv1"), c3, c3, 3);
            conv(&format!("res{block}.conv2"), c3, c3, 3);
        }
        conv("deconv1", u1, c3, 3);
        conv("deconv2", u2, u1, 3);
        conv("deconv3", 3, u2, EDGE_KERNEL);
        let mut norm = |name: &str, channels: usize| {
            list.push((format!("{name}.weight"), vec![channels]));
            list.push((format!("{name}.bias"), vec![channels]));
        };
        for (name, channels) in [("in1", c1), ("in2", c2), ("in3", c3), ("in4", u1), ("in5", u2)] {
            norm(name, channels);
        }
        for block in 1..=self.blocks {
            norm(&format!("res{block}.in1"), c3);
            norm(&format!("res{block}.in2"), c3);
        }
        list
    }

    /// Returns the number of parameters.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

/// A convolution's weights as `[out, in, kernel, kernel]` and its bias as `[out]`, both f32 on the CPU.
#[derive(Clone, Debug)]
pub struct ConvWeights {
    /// Kernel by output channel, input channel, row, column.
    pub kernel: Vec<f32>,
    /// One value an output channel.
    pub bias: Vec<f32>,
    /// Output channels.
    pub out_channels: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Rows and columns of the kernel.
    pub kernel_size: usize,
}

/// An instance norm's scale and shift, one value a channel.
#[derive(Clone, Debug)]
pub struct NormWeights {
    /// Factor after normalisation (`weight`).
    pub scale: Vec<f32>,
    /// Summand after scaling (`bias`).
    pub shift: Vec<f32>,
}

/// What a style file holds, for people and for `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct StyleDescription {
    /// Name of the network.
    pub architecture: &'static str,
    /// Widths and depth.
    pub shape: NetShape,
    /// Number of parameters.
    pub parameters: usize,
    /// blake3 of the file, 64 hex digits.
    pub digest: String,
    /// The file's own metadata (source, licence, training), as it stands there.
    pub metadata: BTreeMap<String, String>,
}

/// Checked weights of one style; RGB on 0..255 goes in and comes out.
#[derive(Clone, Debug)]
pub struct StyleWeights {
    shape: NetShape,
    digest: [u8; 32],
    metadata: BTreeMap<String, String>,
    tensors: HashMap<String, Tensor>,
}

impl StyleWeights {
    /// Reads and checks a style file.
    ///
    /// Tensors may be f32, f16 or bf16 and are widened to f32; tensors that the network does not need are ignored.
    ///
    /// # Errors
    /// `Weights` naming the first thing that is wrong and what was expected.
    pub fn load(bytes: &[u8]) -> Result<Self, ModelError> {
        check_bounds(bytes)?;
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| refused(format!("style file is not valid safetensors: {error}")))?;
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|error| refused(format!("style file has an unreadable header: {error}")))?;
        let shape = read_shape(&file)?;
        refuse_strays(&file, &shape)?;
        let mut tensors = HashMap::new();
        for (name, expected) in shape.tensors() {
            let tensor = read_tensor(&file, &name, &expected)?;
            tensors.insert(name, tensor);
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { shape, digest: *blake3::hash(bytes).as_bytes(), metadata, tensors })
    }

    /// Returns blake3 of the file's bytes.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Returns widths and depth.
    pub fn shape(&self) -> NetShape {
        self.shape
    }

    /// Describes the style for people and for `--json`.
    pub fn describe(&self) -> StyleDescription {
        let digest = self.digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        StyleDescription {
            architecture: "transformer network (Johnson et al. 2016) with instance norm",
            shape: self.shape,
            parameters: self.shape.parameters(),
            digest,
            metadata: self.metadata.clone(),
        }
    }

    /// Returns a tensor by its name in the file, f32 on the CPU.
    ///
    /// # Errors
    /// `Weights` where the network of this shape has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, ModelError> {
        self.tensors.get(name).ok_or_else(|| refused(format!("style weights have no tensor {name}")))
    }

    /// Returns the convolution `name`, for example `res1.conv2`.
    ///
    /// # Errors
    /// `Weights` where the network has no such layer.
    pub fn conv(&self, name: &str) -> Result<ConvWeights, ModelError> {
        let kernel = self.tensor(&format!("{name}.conv2d.weight"))?;
        let (out_channels, in_channels, kernel_size, _) = kernel.dims4()?;
        Ok(ConvWeights {
            kernel: kernel.flatten_all()?.to_vec1()?,
            bias: self.tensor(&format!("{name}.conv2d.bias"))?.to_vec1()?,
            out_channels,
            in_channels,
            kernel_size,
        })
    }

    /// Returns the instance norm `name`, for example `res1.in2`.
    ///
    /// # Errors
    /// `Weights` where the network has no such layer.
    pub fn norm(&self, name: &str) -> Result<NormWeights, ModelError> {
        Ok(NormWeights {
            scale: self.tensor(&format!("{name}.weight"))?.to_vec1()?,
            shift: self.tensor(&format!("{name}.bias"))?.to_vec1()?,
        })
    }
}

fn refused(message: String) -> ModelError {
    ModelError::Weights(message)
}

/// Looks at lengths alone, so that a hostile header costs nothing.
fn check_bounds(bytes: &[u8]) -> Result<(), ModelError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(refused(format!("style file has {} bytes, at most {FILE_BYTES_MAX} are read", bytes.len())));
    }
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err(refused(format!("style file has {} bytes, too few for safetensors", bytes.len())));
    };
    let header = u64::from_le_bytes(*length);
    if header > HEADER_BYTES_MAX as u64 || header > bytes.len() as u64 - 8 {
        return Err(refused(format!(
            "style file is not safetensors or truncated: header of {header} bytes in a file of {}",
            bytes.len()
        )));
    }
    Ok(())
}

fn dims(file: &SafeTensors<'_>, name: &str) -> Result<Vec<usize>, ModelError> {
    let view = file.tensor(name).map_err(|_| missing(file, name))?;
    Ok(view.shape().to_vec())
}

fn missing(file: &SafeTensors<'_>, name: &str) -> ModelError {
    let mut found = file.names();
    found.sort_unstable();
    found.truncate(4);
    refused(format!(
        "style file has no tensor {name}: expected a transformer network with the names of the PyTorch examples, found {} tensors ({}, ...)",
        file.len(),
        found.join(", ")
    ))
}

/// Reads widths and depth from the shapes of the convolutions; exact shapes are checked afterwards.
fn read_shape(file: &SafeTensors<'_>) -> Result<NetShape, ModelError> {
    let width = |name: &str| -> Result<usize, ModelError> {
        let name = format!("{name}.conv2d.weight");
        let shape = dims(file, &name)?;
        match shape.first() {
            Some(&out) if shape.len() == 4 && (1..=CHANNELS_MAX).contains(&out) => Ok(out),
            _ => Err(refused(format!(
                "tensor {name} has shape {shape:?}, expected four dimensions and 1 to {CHANNELS_MAX} output channels"
            ))),
        }
    };
    let down = [width("conv1")?, width("conv2")?, width("conv3")?];
    let up = [width("deconv1")?, width("deconv2")?];
    let has_block = |block: usize| file.tensor(&format!("res{block}.conv1.conv2d.weight")).is_ok();
    let blocks = (1..=BLOCKS_MAX + 1).take_while(|&block| has_block(block)).count();
    if blocks > BLOCKS_MAX {
        return Err(refused(format!("style file has more than {BLOCKS_MAX} residual blocks")));
    }
    Ok(NetShape { down, blocks, up })
}

fn read_tensor(file: &SafeTensors<'_>, name: &str, expected: &[usize]) -> Result<Tensor, ModelError> {
    let view = file.tensor(name).map_err(|_| missing(file, name))?;
    if view.shape() != expected {
        return Err(refused(format!("tensor {name} has shape {:?}, expected {expected:?}", view.shape())));
    }
    if !matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return Err(refused(format!("tensor {name} is {:?}, expected f32, f16 or bf16", view.dtype())));
    }
    let tensor = view.load(&Device::Cpu)?.to_dtype(DType::F32)?;
    let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(refused(format!("tensor {name} holds {} at element {at}, expected finite values", values[at])));
    }
    Ok(tensor)
}

/// A weight of a residual block that the network would not use means that another is missing: the depth was read too small.
fn refuse_strays(file: &SafeTensors<'_>, shape: &NetShape) -> Result<(), ModelError> {
    let known: std::collections::HashSet<String> = shape.tensors().into_iter().map(|(name, _)| name).collect();
    let is_weight = |name: &str| name.starts_with("res") && (name.ends_with(".weight") || name.ends_with(".bias"));
    match file.names().into_iter().find(|name| is_weight(name) && !known.contains(*name)) {
        Some(stray) => Err(refused(format!("style file holds {stray}, but the block before it is not complete"))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
