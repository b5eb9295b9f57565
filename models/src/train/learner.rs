//! What a training teaches and from which styles: a network of one painting, or one for any picture.

use std::fmt;

use candle_core::{Tensor, Var};

use super::any_network::AnyNetwork;
use super::disturbance::Disturbance;
use super::error::TrainError;
use super::moments::{impose, moments};
use super::network::TransformerNetwork;
use super::photo::{Photo, PhotoSet};
use super::random::Random;
use crate::loss::gram;
use crate::vgg::FeatureNetwork;

/// Styles of which previews show a photo in.
const SHOWN: usize = 3;

/// What an iteration teaches of a style.
#[derive(Debug, Clone)]
pub(super) struct Lesson {
    /// The style picture (1, 3, H, W), RGB 0..1.
    picture: Tensor,
    /// What the style term compares at each feature level.
    pub(super) targets: Vec<Tensor>,
}

/// The pictures and features that lessons are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Studio<'a> {
    pub(super) features: &'a FeatureNetwork,
    pub(super) photos: &'a PhotoSet,
    /// Side of a view, pixels.
    pub(super) crop: usize,
    /// Feature levels of the style term.
    pub(super) levels: usize,
}

/// A network under training.
pub(super) trait Learner: fmt::Debug {
    /// Every trained variable with its name, in a fixed order.
    fn variables(&self) -> &[(String, Var)];

    /// The style of an iteration on `content` (1, 3, H, W).
    fn lesson(&self, studio: Studio<'_>, content: &Tensor, random: &mut Random) -> Result<Lesson, TrainError>;

    /// Stylizes pictures (N, 3, H, W), RGB 0..1.
    fn stylize(&self, pictures: &Tensor, lesson: &Lesson) -> Result<Tensor, TrainError>;

    /// What the style term compares of a feature level.
    fn summary(&self, features: &Tensor) -> candle_core::Result<Tensor>;

    /// What the content term compares with, of the content's features and its level (from 0).
    fn content_target(&self, content: Tensor, level: usize, lesson: &Lesson) -> candle_core::Result<Tensor>;

    /// A photo as previews show it, (1, 3, H, W').
    fn preview(&self, photo: &Tensor) -> Result<Tensor, TrainError>;

    /// BLAKE3 of the pictures that styles are learnt from, as hex.
    fn style_digest(&self) -> &str;
}

/// A transformer network that learns one painting by its Gram matrices (Johnson et al. 2016).
#[derive(Debug)]
pub(super) struct PaintingLearner {
    network: TransformerNetwork,
    lesson: Lesson,
    digest: String,
}

impl PaintingLearner {
    pub(super) fn new(
        network: TransformerNetwork,
        features: &FeatureNetwork,
        painting: &Photo,
        levels: usize,
    ) -> Result<Self, TrainError> {
        let picture = painting.to_tensor()?;
        let targets = features.features(&picture, levels)?.iter().map(gram).collect::<Result<_, _>>()?;
        Ok(Self { network, lesson: Lesson { picture, targets }, digest: painting.digest() })
    }
}

impl Learner for PaintingLearner {
    fn variables(&self) -> &[(String, Var)] {
        self.network.variables()
    }

    fn lesson(&self, _: Studio<'_>, _: &Tensor, _: &mut Random) -> Result<Lesson, TrainError> {
        Ok(self.lesson.clone())
    }

    fn stylize(&self, pictures: &Tensor, _: &Lesson) -> Result<Tensor, TrainError> {
        self.network.forward(pictures)
    }

    fn summary(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        gram(features)
    }

    fn content_target(&self, content: Tensor, _: usize, _: &Lesson) -> candle_core::Result<Tensor> {
        Ok(content)
    }

    fn preview(&self, photo: &Tensor) -> Result<Tensor, TrainError> {
        self.network.forward(photo)
    }

    fn style_digest(&self) -> &str {
        &self.digest
    }
}

/// A network for any style, which learns paintings and photos in turn by the moments of their features (Huang and Belongie
/// 2017).
#[derive(Debug)]
pub(super) struct AnyLearner {
    network: AnyNetwork,
    paintings: PhotoSet,
}

impl AnyLearner {
    pub(super) fn new(network: AnyNetwork, paintings: PhotoSet) -> Self {
        Self { network, paintings }
    }
}

impl Learner for AnyLearner {
    fn variables(&self) -> &[(String, Var)] {
        self.network.variables()
    }

    /// Half of the styles are paintings, a quarter photos and a quarter the content itself, of which the picture must then come
    /// out as it is (Park and Lee 2019, section 3.3).
    fn lesson(&self, studio: Studio<'_>, content: &Tensor, random: &mut Random) -> Result<Lesson, TrainError> {
        let picture = match random.below(4) {
            0 => content.clone(),
            1 => swapped_view(studio.photos, studio.crop, random)?,
            _ => swapped_view(&self.paintings, studio.crop, random)?,
        };
        let targets =
            studio.features.features(&picture, studio.levels)?.iter().map(moments).collect::<Result<_, _>>()?;
        Ok(Lesson { picture, targets })
    }

    fn stylize(&self, pictures: &Tensor, lesson: &Lesson) -> Result<Tensor, TrainError> {
        self.network.forward(pictures, &self.network.encode_style(&lesson.picture)?)
    }

    fn summary(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        moments(features)
    }

    /// The content's features with the style's moments: the content term then keeps shapes and asks for no colours.
    fn content_target(&self, content: Tensor, level: usize, lesson: &Lesson) -> candle_core::Result<Tensor> {
        impose(&content, &lesson.targets[level])
    }

    fn preview(&self, photo: &Tensor) -> Result<Tensor, TrainError> {
        let shown = self.paintings.photos().iter().take(SHOWN);
        let shown =
            shown.map(|painting| self.network.forward(photo, &self.network.encode_style(&painting.to_tensor()?)?));
        Ok(Tensor::cat(&shown.collect::<Result<Vec<_>, _>>()?, 3)?)
    }

    fn style_digest(&self) -> &str {
        self.paintings.digest()
    }
}

/// A view with red, green and blue in any order, half of the time in their own: few pictures then make many palettes.
fn swapped_view(set: &PhotoSet, size: usize, random: &mut Random) -> Result<Tensor, TrainError> {
    const ORDERS: [[u32; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let picture = set.render(&set.draw(random, size, 0), size, &Disturbance::default(), random)?;
    let order = ORDERS[random.below(2) * random.below(ORDERS.len())];
    Ok(picture.index_select(&Tensor::new(&order, picture.device())?, 1)?)
}
