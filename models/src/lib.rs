//! Style networks and pixel planes: what turns one decoded picture into one stylized picture.
//!
//! The crate knows tensors, weights and planes of samples. It knows no file but the bytes of a weights
//! file, no video, no queue and no supervisor; it opens nothing and starts no thread but the few that a
//! model was told to use. `unsafe` lives in [`kernels`] and in `cuda::machine`.
//!
//! Reading order: [`pixels`] (what a picture is), [`weights`] (what a style file holds), [`style`] (the trait that
//! the scoring stage calls), [`transform_net`] (the network), [`kernels`] (where the time goes), [`cuda`] (the same on a card), [`oracle`] (what the
//! kernels are checked against).

pub mod any_style;
pub mod calibrate;
pub mod cuda;
pub mod device;
pub mod error;
pub mod import;
pub mod kernels;
#[cfg(feature = "train")]
pub mod loss;
pub mod mix;
pub mod oracle;
pub mod pixels;
pub mod ranges;
pub mod resize;
pub mod shipped;
pub mod squeeze_net;
pub mod style;
pub mod stylize_op;
#[cfg(test)]
mod testkit;
#[cfg(feature = "train")]
pub mod train;
pub mod transform_net;
#[cfg(feature = "train")]
pub mod vgg;
pub mod weights;

pub use device::DeviceChoice;
pub use error::{ModelError, ModelErrorKind};
pub use style::{StyleModel, StylizeOptions, build, build_with};
pub use weights::StyleWeights;
