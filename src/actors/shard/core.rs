//! The shard as a pure state machine: collects what its queues propose into one entry a wake,
//! drives raft, applies what is committed and says what each step makes visible. Nothing here
//! touches a disk, a clock or a socket.
//!
//! Crash points. Before a log write is done nothing of it was answered. Between done and applied
//! rows written, the answer may be out and the rows are rebuilt from the log. Rows never get ahead
//! of the log, because an entry is applied only after its own write was done here.

use super::machine::{Event, Machine};
use crate::actors::effect::{DiskWork, Effect, Publish};
use crate::actors::queue::core::QueueInput;
use crate::actors::timer::core::TimerInput;
use crate::model::append::RecordMeta;
use crate::model::command::{MetaCommand, MetaOp, Trim};
use crate::model::outcome::{Outcome, Refusal, Token};
use crate::model::policy::AckPolicy;
use crate::model::{GroupId, Position, QueueKey, ShardId};
use crate::raft::ack::{self, Stage};
use crate::raft::entry::{AppendBlock, EntryBuilder, TimerKey};
use crate::raft::{RaftCore, RaftOutput, Role};
use crate::storage::{LogAppend, LogEntry, StateBatch};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Records a queue core wants in the log, with the offsets it gave them.
#[derive(Debug, Clone)]
pub struct AppendProposal {
    pub key: QueueKey,
    /// The term in which the queue core was started; another term's offsets are worthless.
    pub term: u64,
    pub base: u64,
    pub metas: Vec<RecordMeta>,
    pub records: Vec<u8>,
    /// The entry must be synced.
    pub sync: bool,
    /// Somebody waits for the leader's own append only.
    pub early: bool,
    /// Timers that these records end.
    pub fired: Vec<TimerKey>,
}

/// A delayed message on its way into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub token: Token,
    pub policy: AckPolicy,
    pub due_ms: i64,
    pub target: QueueKey,
    pub tag: i32,
    pub record: Vec<u8>,
}

/// Events of the shard core.
#[derive(Debug, Clone)]
pub enum ShardInput {
    Append(AppendProposal),
    Schedule(Schedule),
    /// A metadata command; its answer is [`Effect::Proposal`] with this id.
    Propose {
        id: u64,
        op: MetaOp,
    },
    /// Timers whose queue is gone: end them without a message.
    Orphans(Vec<TimerKey>),
    /// Build an entry from what is waiting. The shell sends it to itself after the first event of
    /// a burst, so that a burst becomes one entry.
    Flush {
        now_ms: i64,
    },
    /// A log write is done as it asked to be.
    AppendDone {
        ticket: u64,
    },
    /// State rows up to this log index are in the store.
    StateDone {
        applied: u64,
    },
    /// A log or state write failed. Final.
    DiskFailed(String),
    Tick {
        now_ms: i64,
    },
}

/// Settings of the shard core.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    pub shard: ShardId,
    /// An entry is closed once it holds this many bytes.
    pub max_entry_bytes: usize,
    /// Log writes under way at a time; while they are, what arrives waits for the next entry.
    pub max_open_writes: usize,
    /// Segments whose newest message is older are dropped.
    pub retention_ms: i64,
    /// Oldest segments are dropped beyond this many bytes; 0 for no limit.
    pub retention_bytes: u64,
    /// A deliberate defect the simulator must find; never set by a product.
    pub defect: Option<Defect>,
}

/// Deliberate defects, to prove that the simulator's checkers can see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Replies are sent when the entry is proposed, before its write is done.
    AckBeforeWrite,
    /// Offset commits may go back.
    OffsetsGoBack,
    /// State rows are written with an applied index one too high.
    AppliedAhead,
    /// Sync is never asked for, and answered as if it were.
    ForgetSync,
}

impl Defect {
    fn spoil(self, mut op: MetaOp) -> MetaOp {
        if let (Defect::OffsetsGoBack, MetaOp::CommitOffsets(commit)) = (self, &mut op) {
            commit.reset = true;
        }
        op
    }
}

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
    blocks: Vec<Block>,
    schedules: Vec<(Token, Position, Stage)>,
    proposals: Vec<u64>,
    /// Those who wait for the leader's own append have been answered.
    early_done: bool,
}

