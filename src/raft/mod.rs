//! tikv raft as a core, the ack table and the log window. The only room that names raft.
//!
//! Raft's own types stay inside this room; the shard core sees [`RaftCore`] and plain values.

pub mod ack;
pub mod core;
pub mod entry;
mod log_window;
pub mod members;
mod message;
mod slog_bridge;
mod snapshot;
pub mod staged;
mod transfer;

pub use self::core::{
    Defect, PeerProgress, RaftCore, RaftOptions, RaftOutput, RaftStart, Role, MAX_ENTRY_BYTES,
};
pub use log_window::Fetch;
pub use message::{said, spoiled_snapshot, MessageError, Said};
pub use snapshot::Snapshot;
pub use transfer::{SnapshotId, Stage, Staged};
