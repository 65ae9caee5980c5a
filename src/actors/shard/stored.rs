//! Stored entries that the cores ask for, read on the read pool.

use super::actor::{ShardActor, ShardMail};
use super::core::ShardInput;
use super::machine::{BaseOfRows, BASE_KINDS};
use super::recent::Scheduled;
use crate::actors::effect::Effect;
use crate::actors::timer::actor::TimerMail;
use crate::actors::timer::core::{TimerInput, MAX_FIRING_BYTES};
use crate::model::QueueKey;
use crate::raft::entry::TimerKey;
use crate::raft::members::Members;
use crate::storage::{keys, RecordSource, StoreError};
use bytes::Bytes;
use std::collections::VecDeque;

impl ShardActor {
    /// Reads an entry for another replica, whose own is bad. Where that is not possible now, it asks again.
    pub(super) fn copy(&self, to: u64, index: u64) {
        let Some(me) = self.me.clone() else { return };
        let shard = self.deps.shard;
        let work = Box::new(move |reader: &crate::storage::Reader| {
            let entry = match reader.read_entry(shard, index) {
                Ok(entry) => entry,
                Err(StoreError::BadEntry { .. }) => {
                    me.do_send(ShardMail(ShardInput::BadEntry { index }));
                    None
                }
                Err(StoreError::Trimmed(_)) => None,
                Err(error) => {
                    tracing::error!(%error, index, "an entry cannot be read for another replica");
                    return;
                }
            };
            me.do_send(ShardMail(ShardInput::Copied { to, index, entry }));
        });
        let _ = self.deps.pool.submit(work);
    }

    /// Makes a base of the state rows, for followers whose next entries are gone.
    pub(super) fn make_base(&self, members: Members, effects: &mut VecDeque<Effect>) {
        let Some(me) = self.me.clone() else { return };
        let shard = self.deps.shard;
        let work = Box::new(move |reader: &crate::storage::Reader| {
            let ranges = BASE_KINDS.map(|kind| keys::all_of_kind(shard, kind));
            let mut base = BaseOfRows::new(shard, members);
            let read = reader.rows_at_once(&ranges, |key, value| base.row(key, value));
            let base = match read {
                Ok(()) => base.done(),
                Err(error) if error.is_corrupt() => {
                    me.do_send(ShardMail(ShardInput::BadState(error.to_string())));
                    None
                }
                Err(error) => {
                    tracing::error!(%error, shard = shard.0, "no snapshot can be made");
                    None
                }
            };
            me.do_send(ShardMail(ShardInput::Base(base)));
        });
        if self.deps.pool.submit(work).is_err() {
            effects.push_back(Effect::ToShard(ShardInput::Base(None)));
        }
    }

    /// Reads records of delayed messages that are due. One that nobody can read any more ends its timer, or it
    /// would be tried for ever and keep retention from what is behind it.
    pub(super) fn load_scheduled(&self, timers: Vec<(TimerKey, QueueKey)>) {
        let (Some(timer), reads) = (self.timer.clone(), self.deps.reads.clone()) else {
            return;
        };
        let Some(me) = self.me.clone() else { return };
        let failed = timers.clone();
        let back = timer.clone();
        let shard = self.deps.shard.0;
        let work = Box::new(move |_: &crate::storage::Reader| {
            let mut bytes = 0;
            let mut gone = Vec::new();
            for (key, target) in timers {
                // The rest is asked for again.
                let found = if bytes >= MAX_FIRING_BYTES {
                    Ok(Scheduled::Later)
                } else {
                    reads.scheduled(key.position)
                };
                let found = found.unwrap_or_else(|error| {
                    if !matches!(error, StoreError::BadEntry { .. }) {
                        tracing::error!(%error, "a delayed message cannot be read");
                    }
                    Scheduled::Later
                });
                let (tag, record) = match found {
                    // A copy, because a slice would keep its whole entry in memory.
                    Scheduled::Record(tag, record) => (tag, Some(Bytes::copy_from_slice(&record))),
                    Scheduled::Later => (0, None),
                    Scheduled::Lost => {
                        tracing::error!(
                            event = "lost_delayed_message",
                            shard,
                            index = key.position.index,
                            ordinal = key.position.ordinal,
                            due_ms = key.due_ms,
                            topic = target.topic.0,
                            queue = target.queue,
                            "a delayed message is in an entry that no replica can read: it is given up"
                        );
                        gone.push(key);
                        continue;
                    }
                };
                bytes += record.as_ref().map_or(0, |record| record.len());
                timer.do_send(TimerMail(TimerInput::Loaded {
                    timer: key,
                    target,
                    tag,
                    record,
                }));
            }
            if !gone.is_empty() {
                reads.damage().lose_delayed(gone.len() as u64);
                me.do_send(ShardMail(ShardInput::Orphans(gone)));
            }
        });
        if self.deps.pool.submit(work).is_err() {
            // Asked again at the next tick.
            for (key, target) in failed {
                back.do_send(TimerMail(TimerInput::Loaded {
                    timer: key,
                    target,
                    tag: 0,
                    record: None,
                }));
            }
        }
    }
}
