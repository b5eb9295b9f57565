//! SqueezeNet 1.1 (Iandola et al. 2016): which of 1000 things a picture shows. A second kind of scorer beside the styles; the
//! weights are the user's (names of torchvision, trained by Caffe's convention: BGR 0..255 less the means).

use crate::ModelError;
use crate::pixels::{Picture, RgbPlanes, to_rgb};
use crate::resize::PlaneResizer;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;

/// Side of the square that the network sees, in pixels.
const SIDE: usize = 224;
/// What Caffe's data layer takes off blue, green and red.
const MEANS: [f32; 3] = [103.939, 116.779, 123.68];
/// Layers of the feature part: fire modules by their number, and poolings before some of them.
const FIRES: [(usize, bool); 8] =
    [(3, true), (4, false), (6, true), (7, false), (9, true), (10, false), (11, false), (12, false)];

/// A class and how likely the picture shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// Number of the class (ImageNet's order, from 0).
    pub class: usize,
    /// Probability, 0 to 1.
    pub probability: f32,
}

/// The network with its weights, on the CPU.
pub struct SqueezeNet {
    tensors: HashMap<String, Tensor>,
    resizer: PlaneResizer,
    picture: RgbPlanes,
    square: RgbPlanes,
}

impl SqueezeNet {
    /// Reads the weights, a safetensors file; shapes are checked by use.
    ///
    /// # Errors
    /// `Weights` where the bytes are no safetensors file or a layer is missing.
    pub fn load(bytes: &[u8]) -> Result<Self, ModelError> {
        let refused = |reason: String| ModelError::Weights(format!("classifier weights: {reason}"));
        let stored = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| refused(e.to_string()))?;
        let mut tensors = HashMap::new();
        let fires =
            FIRES.iter().flat_map(|(n, _)| ["squeeze", "expand1x1", "expand3x3"].map(|p| format!("features.{n}.{p}")));
        for layer in ["features.0".to_owned(), "classifier.1".to_owned()].into_iter().chain(fires) {
            for part in ["weight", "bias"] {
                let name = format!("{layer}.{part}");
                let tensor = stored.get(&name).ok_or_else(|| {
                    refused(format!("expected tensor {name} of SqueezeNet 1.1 in torchvision's names, found none"))
                })?;
                tensors.insert(name, tensor.to_dtype(DType::F32)?);
            }
        }
        let planes = RgbPlanes::default;
        Ok(Self { tensors, resizer: PlaneResizer::new(), picture: planes(), square: planes() })
    }

    /// The `count` most likely classes of a picture, the likeliest first; depends on the picture alone.
    ///
    /// # Errors
    /// `Picture` where it contradicts its format, `Numeric` where weights have wrong shapes.
    pub fn classify(&mut self, picture: &Picture, count: usize) -> Result<Vec<Label>, ModelError> {
        to_rgb(picture, &mut self.picture)?;
        self.square.reshape(SIDE, SIDE);
        self.resizer.resize(&self.picture, (picture.width as usize, picture.height as usize), &mut self.square)?;
        let scores = self.forward()?.to_vec1::<f32>()?;
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let whole: f32 = scores.iter().map(|score| (score - largest).exp()).sum();
        let mut labels: Vec<Label> = scores
            .iter()
            .enumerate()
            .map(|(class, score)| Label { class, probability: (score - largest).exp() / whole })
            .collect();
        labels.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.class.cmp(&b.class)));
        labels.truncate(count);
        Ok(labels)
    }

    fn forward(&self) -> Result<Tensor, ModelError> {
        let [red, green, blue] = &self.square.planes;
        let planes = [blue, green, red].into_iter().zip(MEANS);
        let input: Vec<f32> = planes.flat_map(|(plane, mean)| plane.iter().map(move |value| value - mean)).collect();
        let input = Tensor::from_vec(input, (1, 3, SIDE, SIDE), &Device::Cpu)?;
        let mut current = self.layer(&input, "features.0", 0, 2)?;
        for (number, pooled) in FIRES {
            if pooled {
                current = current.max_pool2d_with_stride((3, 3), (2, 2))?;
            }
            let squeezed = self.layer(&current, &format!("features.{number}.squeeze"), 0, 1)?;
            let narrow = self.layer(&squeezed, &format!("features.{number}.expand1x1"), 0, 1)?;
            let wide = self.layer(&squeezed, &format!("features.{number}.expand3x3"), 1, 1)?;
            current = Tensor::cat(&[narrow, wide], 1)?;
        }
        Ok(self.layer(&current, "classifier.1", 0, 1)?.mean((2, 3))?.squeeze(0)?)
    }

    /// A convolution with bias and ReLU.
    fn layer(&self, input: &Tensor, name: &str, padding: usize, stride: usize) -> Result<Tensor, ModelError> {
        let part = |part: &str| {
            let name = format!("{name}.{part}");
            self.tensors.get(&name).ok_or_else(|| ModelError::Weights(format!("classifier weights: no tensor {name}")))
        };
        let bias = part("bias")?;
        let convolved = input.conv2d(part("weight")?, padding, stride, 1, 1)?;
        Ok(convolved.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?)?.relu()?)
    }
}
