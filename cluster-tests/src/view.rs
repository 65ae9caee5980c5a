//! What the node has published, and reading as a consumer's connection does, by the server's own views and
//! reads: the tail from memory, everything else by index row and log entry.

use crate::seen::Answer;
use bytes::Bytes;
use std::collections::BTreeMap;
use troupemq::actors::shard::handle::QueueBounds;
use troupemq::actors::shard::machine::Machine;
use troupemq::actors::shard::recent::{Recent, Scheduled};
use troupemq::actors::shard::views::{Segment, Views};
use troupemq::model::append::{ReadBatch, ReadSpec};
use troupemq::model::topic::TopicConfig;
use troupemq::model::{record, Position, QueueKey, TopicId};
use troupemq::raft::entry::AppendBlock;
use troupemq::storage::keys::index::IndexRow;
use troupemq::storage::{keys, LogStore, SimStore, StateStore, StoreError};

/// Bytes of records that stay in memory; one of them for each seed.
const TAILS: [usize; 4] = [0, 300, 5_000, 1 << 20];

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

/// See the module text.
pub struct View {
    pub serving: Option<u64>,
    /// A snapshot came, and nothing of it is shown yet.
    pub filling: bool,
    /// The log was given up: until the node stops, reads find nothing behind what is shown.
    pub given_up: bool,
    pub topics: BTreeMap<String, TopicConfig>,
    pub topic_names: BTreeMap<u32, String>,
    pub groups: BTreeMap<String, u32>,
    pub offsets: BTreeMap<(u32, QueueKey), u64>,
    /// When a queue's maximum grew last, microseconds.
    shown_at: BTreeMap<QueueKey, u64>,
    /// Bounds of queues and their newest records.
    views: Views,
    reads: Recent,
}

impl View {
    /// Of a node that runs no shard yet.
    pub fn new(seed: u64) -> Self {
        Self {
            serving: None,
            filling: false,
            given_up: false,
            topics: BTreeMap::new(),
            topic_names: BTreeMap::new(),
            groups: BTreeMap::new(),
            offsets: BTreeMap::new(),
            shown_at: BTreeMap::new(),
            views: Views::new(TAILS[(seed / 3 % 4) as usize]),
            reads: Recent::new(crate::SHARD),
        }
    }

    /// While a snapshot's rows are made nothing is shown.
    pub fn install(&mut self) {
        self.serving = None;
        self.filling = true;
        self.topics.clear();
        self.topic_names.clear();
        self.groups.clear();
        self.offsets.clear();
        self.shown_at.clear();
        self.views.clear();
    }

    /// The rows are there.
    pub fn filled(&mut self, machine: &Machine, queues: Vec<(QueueKey, u64, u64)>) {
        self.filling = false;
        self.name(machine);
        for (key, min, max) in queues {
            self.views.restore(key, QueueBounds { min, max });
        }
    }

    /// What a restored shard begins with.
    pub fn restored(seed: u64, machine: &Machine) -> Self {
        let mut view = Self::new(seed);
        view.name(machine);
        for (key, meta) in machine.queues() {
            let (min, max) = (meta.min, meta.next);
            view.views.restore(key, QueueBounds { min, max });
        }
        view
    }

    fn name(&mut self, machine: &Machine) {
        for topic in machine.topics() {
            self.put_topic(topic.clone());
        }
        for group in machine.groups() {
            self.groups.insert(group.name.clone(), group.id);
        }
    }

    pub fn put_topic(&mut self, topic: TopicConfig) {
        self.topic_names.insert(topic.id, topic.name.clone());
        self.topics.insert(topic.name.clone(), topic);
    }

    pub fn delete_topic(&mut self, name: &str, id: u32) {
        self.topics.remove(name);
        self.topic_names.remove(&id);
        self.offsets.retain(|(_, key), _| key.topic.0 != id);
        self.views.remove_topic(TopicId(id));
    }

