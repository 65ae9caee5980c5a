//! A topic queue: offsets, pending replies, held pulls.

pub mod core;
