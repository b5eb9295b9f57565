//! Losses of style training: Gram matrices, content, total variation, range and steadiness (Johnson et al. 2016, section 3;
//! the style and content terms are relative to the target's own size, so that weights carry over between paintings).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use crate::train::buffer::{floats, tensor, with_floats};
use crate::train::stock;
use crate::train::tap::{PackedWeights, TapGrid, accumulate_weight_gradient, correlate};

/// Gram matrix (C, C) of one sample's features (1, C, H, W): `F Fᵀ / HW`.
///
/// # Errors
/// When the batch is not one, or the tensor is not f32.
pub fn gram(features: &Tensor) -> Result<Tensor> {
    if stock::serves(features.device()) {
        return stock::gram(features);
    }
    features.contiguous()?.apply_op1(Gram)
}

/// Relative distance of two Gram matrices or other summaries: `|G - T|² / |T|²`, T being constant.
///
/// # Errors
/// When shapes disagree.
pub fn relative_distance(value: &Tensor, target: &Tensor) -> Result<Tensor> {
    let scale = energy(target)?.max(f32::MIN_POSITIVE);
    (value - target)?.sqr()?.sum_all()?.affine(1.0 / f64::from(scale), 0.0)
}

/// Style term of one painting: weighted relative distances of the Gram matrices, over their number.
///
/// # Errors
/// When a level's shapes disagree.
pub fn style_loss(features: &[Tensor], targets: &[Tensor], weights: &[f64]) -> Result<Tensor> {
    let grams = features.iter().map(gram).collect::<Result<Vec<_>>>()?;
    mean_distance(&grams, targets, weights)
}

/// Weighted relative distances of what a style term compares at each feature level, over their number.
///
/// # Errors
/// When a level's shapes disagree, or there is none.
pub fn mean_distance(values: &[Tensor], targets: &[Tensor], weights: &[f64]) -> Result<Tensor> {
    let mut total: Option<Tensor> = None;
    for ((value, target), weight) in values.iter().zip(targets).zip(weights) {
        let term = relative_distance(value, target)?.affine(*weight, 0.0)?;
        total = Some(match total {
            None => term,
            Some(total) => (total + term)?,
        });
    }
    match total {
        Some(total) => total.affine(1.0 / values.len() as f64, 0.0),
        None => candle_core::bail!("style loss needs at least one feature level"),
    }
}

/// Content term: `|F - T|² / max(|T|², floor)`, T being constant.
///
/// The floor (a typical `|T|²`) keeps a nearly flat picture, whose features are small, from outweighing all others.
///
/// # Errors
/// When shapes disagree.
pub fn content_loss(features: &Tensor, target: &Tensor, floor: f32) -> Result<Tensor> {
    let scale = energy(target)?.max(floor).max(f32::MIN_POSITIVE);
    (features - target)?.sqr()?.sum_all()?.affine(1.0 / f64::from(scale), 0.0)
}

/// Sum of squares.
///
/// # Errors
/// Never for f32 tensors.
pub fn energy(values: &Tensor) -> Result<f32> {
    values.sqr()?.sum_all()?.to_scalar::<f32>()
}

/// Total variation: mean squared difference of neighbours, down plus across, of (N, C, H, W).
///
/// # Errors
/// When a side is below two.
pub fn total_variation(pictures: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = pictures.dims4()?;
    let down = (pictures.narrow(2, 1, height - 1)? - pictures.narrow(2, 0, height - 1)?)?;
    let across = (pictures.narrow(3, 1, width - 1)? - pictures.narrow(3, 0, width - 1)?)?;
    down.sqr()?.mean_all()? + across.sqr()?.mean_all()?
}

/// Range term: mean square of what leaves 0..1.
///
/// # Errors
/// Never for f32 tensors.
pub fn range_excess(pictures: &Tensor) -> Result<Tensor> {
    (pictures - pictures.clamp(0.0_f32, 1.0_f32)?.detach())?.sqr()?.mean_all()
}

/// Steadiness term: mean squared difference of where two pictures of a moved view show the same.
///
/// `first` and `second` are (1, C, H, W); pixel (y, x) of `second` shows what (y + dy, x + dx) of `first` does.
///
/// # Errors
/// When the shift leaves no overlap.
pub fn steadiness_loss(first: &Tensor, second: &Tensor, (dy, dx): (i32, i32)) -> Result<Tensor> {
    overlap(first, (dy, dx))?.sub(&overlap(second, (-dy, -dx))?)?.sqr()?.mean_all()
}

fn overlap(picture: &Tensor, (dy, dx): (i32, i32)) -> Result<Tensor> {
    let (_, _, height, width) = picture.dims4()?;
    let (rows, columns) = (dy.unsigned_abs() as usize, dx.unsigned_abs() as usize);
    if rows >= height || columns >= width {
        candle_core::bail!("a shift of {dy} by {dx} leaves nothing of {height} by {width}");
    }
    picture.narrow(2, dy.max(0) as usize, height - rows)?.narrow(3, dx.max(0) as usize, width - columns)
}

#[derive(Debug)]
struct Gram;

fn grid(channels: usize, height: usize, width: usize) -> TapGrid {
    let bases = (0..channels).map(|channel| channel * height * width).collect();
    TapGrid { bases, run: 1, row_stride: width, height, width }
}

fn single(shape: &Shape) -> Result<(usize, usize, usize)> {
    match shape.dims4()? {
        (1, channels, height, width) => Ok((channels, height, width)),
        _ => candle_core::bail!("gram matrix of one sample, got {shape:?}"),
    }
}

impl CustomOp1 for Gram {
    fn name(&self) -> &'static str {
        "gram"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (channels, height, width) = single(layout.shape())?;
        let features = floats(storage, layout)?;
        let mut out = vec![0.0; channels * channels];
        accumulate_weight_gradient(features, &grid(channels, height, width), features, channels, &mut out);
        let scale = 1.0 / (height * width) as f32;
        out.iter_mut().for_each(|value| *value *= scale);
        Ok((CpuStorage::F32(out), (channels, channels).into()))
    }

    fn bwd(&self, features: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (channels, height, width) = single(features.shape())?;
        let scale = 1.0 / (height * width) as f32;
        let mut slopes = vec![0.0; features.elem_count()];
        with_floats(gradient, |gradient| {
            let weights = PackedWeights::pack(channels, channels, |tap, channel| {
                (gradient[tap * channels + channel] + gradient[channel * channels + tap]) * scale
            });
            with_floats(features, |features| {
                correlate(features, &grid(channels, height, width), &weights, None, false, &mut slopes);
                Ok(())
            })
        })?;
        Ok(Some(tensor(slopes, features.shape())?))
    }
}
