//! Restores the machine from the rows of the state store.

use super::segments::Segments;
use super::{Machine, MachineOptions};
use crate::model::group::GroupConfig;
use crate::model::topic::TopicConfig;
use crate::model::ShardId;
use crate::raft::entry::TimerKey;
use crate::storage::keys::log_segment::LogSegment;
use crate::storage::keys::{self, Kind};
use crate::storage::{StateStore, StoreError};
use prost::Message;

const PAGE: usize = 4096;

/// The state store cannot be read, or holds what no version wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("state row of kind {0:?} does not decode")]
    Row(Kind),
}

fn each(
    store: &dyn StateStore,
    shard: ShardId,
    kind: Kind,
    mut row: impl FnMut(&[u8], &[u8]) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let (mut from, to) = keys::all_of_kind(shard, kind);
    loop {
        let page = store.scan(&from, &to, PAGE)?;
        for (key, value) in &page {
            row(key, value)?;
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => {
                from.clone_from(key);
                from.push(0);
            }
            _ => return Ok(()),
        }
    }
}

/// The machine as of the applied index the store holds; an empty one for an empty store. The term
/// of the applied entry is not stored here: the caller reads it from the log.
pub fn load(
    store: &dyn StateStore,
    shard: ShardId,
    options: MachineOptions,
) -> Result<Machine, LoadError> {
    let mut m = Machine::new(shard, options);
    if let Some(value) = store.get(&keys::applied::key(shard))? {
        m.applied.0 = keys::applied::decode(&value)?;
    }
    if let Some(value) = store.get(&keys::base::key(shard))? {
        m.base_at = keys::applied::decode(&value)?;
    }
    if let Some(value) = store.get(&keys::counters::key(shard))? {
        m.counters = keys::counters::Counters::decode(&value)?;
    }
    if let Some(value) = store.get(&keys::members::key(shard))? {
        m.members = keys::members::decode(&value)?;
    }
    each(store, shard, Kind::Topic, |_, value| {
        let topic = TopicConfig::decode(value).map_err(|_| LoadError::Row(Kind::Topic))?;
        m.topic_names.insert(topic.id, topic.name.clone());
        m.topics.insert(topic.name.clone(), topic);
        Ok(())
    })?;
    each(store, shard, Kind::Group, |_, value| {
        let group = GroupConfig::decode(value).map_err(|_| LoadError::Row(Kind::Group))?;
        m.group_names.insert(group.id, group.name.clone());
        m.groups.insert(group.name.clone(), group);
        Ok(())
    })?;
    each(store, shard, Kind::Queue, |key, value| {
        let (_, queue) = keys::queue::parse(key).ok_or(LoadError::Row(Kind::Queue))?;
        m.queues
            .insert(queue, keys::queue::QueueMeta::decode(value)?);
        Ok(())
    })?;
    each(store, shard, Kind::Offset, |key, value| {
        let (_, g, q) = keys::offset::parse(key).ok_or(LoadError::Row(Kind::Offset))?;
        m.offsets
            .insert((g.0, q.topic.0, q.queue), keys::offset::decode(value)?);
        Ok(())
    })?;
    each(store, shard, Kind::Lock, |key, value| {
        let (_, g, q) = keys::lock::parse(key).ok_or(LoadError::Row(Kind::Lock))?;
        m.locks.insert(
            (g.0, q.topic.0, q.queue),
            keys::lock::LockRow::decode(value)?,
        );
        Ok(())
    })?;
    each(store, shard, Kind::Timer, |key, value| {
        let (_, due_ms, position) = keys::timer::parse(key).ok_or(LoadError::Row(Kind::Timer))?;
        let row = keys::timer::TimerRow::decode(value)?;
        m.timers.insert(TimerKey { due_ms, position }, row.queue);
        m.timer_indices.insert((position.index, position.ordinal));
        Ok(())
    })?;
    each(store, shard, Kind::SegmentQueue, |key, value| {
        let (_, seq, queue) =
            keys::segment_queue::parse(key).ok_or(LoadError::Row(Kind::SegmentQueue))?;
        let end = keys::segment_queue::decode(value)?;
        m.segments.ends.entry(seq).or_default().insert(queue, end);
        Ok(())
    })?;
    let mut segments = Vec::new();
    each(store, shard, Kind::LogSegment, |key, value| {
        let (_, seq) = keys::log_segment::parse(key).ok_or(LoadError::Row(Kind::LogSegment))?;
        let segment = LogSegment::decode(value)?;
        m.last_at_ms = m.last_at_ms.max(segment.max_ts);
        segments.push((seq, segment));
        Ok(())
    })?;
    restore_segments(&mut m.segments, segments);
    m.held = m.held_anew();
    m.digest = m.digest_anew();
    Ok(m)
}

/// Only the newest segment can be open, and its row says whether it is. (A row of the first
/// version does not: that one is closed if queues are listed for it.)
fn restore_segments(to: &mut Segments, mut found: Vec<(u64, LogSegment)>) {
    let newest = found.pop();
    to.closed = found.into_iter().collect();
    match newest {
        Some((seq, segment)) if segment.closed || to.ends.contains_key(&seq) => {
            to.closed.insert(seq, segment);
            to.open_seq = seq + 1;
        }
        Some((seq, segment)) => {
            to.open_seq = seq;
            to.open = Some(segment);
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::QueueKey;

    #[test]
    fn another_segment_size_leaves_closed_and_open_segments_as_they_were() {
        let segment = |bytes| LogSegment {
            bytes,
            ..LogSegment::default()
        };
        let rows = vec![(3, segment(10)), (4, segment(100)), (5, segment(1_000))];
        let mut open = Segments::default();
        restore_segments(&mut open, rows.clone());
        assert_eq!((open.closed.len(), open.open_seq), (2, 5));
        assert_eq!(open.open, Some(segment(1_000)), "its queues are not listed");

        let mut closed = Segments::default();
        let ends = [(QueueKey::new(crate::model::TopicId(1), 0), 7)];
        closed.ends.insert(5, ends.into());
        restore_segments(&mut closed, rows);
        assert_eq!((closed.closed.len(), closed.open_seq), (3, 6));
        assert_eq!(closed.open, None);

        let mut bare = Segments::default();
        let closed = LogSegment {
            closed: true,
            ..segment(10)
        };
        restore_segments(&mut bare, vec![(7, closed)]);
        assert_eq!((bare.open_seq, bare.open), (8, None), "no queue was in it");

        let mut none = Segments::default();
        restore_segments(&mut none, vec![]);
        assert_eq!((none.open_seq, none.open), (0, None));
    }
}
