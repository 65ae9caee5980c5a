use super::*;
use crate::actors::shard::machine::MachineOptions;
use crate::model::append::RecordMeta;
use crate::model::policy::AckPolicy;
use crate::model::record::MIN_RECORD_LEN;
use crate::model::topic::TopicConfig;
use crate::model::{ShardId, TopicId};
use crate::raft::entry::{self, Command};
use crate::raft::{RaftOptions, RaftStart};

const SHARD: ShardId = ShardId(1);
const KEY: QueueKey = QueueKey {
    topic: TopicId(1),
    queue: 0,
};

/// A shard whose log writes end when the test says so.
pub(super) struct Rig {
    pub(super) core: ShardCore,
    pub(super) out: Vec<Effect>,
}

impl Rig {
    /// A shard that serves and holds topic 1.
    pub(super) fn new() -> Self {
        let raft_options = RaftOptions {
            quiet: true,
            ..RaftOptions::single(1, 1)
        };
        let raft = RaftCore::new(raft_options, RaftStart::default()).unwrap();
        let options = ShardOptions {
            shard: SHARD,
            max_entry_bytes: 1 << 20,
            max_open_writes: 2,
            retention_ms: 1 << 40,
            retention_bytes: 0,
            patience: Patience::default(),
            digest_every: 16,
            quotas: Quotas::default(),
            defect: None,
        };
        let machine = Machine::new(SHARD, MachineOptions::default());
        let mut rig = Rig {
            core: ShardCore::new(options, raft, machine),
            out: Vec::new(),
        };
        rig.core.start(&mut rig.out);
        rig.write_all();
        let op = MetaOp::PutTopic(TopicConfig {
            name: "t".into(),
            read_queues: 1,
            write_queues: 1,
            perm: 6,
            ..TopicConfig::default()
        });
        rig.step(ShardInput::Propose {
            id: 1,
            epoch: 1,
            op,
        });
        rig.step(ShardInput::Flush { now_ms: 10 });
        rig.write_all();
        assert!(rig.core.machine().has_topic(1) && rig.core.serving().is_some());
        rig.out.clear();
        rig
    }

    pub(super) fn step(&mut self, input: ShardInput) {
        self.core.step(input, &mut self.out);
    }

    /// Log writes asked for: ticket and append.
    fn appends(&self) -> Vec<(u64, LogAppend)> {
        let found = self.out.iter().filter_map(|effect| match effect {
            Effect::Disk(DiskWork::Append { ticket, append }) => Some((*ticket, append.clone())),
            _ => None,
        });
        found.collect()
    }

    /// Ends every log write asked for.
    pub(super) fn write_all(&mut self) {
        for (ticket, _) in self.appends() {
            self.step(ShardInput::AppendDone { ticket });
        }
    }

    fn append(&mut self, base: u64, records: Vec<u8>) {
        let proposal = AppendProposal {
            key: KEY,
            epoch: self.core.epoch(),
            base,
            metas: vec![RecordMeta {
                size: records.len() as u32,
                tag: 0,
            }],
            records,
            sync: false,
            early: false,
            fired: vec![],
        };
        self.step(ShardInput::Append(proposal));
    }
}

fn record() -> Vec<u8> {
    record_of(MIN_RECORD_LEN)
}

fn record_of(len: usize) -> Vec<u8> {
    let mut record = vec![7; len];
    record[..4].copy_from_slice(&(len as i32).to_be_bytes());
    record
}

#[test]
fn stamps_do_not_go_back_while_a_write_is_under_way() {
    let mut rig = Rig::new();
    for (base, now_ms) in [(0, 1_000), (1, 500)] {
        rig.append(base, record());
        rig.step(ShardInput::Flush { now_ms });
    }
    let stamps: Vec<i64> = rig
        .appends()
        .iter()
        .flat_map(|(_, append)| &append.entries)
        .map(|e| entry::decode(e.index, &e.data).unwrap().at_ms)
        .collect();
    assert_eq!(stamps, [1_000, 1_000]);
}

