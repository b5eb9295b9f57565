//! The HTTP interface against a real service: every endpoint, and everything that has to be refused.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod bench;
mod client;
mod embed;
mod events;
mod files;
mod hooks;
mod hostile;
mod jobs;
mod logs;
mod metrics;
mod openapi;
mod packaging;
mod tls;
mod traces;
mod verbs;
mod watch;
mod webhooks;
