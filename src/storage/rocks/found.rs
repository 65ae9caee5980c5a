//! What an opening finds of a shard's log, the checks of it, and what a repair keeps of a damaged one.

use super::marks::Mark;
use super::meta::{self, MetaKind};
use super::open::meta_row;
use super::reader::{unverified, Shared};
use super::{default_bounds, log_cf, map_error, ShardLog, CF_STATE};
use crate::model::ShardId;
use crate::storage::points::{pass, FailPoint};
use crate::storage::{entry, keys, LogBounds, Loss, StoreError};
use rocksdb::{WriteBatch, WriteOptions};
use std::ops::Range;

/// What lies on the disk of a shard's log.
pub(super) struct Found {
    pub bounds: LogBounds,
    mark: Mark,
    /// Why the log's ends cannot be trusted.
    ends: Result<(), StoreError>,
    /// The last index found, when one before it is missing.
    pub hole: Option<u64>,
    /// Why the log is cut behind `bounds.last`, where a replay would meet what cannot be read.
    damage: Option<String>,
    applied: u64,
}

pub(super) fn find(shared: &Shared, shard: ShardId) -> Result<Found, StoreError> {
    let row = |kind| meta_row(shared, &meta::key(shard, kind));
    let mut bounds = default_bounds();
    if let Some(value) = row(MetaKind::Bounds)? {
        (bounds.first, bounds.trimmed_term) = meta::parse_bounds(&value)?;
    }
    if let Some(value) = row(MetaKind::HardState)? {
        bounds.hard_state = meta::parse_hard_state(&value)?;
    }
    let mark = match row(MetaKind::Mark)? {
        Some(value) => meta::parse_mark(&value)?,
        None => Mark::default(),
    };
    let ends = find_ends(shared, shard, &mut bounds);
    let state = shared.cf(CF_STATE)?;
    let applied = shared.db.get_cf(state, keys::applied::key(shard));
    let applied = match applied.map_err(map_error)? {
        Some(value) => keys::applied::decode(&value)?,
        None => 0,
    };
    Ok(Found {
        bounds,
        mark,
        ends,
        hole: None,
        damage: None,
        applied,
    })
}

impl Found {
    /// RocksDB goes on with the next WAL where the one before has lost an unsynced end. What comes
    /// behind such a hole goes too, since a loss is always an end of the log.
    pub fn look_for_hole(
        &mut self,
        shared: &Shared,
        shard: ShardId,
        file_mark: Option<Mark>,
        loose: bool,
    ) -> Result<(), StoreError> {
        let commit = self.bounds.hard_state.commit;
        if loose && self.bounds.last < commit {
            // All entries behind the lost end may be gone, and a commit index alone be there.
            self.hole = Some(commit);
        }
        let epoch = self.mark.epoch;
        let file = file_mark.filter(|mark| mark.epoch == epoch);
        let synced = file.map_or(0, |mark| mark.index).max(self.mark.index);
        let from = synced.saturating_add(1).max(self.bounds.first);
        if self.ends.is_err() || from > self.bounds.last {
            return Ok(());
        }
        let kept = contiguous(shared, shard, from)?;
        if kept < self.bounds.last {
            self.hole = Some(self.bounds.last);
            self.bounds.last = kept;
        }
        Ok(())
    }

    /// Reads what a start reads: what comes behind the last applied entry, and that entry when `skip` is 0.
    pub fn look_for_damage(
        &mut self,
        shared: &Shared,
        shard: ShardId,
        skip: u64,
    ) -> Result<(), StoreError> {
        let from = (self.applied + skip).max(self.bounds.first);
        if self.ends.is_err() || from > self.bounds.last {
            return Ok(());
        }
        let cf = log_cf(shard);
        let range = from..self.bounds.last + 1;
        match shared.walk((&cf, shard), range, false, |_| true) {
            Err(error @ StoreError::BadEntry { index, .. }) => {
                self.damage = Some(error.to_string());
                self.hole = self.hole.or(Some(self.bounds.last));
                self.bounds.last = index - 1;
                Ok(())
            }
            done => done,
        }
    }

