//! Where the time goes: convolutions on packed activations, written once over the vector type.
//!
//! Activations are pixels in rows, the channels of a pixel side by side and padded to whole registers, so that one
//! register holds neighbouring channels of one pixel ([`Extent`]). Three mechanisms carry the network:
//!
//! - **3x3 convolutions by minimal filtering** ([`conv3x3`], [`scheme`]): a tile of the input is transformed, multiplied
//!   position by position with transformed weights as a matrix product, and transformed back to 4x4 outputs
//!   (Winograd 1980; Lavin and Gray 2016). Stride 1 takes 36 products for 144, stride 2 takes 81, and a convolution
//!   after nearest-neighbour upsampling takes 25, since the repeated samples make positions equal or zero.
//! - **9x9 convolutions as a 3x3 grid of 3x3 kernels**: with tiles of 3x3 outputs all nine share their transformed
//!   input, and the grid joins the sum of the product ([`first`], [`last`]).
//! - **Instance norm without a pass of its own**: the output transform gathers the moments ([`moments`]), and the next
//!   layer's input transform applies scale, shift, ReLU and residual while it loads. Biases before a norm cancel and
//!   are left out.
//!
//! With a calibration the products of 3x3 convolutions are of 16-bit integers (`pairs`, `reduced`): twice the
//! multiplications a second of f32 and half the memory, exact sums.
//!
//! Reflection is an index, never a copy. Work is cut into tasks whose size depends on the picture and the instruction
//! set alone, and each task's moments are joined in task order: results depend on neither threads nor batch.
//!
//! Besides this module only `cuda::machine` holds `unsafe`.

// Registers, sides and positions are numbered as in the papers; an iterator over an array of registers hides which.
#![allow(clippy::needless_range_loop)]

mod avx2;
mod avx512;
pub mod buffer;
pub mod conv3x3;
mod emit;
#[cfg(test)]
mod emulated;
pub mod extent;
pub mod first;
pub mod isa;
pub mod last;
pub mod moments;
mod pairs;
pub mod peak;
mod product;
mod reduced;
#[cfg(test)]
mod reference;
pub mod scheme;
pub mod team;
mod vector;

pub use buffer::Buffer;
pub use conv3x3::{Input, Load, PackedConv, Sampling};
pub use extent::{Extent, View, ViewMut};
pub use first::PackedFirst;
pub use isa::Isa;
pub use last::PackedLast;
pub use moments::{Affine, Moments};
pub use team::Team;
