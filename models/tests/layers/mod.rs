//! Convolutions of every kind that training makes, for tests of the operation.

use restyle_models::train::conv::ConvSpec;

/// (input channels, output channels, kernel, spec, height, width)
pub(crate) type Layer = (usize, usize, usize, ConvSpec, usize, usize);

/// One of each kind, of odd and even sides.
pub(crate) fn layers() -> Vec<Layer> {
    let plain = ConvSpec::TRAINED;
    let relu = ConvSpec { relu: true, ..plain };
    let half = ConvSpec { stride: 2, ..plain };
    let double = ConvSpec { upsample: 2, ..plain };
    vec![
        (3, 5, 9, plain, 17, 26),
        (4, 3, 9, plain, 12, 31),
        (5, 8, 3, half, 16, 20),
        (5, 6, 3, half, 15, 13),
        (6, 6, 3, plain, 9, 33),
        (6, 4, 3, double, 7, 9),
        (4, 8, 3, relu, 10, 24),
        (3, 2, 1, relu, 5, 8),
    ]
}