    /// Checks the log against marks, commit index and state.
    pub fn check(
        &self,
        shard: ShardId,
        file_mark: Option<Mark>,
        was_clean: bool,
        loose: bool,
    ) -> Result<ShardLog, StoreError> {
        self.ends.clone()?;
        if let Some(why) = &self.damage {
            return Err(StoreError::Corrupt(format!("shard {}: {why}", shard.0)));
        }
        let mut bounds = self.bounds;
        let (last, mark) = (bounds.last, self.mark);
        let bad = |why: String| {
            Err(StoreError::Corrupt(format!(
                "log of shard {} {why}",
                shard.0
            )))
        };
        if let (Some(reached), false) = (self.hole, loose) {
            return bad(format!(
                "has entries up to {reached}, but none at {}",
                last + 1
            ));
        }
        if self.hole.is_some() {
            // Nothing behind it was synced.
            bounds.hard_state.commit = bounds.hard_state.commit.min(last);
        }
        if last < mark.index {
            return bad(format!(
                "ends at {last}, but was synced up to {}",
                mark.index
            ));
        }
        if let Some(file) = file_mark {
            if file.epoch > mark.epoch {
                return bad(format!(
                    "lost a synced overwrite (epoch {} of {})",
                    mark.epoch, file.epoch
                ));
            }
            if file.epoch == mark.epoch && (last < file.index || (was_clean && last != file.index))
            {
                return bad(format!(
                    "ends at {last}, but was synced up to {}",
                    file.index
                ));
            }
        }
        if bounds.hard_state.commit > last {
            return bad(format!(
                "ends at {last}, before the commit index {}",
                bounds.hard_state.commit
            ));
        }
        if self.applied > last {
            return bad(format!(
                "ends at {last}, before the applied index {}",
                self.applied
            ));
        }
        bounds.synced = last;
        Ok(ShardLog {
            cf: log_cf(shard),
            bounds,
            epoch: mark.epoch,
        })
    }
}

/// Keeps of a damaged shard what can be trusted: the log as far as it goes when the state does not
/// go further, otherwise nothing.
pub(super) fn repair(
    shared: &Shared,
    shard: ShardId,
    found: &Found,
    file_mark: Option<Mark>,
    why: String,
) -> Result<(ShardLog, Loss), StoreError> {
    let file = file_mark.unwrap_or_default();
    let hard_state = found.bounds.hard_state;
    let known = [
        found.hole.unwrap_or(0),
        found.mark.index,
        file.index,
        hard_state.commit,
        found.applied,
    ];
    let reached = known.into_iter().max().unwrap_or(0);
    let mut bounds = found.bounds;
    if found.ends.is_err() || found.applied > bounds.last || found.applied + 1 < bounds.first {
        let mut batch = WriteBatch::default();
        let (from, to) = keys::all_of_shard(shard);
        batch.delete_range_cf(shared.cf(CF_STATE)?, from, to);
        let log = shared.cf(&log_cf(shard))?;
        batch.delete_range_cf(log, [0u8; 8], [u8::MAX; 8]);
        shared.forget_mended(&mut batch, shard, 0..u64::MAX)?;
        let mut write = WriteOptions::default();
        write.set_sync(true);
        shared.db.write_opt(batch, &write).map_err(map_error)?;
        pass(FailPoint::RepairEmptied);
        // Compactions must not meet what cannot be read.
        let files = shared
            .db
            .delete_file_in_range_cf(log, [0u8; 8], [u8::MAX; 8]);
        files.map_err(map_error)?;
        bounds = default_bounds();
        // What is left of term and vote is better than nothing.
        bounds.hard_state = hard_state;
    } else if found.damage.is_some() {
        rewrite(shared, shard, bounds.first..bounds.last + 1)?;
    }
    bounds.hard_state.commit = hard_state.commit.min(bounds.last);
    bounds.synced = bounds.last;
    let log = ShardLog {
        cf: log_cf(shard),
        bounds,
        epoch: found.mark.epoch.max(file.epoch) + 1,
    };
    let loss = Loss {
        kept: bounds.last,
        reached,
        why,
    };
    Ok((log, loss))
}

