//! Groups that are deleted but for their offsets.

use super::*;
use crate::model::append::RecordMeta;
use crate::model::command::{CommitOffsets, DeleteGroup, LockChange, LockedQueue, MetaOp};
use crate::model::command::{MetaCommand, QueueOffset};
use crate::model::record::MIN_RECORD_LEN;
use crate::model::TopicId;
use crate::raft::entry::EntryBuilder;
use crate::storage::{LogEntry, SimStateStore, StateBatch, StateStore};
use bytes::Bytes;

const SHARD: ShardId = ShardId(1);
const QUEUE: QueueKey = QueueKey {
    topic: TopicId(1),
    queue: 0,
};

/// A machine and the rows that it wrote.
struct Replica {
    machine: Machine,
    rows: SimStateStore,
}

impl Replica {
    /// With a topic, three messages and the group `g`, which committed offset 2 and holds a lock.
    fn new() -> Self {
        let mut replica = Replica {
            machine: Machine::new(SHARD, MachineOptions::default()),
            rows: SimStateStore::new(),
        };
        replica.op(MetaOp::PutTopic(TopicConfig::new("t", 1, 6)));
        replica.op(MetaOp::PutGroup(GroupConfig::with_defaults("other")));
        replica.op(MetaOp::PutGroup(GroupConfig::with_defaults("g")));
        replica.entry(|entry| {
            let metas = [RecordMeta {
                size: MIN_RECORD_LEN as u32,
                tag: 0,
            }; 3];
            let mut record = [7; MIN_RECORD_LEN];
            record[..4].copy_from_slice(&(MIN_RECORD_LEN as i32).to_be_bytes());
            let stored = entry.append(QUEUE, 0, &metas, &record.repeat(3));
            stored.expect("three records");
        });
        replica.commit(2);
        let id = replica.group().id;
        replica.op(MetaOp::Locks(LockChange {
            group: id,
            queues: vec![LockedQueue {
                topic: 1,
                queue: 0,
                client: "c".into(),
            }],
            at_ms: 1,
        }));
        replica
    }

    fn entry(&mut self, fill: impl FnOnce(&mut EntryBuilder)) {
        let index = self.machine.applied.0 + 1;
        let mut entry = EntryBuilder::new(index, 1, 256);
        fill(&mut entry);
        let applied = self.machine.apply(&LogEntry {
            index,
            term: 1,
            kind: 0,
            data: Bytes::from(entry.finish()),
        });
        let ops = applied.expect("applies").rows;
        self.rows.write(&StateBatch { ops }).expect("written");
    }

    fn op(&mut self, op: MetaOp) {
        self.entry(|entry| entry.meta(&MetaCommand::from(op)));
    }

    fn commit(&mut self, offset: u64) {
        let group = self.group().id;
        self.op(MetaOp::CommitOffsets(CommitOffsets {
            group,
            offsets: vec![QueueOffset {
                topic: 1,
                queue: 0,
                offset,
            }],
            reset: false,
        }));
    }

    fn group(&self) -> GroupConfig {
        let found = self.machine.groups().find(|g| g.name == "g");
        found.expect("there").clone()
    }

    fn delete(&mut self) {
        let deleted = true;
        self.op(MetaOp::PutGroup(GroupConfig {
            deleted,
            ..self.group()
        }));
    }

    fn offset(&self) -> Option<u64> {
        self.machine.offset(self.group().id, QUEUE)
    }

    /// What a restart finds, and what a follower gets by a snapshot, is the same.
    fn assert_same_elsewhere(&self) {
        let loaded = load(&self.rows, SHARD, MachineOptions::default()).expect("loads");
        assert_eq!(loaded.describe(), self.machine.describe());
        // Replicas compare it, and one that was restarted makes it anew.
        assert_eq!(loaded.digest(), self.machine.digest());
        let of_rows = BaseOfRows::new(SHARD, self.machine.members.clone());
        let of_rows = of_rows.of(&self.rows).expect("rows").expect("a base");
        assert_eq!(of_rows.made_at, self.machine.applied.0);
        assert_eq!(of_rows.members, self.machine.members);
        for base in [self.machine.base(), of_rows.bytes] {
            let new = Machine::new(SHARD, MachineOptions::default());
            let (copy, _) = new
                .from_base(self.machine.applied, &Bytes::from(base))
                .expect("a base");
            assert_eq!(copy.describe(), self.machine.describe());
            assert_eq!(copy.digest(), self.machine.digest());
        }
    }
}

#[test]
fn a_group_made_again_goes_on_where_it_was() {
    for again in [MetaOp::PutGroup, MetaOp::EnsureGroup] {
        let mut replica = Replica::new();
        let before = replica.group();
        replica.delete();
        assert!(replica.group().deleted);
        assert_eq!(replica.machine.locks_of(before.id), []);
        replica.assert_same_elsewhere();
        // What was under way when it was deleted still counts, as on a replica that keeps it.
        replica.commit(3);
        replica.op(again(GroupConfig::with_defaults("g")));
        assert_eq!(replica.group(), before);
        assert_eq!(replica.offset(), Some(3));
        replica.assert_same_elsewhere();
    }
}

#[test]
fn what_is_kept_goes_with_the_topic_and_when_it_is_cleaned() {
    let mut replica = Replica::new();
    replica.delete();
    replica.op(MetaOp::DeleteTopic("t".into()));
    assert_eq!(replica.offset(), None);

    let mut replica = Replica::new();
    let before = replica.group();
    replica.delete();
    replica.op(MetaOp::DeleteGroup(DeleteGroup {
        name: "g".into(),
        clean_offsets: true,
    }));
    replica.assert_same_elsewhere();
    replica.op(MetaOp::EnsureGroup(GroupConfig::with_defaults("g")));
    assert_ne!(replica.group().id, before.id);
    assert_eq!(replica.offset(), None);
}

#[test]
fn entries_of_older_versions_mean_what_they_meant() {
    let mut replica = Replica::new();
    let before = replica.group();
    replica.op(MetaOp::DeleteGroup(DeleteGroup {
        name: "g".into(),
        clean_offsets: false,
    }));
    replica.op(MetaOp::PutGroup(GroupConfig::with_defaults("g")));
    assert_ne!(
        replica.group().id,
        before.id,
        "ids and offsets were dropped"
    );
    assert_eq!(replica.offset(), None);
}

#[test]
fn no_base_is_made_while_index_rows_are_made_for_another() {
    let made = |filling: bool| {
        let mut rows = BaseOfRows::new(SHARD, Members::default());
        let (key, value) = (keys::applied::key(SHARD), keys::applied::encode(7));
        rows.row(&key, &value).expect("a row");
        if filling {
            let (key, value) = (keys::base::key(SHARD), keys::applied::encode(9));
            rows.row(&key, &value).expect("a row");
        }
        rows.done().map(|base| base.made_at)
    };
    assert_eq!((made(false), made(true)), (Some(7), None));
}
