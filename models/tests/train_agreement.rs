//! The network as training computes it against the network as it runs, on every shipped style and a fresh one.
#![cfg(feature = "train")]

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use restyle_models::StyleWeights;
use restyle_models::any_style::{AnyStyle, AnyStyleNetwork};
use restyle_models::pixels::{PixelFormat, RgbPlanes, from_rgb};
use restyle_models::train::{AnyNetwork, CARD_KEY, Random, TransformerNetwork, export, import};
use restyle_models::transform_net::TransformNet;

/// Largest difference on 0..255: both sum in single precision, in different orders.
const TOLERANCE: f32 = 0.05;

fn smooth(width: usize, height: usize) -> RgbPlanes {
    let mut rgb = RgbPlanes::new(width, height);
    for (channel, plane) in rgb.planes.iter_mut().enumerate() {
        for (index, sample) in plane.iter_mut().enumerate() {
            let (x, y) = ((index % width) as f32, (index / width) as f32);
            let wave = (x * 0.13 + channel as f32).sin() + (y * 0.17 + x * 0.05).cos();
            *sample = (127.5 + 60.0 * wave).clamp(0.0, 255.0).round();
        }
    }
    rgb
}

fn check(name: &str, file: &[u8], width: usize, height: usize) {
    let rgb = smooth(width, height);
    let mut running = RgbPlanes::default();
    TransformNet::new(&StyleWeights::load(file).unwrap(), 1).unwrap().forward(&rgb, &mut running);

    let (_, metadata) = safetensors::SafeTensors::read_metadata(file).unwrap();
    let network = TransformerNetwork::new(metadata.info("conv1.conv2d.weight").unwrap().shape[0], 0).unwrap();
    import(network.variables(), file).unwrap();
    let trained = network.forward(&tensor(&rgb)).unwrap();
    assert_eq!(trained.dims(), [1, 3, running.height, running.width], "{name}");
    let trained = trained.affine(255.0, 0.0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (index, (got, expected)) in trained.iter().zip(running.planes.concat()).enumerate() {
        // Beyond the range colours are clamped, and differences there mean nothing.
        let difference = (got.clamp(0.0, 255.0) - expected.clamp(0.0, 255.0)).abs();
        assert!(difference < TOLERANCE, "{name} {width}x{height} sample {index}: {got} for {expected}");
    }
}

/// Moves every variable a little, so that norms and biases do not just keep their start values.
fn disturb(variables: &[(String, Var)]) {
    let mut random = Random::new(1, 2);
    for (_, variable) in variables {
        let noise: Vec<f32> = (0..variable.elem_count()).map(|_| random.between(-0.05, 0.05)).collect();
        let noise = Tensor::from_vec(noise, variable.shape(), &Device::Cpu).unwrap();
        variable.set(&(variable.as_tensor() + noise).unwrap()).unwrap();
    }
}

fn tensor(rgb: &RgbPlanes) -> Tensor {
    let values = Tensor::from_vec(rgb.planes.concat(), (1, 3, rgb.height, rgb.width), &Device::Cpu).unwrap();
    values.affine(1.0 / 255.0, 0.0).unwrap()
}

/// The same for a network for any style.
fn check_any(name: &str, file: &[u8], width: usize) {
    let network = AnyNetwork::new(width, 0).unwrap();
    import(network.variables(), file).unwrap();
    let running = Arc::new(AnyStyleNetwork::load(file).unwrap());
    let (content, style) = (smooth(50, 37), smooth(64, 48));
    let picture = from_rgb(&style, PixelFormat::RGB8, 64, 48).unwrap();
    let expected = AnyStyle::encode(&running, &picture).unwrap().forward(&content).unwrap();
    let trained = network.forward(&tensor(&content), &network.encode_style(&tensor(&style)).unwrap()).unwrap();
    assert_eq!(trained.dims(), [1, 3, expected.height, expected.width], "{name}");
    let trained = trained.affine(255.0, 0.0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (got, expected) in trained.iter().zip(expected.planes.concat()) {
        // The variance is over one pixel less where it runs.
        assert!((got - expected).abs() < 0.02 * expected.abs().max(100.0), "{name}: {got} for {expected}");
    }
}

#[test]
fn a_fresh_network_for_any_style_agrees() {
    for width in [1, 3, 12] {
        let network = AnyNetwork::new(width, width as u64).unwrap();
        disturb(network.variables());
        let file = export(network.variables(), &serde_json::json!({ "name": "fresh" })).unwrap();
        check_any("fresh", &file, width);
    }
}

#[test]
fn a_fresh_network_of_any_width_agrees() {
    for width in [1, 3, 8, 16] {
        let network = TransformerNetwork::new(width, width as u64).unwrap();
        disturb(network.variables());
        let file = export(network.variables(), &serde_json::json!({ "name": "fresh" })).unwrap();
        check("fresh", &file, 64, 48);
        check("fresh", &file, 50, 37);
    }
}

#[test]
fn every_shipped_style_agrees_and_carries_its_card() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("styles");
    let mut bytes = 0;
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let file = std::fs::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&file).unwrap();
        match metadata.info("content_encoder.enc1.0.conv_layer.weight") {
            Some(first) => check_any(&name, &file, first.shape[0]),
            None => {
                check(&name, &file, 88, 61);
                (bytes, count) = (bytes + file.len(), count + 1);
            }
        }
        let card: serde_json::Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()[CARD_KEY]).unwrap();
        assert_eq!(card["name"], name.as_str());
        for key in ["painting", "command", "seed", "iterations", "losses", "photos_blake3", "features_blake3"] {
            assert!(!card[key].is_null(), "{name}: the card has no {key}");
        }
    }
    assert!(count > 0 && bytes < 6_000_000, "{count} styles of {bytes} bytes");
}
