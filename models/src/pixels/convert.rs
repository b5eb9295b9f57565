//! Planes of integer samples to planes of f32 RGB on 0..255, and back.

// `max` and `min` are an instruction each and never give what is no number; `clamp` keeps it.
#![allow(clippy::manual_clamp)]

use super::chroma::{DownsampleFilter, upsample_row, upsample_tap};
use super::format::{Layout, PixelFormat};
use super::matrix::{CodeScale, Matrix3, planes_to_rgb, rgb_to_planes};
use super::picture::{Picture, Plane, Samples};
use crate::ModelError;

/// Three tight planes of f32 in the order red, green, blue; black is 0 and white 255.
///
/// Values outside 0..255 are allowed (networks overshoot) and clamped on the way to integers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RgbPlanes {
    /// Samples in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green and blue, `width * height` samples each.
    pub planes: [Vec<f32>; 3],
}

impl RgbPlanes {
    /// Makes planes of zeros.
    pub fn new(width: usize, height: usize) -> Self {
        let plane = || vec![0.0; width * height];
        Self { width, height, planes: [plane(), plane(), plane()] }
    }

    /// Gives the planes another size; storage is kept where it suffices, sample values are not meaningful after.
    pub fn reshape(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        for plane in &mut self.planes {
            plane.resize(width * height, 0.0);
        }
    }

    /// Returns the bytes of all samples.
    pub fn byte_len(&self) -> usize {
        self.width * self.height * 3 * size_of::<f32>()
    }
}

/// A stored sample; conversion loops are written once for bytes and words.
trait Sample: Copy {
    fn value(self) -> f32;
    /// Takes a value that is already within the sample's codes; rounds half to even.
    fn code(value: f32) -> Self;
}

/// 2^23: adding it leaves the rounded integer in the low bits of the sum, in loops that vectorise.
const ROUND_MAGIC: f32 = 8_388_608.0;

impl Sample for u8 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn code(value: f32) -> Self {
        (value + ROUND_MAGIC).to_bits() as u8
    }
}

impl Sample for u16 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn code(value: f32) -> Self {
        (value + ROUND_MAGIC).to_bits() as u16
    }
}

/// Converts a picture to RGB planes of its own size, clamped to 0..255; chroma is interpolated at its true place.
///
/// # Errors
/// `Picture` where the picture contradicts its format.
pub fn to_rgb(picture: &Picture, out: &mut RgbPlanes) -> Result<(), ModelError> {
    picture.validate()?;
    out.reshape(picture.width as usize, picture.height as usize);
    pulp::Arch::new().dispatch(Decode { picture, out });
    Ok(())
}

/// Converts the top left `width` x `height` of RGB planes to a picture of the given format.
///
/// Values are clamped to 0..255 (NaN becomes 0), chroma is filtered to its true place, codes round half to even.
///
/// # Errors
/// `Picture` where the format is inconsistent or the planes are smaller than the size asked for.
pub fn from_rgb(rgb: &RgbPlanes, format: PixelFormat, width: u32, height: u32) -> Result<Picture, ModelError> {
    let mut picture = Picture::zeroed(format, width, height)?;
    let too_small = rgb.width < width as usize || rgb.height < height as usize;
    if too_small || rgb.planes.iter().any(|plane| plane.len() != rgb.width * rgb.height) {
        return Err(ModelError::Picture(format!(
            "rgb planes of {}x{} cannot give a picture of {width}x{height}",
            rgb.width, rgb.height
        )));
    }
    pulp::Arch::new().dispatch(Encode { rgb, picture: &mut picture });
    Ok(picture)
}

/// Gives typed access to a plane's samples, so that loops are generic.
trait Storage: Sample {
    fn samples(plane: &Plane) -> &[Self];
    fn samples_mut(plane: &mut Plane) -> &mut [Self];
}

impl Storage for u8 {
    fn samples(plane: &Plane) -> &[Self] {
        match &plane.samples {
            Samples::U8(samples) => samples,
            Samples::U16(_) => unreachable!("validated storage"),
        }
    }
    fn samples_mut(plane: &mut Plane) -> &mut [Self] {
        match &mut plane.samples {
            Samples::U8(samples) => samples,
            Samples::U16(_) => unreachable!("validated storage"),
        }
    }
}