/// The table that holds the entry behind `keep` cannot be read, and compactions that met it would fail. What
/// is kept of it is written again; it goes, and so do the tables behind it.
fn rewrite(shared: &Shared, shard: ShardId, keep: Range<u64>) -> Result<(), StoreError> {
    let name = log_cf(shard);
    let cf = shared.cf(&name)?;
    let bad = keep.end.to_be_bytes();
    let files = shared.db.live_files().map_err(map_error)?;
    let holds = |file: &&rocksdb::LiveFile| {
        let ends = (file.start_key.as_deref(), file.end_key.as_deref());
        let around = matches!(ends, (Some(from), Some(to)) if from <= &bad[..] && &bad[..] <= to);
        file.column_family_name == name && around
    };
    let Some(begin) = files.iter().find(holds).and_then(|f| f.start_key.clone()) else {
        return Ok(());
    };
    let begin: [u8; 8] = begin
        .try_into()
        .map_err(|_| StoreError::Corrupt(format!("{name}: a key of another length")))?;
    let mut batch = WriteBatch::default();
    for index in u64::from_be_bytes(begin).max(keep.start)..keep.end {
        // What is bad among it is found when it is read.
        if let Some(entry) = shared.entry(&name, shard, index).ok().flatten() {
            let mut stored = Vec::new();
            entry::encode(&entry, 0, &mut stored)?;
            batch.put_cf(cf, index.to_be_bytes(), stored);
        }
    }
    let files = shared.db.delete_file_in_range_cf(cf, begin, [u8::MAX; 8]);
    files.map_err(map_error)?;
    pass(FailPoint::RepairDeleted);
    let mut write = WriteOptions::default();
    write.set_sync(true);
    let written = shared.db.write_opt(batch, &write);
    pass(FailPoint::RepairWritten);
    written.map_err(map_error)
}

/// The last of the entries that follow each other from `from` on. Where a block cannot be read, they end.
fn contiguous(shared: &Shared, shard: ShardId, from: u64) -> Result<u64, StoreError> {
    let cf = shared.cf(&log_cf(shard))?;
    let mut rows = shared.db.raw_iterator_cf_opt(cf, unverified());
    rows.seek(from.to_be_bytes());
    let mut next = from;
    while rows.key().is_some_and(|key| key == next.to_be_bytes()) {
        next += 1;
        rows.next();
    }
    Ok(next - 1)
}

/// Sets `last`, and looks whether the log begins where it should.
fn find_ends(shared: &Shared, shard: ShardId, bounds: &mut LogBounds) -> Result<(), StoreError> {
    let cf = shared.cf(&log_cf(shard))?;
    let db = &shared.db;
    let bad = |why: String| StoreError::Corrupt(format!("log of shard {}: {why}", shard.0));
    let index_of = |key: &[u8]| match key.try_into() {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => Err(bad(format!("key of {} bytes", key.len()))),
    };
    bounds.last = bounds.first.saturating_sub(1);
    let mut rows = db.raw_iterator_cf_opt(cf, unverified());
    rows.seek_to_last();
    let Some(key) = rows.key() else {
        return rows.status().map_err(map_error);
    };
    let last = index_of(key)?;
    if last < bounds.first {
        return Ok(());
    }
    rows.seek(bounds.first.to_be_bytes());
    let found = match rows.key() {
        Some(key) => index_of(key)?,
        None => {
            rows.status().map_err(map_error)?;
            last
        }
    };
    if found != bounds.first {
        return Err(bad(format!(
            "begins at {found} instead of {}",
            bounds.first
        )));
    }
    bounds.last = last;
    Ok(())
}
