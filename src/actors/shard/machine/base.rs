//! The state without its index rows: what a follower begins with whose next entries were trimmed.
//! The index rows, and the places of waiting timers' records, it makes itself while it replays the
//! log that follows: up to where the base was made a replay does nothing else.
//!
//! ```text
//! version u8 = 1 | made at log index u64 | rows: (key length u32 | key | value length u32 | value) …
//! ```

use super::apply::{index_row, put};
use super::{load, Applied, ApplyError, Machine};
use crate::model::{QueueKey, ShardId};
use crate::raft::entry::{self, AppendBlock, Command};
use crate::raft::members::Members;
use crate::storage::keys::timer::TimerRow;
use crate::storage::{
    keys, keys::Kind, LogEntry, SimStateStore, StateBatch, StateOp, StateStore, StoreError,
};
use bytes::{Buf, BufMut, Bytes};
#[cfg(test)]
use prost::Message;

const VERSION: u8 = 1;

/// The kinds of rows that a base is made of, or that tell whether one can be made.
pub const KINDS: [Kind; 12] = [
    Kind::Applied,
    Kind::Queue,
    Kind::Topic,
    Kind::Group,
    Kind::Offset,
    Kind::Lock,
    Kind::Timer,
    Kind::LogSegment,
    Kind::SegmentQueue,
    Kind::Counters,
    Kind::Members,
    Kind::Base,
];

/// A base, and what has to be known to offer it.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// The log index as of which it is.
    pub made_at: u64,
    /// The members as of then.
    pub members: Members,
    /// See the module text.
    pub bytes: Vec<u8>,
}

/// Makes a base of a shard's rows in the state store, off the shard's thread: all rows of [`KINDS`] as
/// they were at one moment, in any order. Rows that are written together have one applied index, so
/// the base is of that one.
#[derive(Debug)]
pub struct BaseOfRows {
    shard: ShardId,
    applied: Option<u64>,
    members: Option<Members>,
    unkept: Members,
    filling: bool,
    rows: Vec<u8>,
}

impl BaseOfRows {
    /// No row yet. `unkept`: the members, should no row say so because they never changed.
    pub fn new(shard: ShardId, unkept: Members) -> Self {
        Self {
            shard,
            applied: None,
            members: None,
            unkept,
            filling: false,
            rows: Vec::new(),
        }
    }

    /// Takes a row.
    ///
    /// # Errors
    /// It is no row of a known kind.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let kind = key.get(size_of::<u32>()).copied();
        let kind = KINDS.into_iter().find(|k| Some(*k as u8) == kind);
        let kind = kind.ok_or_else(|| StoreError::Corrupt("a state row of no kind".into()))?;
        match kind {
            Kind::Applied => self.applied = Some(keys::applied::decode(value)?),
            // Its index rows are still being made.
            Kind::Base => self.filling = true,
            Kind::Members => {
                self.members = Some(keys::members::decode(value)?);
                put_row(&mut self.rows, key, value);
            }
            Kind::Timer => {
                let queue = TimerRow::decode(value)?.queue;
                put_row(&mut self.rows, key, &waiting(queue).encode());
            }
            _ => put_row(&mut self.rows, key, value),
        }
        Ok(())
    }

    /// All rows were taken. `None`: there is no state that others could begin with.
    pub fn done(mut self) -> Option<Base> {
        let made_at = self.applied?;
        let members = match self.members {
            Some(members) => members,
            None => {
                let (key, value) = (keys::members::key(self.shard), &self.unkept);
                put_row(&mut self.rows, &key, &keys::members::encode(value));
                self.unkept
            }
        };
        let mut bytes = Vec::with_capacity(HEAD + self.rows.len());
        head(&mut bytes, made_at);
        bytes.extend_from_slice(&self.rows);
        (!self.filling).then_some(Base {
            made_at,
            members,
            bytes,
        })
    }

    /// The same from a store that nobody writes to meanwhile.
    pub fn of(mut self, store: &dyn StateStore) -> Result<Option<Base>, StoreError> {
        for kind in KINDS {
            let (from, to) = keys::all_of_kind(self.shard, kind);
            for (key, value) in store.scan(&from, &to, usize::MAX)? {
                self.row(&key, &value)?;
            }
        }
        Ok(self.done())
    }
}

const HEAD: usize = 9;

fn head(out: &mut Vec<u8>, made_at: u64) {
    out.put_u8(VERSION);
    out.put_u64(made_at);
}

fn put_row(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.put_u32(key.len() as u32);
    out.put_slice(key);
    out.put_u32(value.len() as u32);
    out.put_slice(value);
}

/// The row of a waiting timer; where its record lies is found with the record.
fn waiting(queue: QueueKey) -> TimerRow {
    TimerRow {
        queue,
        records_at: 0,
        size: 0,
    }
}

impl Machine {
    /// Index rows are being made for a base: bounds are ahead of what can be read.
    pub fn is_filling(&self) -> bool {
        self.base_at > self.applied.0
    }

