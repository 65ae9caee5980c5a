//! What keeps files of a database from being lost: to RocksDB, which deletes what its manifest does not name
//! and makes a new database where it finds none, and to repairs.
//!
//! While a database is opened and checked, `db.opening` holds hard links to all files as they were before.
//! When nothing is wrong the links go. When the opening fails, they become the database again; when a
//! repair goes on with less, they are put aside as `db.damaged-N`. Nothing put aside is ever written over.

use super::dir::DataDir;
use crate::storage::points::{pass, FailPoint};
use crate::storage::StoreError;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const CREATED: &str = "CREATED";
const CONDEMNED: &str = "CONDEMNED";
const SYNC_FAILED: &str = "SYNC_FAILED";
const OPENING: &str = "db.opening";
const GOES: &str = "db.goes";

/// What is in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Database {
    /// None was ever made.
    New,
    There,
    /// There was one, and it cannot be opened: why.
    Damaged(String),
}

impl DataDir {
    fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// What is there, after an opening that was interrupted is taken back.
    pub fn database(&self) -> Result<Database, StoreError> {
        self.undo()?;
        match std::fs::read_to_string(self.at(CONDEMNED)) {
            Ok(why) => return Ok(Database::Damaged(why.trim().to_owned())),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(failed(&self.at(CONDEMNED), &e)),
        }
        let db = self.db();
        if exists(&db.join("CURRENT"))? {
            return Ok(Database::There);
        }
        // Earlier versions left no mark when they made a database.
        let marks = std::fs::metadata(self.marks()).is_ok_and(|m| m.len() > 0);
        let made = exists(&self.at(CREATED))? || marks || has_tables(&db)?;
        Ok(match made {
            true => Database::Damaged(format!("{}: CURRENT is missing", db.display())),
            false => Database::New,
        })
    }

    /// The database is there: a later start does not make another one.
    pub fn created(&self) -> Result<(), StoreError> {
        let path = self.at(CREATED);
        if exists(&path)? {
            return Ok(());
        }
        let write = || {
            File::create(&path)?.sync_all()?;
            pass(FailPoint::Created);
            sync_dir(self.path())
        };
        write().map_err(|e| failed(&path, &e))
    }

    /// The database is not opened again, but repaired by the next start.
    pub fn condemn(&self, why: &str) {
        let path = self.at(CONDEMNED);
        let write = || {
            let mut file = File::create(&path)?;
            writeln!(file, "{why}")?;
            pass(FailPoint::CondemnWritten);
            file.sync_all()?;
            let synced = sync_dir(self.path());
            pass(FailPoint::CondemnSynced);
            synced
        };
        match write() {
            Ok(()) => tracing::error!(
                why,
                "the database is damaged: the next start puts it aside and fills this node from the others"
            ),
            Err(error) => tracing::error!(%error, "{} cannot be written", path.display()),
        }
    }

    /// A sync failed that covered unsynced entries: the next start takes them for lost, as after a stop of the
    /// machine.
    pub fn sync_failed(&self) {
        let path = self.at(SYNC_FAILED);
        let write = || {
            File::create(&path)?.sync_all()?;
            sync_dir(self.path())
        };
        if let Err(error) = write() {
            // As long as the machine runs the name is there all the same.
            tracing::error!(%error, "{} may not be on the disk", path.display());
        }
    }

    /// See [`DataDir::sync_failed`].
    pub fn has_failed_sync(&self) -> Result<bool, StoreError> {
        exists(&self.at(SYNC_FAILED))
    }

    /// What a failed sync may have lost is noted elsewhere now.
    pub fn failed_sync_noted(&self) -> Result<(), StoreError> {
        let path = self.at(SYNC_FAILED);
        remove_file(&path).map_err(|e| failed(&path, &e))
    }

    /// Links all files of the database as they are now. False where the file system has no links.
    pub fn keep(&self) -> Result<bool, StoreError> {
        let (db, kept) = (self.db(), self.at(OPENING));
        let beside = self.at(GOES);
        let link = || {
            remove(&beside)?;
            std::fs::create_dir(&beside)?;
            for file in std::fs::read_dir(&db)? {
                let file = file?;
                if file.file_type()?.is_file() {
                    std::fs::hard_link(file.path(), beside.join(file.file_name()))?;
                }
            }
            sync_dir(&beside)?;
            pass(FailPoint::KeepLinked);
            std::fs::rename(&beside, &kept)?;
            pass(FailPoint::KeepRenamed);
            sync_dir(self.path())
        };
        match link() {
            Ok(()) => Ok(true),
            Err(e) => {
                tracing::warn!(
                    error = %e,
                    "no links to the files of the database: an opening that finds damage may delete some"
                );
                let _ = remove(&beside);
                Ok(false)
            }
        }
    }

