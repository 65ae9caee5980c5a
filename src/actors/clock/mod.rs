//! The time of a node: durations by a clock that nobody sets, stamps by one that others confirm.
//!
//! It lies with the actors because stamps, timers and retention are theirs, and what it hears of
//! other nodes is brought by the node's wiring as everything else of theirs is.

pub mod core;
mod handle;

pub use handle::{boot_ms, wall_ms, Figures, NodeClock};
