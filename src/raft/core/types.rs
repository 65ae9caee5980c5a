//! What goes into the core and comes out of it.

use crate::raft::log_window::Fetch;
use crate::raft::members::Members;
use crate::raft::snapshot::Snapshot;
use crate::raft::transfer::{Stage, Staged};
use crate::storage::{HardState, LogEntry};
use bytes::Bytes;

/// Fixed settings of a replica.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// This node's id, never 0.
    pub node: u64,
    /// Voters of a new shard, the preferred leader first; one that was started before knows its
    /// members itself.
    pub voters: Vec<u64>,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// Length of a tick, ms: replicas may tick differently, and tell each other times.
    pub tick_ms: u64,
    /// Ticks for which a follower that heard its leader gives no vote to others, or says so in it.
    /// The leader's lease rests on that. No more than [`LONGEST_PROMISE_MS`] counts.
    pub promise_ticks: usize,
    /// Counts the starts of this replica; grows with every start. 0: not counted.
    pub life: u64,
    /// The machine stopped uncleanly with unsynced entries written, and this replica was not told
    /// since that it holds all again: see the module text. Needs a life above 0.
    pub recovering: bool,
    /// The store is new, or lost what was synced: votes and promises of this replica may be
    /// forgotten with it. Implies `recovering`.
    pub forgotten: bool,
    /// The last index that this replica had synced before its store lost it; 0: nothing that is known of.
    /// Until its log reaches so far it helps nobody to lead with less: see `owed`.
    pub owed: u64,
    /// The node is none of a cluster: nobody can have joined the group meanwhile.
    pub no_peers: bool,
    /// A number that no other store of this node has; 0: not known.
    pub store: u64,
    /// Seeds election timeouts, so that a simulation replays them.
    pub seed: u64,
    /// Raft's own log lines are dropped.
    pub quiet: bool,
    /// Bytes of a snapshot that go in one message.
    pub snapshot_part: u64,
    /// Bytes of snapshots a leader sends a tick; 0 for no limit.
    pub snapshot_per_tick: u64,
    /// A deliberate defect the simulator must find; never set by a product.
    pub defect: Option<Defect>,
}

/// Deliberate defects, to prove that the simulator's checkers can see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Checksums of snapshots are not looked at.
    TrustsParts,
    /// A leader speaks before its own term is on its disk.
    SpeaksEarly,
    /// A leader takes its followers' promises for as long as its own.
    GuessesPromises,
    /// Acknowledgements of a member that has forgotten count.
    CountsForgotten,
    /// Recovering ends by a leader's word that was meant for an earlier life.
    AnyLifeConfirms,
    /// A replica that was restarted gives votes as if it had promised nothing before.
    ForgetsPromise,
    /// A leader is answered before the term in which it is followed is on disk.
    AnswersEarly,
    /// A leader goes on counting what a replica held in an earlier life.
    KeepsMatch,
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
            no_peers: voters == [node],
            voters,
            election_ticks: 10,
            heartbeat_ticks: 2,
            tick_ms: 100,
            promise_ticks: 10,
            life: 0,
            recovering: false,
            forgotten: false,
            owed: 0,
            store: 0,
            seed,
            quiet: false,
            snapshot_part: 256 << 10,
            snapshot_per_tick: 0,
            defect: None,
        }
    }

    /// This defect is planted.
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
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
    /// They are those of the configuration, and the store of an earlier version, which kept no others,
    /// holds entries: there may be more of them.
    pub unsure: bool,
    /// A snapshot that was coming in.
    pub staged: Option<Staged>,
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
    /// To be installed before the entries are written.
    pub snapshot: Option<Snapshot>,
}

/// Effects of one step. Persist and send may go at once and in any order between them.
#[derive(Debug, Default)]
pub struct RaftOutput {
    pub role: Option<Role>,
    /// Receiver and bytes. May be lost, late, doubled or reordered on the way.
    pub messages: Vec<(u64, Bytes)>,
    pub persist: Vec<PersistWork>,
    pub committed: Vec<LogEntry>,
    /// Entries that another leader's replace: nobody will ever commit them.
    pub replaced: Vec<LogEntry>,
    /// Log entries to read for a follower that is behind.
    pub fetch: Vec<Fetch>,
    /// What came of a snapshot, to be kept beside the state. Need not be synced.
    pub staged: Vec<Stage>,
    /// A majority followed this leader after [`RaftCore::confirm`] was called with this stamp, and
    /// nobody else is elected unnoticed for so many ms from then.
    pub confirmed: Option<(u64, u64)>,
}

impl RaftOutput {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.role.is_none()
            && self.messages.is_empty()
            && self.persist.is_empty()
            && self.committed.is_empty()
            && self.replaced.is_empty()
            && self.fetch.is_empty()
            && self.staged.is_empty()
            && self.confirmed.is_none()
    }
}

/// What a leader knows of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProgress {
    pub node: u64,
    /// Last index known to be in its log.
    pub matched: u64,
    /// Bytes of entries that it is not known to have; `None` when that is not at hand.
    pub behind: Option<u64>,
    /// It waits for a snapshot.
    pub snapshot: bool,
    /// Bytes it holds of one that is on its way to it, of how many; 0 for none.
    pub snapshot_sent: u64,
    pub snapshot_len: u64,
    /// It has answered within the last election timeout.
    pub active: bool,
    pub voter: bool,
}