    /// The opening went well.
    pub fn release(&self) -> Result<(), StoreError> {
        let (kept, goes) = (self.at(OPENING), self.at(GOES));
        let release = || {
            remove(&goes)?;
            match std::fs::rename(&kept, &goes) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                Err(e) => Err(e),
                // Whole or not at all, whenever the machine stops.
                Ok(()) => {
                    pass(FailPoint::ReleaseRenamed);
                    sync_dir(self.path())?;
                    remove(&goes)?;
                    pass(FailPoint::Released);
                    Ok(())
                }
            }
        };
        release().map_err(|e| failed(&kept, &e))
    }

    /// The database as it was before [`DataDir::keep`], if it was not released.
    pub fn undo(&self) -> Result<(), StoreError> {
        let (db, kept, goes) = (self.db(), self.at(OPENING), self.at(GOES));
        let undo = || {
            if !kept.exists() {
                return Ok(());
            }
            remove(&goes)?;
            if db.exists() {
                std::fs::rename(&db, &goes)?;
            }
            pass(FailPoint::UndoMoved);
            std::fs::rename(&kept, &db)?;
            pass(FailPoint::UndoRenamed);
            sync_dir(self.path())?;
            remove(&goes)
        };
        undo().map_err(|e| failed(&kept, &e))
    }

    /// Puts the database as it was before [`DataDir::keep`] out of the way, for repairs by hand: all of it,
    /// or the files that the opening has deleted. Gives the directory's name.
    pub fn put_aside(&self, all: bool) -> Result<Option<String>, StoreError> {
        let (db, kept) = (self.db(), self.at(OPENING));
        let names = (1u32..).map(|n| format!("db.damaged-{n}"));
        let free = |name: &String| !self.at(name).exists();
        let name = names.into_iter().find(free).unwrap_or_default();
        let aside = || -> std::io::Result<Option<String>> {
            if !all && kept.exists() {
                forget_what_stays(&kept, &db)?;
            }
            let found = match (kept.exists(), all && db.exists()) {
                (true, _) => {
                    std::fs::rename(&kept, self.at(&name))?;
                    true
                }
                (false, true) => {
                    std::fs::rename(&db, self.at(&name))?;
                    true
                }
                (false, false) => false,
            };
            pass(FailPoint::AsideMoved);
            if all {
                remove(&db)?;
            }
            // The marks are those of what was put aside.
            let marks = self.marks();
            if found && marks.exists() {
                std::fs::copy(&marks, self.at(&name).join("synced.marks"))?;
            }
            remove_file(&self.at(CONDEMNED))?;
            pass(FailPoint::AsideDone);
            sync_dir(self.path())?;
            Ok(found.then_some(name.clone()))
        };
        let found = aside().map_err(|e| failed(&db, &e))?;
        if let Some(name) = &found {
            tracing::error!(
                directory = %self.at(name).display(),
                "the damaged database is put aside; nothing uses it, remove it when it is of no use"
            );
        }
        Ok(found)
    }
}

/// Removes the links to tables that the database still has.
fn forget_what_stays(kept: &Path, db: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(kept)? {
        let file = file?;
        let path = file.path();
        let table = path.extension().is_some_and(|e| e == "sst");
        if table && db.join(file.file_name()).exists() {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A copy of a stopped node's store, to be opened in its place by who only wants to look: tables are linked,
/// the rest is copied. Goes when dropped; until then nobody else opens the store.
pub struct Look {
    dir: DataDir,
}

const LOOK: &str = "rescue.look";

impl Look {
    /// Copies the store in `dir`.
    ///
    /// # Errors
    /// There is none, another process holds it, or the copy cannot be made.
    pub fn at(dir: &Path) -> Result<Self, StoreError> {
        if !exists(&dir.join("FORMAT"))? {
            let text = format!("{} holds no data", dir.display());
            return Err(StoreError::Open(text));
        }
        let look = Self {
            dir: DataDir::hold(dir)?,
        };
        look.copy().map_err(|e| failed(&look.path(), &e))?;
        Ok(look)
    }

    /// The copy's directory.
    pub fn path(&self) -> PathBuf {
        self.dir.at(LOOK)
    }

    fn copy(&self) -> std::io::Result<()> {
        let to = self.path();
        remove(&to)?;
        std::fs::create_dir_all(to.join("db"))?;
        for name in ["FORMAT", CREATED, CONDEMNED, SYNC_FAILED, "synced.marks"] {
            if self.dir.at(name).exists() {
                std::fs::copy(self.dir.at(name), to.join(name))?;
            }
        }
        // An opening that was interrupted is taken back by the next one.
        let kept = self.dir.at(OPENING);
        let from = if kept.exists() { kept } else { self.dir.db() };
        let files = match std::fs::read_dir(from) {
            Err(e) if e.kind() == ErrorKind::NotFound => return std::fs::remove_dir(to.join("db")),
            files => files?,
        };
        for file in files {
            let (from, name) = file.map(|f| (f.path(), f.file_name()))?;
            let to = to.join("db").join(name);
            let table = from.extension().is_some_and(|e| e == "sst");
            if !(table && std::fs::hard_link(&from, &to).is_ok()) {
                std::fs::copy(&from, &to)?;
            }
        }
        Ok(())
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let _ = remove(&self.path());
    }
}

fn failed(path: &Path, e: &std::io::Error) -> StoreError {
    StoreError::Open(format!("{}: {e}", path.display()))
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|e| failed(path, &e))
}

/// Tables, or a log with something in it.
fn has_tables(db: &Path) -> Result<bool, StoreError> {
    let files = match std::fs::read_dir(db) {
        Ok(files) => files,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(failed(db, &e)),
    };
    for file in files {
        let file = file.map_err(|e| failed(db, &e))?;
        let path = file.path();
        let ending = path.extension().and_then(|e| e.to_str());
        let len = file.metadata().map_or(0, |m| m.len());
        if ending == Some("sst") || (ending == Some("log") && len > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}
