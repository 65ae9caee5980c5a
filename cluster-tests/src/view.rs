//! What the node has published, and reading as a consumer's connection does: the tail from
//! memory, everything else by index row and log entry.

use crate::seen::Answer;
use bytes::Bytes;
use std::collections::BTreeMap;
use troupemq::actors::shard::machine::Machine;
use troupemq::model::topic::TopicConfig;
use troupemq::model::{record, Position, QueueKey, TopicId};
use troupemq::raft::entry::AppendBlock;
use troupemq::storage::keys::index::IndexRow;
use troupemq::storage::{keys, LogStore, SimStore, StateStore, StoreError};

/// Where the message's uid stands in a record.
const UID_AT: usize = record::MIN_RECORD_LEN;

/// A record that carries a uid.
pub fn make_record(uid: u64, padding: usize) -> Vec<u8> {
    let mut r = vec![0u8; UID_AT + 16 + padding];
    let len = r.len() as u32;
    r[..4].copy_from_slice(&len.to_be_bytes());
    r[record::MAGIC_AT..record::MAGIC_AT + 4].copy_from_slice(&record::MAGIC_V1.to_be_bytes());
    r[UID_AT..UID_AT + 8].copy_from_slice(&uid.to_be_bytes());
    r[UID_AT + 8..UID_AT + 16].copy_from_slice(&mark(uid, len).to_be_bytes());
    r
}

