//! actors

pub mod ledger_store;
