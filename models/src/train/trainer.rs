//! The training loop: one iteration after the other, each drawing its own random numbers from the seed.

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::adam::{Adam, scheduled_rate};
use super::any_network::AnyNetwork;
use super::config::{LossWeights, TrainConfig};
use super::disturbance::{Disturbance, SHIFT_MAX};
use super::error::TrainError;
use super::export::import;
use super::learner::{AnyLearner, Learner, Lesson, PaintingLearner, Studio};
use super::network::TransformerNetwork;
use super::photo::{Photo, PhotoSet};
use super::random::Random;
use crate::loss::{content_loss, energy, mean_distance, range_excess, steadiness_loss, total_variation};
use crate::vgg::FeatureNetwork;

/// Feature levels that the content term needs (its own is the last).
const CONTENT_LEVELS: usize = 3;
/// Views that say how large content features typically are.
const TYPICAL_VIEWS: usize = 12;
/// Random stream of those views, far from any iteration's.
const TYPICAL_STREAM: u64 = u64::MAX - 1;
/// Total variation below which a picture is taken for flat: a hundred times less than of any stylized photo.
const FLAT_VARIATION: f32 = 1e-7;
/// So many flat pictures in a row are no chance.
const FLAT_VIEWS_MAX: u32 = 8;
/// So many overflowed gradients in a row will not come back.
const LOST_STEPS_MAX: u32 = 8;

/// The terms of one iteration's loss, unweighted, and their weighted sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Weighted sum.
    pub total: f32,
    /// Relative content distance.
    pub content: f32,
    /// Mean relative Gram distance.
    pub style: f32,
    /// Total variation.
    pub variation: f32,
    /// Mean square of what leaves the range of colours.
    pub range: f32,
    /// Mean squared change under shift, flicker and noise; 0 in the main stage.
    pub steadiness: f32,
}

impl Losses {
    /// Moves a running mean towards these losses by `share`.
    pub fn blend_into(&self, mean: &mut Self, share: f32) {
        let blend = |mean: &mut f32, value: f32| *mean += share * (value - *mean);
        blend(&mut mean.total, self.total);
        blend(&mut mean.content, self.content);
        blend(&mut mean.style, self.style);
        blend(&mut mean.variation, self.variation);
        blend(&mut mean.range, self.range);
        blend(&mut mean.steadiness, self.steadiness);
    }
}

/// A training in progress: network, optimiser, photos and targets.
#[derive(Debug)]
pub struct Trainer {
    pub(super) config: TrainConfig,
    pub(super) learner: Box<dyn Learner>,
    pub(super) adam: Adam,
    pub(super) iteration: u32,
    pub(super) mean: Losses,
    /// Pictures in a row that came out flat.
    pub(super) flat_views: u32,
    /// Steps in a row that were lost to a gradient that was not finite.
    pub(super) lost_steps: u32,
    features: FeatureNetwork,
    photos: PhotoSet,
    content_floor: f32,
    start: Option<String>,
}

impl Trainer {
    /// Prepares the training of one painting: reads nothing, measures its Gram matrices.
    ///
    /// # Errors
    /// When the configuration is out of range, its device not there or the painting too small.
    pub fn new(
        config: TrainConfig,
        features: FeatureNetwork,
        painting: &Photo,
        photos: PhotoSet,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let config = config.for_features(features.levels());
        let device = config.device.open()?;
        let network = TransformerNetwork::new(config.width, config.seed)?.to_device(&device)?;
        let features = features.to_device(&device)?;
        let learner = PaintingLearner::new(network, &features, painting, config.weights.style_levels.len())?;
        Self::of(config, Box::new(learner), features, photos)
    }

    /// Prepares the training of a network for any style, on paintings and on the photos as styles; reads nothing.
    ///
    /// # Errors
    /// When the configuration is out of range or its device not there.
    pub fn any(
        config: TrainConfig,
        features: FeatureNetwork,
        paintings: PhotoSet,
        photos: PhotoSet,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let config = config.for_features(features.levels());
        let device = config.device.open()?;
        let network = AnyNetwork::new(config.width, config.seed)?.to_device(&device)?;
        Self::of(config, Box::new(AnyLearner::new(network, paintings)), features.to_device(&device)?, photos)
    }

