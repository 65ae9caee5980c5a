//! The state rows.

use super::marks::Mark;
use super::{map_error, meta, RocksStore, CF_META, CF_STATE};
use crate::storage::points::{pass, FailPoint};
use crate::storage::{Row, StateBatch, StateOp, StateStore, StoreError};
use rocksdb::{ColumnFamily, FlushOptions, WriteBatch, WriteOptions};

impl RocksStore {
    fn write_state(&mut self, batches: &[StateBatch]) -> Result<(), StoreError> {
        let cf = self.shared.cf(CF_STATE)?;
        let ops = || batches.iter().flat_map(|b| &b.ops);
        if ops().next().is_none() {
            return Ok(());
        }
        let bytes = ops().map(|op| match op {
            StateOp::Put { key, value } => key.len() + value.len() + 16,
            StateOp::Delete { key } => key.len() + 16,
            StateOp::DeleteRange { from, to } => from.len() + to.len() + 16,
        });
        let mut batch = WriteBatch::with_capacity_bytes(bytes.sum::<usize>() + 32);
        put_ops(&mut batch, cf, ops());
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        pass(FailPoint::State);
        let written = self.shared.db.write_opt(batch, &options);
        pass(FailPoint::StateWritten);
        written.map_err(map_error)
    }

    /// Log first, state second: see the module's "what survives".
    pub(super) fn flush_state(&mut self, wait: bool) -> Result<(), StoreError> {
        self.sync_wal()?;
        self.marks.sync()?;
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        pass(FailPoint::StateFlush);
        let state = self.shared.cf(CF_STATE)?;
        let flushed = self.shared.db.flush_cf_opt(state, &options);
        pass(FailPoint::StateFlushed);
        flushed.map_err(map_error)
    }

    fn close_store(&mut self) -> Result<(), StoreError> {
        self.flush_state(true)?;
        for (shard, log) in &self.logs {
            self.marks.set(
                *shard,
                Mark {
                    epoch: log.epoch,
                    index: log.bounds.synced,
                },
            );
        }
        self.marks.sync()?;
        let mut batch = WriteBatch::default();
        batch.put_cf(self.shared.cf(CF_META)?, meta::CLEAN, b"1");
        pass(FailPoint::Close);
        self.write_synced(batch)?;
        pass(FailPoint::Closed);
        self.closed = true;
        Ok(())
    }
}

/// Adds the changes to a batch.
pub(super) fn put_ops<'a>(
    batch: &mut WriteBatch,
    cf: &ColumnFamily,
    ops: impl Iterator<Item = &'a StateOp>,
) {
    for op in ops {
        match op {
            StateOp::Put { key, value } => batch.put_cf(cf, key, value),
            StateOp::Delete { key } => batch.delete_cf(cf, key),
            StateOp::DeleteRange { from, to } if from < to => batch.delete_range_cf(cf, from, to),
            StateOp::DeleteRange { .. } => {}
        }
    }
}

impl StateStore for RocksStore {
    fn write(&mut self, batch: &StateBatch) -> Result<(), StoreError> {
        self.write_all(std::slice::from_ref(batch))
    }

    fn write_all(&mut self, batches: &[StateBatch]) -> Result<(), StoreError> {
        self.usable()?;
        let result = self.write_state(batches);
        self.settle(result)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.usable()?;
        let result = self.flush_state(true);
        self.settle(result)
    }

    fn flush_begin(&mut self) -> Result<(), StoreError> {
        self.usable()?;
        let result = self.flush_state(false);
        self.settle(result)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.reader().get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.reader().scan(from, to, limit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreError> {
        self.reader().last(from, to)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if self.closed {
            return Ok(());
        }
        self.usable()?;
        let result = self.close_store();
        self.settle(result)
    }
}
