//! When the majority of a shard's replicas is lost for good: one that is left becomes the only
//! member. What it does not hold is lost, so an operator must say so; nothing else ever gives up a
//! majority (reliability §1 rule 4). The same for a single node whose data are damaged: what cannot
//! be read, and all that comes behind it, is lost.

use super::identity;
use super::parts::{cluster_raft, open_store};
use super::{StartError, NODE, SHARD};
use crate::actors::shard::recover::recover;
use crate::actors::shard::{core::ShardOptions, machine::MachineOptions};
use crate::config::{ClusterShard, Config};
use crate::model::ShardId;
use crate::raft::members::Members;
use crate::raft::RaftOptions;
use crate::storage::{keys, LogAppend, LogEntry, LogStore, Look, RocksStore};
use crate::storage::{StateBatch, StateOp, StateStore, StoreError};
use std::path::Path;

/// Sorted files kept open: nobody else wants any.
const OPEN_FILES: u64 = 256;

/// One shard on the node that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRest {
    pub name: String,
    /// Last index and term of its log.
    pub last: (u64, u64),
    pub committed: u64,
    /// Members until now.
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    /// A change of members stands in the log and was not known to be committed: it will be made,
    /// or was dropped if this node is the only member now.
    pub pending_change: bool,
    /// This node is the only member now.
    pub rescued: bool,
    /// What is missing of what the shard's log held here once: the last index known to have been there, and
    /// how that was seen.
    pub damage: Option<(u64, String)>,
}

/// Looks at the shards in a stopped node's data directory and, when `accept_loss`, makes this node
/// the only member of each in which it has a replica.
///
/// # Errors
/// The node runs, the directory is another's, or it cannot be brought back even so.
pub fn rescue(config: &Config, accept_loss: bool) -> Result<Vec<ShardRest>, StartError> {
    let dir = Path::new(&config.data_dir);
    if !dir.join("FORMAT").exists() {
        let text = format!("{} holds no data", dir.display());
        return Err(StartError::Config(text));
    }
    let (shards, life) = match (config.cluster(), accept_loss) {
        (Some(cluster), true) => {
            let claim = identity::claim(dir, config, cluster).map_err(StartError::Config)?;
            (claim.cluster.shards, claim.life)
        }
        (Some(cluster), false) => {
            let claim = identity::look(dir, config, cluster).map_err(StartError::Config)?;
            (claim.cluster.shards, claim.life)
        }
        (None, _) => {
            identity::refuse_cluster_data(dir).map_err(StartError::Config)?;
            (vec![single(config)], 0)
        }
    };
    if accept_loss {
        return all(config, &shards, life, true);
    }
    let store = |error| StartError::Store {
        dir: config.data_dir.clone(),
        error,
    };
    // To open a store is to change it: a copy is opened.
    let look = Look::at(dir).map_err(store)?;
    let copied = Config {
        data_dir: look.path().display().to_string(),
        ..config.clone()
    };
    all(&copied, &shards, life, false)
}

/// The one shard of a single node.
fn single(config: &Config) -> ClusterShard {
    ClusterShard {
        id: SHARD.0,
        name: config.broker_name.clone(),
        port: config.listen_port,
        nodes: vec![NODE],
    }
}

fn all(
    config: &Config,
    shards: &[ClusterShard],
    life: u64,
    accept_loss: bool,
) -> Result<Vec<ShardRest>, StartError> {
    let ids: Vec<ShardId> = shards.iter().map(|s| ShardId(s.id)).collect();
    let mut store = open_store(config, OPEN_FILES, &ids, true)?;
    let mut found = Vec::new();
    for shard in shards {
        let rest = one(config, &mut store, shard, life, accept_loss);
        found.push(rest.map_err(|error| {
            let dir = config.data_dir.clone();
            StartError::Config(format!(
                "data directory {dir}: shard {}: {error}",
                shard.name
            ))
        })?);
    }
    let closed = StateStore::close(&mut store);
    closed.map_err(|error| StartError::Store {
        dir: config.data_dir.clone(),
        error,
    })?;
    Ok(found)
}

fn one(
    config: &Config,
    store: &mut RocksStore,
    place: &ClusterShard,
    life: u64,
    accept_loss: bool,
) -> Result<ShardRest, String> {
    let shard = ShardId(place.id);
    let (me, raft) = match config.is_cluster() {
        true => (config.node_id, cluster_raft(config, place, life)),
        false => (NODE, RaftOptions::single(NODE, 0)),
    };
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let options = ShardOptions::of(shard);
    let machine = MachineOptions {
        segment_bytes: config.log_segment_bytes,
    };
    // What is known to be committed is applied first: changes of members among it.
    let damage = store
        .loss(shard)
        .filter(|loss| loss.reached > loss.kept)
        .map(|loss| (loss.reached, loss.why.clone()));
    let (core, _) = recover(store, options, machine, raft).map_err(|e| text(&e))?;
    let bounds = store.bounds(shard).map_err(|e| text(&e))?;
    let applied = core.machine().applied.0;
    let rest = store.read(shard, applied + 1, bounds.last + 1, u64::MAX);
    let rest = rest.map_err(|e| text(&e))?;
    let members = core.machine().members.clone();
    let is_member = members.nodes().contains(&me);
    if accept_loss && is_member {
        let mut removed = [members.nodes(), members.removed.clone()].concat();
        removed.retain(|node| *node != me);
        removed.sort_unstable();
        removed.dedup();
        let alone = Members {
            removed,
            ..Members::of(vec![me])
        };
        let row = StateOp::Put {
            key: keys::members::key(shard),
            value: keys::members::encode(&alone),
        };
        let batch = StateBatch { ops: vec![row] };
        StateStore::write(store, &batch).map_err(|e| text(&e))?;
        // Whoever stops in between has a shard that nobody leads, and says it again.
        StateStore::flush(store).map_err(|e| text(&e))?;
        let changes = without_changes(&rest);
        if !changes.is_empty() {
            let append = LogAppend {
                shard,
                entries: changes,
                hard_state: None,
                sync: true,
            };
            store.append(&[append]).map_err(|e| text(&e))?;
        }
        hide_first_entry(store, shard, applied).map_err(|e| text(&e))?;
        store.regained(shard).map_err(|e| text(&e))?;
        tracing::warn!(
            event = "rescued",
            shard = place.name,
            node = me,
            last = bounds.last,
            "this node is the only member now; what it does not hold is lost"
        );
    }
    Ok(ShardRest {
        name: place.name.clone(),
        last: (
            bounds.last,
            rest.last().map_or(core.machine().applied.1, |e| e.term),
        ),
        committed: bounds.hard_state.commit.max(applied),
        voters: members.voters.clone(),
        learners: members.learners,
        pending_change: rest.iter().any(|e| e.kind != 0),
        rescued: accept_loss && is_member,
        damage,
    })
}

