//! Reading stored records from the simulated store, see [`RecordSource`].

use super::SimStore;
use crate::model::{QueueKey, ShardId};
use crate::storage::keys::index::{self, IndexRow};
use crate::storage::{LogEntry, LogStore, RecordSource, StateStore, StoreError};

/// Rows read at a time.
const ROWS: usize = 64;

fn parsed(key: &[u8], value: &[u8]) -> Result<(u64, IndexRow), StoreError> {
    let (_, _, base) = index::parse(key)
        .ok_or_else(|| StoreError::Corrupt("an index key does not parse".into()))?;
    Ok((base, IndexRow::decode(value)?))
}

impl RecordSource for SimStore {
    fn read_entry(&self, shard: ShardId, index: u64) -> Result<Option<LogEntry>, StoreError> {
        let found = self.read(shard, index, index.saturating_add(1), 1)?;
        Ok(found.into_iter().next())
    }

    fn index_rows_of(
        &self,
        shard: ShardId,
        queue: QueueKey,
        from_offset: u64,
        (limit, records): (usize, usize),
    ) -> Result<Vec<(u64, IndexRow)>, StoreError> {
        let (low, end) = index::queue_range(shard, queue);
        let before = self.last(&low, &index::key(shard, queue, from_offset))?;
        let mut from = before.map_or(low, |(key, _)| key);
        let (mut out, mut named) = (Vec::new(), 0);
        loop {
            let rows = self.scan(&from, &end, ROWS)?;
            for (key, value) in &rows {
                if out.len() == limit || named >= records {
                    return Ok(out);
                }
                let (base, row) = parsed(key, value)?;
                if base.saturating_add(row.items.len() as u64) > from_offset {
                    named += row.items.len();
                    out.push((base, row));
                }
            }
            match rows.into_iter().next_back() {
                Some((mut key, _)) => {
                    key.push(0);
                    from = key;
                }
                None => return Ok(out),
            }
        }
    }

    fn index_row_at_or_before(
        &self,
        shard: ShardId,
        queue: QueueKey,
        offset: u64,
    ) -> Result<Option<(u64, IndexRow)>, StoreError> {
        let (low, end) = index::queue_range(shard, queue);
        let to = match offset.checked_add(1) {
            Some(next) => index::key(shard, queue, next),
            None => end,
        };
        let found = self.last(&low, &to)?;
        found.map(|(key, value)| parsed(&key, &value)).transpose()
    }
}
