//! A real video in, the same video styled out: what is kept, and what a second run does.

#[path = "../support/mod.rs"]
mod support;

mod fidelity;
mod generated;
mod memory;
mod reference;
mod resume;
mod witness;
