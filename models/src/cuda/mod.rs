//! The network on NVIDIA cards: own kernels, launched as a program that is plain data.
//!
//! What decides is written once and runs in two places. [`pack`], [`network`], [`frames`], [`resample`] and [`room`] know no card: they turn
//! weights, sizes and formats into a [`Program`] of buffers and launches with the source of every kernel. With feature
//! `cuda` the modules `machine` and `style` run it on a card through candle's device and storage; without one, the tests run
//! the same program, tensor cores and background copies included, on the processor (`tests/cuda`).
//!
//! The network as launches, per layer: a convolution that gathers its own borders, leaves moments per tile and
//! stores what it computed raw; one small kernel that joins the moments in fixed order; one pass in place that scales,
//! shifts, takes the positive part and adds the residual. Reflection is an index, upsampling is folded into four
//! 2x2 convolutions, a frame enters and leaves as the decoder's and encoder's own integer planes.
//!
//! `unsafe` is in `machine` only: there a launch's addresses and sizes are what the compiler cannot check.

#[cfg(test)]
mod emulate;
pub mod frames;
#[cfg(feature = "cuda")]
pub mod machine;
pub mod network;
#[cfg(feature = "cuda")]
pub mod op;
pub mod pack;
pub mod program;
pub mod resample;
pub mod room;
pub mod source;
#[cfg(feature = "cuda")]
pub mod style;

pub use network::{Network, Size};
pub use pack::Precision;
pub use program::{Buffer, Launch, Program};
