//! Controls over a style: how much of it, in whose colours, and several styles in one picture.
//!
//! Mixing works on the stylized pictures, not on weights, so that it holds for every network and device. A picture's result
//! still depends on that picture alone.

use crate::ModelError;
use crate::any_style::{AnyStyle, AnyStyleModel};
use crate::device::DeviceChoice;
use crate::pixels::{ChromaSite, ColorMatrix, ColorRange, Layout, Picture, PixelFormat, RgbPlanes, from_rgb, to_rgb};
use crate::ranges::Ranges;
use crate::style::{PictureShape, StyleModel, StylizeOptions, build_with};
use crate::weights::StyleWeights;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The most styles in one blend: each costs a run of its network.
pub const BLEND_MAX: usize = 8;

/// What the network for any style holds for a pixel: its widest activations, which candle keeps apart.
const ANY_STYLE_BYTES_PER_PIXEL: u64 = 1024;

/// Parts are mixed at 16 bits, so that rounding them shows in no output.
const PART_FORMAT: PixelFormat = PixelFormat {
    layout: Layout::Rgb,
    bits: 16,
    range: ColorRange::Full,
    matrix: ColorMatrix::Rgb,
    site: ChromaSite::Center,
};

/// What stylizes: a network trained on one style, or one for any picture with a style encoded.
#[derive(Clone, Debug)]
pub enum StyleSource {
    /// A network of one style.
    Trained(Arc<StyleWeights>),
    /// A network for any picture, with one picture's style.
    Any(Arc<AnyStyle>),
}

impl StyleSource {
    /// Returns about how many bytes are held for every pixel that is scored on the CPU, rounded up.
    pub fn bytes_per_pixel(&self) -> u64 {
        match self {
            Self::Trained(weights) => weights.shape().bytes_per_pixel(),
            Self::Any(_) => ANY_STYLE_BYTES_PER_PIXEL,
        }
    }

    /// What identifies it, hexadecimal: blake3 of the weights, and of the style picture where there is one.
    pub fn digest(&self) -> String {
        match self {
            Self::Trained(weights) => weights.describe().digest,
            Self::Any(style) => style.digest().to_owned(),
        }
    }

    fn build(
        &self,
        device: &DeviceChoice,
        threads: usize,
        ranges: Option<&Ranges>,
    ) -> Result<Box<dyn StyleModel>, ModelError> {
        match self {
            Self::Trained(weights) => build_with(weights, device, threads, ranges),
            Self::Any(style) if *device == DeviceChoice::Cpu => Ok(Box::new(AnyStyleModel::new(style))),
            Self::Any(_) => Err(ModelError::Device(format!(
                "a picture as style is scored on the CPU only, not on {device}: add --device cpu"
            ))),
        }
    }
}

/// Luma of red, green and blue (ITU-R BT.601, table 1).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// What is done with a stylized picture; the default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Controls {
    /// Share of the stylized picture in the result, 0 (the source) to 1.
    pub strength: f32,
    /// Keep the source's colours: only the luma is the style's.
    pub preserve_color: bool,
}

impl Default for Controls {
    fn default() -> Self {
        Self { strength: 1.0, preserve_color: false }
    }
}

impl Controls {
    /// Tells whether the stylized picture is the result.
    pub fn is_neutral(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self) -> Result<(), ModelError> {
        if (0.0..=1.0).contains(&self.strength) {
            return Ok(());
        }
        Err(ModelError::Options(format!("strength is {}, expected 0 to 1", self.strength)))
    }
}

