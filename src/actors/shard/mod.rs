//! The shard actor: raft, the replicated state machine, and the path of every write.

pub mod core;
pub mod handle;
pub mod machine;
pub mod meta;
pub mod recover;

pub use handle::ShardHandle;