/// The members are a row, and no entry says how they came to be. A node that is added later and
/// replays the log from its begin would go by the members of the shard's first days. So the log begins
/// with its second entry, and such a node needs a snapshot first, which has the members. The first
/// entry of a log is the empty one of its first leader; one that is not is left alone.
fn hide_first_entry(
    store: &mut RocksStore,
    shard: ShardId,
    applied: u64,
) -> Result<(), StoreError> {
    let bounds = store.bounds(shard)?;
    if bounds.first > 1 || bounds.last == 0 {
        return Ok(());
    }
    let first = store.read(shard, 1, 2, u64::MAX)?;
    let Some(first) = first.first().filter(|e| e.kind == 0 && e.data.is_empty()) else {
        return Ok(());
    };
    if applied == 0 {
        // The only member has committed whatever it holds.
        let mut hard_state = bounds.hard_state;
        hard_state.commit = hard_state.commit.max(1);
        let append = LogAppend {
            shard,
            entries: Vec::new(),
            hard_state: Some(hard_state),
            sync: true,
        };
        store.append(&[append])?;
        let row = StateOp::Put {
            key: keys::applied::key(shard),
            value: keys::applied::encode(1),
        };
        StateStore::write(store, &StateBatch { ops: vec![row] })?;
    }
    // The state is made durable first.
    store.trim(shard, 2, first.term)
}

/// The end of the log from the first change of members on, with an empty entry for each: made from
/// the members there are now, they could be impossible.
fn without_changes(rest: &[LogEntry]) -> Vec<LogEntry> {
    let from = rest.iter().position(|e| e.kind != 0);
    let changed = |e: &LogEntry| match e.kind {
        0 => e.clone(),
        _ => LogEntry {
            kind: 0,
            data: Default::default(),
            ..*e
        },
    };
    from.map_or(vec![], |from| rest[from..].iter().map(changed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::HardState;

    fn config(dir: &Path) -> Config {
        Config {
            cluster_id: "c".into(),
            node_id: 2,
            peers: "1=127.0.0.1:1;2=127.0.0.1:2;3=127.0.0.1:3".into(),
            shards: "broker-a".into(),
            data_dir: dir.display().to_string(),
            disk_min_free_bytes: 0,
            disk_space_warning_level_ratio: 99,
            ..Config::default()
        }
    }

    #[test]
    fn only_an_accepted_loss_changes_the_members() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        assert!(rescue(&config, true).is_err(), "there is nothing");
        identity::claim(dir.path(), &config, config.cluster().unwrap()).unwrap();
        let shard = config.cluster().unwrap().shards[0].clone();
        let mut store = open_store(&config, OPEN_FILES, &[ShardId(shard.id)], false).unwrap();
        let entry = LogEntry {
            index: 1,
            term: 1,
            kind: 0,
            data: Default::default(),
        };
        // It leaves a joint configuration, in which the rescued shard will not be.
        let leave = LogEntry {
            index: 2,
            kind: 2,
            ..entry.clone()
        };
        let after = LogEntry {
            index: 3,
            ..entry.clone()
        };
        let append = LogAppend {
            shard: ShardId(shard.id),
            entries: vec![entry, leave, after],
            hard_state: Some(HardState {
                term: 1,
                vote: 2,
                commit: 0,
            }),
            sync: true,
        };
        store.append(&[append]).unwrap();
        drop(store);
        let looked = rescue(&config, false).unwrap();
        assert_eq!((looked[0].last, looked[0].pending_change), ((3, 1), true));
        assert_eq!(
            (&looked[0].voters, looked[0].rescued),
            (&vec![1, 2, 3], false)
        );
        assert_eq!(rescue(&config, false).unwrap()[0].voters, [1, 2, 3]);
        assert!(rescue(&config, true).unwrap()[0].rescued);
        let after = rescue(&config, false).unwrap();
        assert_eq!(after[0].voters, [2]);
        assert_eq!((after[0].last, after[0].pending_change), ((3, 1), false));
        let store = open_store(&config, OPEN_FILES, &[ShardId(shard.id)], false).unwrap();
        assert_eq!(store.standing(ShardId(shard.id)), Default::default());
        // Who is added later does not begin with the members of the first days.
        let bounds = store.bounds(ShardId(shard.id)).unwrap();
        assert_eq!((bounds.first, bounds.last, bounds.trimmed_term), (2, 3, 1));
        let single = Config::default();
        assert!(matches!(rescue(&single, false), Err(StartError::Config(_))));
    }
}