impl Storage for u16 {
    fn samples(plane: &Plane) -> &[Self] {
        match &plane.samples {
            Samples::U16(samples) => samples,
            Samples::U8(_) => unreachable!("validated storage"),
        }
    }
    fn samples_mut(plane: &mut Plane) -> &mut [Self] {
        match &mut plane.samples {
            Samples::U16(samples) => samples,
            Samples::U8(_) => unreachable!("validated storage"),
        }
    }
}

/// Work that is compiled for several instruction sets and inlined into each; a closure might not be.
struct Decode<'a> {
    picture: &'a Picture,
    out: &'a mut RgbPlanes,
}

impl pulp::NullaryFnOnce for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        match &self.picture.planes[0].samples {
            Samples::U8(_) => decode::<u8>(self.picture, self.out),
            Samples::U16(_) => decode::<u16>(self.picture, self.out),
        }
    }
}

/// As [`Decode`], the other way.
struct Encode<'a> {
    rgb: &'a RgbPlanes,
    picture: &'a mut Picture,
}

impl pulp::NullaryFnOnce for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        if self.picture.format.bits == 8 {
            encode::<u8>(self.rgb, self.picture);
        } else {
            encode::<u16>(self.rgb, self.picture);
        }
    }
}

#[inline(always)]
fn decode<S: Storage>(picture: &Picture, out: &mut RgbPlanes) {
    match picture.format.layout {
        Layout::Gray => decode_flat::<S>(picture, out, [0, 0, 0]),
        Layout::Rgb => decode_flat::<S>(picture, out, [0, 1, 2]),
        _ => decode_yuv::<S>(picture, out),
    }
}

#[inline(always)]
fn decode_flat<S: Storage>(picture: &Picture, out: &mut RgbPlanes, sources: [usize; 3]) {
    let scale = CodeScale::luma(picture.format);
    for (plane, source) in out.planes.iter_mut().zip(sources) {
        dequantize::<S>(S::samples(&picture.planes[source]), scale, plane);
        for value in plane.iter_mut() {
            *value = value.max(0.0).min(255.0);
        }
    }
}

#[inline(always)]
fn dequantize<S: Sample>(codes: &[S], scale: CodeScale, out: &mut [f32]) {
    let step = 1.0 / scale.codes_per_value;
    for (out, code) in out.iter_mut().zip(codes) {
        *out = (code.value() - scale.zero_code) * step;
    }
}

#[inline(always)]
fn decode_yuv<S: Storage>(picture: &Picture, out: &mut RgbPlanes) {
    let format = picture.format;
    let (width, height) = (out.width, out.height);
    let (across, down) = format.layout.chroma_factors();
    let (site_across, site_down) = format.site.axes();
    let (luma_scale, chroma_scale) = (CodeScale::luma(format), CodeScale::chroma(format));
    let matrix = planes_to_rgb(format.matrix);
    let chroma_width = picture.planes[1].width as usize;
    let chroma_height = picture.planes[1].height as usize;

    let mut luma = vec![0.0; width];
    let mut narrow = vec![0.0; chroma_width];
    let mut chroma = [vec![0.0; width], vec![0.0; width]];
    for y in 0..height {
        dequantize::<S>(&S::samples(&picture.planes[0])[y * width..][..width], luma_scale, &mut luma);
        let tap = upsample_tap(y, chroma_height, down, site_down);
        for (plane, wide) in picture.planes[1..].iter().zip(&mut chroma) {
            let samples = S::samples(plane);
            let first = &samples[tap.first * chroma_width..][..chroma_width];
            let second = &samples[tap.second * chroma_width..][..chroma_width];
            blend_rows(first, second, tap.weight, chroma_scale, &mut narrow);
            upsample_row(&narrow, wide, across, site_across);
        }
        let [red, green, blue] = &mut out.planes;
        let at = y * width..(y + 1) * width;
        let rgb = [&mut red[at.clone()], &mut green[at.clone()], &mut blue[at]];
        mix_row(&matrix, [&luma, &chroma[0], &chroma[1]], rgb);
    }
}

#[inline(always)]
fn blend_rows<S: Sample>(first: &[S], second: &[S], weight: f32, scale: CodeScale, out: &mut [f32]) {
    let step = 1.0 / scale.codes_per_value;
    for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
        let (first, second) = (first.value(), second.value());
        *out = (first + (second - first) * weight - scale.zero_code) * step;
    }
}

