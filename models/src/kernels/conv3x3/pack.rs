//! Weights of a 3x3 convolution, transformed and laid out for the products.

use super::super::isa::Isa;
use super::super::product::pack_columns;
use super::super::reduced::{ReducedWeights, Shape};
use super::super::scheme::{Scheme, filter_square};
use crate::weights::ConvWeights;

/// Packs position by position: `[position][panel][in][panel width]`.
pub(super) fn pack<S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize>(
    isa: Isa,
    weights: &ConvWeights,
) -> Vec<f32>
where
    S: Scheme<IN, SIDES, POS, OUT>,
{
    let (ins, outs) = (weights.in_channels, weights.out_channels);
    let transformed = transform::<S, IN, SIDES, POS, OUT>(weights);
    let mut packed = Vec::with_capacity(POS * POS * ins * outs.next_multiple_of(isa.lanes()));
    for q in 0..POS {
        for p in 0..POS {
            let value = |k: usize, column: usize| transformed[column * ins + k][q][p] as f32;
            pack_columns(ins, outs, isa.lanes(), value, &mut packed);
        }
    }
    packed
}

/// As [`pack`] in 16-bit integers.
pub(super) fn pack_reduced<S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize>(
    isa: Isa,
    weights: &ConvWeights,
    peaks: &[f32],
) -> ReducedWeights
where
    S: Scheme<IN, SIDES, POS, OUT>,
{
    assert_eq!(peaks.len(), SIDES * SIDES, "peaks");
    let (ins, outs) = (weights.in_channels, weights.out_channels);
    let transformed = transform::<S, IN, SIDES, POS, OUT>(weights);
    let sides: Vec<usize> = (0..POS * POS).map(|at| S::SIDE[at / POS] * SIDES + S::SIDE[at % POS]).collect();
    let shape = Shape { isa, ins, outs, sides: &sides, peaks };
    ReducedWeights::pack(&shape, |at, input, out| transformed[out * ins + input][at / POS][at % POS])
}

/// Transforms the kernels `[out][in]`.
fn transform<S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize>(
    weights: &ConvWeights,
) -> Vec<[[f64; POS]; POS]>
where
    S: Scheme<IN, SIDES, POS, OUT>,
{
    let kernels = weights.kernel.chunks_exact(9);
    let square = |k: &[f32]| {
        let row = |r: usize| [f64::from(k[3 * r]), f64::from(k[3 * r + 1]), f64::from(k[3 * r + 2])];
        filter_square::<S, IN, SIDES, POS, OUT>([row(0), row(1), row(2)])
    };
    kernels.map(square).collect()
}