fn mark(uid: u64, len: u32) -> u64 {
    (uid ^ (u64::from(len) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The uid of a record that should stand at this place.
pub fn open_record(bytes: &[u8], offset: u64, at: Position) -> Result<u64, String> {
    let word = |at: usize| -> Option<u64> {
        Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    };
    let (Some(uid), Some(seal)) = (word(UID_AT), word(UID_AT + 8)) else {
        return Err(format!("no record at {offset}, {at:?}"));
    };
    if record::record_len(bytes) != Some(bytes.len()) || seal != mark(uid, bytes.len() as u32) {
        return Err(format!("torn or mixed record at {offset}, {at:?}"));
    }
    if record::queue_offset(bytes) != Some(offset as i64)
        || record::phys_offset(bytes) != Some(at.to_physical())
    {
        return Err(format!(
            "message {uid} at {offset}, {at:?} is stamped for another place"
        ));
    }
    Ok(uid)
}

#[derive(Debug)]
struct Cached {
    index: u64,
    block: AppendBlock,
    data: Bytes,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct View {
    pub serving: Option<u64>,
    /// A snapshot came, and nothing of it is shown yet.
    pub filling: bool,
    pub topics: BTreeMap<String, TopicConfig>,
    pub topic_names: BTreeMap<u32, String>,
    pub groups: BTreeMap<String, u32>,
    /// Minimum and maximum.
    pub queues: BTreeMap<QueueKey, (u64, u64)>,
    pub offsets: BTreeMap<(u32, QueueKey), u64>,
    /// When a queue's maximum grew last, microseconds.
    shown_at: BTreeMap<QueueKey, u64>,
    tail: BTreeMap<(QueueKey, u64), Cached>,
}

impl View {
    /// What is shown while a snapshot's rows are made: nothing.
    pub fn filling() -> Self {
        Self {
            filling: true,
            ..Self::default()
        }
    }

    /// What a restored shard begins with.
    pub fn restored(machine: &Machine) -> Self {
        let mut view = Self::default();
        for topic in machine.topics() {
            view.put_topic(topic.clone());
        }
        for group in machine.groups() {
            view.groups.insert(group.name.clone(), group.id);
        }
        view.queues = machine
            .queues()
            .map(|(key, meta)| (key, (meta.min, meta.next)))
            .collect();
        view
    }

    pub fn put_topic(&mut self, topic: TopicConfig) {
        self.topic_names.insert(topic.id, topic.name.clone());
        self.topics.insert(topic.name.clone(), topic);
    }

    pub fn delete_topic(&mut self, name: &str, id: u32) {
        self.topics.remove(name);
        self.topic_names.remove(&id);
        self.queues.retain(|key, _| key.topic.0 != id);
        self.offsets.retain(|(_, key), _| key.topic.0 != id);
        self.tail.retain(|(key, _), _| key.topic.0 != id);
    }

    /// What is shown, and is not the state.
    pub fn differs(&self, machine: &Machine) -> Option<String> {
        let topics = machine.topics().map(|t| (&t.name, t));
        if !self.topics.iter().eq(topics) {
            return Some(format!("topics {:?}", self.topics));
        }
        let shown = self.queues.iter().map(|(key, bounds)| (*key, *bounds));
        let queues = machine.queues().map(|(key, m)| (key, (m.min, m.next)));
        if !shown.eq(queues) {
            return Some(format!("queues {:?}", self.queues));
        }
        let offsets = machine.groups().flat_map(|group| {
            let one = |((topic, queue), offset)| {
                let key = QueueKey::new(TopicId(topic), queue);
                ((group.id, key), offset)
            };
            machine.offsets_of(group.id).into_iter().map(one)
        });
        let offsets: BTreeMap<(u32, QueueKey), u64> = offsets.collect();
        (self.offsets != offsets).then(|| format!("offsets {:?}", self.offsets))
    }

    pub fn bounds(&self, key: QueueKey) -> (u64, u64) {
        self.queues.get(&key).copied().unwrap_or((0, 0))
    }

    /// When the queue's maximum grew last; `None`: not since the node showed anything.
    pub fn shown_at(&self, key: QueueKey) -> Option<u64> {
        self.shown_at.get(&key).copied()
    }

    pub fn appended(&mut self, now_us: u64, index: u64, block: AppendBlock, data: Bytes) {
        self.shown_at.insert(block.key, now_us);
        self.queues.entry(block.key).or_default().1 = block.base + block.metas.len() as u64;
        self.tail
            .insert((block.key, block.base), Cached { index, block, data });
    }

    /// Rows up to `index` can be read from the store.
    pub fn stored(&mut self, index: u64) {
        self.tail.retain(|_, cached| cached.index > index);
    }

    /// Reads up to `count` records.
    pub fn read(
        &self,
        store: &SimStore,
        key: QueueKey,
        offset: u64,
        count: usize,
    ) -> Result<(Answer, bool), Unread> {
        let (min, max) = self.bounds(key);
        if offset < min {
            return Ok((Answer::TooSmall { min }, false));
        }
        if offset >= max {
            return Ok((Answer::Empty { max }, false));
        }
        let mut records = Vec::new();
        let mut from_store = false;
        let mut next = offset;
        while next < max && records.len() < count {
            let before = records.len();
            match self.tail.range((key, 0)..=(key, next)).next_back() {
                Some((_, c)) if next < c.block.base + c.block.metas.len() as u64 => {
                    let sizes: Vec<u32> = c.block.metas.iter().map(|m| m.size).collect();
                    let at = (c.index, c.block.first_ordinal, c.block.records_at);
                    cut(&c.data, at, c.block.base, &sizes, next, &mut records)?;
                }
                _ => {
                    from_store = true;
                    from_rows(store, key, next, &mut records)?;
                }
            }
            if records.len() == before {
                return Err(format!("{key:?} has {min}..{max}, but nothing at {next}").into());
            }
            next = records.last().map_or(next, |(offset, _, _)| offset + 1);
        }
        records.truncate(count);
        Ok((Answer::Records(records), from_store))
    }
}

type Records = Vec<(u64, u64, Position)>;

/// Why a record was not read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// The stored copy of this entry is bad.
    Bad(u64),
    /// What must not be.
    Wrong(String),
}

impl From<String> for Unread {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

impl From<&str> for Unread {
    fn from(what: &str) -> Self {
        Self::Wrong(what.into())
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bad(index) => write!(f, "entry {index} is bad"),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}

/// The records of a block from `offset` on.
fn cut(
    data: &Bytes,
    (index, first_ordinal, records_at): (u64, u32, u32),
    base: u64,
    sizes: &[u32],
    offset: u64,
    out: &mut Records,
) -> Result<(), String> {
    let mut from = records_at as usize;
    for (i, size) in sizes.iter().enumerate() {
        let (here, end) = (base + i as u64, from + *size as usize);
        if here >= offset {
            let at = Position {
                index,
                ordinal: first_ordinal + i as u32,
            };
            let bytes = data
                .get(from..end)
                .ok_or(format!("entry {index} is too short for {here}"))?;
            out.push((here, open_record(bytes, here, at)?, at));
        }
        from = end;
    }
    Ok(())
}

/// Reads by index row and log entry.
pub fn from_rows(
    store: &SimStore,
    key: QueueKey,
    offset: u64,
    out: &mut Records,
) -> Result<(), Unread> {
    let text = |e: StoreError| match e {
        StoreError::BadEntry { index, .. } => Unread::Bad(index),
        e => Unread::Wrong(format!("{key:?} at {offset}: {e}")),
    };
    let from = keys::index::key(crate::SHARD, key, 0);
    let to = keys::index::key(crate::SHARD, key, offset + 1);
    let Some((row_key, value)) = StateStore::last(store, &from, &to).map_err(text)? else {
        return Err(format!("{key:?} has no index row for {offset}").into());
    };
    let (_, _, base) = keys::index::parse(&row_key).ok_or("an index key does not parse")?;
    let row = IndexRow::decode(&value).map_err(text)?;
    let entries = store
        .read(crate::SHARD, row.log_index, row.log_index + 1, 1)
        .map_err(text)?;
    let Some(entry) = entries.first() else {
        return Err(format!(
            "{key:?} at {offset}: log entry {} is missing",
            row.log_index
        )
        .into());
    };
    let sizes: Vec<u32> = row.items.iter().map(|(size, _)| *size).collect();
    cut(
        &entry.data,
        (row.log_index, row.first_ordinal, row.records_at),
        base,
        &sizes,
        offset,
        out,
    )?;
    Ok(())
}

/// All records of a visible block: (offset, uid, position).
pub fn block_records(index: u64, block: &AppendBlock, data: &Bytes) -> Result<Records, String> {
    let sizes: Vec<u32> = block.metas.iter().map(|m| m.size).collect();
    let mut out = Vec::with_capacity(sizes.len());
    cut(
        data,
        (index, block.first_ordinal, block.records_at),
        block.base,
        &sizes,
        block.base,
        &mut out,
    )?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_only_in_its_place_and_whole() {
        let at = Position {
            index: 3,
            ordinal: 1,
        };
        let mut r = make_record(77, 5);
        record::patch(&mut r, 9, at.to_physical(), 1).unwrap();
        assert_eq!(open_record(&r, 9, at), Ok(77));
        assert!(open_record(&r, 10, at).is_err());
        assert!(open_record(
            &r,
            9,
            Position {
                index: 3,
                ordinal: 2
            }
        )
        .is_err());
        r[UID_AT + 7] ^= 1;
        assert!(open_record(&r, 9, at).is_err());
    }
}
