//! The data directory: one process at a time, one format version.
//!
//! ```text
//! node.lock       held as long as the store is open; names the holder's process id
//! FORMAT          format version
//! CREATED         the database was made: from then on none is made in its place
//! SYNC_FAILED     a sync failed with unsynced entries written
//! CONDEMNED       why the database is not to be opened again
//! synced.marks    see `marks`
//! db/             RocksDB
//! db.opening/     see `keep`
//! db.damaged-N/   what was found damaged, put aside by a repair
//! ```

use crate::storage::points::{pass, FailPoint};
use crate::storage::StoreError;
use fs4::fs_std::FileExt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of everything under the data directory.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_NAME: &str = "troupemq-store";

const PROBE: &str = "direct.probe";

/// A directory that this process holds.
#[derive(Clone)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: Arc<File>,
}

impl DataDir {
    /// The file system writes files without the page cache (some kinds in memory and over a
    /// network do not).
    pub fn takes_direct_io(&self) -> bool {
        let path = self.path.join(PROBE);
        let opened = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        let _ = std::fs::remove_file(&path);
        opened.is_ok()
    }

    /// Creates the directory if need be, takes its lock and checks its version.
    pub fn hold(path: &Path) -> Result<Self, StoreError> {
        let fail =
            |e: std::io::Error| StoreError::Open(format!("data directory {}: {e}", path.display()));
        std::fs::create_dir_all(path).map_err(fail)?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join("node.lock"))
            .map_err(fail)?;
        if !lock.try_lock_exclusive().map_err(fail)? {
            let mut pid = String::new();
            let _ = (&lock).take(32).read_to_string(&mut pid);
            let pid = pid.trim();
            let who = if pid.is_empty() {
                String::new()
            } else {
                format!(" (pid {pid})")
            };
            return Err(StoreError::Open(format!(
                "another process{who} uses this data directory: {}",
                path.display()
            )));
        }
        lock.set_len(0).map_err(fail)?;
        lock.rewind().map_err(fail)?;
        writeln!(lock, "{}", std::process::id()).map_err(fail)?;
        let dir = Self {
            path: path.to_owned(),
            _lock: Arc::new(lock),
        };
        dir.check_format()?;
        Ok(dir)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn db(&self) -> PathBuf {
        self.path.join("db")
    }

    pub fn marks(&self) -> PathBuf {
        self.path.join("synced.marks")
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let path = self.path.join("FORMAT");
        let fail = |e: std::io::Error| StoreError::Open(format!("{}: {e}", path.display()));
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let version = text.trim().strip_prefix(FORMAT_NAME).map(str::trim);
                match version.and_then(|v| v.parse::<u32>().ok()) {
                    Some(FORMAT_VERSION) => Ok(()),
                    Some(v) => Err(StoreError::Open(format!(
                        "{} has format version {v}; this program knows version {FORMAT_VERSION}",
                        self.path.display()
                    ))),
                    None => Err(StoreError::Open(format!(
                        "{} is not a format file of TroupeMQ",
                        path.display()
                    ))),
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if self.db().exists() {
                    return Err(StoreError::Open(format!(
                        "{} is missing but there is a database",
                        path.display()
                    )));
                }
                let new = self.path.join("FORMAT.new");
                let mut file = File::create(&new).map_err(fail)?;
                writeln!(file, "{FORMAT_NAME} {FORMAT_VERSION}").map_err(fail)?;
                file.sync_all().map_err(fail)?;
                pass(FailPoint::FormatWritten);
                std::fs::rename(&new, &path).map_err(fail)?;
                pass(FailPoint::FormatRenamed);
                File::open(&self.path)
                    .and_then(|d| d.sync_all())
                    .map_err(fail)
            }
            Err(e) => Err(fail(e)),
        }
    }
}

/// Total and available bytes of the file system that holds `path`.
pub fn disk_space(path: &Path) -> std::io::Result<(u64, u64)> {
    let stats = fs4::statvfs(path)?;
    // What is kept for the superuser counts as neither, as `df` counts.
    let used = stats.total_space().saturating_sub(stats.free_space());
    let free = stats.available_space();
    Ok((used.saturating_add(free), free))
}
