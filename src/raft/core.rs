//! Raft of one shard as a pure core: ticks, messages, proposals and finished log writes in;
//! messages, log writes, committed entries and role changes out. A log write counts only when its
//! ticket comes back, and what a replica says as a follower or candidate leaves only when all it
//! wrote before is on disk.
//!
//! A *life* is one start of a replica. A leader that hears of a new life forgets how far the
//! replica's log matched: with unsynced entries a machine crash may have taken some of it.
//!
//! A replica that may have lost entries it had acknowledged starts *recovering* (reliability §1
//! rule 4): it takes entries, but votes and stands only where every member votes, until it holds
//! an entry of the leader's own term that the leader, knowing of this life, called committed.
//! Its acknowledgements count: one for an entry proves the log up to it.

use super::log_window::{from_raft, Fetch, LogWindow, WindowStart};
use super::members::{self, Change, MemberError, Members};
use super::message::{self, MessageError};
use super::slog_bridge;
use crate::model::outcome::Refusal;
use crate::storage::{HardState, LogEntry};
use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};
use raft::{Config, ProgressState, RawNode, SnapshotStatus, StateRole};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of applied entries kept in memory for followers that are a little behind.
const KEEP_BYTES: usize = 8 << 20;

/// Bytes of proposals a leader takes beyond those committed.
const MAX_UNCOMMITTED: usize = 256 << 20;

/// Fixed settings of a replica.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// This node's id, never 0.
    pub node: u64,
    /// Voters of a new shard; one that was started before knows its members itself.
    pub voters: Vec<u64>,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// Counts the starts of this replica; grows with every start. 0: not counted.
    pub life: u64,
    /// The machine stopped uncleanly with unsynced entries written, and this replica was not told
    /// since that it holds all again: see the module text. Needs a life above 0.
    pub recovering: bool,
    /// Seeds election timeouts, so that a simulation replays them.
    pub seed: u64,
    /// Raft's own log lines are dropped.
    pub quiet: bool,
}

impl RaftOptions {
    /// A shard with one voter.
    pub fn single(node: u64, seed: u64) -> Self {
        Self::group(node, vec![node], seed)
    }

    /// A replica of a new shard with these voters.
    pub fn group(node: u64, voters: Vec<u64>, seed: u64) -> Self {
        Self {
            node,
            voters,
            election_ticks: 10,
            heartbeat_ticks: 2,
            life: 0,
            recovering: false,
            seed,
            quiet: false,
        }
    }
}

/// What was found on disk. `entries` follow `applied` without a gap, up to the log's end.
#[derive(Debug, Clone, Default)]
pub struct RaftStart {
    pub hard_state: HardState,
    /// First index of the log and the term of the entry before it.
    pub first: (u64, u64),
    /// Last applied index and its term.
    pub applied: (u64, u64),
    pub entries: Vec<LogEntry>,
    /// The members as of `applied`; `None` for those of [`RaftOptions::voters`].
    pub members: Option<Members>,
}

/// Who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Leader {
        term: u64,
    },
    /// `leader` is 0 when unknown.
    Follower {
        term: u64,
        leader: u64,
    },
}

/// A log write raft asks for. Answer with [`RaftCore::persisted`] when it is done.
#[derive(Debug, Clone)]
pub struct PersistWork {
    pub number: u64,
    pub entries: Vec<LogEntry>,
    pub hard_state: Option<HardState>,
    /// Term or vote changed: must be synced whatever the entries ask for.
    pub must_sync: bool,
}

/// Effects of one step. Persist and send may go at once and in any order between them.
#[derive(Debug, Default)]
pub struct RaftOutput {
    pub role: Option<Role>,
    /// Receiver and bytes. May be lost, late, doubled or reordered on the way.
    pub messages: Vec<(u64, Bytes)>,
    pub persist: Vec<PersistWork>,
    pub committed: Vec<LogEntry>,
    /// Log entries to read for a follower that is behind.
    pub fetch: Vec<Fetch>,
}

impl RaftOutput {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.role.is_none()
            && self.messages.is_empty()
            && self.persist.is_empty()
            && self.committed.is_empty()
            && self.fetch.is_empty()
    }
}

