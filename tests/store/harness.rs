//! A store that can be crashed: on RocksDB by going on with a copy of the directory.

use std::path::{Path, PathBuf};
use troupemq::model::ShardId;
use troupemq::storage::*;

pub const A: ShardId = ShardId(1);
pub const B: ShardId = ShardId(70_000);

pub trait Harness {
    type Store: LogStore + StateStore;
    fn store(&mut self) -> &mut Self::Store;
    /// To be called after every call that promises durability of the log.
    fn synced(&mut self) {}
    /// A power cut: unsynced writes may be lost. Ends with the store open again.
    fn crash(&mut self, rng: &mut SimRng);
    /// The process dies, the machine does not.
    fn kill(&mut self, rng: &mut SimRng);
    /// Closes cleanly and opens again.
    fn restart(&mut self);
    /// Changes a stored byte of the entry, whose data holds `needle` and nothing else does.
    fn corrupt(&mut self, shard: ShardId, index: u64, needle: &[u8]);
}

pub struct Sim {
    store: SimStore,
    rng: SimRng,
}

impl Sim {
    pub fn new() -> Self {
        Self {
            store: SimStore::new(&[A, B]),
            rng: SimRng::new(1),
        }
    }
}

impl Harness for Sim {
    type Store = SimStore;
    fn store(&mut self) -> &mut SimStore {
        &mut self.store
    }
    fn crash(&mut self, rng: &mut SimRng) {
        self.store.crash(rng);
    }
    fn kill(&mut self, rng: &mut SimRng) {
        self.store.kill(rng);
    }
    fn restart(&mut self) {
        self.store.close().unwrap();
        // All is durable: a crash is a restart.
        self.store.crash(&mut self.rng);
    }
    fn corrupt(&mut self, shard: ShardId, index: u64, needle: &[u8]) {
        let bit = self.rng.below(needle.len() as u64 * 8) as usize;
        self.store.corrupt(shard, index, bit);
    }
}

pub struct Rocks {
    root: tempfile::TempDir,
    runs: u32,
    store: Option<RocksStore>,
    /// The live WAL and its length at the last moment all of it was synced.
    synced: Option<(PathBuf, u64)>,
}

impl Rocks {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut rocks = Self {
            root,
            runs: 0,
            store: None,
            synced: None,
        };
        rocks.open();
        rocks
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(format!("run{}", self.runs))
    }

    fn open(&mut self) {
        self.store = Some(RocksStore::open(&self.dir(), StoreOptions::default(), &[A, B]).unwrap());
        self.synced();
    }

    /// Goes on with a copy of the directory as it is now.
    fn copy(&mut self) {
        let from = self.dir();
        self.runs += 1;
        let to = self.dir();
        while copy_steady(&from, &to).is_none() {
            std::fs::remove_dir_all(&to).unwrap();
        }
        self.store = None;
        std::fs::remove_dir_all(from).unwrap();
    }
}

/// The newest WAL of a data directory.
pub fn live_wal(dir: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(dir.join("db")).ok()?;
    files
        .filter_map(|f| Some(f.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "log"))
        .max()
}

/// Copies a directory, or gives up (`None`) when its files change meanwhile in the background.
fn copy_steady(from: &Path, to: &Path) -> Option<()> {
    fn list(dir: &Path) -> Option<Vec<(PathBuf, u64)>> {
        let mut out = Vec::new();
        for file in std::fs::read_dir(dir).ok()? {
            let file = file.ok()?;
            let about = file.metadata().ok()?;
            if about.is_dir() {
                out.extend(list(&file.path())?);
            } else {
                out.push((file.path(), about.len()));
            }
        }
        out.sort();
        Some(out)
    }
    std::fs::create_dir_all(to.join("db")).unwrap();
    let before = list(from)?;
    for (path, _) in &before {
        std::fs::copy(path, to.join(path.strip_prefix(from).ok()?)).ok()?;
    }
    (list(from)? == before).then_some(())
}

impl Harness for Rocks {
    type Store = RocksStore;

    fn store(&mut self) -> &mut RocksStore {
        self.store.as_mut().unwrap()
    }

    fn synced(&mut self) {
        self.synced =
            live_wal(&self.dir()).map(|wal| (wal.clone(), std::fs::metadata(wal).unwrap().len()));
    }

    fn crash(&mut self, rng: &mut SimRng) {
        let wal = live_wal(&self.dir()).unwrap();
        let name = wal.file_name().unwrap().to_owned();
        let whole = std::fs::metadata(&wal).unwrap().len();
        // A WAL begun since the last sync has nothing in it that is certain; the ones before it
        // were synced when the new one was begun by a flush.
        let certain = self
            .synced
            .as_ref()
            .filter(|(path, _)| *path == wal)
            .map_or(0, |(_, len)| *len);
        self.copy();
        // A cut hits the very end of a write by rare chance only; let all survive now and then.
        let cut = if rng.chance(1, 4) {
            whole
        } else {
            rng.between(certain, whole)
        };
        let wal = self.dir().join("db").join(name);
        std::fs::OpenOptions::new()
            .write(true)
            .open(wal)
            .unwrap()
            .set_len(cut)
            .unwrap();
        self.open();
    }

    fn kill(&mut self, _: &mut SimRng) {
        self.copy();
        self.open();
    }

    fn restart(&mut self) {
        self.store().close().unwrap();
        self.store = None;
        self.open();
    }

    fn corrupt(&mut self, _: ShardId, _: u64, needle: &[u8]) {
        // Entries are in files, not only in memory, after a restart.
        self.store = None;
        let db = self.dir().join("db");
        self.open();
        let mut hits = 0;
        for file in std::fs::read_dir(db).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) {
                bytes[at + needle.len() / 2] ^= 0x10;
                std::fs::write(&path, bytes).unwrap();
                hits += 1;
            }
        }
        assert!(hits > 0, "the entry is in no file");
    }
}
