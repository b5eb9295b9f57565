//! The published styles against reference outputs that ONNX Runtime 1.31.1 computed in f32 from the same weights.
//!
//! `golden/*.npy` are raw outputs, not clamped; the inputs are the pictures beside them.

use restyle_models::kernels::Isa;
use restyle_models::pixels::RgbPlanes;
use restyle_models::transform_net::TransformNet;
use restyle_models::weights::StyleWeights;
use std::path::{Path, PathBuf};

/// Largest error allowed, on the scale 0..255.
const TOLERANCE: f32 = 0.05;

fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("RESTYLE_SHARED").map_or(beside, PathBuf::from);
    folder.join("golden").is_dir().then_some(folder)
}

/// Reads a little-endian f32 array in C order.
fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY", "{}", path.display());
    let header_len = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let header = std::str::from_utf8(&bytes[10..10 + header_len]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let dims = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let dims = dims.split(',').filter_map(|dim| dim.trim().parse().ok()).collect();
    let (values, rest) = bytes[10 + header_len..].as_chunks::<4>();
    assert!(rest.is_empty());
    (dims, values.iter().map(|&value| f32::from_le_bytes(value)).collect())
}

fn read_picture(path: &Path) -> RgbPlanes {
    let picture = image::open(path).unwrap().to_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let plane = |channel: usize| picture.pixels().map(|pixel| f32::from(pixel.0[channel])).collect();
    RgbPlanes { width, height, planes: [plane(0), plane(1), plane(2)] }
}

fn check(style: &str, size: &str) {
    let Some(shared) = shared() else {
        println!("skipped: no golden outputs; set RESTYLE_SHARED to the folder that holds them");
        return;
    };
    let bytes = std::fs::read(shared.join(format!("weights/transformernet/{style}.safetensors"))).unwrap();
    let weights = StyleWeights::load(&bytes).unwrap();
    let rgb = read_picture(&shared.join(format!("golden/input_{size}.png")));
    let (dims, expected) = read_npy(&shared.join(format!("golden/transformernet_{style}_{size}.npy")));
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut net = TransformNet::with_isa(&weights, threads, isa).unwrap();
            let mut out = RgbPlanes::default();
            net.forward(&rgb, &mut out);
            assert_eq!(dims, [1, 3, out.height, out.width]);
            let found = out.planes.concat();
            let errors = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
            let worst =
                errors.fold(0.0, |worst: f32, error| if error > worst || error.is_nan() { error } else { worst });
            println!("{style} {size} {isa}, {threads} threads: largest error {worst:.5}");
            assert!(worst <= TOLERANCE, "{style} {size} {isa}: largest error {worst}");
        }
    }
}

#[test]
fn candy() {
    check("candy", "160x112");
}

#[test]
fn mosaic() {
    check("mosaic", "160x112");
}

#[test]
fn mosaic_at_an_odd_size() {
    check("mosaic", "150x101");
}

#[test]
fn pointilism() {
    check("pointilism", "160x112");
}

#[test]
fn rain_princess() {
    check("rain_princess", "160x112");
}

#[test]
fn udnie() {
    check("udnie", "160x112");
}
