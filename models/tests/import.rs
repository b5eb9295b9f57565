//! Conversion of PyTorch checkpoints and ONNX graphs, on files that Python's pickler and the onnx package wrote
//! (`tests/import/make.py`), whole, cut off and damaged.

use restyle_models::StyleWeights;
use restyle_models::import::convert;

const FILES: [(&str, &[u8]); 4] = [
    ("zip.pth", include_bytes!("import/zip.pth")),
    ("half-nested.pth", include_bytes!("import/half-nested.pth")),
    ("legacy.pth", include_bytes!("import/legacy.pth")),
    ("graph.onnx", include_bytes!("import/graph.onnx")),
];

/// The order in which the script numbers the values of the whole state.
fn names() -> Vec<String> {
    let layers = ["conv1", "conv2", "conv3", "res1.conv1", "res1.conv2", "deconv1", "deconv2", "deconv3"];
    let norms = ["in1", "in2", "in3", "res1.in1", "res1.in2", "in4", "in5"];
    let mut names = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        names.extend([format!("{layer}.conv2d.weight"), format!("{layer}.conv2d.bias")]);
        if let Some(norm) = norms.get(index) {
            names.extend([format!("{norm}.weight"), format!("{norm}.bias")]);
        }
    }
    names
}

#[test]
fn every_value_comes_to_its_place() {
    for (file, bytes) in FILES {
        let weights = StyleWeights::load(&convert(bytes).unwrap_or_else(|e| panic!("{file}: {e}"))).unwrap();
        let mut number = 0;
        for name in names() {
            for value in weights.tensor(&name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap() {
                assert_eq!(value, (number % 256) as f32 / 64.0 - 2.0, "{file}: {name}, value {number} of the state");
                number += 1;
            }
        }
        assert_eq!(number, 1653, "{file}: values of the state");
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    for (file, bytes) in FILES {
        for length in 0..bytes.len() {
            assert!(convert(&bytes[..length]).is_err(), "{file}: {length} of {} bytes were taken", bytes.len());
        }
    }
}

#[test]
fn damage_never_panics() {
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % below
    };
    let mut refused = 0;
    for (_, bytes) in FILES {
        for _ in 0..3000 {
            let mut damaged = bytes.to_vec();
            for _ in 0..=random(3) {
                // Headers lie at the front and, in an archive, at the end.
                let reach = if random(2) == 0 { 1500.min(damaged.len()) } else { damaged.len() };
                let at = if random(2) == 0 { random(reach) } else { damaged.len() - 1 - random(reach) };
                damaged[at] = [0, 0xff, 0x7f, 0x80, random(256) as u8][random(5)];
            }
            refused += usize::from(convert(&damaged).is_err());
        }
    }
    assert!(refused > 1000, "{refused} damaged files were refused");
}

#[test]
fn no_pickle_is_run() {
    let error = convert(include_bytes!("import/hostile.pth")).unwrap_err().to_string();
    assert!(error.contains("would call posix system"), "{error}");
    assert!(!std::path::Path::new("pickle-was-run").exists());
}

#[test]
fn other_files_are_named() {
    for (bytes, expected) in [
        (&b""[..], "neither a PyTorch checkpoint"),
        (b"GIF89a", "neither a PyTorch checkpoint"),
        (b"PK\x03\x04 and nothing else", "no directory"),
        (b"\x80\x02}q\x00.", "not PyTorch's"),
        (b"\x08\x07", "missing"),
    ] {
        let error = convert(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
    }
}
