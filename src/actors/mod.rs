//! Cores, shells and handles: shard, queue, group, registry, timer; and the clock they go by.
//!
//! Every actor is a pure core (`core.rs`: events and time in, effects out), a thin actix shell
//! (`actor.rs`) and a handle (`handle.rs`). Actors know nothing of RocketMQ's protocol.

pub mod abort;
pub mod clock;
pub mod effect;
pub mod group;
pub mod link;
pub mod queue;
pub mod registry;
pub mod shard;
pub mod sinks;
pub mod timer;
