//! Tests of reading style files: what is accepted, and what is refused with which words.

use super::*;
use crate::testkit::{random_tensors, serialize};
use proptest::prelude::*;

const SMALL: NetShape = NetShape { down: [2, 3, 5], blocks: 2, up: [4, 3] };

#[test]
fn the_published_network_has_the_published_size() {
    let paper = NetShape { down: [32, 64, 128], blocks: 5, up: [64, 32] };
    assert_eq!(paper.parameters(), 1_679_235);
}

#[test]
fn widths_and_depth_are_read_from_the_shapes() {
    let bytes = serialize(&random_tensors(&SMALL, 1), Dtype::F32);
    let weights = StyleWeights::load(&bytes).unwrap();
    assert_eq!(weights.shape(), SMALL);
    assert_eq!(weights.digest(), *blake3::hash(&bytes).as_bytes());
    let conv = weights.conv("res2.conv1").unwrap();
    assert_eq!((conv.out_channels, conv.in_channels, conv.kernel_size), (5, 5, 3));
    assert_eq!(weights.norm("in4").unwrap().scale.len(), 4);
    assert_eq!(weights.describe().digest.len(), 64);
}

#[test]
fn half_precision_is_widened() {
    let shape = NetShape { down: [1, 1, 1], blocks: 0, up: [1, 1] };
    for (dtype, one) in [(Dtype::F16, [0x00, 0x3c]), (Dtype::BF16, [0x80, 0x3f])] {
        let mut tensors = random_tensors(&shape, 1);
        for (dims, bytes) in tensors.values_mut() {
            *bytes = one.repeat(dims.iter().product());
        }
        let weights = StyleWeights::load(&serialize(&tensors, dtype)).unwrap();
        assert!(weights.conv("conv1").unwrap().kernel.iter().all(|&value| value == 1.0), "{dtype:?}");
    }
}

fn check_refused(change: impl FnOnce(&mut BTreeMap<String, (Vec<usize>, Vec<u8>)>), expected: &str) {
    let mut tensors = random_tensors(&SMALL, 1);
    change(&mut tensors);
    let error = StyleWeights::load(&serialize(&tensors, Dtype::F32)).unwrap_err();
    assert_eq!(error.kind(), crate::ModelErrorKind::Weights);
    let message = error.to_string();
    assert!(message.contains(expected), "{message:?} should contain {expected:?}");
}

#[test]
fn wrong_tensors_are_named() {
    check_refused(|t| drop(t.remove("conv2.conv2d.weight")), "no tensor conv2.conv2d.weight");
    check_refused(|t| drop(t.remove("res2.in1.bias")), "no tensor res2.in1.bias");
    check_refused(
        |t| drop(t.insert("in3.weight".into(), (vec![6], vec![0; 24]))),
        "tensor in3.weight has shape [6], expected [5]",
    );
    check_refused(
        |t| drop(t.insert("conv1.conv2d.weight".into(), (vec![2, 3, 9], vec![0; 216]))),
        "expected four dimensions",
    );
    check_refused(
        |t| drop(t.insert("deconv3.conv2d.weight".into(), (vec![4, 3, 9, 9], vec![0; 3888]))),
        "expected [3, 3, 9, 9]",
    );
    check_refused(
        |t| t.get_mut("res1.conv1.conv2d.bias").unwrap().1[..4].copy_from_slice(&f32::NAN.to_le_bytes()),
        "tensor res1.conv1.conv2d.bias holds NaN at element 0",
    );
}

#[test]
fn integers_are_no_weights() {
    let error = StyleWeights::load(&serialize(&random_tensors(&SMALL, 1), Dtype::I32)).unwrap_err();
    assert!(error.to_string().contains("expected f32, f16 or bf16"), "{error}");
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"GIF89a", b"\x89PNG\r\n\x1a\n0000000000000000", &[0xff; 64], &[0; 8]] {
        assert!(StyleWeights::load(bytes).is_err(), "{bytes:?}");
    }
    let bytes = serialize(&random_tensors(&SMALL, 1), Dtype::F32);
    assert!(StyleWeights::load(&bytes[..bytes.len() - 1]).is_err(), "a truncated file");
}

proptest! {
    /// No damage to the header makes loading panic or reach outside the file.
    #[test]
    fn damaged_headers_never_panic(at in 0usize..2000, byte in any::<u8>(), cut in 0usize..3000) {
        let mut bytes = serialize(&random_tensors(&SMALL, 1), Dtype::F32);
        let at = at.min(bytes.len() - 1);
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut);
        let _ = StyleWeights::load(&bytes);
    }
}
