//! A real video in, the same video styled out: what is kept, and what a second run does.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

#[path = "../support/mod.rs"]
mod support;

mod fidelity;
mod generated;
mod memory;
mod reference;
mod resume;
mod witness;
