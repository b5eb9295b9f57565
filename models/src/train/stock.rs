//! The operations of training composed of candle's own, for devices that the custom operations do not know.
//!
//! They compute what [`conv`](super::conv), [`norm`](super::norm), [`pool`](super::pool), [`upsample`](super::upsample),
//! [`moments`](super::moments) and [`gram`](crate::loss::gram) do, with sums in another order, and pass gradients to the same
//! inputs. Only operations of candle 0.11.1 are used that are right in both directions and on a card: its max-pool and nearest
//! upsampling return wrong gradients, its bilinear upsampling none, its ReLU passes them at zero, and its convolution of stride 2
//! needs sides without a rest.

use std::cell::Cell;

use candle_core::{Device, Result, Tensor};

use super::conv::{ConvSpec, Geometry};
use super::norm::EPSILON;
use crate::any_style::{FAR, NEAR, VARIANCE_MIN, neighbours};

/// Values that candle's convolution may unfold its input to: it counts them in 32 bits without a check, and they take 1 GiB.
const UNFOLDED_MAX: usize = 1 << 28;

thread_local! {
    static EVERYWHERE: Cell<bool> = const { Cell::new(false) };
}

/// Whether operations on tensors of `device` are composed here.
pub(crate) fn serves(device: &Device) -> bool {
    !device.is_cpu() || EVERYWHERE.get()
}

/// Runs `f` with every operation composed here, on the processor too: so a training on a card can be checked without one.
pub fn everywhere<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            EVERYWHERE.set(self.0);
        }
    }
    let _restore = Restore(EVERYWHERE.replace(true));
    f()
}

/// Convolves as [`convolve`](super::conv::convolve) does.
///
/// Frozen weights get no gradient, but candle computes it all the same.
///
/// # Errors
/// When shapes disagree, a side is not larger than the padding, or tensors lie on different devices.
pub fn convolve(input: &Tensor, weight: &Tensor, bias: &Tensor, spec: ConvSpec) -> Result<Tensor> {
    convolve_in_bands(input, weight, bias, spec, UNFOLDED_MAX)
}

/// The same in bands of output rows whose inputs unfold to at most `unfolded_max` values, or a row's.
///
/// # Errors
/// As [`convolve`].
pub fn convolve_in_bands(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    spec: ConvSpec,
    unfolded_max: usize,
) -> Result<Tensor> {
    let shape = Geometry::new(input.shape(), weight.shape(), spec)?;
    let input = wanted(input, spec.input_gradient).contiguous()?;
    let (weight, bias) = (wanted(weight, spec.weight_gradient), wanted(bias, spec.weight_gradient));
    let padded = select(&select(&input, &shape.rows, 2)?, &shape.columns, 3)?;
    // Without a rest: candle's gradient takes the rest of the rows for that of the columns.
    let padded = padded.narrow(3, 0, (shape.out_width - 1) * shape.stride + shape.kernel)?;
    let unfolded_row = shape.batch * shape.out_width * shape.inputs * shape.kernel * shape.kernel;
    let rows = (unfolded_max / unfolded_row.max(1)).clamp(1, shape.out_height);
    let band = |top: usize| {
        let rows = rows.min(shape.out_height - top);
        let band = padded.narrow(2, top * shape.stride, (rows - 1) * shape.stride + shape.kernel)?;
        band.conv2d(&weight, 0, shape.stride, 1, 1)
    };
    let bands = (0..shape.out_height).step_by(rows).map(band).collect::<Result<Vec<_>>>()?;
    let out = Tensor::cat(&bands, 2)?.broadcast_add(&bias.reshape((1, shape.outputs, 1, 1))?)?;
    if spec.relu { rectify(&out) } else { Ok(out) }
}

/// Normalises as [`normalize`](super::norm::normalize) does.
///
/// # Errors
/// When shapes disagree or tensors lie on different devices.
pub fn normalize(input: &Tensor, gamma: &Tensor, beta: &Tensor, relu: bool) -> Result<Tensor> {
    let (batch, channels, height, width) = input.dims4()?;
    let planes = input.contiguous()?.reshape((batch, channels, height * width))?;
    let centred = planes.broadcast_sub(&planes.mean_keepdim(2)?)?;
    let deviation = centred.sqr()?.mean_keepdim(2)?.affine(1.0, f64::from(EPSILON))?.sqrt()?;
    let normal = centred.broadcast_div(&deviation)?;
    let scaled = normal.broadcast_mul(&gamma.reshape((1, channels, 1))?)?;
    let out = scaled.broadcast_add(&beta.reshape((1, channels, 1))?)?.reshape((batch, channels, height, width))?;
    if relu { rectify(&out) } else { Ok(out) }
}

