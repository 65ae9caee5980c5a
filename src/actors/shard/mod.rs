//! The shard actor.
