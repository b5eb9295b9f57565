//! AVX-512F: sixteen lanes, thirty-two registers.

#![allow(unsafe_code)]
#![cfg(target_arch = "x86_64")]

use super::isa::Kernel;
use super::pairs::Pairs;
use super::vector::Vector;
use std::arch::x86_64::*;

/// One `zmm` register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// Runs a kernel with AVX-512F enabled.
///
/// # Safety
/// The processor must have AVX-512F, AVX-512BW, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
pub(crate) unsafe fn enter<K: Kernel>(kernel: K) {
    // SAFETY: the instructions are enabled here, and the processor has them.
    unsafe { kernel.run::<Avx512>() }
}

// SAFETY of the intrinsics below: as for `Vector`, with AVX-512BW for the products; pairs and results are the bytes that
// the caller promises.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Pairs for Avx512 {
    type Register = __m512i;

    #[inline(always)]
    unsafe fn no_sums() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const i16) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const i16) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_products(sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(a, b)) }
    }
    #[inline(always)]
    unsafe fn to_float(sums: __m512i) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(sums) })
    }
    #[inline(always)]
    unsafe fn store_rounded(self, to: *mut i16) {
        unsafe {
            // Limited as float, since the conversion gives the least integer for whatever does not fit.
            let limited = _mm512_min_ps(_mm512_max_ps(self.0, _mm512_set1_ps(-32768.0)), _mm512_set1_ps(32767.0));
            _mm256_storeu_si256(to.cast(), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(limited)));
        }
    }
}

// SAFETY of the intrinsics below: each needs AVX-512F alone, which the caller of a `Vector` function promises;
// loads and stores touch the sixteen values that the caller promises.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Avx512 {
    const LANES: usize = 16;
    const BLOCK_ROWS: usize = 12;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, summand.0) })
    }
    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, summand: Self) -> Self {
        Self(unsafe { _mm512_fnmadd_ps(self.0, factor.0, summand.0) })
    }

    super::product::register_blocks!(12);

    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; 16]) {
        unsafe {
            // Within blocks of 4x4, as for eight lanes; then the blocks among themselves.
            let mut quads = [rows[0].0; 16];
            for i in 0..4 {
                let p = 4 * i;
                let low =
                    [_mm512_unpacklo_ps(rows[p].0, rows[p + 1].0), _mm512_unpacklo_ps(rows[p + 2].0, rows[p + 3].0)];
                let high =
                    [_mm512_unpackhi_ps(rows[p].0, rows[p + 1].0), _mm512_unpackhi_ps(rows[p + 2].0, rows[p + 3].0)];
                quads[p] = _mm512_shuffle_ps::<0x44>(low[0], low[1]);
                quads[p + 1] = _mm512_shuffle_ps::<0xee>(low[0], low[1]);
                quads[p + 2] = _mm512_shuffle_ps::<0x44>(high[0], high[1]);
                quads[p + 3] = _mm512_shuffle_ps::<0xee>(high[0], high[1]);
            }
            for i in 0..4 {
                let even = [
                    _mm512_shuffle_f32x4::<0x88>(quads[i], quads[i + 4]),
                    _mm512_shuffle_f32x4::<0x88>(quads[i + 8], quads[i + 12]),
                ];
                let odd = [
                    _mm512_shuffle_f32x4::<0xdd>(quads[i], quads[i + 4]),
                    _mm512_shuffle_f32x4::<0xdd>(quads[i + 8], quads[i + 12]),
                ];
                rows[i] = Self(_mm512_shuffle_f32x4::<0x88>(even[0], even[1]));
                rows[i + 8] = Self(_mm512_shuffle_f32x4::<0xdd>(even[0], even[1]));
                rows[i + 4] = Self(_mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]));
                rows[i + 12] = Self(_mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]));
            }
        }
    }
}