/// See the module text.
pub struct ShardCore {
    options: ShardOptions,
    raft: RaftCore,
    machine: Machine,
    /// Term in which this replica serves.
    serving: Option<u64>,
    failed: Option<String>,
    appends: VecDeque<AppendProposal>,
    schedules: VecDeque<Schedule>,
    proposals: VecDeque<(u64, MetaOp)>,
    orphans: Vec<TimerKey>,
    in_flight: VecDeque<InFlight>,
    /// Raft number, last index and hidden sync wish of log writes under way, oldest first.
    writes: VecDeque<(u64, u64)>,
    unsynced_wish: BTreeSet<u64>,
    next_ticket: u64,
    trimming: bool,
    last_retention_ms: i64,
    /// Stamp of the newest entry proposed: the clock may go back before it is applied.
    last_stamp_ms: i64,
}

/// How often the leader looks for segments to drop, ms.
const RETENTION_EVERY_MS: i64 = 10_000;

impl ShardCore {
    /// A shard whose machine and raft were restored from the same store.
    pub fn new(options: ShardOptions, raft: RaftCore, machine: Machine) -> Self {
        Self {
            options,
            raft,
            machine,
            serving: None,
            failed: None,
            appends: VecDeque::new(),
            schedules: VecDeque::new(),
            proposals: VecDeque::new(),
            orphans: Vec::new(),
            in_flight: VecDeque::new(),
            writes: VecDeque::new(),
            unsynced_wish: BTreeSet::new(),
            next_ticket: 1,
            trimming: false,
            last_retention_ms: 0,
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
    /// Why the shard stopped for good.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }
    /// Something waits for [`ShardInput::Flush`].
    pub fn wants_flush(&self) -> bool {
        !(self.appends.is_empty()
            && self.schedules.is_empty()
            && self.proposals.is_empty()
            && self.orphans.is_empty())
            && self.writes.len() < self.options.max_open_writes
    }

    /// Begins: a single voter stands for election at once.
    pub fn start(&mut self, out: &mut Vec<Effect>) {
        self.raft.campaign();
        self.drive(out);
    }

    /// Takes one event.
    pub fn step(&mut self, input: ShardInput, out: &mut Vec<Effect>) {
        if self.failed.is_some() {
            return self.refuse(input, &Refusal::Unavailable("storage failed"), out);
        }
        match input {
            ShardInput::Append(_) | ShardInput::Schedule(_) | ShardInput::Propose { .. }
                if self.serving.is_none() =>
            {
                self.refuse(input, &Refusal::NotLeader, out)
            }
            ShardInput::Append(p) if Some(p.term) != self.serving => {
                self.refuse(ShardInput::Append(p), &Refusal::NotLeader, out)
            }
            ShardInput::Append(p) => self.appends.push_back(p),
            ShardInput::Schedule(s) => self.schedules.push_back(s),
            ShardInput::Propose { id, op } => {
                let op = self.options.defect.map_or(op.clone(), |d| d.spoil(op));
                self.proposals.push_back((id, op));
            }
            ShardInput::Orphans(timers) => self.orphans.extend(timers),
            ShardInput::Flush { now_ms } => self.flush(now_ms, out),
            ShardInput::AppendDone { ticket } => self.append_done(ticket, out),
            ShardInput::StateDone { applied } => {
                out.push(Effect::Publish(Publish::Stored { index: applied }))
            }
            ShardInput::DiskFailed(why) => {
                self.fail(why, out);
            }
            ShardInput::Tick { now_ms } => self.tick(now_ms, out),
        }
    }

    fn refuse(&self, input: ShardInput, why: &Refusal, out: &mut Vec<Effect>) {
        match input {
            // The queue core holds the tokens: closing it answers them.
            ShardInput::Append(p) => {
                out.push(Effect::ToQueue(p.key, QueueInput::Closed(why.clone())))
            }
            ShardInput::Schedule(s) => {
                out.push(Effect::Answer(s.token, Outcome::Refused(why.clone())))
            }
            ShardInput::Propose { id, .. } => out.push(Effect::Proposal {
                id,
                result: Err(why.clone()),
            }),
            _ => {}
        }
    }

    fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        self.raft.tick();
        self.drive(out);
        // A clock that went back must not put retention off.
        let since = now_ms.saturating_sub(self.last_retention_ms);
        let due = !(0..RETENTION_EVERY_MS).contains(&since);
        if self.serving.is_some() && due && !self.trimming {
            self.last_retention_ms = now_ms;
            let before = now_ms.saturating_sub(self.options.retention_ms);
            if let Some(segment) = self.machine.droppable(before, self.options.retention_bytes) {
                self.trimming = true;
                self.proposals
                    .push_back((INTERNAL, MetaOp::Trim(Trim { segment })));
            }
        }
    }

    /// Builds entries while writes may be opened.
    fn flush(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        while self.wants_flush() {
            let before = self.appends.len()
                + self.schedules.len()
                + self.proposals.len()
                + self.orphans.len();
            self.propose_one(now_ms, out);
            let after = self.appends.len()
                + self.schedules.len()
                + self.proposals.len()
                + self.orphans.len();
            if after == before || self.failed.is_some() {
                break;
            }
        }
    }

    fn propose_one(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let index = self.raft.next_index();
        let term = self.raft.term();
        let at_ms = now_ms.max(self.machine.last_at_ms).max(self.last_stamp_ms);
        self.last_stamp_ms = at_ms;
        let mut entry = EntryBuilder::new(index, at_ms, 4096);
        let mut flight = InFlight {
            index,
            term,
            blocks: vec![],
            schedules: vec![],
            proposals: vec![],
            early_done: false,
        };
        let mut sync = self.take_appends(&mut entry, &mut flight, out);
        if self.failed.is_some() {
            // Half an entry must not reach the log.
            return;
        }
        while let Some(s) = self.schedules.front() {
            if !entry.has_room(1)
                || entry.len() + s.record.len() > self.options.max_entry_bytes && !entry.is_empty()
            {
                break;
            }
            let Some(s) = self.schedules.pop_front() else {
                break;
            };
            let rule = ack::rule(s.policy);
            sync |= rule.sync;
            let position = entry.schedule(s.due_ms, s.target, s.tag, &s.record);
            flight.schedules.push((s.token, position, rule.stage));
        }
        while entry.len() < self.options.max_entry_bytes {
            let Some((id, op)) = self.proposals.pop_front() else {
                break;
            };
            // Metadata is synced in every class (reliability §1 rule 1).
            sync = true;
            entry.meta(&MetaCommand::from(op));
            flight.proposals.push(id);
        }
        for timer in self.orphans.drain(..) {
            entry.fired(timer);
        }
        if entry.is_empty() {
            return;
        }
        match self.raft.propose(entry.finish()) {
            Ok(at) if at == index => {
                if sync {
                    self.unsynced_wish.insert(index);
                }
                if self.options.defect == Some(Defect::AckBeforeWrite) {
                    // (planted)
                    Self::answer(&flight, Stage::Committed, out);
                }
                self.in_flight.push_back(flight);
                self.drive(out);
            }
            // Raft refuses only when it does not lead, or holds too much uncommitted: the offsets
            // given out cannot be kept, so the queues start over.
            Ok(_) | Err(_) => {
                self.stop_serving(out);
                self.abandon(flight, Refusal::NotLeader, out);
            }
        }
    }

    /// Moves waiting appends into the entry, one block per queue. Returns whether one wants a sync.
    fn take_appends(
        &mut self,
        entry: &mut EntryBuilder,
        flight: &mut InFlight,
        out: &mut Vec<Effect>,
    ) -> bool {
        let mut merged: Vec<AppendProposal> = Vec::new();
        let mut at: BTreeMap<QueueKey, usize> = BTreeMap::new();
        let (mut bytes, mut records) = (0, 0);
        while let Some(next) = self.appends.front() {
            let full = bytes > 0 && bytes + next.records.len() > self.options.max_entry_bytes;
            if full || !entry.has_room(records + next.metas.len()) {
                break;
            }
            let Some(next) = self.appends.pop_front() else {
                break;
            };
            bytes += next.records.len();
            records += next.metas.len();
            match at.get(&next.key) {
                Some(i) => {
                    let block = &mut merged[*i];
                    block.metas.extend(next.metas);
                    block.records.extend_from_slice(&next.records);
                    block.sync |= next.sync;
                    block.early |= next.early;
                    block.fired.extend(next.fired);
                }
                None => {
                    at.insert(next.key, merged.len());
                    merged.push(next);
                }
            }
        }
        let mut sync = false;
        for p in merged {
            match entry.append(p.key, p.base, &p.metas, &p.records) {
                Ok(first) => flight.blocks.push(Block {
                    key: p.key,
                    base: p.base,
                    first,
                    tags: p.metas.iter().map(|m| m.tag).collect(),
                    early: p.early,
                }),
                // The gateway encodes whole records only; anything else is a defect here.
                Err(error) => return self.fail(error.to_string(), out) && sync,
            }
            sync |= p.sync;
            for timer in p.fired {
                entry.fired(timer);
            }
        }
        sync
    }

    /// Runs raft until it has nothing more to say, and turns its output into effects.
    fn drive(&mut self, out: &mut Vec<Effect>) {
        loop {
            let mut ready = RaftOutput::default();
            self.raft.ready(&mut ready);
            let quiet =
                ready.role.is_none() && ready.persist.is_empty() && ready.committed.is_empty();
            if let Some(role) = ready.role {
                out.push(Effect::Publish(Publish::Role(role)));
                if !matches!(role, Role::Leader { term } if self.serving == Some(term)) {
                    self.stop_serving(out);
                }
            }
            for work in ready.persist {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                let last = work.entries.last().map_or(0, |e| e.index);
                // Raft's own empty entries and term changes are synced in every class.
                let wants =
                    |e: &LogEntry| e.data.is_empty() || self.unsynced_wish.contains(&e.index);
                let sync = work.must_sync || work.entries.iter().any(wants);
                self.unsynced_wish = self.unsynced_wish.split_off(&(last + 1));
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
                return;
            }
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
            }
        }
        self.drive(out);
    }

