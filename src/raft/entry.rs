//! Layout of an entry's data: many commands of many queues, written once, sliced by pulls.
//!
//! ```text
//! header   version u8 = 1 | flags u8 | reserved u16 = 0 | commands u32 | leader time ms i64 | records u32
//! append   kind u8 = 1 | body len u32 | topic u32 | queue u32 | base offset u64 | count u32
//!          | first ordinal u32 | count × (size u32, tag i32) | records, one after the other
//! schedule kind u8 = 2 | body len u32 | due ms i64 | topic u32 | queue u32 | ordinal u32 | tag i32 | record
//! fired    kind u8 = 3 | body len u32 | due ms i64 | log index u64 | ordinal u32
//! meta     kind u8 = 4 | body len u32 | prost `MetaCommand`
//! ```
//!
//! Flag 1: every replica syncs the entry before it says that it has it. Flag 2: the leader alone
//! answered for a part of it (ASYNC_MASTER). Integers are big-endian.
//! Ordinals number the records (appended and scheduled) of an entry.

use crate::model::append::RecordMeta;
use crate::model::command::MetaCommand;
use crate::model::position::MAX_ORDINALS;
use crate::model::record;
use crate::model::{Position, QueueKey, TopicId};
use bytes::Bytes;
use prost::Message;

const VERSION: u8 = 1;
const FLAG_SYNC: u8 = 1;
const FLAG_EARLY: u8 = 2;
const HEADER: usize = 20;
const COMMAND_HEAD: usize = 5;
const APPEND_HEAD: usize = 24;
const SCHEDULE_HEAD: usize = 24;
const FIRED_LEN: usize = 20;
const ITEM: usize = 8;

const APPEND: u8 = 1;
const SCHEDULE: u8 = 2;
const FIRED: u8 = 3;
const META: u8 = 4;

/// The bytes are not an entry this version can read. The replica must stop (invariant I2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} cannot be read: {what}")]
pub struct EntryError {
    pub index: u64,
    pub what: &'static str,
}

/// A timer row: due time and place of the scheduled record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey {
    pub due_ms: i64,
    pub position: Position,
}

/// Builds the data of one entry. The log index must be the one the entry will get.
#[derive(Debug)]
pub struct EntryBuilder {
    index: u64,
    at_ms: i64,
    commands: u32,
    ordinals: u32,
    data: Vec<u8>,
}

impl EntryBuilder {
    /// An empty entry for `index`, stamped with the leader's clock.
    pub fn new(index: u64, at_ms: i64, capacity: usize) -> Self {
        let mut data = Vec::with_capacity(HEADER + capacity);
        data.resize(HEADER, 0);
        Self {
            index,
            at_ms,
            commands: 0,
            ordinals: 0,
            data,
        }
    }

    /// The entry must be synced wherever it is written (SYNC_FLUSH, metadata).
    pub fn sync(&mut self) {
        self.data[1] |= FLAG_SYNC;
    }

    /// The leader answers somebody once it has the entry itself (ASYNC_MASTER).
    pub fn early(&mut self) {
        self.data[1] |= FLAG_EARLY;
    }

