//! Tests of the conversions: known colours, round trips in every layout and depth, clamping.

use super::*;
use crate::pixels::{ChromaSite, ColorMatrix, ColorRange};
use proptest::prelude::*;

const LAYOUTS: [Layout; 8] = [
    Layout::Gray,
    Layout::Yuv420,
    Layout::Yuv422,
    Layout::Yuv444,
    Layout::Yuv440,
    Layout::Yuv411,
    Layout::Yuv410,
    Layout::Rgb,
];
const MATRICES: [ColorMatrix; 6] = [
    ColorMatrix::Bt601,
    ColorMatrix::Bt709,
    ColorMatrix::Bt2020Ncl,
    ColorMatrix::Smpte240m,
    ColorMatrix::Fcc,
    ColorMatrix::YCgCo,
];
const SITES: [ChromaSite; 6] = [
    ChromaSite::Left,
    ChromaSite::Center,
    ChromaSite::TopLeft,
    ChromaSite::Top,
    ChromaSite::BottomLeft,
    ChromaSite::Bottom,
];

fn format(layout: Layout, bits: u8, range: ColorRange, matrix: ColorMatrix, site: ChromaSite) -> PixelFormat {
    let matrix = if layout == Layout::Rgb { ColorMatrix::Rgb } else { matrix };
    PixelFormat { layout, bits, range, matrix, site }
}

fn codes(picture: &Picture, plane: usize) -> Vec<u16> {
    match &picture.planes[plane].samples {
        Samples::U8(samples) => samples.iter().map(|&s| u16::from(s)).collect(),
        Samples::U16(samples) => samples.clone(),
    }
}

fn flat_rgb(width: usize, height: usize, colour: [f32; 3]) -> RgbPlanes {
    let planes = colour.map(|value| vec![value; width * height]);
    RgbPlanes { width, height, planes }
}

fn check_flat(format: PixelFormat, colour: [f32; 3], expected: &[u16]) {
    let picture = from_rgb(&flat_rgb(9, 5, colour), format, 9, 5).unwrap();
    for (plane, &expected) in expected.iter().enumerate() {
        let codes = codes(&picture, plane);
        assert!(codes.iter().all(|&code| code == expected), "{format:?} plane {plane}: {codes:?}, expected {expected}");
    }
}

#[test]
fn known_colours_have_their_codes() {
    use ColorRange::{Full, Limited};
    let yuv = |bits, range, matrix| format(Layout::Yuv420, bits, range, matrix, ChromaSite::Left);
    let red = [255.0, 0.0, 0.0];
    check_flat(yuv(8, Limited, ColorMatrix::Bt601), red, &[81, 90, 240]);
    check_flat(yuv(8, Limited, ColorMatrix::Bt709), red, &[63, 102, 240]);
    check_flat(yuv(10, Limited, ColorMatrix::Bt709), red, &[250, 409, 960]);
    check_flat(yuv(8, Full, ColorMatrix::Bt601), red, &[76, 85, 255]);
    check_flat(yuv(8, Limited, ColorMatrix::Bt709), [255.0; 3], &[235, 128, 128]);
    check_flat(yuv(10, Limited, ColorMatrix::Bt2020Ncl), [255.0; 3], &[940, 512, 512]);
    check_flat(yuv(12, Full, ColorMatrix::Bt2020Ncl), [255.0; 3], &[4095, 2048, 2048]);
    check_flat(yuv(8, Limited, ColorMatrix::Bt709), [0.0; 3], &[16, 128, 128]);
    let rgb16 = format(Layout::Rgb, 16, Full, ColorMatrix::Rgb, ChromaSite::Center);
    check_flat(rgb16, [255.0, 0.0, 127.5], &[65535, 0, 32768]);
    check_flat(PixelFormat::RGB8, [1.5, 2.5, 254.4], &[2, 2, 254]);
}

#[test]
fn overshoot_and_nan_are_clamped() {
    check_flat(PixelFormat::RGB8, [-40.0, 300.0, f32::NAN], &[0, 255, 0]);
    check_flat(PixelFormat::YUV420P8, [-500.0, -1.0, f32::NEG_INFINITY], &[16, 128, 128]);
    check_flat(PixelFormat::YUV420P8, [f32::INFINITY, 1e30, 900.0], &[235, 128, 128]);
}

