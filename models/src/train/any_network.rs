//! The trained network for any style: encoders of contents and of styles, a modulator and a decoder, in the spirit of
//! MicroAST (Wang et al. 2023) and of the same format, so that [`crate::any_style`] runs it.
//!
//! It differs where a processor gains: whole convolutions instead of grouped ones, 3x3 at both ends instead of 9x9, and a
//! modulator of 1x1 filters, whose pooled result is a matrix times the style's means. Colours are RGB 0..1, not clamped.

use candle_core::{Device, Tensor, Var};

use super::conv::{ConvSpec, convolve};
use super::error::TrainError;
use super::moments::{impose, moments};
use super::network::variables_to;
use super::random::Random;
use super::upsample::upsample;

/// The two encoders; the style's starts from the content's weights, so that both see a picture alike.
const ENCODERS: [&str; 2] = ["content_encoder", "style_encoder"];
/// The last layer, centred on mid grey.
const LAST: &str = "decoder.dec3.10";
const GREY: f32 = 0.5;
/// Share of the usual spread that some weights start with: the modulator's, so that at first every style filters alike, those
/// that end a residual block, so that it passes on what it gets, and the last ones, so that the picture starts in range.
const SMALL_SPREAD: f32 = 0.1;

/// A trainable network for any style; a new one's variables lie in the processor's memory.
#[derive(Debug)]
pub struct AnyNetwork {
    width: usize,
    variables: Vec<(String, Var)>,
}

/// What a picture's style is to the decoder, at the fine and the coarse level.
#[derive(Debug)]
pub struct StyleSignals([Signal; 2]);

/// Means and deviations (2, C) to impose, and how the filters are modulated (C).
#[derive(Debug)]
struct Signal {
    moments: Tensor,
    weight: Tensor,
    bias: Tensor,
}

/// One convolution: its name, channels and kernel.
struct Layer {
    name: String,
    inputs: usize,
    outputs: usize,
    kernel: usize,
}

fn layers(width: usize) -> Vec<Layer> {
    let (half, full) = (2 * width, 4 * width);
    let mut layers = Vec::new();
    let mut layer = |name: String, inputs, outputs, kernel| layers.push(Layer { name, inputs, outputs, kernel });
    for part in ENCODERS {
        layer(format!("{part}.enc1.0"), 3, width, 3);
        layer(format!("{part}.enc1.2"), width, half, 3);
        layer(format!("{part}.enc1.4"), half, half, 1);
        layer(format!("{part}.enc1.6"), half, full, 3);
        layer(format!("{part}.enc1.8"), full, full, 1);
        for block in ["enc1.10", "enc2.0"] {
            layer(format!("{part}.{block}.conv1"), full, full, 3);
            layer(format!("{part}.{block}.conv2"), full, full, 3);
        }
    }
    for signal in ["weight1", "bias1", "weight2", "bias2"] {
        layer(format!("modulator.{signal}.0"), full, full, 1);
    }
    for block in ["dec1", "dec2"] {
        layer(format!("decoder.{block}.conv1"), full, full, 3);
        layer(format!("decoder.{block}.conv2"), full, full, 3);
    }
    layer("decoder.dec3.1".to_owned(), full, half, 3);
    layer("decoder.dec3.3".to_owned(), half, half, 1);
    layer("decoder.dec3.6".to_owned(), half, width, 3);
    layer("decoder.dec3.8".to_owned(), width, width, 1);
    layer(LAST.to_owned(), width, 3, 3);
    layers
}

impl Layer {
    /// Weights uniform around zero, with the spread that keeps the variance through a ReLU (He et al. 2015).
    fn draw(&self, random: &mut Random) -> Vec<f32> {
        let fan_in = self.inputs * self.kernel * self.kernel;
        let is_small = self.name.starts_with("modulator") || self.name.ends_with("conv2") || self.name == LAST;
        let spread = if is_small { SMALL_SPREAD } else { 1.0 };
        let bound = spread * (6.0 / fan_in as f32).sqrt();
        (0..self.outputs * fan_in).map(|_| random.between(-bound, bound)).collect()
    }

    /// The bias to start with: filters that are left as they are, a picture that is grey.
    fn bias(&self) -> f32 {
        if self.name.starts_with("modulator.weight") {
            1.0
        } else if self.name == LAST {
            GREY
        } else {
            0.0
        }
    }
}

impl AnyNetwork {
    /// A network whose first convolution has `width` channels, its trunk four times as many.
    ///
    /// # Errors
    /// Never in practice; building tensors is fallible in candle.
    pub fn new(width: usize, seed: u64) -> Result<Self, TrainError> {
        let mut random = Random::new(seed, u64::MAX);
        let mut network = Self { width, variables: Vec::new() };
        for layer in layers(width) {
            let shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel);
            let weight = match layer.name.strip_prefix(ENCODERS[1]) {
                Some(rest) => network.variable(&format!("{}{rest}", ENCODERS[0]), "weight").copy()?,
                None => Tensor::from_vec(layer.draw(&mut random), shape, &Device::Cpu)?,
            };
            let bias = Tensor::full(layer.bias(), layer.outputs, &Device::Cpu)?;
            network.variables.push((format!("{}.conv_layer.weight", layer.name), Var::from_tensor(&weight)?));
            network.variables.push((format!("{}.conv_layer.bias", layer.name), Var::from_tensor(&bias)?));
        }
        Ok(network)
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

