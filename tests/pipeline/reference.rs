//! The whole path against the reference network: what goes into a lossless output is what the reference computed.

use crate::support::{Bench, ffmpeg, finished, restyle, shared};
use std::path::Path;

/// Reads the f32 values of a version 1 .npy file.
fn npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[10 + header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn a_lossless_output_matches_the_reference_network() {
    let (Some(weights), Some(picture), Some(golden)) = (
        shared("weights/transformernet/candy.safetensors"),
        shared("golden/input_160x112.png"),
        shared("golden/transformernet_candy_160x112.npy"),
    ) else {
        return;
    };
    let bench = Bench::new();
    let (input, output, raw) = (bench.path("in.mkv"), bench.path("out.mkv"), bench.path("raw"));
    ffmpeg(&["-i", picture.to_str().unwrap(), "-c:v", "ffv1", "-pix_fmt", "gbrp", input.to_str().unwrap()]);
    let mut command = restyle();
    command.arg("run").arg(&input).arg(&output).arg("--style").arg(&weights).arg("--work-dir").arg(bench.path("work"));
    finished(command.args(["--codec", "ffv1", "--pix-fmt", "gbrp", "--size", "160", "--json", "--progress", "none"]));
    ffmpeg(&["-i", output.to_str().unwrap(), "-f", "rawvideo", "-pix_fmt", "gbrp", raw.to_str().unwrap()]);
    let (got, expected) = (std::fs::read(&raw).unwrap(), npy(&golden));
    let plane = 160 * 112;
    assert_eq!((got.len(), expected.len()), (3 * plane, 3 * plane));
    // FFmpeg's planes are in the order G, B, R, the reference's R, G, B.
    let squares: f64 = [2, 0, 1]
        .iter()
        .enumerate()
        .flat_map(|(c, from)| {
            std::iter::zip(&expected[c * plane..(c + 1) * plane], &got[from * plane..(from + 1) * plane])
        })
        .map(|(e, g)| (f64::from(e.clamp(0.0, 255.0)) - f64::from(*g)).powi(2))
        .sum();
    let psnr = 10.0 * (255.0 * 255.0 / (squares / (3 * plane) as f64)).log10();
    assert!(psnr >= 45.0, "{psnr:.1} dB");
}
