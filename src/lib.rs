//! restyle applies a neural style to every frame of a video, survives pre-emption and resumes only unfinished frames.
//!
//! ```no_run
//! use restyle::{Config, Job, JobOptions, Overwrite, Pipeline, RawConfig};
//!
//! let (config, _) = RawConfig::default().check()?;
//! let pipeline = Pipeline::new(config)?;
//! let running = pipeline.submit(Job {
//!     input: "in.mp4".into(),
//!     output: "out.mp4".into(),
//!     options: JobOptions { style: Some("starry-night".into()), ..JobOptions::default() },
//!     fresh: false,
//!     overwrite: Overwrite::Refused,
//! })?;
//! for event in running.events() {
//!     println!("{event:?}");
//! }
//! let finished = running.wait()?;
//! assert_eq!(finished.frames_scored + finished.frames_reused, finished.frames);
//! # Ok::<(), restyle::Error>(())
//! ```
//!
//! The library installs no signal handler, sets up no logging, keeps no global state and never ends the process. Reading order:
//! [`pipeline`], then `docs/ARCHITECTURE.md`.

mod calibrate;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
mod course;
mod drive;
pub mod error;
pub mod event;
pub mod job;
pub mod jobs;
mod pace;
pub mod pipeline;
mod prepare;
mod scorers;
#[cfg(feature = "serve")]
pub mod serve;
pub mod source;
mod styles;
mod work_store;
mod workers;

pub use calibrate::Precision;
pub use config::{Config, JobOptions, RawConfig};
pub use error::{Error, ErrorKind};
pub use event::{Event, NodeChange, NodeEvent, SegmentCommitted};
pub use job::{Job, Overwrite};
pub use pipeline::{JobControl, NextEvent, Pipeline, RunningJob};
pub use restyle_engine::supervise::{NodeClass, NodeObservation, NodePhase};
pub use scorers::Shelf;
pub use work_store::WorkPlace;
