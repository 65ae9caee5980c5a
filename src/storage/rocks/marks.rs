//! The synced low-water marks: for each shard, an index up to which its log is known to have
//! been synced. A recovered log that ends before the mark lost more than a torn tail.
//!
//! A mark inside the WAL cannot tell: it is lost together with what it guards. So the marks live
//! in a file of their own, one slot a shard, overwritten in place after each sync **without a
//! sync of its own**. The file may therefore lag behind by what the kernel has not yet written
//! back; it is never ahead of what was synced. It is synced with each state flush.
//!
//! A conflict overwrite shortens the log legitimately. Each one raises the shard's *epoch*, in
//! the same batch that shortens it, and a mark counts only for its own epoch:
//! * equal epochs: the log must reach the mark;
//! * the mark's epoch is older: a later overwrite made it void;
//! * the mark's epoch is newer than the log's: the synced overwrite itself is gone.

use crate::model::ShardId;
use crate::storage::points::{pass, FailPoint};
use crate::storage::StoreError;
use rustc_hash::FxHashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const SLOT: usize = 32;
const MAGIC: u32 = 0x544d_4b31;

/// Up to where a shard's log was synced, and in which epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub epoch: u64,
    pub index: u64,
}

/// The open file and its content.
pub(super) struct Marks {
    file: File,
    slots: FxHashMap<u32, usize>,
    bytes: Vec<u8>,
    dirty: Option<(usize, usize)>,
}

impl Marks {
    /// Opens or creates the file. Slots that do not match their checksum (torn by a power cut)
    /// are taken as absent.
    pub fn open(path: &Path) -> Result<(Self, Vec<(ShardId, Mark)>), StoreError> {
        let fail = |e: std::io::Error| StoreError::Io(format!("{}: {e}", path.display()));
        let old = match std::fs::read(path) {
            Ok(old) => old,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(fail(e)),
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(fail)?;
        let mut marks = Self {
            file,
            slots: FxHashMap::default(),
            bytes: Vec::new(),
            dirty: None,
        };
        let mut found = Vec::new();
        for slot in old.chunks_exact(SLOT) {
            if let Some((shard, mark)) = decode(slot) {
                marks.set(shard, mark);
                found.push((shard, mark));
            }
        }
        Ok((marks, found))
    }

    /// Notes a mark; [`Marks::write`] puts all noted ones into the file.
    pub fn set(&mut self, shard: ShardId, mark: Mark) {
        let next = self.bytes.len();
        let at = *self.slots.entry(shard.0).or_insert(next);
        if at == next {
            self.bytes.resize(next + SLOT, 0);
        }
        encode(&mut self.bytes[at..at + SLOT], shard, mark);
        let (from, to) = self.dirty.unwrap_or((at, at + SLOT));
        self.dirty = Some((from.min(at), to.max(at + SLOT)));
    }

    pub fn write(&mut self) -> Result<(), StoreError> {
        if let Some((from, to)) = self.dirty.take() {
            self.file
                .write_all_at(&self.bytes[from..to], from as u64)
                .map_err(io)?;
            pass(FailPoint::MarksWritten);
        }
        Ok(())
    }

    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.write()?;
        self.file.sync_data().map_err(io)?;
        pass(FailPoint::MarksSynced);
        Ok(())
    }
}

fn io(e: std::io::Error) -> StoreError {
    if e.kind() == std::io::ErrorKind::StorageFull {
        return StoreError::NoSpace;
    }
    StoreError::Io(format!("synced marks: {e}"))
}

fn encode(slot: &mut [u8], shard: ShardId, mark: Mark) {
    slot[4..8].copy_from_slice(&MAGIC.to_be_bytes());
    slot[8..12].copy_from_slice(&shard.0.to_be_bytes());
    slot[12..20].copy_from_slice(&mark.epoch.to_be_bytes());
    slot[20..28].copy_from_slice(&mark.index.to_be_bytes());
    let crc = crc32fast::hash(&slot[4..]);
    slot[..4].copy_from_slice(&crc.to_be_bytes());
}

fn decode(slot: &[u8]) -> Option<(ShardId, Mark)> {
    let u32_at = |at: usize| Some(u32::from_be_bytes(*slot.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_be_bytes(*slot.get(at..)?.first_chunk()?));
    if u32_at(0)? != crc32fast::hash(slot.get(4..)?) || u32_at(4)? != MAGIC {
        return None;
    }
    Some((
        ShardId(u32_at(8)?),
        Mark {
            epoch: u64_at(12)?,
            index: u64_at(20)?,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_again_and_torn_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        let (mut marks, found) = Marks::open(&path).unwrap();
        assert!(found.is_empty());
        let one = (
            ShardId(1),
            Mark {
                epoch: 2,
                index: 30,
            },
        );
        let two = (ShardId(9), Mark { epoch: 0, index: 7 });
        marks.set(one.0, Mark::default());
        marks.set(two.0, two.1);
        marks.set(one.0, one.1);
        marks.sync().unwrap();
        assert_eq!(Marks::open(&path).unwrap().1, vec![one, two]);

        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT - 6] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Marks::open(&path).unwrap().1, vec![two]);
    }
}