    /// Tells queues and waiting tokens that an entry reached `stage`.
    fn answer(flight: &InFlight, stage: Stage, out: &mut Vec<Effect>) {
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
        for (token, position, wanted) in &flight.schedules {
            if *wanted == stage {
                out.push(Effect::Answer(
                    *token,
                    Outcome::Scheduled {
                        position: *position,
                    },
                ));
            }
        }
    }

    fn apply(&mut self, entry: LogEntry, out: &mut Vec<Effect>) -> bool {
        let applied = match self.machine.apply(&entry) {
            Ok(applied) => applied,
            Err(error) => {
                self.fail(error.to_string(), out);
                return false;
            }
        };
        self.raft.applied(entry.index);
        let mut dropped = BTreeSet::new();
        let appended: usize = applied.events.iter().map(appended_bytes).sum();
        // Slices keep their entry in memory: worth it only when they are most of it.
        let copy = appended < entry.data.len() / 2;
        let mut commands = None;
        for event in applied.events {
            // A message stored before its topic went is answered before the topic goes.
            if commands.is_none() && matches!(event, Event::TopicDeleted { .. }) {
                commands = Some(self.settle(&entry, &dropped, out));
            }
            self.publish(event, &entry, applied.at_ms, copy, &mut dropped, out);
        }
        // (planted)
        let ahead = u64::from(self.options.defect == Some(Defect::AppliedAhead));
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let batch = StateBatch { ops: applied.rows };
        out.push(Effect::Disk(DiskWork::State {
            ticket,
            batch,
            applied: entry.index + ahead,
        }));
        let commands = match commands {
            Some(commands) => commands,
            None => self.settle(&entry, &dropped, out),
        };
        for id in commands {
            let result = Ok(entry.index);
            out.push(Effect::Proposal { id, result });
        }
        // Only with everything in the log applied are the queues' next offsets known.
        let all_applied = entry.index + 1 == self.raft.next_index();
        let own = self.raft.is_leader() && entry.term == self.raft.term();
        if own && all_applied && self.serving.is_none() {
            self.serving = Some(entry.term);
            out.push(Effect::Publish(Publish::Serving(self.serving)));
            out.push(Effect::ToTimer(TimerInput::Serving(true)));
        }
        true
    }

