//! Kernels and programs against the CPU path, on shapes small enough for fibers.

use super::{Emulator, compiler};
use crate::DeviceChoice;
use crate::cuda::frames::{Framed, Job};
use crate::cuda::network::{Network, Size};
use crate::cuda::pack::Precision;
use crate::cuda::program::Program;
use crate::pixels::{ChromaSite, ColorMatrix, ColorRange, Layout, Picture, PixelFormat, RgbPlanes, Samples, from_rgb};
use crate::style::{StylizeOptions, build};
use crate::testkit::{Seeded, random_weights};
use crate::transform_net::TransformNet;
use crate::weights::{NetShape, StyleWeights};
use std::sync::Arc;

fn random_rgb(seed: u64, width: usize, height: usize) -> RgbPlanes {
    let mut random = Seeded(seed);
    let mut plane = || random.values(width * height).iter().map(|v| 127.5 + 127.5 * v).collect();
    RgbPlanes { width, height, planes: [plane(), plane(), plane()] }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
}

/// Runs the network alone on several pictures and returns the raw planes of all.
fn by_emulator(compiler: &str, weights: &StyleWeights, precision: Precision, pictures: &[RgbPlanes]) -> Vec<f32> {
    let network = Network::pack(weights, precision).unwrap();
    let size = Size { images: pictures.len(), height: pictures[0].height, width: pictures[0].width };
    let (width, height) = TransformNet::output_size(size.width, size.height);
    let mut program = Program::default();
    let rgb = program.reserve(size.images * 3 * size.width * size.height * 4);
    let out = program.reserve(size.images * 3 * width * height * 4);
    let given = network.forward(&mut program, size, rgb, out);
    assert_eq!((given.width, given.height), (width, height));
    let bytes = pictures.iter().flat_map(|p| p.planes.concat()).flat_map(f32::to_le_bytes).collect();
    let emulator = Emulator::compile(compiler, &program);
    floats(&emulator.run(&program, network.constants(), &[(rgb, bytes)], &[out])[0])
}

fn by_processor(weights: &StyleWeights, pictures: &[RgbPlanes]) -> Vec<f32> {
    let mut net = TransformNet::new(weights, 1).unwrap();
    let mut out = RgbPlanes::default();
    let mut planes = |rgb| {
        net.forward(rgb, &mut out);
        out.planes.concat()
    };
    pictures.iter().flat_map(&mut planes).collect()
}

fn rms(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0f64, 0), |(sum, count), v| (sum + f64::from(v * v), count + 1));
    (sum / f64::from(count)).sqrt() as f32
}

/// Checks that the error is at most `share` of the values, root mean square over root mean square.
fn assert_near(what: &str, found: &[f32], expected: &[f32], share: f32) {
    assert_eq!(found.len(), expected.len());
    let error = rms(found.iter().zip(expected).map(|(a, b)| a - b)) / rms(expected.iter().copied());
    println!("{what}: error {error:.2e} of the values");
    assert!(error <= share, "{what}: error is {error} of the values, at most {share} is allowed");
}

fn check_network(shape: NetShape, width: usize, height: usize) {
    let Some(compiler) = compiler() else { return };
    let weights = random_weights(&shape, 5);
    let pictures = [random_rgb(1, width, height), random_rgb(2, width, height)];
    let expected = by_processor(&weights, &pictures);
    let reference = by_emulator(&compiler, &weights, Precision::F32, &pictures);
    assert_near("f32", &reference, &expected, 2e-5);
    let tensor = by_emulator(&compiler, &weights, Precision::Bf16, &pictures);
    assert_near("bf16", &tensor, &expected, 0.03);
    let plain = by_emulator(&compiler, &weights, Precision::PlainBf16, &pictures);
    assert_near("bf16 on tensor cores and plain", &tensor, &plain, 0.01);
}

#[test]
fn narrow_networks_with_padded_channels_equal_the_processor() {
    check_network(NetShape { down: [6, 11, 20], blocks: 2, up: [9, 5] }, 37, 22);
}

#[test]
fn the_published_widths_equal_the_processor() {
    check_network(NetShape { down: [32, 64, 128], blocks: 1, up: [64, 32] }, 21, 13);
}

#[test]
fn several_tiles_of_channels_and_no_block_equal_the_processor() {
    check_network(NetShape { down: [4, 40, 136], blocks: 0, up: [24, 8] }, 18, 17);
}

#[test]
fn tiles_that_end_inside_a_row_and_overlap_equal_the_processor() {
    // Wider than a tile of the last layer, and more pixels than a tile of any layer.
    check_network(NetShape { down: [4, 4, 4], blocks: 1, up: [4, 4] }, 257, 9);
}

#[test]
fn the_smallest_pictures_equal_the_processor() {
    let Some(compiler) = compiler() else { return };
    let weights = random_weights(&NetShape { down: [4, 4, 4], blocks: 1, up: [4, 4] }, 5);
    for (width, height) in [(1, 1), (2, 5)] {
        let pictures = [random_rgb(3, width, height)];
        let found = by_emulator(&compiler, &weights, Precision::F32, &pictures);
        let expected = by_processor(&weights, &pictures);
        // A norm over one pixel divides by almost nothing: what is left is its shift.
        assert_near("a few pixels", &found, &expected, 2e-3);
    }
}

