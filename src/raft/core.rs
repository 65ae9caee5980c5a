//! Raft of one shard as a pure core: ticks, messages, proposals and finished log writes in;
//! messages, log writes, committed entries and role changes out. A log write counts only when its
//! ticket comes back, and what a replica says as a follower or candidate leaves only when all it
//! wrote before is on disk. Only that it hears its leader it says at once, once its term and vote
//! are: quorum checks and leases must not go by the disks of others.
//!
//! A *life* is one start of a replica. A leader that hears of a new life forgets how far the
//! replica's log matched: with unsynced entries a machine crash may have taken some of it.
//!
//! A replica that may have lost entries it had acknowledged starts *recovering* (reliability §1
//! rule 4): it takes entries, but votes and stands only where every member votes, until it holds
//! an entry of the leader's own term that the leader, knowing of this life, called committed.
//! Its acknowledgements count: one for an entry proves the log up to it.
//!
//! A replica on a new or damaged store has *forgotten* besides what it promised in terms it does
//! not remember: its acknowledgements must not count either. It says so in every message. A leader
//! admits it as a learner, by an entry that names its store; it has its vote back once it has
//! caught up. Where nobody leads, all must elect a leader together, as in a new group: such a
//! leader has the vote of everyone who could know of a promise.
//!
//! *All* are those who have a vote by what is applied, and those who get one by a change of members that is in the
//! log and not applied. Such a one stands where the others ask it in vain, since its log is the newest.
//!
//! A store that forgot may have forgotten that the group grew: a replica that finds itself the only
//! voter there waits for a leader, or for word that there is no other replica ([`RaftCore::form`]).
//!
//! For a while after its start a replica gives no vote, as a follower that has just heard of its
//! leader: before the start it may have, and the leader's lease rests on that. See [`promise`].

mod catch_up;
mod election;
mod patience;
mod promise;
mod ready;
mod receive;
mod types;

pub use promise::LONGEST_PROMISE_MS;
pub use types::*;

use super::log_window::{from_raft, LogWindow, WindowStart};
use super::members::{self, Change, MemberError, Members};
use super::message::{self, Head, MessageError};
use super::slog_bridge;
use super::snapshot::{self, Snapshot};
use super::transfer::{Receiving, Sending, Stage, Staged};
use crate::model::outcome::Refusal;
use crate::storage::{HardState, LogEntry};
use bytes::Bytes;
use catch_up::Budget;
use patience::Patience;
use promise::{Heard, Promise};
use raft::eraftpb::{EntryType, Message, MessageType};
use raft::{Config, GetEntriesContext, ProgressState, RawNode, SnapshotStatus, StateRole};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bytes of applied entries kept in memory for followers that are a little behind.
const KEEP_BYTES: usize = 8 << 20;

/// Election timeouts for which an answer to a snapshot is waited for.
const SNAPSHOT_TIMEOUTS: usize = 10;

/// Ticks within which what waited for a replica that slept has been heard.
const DEAF_TICKS: usize = 4;

/// A learner this many entries behind has caught up.
const CAUGHT_UP: u64 = 256;

/// Longest entry. It goes to the others in one message, and links carry none beyond 32 MiB: one
/// that is longer could never be committed, and nothing behind it.
pub const MAX_ENTRY_BYTES: usize = 24 << 20;

/// Bytes of proposals a leader takes beyond those committed.
const MAX_UNCOMMITTED: usize = 256 << 20;

/// A message and what is known about it when it is said.
struct Outgoing {
    message: Message,
    /// It belongs to an election that needs every vote.
    all: bool,
    /// This replica had forgotten.
    forgotten: bool,
    /// A vote that breaks a promise.
    early: bool,
    /// What is said of promises.
    promise_ms: Option<u32>,
}

impl Outgoing {
    /// It says that the leader was heard, and nothing of a log.
    fn hears_leader(&self) -> bool {
        self.message.get_msg_type() == MessageType::MsgHeartbeatResponse
    }
}

