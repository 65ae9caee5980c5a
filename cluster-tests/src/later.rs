//! A log that a later version has written to: it is refused before anything changes, with a text that
//! says why, and nothing in it is passed over.

use crate::sim::Sim;
use troupemq::actors::shard::recover::RecoverError;
use troupemq::raft::entry::EntryBuilder;
use troupemq::storage::{keys, LogAppend, LogEntry, LogStore, StateStore};

/// The first byte of an entry of a later version.
const LATER: u8 = 2;
/// What the refusal must say.
const WHY: &str = "version is not known here";

impl Sim {
    /// All is over, and the log of the node here is complete and committed: it gets one entry more.
    pub(crate) fn refuse_later_version(&mut self) {
        if self.failure.is_some() || self.seed % 4 != 1 {
            return;
        }
        let Ok(bounds) = self.store.bounds(crate::SHARD) else {
            return;
        };
        let index = bounds.last + 1;
        let mut hard_state = bounds.hard_state;
        hard_state.commit = index;
        let mut builder = EntryBuilder::new(index, self.clock_ms(), 0);
        builder.sync();
        let mut data = builder.finish();
        data[0] = LATER;
        let entry = LogEntry {
            index,
            term: hard_state.term.max(1),
            kind: 0,
            data: data.into(),
        };
        if let Some(what) = self.a_running_replica_takes(&entry) {
            return self.fail("later version", what);
        }
        let append = LogAppend {
            shard: crate::SHARD,
            entries: vec![entry],
            hard_state: Some(hard_state),
            sync: true,
        };
        if let Err(error) = self.store.append(&[append]) {
            return self.fail("later version", format!("the log takes no entry: {error}"));
        }
        let what = match self.recover() {
            Err(RecoverError::Apply(why)) if why.to_string().contains(WHY) => {
                let row = StateStore::get(&*self.store, &keys::applied::key(crate::SHARD));
                let applied = row.ok().flatten();
                let applied = applied.and_then(|row| keys::applied::decode(&row).ok());
                match applied.is_none_or(|applied| applied < index) {
                    true => {
                        self.counters.later_refused += 1;
                        return;
                    }
                    false => format!("entry {index} counts as applied"),
                }
            }
            Err(why) => format!("a log of a later version is refused with: {why}"),
            Ok(_) => format!("entry {index} of a later version is passed over"),
        };
        self.fail("later version", what);
    }

    /// The state machine stops at the entry, and is as it was.
    fn a_running_replica_takes(&mut self, entry: &LogEntry) -> Option<String> {
        let machine = &mut self.group.as_mut()?.oracle;
        if machine.applied.0 + 1 != entry.index {
            return None;
        }
        let before = (machine.digest(), machine.applied);
        match machine.apply(entry) {
            Ok(_) => Some("the state machine takes an entry of a later version".into()),
            Err(why) if !why.to_string().contains(WHY) => Some(format!("refused with: {why}")),
            Err(_) if (machine.digest(), machine.applied) != before => {
                Some("the state changed by an entry that was refused".into())
            }
            Err(_) => None,
        }
    }
}
