//! ONNX graphs exported from the network: weights by the order of the layers, since exporters rename them.
//!
//! Field numbers are those of `onnx.proto` (ONNX 1.16); only what is needed is read, the rest is skipped by its wire type.

use super::reader::Reader;
use super::room::Room;
use super::{DIMENSIONS_MAX, Weight, Weights, refused};
use crate::ModelError;
use crate::weights::BLOCKS_MAX;
use half::f16;
use std::collections::HashMap;

const WHAT: &str = "the ONNX graph";
/// The most nodes of a graph, and tensors; an exported network has some hundreds, with those that compute shapes and paddings.
const NODES_MAX: usize = 1 << 14;
/// The most inputs of a node; a concatenation has the most.
const INPUTS_MAX: usize = 64;
/// Convolutions outside the residual blocks.
const OUTER_CONVOLUTIONS: usize = 6;

/// A protobuf field: its number and its content.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Fixed-size numbers are of no interest.
    Skipped,
}

fn fields<'a>(
    bytes: &'a [u8],
    mut each: impl FnMut(u64, Field<'a>) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let mut reader = Reader::new(bytes, WHAT);
    while !reader.is_empty() {
        let tag = reader.varint()?;
        let content = match tag & 7 {
            0 => Field::Number(reader.varint()?),
            1 => {
                reader.take(8)?;
                Field::Skipped
            }
            2 => {
                let len = reader.varint()?;
                let len = usize::try_from(len).map_err(|_| refused(format!("{WHAT} has a field of {len} bytes")))?;
                Field::Bytes(reader.take(len)?)
            }
            5 => {
                reader.take(4)?;
                Field::Skipped
            }
            other => return Err(refused(format!("{WHAT} has a field of unknown type {other}: is it an ONNX file?"))),
        };
        each(tag >> 3, content)?;
    }
    Ok(())
}

/// A layer of the graph.
struct Node<'a> {
    operation: &'a [u8],
    inputs: Vec<&'a [u8]>,
}

/// A tensor where it lies in the file: one may be the weights of several layers, and most are of none.
struct Stored<'a> {
    shape: Vec<usize>,
    bytes: &'a [u8],
    /// Bytes of an element.
    size: usize,
}

impl Stored<'_> {
    fn read(&self) -> Weight {
        let value = |chunk: &[u8]| match *chunk {
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            [a, b] => f16::from_le_bytes([a, b]).to_f32(),
            _ => f32::NAN,
        };
        Weight { shape: self.shape.clone(), values: self.bytes.chunks_exact(self.size).map(value).collect() }
    }
}

type Tensors<'a> = HashMap<&'a [u8], Option<Stored<'a>>>;

/// Reads the weights of the graph's convolutions and norms.
pub(super) fn read(bytes: &[u8]) -> Result<Weights, ModelError> {
    let (mut graph, mut has_operators) = (None, false);
    fields(bytes, |number, field| {
        match (number, field) {
            (7, Field::Bytes(bytes)) => graph = Some(bytes),
            (8, Field::Bytes(_)) => has_operators = true,
            _ => {}
        }
        Ok(())
    })?;
    // Which operators it uses is a required part, and the last of most files: without it the file is cut off.
    let graph = graph
        .filter(|_| has_operators)
        .ok_or_else(|| refused(format!("{WHAT} is missing: is it an ONNX file, or truncated?")))?;
    let (mut nodes, mut tensors) = (Vec::new(), HashMap::new());
    fields(graph, |number, field| {
        match (number, field) {
            (1, Field::Bytes(bytes)) => nodes.push(node(bytes, &mut tensors)?),
            (5, Field::Bytes(bytes)) => {
                let (name, tensor) = tensor(bytes)?;
                tensors.insert(name, tensor);
            }
            _ => {}
        }
        if nodes.len().max(tensors.len()) > NODES_MAX {
            return Err(refused(format!("{WHAT} has more than {NODES_MAX} nodes or tensors: is it a style network?")));
        }
        Ok(())
    })?;
    assign(&nodes, &tensors)
}

