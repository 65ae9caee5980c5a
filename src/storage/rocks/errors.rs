//! RocksDB's errors as ours.

use crate::storage::StoreError;

/// A full disk is told by the system's own words for it.
pub(super) fn map_error(e: rocksdb::Error) -> StoreError {
    let text = e.to_string();
    if text.contains("No space left") || text.contains("NoSpace") {
        return StoreError::NoSpace;
    }
    match e.kind() {
        rocksdb::ErrorKind::Corruption => StoreError::Corrupt(text),
        _ => StoreError::Io(text),
    }
}

pub(super) fn cf_error(name: &str) -> StoreError {
    StoreError::Io(format!("column family {name} is not open"))
}

/// The same where a database is opened: a file that it names and that is not there is damage.
pub(super) fn open_error(e: rocksdb::Error) -> StoreError {
    match map_error(e) {
        StoreError::Io(text) if text.contains("No such file or directory") => {
            StoreError::Corrupt(text)
        }
        error => error,
    }
}
