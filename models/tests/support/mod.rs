//! Golden files: what other programs computed from the same weights.

use restyle_models::pixels::RgbPlanes;
use std::path::{Path, PathBuf};

/// The folder of golden outputs and weights, if it is there.
pub(crate) fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("RESTYLE_SHARED").map_or(beside, PathBuf::from);
    folder.join("golden").is_dir().then_some(folder)
}

/// Reads a little-endian f32 array in C order.
pub(crate) fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
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

/// Reads a picture as planes on 0..255.
pub(crate) fn read_picture(path: &Path) -> RgbPlanes {
    let picture = image::open(path).unwrap().to_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let plane = |channel: usize| picture.pixels().map(|pixel| f32::from(pixel.0[channel])).collect();
    RgbPlanes { width, height, planes: [plane(0), plane(1), plane(2)] }
}
