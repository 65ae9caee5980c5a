//! The shard as a pure state machine: collects what its queues propose into one entry a wake,
//! drives raft, applies what is committed and says what each step makes visible. Nothing here
//! touches a disk, a clock or a socket.
//!
//! Crash points. Before a log write is done nothing of it was answered. Between done and applied
//! rows written, the answer may be out and the rows are rebuilt from the log. Rows never get ahead
//! of the log, because an entry is applied only after its own write was done here.

mod apply;
mod base;
mod digests;
mod late;
mod members;
mod mend;
mod other_log;
mod propose;
mod quota;
mod retention;
mod stall;
#[cfg(test)]
mod three;
mod types;

pub use digests::Comparison;
pub use quota::Quotas;
pub use types::*;

use super::machine::{Event, Machine};
use crate::actors::effect::{DiskWork, Effect, Publish};
use crate::actors::queue::core::QueueInput;
use crate::actors::timer::core::TimerInput;
use crate::model::command::{MetaCommand, MetaOp};
use crate::model::outcome::{Late, Outcome, Refusal, Token};
use crate::model::{GroupId, Position, QueueKey};
use crate::raft::ack::{self, Stage};
use crate::raft::entry::{self, AppendBlock, EntryBuilder, TimerKey};
use crate::raft::members::{Change, MemberError};
use crate::raft::{staged, MessageError, RaftCore, RaftOutput, Role, Snapshot, MAX_ENTRY_BYTES};
use crate::storage::{HardState, LogAppend, LogEntry, StateBatch};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A record or command of an entry that somebody waits for.
#[derive(Debug)]
struct Block {
    key: QueueKey,
    base: u64,
    first: Position,
    tags: Vec<i32>,
    early: bool,
}

/// What waits for an entry, keyed by index and term.
#[derive(Debug)]
struct InFlight {
    index: u64,
    term: u64,
    /// Serving epoch of the queues whose records it holds.
    epoch: u64,
    blocks: Vec<Block>,
    schedules: Vec<(Token, Position, Stage)>,
    proposals: Vec<u64>,
    /// Those who wait for the leader's own append have been answered.
    early_done: bool,
    /// The tick in which it entered the log.
    since: u64,
    /// Those who wait were told that it takes too long.
    late: bool,
}

/// See [`ShardCore::filled`].
struct FilledAt {
    index: u64,
    queues: Vec<(QueueKey, u64, u64)>,
}

/// See the module text.
pub struct ShardCore {
    options: ShardOptions,
    raft: RaftCore,
    machine: Machine,
    /// Term in which this replica serves.
    serving: Option<u64>,
    /// The replica began as one that may have lost entries, and nobody was told yet that it has
    /// them again.
    recovering: bool,
    /// Counts the times it began to: within one term it may stop and begin again.
    epoch: u64,
    failed: Option<String>,
    /// Log index at which the last row of a snapshot's state was made, and the queues then: told
    /// once that row can be read, and what became visible since after it.
    filled: Option<FilledAt>,
    later: Vec<Publish>,
    appends: VecDeque<AppendProposal>,
    schedules: VecDeque<Schedule>,
    proposals: VecDeque<(u64, MetaOp)>,
    under_way: quota::UnderWay,
    orphans: Vec<TimerKey>,
    in_flight: VecDeque<InFlight>,
    /// Ticket and raft number of log writes under way, oldest first.
    writes: VecDeque<(u64, u64)>,
    oldest_write: stall::OldestWrite,
    /// Messages of other nodes that were not taken in, and why the last one was not.
    refused_messages: (u64, Option<MessageError>),
    mend: mend::Mend,
    base: base::BaseWanted,
    next_ticket: u64,
    ticks: u64,
    trimming: bool,
    /// First index of the log and term before it, to be carried out behind the rows that say so.
    trim_to: Option<(u64, u64)>,
    retention: retention::Retention,
    digests: digests::Digests,
    /// Stamp of the newest entry proposed: the clock may go back before it is applied.
    last_stamp_ms: i64,
}

impl ShardCore {
    /// A shard whose machine and raft were restored from the same store.
    pub fn new(options: ShardOptions, raft: RaftCore, machine: Machine) -> Self {
        Self {
            recovering: raft.is_marked(),
            options,
            raft,
            machine,
            serving: None,
            epoch: 0,
            failed: None,
            filled: None,
            later: Vec::new(),
            appends: VecDeque::new(),
            schedules: VecDeque::new(),
            proposals: VecDeque::new(),
            under_way: quota::UnderWay::default(),
            orphans: Vec::new(),
            in_flight: VecDeque::new(),
            writes: VecDeque::new(),
            oldest_write: stall::OldestWrite::default(),
            refused_messages: (0, None),
            mend: mend::Mend::default(),
            base: base::BaseWanted::default(),
            next_ticket: 1,
            ticks: 0,
            trimming: false,
            trim_to: None,
            retention: retention::Retention::default(),
            digests: digests::Digests::default(),
            last_stamp_ms: 0,
        }
    }

