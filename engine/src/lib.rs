//! Generic dataflow: items, credits, leases, stealing, order, supervision and ledger rules.
//!
//! This crate moves *items*. It never sees a frame, a pixel, a path or a URL; what an item is and what
//! scoring it means belongs to the crates above.
//!
//! # Map
//!
//! | module | what it holds | may block |
//! | --- | --- | --- |
//! | [`clock`] | time as a parameter | `sleep` |
//! | [`item`] | identities and the item that moves | no |
//! | [`cancel`] | one-way cancellation that wakes blocked waits | `wait_timeout` |
//! | [`signal`] | what a worker is told to do: run, pause, drain, stop | `wait_while_paused` |
//! | [`credit`] | how much may be in flight: the one source of back-pressure | `acquire` |
//! | [`mod@link`] | bounded hop between two threads | `send`, `recv` |
//! | [`steal`] | pool of items that workers share and steal from | `Member::take` |
//! | [`lease`] | right to work on an item: committed or given back | no |
//! | [`progress`] | how a worker shows that it is alive | no |
//! | [`reorder`] | puts items back in order within a window | no |
//! | [`stage`] | what a stage implements; the status that decides a retry | by stage |
//! | [`worker`] | the loop of a scoring thread | yes |
//! | [`supervise`] | restarts, hang detection, pre-emption; alone names actix | handles |
//! | [`topology`] | stages that run as one | `wait` |
//! | [`fault`] | named fault points for rehearsals (feature `faults`) | by script |
//! | [`ledger`] | what is finished: immutable, checksummed objects in a store; L10 to L20 | by store |
//! | [`random`] | randomness as a parameter: a seeded sequence | no |
//! | `simulate` | whole jobs under a virtual clock, by seed (feature `simulate`) | no |
//! | [`metrics`] | counters as named samples | no |
//!
//! # Glossary
//!
//! *Segment*: a run of items finished together. *Attempt*: how many times an item was begun and failed.
//! *Generation*: which incarnation of a worker. *Lease*: a worker's right to an item. *Credit*: an item's right to
//! be in memory. *Commit*: the end of a lease that gives a result. *Drain*: finish what was begun, begin nothing.
//!
//! # Invariants held here
//!
//! - **L1** An item is committed at most once: the lease table hands an item's credit to exactly one commit.
//! - **L2** The oldest unfinished item holds a credit: credits are granted in the order they are asked for, items
//!   ask in plan order, and a retried item keeps the credit it has.
//! - **L3** No item is lost: between push and commit an item is in the injector, a deque, the returned set or a lease,
//!   and every way out of a lease but commit and poisoning leads back.
//! - **L4** Back-pressure lives in credits alone: no queue inside the engine blocks a holder of a credit for ever.

pub mod cancel;
pub mod clock;
pub mod credit;
pub mod error;
pub mod fault;
pub mod item;
pub mod lease;
pub mod ledger;
pub mod link;
pub mod metrics;
pub mod progress;
pub mod random;
pub mod reorder;
pub mod signal;
#[cfg(any(test, feature = "simulate"))]
pub mod simulate;
pub mod stage;
pub mod steal;
pub mod supervise;
mod sync;
pub mod topology;
mod wake;
pub mod worker;

pub use cancel::{CancelToken, Cancelled};
pub use clock::{Clock, ManualClock, SystemClock};
pub use credit::{Credit, CreditLimit, CreditStats, Credits};
pub use error::{EngineError, EngineErrorKind};
pub use item::{Attempt, Generation, Item, ItemId, ItemIndex, JobId, SegmentIndex};
pub use lease::{Blame, Lease, Revoked};
pub use link::{LinkProbe, LinkReceiver, LinkSender, LinkStats, link};
pub use progress::Progress;
pub use reorder::Reorder;
pub use signal::{Signal, SignalState};
pub use stage::{Stage, StageError, Status};
pub use steal::{Member, Poisoned, Pool, PoolConfig, PoolStats, Taken};
pub use supervise::{
    ControlPlane, NodeClass, NodeSpec, RestartPolicy, StageHandle, StageOutcome, StageReport, StageSpec,
    SupervisionEvent, SupervisionEventKind,
};
pub use topology::{Topology, TopologyReport};
pub use worker::{ExitReason, NodeId, WorkerContext, work};
