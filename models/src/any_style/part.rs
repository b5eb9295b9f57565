//! One part of a network for any style: its tensors as a file has them, and convolutions with them.
//!
//! The files may be anybody's: a tensor is checked before it is used, and errors say which one is wrong.

use super::refused;
use crate::ModelError;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;

/// The largest file of a network or a part, in bytes; the published parts have 0.6 MB.
pub const FILE_BYTES_MAX: usize = 64 << 20;
/// The most channels of a layer; the published network has 64.
const CHANNELS_MAX: usize = 1024;
/// The largest kernel; the published network has 9.
const KERNEL_MAX: usize = 15;

/// The tensors of one part.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) tensors: HashMap<String, Tensor>,
}

/// The tensors of a file in single precision.
///
/// # Errors
/// `Weights` where the bytes are no safetensors file, or naming the tensor that has a value that is not finite.
pub(super) fn tensors(name: &str, bytes: &[u8]) -> Result<HashMap<String, Tensor>, ModelError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(refused(format!("{name} has {} bytes, at most {FILE_BYTES_MAX} are read", bytes.len())));
    }
    let stored = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
        .map_err(|e| refused(format!("{name} is no readable safetensors file: {e}")))?;
    let read = |(key, tensor): (String, Tensor)| {
        let tensor = tensor.to_dtype(DType::F32)?;
        refuse_infinite(&format!("tensor {key} of {name}"), &tensor)?;
        Ok((key, tensor))
    };
    stored.into_iter().map(read).collect()
}

/// Refuses values that are not finite, of `what`.
pub(super) fn refuse_infinite(what: &str, tensor: &Tensor) -> Result<(), ModelError> {
    match tensor.flatten_all()?.to_vec1::<f32>()?.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(refused(format!("{what} has the value {value}, expected finite numbers"))),
        None => Ok(()),
    }
}

impl Part {
    pub(super) fn load(name: &'static str, bytes: &[u8]) -> Result<Self, ModelError> {
        Ok(Self { name, tensors: tensors(name, bytes)? })
    }

    fn tensor(&self, layer: &str, part: &str) -> Result<&Tensor, ModelError> {
        let key = format!("{layer}.conv_layer.{part}");
        let found = self.tensors.get(&key);
        found.ok_or_else(|| {
            refused(format!("{} has no tensor {key}: expected a network of MicroAST's format", self.name))
        })
    }

    /// As [`Part::convolve`], where the result is added to something of the input's shape.
    pub(super) fn convolve_alike(&self, input: &Tensor, layer: &str, wanted: &Tensor) -> Result<Tensor, ModelError> {
        let convolved = self.convolve(input, layer, 1)?;
        if convolved.dims() != wanted.dims() {
            return Err(refused(format!(
                "{}: tensor {layer}.conv_layer.weight gives the shape {:?}, expected {:?}",
                self.name,
                convolved.dims(),
                wanted.dims()
            )));
        }
        Ok(convolved)
    }

    /// A convolution after reflection padding, with bias; the groups follow from the shapes.
    pub(super) fn convolve(&self, input: &Tensor, layer: &str, stride: usize) -> Result<Tensor, ModelError> {
        let (weight, bias) = (self.tensor(layer, "weight")?, self.tensor(layer, "bias")?);
        let (outputs, of_group, kernel) = self.filter_sizes(layer, weight, bias)?;
        let (_, inputs, height, width) = input.dims4()?;
        let fits = inputs.is_multiple_of(of_group) && outputs.is_multiple_of((inputs / of_group).max(1));
        if !fits || height.min(width) <= kernel / 2 {
            return Err(refused(format!(
                "{} cannot convolve {inputs} channels of {width}x{height} by tensor {layer}.conv_layer.weight of shape {:?}",
                self.name,
                weight.dims()
            )));
        }
        let padded = reflect(input, kernel / 2)?;
        let convolved = if of_group == inputs {
            padded.conv2d(weight, 0, stride, 1, 1)?
        } else {
            grouped(&padded, weight, stride)?
        };
        Ok(convolved.broadcast_add(&bias.reshape((1, outputs, 1, 1))?)?)
    }

    /// Output channels, input channels of a group and side of the kernel of a layer, within what can be run.
    fn filter_sizes(&self, layer: &str, weight: &Tensor, bias: &Tensor) -> Result<(usize, usize, usize), ModelError> {
        let channels = 1..=CHANNELS_MAX;
        match *weight.dims() {
            [outputs, of_group, height, width]
                if channels.contains(&outputs)
                    && channels.contains(&of_group)
                    && height == width
                    && height % 2 == 1
                    && height <= KERNEL_MAX
                    && bias.elem_count() == outputs =>
            {
                Ok((outputs, of_group, height))
            }
            _ => Err(refused(format!(
                "{}: tensor {layer}.conv_layer.weight has shape {:?} and its bias {} values, expected 1 to {CHANNELS_MAX} \
                 channels, a square kernel of odd side up to {KERNEL_MAX} and a bias a channel",
                self.name,
                weight.dims(),
                bias.elem_count()
            ))),
        }
    }
}

fn reflect(input: &Tensor, padding: usize) -> Result<Tensor, ModelError> {
    if padding == 0 {
        return Ok(input.clone());
    }
    let (_, _, height, width) = input.dims4()?;
    let index = |size: usize| -> Result<Tensor, ModelError> {
        let last = size - 1;
        let mirrored = (0..size + 2 * padding).map(|at| {
            let from_start = at.abs_diff(padding);
            (if from_start > last { 2 * last - from_start } else { from_start }) as u32
        });
        Ok(Tensor::from_iter(mirrored, &Device::Cpu)?)
    };
    Ok(input.index_select(&index(height)?, 2)?.index_select(&index(width)?, 3)?.contiguous()?)
}

/// A convolution of many small groups without padding, by direct sums: libraries take groups one by one.
fn grouped(input: &Tensor, weight: &Tensor, stride: usize) -> Result<Tensor, ModelError> {
    let (outputs, of_group, kernel, _) = weight.dims4()?;
    let (_, inputs, height, width) = input.dims4()?;
    let outputs_of_group = outputs / (inputs / of_group);
    let (out_height, out_width) = ((height - kernel) / stride + 1, (width - kernel) / stride + 1);
    let (values, taps) = (input.flatten_all()?.to_vec1::<f32>()?, weight.flatten_all()?.to_vec1::<f32>()?);
    let mut out = vec![0.0_f32; outputs * out_height * out_width];
    for (channel, plane) in out.chunks_exact_mut(out_height * out_width).enumerate() {
        let first_input = channel / outputs_of_group * of_group;
        for (tap, &factor) in
            taps[channel * of_group * kernel * kernel..][..of_group * kernel * kernel].iter().enumerate()
        {
            let (source, row, column) = (first_input + tap / (kernel * kernel), tap / kernel % kernel, tap % kernel);
            for (y, line) in plane.chunks_exact_mut(out_width).enumerate() {
                let from = &values[(source * height + y * stride + row) * width + column..];
                if stride == 1 {
                    line.iter_mut().zip(from).for_each(|(sum, value)| *sum += factor * value);
                } else {
                    line.iter_mut().zip(from.iter().step_by(stride)).for_each(|(sum, value)| *sum += factor * value);
                }
            }
        }
    }
    Ok(Tensor::from_vec(out, (1, outputs, out_height, out_width), &Device::Cpu)?)
}
