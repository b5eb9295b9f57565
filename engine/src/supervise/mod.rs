//! Restarts, hang detection, pre-emption: the control plane.
//!
//! Every stage has one actor on one OS thread of its own, `restyle-control`. The actor owns no data and does no work: it
//! starts worker threads from a factory, counts their progress, hears why they ended, and decides by policy what follows.
//! Items never pass through a mailbox. This folder alone names actix.
//!
//! - `policy.rs` says what follows an exit; pure.
//! - `event.rs` lists what can wake a supervisor, and what it tells the world.
//! - `supervisor.rs` is the state machine of a stage: `(state, wake-up) -> actions`; it knows neither actix nor threads.
//! - `actor.rs` is the shell around it that spawns threads and keeps time.
//! - `control.rs` is what callers hold.
//!
//! A thread that hangs cannot be killed. Its supervisor gives its generation up: the leases are revoked, a replacement is
//! started, and the thread, a *zombie*, ends when it looks at its signal again. Zombies are counted and limited.

mod actor;
mod control;
mod event;
mod policy;
mod supervisor;

pub use control::{ControlPlane, StageHandle, WorkerFactory};
pub use event::{
    NodeObservation, NodePhase, NodeReport, StageOutcome, StageReport, SupervisionEvent, SupervisionEventKind,
};
pub use policy::RestartPolicy;
pub use supervisor::{NodeClass, NodeSpec, StageSpec};