/// What a leader knows of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProgress {
    pub node: u64,
    /// Last index known to be in its log.
    pub matched: u64,
    /// It waits for a snapshot.
    pub snapshot: bool,
    /// It has answered within the last election timeout.
    pub active: bool,
    pub voter: bool,
}

/// A message, and whether it belongs to an election that needs every vote.
type Outgoing = (Message, bool);

/// See the module text.
pub struct RaftCore {
    node: RawNode<LogWindow>,
    options: RaftOptions,
    members: Members,
    last_hard_state: HardState,
    role: Option<Role>,
    /// Numbers of log writes handed out and not answered, oldest first.
    open_writes: VecDeque<u64>,
    /// Messages that wait for the log write with this number.
    held: VecDeque<(u64, Vec<Outgoing>)>,
    released: Vec<Outgoing>,
    /// The last life seen of each peer.
    lives: BTreeMap<u64, u64>,
    /// See the module text.
    recovering: bool,
    /// Elections begun since a leader was last known.
    attempts: u32,
    /// The election under way needs every vote.
    needs_all: bool,
    /// The request for a vote answered last wanted all.
    answer_all: bool,
    /// Term and commit index a leader confirmed to a recovering replica.
    confirmed: Option<(u64, u64)>,
    /// Role and term of the votes held back.
    asked: (StateRole, u64),
    /// Votes given in it, held back until all are there.
    votes: BTreeMap<u64, Message>,
    /// Ticks until this replica campaigns because the leader's connection closed.
    hurry: Option<usize>,
    timeout: usize,
    /// Term, role and draw of the election timeout.
    drawn: (u64, StateRole, u64),
}

impl RaftCore {
    /// Starts from what the disk holds. Fails only on settings that cannot work.
    pub fn new(options: RaftOptions, start: RaftStart) -> Result<Self, String> {
        check_log(&start)?;
        let members = start
            .members
            .unwrap_or_else(|| Members::of(options.voters.clone()));
        let window = LogWindow::new(WindowStart {
            first: match start.first {
                (0, _) => (start.applied.0 + 1, start.applied.1),
                first => first,
            },
            before: start.applied,
            entries: &start.entries,
            hard_state: start.hard_state,
            conf: members.to_raft(),
            keep_bytes: keep_bytes(&members, options.node),
        });
        let config = Config {
            id: options.node,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            applied: start.applied.0,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: MAX_UNCOMMITTED as u64,
            max_committed_size_per_ready: 8 << 20,
            ..Config::default()
        };
        let logger = slog_bridge::logger(options.quiet);
        let node = RawNode::new(&config, window, &logger).map_err(|e| e.to_string())?;
        let recovering = options.recovering;
        let mut core = Self {
            node,
            options,
            members,
            last_hard_state: start.hard_state,
            role: None,
            open_writes: VecDeque::new(),
            held: VecDeque::new(),
            released: Vec::new(),
            lives: BTreeMap::new(),
            recovering,
            attempts: 0,
            needs_all: recovering,
            answer_all: false,
            confirmed: None,
            asked: (StateRole::Follower, 0),
            votes: BTreeMap::new(),
            hurry: None,
            timeout: usize::MAX,
            drawn: (0, StateRole::Follower, 0),
        };
        core.fix_election_timeout();
        Ok(core)
    }

    /// Stands for election now; a single voter need not wait for a timeout.
    pub fn campaign(&mut self) {
        if !self.may_campaign() {
            return;
        }
        if !self.is_leader() {
            self.begins_election();
        }
        if let Err(error) = self.node.campaign() {
            tracing::debug!(%error, "campaign refused");
        }
        self.fix_election_timeout();
    }

    /// A single voter wins at once, which raft allows only with its whole log on disk.
    fn may_campaign(&self) -> bool {
        !self.is_sole_voter() || self.open_writes.is_empty()
    }

    /// No other replica has a vote.
    pub fn is_sole_voter(&self) -> bool {
        self.members.is_sole_voter(self.options.node)
    }