/// Multiplies a row of triples by the matrix and clamps to 0..255.
#[inline(always)]
fn mix_row(matrix: &Matrix3, from: [&[f32]; 3], to: [&mut [f32]; 3]) {
    for (row, out) in matrix.iter().zip(to) {
        let inputs = from[0].iter().zip(from[1]).zip(from[2]);
        for (out, ((a, b), c)) in out.iter_mut().zip(inputs) {
            *out = (row[0] * a + row[1] * b + row[2] * c).max(0.0).min(255.0);
        }
    }
}

#[inline(always)]
fn encode<S: Storage>(rgb: &RgbPlanes, picture: &mut Picture) {
    let format = picture.format;
    let luma_scale = CodeScale::luma(format);
    match format.layout {
        Layout::Rgb => {
            for (index, plane) in picture.planes.iter_mut().enumerate() {
                let mut row = [0.0; 3];
                row[index] = 1.0;
                encode_luma::<S>(rgb, row, luma_scale, plane);
            }
        }
        Layout::Gray => {
            let matrix = match format.matrix {
                super::ColorMatrix::Rgb => super::ColorMatrix::Bt601,
                other => other,
            };
            encode_luma::<S>(rgb, rgb_to_planes(matrix)[0], luma_scale, &mut picture.planes[0]);
        }
        _ => {
            let matrix = rgb_to_planes(format.matrix);
            let (width, height) = (picture.width as usize, picture.height as usize);
            encode_luma::<S>(rgb, matrix[0], luma_scale, &mut picture.planes[0]);
            for (plane, row) in picture.planes[1..].iter_mut().zip(&matrix[1..]) {
                encode_chroma::<S>(rgb, *row, format, (width, height), plane);
            }
        }
    }
}

/// Weighs one row of RGB, each clamped to 0..255 first (NaN becomes 0).
#[inline(always)]
fn weigh_row(rgb: &RgbPlanes, weights: [f32; 3], y: usize, out: &mut [f32]) {
    let at = y * rgb.width;
    let rows = rgb.planes.each_ref().map(|plane| &plane[at..][..out.len()]);
    let clamp = |value: f32| value.max(0.0).min(255.0);
    for (out, ((r, g), b)) in out.iter_mut().zip(rows[0].iter().zip(rows[1]).zip(rows[2])) {
        *out = clamp(*r) * weights[0] + clamp(*g) * weights[1] + clamp(*b) * weights[2];
    }
}

#[inline(always)]
fn quantize<S: Sample>(values: &[f32], scale: CodeScale, out: &mut [S]) {
    for (out, value) in out.iter_mut().zip(values) {
        let code = value * scale.codes_per_value + scale.zero_code;
        *out = S::code(code.max(0.0).min(scale.code_max));
    }
}

#[inline(always)]
fn encode_luma<S: Storage>(rgb: &RgbPlanes, weights: [f32; 3], scale: CodeScale, plane: &mut Plane) {
    let width = plane.width as usize;
    let mut row = vec![0.0; width];
    for (y, out) in S::samples_mut(plane).chunks_exact_mut(width).enumerate() {
        weigh_row(rgb, weights, y, &mut row);
        quantize(&row, scale, out);
    }
}

#[inline(always)]
fn encode_chroma<S: Storage>(
    rgb: &RgbPlanes,
    weights: [f32; 3],
    format: PixelFormat,
    (width, height): (usize, usize),
    plane: &mut Plane,
) {
    let (across, down) = format.layout.chroma_factors();
    let (site_across, site_down) = format.site.axes();
    let columns = DownsampleFilter::new(across, site_across);
    let rows = DownsampleFilter::new(down, site_down);
    let scale = CodeScale::chroma(format);
    let chroma_width = plane.width as usize;
    let mut wide = vec![0.0; width];
    let mut narrow = vec![0.0; chroma_width];
    for (y, out) in S::samples_mut(plane).chunks_exact_mut(chroma_width).enumerate() {
        narrow.fill(0.0);
        for (luma_y, weight) in rows.taps(y, height) {
            weigh_row(rgb, weights, luma_y, &mut wide);
            columns.accumulate_row(&wide, weight, &mut narrow);
        }
        quantize(&narrow, scale, out);
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
