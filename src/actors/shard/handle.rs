//! What callers hold of a shard. Cheap to clone, usable from any thread.

use super::actor::{
    GroupStateMail, MembersMail, ProposeMail, ReplicasMail, ShardActor, ShardDeps, ShardMail,
};
use super::core::ShardInput;
use super::damage::DamageFigures;
use super::meta::MetaTable;
use super::status::ShardStatus;
use crate::actors::clock::NodeClock;
use crate::actors::queue::core::QueueInput;
use crate::model::append::{AppendBatch, ParkRequest, ReadBatch, ReadSpec};
use crate::model::command::MetaOp;
use crate::model::outcome::{Completion, Outcome, Refusal, Token};
use crate::model::{GroupId, Position, QueueKey, ShardId};
use crate::raft::members::Change;
use crate::raft::PeerProgress;
use crate::storage::{Reader, Scrubbed, StoreError};
use actix::Addr;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Offsets of a queue that consumers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueBounds {
    /// First offset still kept.
    pub min: u64,
    /// Offset the next committed message will get; everything below is visible.
    pub max: u64,
}

/// A delayed message: stored now in final form (offsets and store time blank), appended to its
/// queue when due, never earlier.
pub type ScheduleRequest = super::core::Schedule;

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
    /// ((topic id, queue), client id, stamp of the last grant)
    pub locks: Vec<((u32, u32), String, i64)>,
}

/// How far a shard's replicas are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicaView {
    pub term: u64,
    /// Node that leads; 0 when unknown.
    pub leader: u64,
    /// Last index of this replica's log.
    pub last: u64,
    pub committed: u64,
    pub applied: u64,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    /// The other replicas; known to the leader only.
    pub others: Vec<PeerProgress>,
}

/// Why a read of stored records failed. [`StoreError::BadEntry`]: another replica may give a good copy soon.
pub type ReadError = StoreError;

/// Answer of a proposal: the log index at which the command was applied.
pub type ProposalResult = Result<u64, Refusal>;

/// See the module text.
#[derive(Clone)]
pub struct ShardHandle {
    addr: Addr<ShardActor>,
    deps: ShardDeps,
}

/// What is handed over must be whole records: the shard stops rather than log anything else.
fn not_records(batch: &AppendBatch) -> Option<Refusal> {
    let mut rest = &batch.records[..];
    for meta in &batch.metas {
        if crate::model::record::record_len(rest) != Some(meta.size as usize) {
            return Some(Refusal::Invalid("not a message record".into()));
        }
        rest = &rest[meta.size as usize..];
    }
    (!rest.is_empty()).then(|| Refusal::Invalid("bytes after the last record".into()))
}

const STOPPED: Refusal = Refusal::Unavailable("the shard's actor stopped");

impl ShardHandle {
    pub(crate) fn new(addr: Addr<ShardActor>, deps: ShardDeps) -> Self {
        Self { addr, deps }
    }

    /// Topics and groups as applied so far.
    pub fn meta(&self) -> &MetaTable {
        &self.deps.meta
    }

    /// Terms, indices, health.
    pub fn status(&self) -> &Arc<ShardStatus> {
        &self.deps.status
    }

    /// The node's time.
    pub fn clock(&self) -> &NodeClock {
        &self.deps.clock
    }

    /// Queue actors awake now.
    pub fn active_queues(&self) -> usize {
        self.deps.directory.len()
    }

    /// Bytes in the cache of blocks, and in memtables, of the node's whole store.
    pub fn store_memory(&self) -> (u64, u64) {
        self.deps.reads.memory()
    }

    /// Bytes of the shard's log files.
    pub fn log_bytes(&self) -> Result<u64, StoreError> {
        self.deps.reads.log_bytes()
    }

