//! The vector type that the kernels are written over: once for every instruction set.

#![allow(unsafe_code)]

/// A register of f32 lanes.
///
/// Kernels are generic over it and are entered through [`super::isa::Isa::run`] alone, which makes sure that the
/// processor has the instructions.
///
/// # Safety
/// Every function here must only be called where the implementation's instruction set is available, from code that
/// is inlined into a function with that set enabled. Pointers must be valid for [`Vector::LANES`] values.
pub(crate) trait Vector: super::pairs::Pairs {
    /// Values in a register.
    const LANES: usize;
    /// Rows of the register block of matrix products: with two columns of vectors it fills the registers.
    const BLOCK_ROWS: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// `self * factor + summand`
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// `summand - self * factor`
    unsafe fn neg_mul_add(self, factor: Self, summand: Self) -> Self;

    /// Multiplies a panel of rows by a panel of packed columns, see [`super::product::multiply_rows`].
    unsafe fn multiply_pair(product: &super::product::Product, row: usize, column: usize);
    /// The same for a last panel of one vector.
    unsafe fn multiply_single(product: &super::product::Product, row: usize, column: usize);
    /// As `multiply_pair` with rows one value apart and terms by a table of offsets.
    unsafe fn gather_pair(product: &super::product::GatheredProduct, row: usize, column: usize);
    /// The same for a last panel of one vector.
    unsafe fn gather_single(product: &super::product::GatheredProduct, row: usize, column: usize);

    /// Multiplies rows of 16-bit integers by a panel of packed columns, see [`super::pairs::multiply_pairs`].
    unsafe fn pairs_pair(product: &super::pairs::PairProduct, row: usize, column: usize);
    /// The same for a last panel of one vector.
    unsafe fn pairs_single(product: &super::pairs::PairProduct, row: usize, column: usize);

    /// Transposes `LANES` registers.
    unsafe fn transpose(rows: &mut [Self; 16]);

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise is the same.
        unsafe { Self::splat(0.0) }
    }
}

/// Four lanes of plain Rust, for processors without a set of their own here.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

macro_rules! lanewise {
    ($a:expr, $b:expr, $op:expr) => {{
        let (a, b, op) = ($a.0, $b.0, $op);
        Portable([op(a[0], b[0]), op(a[1], b[1]), op(a[2], b[2]), op(a[3], b[3])])
    }};
}

super::pairs::plain_pairs!(Portable, 4);

impl Vector for Portable {
    const LANES: usize = 4;
    const BLOCK_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises four readable values; alignment is not assumed.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises four writable values; alignment is not assumed.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        lanewise!(self, other, |a: f32, b: f32| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        lanewise!(self, other, |a: f32, b: f32| a - b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        lanewise!(self, other, |a: f32, b: f32| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        // Two roundings: a fused one is a library call where the processor has none.
        lanewise!(lanewise!(self, factor, |a: f32, b: f32| a * b), summand, |a: f32, b: f32| a + b)
    }
    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, summand: Self) -> Self {
        lanewise!(summand, lanewise!(self, factor, |a: f32, b: f32| a * b), |a: f32, b: f32| a - b)
    }

    super::product::register_blocks!(6);

    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; 16]) {
        for r in 0..4 {
            for c in 0..r {
                let (a, b) = (rows[r].0[c], rows[c].0[r]);
                rows[r].0[c] = b;
                rows[c].0[r] = a;
            }
        }
    }
}
