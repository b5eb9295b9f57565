//! What the command survives, row by row of the fault table: scripted faults, an undisturbed run as the oracle.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]
#![allow(clippy::disallowed_methods, reason = "rehearsals wait for other processes, whose clock is the real one")]

#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

mod calibration;
mod housekeeping;
mod kills;
mod operations;
mod quarantine;
mod rehearsal;
mod remote;
mod scorers;
mod signals;
mod sources;
mod stages;
mod stores;
