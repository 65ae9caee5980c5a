//! Entries that cannot be read as they were written, and of which nobody else has a copy.
//!
//! A replay that stopped at one would keep a single node down for good. One that left it out would give the
//! offsets of its messages to others. So an entry whose structure is whole stands in for what was written: its
//! messages have their offsets, and whoever reads them learns that they are lost.

use super::Machine;
use crate::model::QueueKey;
use crate::raft::entry::{self, Command};
use crate::storage::LogEntry;
use std::collections::BTreeMap;

/// A leader's clock does not run ahead of the entry before by more than this, ms.
const MAX_PAUSE_MS: i64 = 86_400_000;
/// No message is due later than this after it was stored, ms: ten years.
const MAX_DELAY_MS: i64 = 3_653 * 86_400_000;

impl Machine {
    /// What to apply for the next entry, whose checksum does not match. `None` when it changes more than queues,
    /// or says of a queue what cannot be: then something else than a message was damaged. `term` is the
    /// replica's own.
    pub fn stand_in(&self, damaged: LogEntry, term: u64) -> Option<LogEntry> {
        let (before, known) = (self.applied.1, damaged.kind == 0 && !self.is_filling());
        if !known || !(damaged.data.is_empty() || self.is_plausible(&damaged)) {
            return None;
        }
        let own = (before..=term.max(before)).contains(&damaged.term);
        Some(LogEntry {
            term: if own { damaged.term } else { before },
            ..damaged
        })
    }

    fn is_plausible(&self, e: &LogEntry) -> bool {
        let Ok(decoded) = entry::decode(e.index, &e.data) else {
            return false;
        };
        let since = decoded.at_ms.saturating_sub(self.last_at_ms);
        let mut ends: BTreeMap<QueueKey, u64> = BTreeMap::new();
        let mut fits = |command: &Command| match command {
            Command::Append(block) => {
                let end = ends.entry(block.key);
                let end = end.or_insert_with(|| self.queue(block.key).next);
                let follows = *end == block.base;
                *end += block.metas.len() as u64;
                follows && self.has_queue(block.key)
            }
            Command::Schedule { timer, target, .. } => {
                let latest = decoded.at_ms.saturating_add(MAX_DELAY_MS);
                timer.position.index == e.index && timer.due_ms <= latest && self.has_queue(*target)
            }
            Command::Fired(_) | Command::Meta(_) => false,
        };
        // The first entry of all has no time before it.
        let in_time = since <= MAX_PAUSE_MS || self.last_at_ms == 0;
        in_time && decoded.commands.iter().all(&mut fits)
    }

    fn has_queue(&self, key: QueueKey) -> bool {
        let name = self.topic_names.get(&key.topic.0);
        let topic = name.and_then(|name| self.topics.get(name));
        let queues = topic.map_or(0, |t| t.read_queues.max(t.write_queues));
        key.queue < queues || self.queues.contains_key(&key)
    }
}
