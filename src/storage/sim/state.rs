//! The state store in memory.

use super::SimRng;
use crate::storage::{Row, StateBatch, StateOp, StateStore, StoreError};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// State rows in memory, with a simulated disk behind them.
///
/// A crash keeps what was flushed and an arbitrary prefix of the batches behind it: RocksDB may
/// write its memtable out at any time.
#[derive(Debug, Clone, Default)]
pub struct SimStateStore {
    current: Rows,
    durable: Rows,
    /// Batches since the last flush, each with the number of log writes before it.
    pending: VecDeque<(StateBatch, u64)>,
}

impl SimStateStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// A crash and the restart after it.
    pub fn crash(&mut self, rng: &mut SimRng) {
        self.crash_keeping(rng);
    }

    /// As [`SimStateStore::crash`]; returns the number of log writes the surviving rows rest on.
    pub(super) fn crash_keeping(&mut self, rng: &mut SimRng) -> u64 {
        let keep = rng.between(0, self.pending.len() as u64) as usize;
        let mut needs = 0;
        for (batch, log_writes) in self.pending.drain(..).take(keep) {
            apply(&mut self.durable, &batch);
            needs = log_writes;
        }
        self.pending.clear();
        self.current = self.durable.clone();
        needs
    }

    pub(super) fn crash_to_flushed(&mut self) {
        self.pending.clear();
        self.current = self.durable.clone();
    }

    pub(super) fn write_at(&mut self, batch: &StateBatch, log_writes: u64) {
        apply(&mut self.current, batch);
        self.pending.push_back((batch.clone(), log_writes));
    }

    pub(super) fn flush_all(&mut self) {
        for (batch, _) in self.pending.drain(..) {
            apply(&mut self.durable, &batch);
        }
    }
}

fn apply(rows: &mut Rows, batch: &StateBatch) {
    for op in &batch.ops {
        match op {
            StateOp::Put { key, value } => {
                rows.insert(key.clone(), value.clone());
            }
            StateOp::Delete { key } => {
                rows.remove(key);
            }
            StateOp::DeleteRange { from, to } => {
                if from < to {
                    let mut behind = rows.split_off(from);
                    rows.append(&mut behind.split_off(to));
                }
            }
        }
    }
}

impl StateStore for SimStateStore {
    fn write(&mut self, batch: &StateBatch) -> Result<(), StoreError> {
        self.write_at(batch, 0);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.flush_all();
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.current.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        Ok(range(&self.current, from, to)
            .take(limit)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect())
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreError> {
        Ok(range(&self.current, from, to)
            .next_back()
            .map(|(k, v)| (k.clone(), v.clone())))
    }
}

fn range<'a>(
    rows: &'a Rows,
    from: &[u8],
    to: &[u8],
) -> std::collections::btree_map::Range<'a, Vec<u8>, Vec<u8>> {
    // An inverted range is empty, not a panic.
    let to = if from < to { to } else { from };
    rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
}
