//! Bases for followers whose next entries are gone. They are made of the rows in the store, off this
//! thread: a large state takes long, and a leader that is silent so long is given up.

use super::*;
use crate::actors::shard::machine::Base;

/// Where a base is that a follower needs.
#[derive(Debug, Default)]
pub(super) struct BaseWanted {
    /// It was asked for and has not come.
    asked: bool,
    /// It came too early, or not at all: the next tick asks again.
    again: bool,
    /// The log index of the last trim or change of members that was applied here.
    not_before: u64,
}

impl BaseWanted {
    /// A trim, or a change of members, was applied at this log index.
    pub fn not_before(&mut self, index: u64) {
        self.not_before = index;
    }

    pub fn tick(&mut self) {
        if std::mem::take(&mut self.again) {
            self.asked = false;
        }
    }
}

impl ShardCore {
    /// Asks for a base when raft needs one.
    pub(super) fn ask_base(&mut self, out: &mut Vec<Effect>) {
        let wanted = self.raft.wants_snapshot() && !self.machine.is_filling();
        if wanted && !self.base.asked {
            self.base.asked = true;
            let members = self.machine.members.clone();
            out.push(Effect::Disk(DiskWork::Base { members }));
        }
    }

    /// A base was made of the rows, which may be behind what is applied.
    pub(super) fn take_base(&mut self, base: Option<Base>, out: &mut Vec<Effect>) {
        // Queues of an earlier state would begin with entries that are gone.
        let needed = self.base.not_before.max(self.raft.first_index() - 1);
        match base.filter(|base| base.made_at >= needed) {
            Some(base) => {
                self.base.asked = false;
                if self.raft.wants_snapshot() {
                    self.raft.offer_snapshot(&base.members, &base.bytes);
                    self.drive(out);
                }
            }
            None => self.base.again = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::three::Three;
    use super::*;
    use crate::model::topic::TopicConfig;
    use crate::raft::members::Members;

    #[test]
    fn a_base_that_is_too_old_is_asked_for_again_at_the_next_tick() {
        let mut three = Three::new();
        three.tick(60);
        let leader = three.leader().expect("one leads");
        for n in 0..5 {
            let epoch = three.cores[leader].epoch();
            let op = MetaOp::PutTopic(TopicConfig::new(format!("t{n}"), 1, 6));
            three.step(leader, ShardInput::Propose { id: 9, epoch, op });
            let now_ms = three.now_ms;
            three.step(leader, ShardInput::Flush { now_ms });
        }
        let core = &mut three.cores[leader];
        let now = core.machine.applied.0;
        let base = |made_at, members: &Members| {
            Some(Base {
                made_at,
                members: members.clone(),
                bytes: Vec::new(),
            })
        };
        let members = core.machine.members.clone();
        let mut out = Vec::new();
        // Made before a trim was applied; or none, because there was no room in the pool.
        core.base.not_before(now);
        for early in [base(now - 1, &members), None] {
            core.base.asked = true;
            core.take_base(early, &mut out);
            assert!(core.base.asked, "not at once");
            core.step(ShardInput::Tick { now_ms: 1 }, &mut out);
            assert!(!core.base.asked);
        }
        core.base.asked = true;
        core.take_base(base(now, &members), &mut out);
        assert!(!core.base.asked && !core.base.again);
    }

    #[test]
    fn a_base_of_before_the_last_change_of_members_is_not_given_on() {
        let mut three = Three::new();
        three.tick(60);
        let leader = three.leader().expect("one leads");
        let core = &three.cores[leader];
        let before = core.machine.applied.0;
        let old = core.machine.members.clone();
        let other = (leader as u64 + 1) % 3 + 1;
        let changes = vec![Change::Remove(other)];
        three.step(leader, ShardInput::Members { id: 9, changes });
        three.tick(2);
        let core = &mut three.cores[leader];
        assert_eq!(core.machine.members.voters.len(), 2);
        let now = core.machine.applied.0;
        let mut out = Vec::new();
        for (made_at, taken) in [(before, false), (now, true)] {
            core.base.asked = true;
            let base = Base {
                made_at,
                members: old.clone(),
                bytes: Vec::new(),
            };
            core.take_base(Some(base), &mut out);
            assert_eq!(core.base.asked, !taken, "{made_at}");
        }
    }

    #[test]
    fn a_leader_does_not_serve_before_the_rows_of_its_queues_are_made() {
        let mut three = Three::new();
        for core in &mut three.cores {
            core.filled = Some(FilledAt {
                index: u64::MAX,
                queues: Vec::new(),
            });
        }
        three.tick(60);
        assert!(three.cores.iter().any(|core| core.raft.is_leader()));
        assert_eq!(three.leader(), None);
        for core in &mut three.cores {
            core.filled = None;
        }
        three.tick(2);
        assert!(three.leader().is_some());
    }
}