    /// Makes room for appends of so many bytes and records in so many blocks.
    pub fn reserve(&mut self, bytes: usize, records: usize, blocks: usize) {
        let heads = blocks * (COMMAND_HEAD + APPEND_HEAD);
        self.data.reserve(bytes + records * ITEM + heads);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// No command was added.
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// Whether `records` more records may be added.
    pub fn has_room(&self, records: usize) -> bool {
        self.ordinals as usize + records <= MAX_ORDINALS as usize
    }

    fn command(&mut self, kind: u8, body: usize) {
        self.commands += 1;
        self.data.push(kind);
        self.data.extend_from_slice(&(body as u32).to_be_bytes());
    }

    /// Adds records of one queue, filling in queue offset, physical offset and store time of each.
    /// Returns the position of the first.
    pub fn append(
        &mut self,
        key: QueueKey,
        base: u64,
        metas: &[RecordMeta],
        records: &[u8],
    ) -> Result<Position, record::NotARecord> {
        self.append_parts(key, base, metas, &[records])
    }

    /// [`EntryBuilder::append`] with the records in several parts, each of whole records.
    pub fn append_parts<R: AsRef<[u8]>>(
        &mut self,
        key: QueueKey,
        base: u64,
        metas: &[RecordMeta],
        records: &[R],
    ) -> Result<Position, record::NotARecord> {
        let first = self.ordinals;
        let bytes: usize = records.iter().map(|part| part.as_ref().len()).sum();
        self.command(APPEND, APPEND_HEAD + metas.len() * ITEM + bytes);
        self.data.extend_from_slice(&key.topic.0.to_be_bytes());
        self.data.extend_from_slice(&key.queue.to_be_bytes());
        self.data.extend_from_slice(&base.to_be_bytes());
        self.data
            .extend_from_slice(&(metas.len() as u32).to_be_bytes());
        self.data.extend_from_slice(&first.to_be_bytes());
        for meta in metas {
            self.data.extend_from_slice(&meta.size.to_be_bytes());
            self.data.extend_from_slice(&meta.tag.to_be_bytes());
        }
        let mut at = self.data.len();
        for part in records {
            self.data.extend_from_slice(part.as_ref());
        }
        for (i, meta) in metas.iter().enumerate() {
            let position = Position {
                index: self.index,
                ordinal: first + i as u32,
            };
            let end = at + meta.size as usize;
            let slot = self.data.get_mut(at..end).ok_or(record::NotARecord)?;
            record::patch(
                slot,
                (base + i as u64) as i64,
                position.to_physical(),
                self.at_ms,
            )?;
            at = end;
        }
        self.ordinals += metas.len() as u32;
        Ok(Position {
            index: self.index,
            ordinal: first,
        })
    }

    /// Adds a delayed record; its offsets are filled in when it fires.
    pub fn schedule(&mut self, due_ms: i64, target: QueueKey, tag: i32, record: &[u8]) -> Position {
        let ordinal = self.ordinals;
        self.command(SCHEDULE, SCHEDULE_HEAD + record.len());
        self.data.extend_from_slice(&due_ms.to_be_bytes());
        self.data.extend_from_slice(&target.topic.0.to_be_bytes());
        self.data.extend_from_slice(&target.queue.to_be_bytes());
        self.data.extend_from_slice(&ordinal.to_be_bytes());
        self.data.extend_from_slice(&tag.to_be_bytes());
        self.data.extend_from_slice(record);
        self.ordinals += 1;
        Position {
            index: self.index,
            ordinal,
        }
    }

    /// Notes that a timer fired: its record is an append of the same entry.
    pub fn fired(&mut self, timer: TimerKey) {
        self.command(FIRED, FIRED_LEN);
        self.data.extend_from_slice(&timer.due_ms.to_be_bytes());
        self.data
            .extend_from_slice(&timer.position.index.to_be_bytes());
        self.data
            .extend_from_slice(&timer.position.ordinal.to_be_bytes());
    }

    /// Adds a metadata command.
    pub fn meta(&mut self, command: &MetaCommand) {
        let len = command.encoded_len();
        self.command(META, len);
        self.data.reserve(len);
        // A Vec grows as needed, so encoding into it cannot run out of room.
        let _ = command.encode(&mut self.data);
    }

    /// The finished data.
    pub fn finish(mut self) -> Vec<u8> {
        self.data[0] = VERSION;
        self.data[4..8].copy_from_slice(&self.commands.to_be_bytes());
        self.data[8..16].copy_from_slice(&self.at_ms.to_be_bytes());
        self.data[16..20].copy_from_slice(&self.ordinals.to_be_bytes());
        self.data
    }
}

/// An append as found in an entry.
#[derive(Debug, Clone)]
pub struct AppendBlock {
    pub key: QueueKey,
    pub base: u64,
    pub first_ordinal: u32,
    pub metas: Vec<RecordMeta>,
    /// Where the first record begins in the entry's data.
    pub records_at: u32,
    pub records_len: u32,
}

/// One command of an entry.
#[derive(Debug, Clone)]
pub enum Command {
    Append(AppendBlock),
    Schedule {
        timer: TimerKey,
        target: QueueKey,
        tag: i32,
        record_at: u32,
        size: u32,
    },
    Fired(TimerKey),
    Meta(MetaCommand),
}

/// A decoded entry.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The leader's clock when it built the entry.
    pub at_ms: i64,
    pub commands: Vec<Command>,
}

