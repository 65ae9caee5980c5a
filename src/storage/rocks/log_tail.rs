//! What a crash may leave in a log file that RocksDB's reader does not take for its end.
//!
//! A log file (WAL or MANIFEST) is made of blocks of 32 KiB with records of `crc u32 | length u16 |
//! type u8 | data`, little-endian; less than a header at the end of a block is left empty. When a
//! log is not a recycled one, as none is here, and what lies where a record should be has the type
//! of a recycled record, the reader (11.8, `log_reader.cc`) takes it for bad and stays where it is,
//! for ever. What a power cut leaves behind the end of a file may look like that.
//!
//! Where zeros stand instead of a record the reader goes on with the next block, and tells nobody.
//! They stand ahead of the end of a WAL (`ahead`), and a power cut may have kept a later block of what
//! was written there and not an earlier one. No record is made of zeros, so the log ends where they begin.

use crate::storage::StoreError;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const BLOCK: usize = 32 * 1024;
const HEADER: usize = 7;
/// Types of records that are whole or the last part of one.
const ENDS: [u8; 2] = [1, 4];
/// Types that only recycled logs have.
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// What stands where a record should begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The reader would stay here.
    Trap(u64),
    /// Zeros.
    Zeros(u64),
}

/// Where the log ends before the file does. Checksums are not looked at: behind a record with a wrong one
/// nothing is replayed anyway.
fn end(log: &mut impl Read) -> std::io::Result<Option<End>> {
    let mut block = Vec::with_capacity(BLOCK);
    let (mut start, mut began) = (0, false);
    loop {
        block.clear();
        log.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        let mut at = 0;
        while let Some(header) = block.get(at..at + HEADER) {
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let kind = header[6];
            if RECYCLED.contains(&kind) {
                // One that begins like this is read as a recycled log, which ends.
                return Ok(began.then_some(End::Trap(start + at as u64)));
            }
            if kind == 0 && length == 0 {
                return Ok(Some(End::Zeros(start + at as u64)));
            }
            if at + HEADER + length > block.len() {
                // The rest of the block is skipped.
                break;
            }
            began |= ENDS.contains(&kind);
            at += HEADER + length;
        }
        if block.len() < BLOCK {
            return Ok(None);
        }
        start += BLOCK as u64;
    }
}

/// Looks at the database's log files before RocksDB does. A WAL is cut off where such damage begins:
/// nothing that was synced comes behind it, or else the manifest or our marks will tell. A MANIFEST that
/// RocksDB would read for ever is [`StoreError::Corrupt`]. Zeros up to the end of a file are no damage.
pub(super) fn check(db: &Path) -> Result<(), StoreError> {
    let current = match std::fs::read_to_string(db.join("CURRENT")) {
        Ok(name) => name,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::Io(format!("CURRENT: {e}"))),
    };
    let manifest = db.join(current.trim_end());
    if let Some((End::Trap(at), _)) = find(&manifest)? {
        let text = format!("{}: not a record at byte {at}", manifest.display());
        return Err(StoreError::Corrupt(text));
    }
    for path in wals(db).map_err(|e| failed(db, &e))? {
        let at = match find(&path)? {
            Some((End::Trap(at), _)) | Some((End::Zeros(at), false)) => at,
            Some((End::Zeros(_), true)) | None => continue,
        };
        let cut = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            let len = file.metadata()?.len();
            file.set_len(at)?;
            file.sync_all().map(|()| len - at)
        };
        let bytes = cut().map_err(|e| failed(&path, &e))?;
        tracing::warn!(
            file = %path.display(),
            at,
            bytes,
            "what a crash left behind the end of the log is cut off"
        );
    }
    Ok(())
}

fn failed(path: &Path, e: &std::io::Error) -> StoreError {
    StoreError::Io(format!("{}: {e}", path.display()))
}

