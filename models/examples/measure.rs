//! Measures styles on photos that training has not seen: mean style and content distance by a feature network, and the mean
//! squared change under a shift of three pixels and some noise.
//!
//! `measure FEATURES SIZE PAINTING=STYLE ... -- PHOTO ...`: paintings at a short side of 384 pixels, photos at SIZE. STYLE is a
//! style file, or a network for any style, which then gets the painting as its style picture.

mod painter;

use std::io::Write;
use std::path::Path;

use candle_core::Tensor;
use painter::{Failure, PAINTING_SIZE, Painter};
use restyle_models::loss::{content_loss, gram, steadiness_loss, style_loss};
use restyle_models::train::{Photo, Random};
use restyle_models::vgg::FeatureNetwork;

/// relu1_1, relu2_1, relu3_1.
const LEVELS: usize = 3;
const SHIFT: usize = 3;
const NOISE: f32 = 0.015;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: measure FEATURES SIZE PAINTING=STYLE ... -- PHOTO ...";
    let [features, size, rest @ ..] = arguments.as_slice() else { return Err(usage.into()) };
    let features = FeatureNetwork::load(&std::fs::read(features)?)?;
    let size: u32 = size.parse()?;
    let mut sides = rest.split(|argument| argument == "--");
    let (Some(styles), Some(photos)) = (sides.next(), sides.next()) else { return Err(usage.into()) };
    let read = |path: &String| Photo::read(Path::new(path), Some(size))?.to_tensor();
    let photos = photos.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut out = std::io::stdout().lock();
    for pair in styles {
        let (painting, style) = pair.split_once('=').ok_or(usage)?;
        let painter = Painter::load(Path::new(style), Path::new(painting))?;
        let painting = Photo::read(Path::new(painting), Some(PAINTING_SIZE))?.to_tensor()?;
        let targets = grams(&features, &painting)?;
        let (mut style_sum, mut content_sum, mut change_sum) = (0.0, 0.0, 0.0);
        for photo in &photos {
            let styled = painter.paint(photo)?;
            let (found, wanted) = (features.features(&styled, LEVELS)?, features.features(photo, LEVELS)?);
            style_sum += style_loss(&found, &targets, &[1.0; LEVELS])?.to_scalar::<f32>()?;
            content_sum += content_loss(&found[LEVELS - 1], &wanted[LEVELS - 1], 0.0)?.to_scalar::<f32>()?;
            change_sum += change(&painter, photo)?;
        }
        let count = photos.len() as f32;
        let (style_mean, content_mean, change_mean) = (style_sum / count, content_sum / count, change_sum / count);
        writeln!(out, "{style}: style {style_mean:.4} content {content_mean:.4} change {change_mean:.5}")?;
    }
    Ok(())
}

fn grams(features: &FeatureNetwork, picture: &Tensor) -> Result<Vec<Tensor>, Failure> {
    Ok(features.features(picture, LEVELS)?.iter().map(gram).collect::<Result<Vec<_>, _>>()?)
}

/// Root of the mean squared difference between the styled view and the styled shifted, noisy view.
fn change(painter: &Painter, photo: &Tensor) -> Result<f32, Failure> {
    let (_, _, height, width) = photo.dims4()?;
    let (height, width) = ((height - SHIFT) / 4 * 4, (width - SHIFT) / 4 * 4);
    let view = |offset: usize| -> candle_core::Result<Tensor> {
        photo.narrow(2, offset, height)?.narrow(3, offset, width)?.contiguous()
    };
    let mut random = Random::new(5, 5);
    let noise: Vec<f32> = (0..3 * height * width).map(|_| NOISE * random.normal()).collect();
    let noise = Tensor::from_vec(noise, (1, 3, height, width), photo.device())?;
    let (first, second) = (painter.paint(&view(0)?)?, painter.paint(&(view(SHIFT)? + noise)?)?);
    let shift = (SHIFT as i32, SHIFT as i32);
    Ok(steadiness_loss(&first, &second, shift)?.to_scalar::<f32>()?.sqrt())
}
