//! A network for any style against what ONNX Runtime computed from the published weights of MicroAST (MIT).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

use restyle_models::ModelError;
use restyle_models::any_style::{AnyStyle, AnyStyleFiles, AnyStyleNetwork};
use restyle_models::pixels::{Picture, PixelFormat, RgbPlanes, from_rgb};
use restyle_models::shipped;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
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

/// Tensors by name: shape and values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The network that ships, with its tensors changed.
fn changed(change: impl FnOnce(&mut Tensors)) -> Vec<u8> {
    let file = SafeTensors::deserialize(shipped::ANY.bytes).unwrap();
    let values = |view: &TensorView<'_>| -> Vec<f32> {
        let (pairs, singles) = (view.data().as_chunks::<2>().0, view.data().as_chunks::<4>().0);
        match view.dtype() {
            Dtype::F16 => pairs.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
            Dtype::F32 => singles.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            other => panic!("the network ships in {other:?}"),
        }
    };
    let tensors = file.tensors();
    let mut tensors: Tensors =
        tensors.iter().map(|(name, view)| (name.clone(), (view.shape().to_vec(), values(view)))).collect();
    change(&mut tensors);
    let stored: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = stored
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// Encodes a picture with the changed network: what is said of it.
fn said_of(change: impl FnOnce(&mut Tensors)) -> String {
    let mut rgb = RgbPlanes::new(40, 36);
    for (step, plane) in [3, 5, 7].into_iter().zip(&mut rgb.planes) {
        plane.iter_mut().enumerate().for_each(|(at, value)| *value = (at * step % 256) as f32);
    }
    let style = picture(&rgb);
    let encoded =
        AnyStyleNetwork::load(&changed(change)).and_then(|network| AnyStyle::encode(&Arc::new(network), &style));
    encoded.map_or_else(|error| error.to_string(), |_| "encoded".to_owned())
}

fn check(change: impl FnOnce(&mut Tensors), says: &[&str]) {
    let said = said_of(change);
    assert!(says.iter().all(|part| said.contains(part)), "{said:?} does not say {says:?}");
}

/// Gives a weight another kernel, of zeros.
fn reshape(tensors: &mut Tensors, name: &str, kernel: [usize; 2]) {
    let (shape, values) = tensors.get_mut(name).unwrap();
    shape.splice(2.., kernel);
    *values = vec![0.0; shape.iter().product()];
}

#[test]
fn the_network_that_ships_can_be_run() {
    check(|_| {}, &["encoded"]);
}

#[test]
fn kernels_that_are_not_square_and_odd_are_refused() {
    // Kernels of 3 by 1 and of 1 by 1000 once passed, and could end in a panic.
    for kernel in [[3, 1], [1, 1000], [4, 4], [1, 3], [33, 33]] {
        for name in ["content_encoder.enc1.0", "style_encoder.enc1.2", "modulator.weight1.0", "decoder.dec3.6"] {
            let (part, layer) = name.split_once('.').unwrap();
            let says = [part, &format!("tensor {layer}.conv_layer.weight"), "square kernel of odd side"];
            check(|tensors| reshape(tensors, &format!("{name}.conv_layer.weight"), kernel), &says);
        }
    }
}

#[test]
fn groups_that_are_not_square_are_refused() {
    let depthwise = |tensors: &mut Tensors| {
        let (shape, values) = tensors.get_mut("decoder.dec3.6.conv_layer.weight").unwrap();
        *shape = vec![shape[0], 1, 3, 1];
        *values = vec![0.0; shape.iter().product()];
    };
    check(depthwise, &["decoder: tensor dec3.6.conv_layer.weight", "square kernel"]);
}

#[test]
fn a_part_that_is_missing_is_refused_before_any_frame() {
    for part in ["content_encoder", "style_encoder", "modulator", "decoder"] {
        let says = [part, "has no tensor"];
        check(|tensors| tensors.retain(|name, _| !name.starts_with(part)), &says);
    }
}

#[test]
fn values_that_are_not_finite_are_refused_by_the_tensors_name() {
    for value in [f32::NAN, f32::INFINITY] {
        let name = "decoder.dec3.8.conv_layer.bias";
        check(|tensors| tensors.get_mut(name).unwrap().1[1] = value, &[name, "expected finite numbers"]);
    }
    let huge = |tensors: &mut Tensors| {
        tensors.get_mut("decoder.dec3.8.conv_layer.weight").unwrap().1.fill(1e38);
    };
    check(huge, &["dec3.10.conv_layer.weight of the decoder", "not finite"]);
}

#[test]
fn channels_that_do_not_fit_are_refused_by_the_tensors_name() {
    let outputs = |name: &'static str, count: usize| {
        move |tensors: &mut Tensors| {
            let (shape, values) = tensors.get_mut(&format!("{name}.weight")).unwrap();
            shape[0] = count;
            *values = vec![0.01; shape.iter().product()];
            tensors.insert(format!("{name}.bias"), (vec![count], vec![0.0; count]));
        }
    };
    let last = "decoder.dec3.10.conv_layer";
    check(outputs(last, 4), &["dec3.10.conv_layer.weight of the decoder gives 4 channels"]);
    check(outputs("decoder.dec2.conv1.conv_layer", 1), &["decoder: tensor dec2.conv1.conv_layer.weight", "expected"]);
    check(outputs("modulator.bias2.0.conv_layer", 1), &["modulator: tensor bias2.0.conv_layer.weight", "expected"]);
    check(outputs("content_encoder.enc1.4.conv_layer", 5), &["content_encoder cannot convolve 5 channels", "enc1.6"]);
    check(outputs(last, 5000), &["1 to 1024 channels"]);
}
