//! What a training is: painting, photos, sizes, weights and length. Two trainings of equal configuration, on one kind of
//! processor, end in the same weights.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::device::TrainDevice;
use super::error::TrainError;

/// Iterations of both stages together.
const ITERATIONS_MAX: u32 = 100_000_000;

/// Weights of the terms of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossWeights {
    /// Relative content distance at relu3_1.
    pub content: f64,
    /// Mean relative Gram distance.
    pub style: f64,
    /// Weight of each feature level (relu1_1 ..) within the style term; empty for all that the feature network has, alike.
    pub style_levels: Vec<f64>,
    /// Mean squared difference of neighbouring pixels.
    pub variation: f64,
    /// Mean square of what leaves the range of colours.
    pub range: f64,
    /// Mean squared change under shift, flicker and noise, in the steadying stage.
    pub steadiness: f64,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { content: 1.0, style: 10.0, style_levels: Vec::new(), variation: 10.0, range: 1.0, steadiness: 150.0 }
    }
}

/// How long to train.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Length {
    /// A number of iterations of each stage.
    Iterations {
        /// Iterations without the steadiness term.
        main: u32,
        /// Iterations with it, at the lower rate.
        steady: u32,
    },
    /// About this long: the first iterations are timed, then the numbers are fixed (a quarter of them steady).
    Time(Duration),
}

/// A training's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Name of the style, for the card in the weights.
    pub name: String,
    /// Whether a network for any style is trained, instead of one for a painting.
    pub any: bool,
    /// The painting, a PNG or JPEG file; for any style a folder of them, to which the photos are added.
    pub style: PathBuf,
    /// Folder of content photos.
    pub photos: PathBuf,
    /// Feature network, see [`crate::vgg::FeatureNetwork::load`].
    pub features: PathBuf,
    /// A style file of the same width, or a checkpoint, to start from; without it the start is random. Another style's weights
    /// save most of the iterations.
    pub start: Option<PathBuf>,
    /// Where the weights go.
    pub out: PathBuf,
    /// Channels of the first convolution: 8 quarter, 16 half, 32 full width.
    pub width: usize,
    /// Side of the square views that are trained on, pixels; a multiple of 8.
    pub crop: usize,
    /// Short side to which the painting is scaled, pixels: larger gives larger strokes.
    pub style_size: u32,
    /// How long to train.
    pub length: Length,
    /// Seed of everything random.
    pub seed: u64,
    /// Peak learning rate of the main stage.
    pub rate: f64,
    /// Peak learning rate of the steadying stage.
    pub steady_rate: f64,
    /// Largest deviation of the noise, of each size, that the moved view of the steadying stage carries, colours 0..1; its light
    /// flickers in proportion, see [`super::Disturbance`].
    pub steady_noise: f64,
    /// Largest norm of a gradient.
    pub clip: f64,
    /// Weights of the loss.
    pub weights: LossWeights,
    /// Iterations between checkpoints (written beside `out`); 0 for none.
    pub checkpoint_every: u32,
    /// A photo that is stylized now and then, beside `out`, so that one sees how it goes.
    pub preview: Option<PathBuf>,
    /// Iterations between previews.
    pub preview_every: u32,
    /// Whether to forget the checkpoint of an earlier run, once everything is read.
    pub fresh: bool,
    /// Where it computes.
    #[serde(default)]
    pub device: TrainDevice,
}

impl TrainConfig {
    /// The proven recipe for a quarter-width network.
    pub fn new(name: &str, style: PathBuf, photos: PathBuf, features: PathBuf, out: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            any: false,
            style,
            photos,
            features,
            start: None,
            out,
            width: 8,
            crop: 192,
            style_size: 384,
            length: Length::Iterations { main: 3000, steady: 1000 },
            seed: 1,
            rate: 3e-3,
            steady_rate: 1e-3,
            steady_noise: 0.01,
            clip: 10.0,
            weights: LossWeights::default(),
            checkpoint_every: 200,
            preview: None,
            preview_every: 200,
            fresh: false,
            device: TrainDevice::Cpu,
        }
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// Names the first value out of its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let refuse = |reason: String| Err(TrainError::Config(reason));
        if !(1..=64).contains(&self.width) {
            return refuse(format!("width {}: expected 1 to 64 channels (8 quarter, 16 half, 32 full)", self.width));
        }
        if !(64..=1024).contains(&self.crop) || !self.crop.is_multiple_of(8) {
            return refuse(format!("crop {}: expected a multiple of 8 from 64 to 1024", self.crop));
        }
        if !(64..=2048).contains(&self.style_size) {
            return refuse(format!("style size {}: expected 64 to 2048 pixels", self.style_size));
        }
        for (name, rate) in [("rate", self.rate), ("steady rate", self.steady_rate), ("clip", self.clip)] {
            if !(rate.is_finite() && rate > 0.0) {
                return refuse(format!("{name} {rate}: expected a number above 0"));
            }
        }
        if !(0.0..=0.3).contains(&self.steady_noise) {
            return refuse(format!("steady noise {}: expected 0 to 0.3", self.steady_noise));
        }
        let weights = &self.weights;
        let terms = [weights.content, weights.style, weights.variation, weights.range, weights.steadiness];
        if terms.iter().chain(&weights.style_levels).any(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            return refuse("loss weights: expected numbers from 0 up".to_owned());
        }
        if weights.style_levels.len() > 4 {
            return refuse(format!("style levels: expected up to 4 weights, got {}", weights.style_levels.len()));
        }
        match self.length {
            Length::Iterations { main, steady } if !(1..=ITERATIONS_MAX).contains(&main.saturating_add(steady)) => {
                refuse(format!("length: expected 1 to {ITERATIONS_MAX} iterations"))
            }
            Length::Time(time) if time < Duration::from_secs(5) => {
                refuse(format!("time {time:?}: expected at least 5 seconds"))
            }
            _ => Ok(()),
        }
    }

    /// The configuration for features of so many levels: style levels that were left open are all of them, alike.
    pub(super) fn for_features(mut self, levels: usize) -> Self {
        if self.weights.style_levels.is_empty() {
            self.weights.style_levels = vec![1.0; levels];
        }
        self
    }
}