    /// One tick of the shard's clock.
    pub fn tick(&mut self) {
        if self.is_leader() || self.may_campaign() {
            let raft = &self.node.raft;
            let idle = raft.state != StateRole::Leader && raft.promotable();
            if idle && raft.election_elapsed + 1 >= self.timeout {
                self.begins_election();
            }
            self.node.tick();
        }
        if self.leader() != 0 {
            self.attempts = 0;
            self.needs_all = self.recovering;
        }
        match self.hurry {
            // The leader was heard of meanwhile.
            Some(_) if self.node.raft.election_elapsed < self.options.election_ticks => {
                self.hurry = None;
            }
            Some(0) => {
                self.hurry = None;
                if self.node.raft.state == StateRole::Follower && self.node.raft.promotable() {
                    self.campaign();
                }
            }
            Some(left) => self.hurry = Some(left - 1),
            None => {}
        }
        self.fix_election_timeout();
    }

    /// The connection to `peer` closed or is refused. When it leads, this replica stands for
    /// election within a few ticks rather than after the timeout; pre-votes and the other
    /// replicas' leases still keep a leader that only this replica lost.
    pub fn peer_lost(&mut self, peer: u64) {
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader {
            return self.node.report_unreachable(peer);
        }
        if raft.state != StateRole::Follower || peer == 0 || raft.leader_id != peer {
            return;
        }
        raft.election_elapsed = raft.election_elapsed.max(self.options.election_ticks);
        let before_us = |id: &&u64| **id != peer && **id < self.options.node;
        self.hurry = Some(self.members.voters.iter().filter(before_us).count());
    }

    /// See the module text.
    pub fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// An operator's word that this replica is to vote with what it has.
    pub fn end_recovering(&mut self) {
        self.recovering = false;
    }

    /// Takes in a message of the replica on node `from`.
    pub fn step(&mut self, from: u64, bytes: &Bytes) -> Result<(), MessageError> {
        let envelope = message::decode(bytes)?;
        let mut m = envelope.message;
        message::check(self.options.node, from, &m)?;
        self.check_sender(from, m.get_msg_type())?;
        self.check_life(from, envelope.sender_life)?;
        // Written for an earlier life of this replica: what it rests on may be gone.
        if envelope.receiver_life != 0
            && envelope.receiver_life != self.options.life
            && m.get_msg_type() == MessageType::MsgTimeoutNow
        {
            return Err(MessageError::Outdated(self.options.node));
        }
        self.check_state(&mut m)?;
        let kind = m.get_msg_type();
        let stands = self.may_campaign() && !self.recovering;
        if !stands && kind == MessageType::MsgTimeoutNow {
            return Ok(());
        }
        if self.recovering && message::asks_vote(kind) && !envelope.all {
            return Ok(());
        }
        if message::asks_vote(kind) {
            self.answer_all = envelope.all;
        }
        let confirms = self.recovering
            && kind == MessageType::MsgAppend
            && envelope.receiver_life == self.options.life;
        let confirmed = confirms.then_some((m.commit, m.term));
        if self.needs_all && message::answers_vote(kind) && !m.reject {
            if envelope.all {
                self.vote(from, m);
            }
        } else {
            let _ = self.node.step(m);
        }
        if let Some((commit, term)) = confirmed.filter(|(_, term)| *term == self.term()) {
            // It sent this after it heard of this life, and has committed in its own term.
            self.confirmed = self.confirmed.max(Some((term, commit)));
        }
        self.fix_election_timeout();
        Ok(())
    }

    /// Hands the votes to raft once every other voter has given one.
    fn vote(&mut self, from: u64, m: Message) {
        let asked = (self.node.raft.state, m.term);
        if self.asked != asked {
            self.asked = asked;
            self.votes.clear();
        }
        self.votes.insert(from, m);
        let voters = self.members.voters.iter();
        let mut others = voters.chain(&self.members.voters_outgoing);
        if others.all(|v| *v == self.options.node || self.votes.contains_key(v)) {
            for (_, m) in std::mem::take(&mut self.votes) {
                let _ = self.node.step(m);
            }
        }
    }

    /// Ends recovering once the log holds what a leader confirmed.
    fn check_recovered(&mut self) {
        if !self.recovering {
            return;
        }
        let leads = self.is_leader();
        let log = &self.node.raft.raft_log;
        let holds = self.confirmed.is_some_and(|(term, commit)| {
            term == self.node.raft.term && log.persisted >= commit && log.match_term(commit, term)
        });
        if leads || holds {
            self.recovering = false;
            self.confirmed = None;
        }
    }