    /// Looks at so many bytes of stored entries from an index on; a good copy is sought for those that are bad.
    /// `None` when too many reads wait.
    pub async fn scrub(&self, from: u64, max_bytes: u64) -> Option<Scrubbed> {
        let (done, told) = oneshot::channel();
        let (addr, shard, reads) = (self.addr.clone(), self.deps.shard, self.deps.reads.clone());
        let work = Box::new(move |reader: &Reader| {
            let found = reader.scrub_entries(shard, from, max_bytes);
            let found = found.unwrap_or_else(|error| {
                tracing::error!(%error, shard = shard.0, from, "the scrub cannot read the log");
                // Goes on behind it, or it would never come further.
                Scrubbed {
                    next: from + 1,
                    ..Scrubbed::default()
                }
            });
            reads.damage().scrubbed(found.bytes, found.ended);
            for (index, why) in &found.bad {
                tracing::debug!(shard = shard.0, index, why, "found by the scrub");
                addr.do_send(ShardMail(ShardInput::BadEntry { index: *index }));
            }
            let _ = done.send(found);
        });
        self.deps.pool.submit(work).ok()?;
        told.await.ok()
    }

    /// What this replica has seen of bad entries in its stored log.
    pub fn damage(&self) -> DamageFigures {
        self.deps.reads.damage().figures()
    }

    /// Bytes of records in the tail cache.
    pub fn tail_bytes(&self) -> usize {
        self.deps.views.cached_bytes()
    }

    /// Hands the core what came from other nodes or concerns them.
    pub fn input(&self, input: ShardInput) {
        self.addr.do_send(ShardMail(input));
    }

    /// The replicas as the core sees them now.
    pub async fn replicas(&self) -> Option<ReplicaView> {
        let (done, told) = oneshot::channel();
        self.addr.do_send(ReplicasMail { done });
        told.await.ok()
    }

    /// Changes the members; answered once the change is applied.
    pub async fn change_members(&self, changes: Vec<Change>) -> ProposalResult {
        let (done, told) = oneshot::channel();
        self.addr.do_send(MembersMail { changes, done });
        told.await.unwrap_or(Err(STOPPED))
    }

    /// The shard's number.
    pub fn shard(&self) -> ShardId {
        self.deps.shard
    }

    fn to_queue(&self, key: QueueKey, input: QueueInput) {
        self.deps.directory.send(key, input, &self.addr);
    }

    /// Hands a burst of records to the queue's actor, activating it when asleep. Every request's
    /// token gets [`crate::model::outcome::Outcome::Appended`] or a refusal. Order of calls from
    /// one thread for one queue is the order in the queue.
    pub fn append(&self, key: QueueKey, batch: AppendBatch) {
        if let Some(why) = self.closed_to_producers().or_else(|| not_records(&batch)) {
            for request in batch.requests.iter().filter(|r| r.token.is_some()) {
                self.refuse(request.token, &why);
            }
            return;
        }
        self.to_queue(
            key,
            QueueInput::Append {
                batch,
                fired: Vec::new(),
            },
        );
    }

    fn closed_to_producers(&self) -> Option<Refusal> {
        if self.deps.status.disk_full() {
            return Some(Refusal::Unavailable("disk full"));
        }
        (!self.addr.connected()).then_some(STOPPED)
    }

    fn refuse(&self, token: Token, why: &Refusal) {
        let completion = Completion {
            token,
            outcome: Outcome::Refused(why.clone()),
        };
        self.deps.sinks.deliver(token.sink, vec![completion]);
    }

    /// Stores a delayed message; the token gets `Scheduled` or a refusal.
    pub fn schedule(&self, request: ScheduleRequest) {
        if let Some(why) = self.closed_to_producers() {
            if request.token.is_some() {
                self.refuse(request.token, &why);
            }
            return;
        }
        self.addr.do_send(ShardMail(ShardInput::Schedule(request)));
    }

    /// Proposes a metadata command; `done` runs on the shard's thread once it is applied (or
    /// refused) and must not block. Always synced, whatever the flush mode.
    pub fn propose(&self, op: MetaOp, done: Box<dyn FnOnce(ProposalResult) + Send>) {
        self.propose_in(self.deps.status.epoch(), op, done);
    }

    /// The same for a command that was decided in this [epoch](ShardStatus::epoch): refused in any
    /// other.
    pub fn propose_in(&self, epoch: u64, op: MetaOp, done: Box<dyn FnOnce(ProposalResult) + Send>) {
        if !self.addr.connected() {
            return done(Err(STOPPED));
        }
        self.addr.do_send(ProposeMail { op, epoch, done });
    }