/// More appends wait than go into an entry, again and again.
#[test]
fn commands_and_delayed_messages_do_not_wait_for_appends_to_end() {
    let mut rig = Rig::new();
    rig.core.options.max_entry_bytes = 2 * record().len();
    for base in 0..12 {
        rig.append(base, record());
    }
    for slot in [1, 2] {
        rig.step(ShardInput::Schedule(Schedule {
            token: Token { sink: 1, slot },
            policy: AckPolicy::STRICTEST,
            due_ms: 1_000,
            target: KEY,
            tag: 0,
            record: record(),
            again: false,
        }));
        let (id, epoch) = (slot, rig.core.epoch());
        let op = MetaOp::PutTopic(TopicConfig::new(format!("t{slot}"), 1, 6));
        rig.step(ShardInput::Propose { id, epoch, op });
    }
    rig.step(ShardInput::Flush { now_ms: 20 });
    let entries: Vec<_> = rig
        .appends()
        .into_iter()
        .flat_map(|(_, a)| a.entries)
        .collect();
    assert_eq!(entries.len(), 2, "as many as may be open");
    for e in &entries {
        let found = entry::decode(e.index, &e.data).unwrap().commands;
        let of = |which: fn(&Command) -> bool| found.iter().filter(|c| which(c)).count();
        assert_eq!(of(|c| matches!(c, Command::Append(_))), 1);
        assert_eq!(of(|c| matches!(c, Command::Schedule { .. })), 1);
        assert_eq!(of(|c| matches!(c, Command::Meta(_))), 1);
    }
}

/// Links between nodes carry no longer ones: the entry could never be committed.
#[test]
fn no_entry_is_longer_than_what_other_nodes_take() {
    let mut rig = Rig::new();
    let long = 15 << 20;
    for (base, slot) in [(0, 1), (1, 2)] {
        rig.append(base, record_of(long));
        rig.step(ShardInput::Schedule(Schedule {
            token: Token { sink: 1, slot },
            policy: AckPolicy::STRICTEST,
            due_ms: 1_000,
            target: KEY,
            tag: 0,
            record: record_of(long),
            again: false,
        }));
    }
    rig.step(ShardInput::Flush { now_ms: 20 });
    let entries: Vec<_> = rig
        .appends()
        .into_iter()
        .flat_map(|(_, a)| a.entries)
        .collect();
    assert!(!entries.is_empty());
    assert!(entries.iter().all(|e| e.data.len() < MAX_ENTRY_BYTES));
}

#[test]
fn what_is_no_record_stops_the_shard_and_stays_out_of_the_log() {
    let mut rig = Rig::new();
    rig.append(0, vec![1, 2, 3]);
    rig.step(ShardInput::Flush { now_ms: 20 });
    assert!(rig.core.failed().is_some());
    assert!(rig.appends().is_empty());
    assert_eq!(
        rig.core.raft().next_index(),
        rig.core.machine().applied.0 + 1
    );
}

#[test]
fn a_small_record_does_not_keep_a_large_entry_in_memory() {
    for (delayed, detached) in [(0, false), (100_000, true)] {
        let mut rig = Rig::new();
        rig.append(0, record());
        rig.step(ShardInput::Schedule(Schedule {
            token: Token::NONE,
            policy: AckPolicy::STRICTEST,
            due_ms: 99,
            target: KEY,
            tag: 0,
            record: vec![0; delayed],
            again: false,
        }));
        rig.step(ShardInput::Flush { now_ms: 20 });
        let append = rig.appends().pop().unwrap().1;
        rig.write_all();
        let published = rig.out.iter().find_map(|effect| match effect {
            Effect::Publish(Publish::Appended { block, data, .. }) => Some((block, data)),
            _ => None,
        });
        let (block, data) = published.unwrap();
        assert_eq!(data.len() == MIN_RECORD_LEN, detached);
        let at = block.records_at as usize;
        let stored = &append.entries[0];
        let Command::Append(own) = &entry::decode(stored.index, &stored.data).unwrap().commands[0]
        else {
            panic!("the append comes first");
        };
        let from = own.records_at as usize;
        assert_eq!(
            data[at..at + MIN_RECORD_LEN],
            stored.data[from..from + MIN_RECORD_LEN]
        );
    }
}

