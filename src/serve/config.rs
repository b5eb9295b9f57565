//! The configuration of the daemon: a raw mirror of `serve.toml`, and a checked type whose existence proves it valid.

mod checked;
mod raw;
mod secrets;

pub use checked::{HttpLimits, NodeLimits, Prices, ServeConfig, TlsFiles, Webhook};
pub use raw::{RouteFile, ServeFile};
