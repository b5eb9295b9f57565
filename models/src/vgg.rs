//! The feature network behind the losses: VGG-19 (Simonyan and Zisserman 2014) up to relu4_1, read from weights.
//!
//! Two families of files are known: the 16x smaller distilled encoder of Wang et al. 2020 (`conv11`, `conv12`, ...) and the
//! normalised encoder of the universal style transfer work (`0`, `2`, `5`, ...). Both begin with a 1x1 convolution that maps
//! RGB 0..1 to what the network was trained on, and pad by reflection. Channel counts come from the file. The weights are
//! frozen; gradients pass through to the picture.

use candle_core::{Device, Tensor};

use crate::train::TrainError;
use crate::train::conv::{ConvSpec, convolve};
use crate::train::pool::max_pool;

/// Layer names of the distilled encoder, in order.
const DISTILLED: [&str; 9] = ["conv11", "conv12", "conv21", "conv22", "conv31", "conv32", "conv33", "conv34", "conv41"];
/// Layer names of the normalised encoder, in the same order.
const NORMALISED: [&str; 9] = ["2", "5", "9", "12", "16", "19", "22", "25", "29"];
/// Layers (by index) whose result is a feature level: relu1_1, relu2_1, relu3_1, relu4_1.
const LEVELS: [usize; 4] = [0, 2, 4, 8];
/// Layers (by index) that a 2x2 max-pool precedes.
const POOLED: [usize; 3] = [2, 4, 8];

/// A frozen VGG-19 up to relu3_1 or relu4_1.
#[derive(Debug)]
pub struct FeatureNetwork {
    layers: Vec<(Tensor, Tensor)>,
    digest: String,
}

impl FeatureNetwork {
    /// Reads a safetensors file of either family.
    ///
    /// # Errors
    /// When the bytes are no safetensors file, or it lacks the layers up to relu3_1.
    pub fn load(bytes: &[u8]) -> Result<Self, TrainError> {
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
            .map_err(|error| TrainError::features(format!("no readable safetensors file: {error}")))?;
        let (entry, names) =
            if tensors.contains_key("conv0.weight") { ("conv0", DISTILLED) } else { ("0", NORMALISED) };
        let layer = |name: &str| -> Option<(Tensor, Tensor)> {
            let part = |part: &str| tensors.get(&format!("{name}.{part}"))?.to_dtype(candle_core::DType::F32).ok();
            Some((part("weight")?, part("bias")?))
        };
        let mut layers = Vec::new();
        for name in names {
            match layer(name) {
                Some(found) => layers.push(found),
                None => break,
            }
        }
        if layers.len() <= LEVELS[2] {
            return Err(TrainError::features(format!(
                "expected the convolutions of a VGG-19 encoder to relu3_1 ({entry}, {} ...), found {} of them",
                names[0],
                layers.len()
            )));
        }
        let entry = layer(entry)
            .ok_or_else(|| TrainError::features(format!("expected the 1x1 convolution {entry}, found none")))?;
        layers[0] = fold_entry(&entry, &layers[0])?;
        Ok(Self { layers, digest: blake3::hash(bytes).to_hex().to_string() })
    }

    /// A network of random weights, for tests where no trained one is at hand: its Gram matrices still tell textures apart.
    ///
    /// # Errors
    /// Never in practice; building tensors is fallible in candle.
    pub fn random(channels: [usize; 4], seed: u64) -> Result<Self, TrainError> {
        let mut random = crate::train::random::Random::new(seed, 0);
        let [one, two, three, four] = channels;
        let sizes = [3, one, one, two, two, three, three, three, three, four];
        let mut layers = Vec::new();
        for pair in sizes.windows(2) {
            let bound = (6.0 / (pair[0] * 9) as f32).sqrt();
            let values: Vec<f32> = (0..pair[0] * pair[1] * 9).map(|_| random.between(-bound, bound)).collect();
            let weight = Tensor::from_vec(values, (pair[1], pair[0], 3, 3), &Device::Cpu)?;
            layers.push((weight, Tensor::zeros(pair[1], candle_core::DType::F32, &Device::Cpu)?));
        }
        Ok(Self { layers, digest: format!("random {channels:?} {seed}") })
    }

    /// The same network with its weights on `device`.
    ///
    /// # Errors
    /// When the device has no room or is lost.
    pub fn to_device(self, device: &Device) -> Result<Self, TrainError> {
        let moved = |(weight, bias): &(Tensor, Tensor)| Ok((weight.to_device(device)?, bias.to_device(device)?));
        let layers = self.layers.iter().map(moved).collect::<Result<_, TrainError>>()?;
        Ok(Self { layers, ..self })
    }

    /// Feature levels that the file holds: 3 (to relu3_1) or 4 (to relu4_1).
    pub fn levels(&self) -> usize {
        if self.layers.len() > LEVELS[3] { 4 } else { 3 }
    }

    /// BLAKE3 of the file, as hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The first `levels` feature maps (relu1_1, relu2_1, relu3_1, relu4_1) of `pictures` (N, 3, H, W), RGB 0..1, of
    /// any device; the features lie on the network's.
    ///
    /// # Errors
    /// When a side is too small for the pooling and padding.
    pub fn features(&self, pictures: &Tensor, levels: usize) -> Result<Vec<Tensor>, TrainError> {
        let levels = levels.min(self.levels());
        let last = LEVELS[levels - 1];
        let mut features = Vec::with_capacity(levels);
        let mut current = pictures.to_device(self.layers[0].0.device())?;
        for (index, (weight, bias)) in self.layers.iter().enumerate().take(last + 1) {
            if POOLED.contains(&index) {
                current = max_pool(&current)?;
            }
            current = convolve(&current, weight, bias, ConvSpec::FROZEN_RELU)?;
            if LEVELS.contains(&index) {
                features.push(current.clone());
            }
        }
        Ok(features)
    }
}

/// Folds the 1x1 entry convolution into the first 3x3 one: exact, since reflection pads the mapped picture with mapped pixels.
fn fold_entry(entry: &(Tensor, Tensor), first: &(Tensor, Tensor)) -> Result<(Tensor, Tensor), TrainError> {
    let (outputs, inputs, kernel, _) = first.0.dims4()?;
    let columns = first.0.permute((0, 2, 3, 1))?.contiguous()?.reshape((outputs * kernel * kernel, inputs))?;
    let mapped = columns.matmul(&entry.0.reshape((inputs, inputs))?)?;
    let weight = mapped.reshape((outputs, kernel, kernel, inputs))?.permute((0, 3, 1, 2))?.contiguous()?;
    let offsets = columns.matmul(&entry.1.reshape((inputs, 1))?)?.reshape((outputs, kernel * kernel))?;
    let bias = (offsets.sum(1)? + &first.1)?;
    Ok((weight, bias))
}