#[test]
fn retention_goes_on_after_the_clock_went_back() {
    let mut rig = Rig::new();
    rig.step(ShardInput::Tick { now_ms: 1 << 41 });
    assert_eq!(rig.core.retention.last_ms, 1 << 41);
    rig.step(ShardInput::Tick { now_ms: 5_000 });
    assert_eq!(rig.core.retention.last_ms, 5_000);
    rig.step(ShardInput::Tick { now_ms: 9_000 });
    assert_eq!(rig.core.retention.last_ms, 5_000);
}

#[test]
fn who_waits_for_too_long_is_told_what_is_missing_and_only_once() {
    let mut rig = Rig::new();
    rig.core.options.patience = Patience {
        flush: 3,
        replicas: 0,
    };
    rig.append(0, record());
    rig.step(ShardInput::Schedule(Schedule {
        token: Token { sink: 1, slot: 9 },
        policy: AckPolicy::STRICTEST,
        due_ms: 99,
        target: KEY,
        tag: 0,
        record: vec![0; 20],
        again: false,
    }));
    rig.step(ShardInput::Flush { now_ms: 20 });
    let late = |rig: &Rig| {
        let told = rig.out.iter().filter(|effect| {
            matches!(
                effect,
                Effect::ToQueue(
                    KEY,
                    QueueInput::Late {
                        why: Late::Flush,
                        base: 0,
                        count: 1,
                        ..
                    }
                ) | Effect::Answer(
                    Token { sink: 1, slot: 9 },
                    Outcome::Late {
                        why: Late::Flush,
                        ..
                    }
                )
            )
        });
        told.count()
    };
    for _ in 0..2 {
        rig.step(ShardInput::Tick { now_ms: 20 });
    }
    assert_eq!(late(&rig), 0);
    for _ in 0..9 {
        rig.step(ShardInput::Tick { now_ms: 20 });
    }
    assert_eq!(late(&rig), 2);
    rig.out.clear();
    let ticket = rig.core.writes.back().unwrap().0;
    rig.step(ShardInput::AppendDone { ticket });
    let answered = |e: &Effect| matches!(e, Effect::Answer(Token { slot: 9, .. }, _));
    assert!(!rig.out.iter().any(answered), "it has its answer");
    let reached = |e: &Effect| matches!(e, Effect::ToQueue(KEY, QueueInput::Reached { stage, .. }) if *stage == Stage::Committed);
    assert!(rig.out.iter().any(reached), "the record becomes visible");
}

#[test]
fn a_command_of_an_earlier_time_of_serving_is_refused() {
    let mut rig = Rig::new();
    let op = || {
        MetaOp::PutTopic(TopicConfig {
            name: "late".into(),
            ..TopicConfig::default()
        })
    };
    let now = rig.core.epoch();
    for (id, epoch) in [(5, now - 1), (6, now)] {
        let op = op();
        rig.step(ShardInput::Propose { id, epoch, op });
    }
    rig.step(ShardInput::Flush { now_ms: 20 });
    rig.write_all();
    let answers = rig.out.iter().filter_map(|effect| match effect {
        Effect::Proposal { id, result } => Some((*id, result.is_ok())),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [(5, false), (6, true)]);
}

#[test]
fn who_was_answered_by_the_leader_alone_is_not_answered_again_when_it_leads_no_more() {
    let mut three = three::Three::new();
    three.tick(40);
    let old = three.leader().expect("one leads");
    three.cut = Some(old);
    let token = Token { sink: 1, slot: 7 };
    let delayed = Schedule {
        token,
        policy: AckPolicy::LEADER_APPENDED,
        due_ms: 1_000,
        target: KEY,
        tag: 0,
        record: record(),
        again: false,
    };
    three.step(old, ShardInput::Schedule(delayed));
    let now_ms = three.now_ms;
    three.step(old, ShardInput::Flush { now_ms });
    three.tick(40);
    assert!(three.cores[old].serving().is_none());
    let [(answered, Outcome::Scheduled { .. })] = three.answers[..] else {
        panic!("{:?}", three.answers);
    };
    assert_eq!(answered, token);
}
