//! Any picture as a style, without training: networks of MicroAST's format (Wang et al. 2023, "MicroAST: Towards Super-Fast
//! Ultra-Resolution Arbitrary Style Transfer"), the project's own or one whose weights the user supplies.
//!
//! Four parts: an encoder of contents, one of styles, a modulator that turns style features into filter weights, and a decoder. The
//! style picture is encoded once; a frame then costs the content encoder and the decoder. Names are those of the published
//! checkpoints, colours are RGB 0..1 inside.

use crate::ModelError;
use crate::pixels::{Picture, RgbPlanes, from_rgb, to_rgb};
use crate::resize::PlaneResizer;
use crate::style::{StyleModel, StylizeOptions, check_equal_shapes, score_size};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Added to a variance before its root, as the published network does.
pub(crate) const VARIANCE_MIN: f64 = 1e-5;
const COLOUR_MAX: f64 = 255.0;
/// Share of the nearer of two samples in one of twice the size.
pub(crate) const NEAR: f32 = 0.75;
/// Share of the farther.
pub(crate) const FAR: f32 = 0.25;
/// The largest file of a network or a part, in bytes; the published parts have 0.6 MB.
const FILE_BYTES_MAX: usize = 64 << 20;

/// The files of a published network, as bytes.
#[derive(Debug, Clone, Copy)]
pub struct AnyStyleFiles<'a> {
    /// `content_encoder.safetensors`
    pub content_encoder: &'a [u8],
    /// `style_encoder.safetensors`
    pub style_encoder: &'a [u8],
    /// `modulator.safetensors`
    pub modulator: &'a [u8],
    /// `decoder.safetensors`
    pub decoder: &'a [u8],
}

/// A network for any style.
pub struct AnyStyleNetwork {
    content_encoder: Part,
    style_encoder: Part,
    modulator: Part,
    decoder: Part,
    /// blake3 of each file it was read from.
    digests: Vec<blake3::Hash>,
}

impl fmt::Debug for AnyStyleNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyStyleNetwork").field("digests", &self.digests).finish_non_exhaustive()
    }
}

/// A network with one picture's style encoded, ready to stylize.
#[derive(Clone)]
pub struct AnyStyle {
    network: Arc<AnyStyleNetwork>,
    /// Coarse level last: what the decoder needs of the style at each of two levels.
    signals: [Signal; 2],
    digest: String,
}

impl fmt::Debug for AnyStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyStyle").field("digest", &self.digest).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Signal {
    mean: Tensor,
    deviation: Tensor,
    weight: Tensor,
    bias: Tensor,
}

/// The tensors of one part.
struct Part {
    name: &'static str,
    tensors: HashMap<String, Tensor>,
}

impl AnyStyleNetwork {
    /// Reads a network from one file, whose tensors are named by part: `decoder.dec1.conv1.conv_layer.weight`.
    ///
    /// # Errors
    /// `Weights` where the bytes are no safetensors file, or have a tensor of none of the parts.
    pub fn load(bytes: &[u8]) -> Result<Self, ModelError> {
        let mut parts = ["content_encoder", "style_encoder", "modulator", "decoder"]
            .map(|name| Part { name, tensors: HashMap::new() });
        for (key, tensor) in tensors("the file", bytes)? {
            let (part, name) = key.split_once('.').unwrap_or_default();
            let found = parts.iter_mut().find(|known| known.name == part);
            let found =
                found.ok_or_else(|| refused(format!("tensor {key} is of no part of a network for any style")))?;
            found.tensors.insert(name.to_owned(), tensor);
        }
        let [content_encoder, style_encoder, modulator, decoder] = parts;
        Ok(Self { content_encoder, style_encoder, modulator, decoder, digests: vec![blake3::hash(bytes)] })
    }

