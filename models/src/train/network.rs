//! The trained network: the transformer network of Johnson et al. 2016 with instance normalisation, of any width.
//!
//! As in the PyTorch examples: 9x9, two 3x3 of stride 2, five residual blocks, two nearest-upsampled 3x3, 9x9. While
//! training, pictures are RGB 0..1 and the result is `0.5 + 0.25 * conv`, not clamped. Biases before an instance norm cancel
//! and are not trained.

use candle_core::{Device, Tensor, Var};

use super::conv::{ConvSpec, convolve};
use super::error::TrainError;
use super::norm::normalize;
use super::random::Random;

/// Residual blocks of the network.
pub(super) const BLOCKS: usize = 5;
/// Centre and scale of the last convolution's result while training.
pub(super) const OUTPUT_CENTRE: f64 = 0.5;
/// See [`OUTPUT_CENTRE`].
pub(super) const OUTPUT_SCALE: f64 = 0.25;

/// A trainable transformer network; a new one's variables lie in the processor's memory.
#[derive(Debug)]
pub struct TransformerNetwork {
    width: usize,
    variables: Vec<(String, Var)>,
}

/// One convolution of the network.
struct Layer {
    name: String,
    norm: Option<String>,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    upsample: usize,
}

/// Variables of the same names and values on `device`.
pub(super) fn variables_to(variables: Vec<(String, Var)>, device: &Device) -> Result<Vec<(String, Var)>, TrainError> {
    let moved = |(name, variable): (String, Var)| {
        let value = variable.as_detached_tensor().to_device(device)?;
        Ok((name, Var::from_tensor(&value)?))
    };
    variables.into_iter().map(moved).collect()
}

fn layers(width: usize) -> Vec<Layer> {
    let layer = |name: &str, norm: Option<&str>, inputs, outputs, kernel, stride, upsample| Layer {
        name: name.to_owned(),
        norm: norm.map(str::to_owned),
        inputs,
        outputs,
        kernel,
        stride,
        upsample,
    };
    let mut layers = vec![
        layer("conv1", Some("in1"), 3, width, 9, 1, 1),
        layer("conv2", Some("in2"), width, 2 * width, 3, 2, 1),
        layer("conv3", Some("in3"), 2 * width, 4 * width, 3, 2, 1),
    ];
    for block in 1..=BLOCKS {
        for half in 1..=2 {
            let norm = format!("res{block}.in{half}");
            let name = format!("res{block}.conv{half}");
            layers.push(layer(&name, Some(&norm), 4 * width, 4 * width, 3, 1, 1));
        }
    }
    layers.push(layer("deconv1", Some("in4"), 4 * width, 2 * width, 3, 1, 2));
    layers.push(layer("deconv2", Some("in5"), 2 * width, width, 3, 1, 2));
    layers.push(layer("deconv3", None, width, 3, 9, 1, 1));
    layers
}

impl TransformerNetwork {
    /// A network whose first convolution has `width` channels (32 is Johnson's, 16 half, 8 quarter), weights uniform in
    /// ±1/sqrt(fan-in) as PyTorch draws them.
    ///
    /// # Errors
    /// Never in practice; building tensors is fallible in candle.
    pub fn new(width: usize, seed: u64) -> Result<Self, TrainError> {
        let mut random = Random::new(seed, u64::MAX);
        let mut variables = Vec::new();
        for layer in layers(width) {
            let fan_in = layer.inputs * layer.kernel * layer.kernel;
            let bound = 1.0 / (fan_in as f32).sqrt();
            let values: Vec<f32> = (0..layer.outputs * fan_in).map(|_| random.between(-bound, bound)).collect();
            let shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel);
            let weight = Tensor::from_vec(values, shape, &Device::Cpu)?;
            variables.push((format!("{}.conv2d.weight", layer.name), Var::from_tensor(&weight)?));
            let count = layer.outputs;
            let (scale, offset) = match &layer.norm {
                Some(norm) => (Some(format!("{norm}.weight")), format!("{norm}.bias")),
                None => (None, format!("{}.conv2d.bias", layer.name)),
            };
            if let Some(scale) = scale {
                variables.push((scale, Var::ones(count, candle_core::DType::F32, &Device::Cpu)?));
            }
            variables.push((offset, Var::zeros(count, candle_core::DType::F32, &Device::Cpu)?));
        }
        Ok(Self { width, variables })
    }

    /// The same network with its variables on `device`.
    ///
    /// # Errors
    /// When the device has no room or is lost.
    pub fn to_device(self, device: &Device) -> Result<Self, TrainError> {
        Ok(Self { variables: variables_to(self.variables, device)?, ..self })
    }

    /// Channels of the first convolution.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Every trained variable with its name, in a fixed order.
    pub fn variables(&self) -> &[(String, Var)] {
        &self.variables
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.variables.iter().map(|(_, variable)| variable.elem_count()).sum()
    }

    fn device(&self) -> &Device {
        self.variables[0].1.device()
    }

    fn variable(&self, name: &str) -> &Tensor {
        // The names are this module's own.
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, variable)| variable.as_tensor()).expect("a variable for every layer")
    }

    /// Stylizes `pictures` (N, 3, H, W), RGB 0..1, of any device; the result, on the network's, is about 0..1, not clamped, its sides rounded up to fours.
    ///
    /// # Errors
    /// When a side is below 16.
    pub fn forward(&self, pictures: &Tensor) -> Result<Tensor, TrainError> {
        let mut current = pictures.to_device(self.device())?;
        let mut kept = None;
        for (index, layer) in layers(self.width).iter().enumerate() {
            let half = if layer.name.starts_with("res") { 1 + (index - 3) % 2 } else { 0 };
            if half == 1 {
                kept = Some(current.clone());
            }
            current = self.layer(&current, layer, index > 0, half != 2)?;
            if half == 2
                && let Some(kept) = kept.take()
            {
                current = (current + kept)?;
            }
        }
        Ok(current.affine(OUTPUT_SCALE, OUTPUT_CENTRE)?)
    }

    fn layer(&self, input: &Tensor, layer: &Layer, input_gradient: bool, relu: bool) -> Result<Tensor, TrainError> {
        let spec = ConvSpec { stride: layer.stride, upsample: layer.upsample, input_gradient, ..ConvSpec::TRAINED };
        let weight = self.variable(&format!("{}.conv2d.weight", layer.name));
        let Some(norm) = &layer.norm else {
            let bias = self.variable(&format!("{}.conv2d.bias", layer.name));
            return Ok(convolve(input, weight, bias, spec)?);
        };
        let bias = Tensor::zeros(layer.outputs, candle_core::DType::F32, self.device())?;
        let convolved = convolve(input, weight, &bias, spec)?;
        let gamma = self.variable(&format!("{norm}.weight"));
        let beta = self.variable(&format!("{norm}.bias"));
        Ok(normalize(&convolved, gamma, beta, relu)?)
    }
}
