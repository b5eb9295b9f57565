//! Pictures as planes of integer samples, and their way to planes of f32 RGB and back.
//!
//! Everything between the decoder and the network, and between the network and the encoder, passes here once
//! in each direction. Samples of more than 8 bits never pass through 8. Conversions are pure functions of
//! their input: equal pictures give equal bytes on every thread.

pub(crate) mod chroma;
mod convert;
mod format;
pub(crate) mod matrix;
mod picture;
mod rotate;

pub use convert::{RgbPlanes, from_rgb, to_rgb};
pub use format::{ChromaSite, ColorMatrix, ColorRange, DIMENSION_MAX, Layout, PixelFormat};
pub use picture::{Picture, Plane, Samples};
