//! The record of acknowledged messages: what a broker has promised to keep.
//!
//! A file starts with the eight bytes `TBREC001` and the run id (u32, big-endian). Then follow
//! entries of unsigned LEB128 numbers, the first of each being its kind:
//!
//! - 1, a queue: number, length and bytes of the broker name, of the topic, queue id
//! - 2, an acknowledgement: queue number, connection, first number of the message in its
//!   connection, attempt, first offset, messages
//! - 3, the end: number of acknowledged messages, CRC-32 of everything before this entry
//!
//! Without the end, or with another checksum, the file proves nothing and is refused.

use super::sending::QueueName;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

const MAGIC: &[u8; 8] = b"TBREC001";
const QUEUE: u64 = 1;
const ACK: u64 = 2;
const END: u64 = 3;
/// Bytes collected before they go to the file.
const BUFFER: usize = 256 * 1024;
/// Longest name in a record.
const MAX_NAME: u64 = 65_536;
/// Most queues in a record.
const MAX_QUEUES: u64 = 10_000_000;

/// Some acknowledged messages, one after the other in a queue and in their connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    /// Number of the queue in this record.
    pub queue: u32,
    /// Connection.
    pub connection: u16,
    /// Number of the first message in its connection.
    pub seq: u64,
    /// 0 for the first try.
    pub attempt: u16,
    /// Offset of the first message.
    pub offset: i64,
    /// Messages.
    pub count: u32,
}

/// Writes a record.
#[derive(Debug)]
pub(super) struct Recorder {
    out: BufWriter<File>,
    crc: crc32fast::Hasher,
    entry: Vec<u8>,
    queues: Vec<bool>,
    messages: u64,
}

impl Recorder {
    /// A new file, or an emptied one.
    pub(super) fn create(path: &Path, run: u32) -> io::Result<Self> {
        let mut recorder = Self {
            out: BufWriter::with_capacity(BUFFER, File::create(path)?),
            crc: crc32fast::Hasher::new(),
            entry: Vec::new(),
            queues: Vec::new(),
            messages: 0,
        };
        recorder.entry.extend_from_slice(MAGIC);
        recorder.entry.extend_from_slice(&run.to_be_bytes());
        recorder.write()?;
        Ok(recorder)
    }

    /// Writes the collected entry.
    fn write(&mut self) -> io::Result<()> {
        self.crc.update(&self.entry);
        self.out.write_all(&self.entry)?;
        self.entry.clear();
        Ok(())
    }

    fn put(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.entry.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.entry.push(value as u8);
    }

    /// Records an acknowledgement; `name` is asked for a queue that comes for the first time.
    pub(super) fn ack(&mut self, ack: &Ack, name: impl FnOnce() -> QueueName) -> io::Result<()> {
        let number = ack.queue as usize;
        if self.queues.get(number) != Some(&true) {
            if self.queues.len() <= number {
                self.queues.resize(number + 1, false);
            }
            self.queues[number] = true;
            let (broker, topic, id) = name();
            self.put(QUEUE);
            self.put(ack.queue.into());
            for text in [broker.as_str(), &topic] {
                self.put(text.len() as u64);
                self.entry.extend_from_slice(text.as_bytes());
            }
            self.put(u64::try_from(id).unwrap_or(0));
        }
        self.put(ACK);
        self.put(ack.queue.into());
        self.put(ack.connection.into());
        self.put(ack.seq);
        self.put(ack.attempt.into());
        self.put(u64::try_from(ack.offset).unwrap_or(0));
        self.put(ack.count.into());
        self.messages += u64::from(ack.count);
        self.write()
    }

    /// Writes the end; gives the number of messages.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let crc = self.crc.clone().finalize();
        self.put(END);
        self.put(self.messages);
        self.put(crc.into());
        self.write()?;
        self.out.flush()?;
        Ok(self.messages)
    }
}