    fn publish(
        &mut self,
        event: Event,
        entry: &LogEntry,
        at_ms: i64,
        copy: bool,
        dropped: &mut BTreeSet<(QueueKey, u64)>,
        out: &mut Vec<Effect>,
    ) {
        let publish = match event {
            Event::Appended(block) => {
                let (block, data) = match copy {
                    true => detached(block, &entry.data),
                    false => (block, entry.data.clone()),
                };
                Publish::Appended {
                    index: entry.index,
                    at_ms,
                    block,
                    data,
                }
            }
            Event::AppendDropped(block) => {
                dropped.insert((block.key, block.base));
                return;
            }
            Event::TimerAdded { timer, target } => {
                return out.push(Effect::ToTimer(TimerInput::Added { timer, target }));
            }
            Event::TimerFired(timer) => {
                return out.push(Effect::ToTimer(TimerInput::Fired(timer)));
            }
            Event::Topic(topic) => Publish::Topic(topic),
            Event::TopicDeleted { name, id } => Publish::TopicDeleted { name, id },
            Event::Group(group) => Publish::Group(group),
            Event::GroupDeleted { name, id } => Publish::GroupDeleted { name, id },
            Event::Offsets {
                group,
                offsets,
                reset,
            } => Publish::Offsets {
                group: GroupId(group),
                offsets,
                reset,
            },
            Event::Locks {
                group,
                queues,
                at_ms,
            } => Publish::Locks {
                group: GroupId(group),
                queues,
                at_ms,
            },
            Event::Trimmed {
                queues,
                first,
                term,
            } => {
                self.trimming = false;
                for (key, min) in queues {
                    out.push(Effect::Publish(Publish::Trimmed { key, min }));
                }
                return out.push(Effect::Disk(DiskWork::Trim { first, term }));
            }
        };
        out.push(Effect::Publish(publish));
    }

