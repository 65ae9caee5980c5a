//! Cores, shells and handles: shard, queue, group, registry, timer.

pub mod group;
pub mod queue;
pub mod registry;
pub mod shard;
pub mod timer;
