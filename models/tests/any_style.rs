//! A network for any style against what ONNX Runtime computed from the published weights of MicroAST (MIT).

use restyle_models::ModelError;
use restyle_models::any_style::{AnyStyle, AnyStyleFiles, AnyStyleNetwork};
use restyle_models::pixels::{Picture, PixelFormat, RgbPlanes, from_rgb};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("RESTYLE_SHARED").map_or(beside, PathBuf::from);
    if folder.join("weights/microast").is_dir() {
        return Some(folder);
    }
    println!("skipped: {} has no weights/microast; set RESTYLE_SHARED", folder.display());
    None
}

fn read_picture(path: &Path) -> RgbPlanes {
    let picture = image::open(path).unwrap().to_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let plane = |channel: usize| picture.pixels().map(|pixel| f32::from(pixel.0[channel])).collect();
    RgbPlanes { width, height, planes: [plane(0), plane(1), plane(2)] }
}

fn picture(rgb: &RgbPlanes) -> Picture {
    from_rgb(rgb, PixelFormat::RGB8, rgb.width as u32, rgb.height as u32).unwrap()
}

struct Parts([Vec<u8>; 4]);

impl Parts {
    fn read(shared: &Path) -> Self {
        let parts = ["content_encoder", "style_encoder", "modulator", "decoder"];
        Self(parts.map(|part| std::fs::read(shared.join(format!("weights/microast/{part}.safetensors"))).unwrap()))
    }

    fn files(&self) -> AnyStyleFiles<'_> {
        let [content_encoder, style_encoder, modulator, decoder] = &self.0;
        AnyStyleFiles { content_encoder, style_encoder, modulator, decoder }
    }

    fn encode(&self, style: &Picture) -> AnyStyle {
        encode(&self.files(), style).unwrap()
    }
}

fn encode(files: &AnyStyleFiles<'_>, style: &Picture) -> Result<AnyStyle, ModelError> {
    AnyStyle::encode(&Arc::new(AnyStyleNetwork::from_parts(files)?), style)
}

#[test]
fn the_published_network_gives_its_reference_output() {
    let Some(shared) = shared() else { return };
    let parts = Parts::read(&shared);
    let style = read_picture(&shared.join("golden/style_128x96.png"));
    let style = parts.encode(&picture(&style));
    let found = style.forward(&read_picture(&shared.join("golden/input_160x112.png"))).unwrap();
    let bytes = std::fs::read(shared.join("golden/microast_160x112_style128x96.npy")).unwrap();
    let header_len = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let (values, _) = bytes[10 + header_len..].as_chunks::<4>();
    assert_eq!(values.len(), 3 * 160 * 112);
    let mut worst = 0.0_f32;
    for (found, expected) in found.planes.concat().iter().zip(values) {
        worst = worst.max((found - 255.0 * f32::from_le_bytes(*expected)).abs());
    }
    assert!(worst < 0.05, "largest error {worst} of 255");
}

#[test]
fn another_picture_is_another_style() {
    let Some(shared) = shared() else { return };
    let parts = Parts::read(&shared);
    let mut style = read_picture(&shared.join("golden/style_128x96.png"));
    let digest = |style: &RgbPlanes| parts.encode(&picture(style)).digest().to_owned();
    let first = digest(&style);
    assert_eq!(first, digest(&style));
    style.planes[1][77] = 255.0 - style.planes[1][77];
    assert_ne!(first, digest(&style));
}

#[test]
fn files_that_are_no_parts_are_named() {
    let Some(shared) = shared() else { return };
    let parts = Parts::read(&shared);
    let style = picture(&read_picture(&shared.join("golden/style_128x96.png")));
    let refused = |files: AnyStyleFiles<'_>| encode(&files, &style).unwrap_err().to_string();
    let swapped = refused(AnyStyleFiles { style_encoder: &parts.0[3], ..parts.files() });
    assert!(swapped.contains("style_encoder has no tensor enc1.0"), "{swapped}");
    let cut = refused(AnyStyleFiles { modulator: &parts.0[2][..500], ..parts.files() });
    assert!(cut.contains("modulator is no readable safetensors file"), "{cut}");
}
