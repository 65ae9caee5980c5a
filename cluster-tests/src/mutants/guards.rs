//! The guards. Add one beside its neighbours; `mutants --only TEXT` tries it.

use super::Guard;

/// See the module text.
pub const GUARDS: &[Guard] = &[
    Guard {
        file: "raft/core/ready.rs",
        find: "true => now.into_iter().chain(held).collect(),",
        replace: "true => {\n                    self.send(&now, out);\n                    held\n                }",
        what: "a sole voter says nothing before its term is on its disk",
    },
    Guard {
        file: "raft/core/ready.rs",
        find: "if self.is_leader() && !self.members.has_vote(self.options.node) {",
        replace: "if false {",
        what: "who has no vote any more does not lead",
    },
    Guard {
        file: "raft/core/receive.rs",
        find: "self.check_life(from, &head)?;",
        replace: "let _ = self.check_life(from, &head);",
        what: "messages of an earlier life are dropped",
    },
    Guard {
        file: "raft/core/receive.rs",
        find: "if self.recovering && message::asks_vote(kind) && !head.all {",
        replace: "if false {",
        what: "who may have lost entries gives no vote",
    },
    Guard {
        file: "raft/core/receive.rs",
        find: "if self.keeps_a_promise(&m, head.all) {",
        replace: "if false {",
        what: "no vote for a while after a start",
    },
    Guard {
        file: "raft/core/receive.rs",
        find: "MessageType::MsgHeartbeat => m.commit = m.commit.min(last),",
        replace: "MessageType::MsgHeartbeat => {}",
        what: "a leader's commit index is no more than what is here",
    },
    Guard {
        file: "raft/core/receive.rs",
        find: "if !stands && kind == MessageType::MsgTimeoutNow {",
        replace: "if false {",
        what: "who must not lead does not take leadership over",
    },
    Guard {
        file: "raft/core/receive.rs",
        find: "            && !later",
        replace: "",
        what: "who went on to a later term is let in",
    },
    Guard {
        file: "raft/core/election.rs",
        find: "if m.get_msg_type() != answers {",
        replace: "if false {",
        what: "a late answer from before an election is no vote",
    },
    Guard {
        file: "raft/core/election.rs",
        find: " && log.match_term(commit, term)",
        replace: "",
        what: "recovering ends with an entry of the leader's own term",
    },
    Guard {
        file: "raft/core/election.rs",
        find: "if leads || (holds && !self.forgotten) {",
        replace: "if leads || holds {",
        what: "who has forgotten recovers only once it is admitted",
    },
    Guard {
        file: "raft/core/election.rs",
        find: "            && self.installing.is_none()",
        replace: "",
        what: "nobody stands for election while a snapshot is installed",
    },
    Guard {
        file: "raft/core/promise.rs",
        find: "promise_ms.min(self.own_longest_ms()) * LEASE.0 / LEASE.1",
        replace: "promise_ms.min(self.own_longest_ms())",
        what: "a lease is shorter than the promises it rests on",
    },
    Guard {
        file: "raft/core/promise.rs",
        find: "self.promise.wait = match early > 0 && !all && !gone {",
        replace: "self.promise.wait = match false {",
        what: "who is elected by a broken promise waits",
    },
    Guard {
        file: "actors/shard/core.rs",
        find: "            && applied + 1 == self.raft.next_index()\n",
        replace: "",
        what: "a leader serves once it has applied its whole log",
    },
    Guard {
        file: "actors/shard/core.rs",
        find: "            && (self.raft.may_serve() || !waits)\n",
        replace: "",
        what: "a leader waits for the lease of the one before",
    },
    Guard {
        file: "actors/shard/core.rs",
        find: "            && self.filled.is_none();",
        replace: ";",
        what: "a leader serves once its queues can be read",
    },
    Guard {
        file: "actors/shard/core.rs",
        find: "ShardInput::Append(p) if p.epoch != self.epoch => {",
        replace: "ShardInput::Append(p) if false => {",
        what: "offsets of an earlier time of serving are refused",
    },
    Guard {
        file: "actors/shard/core.rs",
        find: "ShardInput::Propose { epoch, .. } if epoch != self.epoch => {",
        replace: "ShardInput::Propose { .. } if false => {",
        what: "commands of an earlier time of serving are refused",
    },
    Guard {
        file: "actors/shard/core/apply.rs",
        find: "if flight.index != entry.index || (flight.term != entry.term && !by_index) {",
        replace: "if flight.index != entry.index || by_index && false {",
        what: "an answer is for the entry of the same term",
    },
    Guard {
        file: "actors/shard/core/propose.rs",
        find: "now_ms.max(self.machine.last_at_ms).max(self.last_stamp_ms)",
        replace: "now_ms",
        what: "stamps do not go back",
    },
    Guard {
        file: "actors/shard/core/propose.rs",
        find: "            // Metadata is synced in every class (reliability §1 rule 1).\n            sync = true;",
        replace: "",
        what: "metadata is synced in every class",
    },
    Guard {
        file: "actors/shard/core/retention.rs",
        find: "if self.retention.holds(needed, self.ticks, longest) {",
        replace: "if self.retention.holds(needed, self.ticks, longest) && false {",
        what: "a trim waits for followers that need what it takes",
    },
    Guard {
        file: "actors/shard/machine/apply.rs",
        find: "let ahead = o.offset > self.queue(key).next;",
        replace: "let ahead = false;",
        what: "an offset is not ahead of its queue",
    },
    Guard {
        file: "actors/shard/machine/apply.rs",
        find: "(backwards && !commit.reset)",
        replace: "(backwards && false)",
        what: "an offset goes back by a reset only",
    },
    Guard {
        file: "actors/shard/machine/trim.rs",
        find: "if trim.first > self.floor() {",
        replace: "if false {",
        what: "the record of a waiting timer stays",
    },
    Guard {
        file: "actors/shard/machine/base.rs",
        find: "known.is_some_and(|meta| block.base >= meta.min && end <= meta.next)",
        replace: "known.is_some_and(|meta| end <= meta.next)",
        what: "no index row is made of a trimmed record",
    },
    Guard {
        file: "actors/queue/core.rs",
        find: "QueueInput::Abandoned { epoch, why } if epoch == self.epoch => self.close(why, out),",
        replace: "QueueInput::Abandoned { why, .. } => self.close(why, out),",
        what: "a queue is closed by its own time of serving",
    },
    Guard {
        file: "actors/queue/core.rs",
        find: "if request.offset < self.visible || self.closed.is_some() || self",
        replace: "if self.closed.is_some() || self",
        what: "a pull that came late is woken at once",
    },
    Guard {
        file: "actors/timer/core.rs",
        find: "if !self.serving || self.firing.get(&timer) != Some(&None) {",
        replace: "if !self.serving {",
        what: "a record that is read twice fires once",
    },
    Guard {
        file: "actors/clock/core.rs",
        find: "let believed = within(self.own, right, self.limit());",
        replace: "let believed = true;",
        what: "a clock that most others contradict is not believed",
    },
    Guard {
        file: "actors/shard/core/mend.rs",
        find: "ASK if index <= self.machine.applied.0 => {",
        replace: "ASK => {",
        what: "only what is committed is given to others as a good copy",
    },
];
