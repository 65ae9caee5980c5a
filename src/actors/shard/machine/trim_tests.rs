use super::super::MachineOptions;
use super::*;
use crate::model::append::RecordMeta;
use crate::model::command::{MetaCommand, MetaOp};
use crate::model::record::MIN_RECORD_LEN;
use crate::model::topic::TopicConfig;
use crate::model::ShardId;
use crate::raft::entry::EntryBuilder;
use crate::storage::{LogEntry, SimStateStore, StateBatch, StateStore};

const SHARD: ShardId = ShardId(1);

fn key(queue: u32) -> QueueKey {
    QueueKey::new(TopicId(1), queue)
}

/// A replica with segments of its own, and its rows.
struct Replica {
    machine: Machine,
    rows: SimStateStore,
    begins: u64,
}

impl Replica {
    fn new(segment_bytes: u64) -> Self {
        Self {
            machine: Machine::new(SHARD, MachineOptions { segment_bytes }),
            rows: SimStateStore::new(),
            begins: 1,
        }
    }

    fn apply(&mut self, entry: &LogEntry) {
        let applied = self.machine.apply(entry).expect("is applied");
        let batch = StateBatch { ops: applied.rows };
        self.rows.write(&batch).expect("is written");
        for event in applied.events {
            if let Event::Trimmed {
                cut: Some((first, _)),
                ..
            } = event
            {
                self.begins = first;
            }
        }
    }

    fn reloaded(&self) -> Machine {
        let options = MachineOptions {
            segment_bytes: self.machine.options.segment_bytes,
        };
        super::super::load(&self.rows, SHARD, options).expect("is loaded")
    }
}

struct Group {
    replicas: Vec<Replica>,
    next: u64,
    base: [u64; 3],
}

impl Group {
    fn new(segment_bytes: &[u64]) -> Self {
        let mut group = Self {
            replicas: segment_bytes.iter().map(|s| Replica::new(*s)).collect(),
            next: 1,
            base: [0; 3],
        };
        group.meta(MetaOp::PutTopic(TopicConfig {
            name: "t".into(),
            ..TopicConfig::default()
        }));
        group
    }

    fn commit(&mut self, entry: EntryBuilder) {
        let entry = LogEntry {
            index: self.next,
            term: 1,
            kind: 0,
            data: entry.finish().into(),
        };
        for replica in &mut self.replicas {
            replica.apply(&entry);
        }
        self.next += 1;
    }

    fn meta(&mut self, op: MetaOp) {
        let mut entry = EntryBuilder::new(self.next, 1_000, 64);
        entry.meta(&MetaCommand::from(op));
        self.commit(entry);
    }

    fn append(&mut self, queue: u32) {
        let mut record = vec![7; MIN_RECORD_LEN];
        record[..4].copy_from_slice(&(MIN_RECORD_LEN as i32).to_be_bytes());
        let metas = [RecordMeta {
            size: MIN_RECORD_LEN as u32,
            tag: 0,
        }];
        let mut entry = EntryBuilder::new(self.next, 1_000, 256);
        let base = &mut self.base[queue as usize];
        entry
            .append(key(queue), *base, &metas, &record)
            .expect("a record");
        *base += 1;
        self.commit(entry);
    }

    /// Retention as one of them sees it, which leads.
    fn retain(&mut self, leader: usize, bytes: u64) {
        let machine = &self.replicas[leader].machine;
        let Some(segment) = machine.droppable(0, bytes) else {
            return;
        };
        for trim in machine.trims(segment) {
            self.meta(MetaOp::Trim(trim));
        }
    }

    fn assert_same(&self) {
        let first = &self.replicas[0];
        for replica in &self.replicas {
            assert_eq!(replica.machine.describe(), first.machine.describe());
            assert_eq!(replica.machine.digest(), first.machine.digest());
            assert!(replica.machine.digest_is_right());
            assert_eq!(replica.begins, first.begins);
            let mut loaded = replica.reloaded();
            loaded.applied.1 = 1;
            assert_eq!(loaded.describe(), first.machine.describe());
            assert_eq!(loaded.segments(), replica.machine.segments());
            assert_eq!(loaded.segments()[0].1.first_index, first.begins);
        }
    }
}

