//! What a request to a core came to, and where the answer goes.

use super::quota::QuotaExceeded;
use super::Position;

/// Where an answer goes: `sink` names a registered receiver (a gateway thread, an embedder's
/// future), `slot` is that receiver's own number for the request. Opaque to cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    pub sink: u32,
    pub slot: u64,
}

impl Token {
    /// Nobody waits for the answer (one-way requests, internal work).
    pub const NONE: Token = Token {
        sink: u32::MAX,
        slot: 0,
    };
    /// Somebody waits.
    pub fn is_some(self) -> bool {
        self.sink != u32::MAX
    }
}

/// Why a request did not do what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This replica does not lead the shard. Nothing happened.
    #[error("not leader")]
    NotLeader,
    /// Too much is in flight, or the disk is slow. Nothing happened.
    #[error("busy")]
    Busy,
    /// Leadership or storage was lost after the request entered the log: it may or may not happen.
    #[error("indeterminate")]
    Indeterminate,
    /// The node is stopping, or storage failed. Nothing happened.
    #[error("service not available now: {0}")]
    Unavailable(&'static str),
    /// The topic, queue or group vanished meanwhile. Nothing happened.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A quota on what clients make a shard keep is used up. Nothing happened.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The request can never succeed. Nothing happened.
    #[error("{0}")]
    Invalid(String),
}

/// What an entry of the log was still waiting for when its time was over. It is in the leader's
/// log and normally ends there, but its durability class is not reached yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// The leader's own write (RocketMQ FLUSH_DISK_TIMEOUT, code 10).
    Flush,
    /// Other replicas, of which the leader hears none (SLAVE_NOT_AVAILABLE, code 11).
    NoReplica,
    /// Other replicas (FLUSH_SLAVE_TIMEOUT, code 12).
    Replica,
}

/// The answer to one token.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Messages were stored (in the durability class asked for): first queue offset and first
    /// position; further messages of the request follow consecutively.
    Appended {
        queue: u32,
        base_offset: u64,
        position: Position,
    },
    /// A delayed message was stored; it has no queue offset before it is due.
    Scheduled { position: Position },
    /// Messages are in the leader's log, a delayed one without an offset of its own, but what
    /// their class asks for was not reached in time: it may or may not happen.
    Late {
        why: Late,
        base_offset: u64,
        position: Position,
    },
    /// A metadata command was applied at this log index.
    Applied { index: u64 },
    /// A parked pull should read again: data arrived (`true`) or its time is over (`false`).
    Wake { data: bool },
    /// Queues (topic id, queue) whose locks the asking client now holds.
    Locked { held: Vec<(u32, u32)> },
    /// A stored consumer offset, `None` when nothing is stored.
    Offset { offset: Option<u64> },
    /// It did not happen (or may not have, for [`Refusal::Indeterminate`]).
    Refused(Refusal),
}

/// One answer on its way to a sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    pub token: Token,
    pub outcome: Outcome,
}
