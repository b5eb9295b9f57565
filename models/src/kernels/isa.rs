//! Choice of instruction set at run time.

#![allow(unsafe_code)]

use super::vector::{Portable, Vector};
use std::fmt;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What the compiler makes of plain Rust.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512F and AVX-512BW.
    Avx512,
    /// Plain Rust with the lanes and register blocks of AVX-512.
    #[cfg(test)]
    Emulated,
}

/// Work written once over the vector type.
pub(crate) trait Kernel {
    /// Does the work.
    ///
    /// # Safety
    /// `V`'s instructions must be enabled in the caller and available; the implementation says what else.
    unsafe fn run<V: Vector>(self);
}

impl Isa {
    /// All sets, the best last.
    const ALL: &[Self] = &[
        #[cfg(test)]
        Self::Emulated,
        Self::Portable,
        Self::Avx2,
        Self::Avx512,
    ];

    /// Lists the sets that this processor has, the best last.
    pub fn available() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|set| set.is_available()).collect()
    }

    /// Tells whether this processor has the set.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let has_avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match self {
            Self::Avx2 => has_avx2(),
            Self::Avx512 => has_avx2() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
            _ => true,
        }
    }

    /// Tells whether this processor has the set.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        !matches!(self, Self::Avx2 | Self::Avx512)
    }

    /// Returns the best set that this processor has.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Portable)
    }

    /// Returns the f32 lanes of a register.
    pub fn lanes(self) -> usize {
        match self {
            Self::Portable => Portable::LANES,
            Self::Avx2 => 8,
            Self::Avx512 => 16,
            #[cfg(test)]
            Self::Emulated => 16,
        }
    }

    /// Runs a kernel with this set.
    ///
    /// # Safety
    /// The kernel's own conditions must hold. A set that the processor lacks must not be asked for.
    pub(crate) unsafe fn run<K: Kernel>(self, kernel: K) {
        // SAFETY: the caller promises that the processor has the set and that the kernel's conditions hold.
        unsafe {
            match self {
                Self::Portable => kernel.run::<Portable>(),
                #[cfg(test)]
                Self::Emulated => kernel.run::<super::emulated::Emulated>(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => super::avx2::enter(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => super::avx512::enter(kernel),
                #[cfg(not(target_arch = "x86_64"))]
                Self::Avx2 | Self::Avx512 => unreachable!("not a set of this processor"),
            }
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            #[cfg(test)]
            Self::Emulated => "emulated",
        })
    }
}