/// Reads a node; a constant's tensor goes to the tensors under the name of its output.
fn node<'a>(bytes: &'a [u8], tensors: &mut Tensors<'a>) -> Result<Node<'a>, ModelError> {
    let mut node = Node { operation: b"", inputs: Vec::new() };
    let (mut output, mut constant) = (None, None);
    fields(bytes, |number, field| {
        match (number, field) {
            (1, Field::Bytes(_)) if node.inputs.len() >= INPUTS_MAX => {
                return Err(refused(format!(
                    "{WHAT} has a node of more than {INPUTS_MAX} inputs: is it a style network?"
                )));
            }
            (1, Field::Bytes(name)) => node.inputs.push(name),
            (2, Field::Bytes(name)) => output = Some(name),
            (4, Field::Bytes(operation)) => node.operation = operation,
            (5, Field::Bytes(attribute)) => {
                fields(attribute, |number, field| {
                    if let (5, Field::Bytes(tensor)) = (number, field) {
                        constant = Some(tensor);
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    if let (b"Constant", Some(output), Some(constant)) = (node.operation, output, constant) {
        tensors.insert(output, tensor(constant)?.1);
    }
    Ok(node)
}

/// Name and content of a tensor; no content where its type is not one of weights.
fn tensor(bytes: &[u8]) -> Result<(&[u8], Option<Stored<'_>>), ModelError> {
    let (mut name, mut shape, mut kind, mut raw, mut floats) = (&b""[..], Vec::new(), 0, &b""[..], &b""[..]);
    let mut is_external = false;
    fields(bytes, |number, field| {
        match (number, field) {
            // One more than there may be is kept, so that the tensor is refused where it is of weights.
            (1, Field::Number(side)) if shape.len() <= DIMENSIONS_MAX => shape.push(side),
            (1, Field::Bytes(packed)) => {
                let mut sides = Reader::new(packed, WHAT);
                while !sides.is_empty() && shape.len() <= DIMENSIONS_MAX {
                    shape.push(sides.varint()?);
                }
            }
            (2, Field::Number(number)) => kind = number,
            (4, Field::Bytes(packed)) => floats = packed,
            (8, Field::Bytes(text)) => name = text,
            (9, Field::Bytes(bytes)) => raw = bytes,
            (14, Field::Number(location)) => is_external = location != 0,
            _ => {}
        }
        Ok(())
    })?;
    let shown = String::from_utf8_lossy(name);
    if is_external {
        return Err(refused(format!("tensor {shown} lies in another file: export the graph as one file")));
    }
    // 1 is float, 10 half precision; shapes and other helpers are 64-bit integers.
    let (size, bytes) = match kind {
        1 if raw.is_empty() => (4, floats),
        1 => (4, raw),
        10 => (2, raw),
        _ => return Ok((name, None)),
    };
    let shape: Option<Vec<usize>> = shape.iter().map(|&side| usize::try_from(side).ok()).collect();
    let shape = shape.filter(|shape| shape.len() <= DIMENSIONS_MAX);
    let elements = |shape: &Vec<usize>| shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
    let shape = shape.filter(|shape| elements(shape).and_then(|n| n.checked_mul(size)) == Some(bytes.len()));
    let shape =
        shape.ok_or_else(|| refused(format!("tensor {shown} has {} bytes, not those of its shape", bytes.len())))?;
    Ok((name, Some(Stored { shape, bytes, size })))
}

/// Gives the graph's convolutions and norms, in order, the names of the network's layers.
fn assign(nodes: &[Node<'_>], tensors: &Tensors<'_>) -> Result<Weights, ModelError> {
    let of = |operation: &[u8]| nodes.iter().filter(|node| node.operation == operation).collect::<Vec<_>>();
    let (convolutions, norms) = (of(b"Conv"), of(b"InstanceNormalization"));
    let inner = convolutions.len().checked_sub(OUTER_CONVOLUTIONS).filter(|inner| inner.is_multiple_of(2));
    let (Some(inner), true) = (inner, norms.len() + 1 == convolutions.len()) else {
        return Err(refused(format!(
            "{WHAT} has {} convolutions and {} instance norms: expected a transformer network (Johnson et al. 2016), 16 and 15",
            convolutions.len(),
            norms.len()
        )));
    };
    if let Some(foreign) =
        nodes.iter().find(|node| [&b"ConvTranspose"[..], b"BatchNormalization"].contains(&node.operation))
    {
        let operation = String::from_utf8_lossy(foreign.operation);
        return Err(refused(format!("{WHAT} has a {operation}, which the network that is run here does not")));
    }
    if inner / 2 > BLOCKS_MAX {
        return Err(refused(format!("{WHAT} has {} residual blocks, expected at most {BLOCKS_MAX}", inner / 2)));
    }
    let (layers, norm_names) = names(inner / 2);
    let (mut found, mut room) = (Vec::new(), Room::new());
    for (parts, (node, name)) in [(["conv2d.weight", "conv2d.bias"], convolutions.iter().zip(layers))]
        .into_iter()
        .flat_map(|(parts, pairs)| pairs.map(move |pair| (parts, pair)))
        .chain(norms.iter().zip(norm_names).map(|pair| (["weight", "bias"], pair)))
    {
        for (part, input) in parts.iter().zip(1..) {
            let stored = node.inputs.get(input).and_then(|input| tensors.get(input)).and_then(Option::as_ref);
            let stored = stored.ok_or_else(|| refused(format!("{WHAT} has no {part} for layer {name}")))?;
            let name = format!("{name}.{part}");
            room.take(&name, &stored.shape)?;
            found.push((name, stored));
        }
    }
    Ok(found.into_iter().map(|(name, stored)| (name, stored.read())).collect())
}

fn names(blocks: usize) -> (Vec<String>, Vec<String>) {
    let inner =
        |kind: &str| (1..=blocks).flat_map(|b| [1, 2].map(|half| format!("res{b}.{kind}{half}"))).collect::<Vec<_>>();
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let layers = [own(&["conv1", "conv2", "conv3"]), inner("conv"), own(&["deconv1", "deconv2", "deconv3"])];
    let norms = [own(&["in1", "in2", "in3"]), inner("in"), own(&["in4", "in5"])];
    (layers.concat(), norms.concat())
}