/// Builds what stylizes with `parts`, each with its share, under `controls`; must be called on the thread that uses it.
///
/// Shares are positive and relative to each other; `ranges` of an accepted calibration apply where there is one part. One part under neutral controls is the plain network, at no cost.
///
/// # Errors
/// `Options` for no part, more than [`BLEND_MAX`], a share that is not a positive number or a strength out of range; else what
/// [`build_with`] returns.
pub fn build_mix(
    parts: &[(StyleSource, f32)],
    controls: Controls,
    device: &DeviceChoice,
    threads: usize,
    ranges: Option<&Ranges>,
) -> Result<Box<dyn StyleModel>, ModelError> {
    controls.check()?;
    let ranges = ranges.filter(|_| parts.len() == 1);
    if parts.is_empty() || parts.len() > BLEND_MAX {
        return Err(ModelError::Options(format!("blend of {} styles, expected 1 to {BLEND_MAX}", parts.len())));
    }
    if let Some((_, share)) = parts.iter().find(|(_, share)| !(share.is_finite() && *share > 0.0)) {
        return Err(ModelError::Options(format!("share of a style is {share}, expected a number above 0")));
    }
    if let ([(source, _)], true) = (parts, controls.is_neutral()) {
        return source.build(device, threads, ranges);
    }
    let whole: f32 = parts.iter().map(|(_, share)| share).sum();
    let models = parts
        .iter()
        .map(|(source, share)| Ok((source.build(device, threads, ranges)?, share / whole)))
        .collect::<Result<Vec<_>, ModelError>>()?;
    Ok(Box::new(Mix::new(models, controls)))
}

/// Several models whose pictures are mixed with each other and with the source.
struct Mix {
    models: Vec<(Box<dyn StyleModel>, f32)>,
    controls: Controls,
    source: RgbPlanes,
    part: RgbPlanes,
    mixed: RgbPlanes,
}

impl Mix {
    fn new(models: Vec<(Box<dyn StyleModel>, f32)>, controls: Controls) -> Self {
        let planes = RgbPlanes::default;
        Self { models, controls, source: planes(), part: planes(), mixed: planes() }
    }

    /// Mixes what the parts made of a picture.
    fn mix_one<'a>(
        &mut self,
        picture: &Picture,
        styled: impl Iterator<Item = (&'a Picture, f32)>,
        output: PixelFormat,
    ) -> Result<Picture, ModelError> {
        to_rgb(picture, &mut self.source)?;
        self.mixed.reshape(self.source.width, self.source.height);
        self.mixed.planes.iter_mut().for_each(|plane| plane.fill(0.0));
        for (styled, share) in styled {
            to_rgb(styled, &mut self.part)?;
            add_scaled(&mut self.mixed, &self.part, share);
        }
        if self.controls.preserve_color {
            keep_color(&mut self.mixed, &self.source);
        }
        fade(&mut self.mixed, &self.source, self.controls.strength);
        from_rgb(&self.mixed, output, picture.width, picture.height)
    }
}

/// How the parts of a mix are stylized.
fn of_parts(options: &StylizeOptions) -> StylizeOptions {
    StylizeOptions { output: PART_FORMAT, ..*options }
}

impl StyleModel for Mix {
    fn make_room(&mut self, shape: PictureShape, options: &StylizeOptions) -> Result<usize, ModelError> {
        let rooms = self.models.iter_mut().map(|(model, _)| model.make_room(shape, &of_parts(options)));
        Ok(rooms.collect::<Result<Vec<_>, _>>()?.into_iter().min().unwrap_or(1))
    }

    fn stylize(&mut self, pictures: &[&Picture], options: &StylizeOptions) -> Result<Vec<Picture>, ModelError> {
        options.output.validate()?;
        crate::style::check_equal_shapes(pictures)?;
        let part_options = of_parts(options);
        let parts = self.models.iter_mut().map(|(model, share)| Ok((model.stylize(pictures, &part_options)?, *share)));
        let parts = parts.collect::<Result<Vec<_>, ModelError>>()?;
        let mix = |(at, picture): (usize, &&Picture)| {
            self.mix_one(picture, parts.iter().map(|(styled, share)| (&styled[at], *share)), options.output)
        };
        pictures.iter().enumerate().map(mix).collect()
    }
}

fn add_scaled(sum: &mut RgbPlanes, part: &RgbPlanes, share: f32) {
    for (sum, part) in sum.planes.iter_mut().zip(&part.planes) {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += share * part);
    }
}