/// Pools as [`max_pool`](super::pool::max_pool) does.
///
/// # Errors
/// When the tensor has not four dimensions.
pub fn max_pool(input: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = input.dims4()?;
    let (height, width) = (height / 2, width / 2);
    let even = input.narrow(2, 0, 2 * height)?.narrow(3, 0, 2 * width)?.contiguous()?;
    let blocks = even.reshape((batch * channels, height, 2, width, 2))?;
    let corner = |row: usize, column: usize| blocks.narrow(2, row, 1)?.narrow(4, column, 1);
    let top = first_largest(&corner(0, 0)?, &corner(0, 1)?)?;
    let bottom = first_largest(&corner(1, 0)?, &corner(1, 1)?)?;
    first_largest(&top, &bottom)?.reshape((batch, channels, height, width))
}

/// Enlarges as [`upsample`](super::upsample::upsample) does.
///
/// # Errors
/// When the tensor has not four dimensions.
pub fn upsample(input: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = input.dims4()?;
    enlarge(&enlarge(&input.contiguous()?, height, 2)?, width, 3)
}

/// Measures as [`moments`](super::moments::moments) does.
///
/// # Errors
/// When the batch is not one.
pub fn moments(features: &Tensor) -> Result<Tensor> {
    let planes = sample_planes(features)?;
    let (channels, pixels) = planes.dims2()?;
    let mean = planes.mean_keepdim(1)?;
    let squares = planes.broadcast_sub(&mean)?.sqr()?.sum_keepdim(1)?;
    let degrees = pixels.saturating_sub(1).max(1) as f64;
    let deviation = squares.affine(1.0 / degrees, VARIANCE_MIN)?.sqrt()?;
    Tensor::cat(&[mean.reshape((1, channels))?, deviation.reshape((1, channels))?], 0)
}

/// Multiplies as [`gram`](crate::loss::gram) does.
///
/// # Errors
/// When the batch is not one.
pub fn gram(features: &Tensor) -> Result<Tensor> {
    let planes = sample_planes(features)?;
    let pixels = planes.dim(1)?;
    planes.matmul(&planes.t()?)?.affine(1.0 / pixels as f64, 0.0)
}

/// The planes (C, HW) of one sample (1, C, H, W).
fn sample_planes(features: &Tensor) -> Result<Tensor> {
    match features.dims4()? {
        (1, channels, height, width) => features.contiguous()?.reshape((channels, height * width)),
        (batch, ..) => candle_core::bail!("expected features of one sample, got {batch}"),
    }
}

/// The tensor, or its values alone where no gradient is wanted.
fn wanted(tensor: &Tensor, gradient: bool) -> Tensor {
    if gradient { tensor.clone() } else { tensor.detach() }
}

/// ReLU that, as the custom operations', passes no gradient where the value is zero.
fn rectify(values: &Tensor) -> Result<Tensor> {
    let zeros = values.zeros_like()?;
    values.gt(&zeros)?.where_cond(values, &zeros)
}

/// The larger of each two values; of equal ones the first takes the gradient.
fn first_largest(first: &Tensor, second: &Tensor) -> Result<Tensor> {
    first.ge(second)?.where_cond(first, second)
}

/// Samples at these places along `dim` of a contiguous tensor.
fn select(values: &Tensor, places: &[usize], dim: usize) -> Result<Tensor> {
    if places.len() == values.dim(dim)? && places.iter().enumerate().all(|(at, &place)| at == place) {
        return Ok(values.clone());
    }
    let places: Vec<u32> = places.iter().map(|&place| place as u32).collect();
    values.index_select(&Tensor::new(places, values.device())?, dim)
}

/// Twice the size along `dim`, between the two nearest samples.
fn enlarge(values: &Tensor, size: usize, dim: usize) -> Result<Tensor> {
    let (near, far): (Vec<usize>, Vec<usize>) = (0..2 * size).map(|at| neighbours(at, size)).unzip();
    let near = select(values, &near, dim)?.affine(f64::from(NEAR), 0.0)?;
    near + select(values, &far, dim)?.affine(f64::from(FAR), 0.0)?
}
