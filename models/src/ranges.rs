//! What the layers of a network take in, as a calibration saw it: the scales of reduced precision follow from it.

use crate::ModelError;
use crate::kernels::{PackedConv, Sampling};
use serde::{Deserialize, Serialize};

/// The largest absolute value at every position of the transformed input of every 3x3 convolution, in the order in which
/// the convolutions run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges {
    layers: Vec<Vec<f32>>,
}

impl Ranges {
    /// Returns the ranges of a network of `blocks` residual blocks that has seen nothing.
    pub(crate) fn nothing(blocks: usize) -> Self {
        Self { layers: samplings(blocks).map(|sampling| vec![0.0; PackedConv::peak_count(sampling)]).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    pub(crate) fn layer(&self, layer: usize) -> &[f32] {
        &self.layers[layer]
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut [f32] {
        &mut self.layers[layer]
    }

    /// Makes sure that these are ranges of a network of `blocks` residual blocks, and numbers.
    ///
    /// # Errors
    /// `Weights` where they are not: they may come from a file.
    pub(crate) fn check(&self, blocks: usize) -> Result<(), ModelError> {
        let wanted = samplings(blocks).map(PackedConv::peak_count);
        if !self.layers.iter().map(Vec::len).eq(wanted) {
            let layers = self.layers.len();
            return Err(ModelError::Weights(format!(
                "ranges of {layers} layers are not of this network: calibrate again"
            )));
        }
        let sound = |peak: &f32| peak.is_finite() && *peak >= 0.0;
        match self.layers.iter().position(|peaks| !peaks.iter().all(sound)) {
            Some(layer) => {
                Err(ModelError::Weights(format!("a range of layer {layer} is no positive number: calibrate again")))
            }
            None => Ok(()),
        }
    }
}

/// How the 3x3 convolutions of a network move, in the order in which they run.
fn samplings(blocks: usize) -> impl Iterator<Item = Sampling> {
    let trunk = std::iter::repeat_n(Sampling::Same, 2 * blocks);
    [Sampling::Down; 2].into_iter().chain(trunk).chain([Sampling::Up; 2])
}
