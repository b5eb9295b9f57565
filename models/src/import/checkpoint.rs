//! PyTorch checkpoints: the state dictionary's tensors and the storages they lie in.

use super::pickle::{self, Id, Value, Values};
use super::reader::Reader;
use super::room::Room;
use super::{DIMENSIONS_MAX, Weight, Weights, archive, refused};
use crate::ModelError;
use half::{bf16, f16};
use std::collections::HashMap;

/// The magic number of the legacy format as its first pickle writes it: PROTO 2, LONG1 of ten bytes, STOP.
const LEGACY_START: [u8; 15] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
/// Pickles before the state dictionary: magic number, protocol version, system.
const LEGACY_PREFIX: usize = 3;
/// The most entries of the state dictionary, and storages: a network of the most blocks has under 1000 with its statistics.
const ENTRIES_MAX: usize = 4096;
/// The longest name of a tensor or a storage, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// What old versions of the network kept beside its weights.
const IGNORED: [&str; 3] = ["running_mean", "running_var", "num_batches_tracked"];

/// A tensor as the pickle describes it.
struct Described {
    name: String,
    storage: String,
    kind: Kind,
    offset: usize,
    shape: Vec<usize>,
    elements: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F64,
    F32,
    F16,
    Bf16,
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    fn value(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (Self::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            // Chunks are cut to the size above.
            _ => f32::NAN,
        }
    }
}

/// Reads the format of PyTorch since 1.6: a zip archive with `data.pkl` and a file a storage.
pub(super) fn read_zip(bytes: &[u8]) -> Result<Weights, ModelError> {
    let entries = archive::entries(bytes)?;
    let pickle = entries
        .get("data.pkl")
        .ok_or_else(|| refused("the zip archive has no data.pkl: expected a PyTorch checkpoint".to_owned()))?;
    if entries.get("byteorder").is_some_and(|order| *order != b"little") {
        return Err(refused("the checkpoint's numbers are big-endian, which is not read".to_owned()));
    }
    let (values, root) = pickle::read(&mut Reader::new(pickle, "the checkpoint's pickle"))?;
    load(&describe(&values, root)?, |storage| {
        let found = entries.get(format!("data/{storage}").as_str()).copied();
        found.ok_or_else(|| refused(format!("the checkpoint has no storage {storage}")))
    })
}

/// Reads the format of PyTorch before 1.6: pickles one after the other, then the storages.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<Weights, ModelError> {
    if !bytes.starts_with(&LEGACY_START) {
        return Err(refused("the pickle is not PyTorch's: expected a checkpoint made by torch.save".to_owned()));
    }
    let mut reader = Reader::new(bytes, "the checkpoint");
    for _ in 0..LEGACY_PREFIX {
        pickle::read(&mut reader)?;
    }
    let (values, root) = pickle::read(&mut reader)?;
    let described = describe(&values, root)?;
    let (keys, list) = pickle::read(&mut reader)?;
    let Value::List(list) = keys.get(list) else {
        return Err(refused("the checkpoint has no list of storages where one is expected".to_owned()));
    };
    refuse_crowd("storages", list.len())?;
    let kinds: HashMap<&str, Kind> = described.iter().map(|tensor| (tensor.storage.as_str(), tensor.kind)).collect();
    let mut storages = HashMap::new();
    for key in list {
        let Value::Text(key) = keys.get(*key) else {
            return Err(refused("the checkpoint names a storage by no text".to_owned()));
        };
        let elements = reader.u64()?;
        let size = kinds.get(key.as_str()).map_or(8, |kind| kind.size());
        let len = usize::try_from(elements).ok().and_then(|elements| elements.checked_mul(size));
        // A storage that no kept tensor lies in (a counter) has 64-bit numbers.
        let len = len.ok_or_else(|| refused(format!("storage {key} of {elements} elements is too large")))?;
        storages.insert(key.as_str(), reader.take(len)?);
    }
    load(&described, |storage| {
        storages.get(storage).copied().ok_or_else(|| refused(format!("the checkpoint has no storage {storage}")))
    })
}

fn load<'a>(
    described: &[Described],
    storage: impl Fn(&str) -> Result<&'a [u8], ModelError>,
) -> Result<Weights, ModelError> {
    let mut weights = Weights::new();
    for tensor in described {
        let size = tensor.kind.size();
        let bytes = storage(&tensor.storage)?;
        let range =
            tensor.offset.checked_mul(size).and_then(|start| Some(start..start.checked_add(tensor.elements * size)?));
        let bytes = range.and_then(|range| bytes.get(range)).ok_or_else(|| {
            refused(format!("tensor {} does not lie within its storage: is the file truncated?", tensor.name))
        })?;
        let values = bytes.chunks_exact(size).map(|chunk| tensor.kind.value(chunk)).collect();
        weights.insert(tensor.name.clone(), Weight { shape: tensor.shape.clone(), values });
    }
    Ok(weights)
}

