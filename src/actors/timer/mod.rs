//! Delayed messages.

pub mod actor;
pub mod core;
