//! Other formats of the same network as style files: PyTorch checkpoints of the PyTorch examples' `TransformerNet`, in the zip
//! and in the legacy format, and ONNX graphs exported from it.
//!
//! Nothing in such a file is run: a checkpoint's pickle is read by an interpreter that knows dictionaries, tuples and tensors and
//! refuses everything else by name, and every length is checked against the bytes that are there before anything is reserved. A
//! file may name the same bytes any number of times, so that what is copied is counted over the whole file.

mod archive;
mod checkpoint;
mod onnx;
mod pickle;
mod reader;
mod room;

use crate::ModelError;
use crate::weights::StyleWeights;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};

/// The largest file that is converted, in bytes.
pub const FILE_BYTES_MAX: usize = 512 << 20;

/// The most dimensions of a tensor.
const DIMENSIONS_MAX: usize = 8;

/// What a foreign file holds under a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weight {
    shape: Vec<usize>,
    values: Vec<f32>,
}

type Weights = BTreeMap<String, Weight>;

/// Converts a `.pth` or `.onnx` file to a style file (safetensors, f32, names of the PyTorch examples).
///
/// # Errors
/// `Weights` saying what is wrong: not one of the formats, truncated, of another network, with values that are not finite.
pub fn convert(bytes: &[u8]) -> Result<Vec<u8>, ModelError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(refused(format!("the file has {} bytes, at most {FILE_BYTES_MAX} are read", bytes.len())));
    }
    let (format, weights) = match bytes {
        [b'P', b'K', 3, 4, ..] => ("PyTorch checkpoint (zip)", checkpoint::read_zip(bytes)?),
        // A pickle of protocol 2 or later begins with the opcode PROTO.
        [0x80, 2..=5, ..] => ("PyTorch checkpoint (legacy)", checkpoint::read_legacy(bytes)?),
        // The first field of an ONNX model is its version, a varint.
        [0x08, ..] => ("ONNX graph", onnx::read(bytes)?),
        _ => {
            return Err(refused(
                "the file is neither a PyTorch checkpoint (.pth) nor an ONNX graph (.onnx); a .safetensors file needs no conversion"
                    .to_owned(),
            ));
        }
    };
    let bytes = style_file(&weights, format)?;
    // The file must be one that this program runs: names, shapes and values are checked once, there.
    StyleWeights::load(&bytes)?;
    Ok(bytes)
}

fn style_file(weights: &Weights, format: &str) -> Result<Vec<u8>, ModelError> {
    let stored: BTreeMap<&String, (&Vec<usize>, Vec<u8>)> = weights
        .iter()
        .map(|(name, weight)| (name, (&weight.shape, weight.values.iter().flat_map(|v| v.to_le_bytes()).collect())))
        .collect();
    let views = stored
        .iter()
        .map(|(name, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, (*shape).clone(), bytes);
            view.map(|view| (name.as_str(), view)).map_err(|error| refused(format!("tensor {name}: {error}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let metadata = HashMap::from([("converted_from".to_owned(), format.to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| refused(format!("style file: {error}")))
}

fn refused(message: String) -> ModelError {
    ModelError::Weights(message)
}