    /// The replicated state as applied here.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
    /// Raft's view, for metrics.
    pub fn raft(&self) -> &RaftCore {
        &self.raft
    }
    /// The term in which this replica serves.
    pub fn serving(&self) -> Option<u64> {
        self.serving
    }
    /// Messages of other nodes that were not taken in, and why the last one was not.
    pub fn refused_messages(&self) -> &(u64, Option<MessageError>) {
        &self.refused_messages
    }
    /// Counts the times this replica began to serve; queue cores belong to one of them.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Why the shard stopped for good.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }
    /// Log writes under way.
    pub fn open_writes(&self) -> usize {
        self.writes.len()
    }
    /// Something waits for [`ShardInput::Flush`].
    pub fn wants_flush(&self) -> bool {
        !(self.appends.is_empty()
            && self.schedules.is_empty()
            && self.proposals.is_empty()
            && self.orphans.is_empty())
            && self.writes.len() < self.options.max_open_writes
            && self.raft.has_room()
    }

    /// Begins: a single voter stands for election at once.
    pub fn start(&mut self, out: &mut Vec<Effect>) {
        if self.raft.is_sole_voter() {
            self.raft.campaign();
        }
        self.drive(out);
    }

    /// Takes one event.
    pub fn step(&mut self, input: ShardInput, out: &mut Vec<Effect>) {
        if self.failed.is_some() {
            return self.refuse(input, &Refusal::Unavailable("storage failed"), out);
        }
        match input {
            ShardInput::Append(_)
            | ShardInput::Schedule(_)
            | ShardInput::Propose { .. }
            | ShardInput::Members { .. }
                if self.serving.is_none() =>
            {
                self.refuse(input, &Refusal::NotLeader, out)
            }
            ShardInput::Append(p) if p.epoch != self.epoch => {
                self.refuse(ShardInput::Append(p), &Refusal::NotLeader, out)
            }
            ShardInput::Append(p) => self.appends.push_back(p),
            ShardInput::Schedule(s) => self.take_delayed(s, out),
            ShardInput::Propose { epoch, .. } if epoch != self.epoch => {
                self.refuse(input, &Refusal::NotLeader, out)
            }
            // (planted)
            ShardInput::Propose { id, op, .. }
                if self.options.defect.is_some_and(|d| d.drops(id, &op)) =>
            {
                let result = Ok(self.machine.applied.0);
                out.push(Effect::Proposal { id, result });
            }
            ShardInput::Propose { id, op, .. } => {
                let op = match self.options.defect {
                    Some(defect) => defect.spoil(op),
                    None => op,
                };
                self.take_command(id, op, out)
            }
            ShardInput::Orphans(timers) => self.orphans.extend(timers),
            ShardInput::Flush { now_ms } => self.flush(now_ms, out),
            ShardInput::AppendDone { ticket } => self.append_done(ticket, out),
            ShardInput::StateDone { applied } => {
                out.push(Effect::Publish(Publish::Stored { index: applied }));
                self.tell_filled(applied, out);
            }
            ShardInput::DiskFailed(why) => {
                self.fail(why, out);
            }
            ShardInput::Tick { now_ms } => self.tick(now_ms, out),
            ShardInput::Slept => self.raft.slept(),
            ShardInput::Unheard => self.raft.unheard(),
            ShardInput::Base(base) => self.take_base(base, out),
            ShardInput::BadEntry { index } => self.bad_entry(index, out),
            ShardInput::Copied { to, index, entry } => self.copied(to, index, entry.as_ref(), out),
            ShardInput::Mended { index } => self.mended(index, out),
            ShardInput::BadState(why) => self.bad_state(why, out),
            ShardInput::Message { from, bytes } => self.message(from, &bytes, out),
            ShardInput::PeerLost { node } => {
                self.raft.peer_lost(node);
                self.drive(out);
            }
            ShardInput::Unreachable { node } => {
                self.raft.unreachable(node);
                self.drive(out);
            }
            ShardInput::Fetched { from, entries } => {
                self.raft.fetched(from, &entries);
                self.drive(out);
            }
            ShardInput::Confirm { stamp } => {
                self.raft.confirm(stamp);
                self.drive(out);
            }
            ShardInput::Transfer { to } => {
                // Whoever asked sees who leads then.
                if let Err(why) = self.raft.transfer(to) {
                    tracing::debug!(%why, to, "leadership stays");
                }
                self.drive(out);
            }
            ShardInput::Form => {
                self.raft.form();
                self.keep_members(out);
                self.drive(out);
            }
            ShardInput::Digests { from, digests } => self.told_digests(from, &digests, out),
            ShardInput::KeepMembers => self.keep_members(out),
            ShardInput::Members { id, changes } => self.change_members(id, &changes, out),
        }
    }

