//! Minimal filtering along one axis: the transforms of a tile's input, of its products, and of the weights.
//!
//! Each scheme evaluates `OUT` neighbouring outputs of a 3-tap convolution with `POS` products. In two dimensions a
//! transform is applied along both axes. The polynomials are taken at 0, 1, -1, 2 (and -2) and infinity.

#![allow(unsafe_code)]

use super::vector::Vector;

/// Transforms of a tile along one axis: `IN` samples become `SIDES` values; `POS` products (several may take the same
/// value) become `OUT` outputs.
///
/// # Safety
/// The vector functions must only be called with `V`'s instructions enabled.
pub(crate) trait Scheme<const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize> {
    /// Input samples from one tile to the next.
    const ADVANCE: usize;
    /// Input samples before the tile's first one.
    const LEAD: usize;
    /// Whether samples outside are the border's (else they are mirrored).
    const CLAMPS: bool;
    /// Which transformed value each product takes.
    const SIDE: [usize; POS];

    /// Transforms samples.
    unsafe fn input<V: Vector>(x: [V; IN]) -> [V; SIDES];
    /// Transforms products to outputs.
    unsafe fn output<V: Vector>(m: [V; POS]) -> [V; OUT];
    /// Transforms the three taps.
    fn filter(w: [f64; 3]) -> [f64; POS];
}

/// Stride 1: F(4, 3).
pub(crate) struct Same;

impl Scheme<6, 6, 6, 4> for Same {
    const ADVANCE: usize = 4;
    const LEAD: usize = 1;
    const CLAMPS: bool = false;
    const SIDE: [usize; 6] = [0, 1, 2, 3, 4, 5];