#[test]
fn a_picture_does_not_depend_on_its_neighbours_in_the_batch() {
    let Some(compiler) = compiler() else { return };
    let weights = random_weights(&NetShape { down: [8, 8, 16], blocks: 1, up: [8, 8] }, 5);
    let pictures = [random_rgb(1, 30, 14), random_rgb(2, 30, 14), random_rgb(3, 30, 14)];
    let together = by_emulator(&compiler, &weights, Precision::Bf16, &pictures);
    let alone = by_emulator(&compiler, &weights, Precision::Bf16, &pictures[1..2]);
    assert!(together[alone.len()..2 * alone.len()] == alone, "the same bits");
}

fn codes(picture: &Picture) -> Vec<i32> {
    let of = |samples: &Samples| match samples {
        Samples::U8(samples) => samples.iter().map(|&v| i32::from(v)).collect::<Vec<_>>(),
        Samples::U16(samples) => samples.iter().map(|&v| i32::from(v)).collect(),
    };
    picture.planes.iter().flat_map(|plane| of(&plane.samples)).collect()
}

fn bytes(picture: &Picture) -> Vec<u8> {
    let of = |samples: &Samples| match samples {
        Samples::U8(samples) => samples.clone(),
        Samples::U16(samples) => samples.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    picture.planes.iter().flat_map(|plane| of(&plane.samples)).collect()
}

/// Pictures through a whole program against the CPU's model: at most one code apart.
fn check_frames(input: PixelFormat, output: PixelFormat, score_width: Option<u32>) {
    let Some(compiler) = compiler() else { return };
    let (width, height) = (37u32, 19u32);
    let shape = NetShape { down: [4, 4, 4], blocks: 0, up: [4, 4] };
    let weights = Arc::new(random_weights(&shape, 9));
    let picture = |seed| from_rgb(&random_rgb(seed, width as usize, height as usize), input, width, height).unwrap();
    let pictures = [picture(1), picture(2)];
    let options = StylizeOptions { score_width, output };
    let expected = build(&weights, &DeviceChoice::Cpu, 1).unwrap().stylize(&pictures.each_ref(), &options).unwrap();

    let network = Network::pack(&weights, Precision::F32).unwrap();
    let scored = crate::style::score_size((width as usize, height as usize), score_width).unwrap();
    let framed = Framed::plan(&network, &Job { images: 2, width, height, scored, input, output });
    let given = pictures.iter().flat_map(bytes).collect();
    let emulator = Emulator::compile(&compiler, &framed.program);
    let results = emulator.run(&framed.program, network.constants(), &[(framed.input, given)], &[framed.output]);
    let found: Vec<i32> = match output.sample_bytes() {
        1 => results[0].iter().map(|&v| i32::from(v)).collect(),
        _ => results[0].as_chunks::<2>().0.iter().map(|&v| i32::from(u16::from_le_bytes(v))).collect(),
    };
    let expected: Vec<i32> = expected.iter().flat_map(codes).collect();
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).max().unwrap();
    // A code of 16 bits is a 257th of a code of 8.
    let allowed = 1 << (output.bits - 8).saturating_sub(2);
    assert!(worst <= allowed, "{input:?} to {output:?}, width {score_width:?}: {worst} codes apart");
}

fn yuv(layout: Layout, bits: u8, matrix: ColorMatrix, site: ChromaSite) -> PixelFormat {
    let range = if bits == 12 { ColorRange::Full } else { ColorRange::Limited };
    PixelFormat { layout, bits, range, matrix, site }
}

#[test]
fn frames_of_eight_bits_equal_the_processor() {
    check_frames(PixelFormat::YUV420P8, PixelFormat::YUV420P8, None);
    let quarter = yuv(Layout::Yuv410, 8, ColorMatrix::Bt601, ChromaSite::TopLeft);
    check_frames(quarter, yuv(Layout::Yuv422, 8, ColorMatrix::YCgCo, ChromaSite::Center), None);
    check_frames(PixelFormat::RGB8, yuv(Layout::Yuv440, 8, ColorMatrix::Fcc, ChromaSite::BottomLeft), None);
}

#[test]
fn deep_frames_equal_the_processor() {
    let ten = yuv(Layout::Yuv420, 10, ColorMatrix::Bt2020Ncl, ChromaSite::TopLeft);
    check_frames(ten, ten, None);
    let gray = PixelFormat { layout: Layout::Gray, bits: 12, ..PixelFormat::RGB8 };
    check_frames(gray, yuv(Layout::Yuv411, 16, ColorMatrix::Smpte240m, ChromaSite::Left), None);
    check_frames(yuv(Layout::Yuv444, 12, ColorMatrix::Bt709, ChromaSite::Center), gray, None);
}

#[test]
fn frames_scored_at_another_width_equal_the_processor() {
    check_frames(PixelFormat::YUV420P8, PixelFormat::YUV420P8, Some(24));
    check_frames(PixelFormat::YUV420P8, PixelFormat::RGB8, Some(50));
}
