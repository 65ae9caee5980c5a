//! The shard actor: raft, the replicated state machine, and the path of every write.

pub mod handle;
pub mod meta;

pub use handle::ShardHandle;
