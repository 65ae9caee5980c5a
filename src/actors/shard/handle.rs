//! What callers hold of a shard. Cheap to clone, usable from any thread.

use super::meta::MetaTable;
use crate::model::append::{AppendBatch, ParkRequest, ReadBatch, ReadSpec};
use crate::model::command::MetaOp;
use crate::model::outcome::{Refusal, Token};
use crate::model::{GroupId, Position, QueueKey};
use crate::storage::StoreError;
use bytes::Bytes;

/// Offsets of a queue that consumers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueBounds {
    /// First offset still kept.
    pub min: u64,
    /// Offset the next committed message will get; everything below is visible.
    pub max: u64,
}

/// A delayed message: stored now in final form, appended to its queue when due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRequest {
    pub token: Token,
    pub policy: crate::model::policy::AckPolicy,
    /// Wall-clock ms; never appended earlier.
    pub due_ms: i64,
    pub target: QueueKey,
    pub tag: i32,
    /// The record as it will be stored in the target queue, offsets and store time blank.
    pub record: Vec<u8>,
}

/// Which message an offset search by time returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at or after the time.
    Lower,
    /// The last message stored at or before the time.
    Upper,
}

/// Offsets and locks of one group, as applied so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupState {
    /// ((topic id, queue), offset)
    pub offsets: Vec<((u32, u32), u64)>,
    /// ((topic id, queue), client id, granted at ms)
    pub locks: Vec<((u32, u32), String, i64)>,
}

/// Answer of a proposal: the log index at which the command was applied.
pub type ProposalResult = Result<u64, Refusal>;

/// See the module text.
#[derive(Clone)]
pub struct ShardHandle {
    meta: MetaTable,
}

impl ShardHandle {
    /// Topics and groups as applied so far.
    pub fn meta(&self) -> &MetaTable {
        &self.meta
    }

    /// Hands a burst of records to the queue's actor, activating it when asleep. Every request's
    /// token gets [`crate::model::outcome::Outcome::Appended`] or a refusal. Order of calls from
    /// one thread for one queue is the order in the queue.
    pub fn append(&self, _key: QueueKey, _batch: AppendBatch) {
        todo!()
    }

    /// Stores a delayed message; the token gets `Scheduled` or a refusal.
    pub fn schedule(&self, _request: ScheduleRequest) {
        todo!()
    }

    /// Proposes a metadata command; `done` runs on the shard's thread once it is applied (or
    /// refused) and must not block. Always synced, whatever the flush mode.
    pub fn propose(&self, _op: MetaOp, _done: Box<dyn FnOnce(ProposalResult) + Send>) {
        todo!()
    }

    /// The same as a future, for any runtime.
    pub async fn command(&self, _op: MetaOp) -> ProposalResult {
        todo!()
    }

    /// Offsets and locks of a group as applied so far.
    pub async fn group_state(&self, _group: GroupId) -> Result<GroupState, Refusal> {
        todo!()
    }

    /// Waits in the queue's core until data beyond `offset` is committed or the deadline passes;
    /// the token gets `Wake`.
    pub fn park(&self, _key: QueueKey, _request: ParkRequest) {
        todo!()
    }

    /// Forgets parked pulls of a closed connection.
    pub fn unpark(&self, _key: QueueKey, _tokens: Vec<Token>) {
        todo!()
    }

    /// Visible bounds of a queue; zeros for one that never had a message. No message is sent.
    pub fn bounds(&self, _key: QueueKey) -> QueueBounds {
        todo!()
    }

    /// Reads committed records at `offset` from the tail cache; `None` when they are not there
    /// (then use [`ShardHandle::read_stored`] on the read pool). The caller has checked bounds.
    pub fn read_tail(&self, _key: QueueKey, _offset: u64, _spec: &ReadSpec) -> Option<ReadBatch> {
        todo!()
    }

    /// Reads committed records from storage. Blocks: read pool only.
    pub fn read_stored(
        &self,
        _key: QueueKey,
        _offset: u64,
        _spec: &ReadSpec,
    ) -> Result<ReadBatch, StoreError> {
        todo!()
    }

    /// The committed record at a position, `None` when there is none (any more). Blocks.
    pub fn read_record(&self, _position: Position) -> Result<Option<Bytes>, StoreError> {
        todo!()
    }

    /// Offset of the first (last) message stored at or after (before) `ts_ms`; before all: min,
    /// after all: max. Blocks.
    pub fn offset_by_time(
        &self,
        _key: QueueKey,
        _ts_ms: i64,
        _boundary: Boundary,
    ) -> Result<u64, StoreError> {
        todo!()
    }

    /// Store time of the message at `offset`, `None` when it is not there. Blocks.
    pub fn store_time(&self, _key: QueueKey, _offset: u64) -> Result<Option<i64>, StoreError> {
        todo!()
    }
}
