//! Delayed messages.

pub mod core;