/// Where the log in a file ends before the file does, and whether nothing but zeros follows.
fn find(path: &Path) -> Result<Option<(End, bool)>, StoreError> {
    let look = || -> std::io::Result<Option<(End, bool)>> {
        let mut file = File::open(path)?;
        match end(&mut file)? {
            Some(End::Zeros(at)) => {
                file.seek(SeekFrom::Start(at))?;
                Ok(Some((End::Zeros(at), only_zeros(&mut file)?)))
            }
            found => Ok(found.map(|end| (end, false))),
        }
    };
    match look() {
        Ok(found) => Ok(found),
        // RocksDB has its own words for what is missing.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, &e)),
    }
}

fn only_zeros(rest: &mut impl Read) -> std::io::Result<bool> {
    let mut block = vec![0; BLOCK];
    loop {
        match rest.read(&mut block)? {
            0 => return Ok(true),
            n if block[..n].iter().any(|b| *b != 0) => return Ok(false),
            _ => {}
        }
    }
}

/// WAL files, the oldest first.
pub(super) fn wals(db: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(db)? {
        let path = file?.path();
        let number = path
            .file_stem()
            .and_then(|s| s.to_str()?.parse::<u64>().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|e| e.to_str())) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut out = vec![9, 9, 9, 9];
        out.extend((data.len() as u16).to_le_bytes());
        out.push(kind);
        out.extend(data);
        out
    }

    fn found(log: &[u8]) -> Option<u64> {
        match end(&mut &log[..]).unwrap() {
            Some(End::Trap(at)) => Some(at),
            Some(End::Zeros(_)) | None => None,
        }
    }

    #[test]
    fn only_a_recycled_record_behind_one_of_this_log_is_a_trap() {
        let whole = record(1, b"abc");
        for kind in RECYCLED {
            let log = [&whole[..], &record(kind, b"x")].concat();
            assert_eq!(found(&log), Some(10), "{kind}");
            assert_eq!(found(&record(kind, b"x")), None, "a recycled log");
        }
        for kind in [0, 1, 2, 3, 4, 9, 10, 12, 130, 255] {
            assert_eq!(found(&[&whole[..], &record(kind, b"x")].concat()), None);
        }
        let parts = [record(2, b"a"), record(3, b"b"), record(4, b"c")].concat();
        assert_eq!(found(&[&parts[..], &record(5, b"")].concat()), Some(24));
        let first = record(2, b"a");
        assert_eq!(found(&[&first[..], &record(5, b"")].concat()), None);
        for cut in 0..whole.len() {
            assert_eq!(found(&whole[..cut]), None);
        }
    }

    #[test]
    fn it_is_found_in_any_block() {
        let mut log = record(1, &vec![7; BLOCK - HEADER - 3]);
        // Less than a header is left empty.
        log.extend([0; 3]);
        // A length that reaches beyond the block skips the rest of it.
        log.extend(record(1, b"abc"));
        log.extend([1, 1, 1, 1, 255, 255, 1]);
        log.resize(2 * BLOCK, 5);
        log.extend(record(1, b"abc"));
        let zeros = log.len() as u64;
        assert_eq!(end(&mut &log[..]).unwrap(), None);
        let mut trap = log.clone();
        trap.extend(record(8, b""));
        assert_eq!(found(&trap), Some(zeros));
        log.resize(3 * BLOCK, 0);
        log.extend(record(8, b""));
        assert_eq!(end(&mut &log[..]).unwrap(), Some(End::Zeros(zeros)));
    }

    #[test]
    fn zeros_are_the_end_and_what_follows_them_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000009.log");
        let mut log = record(1, b"abc");
        let at = log.len() as u64;
        log.resize(3 * BLOCK, 0);
        std::fs::write(&path, &log).unwrap();
        assert_eq!(find(&path).unwrap(), Some((End::Zeros(at), true)));
        log[2 * BLOCK] = 1;
        std::fs::write(&path, &log).unwrap();
        assert_eq!(find(&path).unwrap(), Some((End::Zeros(at), false)));
    }
}