    /// What [`BaseOfRows`] makes of the rows that this machine wrote, but for the order of rows.
    #[cfg(test)]
    pub fn base(&self) -> Vec<u8> {
        let shard = self.shard;
        let mut out = Vec::new();
        head(&mut out, self.applied.0);
        let mut put = |key: Vec<u8>, value: Vec<u8>| put_row(&mut out, &key, &value);
        put(keys::counters::key(shard), self.counters.encode());
        put(
            keys::members::key(shard),
            keys::members::encode(&self.members),
        );
        for topic in self.topics.values() {
            let id = crate::model::TopicId(topic.id);
            put(keys::topic::key(shard, id), topic.encode_to_vec());
        }
        for group in self.groups.values() {
            let id = crate::model::GroupId(group.id);
            put(keys::group::key(shard, id), group.encode_to_vec());
        }
        for (key, meta) in &self.queues {
            put(keys::queue::key(shard, *key), meta.encode());
        }
        for (at, offset) in &self.offsets {
            put(self.offset_key(*at), keys::offset::encode(*offset));
        }
        for (at, lock) in &self.locks {
            put(self.lock_key(*at), lock.encode());
        }
        for (timer, queue) in &self.timers {
            let key = keys::timer::key(shard, timer.due_ms, timer.position);
            put(key, waiting(*queue).encode());
        }
        for (seq, segment) in self.segments.all() {
            put(keys::log_segment::key(shard, seq), segment.encode());
        }
        for (seq, ends) in &self.segments.ends {
            for (queue, end) in ends {
                let key = keys::segment_queue::key(shard, *seq, *queue);
                put(key, keys::segment_queue::encode(*end));
            }
        }
        out
    }

    /// The machine that begins with a base behind the log entry at `applied` (index and term), and
    /// the rows that replace all others of the shard.
    pub fn from_base(
        &self,
        applied: (u64, u64),
        base: &Bytes,
    ) -> Result<(Self, Vec<StateOp>), String> {
        let mut rest = base.clone();
        if rest.len() < HEAD || rest.get_u8() != VERSION {
            return Err("a base of an unknown version".into());
        }
        let made_at = rest.get_u64();
        if made_at < applied.0 {
            return Err(format!(
                "a base made at {made_at} for a log behind {}",
                applied.0
            ));
        }
        let (from, to) = keys::all_of_shard(self.shard);
        let mut ops = vec![StateOp::DeleteRange {
            from: from.clone(),
            to: to.clone(),
        }];
        while !rest.is_empty() {
            let key = part(&mut rest)?;
            let value = part(&mut rest)?;
            if key < from || key >= to {
                return Err("a base with rows of another shard".into());
            }
            ops.push(StateOp::Put { key, value });
        }
        let applied_row = (
            keys::applied::key(self.shard),
            keys::applied::encode(applied.0),
        );
        let base_row = (keys::base::key(self.shard), keys::applied::encode(made_at));
        for (key, value) in [applied_row, base_row] {
            ops.push(StateOp::Put { key, value });
        }
        let mut rows = SimStateStore::new();
        let batch = StateBatch { ops };
        rows.write(&batch).map_err(|e| e.to_string())?;
        let mut machine = load(&rows, self.shard, self.options).map_err(|e| e.to_string())?;
        machine.applied = applied;
        Ok((machine, batch.ops))
    }

    /// An entry that the base has taken in: only what lies beside it in the store is made.
    pub(super) fn fill(&mut self, e: &LogEntry) -> Result<Applied, ApplyError> {
        let mut out = Applied::default();
        if e.kind == 0 && !e.data.is_empty() {
            let decoded = entry::decode(e.index, &e.data).map_err(|error| ApplyError {
                index: e.index,
                what: error.to_string(),
            })?;
            out.at_ms = decoded.at_ms;
            self.last_at_ms = self.last_at_ms.max(decoded.at_ms);
            for command in decoded.commands {
                self.fill_command(e.index, decoded.at_ms, command, &mut out);
            }
        }
        self.applied = (e.index, e.term);
        let key = keys::applied::key(self.shard);
        let value = keys::applied::encode(e.index);
        out.rows.push(StateOp::Put { key, value });
        if !self.is_filling() {
            let key = keys::base::key(self.shard);
            out.rows.push(StateOp::Delete { key });
        }
        Ok(out)
    }

    fn fill_command(&self, index: u64, at_ms: i64, command: Command, out: &mut Applied) {
        let row = match command {
            Command::Append(block) if self.holds(block.key, &block) => {
                index_row(self.shard, index, at_ms, &block)
            }
            Command::Schedule {
                timer,
                target,
                record_at,
                size,
                ..
            } if self.timers.contains_key(&timer) => {
                let row = TimerRow {
                    queue: target,
                    records_at: record_at,
                    size,
                };
                let key = keys::timer::key(self.shard, timer.due_ms, timer.position);
                put(key, row.encode())
            }
            _ => return,
        };
        out.rows.push(row);
    }

    /// The records are still in their queue.
    fn holds(&self, key: QueueKey, block: &AppendBlock) -> bool {
        let end = block.base + block.metas.len() as u64;
        let known = self.queues.get(&key);
        known.is_some_and(|meta| block.base >= meta.min && end <= meta.next)
    }
}

/// A length and as many bytes.
fn part(rest: &mut Bytes) -> Result<Vec<u8>, String> {
    if rest.len() < 4 {
        return Err("a base is cut off".into());
    }
    let len = rest.get_u32() as usize;
    if rest.len() < len {
        return Err("a base is cut off".into());
    }
    Ok(rest.split_to(len).to_vec())
}