    /// Answers what waited for an applied entry, and drops what another leader's entry replaced.
    /// Returns the entry's own proposals: they are answered once all it changed is published.
    fn settle(
        &mut self,
        entry: &LogEntry,
        dropped: &BTreeSet<(QueueKey, u64)>,
        out: &mut Vec<Effect>,
    ) -> Vec<u64> {
        let mut commands = Vec::new();
        while let Some(flight) = self.in_flight.front() {
            if flight.index > entry.index {
                break;
            }
            let Some(mut flight) = self.in_flight.pop_front() else {
                break;
            };
            if flight.index != entry.index || flight.term != entry.term {
                self.abandon(flight, Refusal::Indeterminate, out);
                continue;
            }
            for block in flight
                .blocks
                .iter()
                .filter(|b| dropped.contains(&(b.key, b.base)))
            {
                let why = Refusal::NotFound("topic");
                out.push(Effect::ToQueue(block.key, QueueInput::Closed(why)));
            }
            flight
                .blocks
                .retain(|b| !dropped.contains(&(b.key, b.base)));
            Self::answer(&flight, Stage::Committed, out);
            commands.append(&mut flight.proposals);
        }
        commands
    }

    fn abandon(&mut self, flight: InFlight, why: Refusal, out: &mut Vec<Effect>) {
        for block in flight.blocks {
            out.push(Effect::ToQueue(block.key, QueueInput::Closed(why.clone())));
        }
        for (token, _, _) in flight.schedules {
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
        for flight in std::mem::take(&mut self.in_flight) {
            self.abandon(flight, Refusal::Indeterminate, out);
        }
        for p in std::mem::take(&mut self.appends) {
            self.refuse(ShardInput::Append(p), &why, out);
        }
        for s in std::mem::take(&mut self.schedules) {
            self.refuse(ShardInput::Schedule(s), &why, out);
        }
        for (id, op) in std::mem::take(&mut self.proposals) {
            self.refuse(ShardInput::Propose { id, op }, &why, out);
        }
        self.orphans.clear();
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

/// Bytes of records an event makes visible.
fn appended_bytes(event: &Event) -> usize {
    match event {
        Event::Appended(block) => block.records_len as usize,
        _ => 0,
    }
}

/// The block with a copy of its own records.
fn detached(mut block: AppendBlock, data: &Bytes) -> (AppendBlock, Bytes) {
    let from = block.records_at as usize;
    let own = Bytes::copy_from_slice(&data[from..from + block.records_len as usize]);
    block.records_at = 0;
    (block, own)
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
