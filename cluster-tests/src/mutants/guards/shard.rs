//! Guards of `actors/shard/core`.

use super::Guard;

const CORE: &str = "actors/shard/core.rs";
const APPLY: &str = "actors/shard/core/apply.rs";
const BASE: &str = "actors/shard/core/base.rs";
const MEND: &str = "actors/shard/core/mend.rs";
const PROPOSE: &str = "actors/shard/core/propose.rs";

/// See the module text.
pub const GUARDS: &[Guard] = &[
    Guard::new(
        CORE,
        "a leader serves once it has applied its whole log",
        "            && applied + 1 == self.raft.next_index()\n",
        "            && (applied + 1 == self.raft.next_index() || {out})\n",
    )
    .backed_by(&["a leader serves once an entry of its term is applied"]),
    Guard::new(
        CORE,
        "a leader serves once an entry of its term is applied",
        "            && term == self.raft.term()\n",
        "            && (term == self.raft.term() || {out})\n",
    )
    .backed_by(&["a leader serves once it has applied its whole log"]),
    Guard::new(
        CORE,
        "a leader waits for the lease of the one before",
        "            && (self.raft.may_serve() || !waits)\n",
        "            && (self.raft.may_serve() || !waits || {out})\n",
    ),
    Guard::new(
        CORE,
        "a leader serves once its state is filled",
        "            && !self.machine.is_filling()\n",
        "            && (!self.machine.is_filling() || {out})\n",
    )
    .backed_by(&[
        "a leader serves once it has applied its whole log",
        "a leader serves once an entry of its term is applied",
    ]),
    Guard::new(
        CORE,
        "a leader serves once its queues can be read",
        "            && self.filled.is_none();",
        "            && (self.filled.is_none() || {out});",
    ),
    Guard::new(
        CORE,
        "who does not serve takes nothing in",
        "if self.serving.is_none() =>",
        "if self.serving.is_none() && !{out} =>",
    ),
    Guard::new(
        CORE,
        "offsets of an earlier time of serving are refused",
        "ShardInput::Append(p) if p.epoch != self.epoch => {",
        "ShardInput::Append(p) if p.epoch != self.epoch && !{out} => {",
    ),
    Guard::new(
        CORE,
        "commands of an earlier time of serving are refused",
        "ShardInput::Propose { epoch, .. } if epoch != self.epoch => {",
        "ShardInput::Propose { epoch, .. } if epoch != self.epoch && !{out} => {",
    ),
    Guard::new(
        CORE,
        "what no leader can take any more is not proposed",
        "            && self.raft.has_room()\n",
        "            && (self.raft.has_room() || {out})\n",
    )
    .backed_by(&["offsets given out go when their entry is refused"]),
    Guard::new(
        CORE,
        "who leads no more serves no more",
        "if !matches!(role, Role::Leader { term } if self.serving == Some(term)) {",
        "if !matches!(role, Role::Leader { term } if self.serving == Some(term)) && !{out} {",
    ),
    Guard::new(
        CORE,
        "a new term or vote is synced",
        "let sync = work.must_sync || work.entries.iter().any(wants);",
        "let sync = work.must_sync && !{out} || work.entries.iter().any(wants);",
    ),
    Guard::new(
        CORE,
        "an entry that asks for it is synced by every replica",
        "let wants = |e: &LogEntry| entry::wants_sync(e.kind, &e.data);",
        "let wants = |e: &LogEntry| entry::wants_sync(e.kind, &e.data) && !{out};",
    ),
    Guard::new(
        CORE,
        "a log write that is done stands for itself and those before",
        "while self.writes.front().is_some_and(|(t, _)| *t <= ticket) {",
        "while self.writes.front().is_some_and(|(t, _)| *t <= ticket || {out}) {",
    ),
    Guard::new(
        CORE,
        "who waits for the leader alone is answered once it has written",
        "if flight.index <= written && flight.term == term",
        "if (flight.index <= written || {out}) && flight.term == term",
    ),
    Guard::new(
        CORE,
        "what may be in the log is not answered as if nothing had happened",
        "self.abandon(flight, Refusal::Indeterminate, out);",
        "let unsure = match {out} {
                true => why.clone(),
                false => Refusal::Indeterminate,
            };
            self.abandon(flight, unsure, out);",
    ),
    Guard::new(
        CORE,
        "who hands over takes no lease",
        "if let (Some((stamp, lease_ms)), false) = (ready.confirmed, self.raft.is_transferring())",
        "if let (Some((stamp, lease_ms)), false) =
                (ready.confirmed, self.raft.is_transferring() && !{out})",
    )
    .backed_by(&[
        "who hands over asks for no lease",
        "who was handed the lead waits until the leader before has stepped down",
    ]),
    Guard::new(
        APPLY,
        "an answer is for the entry of the same term",
        "(flight.term != entry.term && !by_index) {",
        "(flight.term != entry.term && !by_index && !{out}) {",
    )
    .backed_by(&["who leads no more serves no more"]),
    Guard::new(
        APPLY,
        "members change by no entry that the snapshot's have taken in",
        "if entry.kind != 0 && (!filling || anyway) {",
        "if entry.kind != 0 && (!filling || anyway || {out}) {",
    ),
    Guard::new(
        APPLY,
        "the log is cut behind the rows that say where queues begin",
        "self.trim_to = Some((first, term));",
        "if {out} {
                        out.push(Effect::Disk(DiskWork::Trim { first, term }));
                    } else {
                        self.trim_to = Some((first, term));
                    }",
    ),
    Guard::new(
        APPLY,
        "what was answered for alone and is lost is told",
        ".filter(|e| entry::was_early(e.kind, &e.data))",
        ".filter(|e| entry::was_early(e.kind, &e.data) && !{out})",
    ),
    Guard::new(
        BASE,
        "a base is no older than the last trim and change of members",
        "base.filter(|base| base.made_at >= needed)",
        "base.filter(|base| base.made_at >= needed || {out})",
    ),
    Guard::new(
        APPLY,
        "a base's members are the newest",
        "self.base.not_before(entry.index);
            if let Err(why)",
        "if !{out} {
                self.base.not_before(entry.index);
            }
            if let Err(why)",
    ),
    Guard::new(
        MEND,
        "only what is committed is given to others as a good copy",
        "ASK if index <= self.machine.applied.0 => {",
        "ASK if index <= self.machine.applied.0 || {out} => {",
    )
    .unnoticed("Unit test: `only_what_is_applied_here_is_given_or_sought_and_nonsense_is_refused`."),
    Guard::new(
        PROPOSE,
        "stamps do not go back",
        "now_ms.max(self.machine.last_at_ms).max(self.last_stamp_ms)",
        "match {out} {
            true => now_ms,
            false => now_ms.max(self.machine.last_at_ms).max(self.last_stamp_ms),
        }",
    ),
    Guard::new(
        PROPOSE,
        "metadata is synced in every class",
        "            sync = true;\n            entry.meta(",
        "            sync |= !{out};\n            entry.meta(",
    ),
    Guard::new(
        PROPOSE,
        "a delayed message is synced as its class says",
        "sync |= rule.sync;",
        "sync |= rule.sync && !{out};",
    ),
    Guard::new(
        PROPOSE,
        "a block of several proposals is synced if one of them asks for it",
        "block.sync |= next.sync;",
        "block.sync |= next.sync && !{out};",
    ),
    Guard::new(
        PROPOSE,
        "an entry that is answered for alone says so",
        "if flight.blocks.iter().any(|b| b.early) || flight.schedules.iter().any(early) {",
        "if (flight.blocks.iter().any(|b| b.early) || flight.schedules.iter().any(early)) && !{out} {",
    ),
    Guard::new(
        PROPOSE,
        "offsets given out go when their entry is refused",
        "Ok(_) | Err(_) => {
                self.stop_serving(out);",
        "Ok(_) | Err(_) => {
                if !{out} {
                    self.stop_serving(out);
                }",
    )
    .backed_by(&["what no leader can take any more is not proposed"]),
    Guard::new(
        "actors/shard/core/other_log.rs",
        "who forgets its log has nothing committed",
        "commit: 0,",
        "commit: match {out} {
                true => self.raft.hard_state().commit,
                false => 0,
            },",
    ),
    Guard::new(
        "actors/shard/core/late.rs",
        "a delayed message is told once that it is late",
        "*token = Token::NONE;",
        "if !{out} {
                        *token = Token::NONE;
                    }",
    ),
];