/// Lists the tensors of the state dictionary, which may lie in a dictionary of a training's state.
fn describe(values: &Values, root: Id) -> Result<Vec<Described>, ModelError> {
    let mut dict = dict_of(values, root)?;
    let nested = dict.iter().find(|(key, value)| {
        let wanted = matches!(values.get(*key), Value::Text(key) if ["state_dict", "model", "model_state_dict"].contains(&key.as_str()));
        wanted && matches!(values.get(*value), Value::Dict(_))
    });
    if let Some((_, nested)) = nested {
        dict = dict_of(values, *nested)?;
    }
    refuse_crowd("entries", dict.len())?;
    let (mut described, mut room) = (Vec::new(), Room::new());
    for (key, value) in dict {
        let (Value::Text(name), Value::Tensor(arguments)) = (values.get(*key), values.get(*value)) else { continue };
        if IGNORED.iter().any(|ignored| name.ends_with(ignored)) {
            continue;
        }
        refuse_long(name)?;
        described.push(described_tensor(values, own_name(name), arguments, &mut room)?);
    }
    if described.is_empty() {
        return Err(refused("the checkpoint's dictionary holds no tensor: expected a state dictionary".to_owned()));
    }
    Ok(described)
}

fn refuse_crowd(what: &str, count: usize) -> Result<(), ModelError> {
    if count > ENTRIES_MAX {
        return Err(refused(format!(
            "the checkpoint has {count} {what}, expected at most {ENTRIES_MAX}: is it a style network's?"
        )));
    }
    Ok(())
}

/// A name is copied for every entry that has it.
fn refuse_long(name: &str) -> Result<(), ModelError> {
    if name.len() > NAME_BYTES_MAX {
        let len = name.len();
        return Err(refused(format!("the checkpoint has a name of {len} bytes, expected at most {NAME_BYTES_MAX}")));
    }
    Ok(())
}

fn dict_of(values: &Values, id: Id) -> Result<&[(Id, Id)], ModelError> {
    match values.get(id) {
        Value::Dict(pairs) => Ok(pairs),
        _ => Err(refused("the checkpoint holds no dictionary: expected torch.save(net.state_dict(), ...)".to_owned())),
    }
}

/// The name in a style file: without the wrapper for several GPUs, norms as newer versions call their parts.
fn own_name(name: &str) -> String {
    let name = name.strip_prefix("module.").unwrap_or(name);
    match name.rsplit_once('.') {
        Some((layer, "scale")) => format!("{layer}.weight"),
        Some((layer, "shift")) => format!("{layer}.bias"),
        _ => name.to_owned(),
    }
}

fn described_tensor(values: &Values, name: String, arguments: &[Id], room: &mut Room) -> Result<Described, ModelError> {
    let damaged = |what: &str| refused(format!("tensor {name} of the checkpoint is damaged: {what}"));
    let [storage, offset, shape, stride, ..] = arguments else { return Err(damaged("too few arguments")) };
    let Value::Persistent(storage) = values.get(*storage) else { return Err(damaged("it has no storage")) };
    let Value::Tuple(storage) = values.get(*storage) else { return Err(damaged("its storage is no tuple")) };
    let [_, kind, key, ..] = storage.as_slice() else { return Err(damaged("its storage has too few parts")) };
    let (Value::Global(kind), Value::Text(key)) = (values.get(*kind), values.get(*key)) else {
        return Err(damaged("its storage has no type or no key"));
    };
    refuse_long(key)?;
    let kind = match kind.as_str() {
        "torch DoubleStorage" => Kind::F64,
        "torch FloatStorage" => Kind::F32,
        "torch HalfStorage" => Kind::F16,
        "torch BFloat16Storage" => Kind::Bf16,
        other => return Err(damaged(&format!("its type is {other}, expected floating-point numbers"))),
    };
    let Value::Int(offset) = values.get(*offset) else { return Err(damaged("its offset is no number")) };
    let offset = usize::try_from(*offset).map_err(|_| damaged("its offset is negative"))?;
    let shape = sizes(values, *shape).ok_or_else(|| damaged("its shape is no tuple of at most 8 sizes"))?;
    let stride = sizes(values, *stride).ok_or_else(|| damaged("its strides are no tuple of at most 8 sizes"))?;
    if !is_contiguous(&shape, &stride) {
        return Err(damaged("its elements do not lie in order: save a contiguous tensor"));
    }
    let elements = room.take(&name, &shape)?;
    Ok(Described { storage: key.clone(), kind, offset, shape, elements, name })
}

fn sizes(values: &Values, id: Id) -> Option<Vec<usize>> {
    let Value::Tuple(items) = values.get(id) else { return None };
    let size = |id: &Id| match values.get(*id) {
        Value::Int(size) => usize::try_from(*size).ok(),
        _ => None,
    };
    if items.len() > DIMENSIONS_MAX {
        return None;
    }
    items.iter().map(size).collect()
}

fn is_contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.len() == stride.len()
        && shape.iter().zip(stride).rev().all(|(&side, &step)| {
            let fits = side == 1 || step == expected;
            expected = expected.saturating_mul(side);
            fits
        })
}