    fn of(
        config: TrainConfig,
        learner: Box<dyn Learner>,
        features: FeatureNetwork,
        photos: PhotoSet,
    ) -> Result<Self, TrainError> {
        let levels = config.weights.style_levels.len();
        if levels > features.levels() {
            return Err(TrainError::Config(format!(
                "style levels: {levels} weights for features of {} levels; give as many, or none for all alike",
                features.levels()
            )));
        }
        let adam = Adam::new(learner.variables(), config.clip);
        let content_floor = typical_energy(&features, &photos, &config)?;
        let mean = Losses::default();
        Ok(Self {
            config,
            learner,
            adam,
            iteration: 0,
            mean,
            flat_views: 0,
            lost_steps: 0,
            features,
            photos,
            content_floor,
            start: None,
        })
    }

    /// Starts from the weights of a style file; to be called before the first step.
    ///
    /// # Errors
    /// When the file does not fit the network.
    pub fn start_from(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        import(self.learner.variables(), bytes)?;
        self.start = Some(blake3::hash(bytes).to_hex().to_string());
        Ok(())
    }

    /// BLAKE3 of the style file that training started from, as hex.
    pub fn start(&self) -> Option<&str> {
        self.start.as_deref()
    }

    /// The network as trained so far: every variable with its name.
    pub fn variables(&self) -> &[(String, Var)] {
        self.learner.variables()
    }

    /// BLAKE3 of the painting's samples as trained on, or of the paintings' files, as hex.
    pub fn style_digest(&self) -> &str {
        self.learner.style_digest()
    }

    /// The feature network.
    pub fn features(&self) -> &FeatureNetwork {
        &self.features
    }

    /// The content photos.
    pub fn photos(&self) -> &PhotoSet {
        &self.photos
    }

    /// Iterations made.
    pub fn iteration(&self) -> u32 {
        self.iteration
    }

    /// Running mean of the losses.
    pub fn mean(&self) -> Losses {
        self.mean
    }

    /// Makes one iteration of a training of `main` and then `steady` iterations.
    ///
    /// # Errors
    /// When the loss is not finite.
    pub fn step(&mut self, main: u32, steady: u32) -> Result<Losses, TrainError> {
        let is_steady = self.iteration >= main;
        let rate = if is_steady {
            scheduled_rate(self.config.steady_rate, self.iteration - main, steady)
        } else {
            scheduled_rate(self.config.rate, self.iteration, main)
        };
        if self.iteration == main && main > 0 {
            // The moments of the other loss would throw the first steps off.
            self.adam = Adam::new(self.learner.variables(), self.config.clip);
        }
        let (loss, losses) = self.loss(is_steady)?;
        if !losses.total.is_finite() {
            return Err(TrainError::Diverged { iteration: self.iteration });
        }
        // A single view may be of a flat sky.
        self.flat_views = if losses.variation < FLAT_VARIATION { self.flat_views + 1 } else { 0 };
        if self.flat_views >= FLAT_VIEWS_MAX {
            return Err(TrainError::Collapsed { iteration: self.iteration });
        }
        let gradients = loss.backward()?;
        let norm = self.adam.step(self.learner.variables(), &gradients, rate)?;
        self.lost_steps = if norm.is_finite() { 0 } else { self.lost_steps + 1 };
        if self.lost_steps >= LOST_STEPS_MAX {
            return Err(TrainError::Diverged { iteration: self.iteration });
        }
        if self.iteration == main {
            // Until now there was no such term to take a mean of.
            self.mean.steadiness = losses.steadiness;
        }
        self.iteration += 1;
        losses.blend_into(&mut self.mean, (1.0 / self.iteration as f32).max(0.02));
        Ok(losses)
    }