    /// How the election that begins now is counted.
    fn begins_election(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        // A majority may be recovering: then only all together can go on.
        let every_other = self.attempts > 3 && self.attempts.is_multiple_of(2);
        self.needs_all = self.recovering || every_other;
        self.votes.clear();
    }

    fn check_sender(&self, from: u64, kind: MessageType) -> Result<(), MessageError> {
        let known = self.node.raft.prs().get(from).is_some();
        // A member added by an entry not applied here may lead already; one that was removed
        // must not be listened to.
        let newcomer = message::opens_a_talk(kind) && !self.members.removed.contains(&from);
        if known || newcomer {
            Ok(())
        } else {
            Err(MessageError::Stranger(from))
        }
    }

    fn check_life(&mut self, from: u64, life: u64) -> Result<(), MessageError> {
        if self.lives.len() > 1024 && !self.lives.contains_key(&from) {
            return Err(MessageError::Stranger(from));
        }
        let known = self.lives.entry(from).or_insert(life);
        if life < *known {
            return Err(MessageError::Outdated(from));
        }
        if life > *known {
            *known = life;
            let last = self.node.raft.raft_log.last_index();
            let leads = self.node.raft.state == StateRole::Leader;
            if let Some(progress) = self.node.raft.mut_prs().get_mut(from).filter(|_| leads) {
                progress.matched = 0;
                progress.become_probe();
                progress.next_idx = last + 1;
            }
        }
        Ok(())
    }

    /// What raft would take for granted, and panic.
    fn check_state(&self, m: &mut Message) -> Result<(), MessageError> {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        match m.get_msg_type() {
            // The leader may count on entries that a machine crash took.
            MessageType::MsgHeartbeat => m.commit = m.commit.min(last),
            MessageType::MsgAppendResponse
                if raft.state == StateRole::Leader
                    && m.term == raft.term
                    && !m.reject
                    && m.index > last =>
            {
                return Err(MessageError::Impossible("an answer beyond the log's end"));
            }
            // Snapshots travel as files; raft learns of them when they are installed.
            MessageType::MsgSnapshot => {
                return Err(MessageError::Impossible("a snapshot without its data"));
            }
            _ => {}
        }
        Ok(())
    }

    /// This replica leads (though it may not have applied its first entry yet).
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Node that leads as far as is known here; 0 for none.
    pub fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    /// Id of this replica's node.
    pub fn id(&self) -> u64 {
        self.options.node
    }

    /// Current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Index the next proposal gets.
    pub fn next_index(&self) -> u64 {
        self.node.raft.raft_log.last_index() + 1
    }

    /// Commit index.
    pub fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Last index whose write was reported done.
    pub fn persisted_index(&self) -> u64 {
        self.node.raft.raft_log.persisted
    }

    /// Log writes handed out and not answered yet.
    pub fn open_writes(&self) -> usize {
        self.open_writes.len()
    }

    /// Bytes of log entries held in memory.
    pub fn window_bytes(&self) -> usize {
        self.node.store().bytes()
    }

    /// The members as of the last applied entry.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// How far the other replicas are; known to a leader only.
    pub fn progress(&self) -> Vec<PeerProgress> {
        if !self.is_leader() {
            return Vec::new();
        }
        let prs = self.node.raft.prs();
        let mut all: Vec<_> = prs
            .iter()
            .map(|(node, p)| PeerProgress {
                node: *node,
                matched: p.matched,
                snapshot: p.state == ProgressState::Snapshot,
                active: p.recent_active || *node == self.options.node,
                voter: self.members.has_vote(*node),
            })
            .collect();
        all.sort_by_key(|p| p.node);
        all
    }

    /// The last index that every other member is known to hold; a leader only knows.
    pub fn slowest(&self) -> u64 {
        let others = self.node.raft.prs().iter();
        let others = others.filter(|(node, _)| **node != self.options.node);
        others.map(|(_, p)| p.matched).min().unwrap_or(u64::MAX - 1)
    }

