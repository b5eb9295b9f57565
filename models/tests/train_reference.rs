//! Features and losses against values that `train_reference.py` computed with numpy alone.
#![cfg(feature = "train")]

use candle_core::{Device, Tensor};
use restyle_models::loss::{content_loss, energy, gram, range_excess, steadiness_loss, style_loss, total_variation};
use restyle_models::vgg::FeatureNetwork;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    feature_means: Vec<f64>,
    gram_sums: Vec<f64>,
    content: f64,
    style: f64,
    variation: f64,
    range: f64,
    steadiness: f64,
}

const FILE: &[u8] = include_bytes!("train_reference.safetensors");

fn assert_near(name: &str, got: &Tensor, expected: f64) {
    let got = f64::from(got.to_scalar::<f32>().unwrap());
    assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1e-3), "{name}: {got} for {expected}");
}

#[test]
fn features_and_losses_are_what_numpy_computes() {
    let (_, metadata) = safetensors::SafeTensors::read_metadata(FILE).unwrap();
    let metadata = metadata.metadata().clone().unwrap();
    let expected: Expected = serde_json::from_str(&metadata["expected"]).unwrap();
    let levels: Vec<f64> = serde_json::from_str(&metadata["levels"]).unwrap();
    let tensors = candle_core::safetensors::load_buffer(FILE, &Device::Cpu).unwrap();
    let picture = |name: &str| tensors[&format!("picture.{name}")].unsqueeze(0).unwrap();
    let network = FeatureNetwork::load(FILE).unwrap();
    assert_eq!(network.levels(), 4);

    let styled = network.features(&picture("styled"), 4).unwrap();
    let content = network.features(&picture("content"), 3).unwrap();
    assert_eq!(content.len(), 3);
    let targets: Vec<Tensor> =
        network.features(&picture("painting"), 4).unwrap().iter().map(|level| gram(level).unwrap()).collect();
    for (level, features) in styled.iter().enumerate() {
        assert_near("feature mean", &features.mean_all().unwrap(), expected.feature_means[level]);
        assert_near("gram sum", &gram(features).unwrap().sum_all().unwrap(), expected.gram_sums[level]);
    }
    assert_near("content", &content_loss(&styled[2], &content[2], 0.0).unwrap(), expected.content);
    let floor = 2.0 * energy(&content[2]).unwrap();
    let halved = content_loss(&styled[2], &content[2], floor).unwrap();
    assert_near("content over a floor", &halved, expected.content / 2.0);
    assert_near("style", &style_loss(&styled, &targets, &levels).unwrap(), expected.style);
    assert_near("variation", &total_variation(&picture("styled")).unwrap(), expected.variation);
    assert_near("range", &range_excess(&picture("styled")).unwrap(), expected.range);
    let steadiness = steadiness_loss(&picture("styled"), &picture("content"), (3, -5)).unwrap();
    assert_near("steadiness", &steadiness, expected.steadiness);
}

#[test]
fn a_file_without_the_layers_is_refused() {
    let short = FeatureNetwork::load(b"no safetensors").unwrap_err();
    assert!(short.to_string().starts_with("feature network: no readable safetensors file"), "{short}");
    let tensor = Tensor::zeros((3, 3, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    tensor.save_safetensors("conv0.weight", file.path()).unwrap();
    let error = FeatureNetwork::load(&std::fs::read(file.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("found 0 of them"), "{error}");
}