/// See the module text.
pub struct RaftCore {
    node: RawNode<LogWindow>,
    options: RaftOptions,
    members: Members,
    last_hard_state: HardState,
    role: Option<Role>,
    /// Numbers of log writes handed out and not answered, oldest first, and whether they hold a
    /// new term or vote.
    open_writes: VecDeque<(u64, bool)>,
    /// Messages that wait for the log write with this number.
    held: VecDeque<(u64, Vec<Outgoing>)>,
    released: Vec<Outgoing>,
    /// Number of the write that installs a snapshot, and its index.
    installing: Option<(u64, u64)>,
    /// Ticks for which a snapshot to a peer was not answered.
    unanswered: BTreeMap<u64, usize>,
    /// Snapshots on their way, the one that comes in, and what is to be kept of it.
    sending: BTreeMap<u64, Sending>,
    receiving: Option<Receiving>,
    staged: Vec<Stage>,
    budget: Budget,
    /// The last store and life seen of each peer.
    lives: BTreeMap<u64, (u64, u64)>,
    /// See the module text.
    recovering: bool,
    /// See the module text.
    forgotten: bool,
    /// What had been synced was lost, see [`RaftCore::owed`].
    lost: bool,
    /// It was told at start that it recovers.
    marked: bool,
    /// Term in which this leader was elected by all.
    elected_by_all: Option<u64>,
    /// Stores of the peers then.
    electors: BTreeMap<u64, u64>,
    /// Members that say they have forgotten, and their stores; a leader admits them.
    strangers: BTreeMap<u64, u64>,
    /// Peers whose last message said that they have forgotten.
    still_forgotten: BTreeSet<u64>,
    /// A sole voter that must not stand for election: see the module text.
    lone: bool,
    /// See [`RaftCore::bar`].
    barred: bool,
    promise: Promise,
    patience: Patience,
    /// See [`RaftCore::unheard`].
    unheard: bool,
    /// Ticks for which nobody is asked to lead: see [`RaftCore::slept`].
    deaf: usize,
    /// Ticks since the start in which others could be heard.
    clock: u64,
    /// Term and tick of the last answer of each peer. raft notes these only from one of its checks
    /// for a quorum to the next, and has just forgotten them at each.
    answered: BTreeMap<u64, (u64, u64)>,
    /// A leader was known since the start.
    met_leader: bool,
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
    /// All were asked for their votes by who holds less than this replica, which has no vote that it knows of.
    called: bool,
    /// The same, and this replica may stand.
    waited_for: bool,
    /// Ticks until this replica campaigns because the leader's connection closed.
    hurry: Option<usize>,
    /// Ticks since the start, up to the end of all promises of before.
    age: usize,
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
            max_election_tick: Patience::most(options.election_ticks) + 1,
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
        let sole = members.is_sole_voter(options.node);
        let lone = sole && (start.unsure || options.forgotten) && !options.no_peers;
        // A replica that needs nobody's vote has nobody to wait for.
        let alone = sole && !lone;
        let marked = options.recovering || options.forgotten;
        let lost = options.forgotten && options.owed > 0;
        let recovering = marked && (!alone || lost);
        let forgotten = options.forgotten && (!alone || lost);
        let committed = start.hard_state.commit;
        let fresh = |staged: &Staged| staged.id.index > committed;
        let budget = Budget::new(options.snapshot_per_tick);
        let promise = Promise::new(match options.life {
            0 => 0,
            _ if options.has(Defect::ForgetsPromise) => 0, // (planted)
            _ => options.mute_ticks(),
        });
        let mut core = Self {
            node,
            options,
            members,
            last_hard_state: start.hard_state,
            role: None,
            open_writes: VecDeque::new(),
            held: VecDeque::new(),
            released: Vec::new(),
            installing: None,
            unanswered: BTreeMap::new(),
            sending: BTreeMap::new(),
            receiving: start.staged.filter(fresh).map(Receiving::restored),
            staged: Vec::new(),
            budget,
            lives: BTreeMap::new(),
            recovering,
            forgotten,
            lost,
            marked,
            elected_by_all: None,
            electors: BTreeMap::new(),
            strangers: BTreeMap::new(),
            still_forgotten: BTreeSet::new(),
            lone,
            barred: false,
            promise,
            patience: Patience::default(),
            unheard: false,
            deaf: 0,
            clock: 0,
            answered: BTreeMap::new(),
            met_leader: false,
            attempts: 0,
            needs_all: recovering,
            answer_all: false,
            confirmed: None,
            asked: (StateRole::Follower, 0),
            votes: BTreeMap::new(),
            called: false,
            waited_for: false,
            hurry: None,
            age: 0,
            timeout: usize::MAX,
            drawn: (0, StateRole::Follower, 0),
        };
        core.fix_election_timeout();
        Ok(core)
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

    /// Ticks without a leader until an election, at least.
    pub fn election_ticks(&self) -> usize {
        self.options.election_ticks
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

    /// Term, vote and commit index as last handed out to be written.
    pub fn hard_state(&self) -> HardState {
        self.last_hard_state
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

    /// Bytes of entries behind `index`, where they are in memory.
    pub fn bytes_behind(&self, index: u64) -> Option<u64> {
        self.node.store().bytes_behind(index)
    }

    /// How far the other replicas are; known to a leader only.
    pub fn progress(&self) -> Vec<PeerProgress> {
        if !self.is_leader() {
            return Vec::new();
        }
        let prs = self.node.raft.prs();
        let one = |(node, p): (&u64, &raft::Progress)| {
            let sending = self.sending.get(node).map(Sending::progress);
            let (snapshot_sent, snapshot_len) = sending.unwrap_or_default();
            PeerProgress {
                node: *node,
                matched: p.matched,
                behind: None,
                snapshot: p.state == ProgressState::Snapshot,
                snapshot_sent,
                snapshot_len,
                active: *node == self.options.node || self.has_answered(*node),
                voter: self.members.has_vote(*node),
            }
        };
        let mut all: Vec<_> = prs.iter().map(one).collect();
        all.sort_by_key(|p| p.node);
        all
    }

    /// The peer answered this leader within the last election timeout.
    fn has_answered(&self, peer: u64) -> bool {
        let timeout = self.options.election_ticks as u64;
        let recent = |(term, at): &(u64, u64)| *term == self.term() && self.clock - at <= timeout;
        self.answered.get(&peer).is_some_and(recent)
    }

    /// Proposes `data`; it gets exactly [`RaftCore::next_index`] in the current term.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, Refusal> {
        // A follower would pass it on, where its offsets mean nothing.
        if !self.is_leader() {
            return Err(Refusal::NotLeader);
        }
        if data.len() > MAX_ENTRY_BYTES {
            return Err(Refusal::Invalid(format!(
                "{} bytes are too much for one entry of the log",
                data.len()
            )));
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
        // The next one would wait for this leader's lease, and not for the one before.
        if !self.may_serve() {
            return Err(MemberError::NotLeader);
        }
        self.node.transfer_leader(to);
        Ok(())
    }

    /// Asks the others whether this replica still leads; [`RaftOutput::confirmed`] gives the stamp
    /// back once a majority said so. Nothing happens where it does not lead, or is about to hand
    /// leadership over: the next leader need not wait for anybody then.
    pub fn confirm(&mut self, stamp: u64) {
        if self.is_leader() && !self.is_transferring() {
            self.node.read_index(stamp.to_be_bytes().to_vec());
        }
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
