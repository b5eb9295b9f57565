//! What the command survives, row by row of the fault table: scripted faults, an undisturbed run as the oracle.

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
