//! Snapshots that take the place of a shard's log and state.

use super::marks::Mark;
use super::meta::{self, MetaKind};
use super::{state, RocksStore, CF_META, CF_STATE};
use crate::model::ShardId;
use crate::storage::points::{pass, FailPoint};
use crate::storage::traits::all_rows;
use crate::storage::{HardState, LogBounds, SnapshotStore, Standing, StateOp, StoreError};
use rocksdb::WriteBatch;
use std::sync::atomic::Ordering;

impl RocksStore {
    fn install_snapshot(
        &mut self,
        shard: ShardId,
        (first, term): (u64, u64),
        hard_state: HardState,
        ops: &[StateOp],
        standing: Option<Standing>,
    ) -> Result<(), StoreError> {
        let mut log = self.log(shard)?.clone();
        log.epoch += 1;
        log.bounds = LogBounds {
            first,
            last: first - 1,
            trimmed_term: term,
            synced: first - 1,
            hard_state,
        };
        let mark = Mark {
            epoch: log.epoch,
            index: log.bounds.synced,
        };
        let meta = self.shared.cf(CF_META)?;
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(self.shared.cf(&log.cf)?, [0u8; 8], [u8::MAX; 8]);
        self.shared.forget_mended(&mut batch, shard, 0..u64::MAX)?;
        let key = |kind| meta::key(shard, kind);
        batch.put_cf(meta, key(MetaKind::Bounds), meta::bounds(first, term));
        batch.put_cf(
            meta,
            key(MetaKind::HardState),
            meta::hard_state(&hard_state),
        );
        batch.put_cf(meta, key(MetaKind::Mark), meta::mark(mark));
        if let Some(standing) = standing {
            let row = meta::standing(standing);
            batch.put_cf(meta, key(MetaKind::Standing), row);
        }
        state::put_ops(&mut batch, self.shared.cf(CF_STATE)?, ops.iter());
        // With WAL, the state rows too: a crash finds all of it or nothing.
        let view = self.shared.view(shard)?;
        view.first.store(first, Ordering::Release);
        view.last.store(first - 1, Ordering::Release);
        pass(FailPoint::Install);
        self.write_synced(batch)?;
        pass(FailPoint::InstallWritten);
        self.logs.insert(shard, log);
        self.marks.set(shard, mark);
        self.all_synced()?;
        pass(FailPoint::InstallMarked);
        self.drop_files(shard)?;
        pass(FailPoint::InstallDeleted);
        Ok(())
    }
}

impl SnapshotStore for RocksStore {
    fn install(
        &mut self,
        shard: ShardId,
        at: (u64, u64),
        hard_state: HardState,
        ops: &[StateOp],
    ) -> Result<(), StoreError> {
        self.usable()?;
        let result = self.install_snapshot(shard, at, hard_state, ops, None);
        self.settle(result)
    }

    fn forget(
        &mut self,
        shard: ShardId,
        hard_state: HardState,
        reached: u64,
    ) -> Result<(), StoreError> {
        self.usable()?;
        let standing = Standing::Forgotten { kept: 0, reached };
        let ops = [all_rows(shard)];
        let result = self.install_snapshot(shard, (1, 0), hard_state, &ops, Some(standing));
        self.settle(result)?;
        self.standings.insert(shard, standing);
        Ok(())
    }
}
