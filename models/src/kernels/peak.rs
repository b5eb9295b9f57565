//! The processor's own limit, for benches that give speeds as a share of it.

#![allow(unsafe_code)]

use super::isa::{Isa, Kernel};
use super::vector::Vector;

/// Sums that keep both multiply-add units busy.
const SUMS: usize = 12;

struct Rounds {
    rounds: usize,
    factor: f32,
    out: *mut f32,
}

impl Kernel for Rounds {
    /// # Safety
    /// `out` must be writable for 16 values.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's promise; nothing but registers is used until the end.
        unsafe {
            let factor = V::splat(self.factor);
            let mut sums = [factor; SUMS];
            for _ in 0..self.rounds {
                for sum in &mut sums {
                    *sum = sum.mul_add(factor, factor);
                }
            }
            let mut total = sums[0];
            for sum in &sums[1..] {
                total = total.add(*sum);
            }
            total.store(self.out);
        }
    }
}

/// Does nothing but multiply-adds in registers and returns how many floating-point operations it did.
///
/// # Panics
/// Where this processor lacks the set.
pub fn multiply_adds(isa: Isa, rounds: usize) -> u64 {
    assert!(Isa::available().contains(&isa), "{isa} is not available here");
    let mut out = [0.0f32; 16];
    let kernel = Rounds { rounds, factor: std::hint::black_box(0.5), out: out.as_mut_ptr() };
    // SAFETY: the set is available and `out` has 16 values.
    unsafe { isa.run(kernel) };
    std::hint::black_box(out);
    (rounds * SUMS * isa.lanes() * 2) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted() {
        for isa in Isa::available() {
            assert_eq!(multiply_adds(isa, 10), 10 * 24 * isa.lanes() as u64);
        }
    }
}
