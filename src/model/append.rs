//! Appends on their way from a connection to a queue, and reads on their way back.

use super::outcome::Token;
use super::policy::AckPolicy;
use bytes::Bytes;

/// What the queue index keeps of a record besides its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMeta {
    /// Bytes of the stored record.
    pub size: u32,
    /// Java hash code of the message's tag, 0 without a tag.
    pub tag: i32,
}

/// One request inside an [`AppendBatch`]: `count` consecutive records that get one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendRequest {
    pub token: Token,
    /// Records of this request: 1, or more for a batch message. Stored all or none.
    pub count: u32,
    pub policy: AckPolicy,
}

/// Records of one connection's burst for one queue, in the order they were sent. Queue offset,
/// physical offset and store time of each record are still blank: the queue and shard cores fill
/// them in (`model::record`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppendBatch {
    pub requests: Vec<AppendRequest>,
    /// One per record, in order.
    pub metas: Vec<RecordMeta>,
    /// The records, one after the other.
    pub records: Vec<u8>,
}

/// Limits and filter of one read.
#[derive(Debug, Clone)]
pub struct ReadSpec {
    pub max_messages: u32,
    /// The first message always fits.
    pub max_bytes: usize,
    /// Sorted tag hash codes; `None` lets everything pass. Collisions pass (the client compares
    /// strings again).
    pub tags: Option<std::sync::Arc<[i32]>>,
    /// Index items looked at, matching or not, before the read returns.
    pub max_scan: u32,
}

/// What a read found.
#[derive(Debug, Clone, Default)]
pub struct ReadBatch {
    /// Slices of stored records in offset order; several records may share a slice.
    pub slices: Vec<Bytes>,
    pub messages: u32,
    pub bytes: usize,
    /// Offset after the last record returned or skipped.
    pub next_offset: u64,
    /// Store time of the last returned record, ms; 0 when none.
    pub last_store_ts: i64,
}

/// A pull that found nothing and waits in the queue core.
#[derive(Debug, Clone)]
pub struct ParkRequest {
    pub token: Token,
    /// Wakes when the queue's committed end goes beyond this.
    pub offset: u64,
    /// Time of the queue core's clock, which nobody sets, ms, after which it is woken with `data: false`.
    pub deadline_ms: i64,
    /// Only a record with one of these tag codes wakes it.
    pub tags: Option<std::sync::Arc<[i32]>>,
}