    fn variable(&self, layer: &str, part: &str) -> &Tensor {
        let name = format!("{layer}.conv_layer.{part}");
        // The names are this module's own.
        let found = self.variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, variable)| variable.as_tensor()).expect("a variable for every layer")
    }

    /// Encodes the style of `picture` (1, 3, H, W), RGB 0..1, of any device.
    ///
    /// # Errors
    /// When a side is below 16.
    pub fn encode_style(&self, picture: &Tensor) -> Result<StyleSignals, TrainError> {
        let [fine, coarse] = self.encode(ENCODERS[1], picture)?;
        Ok(StyleSignals([self.signal(&fine, 1)?, self.signal(&coarse, 2)?]))
    }

    fn signal(&self, features: &Tensor, level: usize) -> Result<Signal, TrainError> {
        let moments = moments(features)?;
        let channels = 4 * self.width;
        let means = moments.narrow(0, 0, 1)?.reshape((channels, 1))?;
        let pooled = |kind: &str| -> Result<Tensor, TrainError> {
            let layer = format!("modulator.{kind}{level}.0");
            let (weight, bias) = (self.variable(&layer, "weight"), self.variable(&layer, "bias"));
            Ok((weight.reshape((channels, channels))?.matmul(&means)?.reshape(channels)? + bias)?)
        };
        Ok(Signal { weight: pooled("weight")?, bias: pooled("bias")?, moments })
    }

    /// Stylizes `pictures` (N, 3, H, W), RGB 0..1, of any device; the result, on the network's, is about 0..1, not clamped, its sides rounded up to fours.
    ///
    /// # Errors
    /// When a side is below 16.
    pub fn forward(&self, pictures: &Tensor, style: &StyleSignals) -> Result<Tensor, TrainError> {
        let [_, coarse] = self.encode(ENCODERS[0], pictures)?;
        let StyleSignals([fine_signal, coarse_signal]) = style;
        let first = self.modulated("decoder.dec1", &impose(&coarse, &coarse_signal.moments)?, coarse_signal)?;
        let second = self.modulated("decoder.dec2", &impose(&first, &fine_signal.moments)?, fine_signal)?;
        let mut current = upsample(&second)?;
        for (layer, enlarges) in [("dec3.1", false), ("dec3.3", true), ("dec3.6", false), ("dec3.8", false)] {
            current = self.layer(&format!("decoder.{layer}"), &current, RELU)?;
            if enlarges {
                current = upsample(&current)?;
            }
        }
        self.layer(LAST, &current, ConvSpec::TRAINED)
    }

    fn layer(&self, name: &str, input: &Tensor, spec: ConvSpec) -> Result<Tensor, TrainError> {
        Ok(convolve(input, self.variable(name, "weight"), self.variable(name, "bias"), spec)?)
    }

    /// Features at two levels, both at a quarter of the picture's size.
    fn encode(&self, part: &str, pictures: &Tensor) -> Result<[Tensor; 2], TrainError> {
        let mut current = pictures.to_device(self.variables[0].1.device())?;
        for (index, (layer, stride)) in
            [("enc1.0", 1), ("enc1.2", 2), ("enc1.4", 1), ("enc1.6", 2), ("enc1.8", 1)].into_iter().enumerate()
        {
            let spec = ConvSpec { stride, input_gradient: index > 0, ..RELU };
            current = self.layer(&format!("{part}.{layer}"), &current, spec)?;
        }
        let fine = self.residual(&format!("{part}.enc1.10"), &current)?;
        let coarse = self.residual(&format!("{part}.enc2.0"), &fine)?;
        Ok([fine, coarse])
    }

    fn residual(&self, name: &str, input: &Tensor) -> Result<Tensor, TrainError> {
        let inner = self.layer(&format!("{name}.conv1"), input, RELU)?;
        Ok((input + self.layer(&format!("{name}.conv2"), &inner, ConvSpec::TRAINED)?)?)
    }

    /// A residual block whose filters the style modulates.
    fn modulated(&self, name: &str, input: &Tensor, signal: &Signal) -> Result<Tensor, TrainError> {
        let filtered = |half: usize, input: &Tensor, spec: ConvSpec| -> Result<Tensor, TrainError> {
            let layer = format!("{name}.conv{half}");
            let (weight, bias) = signal.filter(self.variable(&layer, "weight"), self.variable(&layer, "bias"))?;
            Ok(convolve(input, &weight, &bias, spec)?)
        };
        let first = filtered(1, input, RELU)?;
        Ok((input + filtered(2, &first, ConvSpec::TRAINED)?)?)
    }
}

/// A trained convolution ending in ReLU.
const RELU: ConvSpec = ConvSpec { relu: true, ..ConvSpec::TRAINED };

impl Signal {
    /// The modulated filter: what `weight * convolved + bias * input` comes to as one convolution.
    fn filter(&self, weight: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor), TrainError> {
        let (channels, _, kernel, _) = weight.dims4()?;
        let of_filter = |values: &Tensor| values.reshape((channels, 1, 1, 1));
        let kept = Tensor::eye(channels, candle_core::DType::F32, weight.device())?
            .reshape((channels, channels, 1, 1))?
            .pad_with_zeros(2, kernel / 2, kernel / 2)?
            .pad_with_zeros(3, kernel / 2, kernel / 2)?;
        let scaled = weight.broadcast_mul(&of_filter(&self.weight)?)?;
        let filter = (scaled + kept.broadcast_mul(&of_filter(&self.bias)?)?)?;
        Ok((filter, (bias * &self.weight)?))
    }
}