    fn loss(&self, is_steady: bool) -> Result<(Tensor, Losses), TrainError> {
        let size = self.config.crop;
        let mut random = Random::new(self.config.seed, u64::from(self.iteration));
        let view = self.photos.draw(&mut random, size, SHIFT_MAX as usize);
        let content = self.photos.render(&view, size, &Disturbance::default(), &mut random)?;
        let lesson = self.learner.lesson(self.studio(), &content, &mut random)?;
        let (styled, steadiness) = if is_steady {
            let disturbance = Disturbance::draw(&mut random, self.config.steady_noise as f32);
            let moved = self.photos.render(&view, size, &disturbance, &mut random)?;
            let both = self.learner.stylize(&Tensor::cat(&[&content, &moved], 0)?, &lesson)?;
            let styled = both.narrow(0, 0, 1)?;
            let steadiness = steadiness_loss(&styled, &both.narrow(0, 1, 1)?, disturbance.shift)?;
            (styled, Some(steadiness))
        } else {
            (self.learner.stylize(&content, &lesson)?, None)
        };
        self.weigh(&content, &styled, &lesson, steadiness)
    }

    fn studio(&self) -> Studio<'_> {
        let levels = self.config.weights.style_levels.len().max(CONTENT_LEVELS);
        Studio { features: &self.features, photos: &self.photos, crop: self.config.crop, levels }
    }

    fn weigh(
        &self,
        content: &Tensor,
        styled: &Tensor,
        lesson: &Lesson,
        steadiness: Option<Tensor>,
    ) -> Result<(Tensor, Losses), TrainError> {
        let LossWeights { style_levels, .. } = &self.config.weights;
        let weights = &self.config.weights;
        let content_target = self.features.features(content, CONTENT_LEVELS)?.swap_remove(CONTENT_LEVELS - 1);
        let content_target = self.learner.content_target(content_target, CONTENT_LEVELS - 1, lesson)?;
        let styled_features = self.features.features(styled, style_levels.len().max(CONTENT_LEVELS))?;
        let content = content_loss(&styled_features[CONTENT_LEVELS - 1], &content_target, self.content_floor)?;
        let compared = styled_features.iter().take(style_levels.len());
        let compared = compared.map(|level| self.learner.summary(level)).collect::<Result<Vec<_>, _>>()?;
        let style = mean_distance(&compared, &lesson.targets, style_levels)?;
        let variation = total_variation(styled)?;
        let range = range_excess(styled)?;
        let mut total = (content.affine(weights.content, 0.0)? + style.affine(weights.style, 0.0)?)?;
        total = (total + variation.affine(weights.variation, 0.0)?)?;
        total = (total + range.affine(weights.range, 0.0)?)?;
        let mut losses = Losses {
            content: content.to_scalar()?,
            style: style.to_scalar()?,
            variation: variation.to_scalar()?,
            range: range.to_scalar()?,
            ..Losses::default()
        };
        if let Some(steadiness) = steadiness {
            losses.steadiness = steadiness.to_scalar()?;
            total = (total + steadiness.affine(weights.steadiness, 0.0)?)?;
        }
        losses.total = total.to_scalar()?;
        Ok((total, losses))
    }
}

/// Mean energy of the content features over some views of the photos.
fn typical_energy(features: &FeatureNetwork, photos: &PhotoSet, config: &TrainConfig) -> Result<f32, TrainError> {
    let mut random = Random::new(config.seed, TYPICAL_STREAM);
    let mut total = 0.0;
    for _ in 0..TYPICAL_VIEWS {
        let view = photos.draw(&mut random, config.crop, SHIFT_MAX as usize);
        let content = photos.render(&view, config.crop, &Disturbance::default(), &mut random)?;
        total += energy(&features.features(&content, CONTENT_LEVELS)?[CONTENT_LEVELS - 1])?;
    }
    Ok(total / TYPICAL_VIEWS as f32)
}
