//! Brings a shard back from its stores: the state rows as of the last flush, then the log from
//! there on. Used by the product and by the simulator.

use super::core::{ShardCore, ShardOptions};
use super::machine::{self, ApplyError, LoadError, Machine, MachineOptions};
use crate::model::ShardId;
use crate::raft::members::Members;
use crate::raft::{staged, RaftCore, RaftOptions, RaftStart};
use crate::storage::{LogBounds, LogEntry, LogStore, StateBatch, StateStore, StoreError};

/// Bytes of log read at a time while replaying.
const REPLAY_CHUNK: u64 = 16 << 20;

/// A shard that cannot come back from what its stores hold.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("state is applied up to {applied}, the log ends at {last}: the log lost entries")]
    LogBehindState { applied: u64, last: u64 },
    #[error("raft does not start: {0}")]
    Raft(String),
}

impl RecoverError {
    /// What was written is not what is read.
    pub fn is_corrupt(&self) -> bool {
        match self {
            Self::Store(error) | Self::Load(LoadError::Store(error)) => error.is_corrupt(),
            Self::Load(LoadError::Row(_)) => true,
            Self::Apply(_) | Self::LogBehindState { .. } | Self::Raft(_) => false,
        }
    }
}

/// What recovery found, for the log line at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub first: u64,
    pub last: u64,
    /// Entries applied again because their rows had not been flushed.
    pub replayed: u64,
    /// The members are those of the configuration and are not kept: the store is of an earlier
    /// version, which kept them from their first change on only.
    pub unsure: bool,
    /// The members as of the applied entry.
    pub members: Members,
    /// Entries that cannot be read, and nobody else has. Their messages have their offsets and are lost.
    pub damaged: Vec<u64>,
}

