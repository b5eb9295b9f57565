//! Trained weights as a file in half precision: a style with PyTorch-examples' names, RGB 0..255 in and out, or a network for any
//! style with MicroAST's names behind those of its parts, RGB 0..1.
//!
//! Training sees colours in 0..1 and centres a style's result; both scalings fold exactly into the first and the last convolution.
//! The first convolution, whose folded values are tiny, the norms and the biases stay in single precision.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Var};
use half::f16;
use safetensors::tensor::{Dtype, TensorView};

use super::checkpoint::checkpoint_name;
use super::error::TrainError;
use super::network::{OUTPUT_CENTRE, OUTPUT_SCALE};

/// Key of the metadata under which the style's card lies, as JSON.
pub const CARD_KEY: &str = "restyle";

const COLOUR_MAX: f32 = 255.0;

/// Scale and offset that take a trained tensor to the file's convention.
fn folding(name: &str) -> (f32, f32) {
    match name {
        "conv1.conv2d.weight" => (1.0 / COLOUR_MAX, 0.0),
        "deconv3.conv2d.weight" => (OUTPUT_SCALE as f32 * COLOUR_MAX, 0.0),
        "deconv3.conv2d.bias" => (OUTPUT_SCALE as f32 * COLOUR_MAX, OUTPUT_CENTRE as f32 * COLOUR_MAX),
        _ => (1.0, 0.0),
    }
}

/// Sets a network's variables from a file of the same kind and width, the counterpart of [`export`], or from the checkpoint of
/// a training that was stopped.
///
/// # Errors
/// When the file is no safetensors file, or a tensor is missing or of another shape.
pub fn import(variables: &[(String, Var)], bytes: &[u8]) -> Result<(), TrainError> {
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
        .map_err(|error| TrainError::Config(format!("start weights: no readable safetensors file: {error}")))?;
    for (name, variable) in variables {
        let (stored, (scale, offset)) = match tensors.get(name) {
            Some(tensor) => (Some(tensor), folding(name)),
            None => (tensors.get(&checkpoint_name(name)), (1.0, 0.0)),
        };
        let found = stored.filter(|tensor| tensor.dims() == variable.dims()).ok_or_else(|| {
            TrainError::Config(format!(
                "start weights: expected {name} of {:?}; is the width the same?",
                variable.dims()
            ))
        })?;
        let values =
            found.to_dtype(DType::F32)?.affine(1.0 / f64::from(scale), -f64::from(offset) / f64::from(scale))?;
        variable.set(&values.to_device(variable.device())?)?;
    }
    Ok(())
}

/// The file of a network's variables, with its card (JSON) in the metadata.
///
/// # Errors
/// Never in practice; reading tensors is fallible in candle.
pub fn export(variables: &[(String, Var)], card: &serde_json::Value) -> Result<Vec<u8>, TrainError> {
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, variable) in variables {
        let shape = variable.dims().to_vec();
        let values = variable.as_tensor().flatten_all()?.to_vec1::<f32>()?;
        let (scale, offset) = folding(name);
        let values: Vec<f32> = values.iter().map(|value| value * scale + offset).collect();
        let halved = shape.len() == 4 && name != "conv1.conv2d.weight";
        let (dtype, bytes) = if halved {
            (Dtype::F16, values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect())
        } else {
            (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        };
        if let Some(layer) = name.strip_suffix("conv2d.weight").filter(|layer| *layer != "deconv3.") {
            // The bias cancels in the norm behind it, but the format has one.
            let zeros = vec![0_u8; 4 * shape[0]];
            tensors.insert(format!("{layer}conv2d.bias"), (Dtype::F32, vec![shape[0]], zeros));
        }
        tensors.insert(name.clone(), (dtype, shape, bytes));
    }
    let mut views = BTreeMap::new();
    for (name, (dtype, shape, bytes)) in &tensors {
        let view = TensorView::new(*dtype, shape.clone(), bytes)
            .map_err(|error| TrainError::Config(format!("tensor {name}: {error}")))?;
        views.insert(name.clone(), view);
    }
    // One key only: the order of several is not fixed, and equal weights should be equal bytes.
    let metadata = HashMap::from([(CARD_KEY.to_owned(), card.to_string())]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| TrainError::Config(format!("style file: {error}")))
}
