//! Damage to the files of a stopped node.

use super::rng::Rng;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Files of the store with this ending, the largest number last.
pub fn files(db: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(db).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == ending))
        .filter(|p| p.metadata().is_ok_and(|m| m.len() > 0))
        .collect();
    found.sort();
    found
}

/// Files of the store whose names begin so, the last one last.
pub fn named(db: &Path, begin: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(db).into_iter().flatten().flatten();
    let named = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(begin)
    };
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(named).collect();
    found.sort();
    found
}

/// What is done to the end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    Cut,
    Zeroed,
    Garbage,
    /// More noise behind the end.
    Appended,
    /// A record begins behind the end and is not finished: a part of the file's first record.
    Unfinished,
}

/// Spoils the last `bytes` of a file.
pub fn tail(path: &Path, how: Tail, bytes: u64, rng: &mut Rng) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let from = len.saturating_sub(bytes);
    match how {
        Tail::Cut => file.set_len(from)?,
        Tail::Zeroed => file.write_all_at(&vec![0; (len - from) as usize], from)?,
        Tail::Garbage => {
            let noise: Vec<u8> = (from..len).map(|_| rng.next() as u8).collect();
            file.write_all_at(&noise, from)?;
        }
        Tail::Appended => {
            let noise: Vec<u8> = (0..bytes).map(|_| rng.next() as u8).collect();
            file.write_all_at(&noise, len)?;
        }
        Tail::Unfinished => {
            // A record's header: check sum, two bytes of length, type.
            let mut begin = vec![0; len.min(32_768) as usize];
            file.read_exact_at(&mut begin, 0)?;
            let whole = begin
                .get(4..6)
                .map_or(0, |l| 7 + usize::from(l[0]) + 256 * usize::from(l[1]));
            begin.truncate((whole * 2 / 3).max(1));
            file.write_all_at(&begin, len)?;
        }
    }
    file.sync_all()
}

/// Flips one bit between two shares of a file's length, in percent.
pub fn flip(path: &Path, (low, high): (u64, u64), rng: &mut Rng) -> std::io::Result<u64> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let at = (len * rng.between(low, high) / 100).min(len.saturating_sub(1));
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1 << rng.below(8);
    file.write_all_at(&byte, at)?;
    file.sync_all()?;
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_where_it_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000007.log");
        let mut rng = Rng::new(1, 1);
        let fresh = || std::fs::write(&path, [9u8; 1000]).unwrap();
        fresh();
        tail(&path, Tail::Cut, 10, &mut rng).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [9u8; 990]);
        for how in [Tail::Zeroed, Tail::Garbage] {
            fresh();
            tail(&path, how, 100, &mut rng).unwrap();
            let now = std::fs::read(&path).unwrap();
            assert_eq!((now.len(), &now[..900]), (1000, &[9u8; 900][..]));
            assert_ne!(&now[900..], &[9u8; 100][..]);
        }
        fresh();
        let at = flip(&path, (40, 60), &mut rng).unwrap() as usize;
        let now = std::fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..1000).filter(|i| now[*i] != 9).collect();
        assert_eq!(changed, [at]);
        assert!((400..=600).contains(&at));
        assert_eq!(files(dir.path(), "log"), std::slice::from_ref(&path));
        assert_eq!(named(dir.path(), "0000"), [path]);
    }
}
