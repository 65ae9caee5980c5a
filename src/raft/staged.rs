//! The rows of a snapshot that comes in: see [`super::transfer`].

use super::transfer::{SnapshotId, Stage, Staged};
use crate::model::ShardId;
use crate::storage::keys::{self, staged, Kind};
use crate::storage::{StateOp, StateStore, StoreError};

/// Rows read at a time.
const PAGE: usize = 64;

/// What changes in the store.
pub fn ops(shard: ShardId, stage: &Stage) -> Vec<StateOp> {
    match stage {
        Stage::Begin(id) => {
            let (from, to) = keys::all_of_kind(shard, Kind::Staged);
            let key = staged::head_key(shard);
            let value = staged::encode_head((id.index, id.term, id.len, id.sum));
            vec![
                StateOp::DeleteRange { from, to },
                StateOp::Put { key, value },
            ]
        }
        Stage::Part { offset, bytes } => {
            let key = staged::part_key(shard, *offset);
            let value = staged::encode_part(bytes);
            vec![StateOp::Put { key, value }]
        }
    }
}

/// What is staged: the parts from the first on, up to one that is missing or damaged.
pub fn load<S: StateStore>(store: &S, shard: ShardId) -> Result<Option<Staged>, StoreError> {
    let Some(head) = store.get(&staged::head_key(shard))? else {
        return Ok(None);
    };
    let (index, term, len, sum) = staged::decode_head(&head)?;
    let id = SnapshotId {
        index,
        term,
        sum,
        len,
    };
    let mut data: Vec<u8> = Vec::new();
    loop {
        let (from, to) = staged::parts(shard, data.len() as u64);
        let before = data.len();
        for (key, value) in store.scan(&from, &to, PAGE)? {
            let fits = staged::offset_of(&key) == Some(data.len() as u64);
            let Some(bytes) = staged::decode_part(&value).filter(|_| fits) else {
                break;
            };
            data.extend_from_slice(bytes);
        }
        if data.len() == before || data.len() as u64 >= len {
            break;
        }
    }
    // With all of it there, the last part is asked for again, so that its end is noticed.
    Ok((data.len() as u64 <= len).then_some(Staged { id, data }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{SimStateStore, StateBatch};
    use bytes::Bytes;

    #[test]
    fn what_is_staged_is_found_up_to_the_first_gap_or_damage() {
        let shard = ShardId(3);
        let mut store = SimStateStore::new();
        assert_eq!(load(&store, shard), Ok(None));
        let mut put = |stage: &Stage| {
            let ops = ops(shard, stage);
            store.write(&StateBatch { ops }).unwrap();
            load(&store, shard).unwrap().unwrap()
        };
        let id = SnapshotId {
            index: 7,
            term: 2,
            sum: 5,
            len: 1_000,
        };
        assert!(put(&Stage::Begin(id)).data.is_empty());
        let part = |n: u8, offset| Stage::Part {
            offset,
            bytes: Bytes::from(vec![n; 5]),
        };
        for n in 0..100u8 {
            let found = put(&part(n, u64::from(n) * 5));
            assert_eq!((found.id, found.data.len()), (id, (usize::from(n) + 1) * 5));
        }
        assert_eq!(put(&part(1, 600)).data.len(), 500, "behind a gap");
        let key = staged::part_key(shard, 250);
        let value = b"damaged".to_vec();
        let ops = vec![StateOp::Put { key, value }];
        store.write(&StateBatch { ops }).unwrap();
        assert_eq!(load(&store, shard).unwrap().unwrap().data.len(), 250);
        let next = SnapshotId { index: 8, ..id };
        let begin = super::ops(shard, &Stage::Begin(next));
        store.write(&StateBatch { ops: begin }).unwrap();
        let found = load(&store, shard).unwrap().unwrap();
        assert_eq!((found.id, found.data.len()), (next, 0));
    }
}
