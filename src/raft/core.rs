//! Raft of one shard as a pure core: ticks, proposals and finished log writes in; log writes,
//! committed entries and role changes out. A log write counts only when its ticket comes back.

use super::log_window::{from_raft, LogWindow};
use super::slog_bridge;
use crate::model::outcome::Refusal;
use crate::storage::{HardState, LogEntry};
use raft::{Config, RawNode, StateRole};

/// Fixed settings of a replica.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// This node's id, never 0.
    pub node: u64,
    pub voters: Vec<u64>,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// Seeds election timeouts, so that a simulation replays them.
    pub seed: u64,
    /// Raft's own log lines are dropped.
    pub quiet: bool,
}

impl RaftOptions {
    /// A shard with one voter.
    pub fn single(node: u64, seed: u64) -> Self {
        Self {
            node,
            voters: vec![node],
            election_ticks: 10,
            heartbeat_ticks: 2,
            seed,
            quiet: false,
        }
    }
}

/// What was found on disk. `entries` follow `applied` without a gap, up to the log's end.
#[derive(Debug, Clone, Default)]
pub struct RaftStart {
    pub hard_state: HardState,
    /// Last applied index and its term.
    pub applied: (u64, u64),
    pub entries: Vec<LogEntry>,
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

/// Effects of one step, in the order they must happen.
#[derive(Debug, Default)]
pub struct RaftOutput {
    pub role: Option<Role>,
    pub persist: Vec<PersistWork>,
    pub committed: Vec<LogEntry>,
}

/// See the module text.
pub struct RaftCore {
    node: RawNode<LogWindow>,
    options: RaftOptions,
    last_hard_state: HardState,
    role: Option<Role>,
    /// Largest ready number handed out, and whether an unanswered write is out.
    open_writes: usize,
}

impl RaftCore {
    /// Starts from what the disk holds. Fails only on settings that cannot work.
    pub fn new(options: RaftOptions, start: RaftStart) -> Result<Self, String> {
        let window = LogWindow::new(
            start.applied,
            &start.entries,
            start.hard_state,
            options.voters.clone(),
        );
        let config = Config {
            id: options.node,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            applied: start.applied.0,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: 256 << 20,
            max_committed_size_per_ready: 8 << 20,
            ..Config::default()
        };
        let logger = slog_bridge::logger(options.quiet);
        let node = RawNode::new(&config, window, &logger).map_err(|e| e.to_string())?;
        let mut core = Self {
            node,
            options,
            last_hard_state: start.hard_state,
            role: None,
            open_writes: 0,
        };
        core.fix_election_timeout();
        Ok(core)
    }

    /// Stands for election now; a single voter need not wait for a timeout.
    pub fn campaign(&mut self) {
        if let Err(error) = self.node.campaign() {
            tracing::debug!(%error, "campaign refused");
        }
        self.fix_election_timeout();
    }

    /// One tick of the shard's clock.
    pub fn tick(&mut self) {
        self.node.tick();
        self.fix_election_timeout();
    }

    /// This replica leads (though it may not have applied its first entry yet).
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
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
        self.open_writes
    }

    /// Proposes `data`; it gets exactly [`RaftCore::next_index`] in the current term.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, Refusal> {
        let index = self.next_index();
        match self.node.propose(Vec::new(), data) {
            Ok(()) if self.next_index() == index + 1 => Ok(index),
            Ok(()) => Err(Refusal::Busy),
            Err(_) if !self.is_leader() => Err(Refusal::NotLeader),
            Err(_) => Err(Refusal::Busy),
        }
    }

    /// The write with this number, and every one before it, is on disk as it asked to be.
    pub fn persisted(&mut self, number: u64) {
        self.open_writes = self.open_writes.saturating_sub(1);
        self.node.on_persist_ready(number);
    }

    /// Everything up to `index` was applied; the window forgets it.
    pub fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        // A single voter never sends old entries to anyone.
        self.node.mut_store().forget(index);
    }

    /// Collects what must be done now.
    pub fn ready(&mut self, out: &mut RaftOutput) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            let number = ready.number();
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
            // A commit index alone rides along with the next write.
            if entries.is_empty() && !must_sync {
                if self.open_writes == 0 {
                    self.node.on_persist_ready(number);
                }
                continue;
            }
            self.open_writes += 1;
            out.persist.push(PersistWork {
                number,
                entries: entries.iter().map(from_raft).collect(),
                hard_state: Some(self.last_hard_state),
                must_sync,
            });
        }
        let role = self.current_role();
        if self.role != Some(role) {
            self.role = Some(role);
            out.role = Some(role);
        }
        self.fix_election_timeout();
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
        let span = self.options.election_ticks as u64;
        let mut x = self.options.seed ^ (self.options.node << 32) ^ self.node.raft.term;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        self.node
            .raft
            .set_randomized_election_timeout((span + x % span) as usize);
    }
}