/// Moves every colour of `source` to the luma of `styled` and leaves it there: colour differences stay the source's.
fn keep_color(styled: &mut RgbPlanes, source: &RgbPlanes) {
    let [red, green, blue] = &mut styled.planes;
    let [source_red, source_green, source_blue] = &source.planes;
    for index in 0..red.len() {
        let colour = [source_red[index], source_green[index], source_blue[index]];
        let styled = [red[index], green[index], blue[index]];
        let luma = |colour: [f32; 3]| LUMA[0] * colour[0] + LUMA[1] * colour[1] + LUMA[2] * colour[2];
        let change = luma(styled) - luma(colour);
        (red[index], green[index], blue[index]) = (colour[0] + change, colour[1] + change, colour[2] + change);
    }
}

fn fade(styled: &mut RgbPlanes, source: &RgbPlanes, strength: f32) {
    if strength == 1.0 {
        return;
    }
    for (styled, source) in styled.planes.iter_mut().zip(&source.planes) {
        styled.iter_mut().zip(source).for_each(|(styled, source)| *styled = source + strength * (*styled - source));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{Seeded, random_tensors, serialize};
    use crate::weights::NetShape;
    use safetensors::tensor::Dtype;

    fn picture(seed: u64) -> Picture {
        let mut random = Seeded(seed);
        let mut rgb = RgbPlanes::new(40, 24);
        for plane in &mut rgb.planes {
            plane.iter_mut().for_each(|value| *value = 127.0 + 100.0 * random.next_f32());
        }
        from_rgb(&rgb, PixelFormat::RGB8, 40, 24).unwrap()
    }

    /// A network whose pictures lie about middle grey, so that clamping hides nothing.
    fn weights(seed: u64) -> Arc<StyleWeights> {
        let mut tensors = random_tensors(&NetShape { down: [4, 6, 8], blocks: 1, up: [6, 4] }, seed);
        for (name, (_, bytes)) in &mut tensors {
            let is_last = name.starts_with("deconv3.");
            for value in bytes.chunks_exact_mut(4).filter(|_| is_last) {
                let scaled = f32::from_le_bytes(value.try_into().unwrap()) * 20.0;
                value.copy_from_slice(&(if name.ends_with("bias") { 127.0 } else { scaled }).to_le_bytes());
            }
        }
        Arc::new(StyleWeights::load(&serialize(&tensors, Dtype::F32)).unwrap())
    }

    fn stylized(parts: &[(u64, f32)], controls: Controls, threads: usize) -> RgbPlanes {
        let parts: Vec<_> = parts.iter().map(|(seed, share)| (StyleSource::Trained(weights(*seed)), *share)).collect();
        let mut model = build_mix(&parts, controls, &DeviceChoice::Cpu, threads, None).unwrap();
        let options = StylizeOptions { score_width: None, output: PixelFormat::RGB8 };
        let result = model.stylize(&[&picture(1)], &options).unwrap().swap_remove(0);
        let mut rgb = RgbPlanes::default();
        to_rgb(&result, &mut rgb).unwrap();
        rgb
    }

    fn source() -> RgbPlanes {
        let mut rgb = RgbPlanes::default();
        to_rgb(&picture(1), &mut rgb).unwrap();
        rgb
    }

    /// Largest difference of two pictures, codes of 8 bits.
    fn distance(a: &RgbPlanes, b: &RgbPlanes) -> f32 {
        let pairs = a.planes.iter().flatten().zip(b.planes.iter().flatten());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn strength_runs_from_the_source_to_the_style() {
        let at = |strength| stylized(&[(7, 1.0)], Controls { strength, preserve_color: false }, 1);
        assert!(distance(&at(0.0), &source()) <= 0.01, "strength 0 is the source");
        let (none, half, full) = (at(0.0), at(0.5), at(1.0));
        let mut middle = RgbPlanes::new(40, 24);
        add_scaled(&mut middle, &none, 0.5);
        add_scaled(&mut middle, &full, 0.5);
        assert!(distance(&half, &middle) <= 1.01, "half lies in the middle: {}", distance(&half, &middle));
        assert!(distance(&none, &full) > 5.0, "the style changes something");
    }

    #[test]
    fn preserved_colors_are_the_sources() {
        let kept = stylized(&[(7, 1.0)], Controls { strength: 1.0, preserve_color: true }, 1);
        let (source, plain) = (source(), stylized(&[(7, 1.0)], Controls::default(), 1));
        let mut checked = 0;
        for index in 0..kept.planes[0].len() {
            let at = |rgb: &RgbPlanes| [0, 1, 2].map(|plane| rgb.planes[plane][index]);
            let (kept, source, plain) = (at(&kept), at(&source), at(&plain));
            // Clamping at black and white moves colours; elsewhere the differences of the channels are the source's.
            if kept.iter().any(|value| !(1.0..=254.0).contains(value)) {
                continue;
            }
            checked += 1;
            assert!((kept[0] - kept[1] - (source[0] - source[1])).abs() <= 1.01, "red less green at {index}");
            assert!((kept[2] - kept[1] - (source[2] - source[1])).abs() <= 1.01, "blue less green at {index}");
            let luma = |c: [f32; 3]| LUMA[0] * c[0] + LUMA[1] * c[1] + LUMA[2] * c[2];
            assert!((luma(kept) - luma(plain)).abs() <= 1.51, "luma at {index}");
        }
        assert!(checked > 200, "{checked} pixels were not clamped");
    }

    #[test]
    fn a_blend_is_the_mean_of_its_parts_by_share() {
        let (first, second) =
            (stylized(&[(7, 1.0)], Controls::default(), 1), stylized(&[(8, 1.0)], Controls::default(), 1));
        let mut expected = RgbPlanes::new(40, 24);
        add_scaled(&mut expected, &first, 0.75);
        add_scaled(&mut expected, &second, 0.25);
        let blended = stylized(&[(7, 3.0), (8, 1.0)], Controls::default(), 1);
        assert!(distance(&blended, &expected) <= 1.01, "{}", distance(&blended, &expected));
        assert!(distance(&blended, &first) > 2.0);
    }

    #[test]
    fn threads_change_no_byte() {
        let controls = Controls { strength: 0.6, preserve_color: true };
        let parts = [(7, 0.7), (8, 0.3)];
        assert_eq!(stylized(&parts, controls, 1), stylized(&parts, controls, 2));
    }

    #[test]
    fn neutral_controls_are_the_plain_network() {
        let options = StylizeOptions { score_width: Some(32), output: PixelFormat::YUV420P8 };
        let mut plain = build_with(&weights(7), &DeviceChoice::Cpu, 1, None).unwrap();
        let mut mix =
            build_mix(&[(StyleSource::Trained(weights(7)), 0.3)], Controls::default(), &DeviceChoice::Cpu, 1, None)
                .unwrap();
        assert_eq!(plain.stylize(&[&picture(2)], &options).unwrap(), mix.stylize(&[&picture(2)], &options).unwrap());
    }

    #[test]
    fn wrong_requests_are_named() {
        let refused = |parts: &[(u64, f32)], strength| {
            let parts: Vec<_> =
                parts.iter().map(|(seed, share)| (StyleSource::Trained(weights(*seed)), *share)).collect();
            let controls = Controls { strength, preserve_color: false };
            build_mix(&parts, controls, &DeviceChoice::Cpu, 1, None)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert!(refused(&[], 1.0).contains("blend of 0 styles"));
        assert!(refused(&[(1, 0.0)], 1.0).contains("share of a style is 0"));
        assert!(refused(&[(1, f32::NAN)], 1.0).contains("expected a number above 0"));
        assert!(refused(&[(1, 1.0)], 1.5).contains("strength is 1.5, expected 0 to 1"));
    }
}