    /// What is shown, and is not the state.
    pub fn differs(&self, machine: &Machine) -> Option<String> {
        let topics = machine.topics().map(|t| (&t.name, t));
        if !self.topics.iter().eq(topics) {
            return Some(format!("topics {:?}", self.topics));
        }
        let shown = self.views.all();
        let queues = machine.queues().map(|(key, m)| (key, (m.min, m.next)));
        let bounds = shown.iter().map(|(key, b)| (*key, (b.min, b.max)));
        if !bounds.eq(queues) {
            return Some(format!("queues {shown:?}"));
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

    /// Minimum and maximum.
    pub fn bounds(&self, key: QueueKey) -> (u64, u64) {
        let bounds = self.views.get(key).map(|view| view.bounds());
        bounds.map_or((0, 0), |b| (b.min, b.max))
    }

    /// When the queue's maximum grew last; `None`: not since the node showed anything.
    pub fn shown_at(&self, key: QueueKey) -> Option<u64> {
        self.shown_at.get(&key).copied()
    }

    pub fn appended(&mut self, now_us: u64, at: (u64, i64), block: AppendBlock, data: &Bytes) {
        self.shown_at.insert(block.key, now_us);
        let from = block.records_at as usize;
        let segment = Segment {
            base: block.base,
            index: at.0,
            store_ts: at.1,
            metas: block.metas.into(),
            records: data.slice(from..from + block.records_len as usize),
        };
        self.views.append(block.key, segment);
    }

    /// Rows up to `index` can be read from the store.
    pub fn stored(&self, index: u64) {
        self.views.stored(index);
    }

    /// The queue begins there.
    pub fn trimmed(&self, key: QueueKey, min: u64) {
        self.views.trimmed(key, min);
    }

    /// No replica has a good copy of an entry.
    pub fn lose(&self, index: u64) {
        self.reads.damage().lose(index);
    }

    /// And it has one again.
    pub fn mended(&self, index: u64) {
        self.reads.damage().mended(index);
    }

    /// A scheduled record, for the timer.
    pub fn scheduled(&self, store: &SimStore, position: Position) -> Result<Scheduled, Unread> {
        let found = self.reads.scheduled(store, position);
        found.map_err(|error| unread(error, format_args!("{position:?}")))
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
        let spec = ReadSpec {
            max_messages: count as u32,
            max_bytes: 1 << 20,
            tags: None,
            max_scan: u32::MAX,
        };
        let tail = self.views.get(key).and_then(|v| v.read(offset, &spec));
        let from_store = tail.is_none();
        let batch = match tail.or_else(|| self.reads.read_cached(key, offset, &spec)) {
            Some(batch) => batch,
            None => {
                let read = self.reads.read(store, key, offset, max, &spec);
                read.map_err(|error| unread(error, format_args!("{key:?} at {offset}")))?
            }
        };
        let records = opened(&batch, offset)?;
        let next = offset + records.len() as u64;
        if batch.next_offset > next && self.reads.damage().figures().lost > 0 {
            return Err(Unread::Lost);
        }
        if records.is_empty() || batch.next_offset != next || next > max {
            let what = format!("{key:?} has {min}..{max}, and a read at {offset} gives {batch:?}");
            return Err(Unread::Wrong(what));
        }
        Ok((Answer::Records(records), from_store))
    }
}

/// The records of a batch: each stamped for its place, the first for `offset`.
fn opened(batch: &ReadBatch, offset: u64) -> Result<Records, Unread> {
    let mut records = Records::new();
    for slice in &batch.slices {
        let mut rest = &slice[..];
        while !rest.is_empty() {
            let here = offset + records.len() as u64;
            let len = record::record_len(rest).filter(|len| (1..=rest.len()).contains(len));
            let len = len.ok_or_else(|| format!("no record at {here}"))?;
            let (one, others) = rest.split_at(len);
            let at = record::phys_offset(one).and_then(Position::from_physical);
            let at = at.ok_or_else(|| format!("no position at {here}"))?;
            records.push((here, open_record(one, here, at)?, at));
            rest = others;
        }
    }
    if records.len() != batch.messages as usize {
        return Err(Unread::Wrong(format!(
            "a batch of {} counts {}",
            records.len(),
            batch.messages
        )));
    }
    Ok(records)
}

fn unread(error: StoreError, what: std::fmt::Arguments<'_>) -> Unread {
    match error {
        StoreError::BadEntry { index, .. } => Unread::Bad(index),
        error => Unread::Wrong(format!("{what}: {error}")),
    }
}

type Records = Vec<(u64, u64, Position)>;

/// Why a record was not read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// The stored copy of this entry is bad.
    Bad(u64),
    /// Nobody has a good copy: the read went past it.
    Lost,
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
            Self::Lost => f.write_str("its messages are lost"),
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
    let text = |e: StoreError| unread(e, format_args!("{key:?} at {offset}"));
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