    #[inline(always)]
    unsafe fn input<V: Vector>(x: [V; 6]) -> [V; 6] {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let (two, four, five) = (V::splat(2.0), V::splat(4.0), V::splat(5.0));
            let even = x[2].neg_mul_add(four, x[4]);
            let odd = x[1].neg_mul_add(four, x[3]);
            let near = x[4].sub(x[2]);
            let far = x[3].sub(x[1]);
            [
                x[0].mul_add(four, x[2].neg_mul_add(five, x[4])),
                even.add(odd),
                even.sub(odd),
                far.mul_add(two, near),
                far.neg_mul_add(two, near),
                x[1].mul_add(four, x[3].neg_mul_add(five, x[5])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(m: [V; 6]) -> [V; 4] {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
            let (sum1, difference1) = (m[1].add(m[2]), m[1].sub(m[2]));
            let (sum2, difference2) = (m[3].add(m[4]), m[3].sub(m[4]));
            [
                m[0].add(sum1).add(sum2),
                difference2.mul_add(two, difference1),
                sum2.mul_add(four, sum1),
                difference2.mul_add(eight, difference1).add(m[5]),
            ]
        }
    }

    fn filter(w: [f64; 3]) -> [f64; 6] {
        [
            w[0] / 4.0,
            -(w[0] + w[1] + w[2]) / 6.0,
            -(w[0] - w[1] + w[2]) / 6.0,
            w[0] / 24.0 + w[1] / 12.0 + w[2] / 6.0,
            w[0] / 24.0 - w[1] / 12.0 + w[2] / 6.0,
            w[2],
        ]
    }
}

/// Stride 1 after repeating every sample: F(4, 3) on a, b, b, c, c, d.
///
/// The value at -1 vanishes, and those at 2 and -2 are both multiples of c - b: their sum and difference are taken as
/// the two products instead, so four values serve five products.
pub(crate) struct Up;

impl Scheme<4, 4, 5, 4> for Up {
    const ADVANCE: usize = 2;
    const LEAD: usize = 1;
    const CLAMPS: bool = true;
    const SIDE: [usize; 5] = [0, 1, 2, 2, 3];

    #[inline(always)]
    unsafe fn input<V: Vector>(x: [V; 4]) -> [V; 4] {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let (four, five) = (V::splat(4.0), V::splat(5.0));
            [
                x[0].mul_add(four, x[1].neg_mul_add(five, x[2])),
                x[1].neg_mul_add(four, x[2]),
                x[2].sub(x[1]),
                x[1].mul_add(four, x[2].neg_mul_add(five, x[3])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(m: [V; 5]) -> [V; 4] {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
            [
                m[0].add(m[1]).add(m[2]),
                m[3].mul_add(two, m[1]),
                m[2].mul_add(four, m[1]),
                m[3].mul_add(eight, m[1]).add(m[4]),
            ]
        }
    }

    fn filter(w: [f64; 3]) -> [f64; 5] {
        [
            w[0] / 4.0,
            -(w[0] + w[1] + w[2]) / 3.0,
            w[0] / 12.0 + (w[1] + w[2]) / 3.0,
            (w[0] + w[1]) / 6.0 + w[2] * (2.0 / 3.0),
            w[2],
        ]
    }
}

/// Stride 2: the outer taps see the odd samples as F(4, 2), the middle tap the even ones as they are.
pub(crate) struct Down;

impl Scheme<9, 9, 9, 4> for Down {
    const ADVANCE: usize = 8;
    const LEAD: usize = 1;
    const CLAMPS: bool = false;
    const SIDE: [usize; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

    #[inline(always)]
    unsafe fn input<V: Vector>(x: [V; 9]) -> [V; 9] {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let outer = five_points([x[0], x[2], x[4], x[6], x[8]]);
            [outer[0], outer[1], outer[2], outer[3], outer[4], x[1], x[3], x[5], x[7]]
        }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(m: [V; 9]) -> [V; 4] {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
            let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
            [
                m[0].add(sum).add(m[3]).add(m[5]),
                m[3].mul_add(two, difference).add(m[6]),
                m[3].mul_add(four, sum).add(m[7]),
                m[3].mul_add(eight, difference).add(m[4]).add(m[8]),
            ]
        }
    }

    fn filter(w: [f64; 3]) -> [f64; 9] {
        let (first, last) = (w[0], w[2]);
        [
            first / 2.0,
            -(first + last) / 2.0,
            -(first - last) / 6.0,
            (first + 2.0 * last) / 6.0,
            last,
            w[1],
            w[1],
            w[1],
            w[1],
        ]
    }
}

/// F(3, 3), the step of the 9x9 convolutions: a kernel of nine taps is three of three, three samples apart.
pub(crate) struct Nested;

impl Scheme<5, 5, 5, 3> for Nested {
    const ADVANCE: usize = 3;
    const LEAD: usize = 4;
    const CLAMPS: bool = false;
    const SIDE: [usize; 5] = [0, 1, 2, 3, 4];

    #[inline(always)]
    unsafe fn input<V: Vector>(x: [V; 5]) -> [V; 5] {
        // SAFETY: the caller promises the instructions.
        unsafe { five_points(x) }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(m: [V; 5]) -> [V; 3] {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let (two, four) = (V::splat(2.0), V::splat(4.0));
            let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
            [m[0].add(sum).add(m[3]), m[3].mul_add(two, difference), m[3].mul_add(four, sum).add(m[4])]
        }
    }

    fn filter(w: [f64; 3]) -> [f64; 5] {
        [
            w[0] / 2.0,
            -(w[0] + w[1] + w[2]) / 2.0,
            -(w[0] - w[1] + w[2]) / 6.0,
            (w[0] + 2.0 * w[1] + 4.0 * w[2]) / 6.0,
            w[2],
        ]
    }
}

/// Five samples at the points 0, 1, -1, 2 and infinity.
///
/// # Safety
/// `V`'s instructions must be enabled.
#[inline(always)]
unsafe fn five_points<V: Vector>(x: [V; 5]) -> [V; 5] {
    // SAFETY: the caller promises the instructions.
    unsafe {
        let (two, three) = (V::splat(2.0), V::splat(3.0));
        let outer = x[3].sub(x[1]);
        [
            x[0].sub(x[2]).mul_add(two, outer),
            x[1].neg_mul_add(two, x[3].sub(x[2])),
            x[1].mul_add(two, x[2].neg_mul_add(three, x[3])),
            outer,
            outer.neg_mul_add(two, x[4].sub(x[2])),
        ]
    }
}

/// Transforms a 3x3 kernel given by rows to `POS * POS` weights.
pub(crate) fn filter_square<S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize>(
    kernel: [[f64; 3]; 3],
) -> [[f64; POS]; POS]
where
    S: Scheme<IN, SIDES, POS, OUT>,
{
    let rows = kernel.map(S::filter);
    let mut square = [[0.0; POS]; POS];
    for p in 0..POS {
        let column = S::filter([rows[0][p], rows[1][p], rows[2][p]]);
        for q in 0..POS {
            square[q][p] = column[q];
        }
    }
    square
}

#[cfg(test)]
mod tests {
    use super::super::vector::Portable;
    use super::*;
    use proptest::prelude::*;

    fn lane(value: Portable) -> f32 {
        let mut out = [0.0; 4];
        // SAFETY: portable code needs no instructions, and `out` has four values.
        unsafe { value.store(out.as_mut_ptr()) };
        out[0]
    }

    fn filtered<S, const IN: usize, const SIDES: usize, const POS: usize, const OUT: usize>(
        x: &[f32],
        w: [f32; 3],
    ) -> Vec<f32>
    where
        S: Scheme<IN, SIDES, POS, OUT>,
    {
        let weights = S::filter(w.map(f64::from));
        // SAFETY: portable code needs no instructions.
        unsafe {
            let mut samples = [Portable::zero(); IN];
            for (sample, &x) in samples.iter_mut().zip(x) {
                *sample = Portable::splat(x);
            }
            let sides = S::input(samples);
            let mut products = [Portable::zero(); POS];
            for p in 0..POS {
                products[p] = sides[S::SIDE[p]].mul_add(Portable::splat(weights[p] as f32), Portable::zero());
            }
            S::output(products).iter().map(|&value| lane(value)).collect()
        }
    }

    fn assert_close(found: &[f32], expected: &[f32]) -> Result<(), TestCaseError> {
        for (found, expected) in found.iter().zip(expected) {
            prop_assert!((found - expected).abs() < 2e-4, "{found} for {expected}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn each_scheme_is_its_convolution(x in prop::array::uniform9(-2.0f32..2.0), w in prop::array::uniform3(-2.0f32..2.0)) {
            let tap = |at: usize| w[0] * x[at] + w[1] * x[at + 1] + w[2] * x[at + 2];
            assert_close(&filtered::<Same, 6, 6, 6, 4>(&x[..6], w), &[tap(0), tap(1), tap(2), tap(3)])?;
            assert_close(&filtered::<Nested, 5, 5, 5, 3>(&x[..5], w), &[tap(0), tap(1), tap(2)])?;
            assert_close(&filtered::<Down, 9, 9, 9, 4>(&x, w), &[tap(0), tap(2), tap(4), tap(6)])?;
            let repeated = [x[0], x[1], x[1], x[2], x[2], x[3]];
            let tap = |at: usize| w[0] * repeated[at] + w[1] * repeated[at + 1] + w[2] * repeated[at + 2];
            assert_close(&filtered::<Up, 4, 4, 5, 4>(&x[..4], w), &[tap(0), tap(1), tap(2), tap(3)])?;
        }
    }
}
