//! Applying entries.

use super::{digest, Applied, ApplyError, Event, Machine};
use crate::model::command::{CommitOffsets, DeleteGroup, LockChange, MetaOp};
use crate::model::group::GroupConfig;
use crate::model::topic::TopicConfig;
use crate::model::{GroupId, QueueKey, ShardId, TopicId};
use crate::raft::entry::{self, AppendBlock, Command, TimerKey};
use crate::raft::members;
use crate::storage::keys;
use crate::storage::keys::index::IndexRow;
use crate::storage::keys::lock::LockRow;
use crate::storage::keys::queue::QueueMeta;
use crate::storage::keys::timer::TimerRow;
use crate::storage::{LogEntry, StateOp};
use prost::Message;
use std::collections::BTreeMap;

pub(super) fn put(key: Vec<u8>, value: Vec<u8>) -> StateOp {
    StateOp::Put { key, value }
}

/// Where the records of a block lie, for whoever reads their queue.
pub(super) fn index_row(shard: ShardId, index: u64, at_ms: i64, block: &AppendBlock) -> StateOp {
    let row = IndexRow {
        log_index: index,
        records_at: block.records_at,
        first_ordinal: block.first_ordinal,
        store_ts: at_ms,
        items: block.metas.iter().map(|m| (m.size, m.tag)).collect(),
    };
    put(keys::index::key(shard, block.key, block.base), row.encode())
}

pub(super) fn range((from, to): (Vec<u8>, Vec<u8>)) -> StateOp {
    StateOp::DeleteRange { from, to }
}

impl Machine {
    /// Applies the next committed entry.
    pub fn apply(&mut self, e: &LogEntry) -> Result<Applied, ApplyError> {
        let fail = |what: String| ApplyError {
            index: e.index,
            what,
        };
        if e.index != self.applied.0 + 1 {
            return Err(fail(format!("applied up to {}", self.applied.0)));
        }
        if self.is_filling() {
            return self.fill(e);
        }
        let mut out = Applied::default();
        if e.kind == 0 && !e.data.is_empty() {
            let decoded = entry::decode(e.index, &e.data).map_err(|err| fail(err.to_string()))?;
            out.at_ms = decoded.at_ms;
            self.last_at_ms = self.last_at_ms.max(decoded.at_ms);
            for command in decoded.commands {
                self.command(e.index, decoded.at_ms, command, &mut out)
                    .map_err(fail)?;
            }
        }
        if e.kind != 0 {
            self.members = members::replay(&self.members, e).map_err(fail)?;
            out.rows.push(self.members_row());
        }
        self.applied = (e.index, e.term);
        self.count_segment(e, &mut out);
        out.rows.push(put(
            keys::applied::key(self.shard),
            keys::applied::encode(e.index),
        ));
        Ok(out)
    }

    fn count_segment(&mut self, e: &LogEntry, out: &mut Applied) {
        let limit = self.options.segment_bytes;
        let full = self
            .segments
            .add(e.index, e.term, e.data.len() as u64 + 64, out.at_ms, limit);
        let seq = self.segments.open_seq;
        let row = match full {
            true => {
                let touched = self.queues.iter().filter(|(_, meta)| meta.segment == seq);
                let ends: BTreeMap<QueueKey, u64> = touched.map(|(k, m)| (*k, m.next)).collect();
                for (key, end) in &ends {
                    let at = keys::segment_queue::key(self.shard, seq, *key);
                    out.rows.push(put(at, keys::segment_queue::encode(*end)));
                }
                self.segments.ends.insert(seq, ends);
                self.segments.roll().map(|(_, segment)| segment)
            }
            false => self.segments.open,
        };
        if let Some(segment) = row {
            out.rows.push(put(
                keys::log_segment::key(self.shard, seq),
                segment.encode(),
            ));
        }
    }

    fn command(
        &mut self,
        index: u64,
        at_ms: i64,
        command: Command,
        out: &mut Applied,
    ) -> Result<(), String> {
        match command {
            Command::Append(block) => self.append(index, at_ms, block, out)?,
            Command::Schedule {
                timer,
                target,
                record_at,
                size,
                ..
            } => {
                let row = TimerRow {
                    queue: target,
                    records_at: record_at,
                    size,
                };
                out.rows.push(put(
                    keys::timer::key(self.shard, timer.due_ms, timer.position),
                    row.encode(),
                ));
                self.digest.add(digest::timer(timer, target));
                if let Some(before) = self.timers.insert(timer, target) {
                    self.digest.take(digest::timer(timer, before));
                }
                self.timer_indices
                    .insert((timer.position.index, timer.position.ordinal));
                out.events.push(Event::TimerAdded { timer, target });
            }
            Command::Fired(timer) => self.fired(timer, out)?,
            Command::Meta(command) => match command.op {
                Some(op) => self.meta(index, op, out)?,
                None => return Err("metadata command of an unknown kind".into()),
            },
        }
        Ok(())
    }

