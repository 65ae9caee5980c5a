//! Space ahead of the end of the newest WAL, filled with zeros.
//!
//! A sync of a file that has grown, or whose blocks are written for the first time, is also a commit
//! of the file system's journal; over blocks that stand it is the write alone. RocksDB's WAL grows
//! with each write. So while writes are small and want a sync each, zeros are put behind its end, a
//! megabyte at a time, and RocksDB writes over them (docs/decisions/0017).
//!
//! RocksDB keeps its own count of where it writes, and cuts what is behind when it closes the file.
//! Zeros are only ever put behind all that is in the file, while the one writer holds still, so they
//! never meet a record. What reads them at the next start is `log_tail`.

use super::log_tail;
use crate::storage::points::{pass, FailPoint};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Zeros put down at a time.
const STEP: usize = 1 << 20;
/// More is put down when less than this is left.
const LOW: u64 = 128 << 10;
/// Larger writes are slowed down by writing their place twice, instead of helped.
const SMALL: usize = 16 << 10;
/// Small synced writes in a row from which on zeros are put down.
const STREAK: u32 = 16;
/// A record's header and a block's end, at most, for a write of up to [`SMALL`].
const OVERHEAD: u64 = 32;

/// Who puts the zeros down.
pub(super) struct Ahead {
    db: PathBuf,
    zeros: Vec<u8>,
    streak: u32,
    wal: Option<Wal>,
    /// Putting them down failed; RocksDB will say what matters of it.
    off: bool,
}

struct Wal {
    path: PathBuf,
    file: File,
    /// Where the file ends, and where RocksDB is, at the most.
    end: u64,
    used: u64,
}

impl Ahead {
    pub fn new(db: &Path) -> Self {
        Self {
            db: db.to_owned(),
            zeros: Vec::new(),
            streak: 0,
            wal: None,
            off: false,
        }
    }

    /// RocksDB wrote a batch of `bytes` to its WAL.
    pub fn wrote(&mut self, bytes: usize, synced: bool) {
        if synced && bytes <= SMALL {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.streak = 0;
        }
        if let Some(wal) = &mut self.wal {
            wal.used += bytes as u64 + OVERHEAD;
        }
    }

    /// Zeros would help, and few are left.
    pub fn wanted(&self) -> bool {
        let left = self.wal.as_ref();
        let left = left.map_or(0, |wal| wal.end.saturating_sub(wal.used));
        !self.off && self.streak >= STREAK && left < LOW
    }

    /// Puts zeros behind the end of the newest WAL. Nobody may write to it meanwhile.
    pub fn extend(&mut self) {
        if let Err(error) = self.try_extend() {
            tracing::info!(%error, "no space is made ahead of the log's end any more");
            self.off = true;
        }
    }

    fn try_extend(&mut self) -> std::io::Result<()> {
        let newest = log_tail::wals(&self.db)?.pop();
        let Some(path) = newest else { return Ok(()) };
        let mut wal = match self.wal.take() {
            Some(wal) if wal.path == path => wal,
            _ => Wal {
                file: OpenOptions::new().write(true).open(&path)?,
                path,
                end: 0,
                used: 0,
            },
        };
        let len = wal.file.metadata()?.len();
        if len > wal.end {
            // RocksDB has grown the file itself: this is where it stands.
            wal.used = len;
        }
        if self.zeros.is_empty() {
            self.zeros = vec![0; STEP];
        }
        wal.file.write_all_at(&self.zeros, len)?;
        pass(FailPoint::ZerosWritten);
        wal.end = len + STEP as u64;
        // Now, so that the next write need not wait for it.
        wal.file.sync_data()?;
        pass(FailPoint::ZerosSynced);
        self.wal = Some(wal);
        Ok(())
    }
}