struct Cursor<'a> {
    index: u64,
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], EntryError> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.data.len());
        let end = end.ok_or(EntryError {
            index: self.index,
            what: "cut short",
        })?;
        let out = &self.data[self.at..end];
        self.at = end;
        Ok(out)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
    fn u32(&mut self) -> Result<u32, EntryError> {
        Ok(u32::from_be_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64, EntryError> {
        Ok(u64::from_be_bytes(self.array()?))
    }
    fn i64(&mut self) -> Result<i64, EntryError> {
        Ok(i64::from_be_bytes(self.array()?))
    }
    fn fail<T>(&self, what: &'static str) -> Result<T, EntryError> {
        Err(EntryError {
            index: self.index,
            what,
        })
    }
}

/// Whether the entry with this data must be synced before a replica says that it has it. Raft's
/// own entries are synced in every class.
pub fn wants_sync(kind: u8, data: &[u8]) -> bool {
    kind != 0 || data.get(1).is_none_or(|flags| flags & FLAG_SYNC != 0)
}

/// Whether the leader of the entry's term answered for it before others had it.
pub fn was_early(kind: u8, data: &[u8]) -> bool {
    kind == 0 && data.get(1).is_some_and(|flags| flags & FLAG_EARLY != 0)
}

/// Decodes an entry's data; `index` is the entry's log index.
pub fn decode(index: u64, data: &Bytes) -> Result<Decoded, EntryError> {
    let mut c = Cursor { index, data, at: 0 };
    let head: [u8; 4] = c.array()?;
    if head[0] != VERSION {
        return c.fail("version is not known here");
    }
    if head[1] & !(FLAG_SYNC | FLAG_EARLY) != 0 {
        return c.fail("a flag is not known here");
    }
    let count = c.u32()?;
    let at_ms = c.i64()?;
    let ordinals = c.u32()?;
    let mut commands = Vec::with_capacity((count as usize).min(data.len() / COMMAND_HEAD));
    for _ in 0..count {
        let kind = c.array::<1>()?[0];
        let len = c.u32()? as usize;
        let end = c.at + len;
        if end > data.len() {
            return c.fail("command runs past the end");
        }
        let command = match kind {
            APPEND => decode_append(&mut c, end)?,
            SCHEDULE => decode_schedule(&mut c, end)?,
            FIRED => Command::Fired(TimerKey {
                due_ms: c.i64()?,
                position: Position {
                    index: c.u64()?,
                    ordinal: c.u32()?,
                },
            }),
            META => {
                let body = c.take(len)?;
                match MetaCommand::decode(body) {
                    Ok(command) => Command::Meta(command),
                    Err(_) => return c.fail("metadata command does not decode"),
                }
            }
            _ => return c.fail("command kind is not known here"),
        };
        if c.at != end {
            return c.fail("command length does not fit");
        }
        commands.push(command);
    }
    if c.at != data.len() || ordinals > MAX_ORDINALS {
        return c.fail("bytes after the last command");
    }
    Ok(Decoded { at_ms, commands })
}

fn decode_append(c: &mut Cursor<'_>, end: usize) -> Result<Command, EntryError> {
    let key = QueueKey::new(TopicId(c.u32()?), c.u32()?);
    let base = c.u64()?;
    let count = c.u32()? as usize;
    let first_ordinal = c.u32()?;
    if count.saturating_mul(ITEM) > end.saturating_sub(c.at) {
        return c.fail("more items than bytes");
    }
    let mut metas = Vec::with_capacity(count);
    let mut total = 0usize;
    for _ in 0..count {
        let meta = RecordMeta {
            size: c.u32()?,
            tag: i32::from_be_bytes(c.array()?),
        };
        total += meta.size as usize;
        metas.push(meta);
    }
    let records_at = c.at;
    if end.checked_sub(records_at) != Some(total) {
        return c.fail("record sizes do not fit");
    }
    c.at = end;
    Ok(Command::Append(AppendBlock {
        key,
        base,
        first_ordinal,
        metas,
        records_at: records_at as u32,
        records_len: total as u32,
    }))
}

fn decode_schedule(c: &mut Cursor<'_>, end: usize) -> Result<Command, EntryError> {
    let due_ms = c.i64()?;
    let target = QueueKey::new(TopicId(c.u32()?), c.u32()?);
    let ordinal = c.u32()?;
    let tag = i32::from_be_bytes(c.array()?);
    let record_at = c.at;
    let Some(size) = end.checked_sub(record_at) else {
        return c.fail("schedule cut short");
    };
    c.at = end;
    let timer = TimerKey {
        due_ms,
        position: Position {
            index: c.index,
            ordinal,
        },
    };
    Ok(Command::Schedule {
        timer,
        target,
        tag,
        record_at: record_at as u32,
        size: size as u32,
    })
}

/// The bytes of the record with `ordinal`, appended or scheduled; `None` when there is none.
pub fn find_record(index: u64, data: &Bytes, ordinal: u32) -> Result<Option<Bytes>, EntryError> {
    for command in decode(index, data)?.commands {
        match command {
            Command::Append(block) => {
                let Some(nth) = ordinal.checked_sub(block.first_ordinal) else {
                    continue;
                };
                if nth as usize >= block.metas.len() {
                    continue;
                }
                let skip: usize = block.metas[..nth as usize]
                    .iter()
                    .map(|m| m.size as usize)
                    .sum();
                let at = block.records_at as usize + skip;
                return Ok(Some(
                    data.slice(at..at + block.metas[nth as usize].size as usize),
                ));
            }
            Command::Schedule {
                timer,
                record_at,
                size,
                ..
            } if timer.position.ordinal == ordinal => {
                let at = record_at as usize;
                return Ok(Some(data.slice(at..at + size as usize)));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Tag and bytes of the scheduled record with `ordinal`.
pub fn find_scheduled(
    index: u64,
    data: &Bytes,
    ordinal: u32,
) -> Result<Option<(i32, Bytes)>, EntryError> {
    for command in decode(index, data)?.commands {
        if let Command::Schedule {
            timer,
            tag,
            record_at,
            size,
            ..
        } = command
        {
            if timer.position.ordinal == ordinal {
                let at = record_at as usize;
                return Ok(Some((tag, data.slice(at..at + size as usize))));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::command::MetaOp;

    /// The smallest record a shard can patch.
    pub(crate) fn blank_record() -> Vec<u8> {
        let mut r = vec![0u8; record::MIN_RECORD_LEN];
        let len = r.len() as u32;
        r[..4].copy_from_slice(&len.to_be_bytes());
        r[4..8].copy_from_slice(&record::MAGIC_V1.to_be_bytes());
        r
    }

    #[test]
    fn commands_come_back_and_records_are_found() {
        let key = QueueKey::new(TopicId(7), 3);
        let r = blank_record();
        let meta = RecordMeta {
            size: r.len() as u32,
            tag: 5,
        };
        let mut b = EntryBuilder::new(42, 1000, 0);
        let two: Vec<u8> = [r.clone(), r.clone()].concat();
        let first = b.append(key, 100, &[meta, meta], &two).unwrap();
        let timer = b.schedule(5000, key, 9, &r);
        b.fired(TimerKey {
            due_ms: 1,
            position: Position {
                index: 3,
                ordinal: 4,
            },
        });
        b.meta(&MetaOp::DeleteTopic("t".into()).into());
        assert_eq!(
            first,
            Position {
                index: 42,
                ordinal: 0
            }
        );
        assert_eq!(
            timer,
            Position {
                index: 42,
                ordinal: 2
            }
        );
        let data = Bytes::from(b.finish());
        let d = decode(42, &data).unwrap();
        assert_eq!((d.at_ms, d.commands.len()), (1000, 4));
        let second = find_record(42, &data, 1).unwrap().unwrap();
        assert_eq!(
            &second[record::QUEUE_OFFSET_AT..record::QUEUE_OFFSET_AT + 8],
            &101i64.to_be_bytes()
        );
        assert_eq!(
            &second[record::PHYS_OFFSET_AT..record::PHYS_OFFSET_AT + 8],
            &Position {
                index: 42,
                ordinal: 1
            }
            .to_physical()
            .to_be_bytes()
        );
        assert_eq!(find_record(42, &data, 2).unwrap().unwrap(), r);
        assert_eq!(find_record(42, &data, 3).unwrap(), None);
    }

    #[test]
    fn every_cut_and_every_flipped_length_is_refused_without_panic() {
        let r = blank_record();
        let meta = RecordMeta {
            size: r.len() as u32,
            tag: 5,
        };
        let mut b = EntryBuilder::new(1, 1, 0);
        b.append(QueueKey::new(TopicId(1), 0), 0, &[meta], &r)
            .unwrap();
        let whole = b.finish();
        for cut in 0..whole.len() {
            assert!(
                decode(1, &Bytes::copy_from_slice(&whole[..cut])).is_err(),
                "cut at {cut}"
            );
        }
        for at in 0..HEADER + COMMAND_HEAD + APPEND_HEAD + ITEM {
            let mut bad = whole.clone();
            bad[at] ^= 0x80;
            let _ = decode(1, &Bytes::from(bad));
        }
    }
}
