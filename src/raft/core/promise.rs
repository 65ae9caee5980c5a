//! A follower that answered its leader has promised it an election timeout without another: the
//! leader's reads rest on that (its *lease*). Promises are broken on purpose: when the connection
//! to the leader closes, when the leader hands over, or where all vote together. A vote given while
//! the promise still stood says so, and a leader elected with one waits until no lease of the one
//! before can hold any more, unless that one was heard of in the new term: then it has stepped
//! down.

use super::*;

/// The promise this replica gave, and what it knows of others'.
#[derive(Default)]
pub(super) struct Promise {
    /// Ticks for which it stands.
    left: usize,
    /// Latest term in which a vote was given here that broke one.
    broken: u64,
    /// Term in which the leader before asked this replica to take over, that leader, and whether
    /// it was heard of in that term.
    handed: Option<(u64, u64, bool)>,
    /// Latest term in which this replica was elected.
    won: u64,
    /// Ticks until it may serve.
    wait: usize,
}

impl Promise {
    /// What a restarted replica promised before is not known.
    pub fn new(ticks: usize) -> Self {
        Self {
            left: ticks,
            ..Self::default()
        }
    }

    pub fn tick(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.wait = self.wait.saturating_sub(1);
    }

    /// It stands now.
    pub fn stands(&self) -> bool {
        self.left > 0
    }
}

impl RaftCore {
    /// A leader may answer and take writes: nobody else can still think that it leads.
    pub fn may_serve(&self) -> bool {
        self.is_leader() && self.promise.wait == 0
    }

    /// Ticks after which no lease of a leader holds that nobody answered meanwhile.
    pub fn lease_ticks(&self) -> usize {
        let own = (self.options.election_ticks * 3).div_ceil(4);
        own.saturating_sub(2).min(self.options.longest_lease)
    }

    /// Called before raft sees a message.
    pub(super) fn weigh(&mut self, from: u64, m: &Message, head: &Head) {
        if m.get_msg_type() == MessageType::MsgRequestVoteResponse && head.early && !m.reject {
            self.promise.broken = self.promise.broken.max(m.term);
        }
        if let Some((term, leader, heard)) = &mut self.promise.handed {
            if (*term, *leader) == (m.term, from) && !std::mem::replace(heard, true) {
                self.promise.wait = 0;
            }
        }
    }

    /// Called after it has, or after anything else that may decide an election. `before` is the
    /// term until then.
    pub(super) fn weighed(&mut self, heard: Option<(u64, MessageType, u64)>, before: u64) {
        let raft = &self.node.raft;
        if let Some((from, kind, term)) = heard {
            let leads = matches!(
                kind,
                MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
            );
            if leads && (raft.leader_id, raft.term) == (from, term) {
                self.promise.left = self.options.election_ticks;
            }
            let stands = kind == MessageType::MsgTimeoutNow && term == before;
            if stands && raft.term == before + 1 {
                self.promise.handed = Some((raft.term, from, false));
            }
        }
        let term = raft.term;
        if self.is_leader() && self.promise.won != term {
            self.promise.won = term;
            let all = self.elected_by_all == Some(term) || self.is_sole_voter();
            let early = self.promise.stands() || self.promise.broken == term;
            let gone = matches!(self.promise.handed, Some((t, _, true)) if t == term);
            // The first tick may come at once, and one half a tick late.
            self.promise.wait = match early && !all && !gone {
                true => self.lease_ticks() + 1,
                false => 0,
            };
        }
    }
}
