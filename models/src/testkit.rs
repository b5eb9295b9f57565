//! Seeded weights and pictures for the tests of this crate.

use crate::weights::{NetShape, StyleWeights};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;

/// A small deterministic generator (splitmix64): tests name a seed, not a package.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform on -1..1.
    pub(crate) fn next_f32(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next_f32()).collect()
    }
}

/// The tensors of a random network, by name: shape and little-endian f32 bytes.
pub(crate) fn random_tensors(shape: &NetShape, seed: u64) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let mut random = Seeded(seed);
    let tensors = shape.tensors().into_iter().map(|(name, dims)| {
        let fan_in: usize = dims.iter().skip(1).product();
        let scale = (2.0 / fan_in as f32).sqrt();
        let norm_scale = name.contains(".in") || name.starts_with("in");
        let values = random
            .values(dims.iter().product())
            .into_iter()
            .map(|value| if norm_scale && name.ends_with("weight") { 1.0 + 0.3 * value } else { value * scale });
        let bytes = values.flat_map(f32::to_le_bytes).collect();
        (name, (dims, bytes))
    });
    tensors.collect()
}

/// Serializes tensors of one type as a safetensors file.
pub(crate) fn serialize(tensors: &BTreeMap<String, (Vec<usize>, Vec<u8>)>, dtype: Dtype) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, (dims, bytes))| (name.clone(), TensorView::new(dtype, dims.clone(), bytes).unwrap()));
    safetensors::tensor::serialize(views, None).unwrap()
}

/// Makes a network of random weights.
pub(crate) fn random_weights(shape: &NetShape, seed: u64) -> StyleWeights {
    StyleWeights::load(&serialize(&random_tensors(shape, seed), Dtype::F32)).unwrap()
}