/// A record that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The run.
    pub run: u32,
    /// Queues by number.
    pub queues: BTreeMap<u32, QueueName>,
    /// Acknowledgements in the order in which they came.
    pub acks: Vec<Ack>,
    /// Messages acknowledged.
    pub messages: u64,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let found = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(found)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return None };
            let part = u64::from(byte & 0x7F);
            if shift == 63 && part > 1 {
                return None;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    fn text(&mut self) -> Option<String> {
        let len = self.number().filter(|n| *n <= MAX_NAME)?;
        let bytes = self.take(usize::try_from(len).ok()?)?;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

impl Record {
    /// Reads a whole file.
    ///
    /// # Errors
    /// When it cannot be read, was cut off or changed.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let bytes = std::fs::read(path).map_err(|e| format!("{shown}: {e}"))?;
        Self::parse(&bytes).map_err(|why| format!("{shown}: {why}"))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut r = Reader { bytes, at: 0 };
        if r.take(8) != Some(MAGIC) {
            return Err("not a record of troupe bench".to_owned());
        }
        let cut = || "the record is cut off or damaged".to_owned();
        let run = r.take(4).and_then(|b| b.try_into().ok()).ok_or_else(cut)?;
        let mut record = Record {
            run: u32::from_be_bytes(run),
            ..Record::default()
        };
        loop {
            let at = r.at;
            match r.number().ok_or_else(cut)? {
                QUEUE => record.queue(&mut r).ok_or_else(cut)?,
                ACK => record.ack(&mut r).ok_or_else(cut)?,
                END => {
                    let (messages, crc) = (r.number(), r.number());
                    let whole = messages == Some(record.messages)
                        && crc == Some(crc32fast::hash(&bytes[..at]).into())
                        && r.at == bytes.len();
                    return if whole { Ok(record) } else { Err(cut()) };
                }
                _ => return Err(cut()),
            }
        }
    }

    fn queue(&mut self, r: &mut Reader<'_>) -> Option<()> {
        let number: u32 = r.small()?;
        let broker = r.text()?;
        let topic = r.text()?;
        if self.queues.len() as u64 >= MAX_QUEUES {
            return None;
        }
        let name = (broker, topic.into(), r.small()?);
        self.queues.insert(number, name).is_none().then_some(())
    }

    fn ack(&mut self, r: &mut Reader<'_>) -> Option<()> {
        let ack = Ack {
            queue: r.small()?,
            connection: r.small()?,
            seq: r.number()?,
            attempt: r.small()?,
            offset: r.small()?,
            count: r.small()?,
        };
        ack.offset.checked_add(ack.count.into())?;
        ack.seq.checked_add(ack.count.into())?;
        self.queues.contains_key(&ack.queue).then_some(())?;
        self.messages = self.messages.checked_add(ack.count.into())?;
        self.acks.push(ack);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ack(queue: u32, seq: u64) -> Ack {
        Ack {
            queue,
            connection: 3,
            seq,
            attempt: 1,
            offset: seq as i64 * 1_000,
            count: 16,
        }
    }

    fn written(acks: &[Ack]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let mut recorder = Recorder::create(&path, 0xDEAD_BEEF).unwrap();
        for a in acks {
            let name = || ("b".to_owned(), format!("T{}", a.queue).into(), 7);
            recorder.ack(a, name).unwrap();
        }
        assert_eq!(recorder.finish().unwrap(), acks.len() as u64 * 16);
        std::fs::read(path).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let acks = [ack(0, 0), ack(2, u64::MAX / 100_000), ack(0, 300)];
        let record = Record::parse(&written(&acks)).unwrap();
        assert_eq!((record.run, record.messages), (0xDEAD_BEEF, 48));
        assert_eq!(record.acks, acks);
        assert_eq!(record.queues.len(), 2);
        assert_eq!(record.queues[&2], ("b".to_owned(), "T2".into(), 7));
    }

    #[test]
    fn every_change_and_every_cut_is_seen() {
        let bytes = written(&[ack(0, 1), ack(1, 2)]);
        assert!(Record::parse(&bytes).is_ok());
        for len in 0..bytes.len() {
            assert!(Record::parse(&bytes[..len]).is_err(), "{len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Longer spellings of the same number do not count as a change.
            let read = Record::parse(&bad);
            assert!(read.is_err() || read == Record::parse(&bytes), "{bit}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(Record::parse(&longer).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(tail);
            let _ = Record::parse(&bytes);
        }
    }
}
