//! The shard actor: raft, the replicated state machine, and the path of every write.

pub mod actor;
pub mod core;
pub mod damage;
pub mod directory;
pub mod handle;
pub mod machine;
mod mail;
pub mod meta;
pub mod pace;
mod publish;
pub mod reads;
pub mod recent;
pub mod recover;
pub mod scrub;
pub mod start;
pub mod status;
mod stored;
pub mod views;

pub use handle::ShardHandle;
