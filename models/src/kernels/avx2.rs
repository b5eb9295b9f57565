//! AVX2 with FMA: eight lanes, sixteen registers.

#![allow(unsafe_code)]
#![cfg(target_arch = "x86_64")]

use super::isa::Kernel;
use super::pairs::Pairs;
use super::vector::Vector;
use std::arch::x86_64::*;

/// One `ymm` register.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// Runs a kernel with AVX2 and FMA enabled.
///
/// # Safety
/// The processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn enter<K: Kernel>(kernel: K) {
    // SAFETY: the instructions are enabled here, and the processor has them.
    unsafe { kernel.run::<Avx2>() }
}

// SAFETY of the intrinsics below: as for `Vector`; pairs and results are the bytes that the caller promises.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Pairs for Avx2 {
    type Register = __m256i;

    #[inline(always)]
    unsafe fn no_sums() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const i16) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const i16) -> __m256i {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_products(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }
    #[inline(always)]
    unsafe fn to_float(sums: __m256i) -> Self {
        Self(unsafe { _mm256_cvtepi32_ps(sums) })
    }
    #[inline(always)]
    unsafe fn store_rounded(self, to: *mut i16) {
        unsafe {
            // Limited as float, since the conversion gives the least integer for whatever does not fit.
            let limited = _mm256_min_ps(_mm256_max_ps(self.0, _mm256_set1_ps(-32768.0)), _mm256_set1_ps(32767.0));
            let rounded = _mm256_cvtps_epi32(limited);
            let packed = _mm256_packs_epi32(rounded, rounded);
            let joined = _mm256_permute4x64_epi64::<0b1000>(packed);
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(joined));
        }
    }
}

// SAFETY of the intrinsics below: each needs AVX2 or FMA alone, which the caller of a `Vector` function promises;
// loads and stores touch the eight values that the caller promises.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Avx2 {
    const LANES: usize = 8;
    const BLOCK_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, summand.0) })
    }
    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, summand: Self) -> Self {
        Self(unsafe { _mm256_fnmadd_ps(self.0, factor.0, summand.0) })
    }

    super::product::register_blocks!(6);

    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; 16]) {
        unsafe {
            let mut pairs = [rows[0].0; 8];
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i].0, rows[2 * i + 1].0);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i].0, rows[2 * i + 1].0);
            }
            let mut quads = [rows[0].0; 8];
            for i in 0..2 {
                let p = 4 * i;
                quads[p] = _mm256_shuffle_ps::<0x44>(pairs[p], pairs[p + 2]);
                quads[p + 1] = _mm256_shuffle_ps::<0xee>(pairs[p], pairs[p + 2]);
                quads[p + 2] = _mm256_shuffle_ps::<0x44>(pairs[p + 1], pairs[p + 3]);
                quads[p + 3] = _mm256_shuffle_ps::<0xee>(pairs[p + 1], pairs[p + 3]);
            }
            for i in 0..4 {
                rows[i] = Self(_mm256_permute2f128_ps::<0x20>(quads[i], quads[i + 4]));
                rows[i + 4] = Self(_mm256_permute2f128_ps::<0x31>(quads[i], quads[i + 4]));
            }
        }
    }
}