    /// Proposes `data`; it gets exactly [`RaftCore::next_index`] in the current term.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, Refusal> {
        // A follower would pass it on, where its offsets mean nothing.
        if !self.is_leader() {
            return Err(Refusal::NotLeader);
        }
        let index = self.next_index();
        match self.node.propose(Vec::new(), data) {
            Ok(()) if self.next_index() == index + 1 => Ok(index),
            Ok(()) => Err(Refusal::Busy),
            Err(_) if !self.is_leader() => Err(Refusal::NotLeader),
            Err(_) => Err(Refusal::Busy),
        }
    }

    /// Proposes a change of the members. One at a time: another is refused until this one is
    /// applied. Several changes go through joint consensus, which ends by itself.
    pub fn propose_members(&mut self, changes: &[Change]) -> Result<u64, MemberError> {
        if !self.is_leader() {
            return Err(MemberError::NotLeader);
        }
        self.members.check(changes)?;
        // The change would end this leader's work half-way.
        if members::takes_vote(changes, self.options.node) {
            return Err(MemberError::Leads);
        }
        if self.node.raft.has_pending_conf() || self.members.is_joint() {
            return Err(MemberError::Pending);
        }
        let index = self.next_index();
        let proposed = self
            .node
            .propose_conf_change(Vec::new(), members::to_raft(changes));
        match proposed {
            Ok(()) if self.next_index() == index + 1 => Ok(index),
            _ => Err(MemberError::Pending),
        }
    }

    /// Hands leadership to `to`, which must have a vote; proposals are refused until it leads or
    /// an election timeout has passed.
    pub fn transfer(&mut self, to: u64) -> Result<(), MemberError> {
        if !self.is_leader() {
            return Err(MemberError::NotLeader);
        }
        if !self.members.has_vote(to) {
            return Err(MemberError::NoVoter(to));
        }
        self.node.transfer_leader(to);
        Ok(())
    }

    /// A proposal would be taken: no transfer is under way and little is uncommitted. What waits
    /// does so where it is counted.
    pub fn has_room(&self) -> bool {
        !self.is_transferring() && self.node.raft.uncommitted_size() < MAX_UNCOMMITTED / 2
    }

    /// A transfer is under way.
    pub fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// A message to `peer` was not delivered.
    pub fn unreachable(&mut self, peer: u64) {
        self.node.report_unreachable(peer);
    }

    /// The snapshot sent to `peer` was installed there, or could not be.
    pub fn snapshot_sent(&mut self, peer: u64, installed: bool) {
        let status = match installed {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.node.report_snapshot(peer, status);
    }

    /// The write with this number, and every one before it, is on disk as it asked to be.
    pub fn persisted(&mut self, number: u64) {
        while self.open_writes.front().is_some_and(|n| *n <= number) {
            self.open_writes.pop_front();
        }
        self.node.on_persist_ready(number);
        while self.held.front().is_some_and(|(n, _)| *n <= number) {
            if let Some((_, messages)) = self.held.pop_front() {
                self.released.extend(messages);
            }
        }
    }

    /// Everything up to `index` was applied; the window may forget it.
    pub fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        self.node.mut_store().forget(index);
    }

    /// An entry of kind 1 or 2 is applied: raft goes by the new members from here on. Comes
    /// before [`RaftCore::applied`] of its index.
    pub fn apply_members(&mut self, entry: &LogEntry) -> Result<Members, String> {
        let change = members::from_entry(entry)?;
        if let Some(change) = change {
            let conf = self.node.apply_conf_change(&change);
            let conf = conf.map_err(|e| e.to_string())?;
            self.members = self.members.next(&conf);
            let keep = keep_bytes(&self.members, self.options.node);
            self.node.mut_store().keep(keep);
            if self.is_leader() && !self.members.has_vote(self.options.node) {
                // raft would go on leading a group it has no part in.
                let term = self.term();
                self.node.raft.become_follower(term, 0);
            }
        }
        Ok(self.members.clone())
    }

    /// The log was trimmed: it begins at `first` now.
    pub fn trimmed(&mut self, first: u64, term: u64) {
        self.node.mut_store().trimmed(first, term);
    }

    /// The answer to a [`Fetch`] from `from`. Empty when there is none now, or the log begins
    /// later meanwhile: raft asks again with the follower's next heartbeat.
    pub fn fetched(&mut self, from: u64, entries: &[LogEntry]) {
        let waiting = self.node.mut_store().put_fetched(from, entries);
        if entries.is_empty() {
            return;
        }
        for context in waiting {
            self.node.on_entries_fetched(context);
        }
        self.node.mut_store().drop_fetched();
    }

    /// Collects what must be done now.
    pub fn ready(&mut self, out: &mut RaftOutput) {
        let released = std::mem::take(&mut self.released);
        self.send(&released, out);
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            let number = ready.number();
            let now = self.marked(ready.take_messages());
            let held = self.marked(ready.take_persisted_messages());
            let entries = ready.take_entries();
            self.node.mut_store().append(&entries);
            out.committed
                .extend(ready.take_committed_entries().iter().map(from_raft));
            let changed = ready.hs().map(|hs| HardState {
                term: hs.term,
                vote: hs.vote,
                commit: hs.commit,
            });
            let must_sync = changed.is_some_and(|hs| {
                (hs.term, hs.vote) != (self.last_hard_state.term, self.last_hard_state.vote)
            });
            if let Some(hs) = changed {
                self.last_hard_state = hs;
            }
            self.node.advance_append_async(ready);
            self.send(&now, out);
            // A commit index alone rides along with the next write.
            if !entries.is_empty() || must_sync {
                self.open_writes.push_back(number);
                out.persist.push(PersistWork {
                    number,
                    entries: entries.iter().map(from_raft).collect(),
                    hard_state: Some(self.last_hard_state),
                    must_sync,
                });
            } else if self.open_writes.is_empty() {
                self.node.on_persist_ready(number);
            }
            match self.open_writes.back() {
                _ if held.is_empty() => {}
                Some(write) => self.held.push_back((*write, held)),
                None => self.send(&held, out),
            }
        }
        out.fetch.extend(self.node.store().new_fetches());
        let role = self.current_role();
        if self.role != Some(role) {
            if !matches!(role, Role::Leader { .. }) {
                self.node.mut_store().forget_asked();
            }
            self.role = Some(role);
            out.role = Some(role);
        }
        self.check_recovered();
        self.fix_election_timeout();
    }

    fn marked(&self, messages: Vec<Message>) -> Vec<Outgoing> {
        let mark = |m: Message| {
            let all = match m.get_msg_type() {
                kind if message::asks_vote(kind) => self.needs_all,
                kind if message::answers_vote(kind) => self.answer_all,
                _ => false,
            };
            (m, all)
        };
        messages.into_iter().map(mark).collect()
    }

    fn send(&self, messages: &[Outgoing], out: &mut RaftOutput) {
        for (m, all) in messages {
            let to_life = self.lives.get(&m.to).copied().unwrap_or(0);
            // Only a message beyond 2 GiB does not encode; entries are bounded far below.
            if let Some(bytes) = message::encode(m, (self.options.life, to_life), *all) {
                out.messages.push((m.to, bytes));
            }
        }
    }

    fn current_role(&self) -> Role {
        let term = self.node.raft.term;
        if self.is_leader() {
            Role::Leader { term }
        } else {
            Role::Follower {
                term,
                leader: self.node.raft.leader_id,
            }
        }
    }

    /// raft draws election timeouts from a thread-local source; replace them by a function of the
    /// seed, so that a run can be replayed.
    fn fix_election_timeout(&mut self) {
        let (term, state) = (self.node.raft.term, self.node.raft.state);
        if (self.drawn.0, self.drawn.1) != (term, state) {
            self.drawn = (term, state, self.drawn.2.wrapping_add(1));
        }
        let span = self.options.election_ticks as u64;
        let mut x = self.options.seed ^ (self.options.node << 32) ^ term ^ (self.drawn.2 << 48);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        self.timeout = (span + x % span) as usize;
        self.node.raft.set_randomized_election_timeout(self.timeout);
    }
}

/// What no correct store gives back.
fn check_log(start: &RaftStart) -> Result<(), String> {
    let (mut index, mut term) = start.applied;
    for e in &start.entries {
        if e.index != index + 1 || e.term < term {
            return Err(format!(
                "log entry {} of term {} follows entry {index} of term {term}",
                e.index, e.term
            ));
        }
        (index, term) = (e.index, e.term);
    }
    if term > start.hard_state.term {
        return Err(format!(
            "the log reaches term {term}, but the term known is {}",
            start.hard_state.term
        ));
    }
    Ok(())
}

/// A replica without others keeps nothing for them.
fn keep_bytes(members: &Members, node: u64) -> usize {
    match members.is_alone(node) {
        true => 0,
        false => KEEP_BYTES,
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