    fn append(
        &mut self,
        index: u64,
        at_ms: i64,
        block: AppendBlock,
        out: &mut Applied,
    ) -> Result<(), String> {
        if !self.topic_names.contains_key(&block.key.topic.0) {
            out.events.push(Event::AppendDropped(block));
            return Ok(());
        }
        let seq = self.segments.open_seq;
        let new = !self.queues.contains_key(&block.key);
        let meta = self.queues.entry(block.key).or_insert(QueueMeta {
            next: 0,
            min: 0,
            segment: seq,
        });
        if meta.next != block.base {
            return Err(format!(
                "queue {:?} is at {}, the append says {}",
                block.key, meta.next, block.base
            ));
        }
        if !new {
            self.digest.take(digest::queue(block.key, meta));
        }
        meta.next += block.metas.len() as u64;
        meta.segment = seq;
        self.digest.add(digest::queue(block.key, meta));
        out.rows.push(index_row(self.shard, index, at_ms, &block));
        out.rows
            .push(put(keys::queue::key(self.shard, block.key), meta.encode()));
        out.events.push(Event::Appended(block));
        Ok(())
    }

    fn fired(&mut self, timer: TimerKey, out: &mut Applied) -> Result<(), String> {
        // The leader fires only what it holds applied, so a second firing is a defect (I13).
        let Some(target) = self.timers.remove(&timer) else {
            return Err(format!("timer {timer:?} fired twice"));
        };
        self.digest.take(digest::timer(timer, target));
        self.timer_indices
            .remove(&(timer.position.index, timer.position.ordinal));
        let key = keys::timer::key(self.shard, timer.due_ms, timer.position);
        out.rows.push(StateOp::Delete { key });
        out.events.push(Event::TimerFired(timer));
        Ok(())
    }

    fn meta(&mut self, index: u64, op: MetaOp, out: &mut Applied) -> Result<(), String> {
        match op {
            MetaOp::PutTopic(topic) => self.put_topic(topic, out),
            MetaOp::EnsureTopic(topic) => {
                if !self.topics.contains_key(&topic.name) {
                    self.put_topic(topic, out);
                }
            }
            MetaOp::DeleteTopic(name) => self.delete_topic(name, out),
            MetaOp::PutGroup(group) => self.put_group(group, out),
            MetaOp::EnsureGroup(group) => {
                if self.groups.get(&group.name).is_none_or(|old| old.deleted) {
                    self.put_group(group, out);
                }
            }
            MetaOp::DeleteGroup(delete) => self.delete_group(delete, out),
            MetaOp::CommitOffsets(commit) => self.commit_offsets(commit, out),
            MetaOp::Locks(change) => self.change_locks(change, out),
            MetaOp::Trim(trim) => return self.trim(index, trim, out),
        }
        Ok(())
    }

    fn put_counters(&self, out: &mut Applied) {
        out.rows
            .push(put(keys::counters::key(self.shard), self.counters.encode()));
    }

    fn put_topic(&mut self, mut topic: TopicConfig, out: &mut Applied) {
        topic.id = match self.topics.get(&topic.name) {
            Some(old) => old.id,
            None => {
                self.counters.next_topic += 1;
                self.put_counters(out);
                self.counters.next_topic - 1
            }
        };
        let key = keys::topic::key(self.shard, TopicId(topic.id));
        out.rows.push(put(key, topic.encode_to_vec()));
        self.topic_names.insert(topic.id, topic.name.clone());
        self.digest.add(digest::topic(&topic));
        self.held.add_topic(&topic);
        if let Some(before) = self.topics.insert(topic.name.clone(), topic.clone()) {
            self.held.take_topic(&before);
            self.digest.take(digest::topic(&before));
        }
        out.events.push(Event::Topic(topic));
    }

    fn delete_topic(&mut self, name: String, out: &mut Applied) {
        let Some(topic) = self.topics.remove(&name) else {
            return;
        };
        self.digest.take(digest::topic(&topic));
        self.held.take_topic(&topic);
        let id = TopicId(topic.id);
        self.topic_names.remove(&topic.id);
        let queues: Vec<QueueKey> = self
            .queues
            .range(QueueKey::new(id, 0)..=QueueKey::new(id, u32::MAX))
            .map(|(key, _)| *key)
            .collect();
        for key in queues {
            if let Some(meta) = self.queues.remove(&key) {
                self.digest.take(digest::queue(key, &meta));
            }
            out.rows
                .push(range(keys::index::queue_range(self.shard, key)));
        }
        out.rows
            .push(range(keys::queue::topic_range(self.shard, id)));
        out.rows.push(StateOp::Delete {
            key: keys::topic::key(self.shard, id),
        });
        let stale: Vec<_> = self
            .offsets
            .keys()
            .filter(|(_, t, _)| *t == topic.id)
            .copied()
            .collect();
        for at in stale {
            if let Some(before) = self.offsets.remove(&at) {
                self.digest.take(digest::offset(at, before));
            }
            out.rows.push(StateOp::Delete {
                key: self.offset_key(at),
            });
        }
        let stale: Vec<_> = self
            .locks
            .keys()
            .filter(|(_, t, _)| *t == topic.id)
            .copied()
            .collect();
        for at in stale {
            self.unlock(at);
            out.rows.push(StateOp::Delete {
                key: self.lock_key(at),
            });
        }
        out.events.push(Event::TopicDeleted { name, id: topic.id });
    }

