//! Names, ids, positions, policies and errors every other room speaks of. No I/O, no clock.

pub mod append;
pub mod command;
pub mod group;
pub mod ids;
pub mod outcome;
pub mod policy;
pub mod position;
pub mod quota;
pub mod record;
pub mod topic;

pub use ids::{GroupId, QueueKey, ShardId, TopicId};
pub use position::Position;