/// Restores machine and raft. Entries known to be committed are applied here; the rest goes to
/// raft, which decides.
pub fn recover<S: LogStore + StateStore>(
    store: &mut S,
    options: ShardOptions,
    machine_options: MachineOptions,
    raft_options: RaftOptions,
) -> Result<(ShardCore, Recovery), RecoverError> {
    let shard = options.shard;
    let mut machine = machine::load(store, shard, machine_options)?;
    let mut bounds = store.bounds(shard)?;
    let unsure = found_members(store, &mut machine, &bounds, &raft_options)?;
    if machine.applied.0 > bounds.last {
        return Err(RecoverError::LogBehindState {
            applied: machine.applied.0,
            last: bounds.last,
        });
    }
    let alone = raft_options.no_peers && machine.members.voters == [raft_options.node];
    machine.applied.1 = match term_of(store, shard, machine.applied.0, &bounds) {
        // Nobody will compare it.
        Err(StoreError::BadEntry { .. }) if alone => bounds.hard_state.term,
        found => found?,
    };
    // A trim that was applied but not carried out before the crash is carried out now.
    if let Some((_, oldest)) = machine.segments().first() {
        if oldest.first_index > bounds.first && oldest.first_index <= machine.applied.0 + 1 {
            match term_of(store, shard, oldest.first_index - 1, &bounds) {
                Ok(term) => {
                    StateStore::flush(store)?;
                    store.trim(shard, oldest.first_index, term)?;
                    bounds = store.bounds(shard)?;
                }
                // A later trim takes it along.
                Err(StoreError::BadEntry { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    // What the only voter holds is committed.
    let committed = match alone {
        true => bounds.last,
        false => bounds.hard_state.commit.min(bounds.last),
    };
    let term = bounds.hard_state.term;
    let (replayed, damaged) = replay(store, &mut machine, shard, committed, alone.then_some(term))?;
    let entries = tail(store, shard, machine.applied.0, bounds.last)?;
    let mut hard_state = bounds.hard_state;
    hard_state.commit = hard_state.commit.max(machine.applied.0);
    let start = RaftStart {
        hard_state,
        first: (bounds.first, bounds.trimmed_term),
        applied: machine.applied,
        entries,
        members: Some(machine.members.clone()),
        unsure,
        staged: staged::load(store, shard)?,
    };
    let raft = RaftCore::new(raft_options, start).map_err(RecoverError::Raft)?;
    let recovery = Recovery {
        first: bounds.first,
        last: bounds.last,
        replayed,
        unsure,
        members: machine.members.clone(),
        damaged,
    };
    Ok((ShardCore::new(options, raft, machine), recovery))
}

/// Who the members were at the applied index. The configuration is asked for a replica that has
/// nothing yet; what it says is kept, durably, and counts from then on. Returns whether it was asked
/// for one that has entries: see [`Recovery::unsure`].
fn found_members<S: LogStore + StateStore>(
    store: &mut S,
    machine: &mut Machine,
    bounds: &LogBounds,
    raft: &RaftOptions,
) -> Result<bool, RecoverError> {
    let known = !machine.members.voters.is_empty();
    let blank = bounds.last == 0 && bounds.first == 1;
    if known && !(blank && raft.forgotten) {
        return Ok(false);
    }
    let begun = Members::of(raft.voters.clone());
    if machine.members == begun {
        return Ok(false);
    }
    machine.members = begun;
    if !blank && !raft.no_peers {
        return Ok(true);
    }
    let ops = vec![machine.members_row()];
    store.write(&StateBatch { ops })?;
    StateStore::flush(store)?;
    Ok(false)
}

fn term_of<S: LogStore>(
    store: &S,
    shard: ShardId,
    index: u64,
    bounds: &LogBounds,
) -> Result<u64, StoreError> {
    if index < bounds.first {
        return Ok(bounds.trimmed_term);
    }
    let found = store.read(shard, index, index + 1, 1)?;
    found
        .first()
        .map(|e| e.term)
        .ok_or_else(|| StoreError::Corrupt(format!("log entry {index} is missing")))
}

/// `alone`: the only replica's own term. Others have what cannot be read here.
fn replay<S: LogStore + StateStore>(
    store: &mut S,
    machine: &mut Machine,
    shard: ShardId,
    committed: u64,
    alone: Option<u64>,
) -> Result<(u64, Vec<u64>), RecoverError> {
    let (mut count, mut damaged) = (0, Vec::new());
    while machine.applied.0 < committed {
        let chunk = store.read(shard, machine.applied.0 + 1, committed + 1, REPLAY_CHUNK);
        let chunk = match (chunk, alone) {
            (Err(error @ StoreError::BadEntry { index, .. }), Some(term)) => {
                let found = store.read_unverified(shard, index);
                let stands_in = found.and_then(|entry| machine.stand_in(entry, term));
                damaged.push(index);
                vec![stands_in.ok_or(error)?]
            }
            (chunk, _) => chunk?,
        };
        let mut batch = StateBatch::default();
        for entry in &chunk {
            batch.ops.extend(machine.apply(entry)?.rows);
            count += 1;
        }
        store.write(&batch)?;
    }
    Ok((count, damaged))
}

fn tail<S: LogStore>(
    store: &S,
    shard: ShardId,
    applied: u64,
    last: u64,
) -> Result<Vec<LogEntry>, StoreError> {
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut next = applied + 1;
    while next <= last {
        let chunk = store.read(shard, next, last + 1, REPLAY_CHUNK)?;
        next += chunk.len() as u64;
        entries.extend(chunk);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{HardState, LogAppend, SimRng, SimStore, StateOp};

    const SHARD: ShardId = ShardId(1);

    fn start(store: &mut SimStore, voters: &[u64], forgotten: bool) -> Recovery {
        let raft = RaftOptions {
            quiet: true,
            no_peers: false,
            forgotten,
            ..RaftOptions::group(1, voters.to_vec(), 1)
        };
        let options = ShardOptions::of(SHARD);
        let (core, found) = recover(store, options, MachineOptions::default(), raft).unwrap();
        assert_eq!(core.raft().members(), &found.members);
        found
    }

    fn append(store: &mut SimStore) {
        let entry = LogEntry {
            index: 1,
            term: 1,
            kind: 0,
            data: Default::default(),
        };
        let append = LogAppend {
            shard: SHARD,
            entries: vec![entry],
            hard_state: Some(HardState {
                term: 1,
                vote: 2,
                commit: 0,
            }),
            sync: true,
        };
        store.append(&[append]).unwrap();
    }

    #[test]
    fn the_configuration_makes_members_once() {
        let mut store = SimStore::new(&[SHARD]);
        let first = start(&mut store, &[3, 1, 2], true);
        assert_eq!(
            (&first.members.voters[..], first.unsure),
            (&[1, 2, 3][..], false)
        );
        // Durable at once.
        store.crash(&mut SimRng::new(1));
        let again = start(&mut store, &[1], false);
        assert_eq!(again.members, first.members);
        // Nothing was ever written, and nobody counted on this store: what was wrong may be put right.
        let other = start(&mut store, &[1, 2, 4], true);
        assert_eq!(other.members.voters, [1, 2, 4]);
        append(&mut store);
        for voters in [&[1][..], &[1, 2, 3, 4], &[7, 8]] {
            for forgotten in [true, false] {
                let kept = start(&mut store, voters, forgotten);
                assert_eq!((&kept.members, kept.unsure), (&other.members, false));
            }
        }
    }

    #[test]
    fn data_of_an_earlier_version_has_the_members_of_the_configuration_for_now() {
        let mut store = SimStore::new(&[SHARD]);
        append(&mut store);
        let one = start(&mut store, &[1], false);
        assert_eq!((&one.members.voters[..], one.unsure), (&[1][..], true));
        let three = start(&mut store, &[1, 2, 3], false);
        assert_eq!(
            (&three.members.voters[..], three.unsure),
            (&[1, 2, 3][..], true)
        );
        // Somebody is sure, and the row is kept.
        let ops = vec![StateOp::Put {
            key: crate::storage::keys::members::key(SHARD),
            value: crate::storage::keys::members::encode(&three.members),
        }];
        store.write(&StateBatch { ops }).unwrap();
        let kept = start(&mut store, &[1], false);
        assert_eq!((kept.members, kept.unsure), (three.members, false));
    }
}