    /// Reads a network from the files of its parts.
    ///
    /// # Errors
    /// `Weights` where a file is no safetensors file.
    pub fn from_parts(files: &AnyStyleFiles<'_>) -> Result<Self, ModelError> {
        let all = [files.content_encoder, files.style_encoder, files.modulator, files.decoder];
        Ok(Self {
            content_encoder: Part::load("content_encoder", files.content_encoder)?,
            style_encoder: Part::load("style_encoder", files.style_encoder)?,
            modulator: Part::load("modulator", files.modulator)?,
            decoder: Part::load("decoder", files.decoder)?,
            digests: all.map(blake3::hash).to_vec(),
        })
    }
}

impl AnyStyle {
    /// Encodes `style` with a network.
    ///
    /// # Errors
    /// `Weights` where a tensor is missing or does not fit, `Picture` where the style picture contradicts its format.
    pub fn encode(network: &Arc<AnyStyleNetwork>, style: &Picture) -> Result<Self, ModelError> {
        let mut rgb = RgbPlanes::default();
        to_rgb(style, &mut rgb)?;
        let features = encode(&network.style_encoder, &tensor_of(&rgb)?)?;
        let mut signals = Vec::new();
        for (level, features) in ["1", "2"].into_iter().zip(&features) {
            let (mean, deviation) = moments(features)?;
            let pooled = |kind: &str| -> Result<Tensor, ModelError> {
                Ok(network.modulator.convolve(features, &format!("{kind}{level}.0"), 1)?.mean_keepdim((2, 3))?)
            };
            signals.push(Signal { mean, deviation, weight: pooled("weight")?, bias: pooled("bias")? });
        }
        let signals = signals.try_into().map_err(|_| refused("the style encoder has not two levels".to_owned()))?;
        let mut hasher = blake3::Hasher::new();
        for digest in &network.digests {
            hasher.update(digest.as_bytes());
        }
        hasher.update(&(rgb.width as u64).to_le_bytes());
        for value in rgb.planes.iter().flatten() {
            hasher.update(&value.to_le_bytes());
        }
        Ok(Self { network: Arc::clone(network), signals, digest: hasher.finalize().to_hex().to_string() })
    }

    /// blake3 over the network's files and the style picture's samples, 64 hex digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Stylizes planes of RGB 0..255; the result's sides are rounded up to fours.
    ///
    /// # Errors
    /// `Weights` where tensors do not fit together, `Numeric` where a side is below 16.
    pub fn forward(&self, picture: &RgbPlanes) -> Result<RgbPlanes, ModelError> {
        let [fine, coarse] = encode(&self.network.content_encoder, &tensor_of(picture)?)?;
        drop(fine);
        let decoder = &self.network.decoder;
        let [fine_signal, coarse_signal] = &self.signals;
        let first = modulated(decoder, "dec1", &coarse_signal.impose(&coarse)?, coarse_signal)?;
        let second = modulated(decoder, "dec2", &fine_signal.impose(&first)?, fine_signal)?;
        let mut current = upsample(&second)?;
        for (layer, enlarges) in [("dec3.1", false), ("dec3.3", true), ("dec3.6", false), ("dec3.8", false)] {
            current = decoder.convolve(&current, layer, 1)?.relu()?;
            if enlarges {
                current = upsample(&current)?;
            }
        }
        planes_of(&decoder.convolve(&current, "dec3.10", 1)?)
    }
}

impl Signal {
    /// Gives features the style's mean and deviation (adaptive instance normalisation, Huang and Belongie 2017).
    fn impose(&self, features: &Tensor) -> Result<Tensor, ModelError> {
        let (mean, deviation) = moments(features)?;
        let normal = features.broadcast_sub(&mean)?.broadcast_div(&deviation)?;
        Ok(normal.broadcast_mul(&self.deviation)?.broadcast_add(&self.mean)?)
    }

    fn filter(&self, convolved: &Tensor, input: &Tensor) -> Result<Tensor, ModelError> {
        Ok((convolved.broadcast_mul(&self.weight)? + input.broadcast_mul(&self.bias)?)?)
    }
}