#[test]
fn codes_outside_the_range_are_clamped_to_black_and_white() {
    let mut picture = Picture::zeroed(PixelFormat::YUV420P8, 2, 1).unwrap();
    picture.planes[0].samples = Samples::U8(vec![0, 255]);
    picture.planes[1].samples = Samples::U8(vec![128]);
    picture.planes[2].samples = Samples::U8(vec![128]);
    let mut rgb = RgbPlanes::default();
    to_rgb(&picture, &mut rgb).unwrap();
    for plane in &rgb.planes {
        assert_eq!(plane, &[0.0, 255.0]);
    }
}

#[test]
fn planes_too_small_are_refused() {
    let error = from_rgb(&RgbPlanes::new(4, 4), PixelFormat::RGB8, 5, 4).unwrap_err();
    assert_eq!(error.to_string(), "rgb planes of 4x4 cannot give a picture of 5x4");
}

#[test]
fn the_crop_is_at_the_top_left() {
    let mut rgb = RgbPlanes::new(4, 3);
    for plane in &mut rgb.planes {
        for (index, value) in plane.iter_mut().enumerate() {
            *value = index as f32;
        }
    }
    let picture = from_rgb(&rgb, PixelFormat::RGB8, 3, 2).unwrap();
    assert_eq!(codes(&picture, 1), [0, 1, 2, 4, 5, 6]);
}

fn any_format() -> impl Strategy<Value = PixelFormat> {
    let range = prop::sample::select(vec![ColorRange::Limited, ColorRange::Full]);
    (
        prop::sample::select(LAYOUTS.to_vec()),
        8u8..=16,
        range,
        prop::sample::select(MATRICES.to_vec()),
        prop::sample::select(SITES.to_vec()),
    )
        .prop_map(|(layout, bits, range, matrix, site)| format(layout, bits, range, matrix, site))
}

proptest! {
    /// A picture of slow gradients survives the way to integers and back within rounding and chroma filtering.
    #[test]
    fn smooth_pictures_survive_the_round_trip(
        format in any_format(),
        width in 1usize..40,
        height in 1usize..24,
        base in 70.0f32..180.0,
    ) {
        let mut rgb = RgbPlanes::new(width, height);
        for y in 0..height {
            for x in 0..width {
                let (x, y, at) = (x as f32, y as f32, y * width + x);
                let grey = format.layout == Layout::Gray;
                rgb.planes[0][at] = base + 0.5 * x;
                rgb.planes[1][at] = if grey { base + 0.5 * x } else { base + 0.25 * y };
                rgb.planes[2][at] = if grey { base + 0.5 * x } else { base - 0.25 * x };
            }
        }
        let picture = from_rgb(&rgb, format, width as u32, height as u32).unwrap();
        picture.validate().unwrap();
        let mut back = RgbPlanes::default();
        to_rgb(&picture, &mut back).unwrap();
        // Rounding of codes at 8 bits, and at the borders half the chroma group's gradient.
        let tolerance = if format.layout.is_yuv() { 2.5 } else { 0.6 } + 1.9 * f32::from(u8::from(format.layout.chroma_factors().0 == 4));
        for (plane, expected) in back.planes.iter().zip(&rgb.planes) {
            for (value, expected) in plane.iter().zip(expected) {
                prop_assert!((value - expected).abs() <= tolerance, "{value} came, {expected} went in");
            }
        }
    }

    /// At full chroma resolution, codes made from RGB give the same codes again.
    #[test]
    fn full_resolution_codes_are_a_fixed_point(
        bits in 8u8..=16,
        full in any::<bool>(),
        matrix in prop::sample::select(MATRICES.to_vec()),
        colours in prop::collection::vec(prop::array::uniform3(0.0f32..255.0), 1..30),
    ) {
        let range = if full { ColorRange::Full } else { ColorRange::Limited };
        let format = format(Layout::Yuv444, bits, range, matrix, ChromaSite::Left);
        let mut rgb = RgbPlanes::new(colours.len(), 1);
        for (x, colour) in colours.iter().enumerate() {
            for (plane, value) in rgb.planes.iter_mut().zip(colour) {
                // Away from the gamut's edge, where clamping of the interpolated colour would move a code.
                plane[x] = 8.0 + value * (239.0 / 255.0);
            }
        }
        let picture = from_rgb(&rgb, format, colours.len() as u32, 1).unwrap();
        let mut back = RgbPlanes::default();
        to_rgb(&picture, &mut back).unwrap();
        let again = from_rgb(&back, format, colours.len() as u32, 1).unwrap();
        for plane in 0..3 {
            for (a, b) in codes(&picture, plane).iter().zip(codes(&again, plane)) {
                prop_assert!(a.abs_diff(b) <= u16::from(bits > 14), "{a} became {b} at {bits} bits");
            }
        }
    }
}
