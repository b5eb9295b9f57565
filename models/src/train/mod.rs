//! Training of styles on candle autograd: one painting and some photos in, a style file out.
//!
//! [`run()`] is the whole of it; [`Trainer`] is the loop without files. The operations under it ([`conv`], [`norm`],
//! [`pool`]) are candle custom operations with gradients of their own, since the stock ones are an order of magnitude too
//! slow on a processor; on a card they are composed of the stock ones ([`stock`]), which was not run on one yet. Everything random comes from the seed and the iteration's number, every sum has a fixed order: a
//! killed training ends in the same weights as one that ran through. This module reads no clock; the caller hands one in.

mod adam;
mod any_network;
pub(crate) mod buffer;
mod checkpoint;
mod config;
pub mod conv;
mod device;
mod disturbance;
mod error;
mod export;
mod learner;
pub mod moments;
mod network;
pub mod norm;
mod photo;
pub mod pool;
pub(crate) mod random;
mod run;
mod schedule;
pub mod stock;
mod stock_adam;
pub(crate) mod tap;
mod trainer;
pub mod upsample;

pub use adam::{Adam, HostMoments, scheduled_rate};
pub use any_network::{AnyNetwork, StyleSignals};
pub use checkpoint::checkpoint_path;
pub use config::{Length, LossWeights, TrainConfig};
pub use device::TrainDevice;
pub use disturbance::Disturbance;
pub use error::{TrainError, TrainErrorKind};
pub use export::{CARD_KEY, export, import};
pub use network::TransformerNetwork;
pub use photo::{Photo, PhotoSet, View};
pub use random::Random;
pub use run::{Control, Progress, TrainReport, run};
pub use trainer::{Losses, Trainer};
