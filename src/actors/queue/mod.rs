//! A topic queue: offsets, pending replies, held pulls.

pub mod actor;
pub mod core;