/// Features at two levels, both at a quarter of the picture's size.
fn encode(part: &Part, picture: &Tensor) -> Result<[Tensor; 2], ModelError> {
    let mut current = picture.clone();
    for (layer, stride) in [("enc1.0", 1), ("enc1.2", 2), ("enc1.4", 1), ("enc1.6", 2), ("enc1.8", 1)] {
        current = part.convolve(&current, layer, stride)?.relu()?;
    }
    let residual = |input: &Tensor, name: &str| -> Result<Tensor, ModelError> {
        let inner = part.convolve(input, &format!("{name}.conv1"), 1)?.relu()?;
        Ok((input + part.convolve(&inner, &format!("{name}.conv2"), 1)?)?)
    };
    let fine = residual(&current, "enc1.10")?;
    let coarse = residual(&fine, "enc2.0")?;
    Ok([fine, coarse])
}

/// A residual block whose filters the style modulates.
fn modulated(part: &Part, name: &str, input: &Tensor, signal: &Signal) -> Result<Tensor, ModelError> {
    let first = signal.filter(&part.convolve(input, &format!("{name}.conv1"), 1)?, input)?.relu()?;
    let second = signal.filter(&part.convolve(&first, &format!("{name}.conv2"), 1)?, &first)?;
    Ok((input + second)?)
}

/// Mean and deviation of every channel (1, C, 1, 1), the variance over n - 1.
fn moments(features: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
    let (_, _, height, width) = features.dims4()?;
    let mean = features.mean_keepdim((2, 3))?;
    let squares = features.broadcast_sub(&mean)?.sqr()?.sum_keepdim((2, 3))?;
    let variance = squares.affine(1.0 / (height * width - 1).max(1) as f64, VARIANCE_MIN)?;
    Ok((mean, variance.sqrt()?))
}

/// The tensors of a file in single precision.
fn tensors(name: &str, bytes: &[u8]) -> Result<HashMap<String, Tensor>, ModelError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(refused(format!("{name} has {} bytes, at most {FILE_BYTES_MAX} are read", bytes.len())));
    }
    let stored = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
        .map_err(|e| refused(format!("{name} is no readable safetensors file: {e}")))?;
    stored.into_iter().map(|(key, tensor)| Ok((key, tensor.to_dtype(DType::F32)?))).collect()
}

impl Part {
    fn load(name: &'static str, bytes: &[u8]) -> Result<Self, ModelError> {
        Ok(Self { name, tensors: tensors(name, bytes)? })
    }

    fn tensor(&self, layer: &str, part: &str) -> Result<&Tensor, ModelError> {
        let key = format!("{layer}.conv_layer.{part}");
        let found = self.tensors.get(&key);
        found.ok_or_else(|| {
            refused(format!("{} has no tensor {key}: expected a network of MicroAST's format", self.name))
        })
    }

