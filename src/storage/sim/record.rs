//! What the logs in memory hold, and one write to them.

use super::SimRng;
use crate::model::ShardId;
use crate::storage::{entry, HardState};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Content of one shard's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardLog {
    pub first: u64,
    pub trimmed_term: u64,
    pub hard_state: HardState,
    /// Index to stored form.
    pub entries: BTreeMap<u64, Bytes>,
}

impl ShardLog {
    pub fn empty() -> Self {
        Self {
            first: 1,
            trimmed_term: 0,
            hard_state: HardState::default(),
            entries: BTreeMap::new(),
        }
    }

    pub fn last(&self) -> u64 {
        self.entries
            .last_key_value()
            .map_or(self.first - 1, |(index, _)| *index)
    }
}

/// One atomic write, in the order of the simulated WAL.
#[derive(Debug, Clone)]
pub(super) enum Record {
    Appends(Vec<Stored>),
    Trim {
        shard: ShardId,
        first: u64,
        term: u64,
    },
    Install {
        shard: ShardId,
        first: u64,
        term: u64,
        hard_state: HardState,
    },
    Mend(ShardId, u64, Bytes),
}

#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub shard: ShardId,
    pub entries: Vec<(u64, Bytes)>,
    pub hard_state: Option<HardState>,
}

impl Record {
    pub fn apply(&self, logs: &mut BTreeMap<ShardId, ShardLog>, keep_tail: bool) {
        match self {
            Record::Appends(appends) => {
                for append in appends {
                    let Some(log) = logs.get_mut(&append.shard) else {
                        continue;
                    };
                    if let Some((first, _)) = append.entries.first() {
                        let tail = log.entries.split_off(first);
                        if keep_tail {
                            log.entries.extend(tail);
                        }
                    }
                    log.entries.extend(append.entries.iter().cloned());
                    log.hard_state = append.hard_state.unwrap_or(log.hard_state);
                }
            }
            Record::Install {
                shard,
                first,
                term,
                hard_state,
            } => {
                if let Some(log) = logs.get_mut(shard) {
                    log.entries.clear();
                    (log.first, log.trimmed_term) = (*first, *term);
                    log.hard_state = *hard_state;
                }
            }
            Record::Mend(shard, index, stored) => {
                let log = logs.get_mut(shard);
                if let Some(own) = log.and_then(|log| log.entries.get_mut(index)) {
                    *own = stored.clone();
                }
            }
            Record::Trim { shard, first, term } => {
                if let Some(log) = logs.get_mut(shard) {
                    log.entries = log.entries.split_off(first);
                    log.first = *first;
                    log.trimmed_term = *term;
                }
            }
        }
    }

    /// The write with only the first bytes of its last entry.
    pub fn torn(mut self, rng: &mut SimRng) -> Self {
        if let Record::Appends(appends) = &mut self {
            let last = appends.iter_mut().rev().find_map(|a| a.entries.last_mut());
            if let Some((_, stored)) = last {
                stored.truncate(rng.below(stored.len() as u64) as usize);
            }
        }
        self
    }

    /// All entries pass their checks.
    pub fn is_whole(&self) -> bool {
        let Record::Appends(appends) = self else {
            return true;
        };
        let mut entries = appends.iter().flat_map(|a| &a.entries);
        entries.all(|(index, stored)| entry::decode(*index, stored).is_ok())
    }

    /// The last entry of the write, which is what a torn write has lost a part of.
    pub fn last_entry(&self) -> Option<&(u64, Bytes)> {
        match self {
            Record::Appends(appends) => appends.iter().rev().find_map(|a| a.entries.last()),
            Record::Trim { .. } | Record::Install { .. } | Record::Mend(..) => None,
        }
    }
}