    fn refuse(&self, input: ShardInput, why: &Refusal, out: &mut Vec<Effect>) {
        match input {
            // The queue core holds the tokens: closing it answers them.
            ShardInput::Append(p) => {
                let (epoch, why) = (p.epoch, why.clone());
                out.push(Effect::ToQueue(p.key, QueueInput::Abandoned { epoch, why }))
            }
            ShardInput::Schedule(s) => {
                out.push(Effect::Answer(s.token, Outcome::Refused(why.clone())))
            }
            ShardInput::Propose { id, .. } | ShardInput::Members { id, .. } => {
                out.push(Effect::Proposal {
                    id,
                    result: Err(why.clone()),
                })
            }
            _ => {}
        }
    }

    fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        self.raft.tick();
        self.ticks += 1;
        self.watch_disk();
        self.tell_late(out);
        self.tick_mend(out);
        self.base.tick();
        self.drive(out);
        self.retain(now_ms);
    }

    /// Runs raft until it has nothing more to say, and turns its output into effects.
    fn drive(&mut self, out: &mut Vec<Effect>) {
        loop {
            let mut ready = RaftOutput::default();
            self.raft.ready(&mut ready);
            let quiet = ready.is_empty();
            for (to, bytes) in ready.messages {
                out.push(Effect::Send { to, bytes });
            }
            if let (Some((stamp, lease_ms)), false) = (ready.confirmed, self.raft.is_transferring())
            {
                out.push(Effect::Publish(Publish::Confirmed { stamp, lease_ms }));
            }
            self.tell_replaced(&ready.replaced, out);
            for fetch in ready.fetch {
                out.push(Effect::Disk(DiskWork::Fetch(fetch)));
            }
            let ops = ready.staged.iter().flat_map(|stage| {
                // What is installed replaces it.
                staged::ops(self.options.shard, stage)
            });
            let batch = StateBatch { ops: ops.collect() };
            if !batch.ops.is_empty() {
                out.push(Effect::Disk(DiskWork::Stage { batch }));
            }
            if let Some(role) = ready.role {
                out.push(Effect::Publish(Publish::Role(role)));
                if !matches!(role, Role::Leader { term } if self.serving == Some(term)) {
                    self.stop_serving(out);
                }
            }
            for mut work in ready.persist {
                if let Some(snapshot) = work.snapshot.take() {
                    let hard_state = work.hard_state.unwrap_or_default();
                    if !self.install(snapshot, hard_state, out) {
                        return;
                    }
                }
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                // Term changes and raft's own entries are synced in every class.
                let wants = |e: &LogEntry| entry::wants_sync(e.kind, &e.data);
                let sync = work.must_sync || work.entries.iter().any(wants);
                self.writes.push_back((ticket, work.number));
                let append = LogAppend {
                    shard: self.options.shard,
                    entries: work.entries,
                    hard_state: work.hard_state,
                    sync: sync && self.options.defect != Some(Defect::ForgetSync),
                };
                out.push(Effect::Disk(DiskWork::Append { ticket, append }));
            }
            for entry in ready.committed {
                if !self.apply(entry, out) {
                    return;
                }
            }
            if quiet {
                self.ask_base(out);
                if self.recovering && !self.raft.is_recovering() {
                    self.recovering = false;
                    out.push(Effect::Publish(Publish::Recovered));
                }
                return self.maybe_serve(out);
            }
        }
    }

    /// A leader serves once its first entry of the term is applied, and everything in the log with
    /// it: only then are the queues' next offsets known.
    fn maybe_serve(&mut self, out: &mut Vec<Effect>) {
        let (applied, term) = self.machine.applied;
        let waits = self.options.defect != Some(Defect::ServeInLease); // (planted)
        let ready = self.raft.is_leader()
            && (self.raft.may_serve() || !waits)
            && term == self.raft.term()
            && applied + 1 == self.raft.next_index()
            && !self.raft.is_transferring()
            && !self.machine.is_filling()
            // Queues are not shown before; the next tick looks again.
            && self.filled.is_none();
        // (planted)
        let early = self.options.defect == Some(Defect::ServeEarly) && self.raft.is_leader();
        let term = if early { self.raft.term() } else { term };
        let ready = ready || early;
        if ready && self.serving.is_none() && self.failed.is_none() {
            self.serving = Some(term);
            self.epoch += 1;
            out.push(Effect::Publish(Publish::Serving(self.serving)));
            out.push(Effect::ToTimer(TimerInput::Serving(true)));
        }
    }

    fn append_done(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        // Writes finish in order; a ticket stands for itself and everything before it.
        while self.writes.front().is_some_and(|(t, _)| *t <= ticket) {
            let Some((_, number)) = self.writes.pop_front() else {
                break;
            };
            self.raft.persisted(number);
        }
        let (written, term) = (self.raft.persisted_index(), self.raft.term());
        for flight in &mut self.in_flight {
            if flight.index <= written && flight.term == term && !flight.early_done {
                flight.early_done = true;
                Self::answer(flight, Stage::Appended, out);
                if self.options.defect == Some(Defect::AckAtAppend) {
                    // (planted)
                    Self::answer(flight, Stage::Committed, out);
                }
            }
        }
        self.drive(out);
    }

    /// Tells queues and waiting tokens that an entry reached `stage`. Nobody is told more after that.
    fn answer(flight: &mut InFlight, stage: Stage, out: &mut Vec<Effect>) {
        for block in &flight.blocks {
            if stage == Stage::Appended && !block.early {
                continue;
            }
            let reached = QueueInput::Reached {
                stage,
                base: block.base,
                count: block.tags.len() as u32,
                first: block.first,
                tags: block.tags.clone(),
            };
            out.push(Effect::ToQueue(block.key, reached));
        }
        for (token, position, wanted) in &mut flight.schedules {
            if *wanted == stage && token.is_some() {
                let position = *position;
                let token = std::mem::replace(token, Token::NONE);
                out.push(Effect::Answer(token, Outcome::Scheduled { position }));
            }
        }
    }

    fn abandon(&mut self, flight: InFlight, why: Refusal, out: &mut Vec<Effect>) {
        for block in flight.blocks {
            let (epoch, why) = (flight.epoch, why.clone());
            out.push(Effect::ToQueue(
                block.key,
                QueueInput::Abandoned { epoch, why },
            ));
        }
        for (token, _, _) in flight.schedules {
            if !token.is_some() {
                continue;
            }
            out.push(Effect::Answer(token, Outcome::Refused(why.clone())));
        }
        for id in flight.proposals {
            out.push(Effect::Proposal {
                id,
                result: Err(why.clone()),
            });
        }
    }

    /// Leadership or storage is gone: everything waiting is answered, the queues start over.
    fn stop_serving(&mut self, out: &mut Vec<Effect>) {
        let why = match self.failed {
            Some(_) => Refusal::Unavailable("storage failed"),
            None => Refusal::NotLeader,
        };
        // First those who are in the log, or may be: closing a queue answers everything it holds,
        // and "nothing happened" would be wrong for them.
        let kept = self.options.defect == Some(Defect::ReplyByIndex); // (planted)
        let gone = if kept {
            VecDeque::new()
        } else {
            std::mem::take(&mut self.in_flight)
        };
        for flight in gone {
            self.abandon(flight, Refusal::Indeterminate, out);
        }
        for p in std::mem::take(&mut self.appends) {
            self.refuse(ShardInput::Append(p), &why, out);
        }
        for s in std::mem::take(&mut self.schedules) {
            self.refuse(ShardInput::Schedule(s), &why, out);
        }
        let keeps = self.options.defect == Some(Defect::RefusedAndKept);
        for (id, op) in std::mem::take(&mut self.proposals) {
            if keeps {
                self.proposals.push_back((id, op.clone())); // (planted)
            }
            let epoch = self.epoch;
            self.refuse(ShardInput::Propose { id, epoch, op }, &why, out);
        }
        self.orphans.clear();
        self.under_way = quota::UnderWay::default();
        self.trimming = false;
        if self.serving.take().is_some() {
            out.push(Effect::Publish(Publish::Serving(None)));
            out.push(Effect::ToTimer(TimerInput::Serving(false)));
        }
    }

    /// Stops this replica for good. Returns false, for use in conditions.
    fn fail(&mut self, why: String, out: &mut Vec<Effect>) -> bool {
        self.failed = Some(why.clone());
        self.stop_serving(out);
        out.push(Effect::Publish(Publish::Fatal(why)));
        false
    }
}

/// Id of proposals nobody waits for.
pub const INTERNAL: u64 = 0;

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