    /// A convolution after reflection padding, with bias; the groups follow from the shapes.
    fn convolve(&self, input: &Tensor, layer: &str, stride: usize) -> Result<Tensor, ModelError> {
        let (weight, bias) = (self.tensor(layer, "weight")?, self.tensor(layer, "bias")?);
        let (outputs, of_group, kernel, _) = weight.dims4()?;
        let (_, inputs, height, width) = input.dims4()?;
        let fits = of_group > 0 && inputs.is_multiple_of(of_group) && outputs.is_multiple_of(inputs / of_group.max(1));
        if !fits || kernel % 2 == 0 || bias.elem_count() != outputs || height.min(width) <= kernel / 2 {
            return Err(refused(format!(
                "{} cannot convolve {inputs} channels of {width}x{height} by {layer} of {:?}",
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

fn upsample(input: &Tensor) -> Result<Tensor, ModelError> {
    let (_, channels, height, width) = input.dims4()?;
    let out = upsampled(&input.flatten_all()?.to_vec1::<f32>()?, (height, width));
    Ok(Tensor::from_vec(out, (1, channels, 2 * height, 2 * width), &Device::Cpu)?)
}

/// Planes of `height` by `width` at twice the size: bilinear, pixel centres kept in place and edges repeated.
pub(crate) fn upsampled(planes: &[f32], (height, width): (usize, usize)) -> Vec<f32> {
    let mut out = vec![0.0_f32; 4 * planes.len()];
    let mut row = vec![0.0_f32; width];
    for (plane, out) in planes.chunks_exact(height * width).zip(out.chunks_exact_mut(4 * height * width)) {
        for (y, line) in out.chunks_exact_mut(2 * width).enumerate() {
            let (near, far) = neighbours(y, height);
            let (near, far) = (&plane[near * width..][..width], &plane[far * width..][..width]);
            for ((mixed, near), far) in row.iter_mut().zip(near).zip(far) {
                *mixed = NEAR * near + FAR * far;
            }
            widen(&row, line);
        }
    }
    out
}

/// Writes a row at twice its width.
fn widen(row: &[f32], line: &mut [f32]) {
    let last = row.len() - 1;
    let (pairs, _) = line.as_chunks_mut::<2>();
    pairs[0][0] = row[0];
    pairs[last][1] = row[last];
    for (at, ends) in row.windows(2).enumerate() {
        pairs[at][1] = NEAR * ends[0] + FAR * ends[1];
        pairs[at + 1][0] = NEAR * ends[1] + FAR * ends[0];
    }
}

/// The nearer and the farther of the two samples around an upsampled place.
pub(crate) fn neighbours(at: usize, size: usize) -> (usize, usize) {
    let near = at / 2;
    let far = if at.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(size - 1) };
    (near, far)
}

fn tensor_of(rgb: &RgbPlanes) -> Result<Tensor, ModelError> {
    let values: Vec<f32> = rgb.planes.concat();
    Ok(Tensor::from_vec(values, (1, 3, rgb.height, rgb.width), &Device::Cpu)?.affine(1.0 / COLOUR_MAX, 0.0)?)
}

fn planes_of(picture: &Tensor) -> Result<RgbPlanes, ModelError> {
    let (_, channels, height, width) = picture.dims4()?;
    if channels != 3 {
        return Err(refused(format!("the decoder gives {channels} channels, expected 3")));
    }
    let mut rgb = RgbPlanes::new(width, height);
    let values = picture.affine(COLOUR_MAX, 0.0)?.flatten_all()?.to_vec1::<f32>()?;
    for (plane, values) in rgb.planes.iter_mut().zip(values.chunks_exact(height * width)) {
        plane.copy_from_slice(values);
    }
    Ok(rgb)
}

fn refused(reason: String) -> ModelError {
    ModelError::Weights(format!("any-style network: {reason}"))
}

/// An encoded style as a model, on the CPU.
pub(crate) struct AnyStyleModel {
    style: Arc<AnyStyle>,
    resizer: PlaneResizer,
    picture: RgbPlanes,
    scored: RgbPlanes,
}

impl AnyStyleModel {
    pub(crate) fn new(style: &Arc<AnyStyle>) -> Self {
        let planes = RgbPlanes::default;
        Self { style: Arc::clone(style), resizer: PlaneResizer::new(), picture: planes(), scored: planes() }
    }

    fn stylize_one(&mut self, picture: &Picture, options: &StylizeOptions) -> Result<Picture, ModelError> {
        let size = (picture.width as usize, picture.height as usize);
        let scored_size = score_size(size, options.score_width)?;
        to_rgb(picture, &mut self.picture)?;
        if scored_size == size {
            return from_rgb(&self.style.forward(&self.picture)?, options.output, picture.width, picture.height);
        }
        self.scored.reshape(scored_size.0, scored_size.1);
        self.resizer.resize(&self.picture, size, &mut self.scored)?;
        let stylized = self.style.forward(&self.scored)?;
        self.resizer.resize(&stylized, scored_size, &mut self.picture)?;
        from_rgb(&self.picture, options.output, picture.width, picture.height)
    }
}

impl StyleModel for AnyStyleModel {
    fn stylize(&mut self, pictures: &[&Picture], options: &StylizeOptions) -> Result<Vec<Picture>, ModelError> {
        options.output.validate()?;
        check_equal_shapes(pictures)?;
        pictures.iter().map(|picture| self.stylize_one(picture, options)).collect()
    }
}