#[test]
fn replicas_with_other_segments_begin_at_the_same_offsets() {
    let mut group = Group::new(&[400, 1_100, 3_700]);
    for n in 0..90u32 {
        group.append(n % 2);
    }
    // Whoever leads, and again and again.
    for (leader, bytes) in [(0, 9_000), (2, 7_000), (1, 5_000), (0, 4_000), (1, 2_000)] {
        group.retain(leader, bytes);
        group.assert_same();
        for n in 0..7u32 {
            group.append(2 * (n % 2));
        }
        group.assert_same();
    }
    let machine = &group.replicas[0].machine;
    assert!(machine.queue(key(0)).min > 30 && group.replicas[0].begins > 60);
    assert_eq!(machine.queue(key(1)).min, machine.queue(key(1)).next);
}

#[test]
fn entries_of_versions_that_name_a_segment_only_are_applied_as_they_were() {
    let mut group = Group::new(&[400, 400]);
    for _ in 0..20u32 {
        group.append(0);
    }
    let (segment, closed) = group.replicas[0].machine.segments()[2];
    group.meta(MetaOp::Trim(Trim {
        segment,
        ..Trim::default()
    }));
    group.assert_same();
    assert_eq!(group.replicas[0].begins, closed.last_index + 1);
    // Entry 1 made the topic.
    let min = group.replicas[0].machine.queue(key(0)).min;
    assert_eq!(min, closed.last_index - 1);
    // The same command in the form of today, as those versions read it: by its segment.
    group.append(0);
    let of_today = group.replicas[0].machine.trims(segment + 1);
    let [trim] = &of_today[..] else {
        panic!("{of_today:?}")
    };
    assert_eq!(trim.segment, segment + 1);
    assert_eq!(
        trim.first,
        group.replicas[0].machine.segments()[0].1.last_index + 1
    );
}

#[test]
fn what_waits_for_its_time_stays_on_all() {
    let mut group = Group::new(&[400, 900]);
    group.append(0);
    let mut entry = EntryBuilder::new(group.next, 1_000, 256);
    entry.schedule(1 << 40, key(0), 0, &[1; 100]);
    let waits = group.next;
    group.commit(entry);
    for _ in 0..20u32 {
        group.append(0);
    }
    let trim = Trim {
        first: waits + 1,
        term: 1,
        ..Trim::default()
    };
    group.meta(MetaOp::Trim(trim));
    group.assert_same();
    assert_eq!(group.replicas[0].begins, 1);
    let beyond = Trim {
        first: group.next + 1,
        ..Trim::default()
    };
    let mut entry = EntryBuilder::new(group.next, 1_000, 64);
    entry.meta(&MetaCommand::from(MetaOp::Trim(beyond)));
    let entry = LogEntry {
        index: group.next,
        term: 1,
        kind: 0,
        data: entry.finish().into(),
    };
    assert!(group.replicas[0].machine.apply(&entry).is_err());
}

#[test]
fn more_queues_than_one_command_names_come_in_several() {
    let mut machine = Machine::new(SHARD, MachineOptions::default());
    let closed = crate::storage::keys::log_segment::LogSegment {
        first_index: 1,
        last_index: 9,
        last_term: 4,
        closed: true,
        ..Default::default()
    };
    machine.segments.closed.insert(0, closed);
    let ends = machine.segments.ends.entry(0).or_default();
    let count = MAX_QUEUES as u32 + 7;
    for queue in 0..count {
        ends.insert(key(queue), 3);
        let meta = crate::storage::keys::queue::QueueMeta {
            next: 5,
            min: 0,
            segment: 0,
        };
        machine.queues.insert(key(queue), meta);
    }
    let trims = machine.trims(0);
    let bounds: Vec<_> = trims.iter().map(|t| (t.first, t.queues.len())).collect();
    assert_eq!(bounds, [(1, MAX_QUEUES), (10, 7)]);
    for (n, trim) in trims.into_iter().enumerate() {
        let mut out = Applied::default();
        machine.trim(20, trim, &mut out).expect("is applied");
        let cut = (n == 1).then_some((10, 4));
        assert!(matches!(&out.events[..], [Event::Trimmed { cut: found, .. }] if *found == cut));
    }
    assert!(machine.queues().all(|(_, meta)| meta.min == 3));
}
