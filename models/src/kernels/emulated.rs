//! The geometry of AVX-512 in plain Rust, so that its layouts, strips and register blocks are tested everywhere.

#![allow(unsafe_code)]

use super::vector::Vector;

/// Sixteen lanes.
#[derive(Clone, Copy)]
pub(crate) struct Emulated([f32; 16]);

impl Emulated {
    fn zip(self, other: Self, op: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| op(self.0[lane], other.0[lane])))
    }
}

super::pairs::plain_pairs!(Emulated, 16);

impl Vector for Emulated {
    const LANES: usize = 16;
    const BLOCK_ROWS: usize = 12;

    unsafe fn splat(value: f32) -> Self {
        Self([value; 16])
    }
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises sixteen readable values; alignment is not assumed.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises sixteen writable values; alignment is not assumed.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        self.zip(factor, |a, b| a * b).zip(summand, |a, b| a + b)
    }
    unsafe fn neg_mul_add(self, factor: Self, summand: Self) -> Self {
        summand.zip(self.zip(factor, |a, b| a * b), |a, b| a - b)
    }

    super::product::register_blocks!(12);

    unsafe fn transpose(rows: &mut [Self; 16]) {
        let copy = *rows;
        for (r, row) in rows.iter_mut().enumerate() {
            *row = Self(std::array::from_fn(|lane| copy[lane].0[r]));
        }
    }
}
