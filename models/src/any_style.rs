//! Any picture as a style, without training: networks of MicroAST's format (Wang et al. 2023, "MicroAST: Towards Super-Fast
//! Ultra-Resolution Arbitrary Style Transfer"), the project's own or one whose weights the user supplies.
//!
//! Four parts: an encoder of contents, one of styles, a modulator that turns style features into filter weights, and a decoder. The
//! style picture is encoded once; a frame then costs the content encoder and the decoder. Names are those of the published
//! checkpoints, colours are RGB 0..1 inside.

mod part;

pub use part::FILE_BYTES_MAX;

use crate::ModelError;
use crate::pixels::{Picture, RgbPlanes, from_rgb, to_rgb};
use crate::resize::PlaneResizer;
use crate::style::{StyleModel, StylizeOptions, check_equal_shapes, score_size};
use candle_core::{Device, Tensor};
use part::{Part, refuse_infinite, tensors};
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
/// The tensor that a stylized picture comes out of.
const LAST: &str = "dec3.10.conv_layer.weight";
/// Side of the picture that is stylized before any frame is, in pixels.
const TRIAL_SIDE: usize = 32;

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
    /// Encodes `style` with a network and tries out all of the network on a small picture.
    ///
    /// # Errors
    /// `Weights` where a tensor is missing or does not fit, or the trial gives no picture, `Picture` where the style picture contradicts its format.
    pub fn encode(network: &Arc<AnyStyleNetwork>, style: &Picture) -> Result<Self, ModelError> {
        let mut rgb = RgbPlanes::default();
        to_rgb(style, &mut rgb)?;
        let features = encode(&network.style_encoder, &tensor_of(&rgb)?)?;
        let mut signals = Vec::new();
        for (level, features) in ["1", "2"].into_iter().zip(&features) {
            let (mean, deviation) = moments(features)?;
            let pooled = |kind: &str| -> Result<Tensor, ModelError> {
                let layer = format!("{kind}{level}.0");
                let pooled = network.modulator.convolve_alike(features, &layer, features)?.mean_keepdim((2, 3))?;
                refuse_infinite(&format!("what tensor {layer}.conv_layer.weight of the modulator gives"), &pooled)?;
                Ok(pooled)
            };
            signals.push(Signal { mean, deviation, weight: pooled("weight")?, bias: pooled("bias")? });
        }
        let signals: [Signal; 2] =
            signals.try_into().map_err(|_| refused("the style encoder has not two levels".to_owned()))?;
        let encoded = Self { network: Arc::clone(network), signals, digest: digest(network, &rgb) };
        encoded.try_out()?;
        Ok(encoded)
    }

    /// Stylizes a small picture, so that a file that cannot be run is refused here and not when frames are under way.
    fn try_out(&self) -> Result<(), ModelError> {
        let mut ramp = RgbPlanes::new(TRIAL_SIDE, TRIAL_SIDE);
        for (step, plane) in (1..).zip(&mut ramp.planes) {
            plane.iter_mut().enumerate().for_each(|(at, value)| *value = (at * step % 256) as f32);
        }
        let values = self.forward(&ramp)?.planes;
        if values.iter().flatten().all(|value| value.is_finite()) {
            return Ok(());
        }
        Err(refused(format!("tensor {LAST} of the decoder, or one before it, gives values that are not finite")))
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
        let (channels, styled) = (mean.elem_count(), self.mean.elem_count());
        if channels != styled {
            return Err(refused(format!(
                "tensor enc1.8.conv_layer.weight of the content_encoder gives {channels} channels, that of the style_encoder {styled}"
            )));
        }
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
        Ok((input + part.convolve_alike(&inner, &format!("{name}.conv2"), input)?)?)
    };
    let fine = residual(&current, "enc1.10")?;
    let coarse = residual(&fine, "enc2.0")?;
    Ok([fine, coarse])
}

/// A residual block whose filters the style modulates.
fn modulated(part: &Part, name: &str, input: &Tensor, signal: &Signal) -> Result<Tensor, ModelError> {
    let first = signal.filter(&part.convolve_alike(input, &format!("{name}.conv1"), input)?, input)?.relu()?;
    let second = signal.filter(&part.convolve_alike(&first, &format!("{name}.conv2"), input)?, &first)?;
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

/// blake3 over the digests of the network's files and the style picture's samples.
fn digest(network: &AnyStyleNetwork, rgb: &RgbPlanes) -> String {
    let mut hasher = blake3::Hasher::new();
    for digest in &network.digests {
        hasher.update(digest.as_bytes());
    }
    hasher.update(&(rgb.width as u64).to_le_bytes());
    for value in rgb.planes.iter().flatten() {
        hasher.update(&value.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
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
        return Err(refused(format!("tensor {LAST} of the decoder gives {channels} channels, expected 3")));
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
