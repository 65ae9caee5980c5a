//! The sends of one read of a connection, grouped by queue in the order they came: each group is
//! one message to its queue's actor.

use crate::actors::shard::ShardHandle;
use crate::model::append::{AppendBatch, AppendRequest, RecordMeta};
use crate::model::QueueKey;
use bytes::BytesMut;
use rustc_hash::FxHashMap;

/// A group this large is handed over before the burst ends.
const MAX_GROUP_BYTES: usize = 1024 * 1024;
const MAX_GROUP_RECORDS: usize = 16_384;
/// Room a group begins with, and at most: a share of what was read, so that a group seldom has to
/// grow, and copy.
const FIRST_BYTES: usize = 8 * 1024;
const MAX_FIRST_BYTES: usize = 64 * 1024;
const SHARE: usize = 4;
const FIRST_RECORDS: usize = 16;

#[derive(Default)]
struct Group {
    requests: Vec<AppendRequest>,
    metas: Vec<RecordMeta>,
    records: BytesMut,
}

/// See the module text.
pub struct Burst {
    /// The node's time when the burst was read, ms.
    pub now_ms: i64,
    groups: Vec<(QueueKey, Group)>,
    places: FxHashMap<QueueKey, usize>,
    shard: Option<ShardHandle>,
    first_bytes: usize,
}

impl Burst {
    /// An empty burst, of so many bytes read.
    pub fn new(now_ms: i64, read: usize) -> Self {
        Self {
            now_ms,
            first_bytes: (read / SHARE).clamp(FIRST_BYTES, MAX_FIRST_BYTES),
            groups: Vec::new(),
            places: FxHashMap::default(),
            shard: None,
        }
    }

    /// Appends one request's records to its queue's group: `encode` appends them and their metas.
    /// On an error the group stays as it was. Gives the number of records, for
    /// [`Burst::request`], which must follow.
    pub fn records<E>(
        &mut self,
        key: QueueKey,
        encode: impl FnOnce(&mut BytesMut, &mut Vec<RecordMeta>) -> Result<(), E>,
    ) -> Result<u32, E> {
        let place = *self.places.entry(key).or_insert_with(|| {
            self.groups.push((key, Group::default()));
            self.groups.len() - 1
        });
        let group = &mut self.groups[place].1;
        let (bytes, metas) = (group.records.len(), group.metas.len());
        if bytes == 0 {
            group.records.reserve(self.first_bytes);
            group.requests.reserve(FIRST_RECORDS);
            group.metas.reserve(FIRST_RECORDS);
        }
        match encode(&mut group.records, &mut group.metas) {
            Ok(()) => Ok((group.metas.len() - metas) as u32),
            Err(e) => {
                group.records.truncate(bytes);
                group.metas.truncate(metas);
                Err(e)
            }
        }
    }

    /// The request whose records were appended last.
    pub fn request(&mut self, shard: &ShardHandle, key: QueueKey, request: AppendRequest) {
        let Some(place) = self.places.get(&key) else {
            return;
        };
        let group = &mut self.groups[*place].1;
        group.requests.push(request);
        if group.records.len() >= MAX_GROUP_BYTES || group.metas.len() >= MAX_GROUP_RECORDS {
            let full = std::mem::take(group);
            Self::hand_over(shard, key, full);
        }
        if self.shard.is_none() {
            self.shard = Some(shard.clone());
        }
    }

    fn hand_over(shard: &ShardHandle, key: QueueKey, group: Group) {
        if group.requests.is_empty() {
            return;
        }
        let batch = AppendBatch {
            requests: group.requests,
            metas: group.metas,
            records: group.records.into(),
        };
        shard.append(key, batch);
    }

    /// Hands every group over.
    pub fn submit(&mut self) {
        let Some(shard) = &self.shard else { return };
        for (key, group) in self.groups.drain(..) {
            Self::hand_over(shard, key, group);
        }
        self.places.clear();
    }
}