    fn put_group(&mut self, mut group: GroupConfig, out: &mut Applied) {
        group.id = match self.groups.get(&group.name) {
            Some(old) => old.id,
            None => {
                self.counters.next_group += 1;
                self.put_counters(out);
                self.counters.next_group - 1
            }
        };
        out.rows.push(put(
            keys::group::key(self.shard, GroupId(group.id)),
            group.encode_to_vec(),
        ));
        if group.deleted {
            self.drop_locks(group.id);
            let id = GroupId(group.id);
            out.rows
                .push(range(keys::lock::group_range(self.shard, id)));
        }
        self.group_names.insert(group.id, group.name.clone());
        self.digest.add(digest::group(&group));
        self.held.add_group(&group);
        if let Some(before) = self.groups.insert(group.name.clone(), group.clone()) {
            self.held.take_group(&before);
            self.digest.take(digest::group(&before));
        }
        out.events.push(Event::Group(group));
    }

    fn delete_group(&mut self, delete: DeleteGroup, out: &mut Applied) {
        let Some(group) = self.groups.remove(&delete.name) else {
            return;
        };
        self.digest.take(digest::group(&group));
        self.held.take_group(&group);
        let id = GroupId(group.id);
        self.group_names.remove(&group.id);
        out.rows.push(StateOp::Delete {
            key: keys::group::key(self.shard, id),
        });
        // Offsets and locks hang on the id, which is never used again.
        let all = (group.id, 0, 0)..=(group.id, u32::MAX, u32::MAX);
        for (at, before) in self.offsets.range(all) {
            self.digest.take(digest::offset(*at, *before));
        }
        self.offsets.retain(|(g, _, _), _| *g != group.id);
        self.drop_locks(group.id);
        out.rows
            .push(range(keys::offset::group_range(self.shard, id)));
        out.rows
            .push(range(keys::lock::group_range(self.shard, id)));
        out.events.push(Event::GroupDeleted {
            name: delete.name,
            id: group.id,
        });
    }

    /// All locks of a group go.
    fn drop_locks(&mut self, group: u32) {
        let all = (group, 0, 0)..=(group, u32::MAX, u32::MAX);
        for (at, before) in self.locks.range(all) {
            self.digest.take(digest::lock(*at, before));
        }
        self.locks.retain(|(g, _, _), _| *g != group);
    }

    pub(super) fn offset_key(&self, (g, t, q): (u32, u32, u32)) -> Vec<u8> {
        keys::offset::key(self.shard, GroupId(g), QueueKey::new(TopicId(t), q))
    }

    pub(super) fn lock_key(&self, (g, t, q): (u32, u32, u32)) -> Vec<u8> {
        keys::lock::key(self.shard, GroupId(g), QueueKey::new(TopicId(t), q))
    }

    fn commit_offsets(&mut self, commit: CommitOffsets, out: &mut Applied) {
        if !self.group_names.contains_key(&commit.group) {
            return;
        }
        let mut taken = Vec::new();
        for o in &commit.offsets {
            let key = QueueKey::new(TopicId(o.topic), o.queue);
            let at = (commit.group, o.topic, o.queue);
            let backwards = self.offsets.get(&at).is_some_and(|old| o.offset < *old);
            // I8: never ahead of the queue, never back unless a reset was asked.
            let ahead = o.offset > self.queue(key).next;
            if !self.topic_names.contains_key(&o.topic) || ahead || (backwards && !commit.reset) {
                continue;
            }
            self.digest.add(digest::offset(at, o.offset));
            if let Some(before) = self.offsets.insert(at, o.offset) {
                self.digest.take(digest::offset(at, before));
            }
            out.rows
                .push(put(self.offset_key(at), keys::offset::encode(o.offset)));
            taken.push(*o);
        }
        if !taken.is_empty() {
            out.events.push(Event::Offsets {
                group: commit.group,
                offsets: taken,
                reset: commit.reset,
            });
        }
    }

    fn unlock(&mut self, at: (u32, u32, u32)) {
        if let Some(before) = self.locks.remove(&at) {
            self.digest.take(digest::lock(at, &before));
        }
    }

    fn change_locks(&mut self, change: LockChange, out: &mut Applied) {
        if !self.group_names.contains_key(&change.group) {
            return;
        }
        for lock in &change.queues {
            let at = (change.group, lock.topic, lock.queue);
            if lock.client.is_empty() {
                self.unlock(at);
                out.rows.push(StateOp::Delete {
                    key: self.lock_key(at),
                });
            } else {
                let row = LockRow {
                    client: lock.client.clone(),
                    at_ms: change.at_ms,
                };
                out.rows.push(put(self.lock_key(at), row.encode()));
                self.unlock(at);
                self.digest.add(digest::lock(at, &row));
                self.locks.insert(at, row);
            }
        }
        out.events.push(Event::Locks {
            group: change.group,
            queues: change.queues,
            at_ms: change.at_ms,
        });
    }
}