    /// The same as a future, for any runtime.
    pub async fn command(&self, op: MetaOp) -> ProposalResult {
        let (tell, told) = oneshot::channel();
        self.propose(
            op,
            Box::new(move |result| {
                let _ = tell.send(result);
            }),
        );
        told.await.unwrap_or(Err(Refusal::Indeterminate))
    }

    /// Offsets and locks of a group as applied so far.
    pub async fn group_state(&self, group: GroupId) -> Result<GroupState, Refusal> {
        let (done, told) = oneshot::channel();
        self.addr.do_send(GroupStateMail { group, done });
        told.await.unwrap_or(Err(STOPPED))
    }

    /// Waits in the queue's core until data beyond `offset` is committed or the deadline passes;
    /// the token gets `Wake`.
    pub fn park(&self, key: QueueKey, request: ParkRequest) {
        self.to_queue(key, QueueInput::Park(request));
    }

    /// Forgets parked pulls of a closed connection.
    pub fn unpark(&self, key: QueueKey, tokens: Vec<Token>) {
        self.to_queue(key, QueueInput::Unpark(tokens));
    }

    /// Visible bounds of a queue; zeros for one that never had a message. No message is sent.
    pub fn bounds(&self, key: QueueKey) -> QueueBounds {
        self.deps
            .views
            .get(key)
            .map_or_else(QueueBounds::default, |view| view.bounds())
    }

    /// Reads committed records at `offset` from the tail cache; `None` when they are not there
    /// (then use [`ShardHandle::read_stored`] on the read pool). The caller has checked bounds.
    pub fn read_tail(&self, key: QueueKey, offset: u64, spec: &ReadSpec) -> Option<ReadBatch> {
        self.deps.views.get(key)?.read(offset, spec)
    }

    /// The same from what earlier reads left in memory, for consumers that are behind the tail.
    pub fn read_cached(&self, key: QueueKey, offset: u64, spec: &ReadSpec) -> Option<ReadBatch> {
        self.deps.reads.read_cached(key, offset, spec)
    }

    /// Reads committed records from storage. Blocks: read pool only.
    pub fn read_stored(
        &self,
        key: QueueKey,
        offset: u64,
        spec: &ReadSpec,
    ) -> Result<ReadBatch, ReadError> {
        let max = self.bounds(key).max;
        self.deps.reads.read(key, offset, max, spec)
    }

    /// The committed record at a position, `None` when there is none (any more). Blocks.
    pub fn read_record(&self, position: Position) -> Result<Option<Bytes>, StoreError> {
        if position.index == 0 || position.index > self.deps.views.applied() {
            return Ok(None);
        }
        self.deps.reads.record(position)
    }

    /// Offset of the first (last) message stored at or after (before) `ts_ms`; before all: min,
    /// after all: max. Blocks.
    pub fn offset_by_time(
        &self,
        key: QueueKey,
        ts_ms: i64,
        boundary: Boundary,
    ) -> Result<u64, StoreError> {
        self.deps
            .reads
            .offset_by_time(&self.deps.views, key, ts_ms, boundary)
    }

    /// Store time of the message at `offset`, `None` when it is not there. Blocks.
    pub fn store_time(&self, key: QueueKey, offset: u64) -> Result<Option<i64>, StoreError> {
        self.deps.reads.store_time(&self.deps.views, key, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::append::RecordMeta;
    use crate::raft::entry::tests::blank_record;

    #[test]
    fn only_whole_records_reach_the_shard() {
        let record = blank_record();
        let meta = RecordMeta {
            size: record.len() as u32,
            tag: 0,
        };
        let good = AppendBatch {
            requests: vec![],
            metas: vec![meta, meta],
            records: [record.clone(), record.clone()].concat(),
        };
        assert_eq!(not_records(&good), None);
        let mut long = good.clone();
        long.records.push(0);
        let mut short = good.clone();
        short.records.pop();
        let mut other = good;
        other.metas[0].size -= 1;
        for bad in [long, short, other] {
            assert!(not_records(&bad).is_some());
        }
    }
}
