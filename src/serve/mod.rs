//! The daemon: watches storage, keeps a durable list of jobs, runs them side by side and tells what they do.
//!
//! [`Service`] is the whole of it for an embedder: start it with a checked [`ServeConfig`], then create, list and steer jobs.
//! The HTTP interface is a layer over the same handle. The journal in the work store is the only truth; everything in memory
//! is rebuilt from it.

pub mod access;
mod admit;
mod bell;
mod blend;
mod budget;
mod changes;
pub mod config;
mod entry;
pub mod error;
pub mod events;
mod files;
mod frames;
pub mod http;
pub mod ident;
pub mod job;
mod journal;
mod keep;
mod memory;
mod nodes;
mod overview;
mod preview;
mod pulse;
mod queue;
mod report;
mod rest;
pub mod route;
mod runner;
pub mod service;
mod storage;
mod styles;
mod tally;
mod time;
mod traces;
pub mod view;
mod watch;

pub use config::{ServeConfig, ServeFile};
pub use error::{ServiceError, ServiceErrorKind};
pub use events::{EventStream, JobEventKind, NumberedEvent};
pub use files::{Presigned, Upload};
pub use ident::{ClientJobId, ObjectKey, RouteName, Scope, Tenant};
pub use job::{JobRequest, JobState, OptionsRequest};
pub use service::{Created, Service};
pub use tally::{Handed, Tallied};
