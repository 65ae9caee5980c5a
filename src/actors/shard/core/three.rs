//! Three replicas of a shard for tests.

use super::*;
use crate::actors::shard::machine::MachineOptions;
use crate::model::ShardId;
use crate::raft::members::Members;
use crate::raft::{RaftOptions, RaftStart};

/// Three replicas, messages at once, and one whose disk may hang.
pub(super) struct Three {
    pub cores: Vec<ShardCore>,
    pub hangs: Option<usize>,
    /// No message comes to this one, or from it.
    pub cut: Option<usize>,
    /// What clients were told.
    pub answers: Vec<(Token, Outcome)>,
    pub now_ms: i64,
    /// The last result of each that compared states.
    pub compared: BTreeMap<usize, Comparison>,
}

impl Three {
    pub fn new() -> Self {
        let core = |node: u64| {
            let raft = RaftOptions {
                quiet: true,
                ..RaftOptions::group(node, vec![1, 2, 3], node)
            };
            let options = ShardOptions {
                shard: ShardId(1),
                max_entry_bytes: 1 << 20,
                max_open_writes: 2,
                retention_ms: 1 << 40,
                retention_bytes: 0,
                patience: Patience::default(),
                digest_every: 16,
                quotas: Quotas::default(),
                defect: None,
            };
            let raft = RaftCore::new(raft, RaftStart::default()).unwrap();
            let mut machine = Machine::new(ShardId(1), MachineOptions::default());
            machine.members = Members::of(vec![1, 2, 3]);
            ShardCore::new(options, raft, machine)
        };
        Self {
            cores: (1..=3).map(core).collect(),
            hangs: None,
            cut: None,
            answers: Vec::new(),
            now_ms: 0,
            compared: BTreeMap::new(),
        }
    }

    pub fn step(&mut self, at: usize, input: ShardInput) {
        let mut todo = VecDeque::from([(at, input)]);
        while let Some((at, input)) = todo.pop_front() {
            let mut out = Vec::new();
            self.cores[at].step(input, &mut out);
            for effect in out {
                match effect {
                    Effect::Send { to, .. }
                        if self.cut.is_some_and(|c| [at, to as usize - 1].contains(&c)) => {}
                    Effect::Answer(token, outcome) => self.answers.push((token, outcome)),
                    Effect::Send { to, bytes } => {
                        let from = at as u64 + 1;
                        todo.push_back((to as usize - 1, ShardInput::Message { from, bytes }));
                    }
                    Effect::ToShard(input) => todo.push_back((at, input)),
                    // Nodes tell each other of their states.
                    Effect::Publish(Publish::Digest { index, digest }) => {
                        let others = (0..3).filter(|to| *to != at);
                        let (from, digests) = (at as u64 + 1, vec![(index, digest)]);
                        todo.extend(others.map(|to| {
                            let digests = digests.clone();
                            (to, ShardInput::Digests { from, digests })
                        }));
                    }
                    Effect::Publish(Publish::Compared(now)) => {
                        self.compared.insert(at, now);
                    }
                    Effect::Disk(DiskWork::Append { ticket, .. }) if self.hangs != Some(at) => {
                        todo.push_back((at, ShardInput::AppendDone { ticket }));
                    }
                    Effect::Disk(DiskWork::State { applied, .. }) if self.hangs != Some(at) => {
                        todo.push_back((at, ShardInput::StateDone { applied }));
                    }
                    _ => {}
                }
            }
        }
    }

    pub fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now_ms += 100;
            for at in 0..3 {
                self.step(
                    at,
                    ShardInput::Tick {
                        now_ms: self.now_ms,
                    },
                );
            }
        }
    }

    pub fn leader(&self) -> Option<usize> {
        (0..3).find(|at| self.cores[*at].serving().is_some())
    }
}
