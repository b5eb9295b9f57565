//! What the scoring stage calls: pictures in, stylized pictures of the same size out.

use crate::ModelError;
use crate::device::DeviceChoice;
use crate::kernels::Isa;
use crate::pixels::{Picture, PixelFormat, RgbPlanes, from_rgb, to_rgb};
use crate::ranges::Ranges;
use crate::resize::PlaneResizer;
use crate::transform_net::TransformNet;
use crate::weights::StyleWeights;
use std::sync::Arc;

/// The smallest width to score at: below it the trunk has a single column.
pub const SCORE_WIDTH_MIN: u32 = 8;

/// How pictures are stylized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StylizeOptions {
    /// Width at which the network sees the picture, height in proportion; `None` is the picture's own.
    pub score_width: Option<u32>,
    /// Format of the stylized pictures.
    pub output: PixelFormat,
}

/// Size and format that all pictures of a job have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureShape {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Planes, bits and colours.
    pub format: PixelFormat,
}

impl PictureShape {
    /// Returns the shape of a picture.
    pub fn of(picture: &Picture) -> Self {
        Self { width: picture.width, height: picture.height, format: picture.format }
    }
}

/// A style on a device, used by the one thread that built it.
pub trait StyleModel: Send {
    /// Takes the memory that pictures of a shape need and returns how many of them a call digests best; at least 1.
    ///
    /// Called before the first picture, so that a device which is too full is known before there is work in hand. Pictures of
    /// another shape may follow all the same.
    ///
    /// # Errors
    /// `Options` for a score width out of range, `DeviceFull` where not even one picture fits, `DeviceLost` where the
    /// device went away.
    fn make_room(&mut self, shape: PictureShape, options: &StylizeOptions) -> Result<usize, ModelError> {
        let _ = (shape, options);
        Ok(1)
    }

    /// Stylizes pictures of equal size and format; each result has its picture's size and the format asked for.
    ///
    /// A picture's result depends on neither the others nor on threads. Blocks until all are done.
    ///
    /// # Errors
    /// `Picture` where a picture contradicts its format or differs in shape from the first, `Options` for a score
    /// width out of range, `DeviceFull` where the shape is new and does not fit, `DeviceLost` where the device went away.
    fn stylize(&mut self, pictures: &[&Picture], options: &StylizeOptions) -> Result<Vec<Picture>, ModelError>;
}

/// Builds a style on a device with at most `threads` threads, the caller's included.
///
/// Must be called on the thread that uses the model.
///
/// # Errors
/// `Device` where the device cannot be used, `Weights` where the weights do not make a network.
pub fn build(
    weights: &Arc<StyleWeights>,
    device: &DeviceChoice,
    threads: usize,
) -> Result<Box<dyn StyleModel>, ModelError> {
    build_with(weights, device, threads, None)
}

/// As [`build`]; on the CPU in reduced precision where there are ranges of a calibration that was accepted.
///
/// # Errors
/// As [`build`]; `Weights` also where the ranges are of another network.
pub fn build_with(
    weights: &Arc<StyleWeights>,
    device: &DeviceChoice,
    threads: usize,
    ranges: Option<&Ranges>,
) -> Result<Box<dyn StyleModel>, ModelError> {
    match *device {
        DeviceChoice::Cpu => build_cpu(weights, threads, ranges),
        DeviceChoice::Cuda(_) | DeviceChoice::CudaAll => build_cuda(weights, *device),
    }
}

#[cfg(feature = "cuda")]
fn build_cuda(weights: &Arc<StyleWeights>, device: DeviceChoice) -> Result<Box<dyn StyleModel>, ModelError> {
    Ok(Box::new(crate::cuda::style::CudaStyle::new(weights, device, crate::cuda::Precision::Bf16)?))
}

#[cfg(not(feature = "cuda"))]
fn build_cuda(_: &Arc<StyleWeights>, device: DeviceChoice) -> Result<Box<dyn StyleModel>, ModelError> {
    device.check()?;
    Err(ModelError::Device(format!("device {device} is not compiled in")))
}

fn build_cpu(
    weights: &Arc<StyleWeights>,
    threads: usize,
    ranges: Option<&Ranges>,
) -> Result<Box<dyn StyleModel>, ModelError> {
    Ok(Box::new(CpuStyle {
        net: TransformNet::with_ranges(weights, threads, Isa::detect(), ranges)?,
        scored: ScoredPlanes::default(),
        stylized: RgbPlanes::default(),
    }))
}

/// The transformer network on the CPU, with its planes kept between pictures.
struct CpuStyle {
    net: TransformNet,
    scored: ScoredPlanes,
    /// Raw output of the network.
    stylized: RgbPlanes,
}

/// What the network sees of pictures, with planes kept between them.
#[derive(Default)]
pub(crate) struct ScoredPlanes {
    resizer: PlaneResizer,
    /// RGB at the picture's size: before scoring, and after scoring at another width.
    picture: RgbPlanes,
    /// RGB at the size of scoring, where it is another.
    scored: RgbPlanes,
}

impl ScoredPlanes {
    /// Returns a picture as the network sees it.
    pub(crate) fn of(&mut self, picture: &Picture, score_width: Option<u32>) -> Result<&RgbPlanes, ModelError> {
        let size = (picture.width as usize, picture.height as usize);
        let scored_size = score_size(size, score_width)?;
        to_rgb(picture, &mut self.picture)?;
        if scored_size == size {
            return Ok(&self.picture);
        }
        self.scored.reshape(scored_size.0, scored_size.1);
        self.resizer.resize(&self.picture, size, &mut self.scored)?;
        Ok(&self.scored)
    }
}

impl StyleModel for CpuStyle {
    fn stylize(&mut self, pictures: &[&Picture], options: &StylizeOptions) -> Result<Vec<Picture>, ModelError> {
        options.output.validate()?;
        check_equal_shapes(pictures)?;
        pictures.iter().map(|picture| self.stylize_one(picture, options)).collect()
    }
}

impl CpuStyle {
    fn stylize_one(&mut self, picture: &Picture, options: &StylizeOptions) -> Result<Picture, ModelError> {
        let size = (picture.width as usize, picture.height as usize);
        let scored_size = score_size(size, options.score_width)?;
        self.net.forward(self.scored.of(picture, options.score_width)?, &mut self.stylized);
        if scored_size == size {
            return from_rgb(&self.stylized, options.output, picture.width, picture.height);
        }
        let ScoredPlanes { resizer, picture: restored, .. } = &mut self.scored;
        resizer.resize(&self.stylized, scored_size, restored)?;
        from_rgb(restored, options.output, picture.width, picture.height)
    }
}

/// Returns the size at which the network sees pictures of a size.
pub(crate) fn score_size(size: (usize, usize), width: Option<u32>) -> Result<(usize, usize), ModelError> {
    let Some(width) = width else { return Ok(size) };
    if !(SCORE_WIDTH_MIN..=crate::pixels::DIMENSION_MAX).contains(&width) {
        return Err(ModelError::Options(format!(
            "score width is {width}, expected {SCORE_WIDTH_MIN} to {}",
            crate::pixels::DIMENSION_MAX
        )));
    }
    let width = width as usize;
    let height = (size.1 * width + size.0 / 2) / size.0;
    if height > crate::pixels::DIMENSION_MAX as usize {
        return Err(ModelError::Options(format!(
            "score width {width} makes a {}x{} picture {height} high, at most {} are scored",
            size.0,
            size.1,
            crate::pixels::DIMENSION_MAX
        )));
    }
    Ok((width, height.max(1)))
}

pub(crate) fn check_equal_shapes(pictures: &[&Picture]) -> Result<(), ModelError> {
    let Some((first, rest)) = pictures.split_first() else { return Ok(()) };
    for (index, picture) in rest.iter().enumerate() {
        if (picture.width, picture.height, picture.format) != (first.width, first.height, first.format) {
            return Err(ModelError::Picture(format!(
                "picture {} of the batch is {}x{} {:?}, the first is {}x{} {:?}",
                index + 1,
                picture.width,
                picture.height,
                picture.format,
                first.width,
                first.height,
                first.format
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{Seeded, random_weights};
    use crate::weights::NetShape;

    fn picture(width: u32, height: u32, seed: u64) -> Picture {
        let mut random = Seeded(seed);
        let mut rgb = RgbPlanes::new(width as usize, height as usize);
        for plane in &mut rgb.planes {
            plane.iter_mut().for_each(|value| *value = 127.0 + 100.0 * random.next_f32());
        }
        from_rgb(&rgb, PixelFormat::YUV420P8, width, height).unwrap()
    }

    fn model(threads: usize) -> Box<dyn StyleModel> {
        let weights = random_weights(&NetShape { down: [4, 6, 8], blocks: 1, up: [6, 4] }, 7);
        build(&Arc::new(weights), &DeviceChoice::Cpu, threads).unwrap()
    }

    #[test]
    fn a_batch_equals_its_pictures_alone() {
        let pictures = [picture(37, 22, 1), picture(37, 22, 2), picture(37, 22, 3)];
        for score_width in [None, Some(24), Some(48)] {
            let options = StylizeOptions { score_width, output: PixelFormat::YUV420P8 };
            let together = model(2).stylize(&pictures.each_ref(), &options).unwrap();
            for (picture, result) in pictures.iter().zip(&together) {
                assert_eq!((result.width, result.height, result.format), (37, 22, PixelFormat::YUV420P8));
                assert_eq!(&model(1).stylize(&[picture], &options).unwrap()[0], result);
            }
        }
    }

    fn check_refused(pictures: &[&Picture], score_width: Option<u32>, expected: &str) {
        let options = StylizeOptions { score_width, output: PixelFormat::RGB8 };
        let message = model(1).stylize(pictures, &options).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    }

    #[test]
    fn wrong_requests_are_named() {
        check_refused(&[&picture(20, 20, 1), &picture(20, 21, 1)], None, "picture 1 of the batch is 20x21");
        check_refused(&[&picture(20, 20, 1)], Some(0), "score width is 0");
        check_refused(&[&picture(1, 3000, 1)], Some(32), "at most 32768");
        let mut broken = picture(20, 20, 1);
        broken.planes.pop();
        check_refused(&[&broken], None, "has 2 planes");
        assert!(
            model(1).stylize(&[], &StylizeOptions { score_width: None, output: PixelFormat::RGB8 }).unwrap().is_empty()
        );
    }

    #[test]
    fn score_sizes_keep_the_proportion() {
        let size = |w, h, width| score_size((w, h), width).unwrap();
        assert_eq!(size(1280, 720, Some(320)), (320, 180));
        assert_eq!(size(150, 101, Some(150)), (150, 101));
        assert_eq!(size(101, 3, Some(10)), (10, 1));
        assert_eq!(size(64, 48, None), (64, 48));
    }
}
