//! A follower that answered its leader has promised it to give no vote to others for a while: the
//! leader's reads rest on that (its *lease*). Replicas may have other settings, and clocks that do
//! not run alike. So every answer says for how long the promise holds, and a leader goes by what a
//! majority of its followers said, less what clocks may differ in.
//!
//! Promises are broken on purpose: when the connection to the leader closes, when the leader hands
//! over, or where all vote together. A vote given while the promise still stood says so, and what
//! was left of it. A leader elected with one waits that long, unless the leader before was heard of
//! in the new term: then it has stepped down.
//!
//! Replicas of a version that says nothing of promises go by their own election timeout, in the
//! hope that all have the same; so do replicas of this one with them.

use super::*;

/// No promise is longer: a replica that was restarted does not know which one it gave, and keeps
/// this one.
pub const LONGEST_PROMISE_MS: u64 = 1_000;

/// A lease is this part of a promise: one clock may run at 0.8 of its speed, another at 1.25.
const LEASE: (u64, u64) = (5, 8);

/// The longest lease of a leader of a version that says nothing of promises.
const SILENT_LEASE_MS: u64 = 1_000;

/// What a follower of such a version promises, unless it was set otherwise.
const SILENT_PROMISE_MS: u64 = 250;

/// The promise this replica gave, and what it knows of others'.
#[derive(Default)]
pub(super) struct Promise {
    /// Ticks for which it stands.
    left: usize,
    /// Latest term in which a vote was given here that broke one, and for how many ms a lease may
    /// have rested on it then.
    broken: (u64, u64),
    /// Term in which the leader before asked this replica to take over, that leader, and whether
    /// it was heard of in that term.
    handed: Option<(u64, u64, bool)>,
    /// Latest term in which this replica was elected.
    won: u64,
    /// Ticks until it may serve.
    wait: usize,
    /// What followers answered last, by node.
    answers: BTreeMap<u64, Answered>,
}

/// A follower's answer to a question for its allegiance ([`RaftCore::confirm`]).
struct Answered {
    term: u64,
    stamp: u64,
    promise_ms: u64,
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

impl RaftOptions {
    /// Ticks that last for so long at least.
    fn ticks(&self, ms: u64) -> usize {
        usize::try_from(ms.div_ceil(self.tick_ms.max(1))).unwrap_or(usize::MAX)
    }

    fn ms(&self, ticks: usize) -> u64 {
        self.tick_ms.saturating_mul(ticks as u64)
    }

    fn promise(&self) -> usize {
        self.promise_ticks.min(self.ticks(LONGEST_PROMISE_MS))
    }

    /// Ticks for which a leader's lease may rest on an answer where nothing is said of it.
    fn silent_promise(&self) -> usize {
        let longest = self.ticks(SILENT_LEASE_MS.saturating_mul(4) / 3);
        self.election_ticks.min(longest)
    }

    /// Ticks after a start for which no vote is given.
    pub(super) fn mute_ticks(&self) -> usize {
        self.ticks(LONGEST_PROMISE_MS).max(self.silent_promise())
    }
}

impl RaftCore {
    /// A leader may answer and take writes: nobody else can still think that it leads.
    pub fn may_serve(&self) -> bool {
        self.is_leader() && self.promise.wait == 0
    }

    /// Ticks for which this replica keeps a promise to its leader.
    pub fn promise_ticks(&self) -> usize {
        self.options.promise()
    }

    /// What a message of this kind says of promises.
    pub(super) fn said_with(&self, kind: MessageType) -> Option<u32> {
        let ms = match kind {
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot => 0,
            MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse => {
                self.own_promise_ms()
            }
            MessageType::MsgRequestVoteResponse => self.options.ms(self.promise.left),
            _ => return None,
        };
        Some(u32::try_from(ms).unwrap_or(u32::MAX))
    }

    /// What it lasts at least: the first tick may come at once, and the next half a tick after it.
    fn own_promise_ms(&self) -> u64 {
        let halves = (2 * self.options.promise()).saturating_sub(3);
        self.options.ms(halves) / 2
    }

    /// Milliseconds from the time of this stamp in which no other leader is elected, or it waits:
    /// what a majority promised after it was asked, less what clocks may differ in.
    pub(super) fn lease_ms(&self, stamp: u64) -> u64 {
        let term = self.term();
        if self.options.has(Defect::GuessesPromises) {
            return self.options.ms(self.options.promise_ticks) / 4 * 3; // (planted)
        }
        let answers = self.promise.answers.iter();
        let since = answers.filter(|(_, a)| a.term == term && a.stamp >= stamp);
        let mut promises: Vec<(u64, u64)> = since.map(|(n, a)| (a.promise_ms, *n)).collect();
        // Whoever leads does not vote for others before it has ceased to.
        promises.push((u64::MAX, self.options.node));
        promises.sort_unstable_by(|a, b| b.cmp(a));
        let mut counted = BTreeSet::new();
        for (promise_ms, node) in promises {
            counted.insert(node);
            if self.members.are_quorum(&counted) {
                // A sole voter promises itself as much as others would.
                return promise_ms.min(self.own_longest_ms()) * LEASE.0 / LEASE.1;
            }
        }
        0
    }

    /// No lease rests on more, whatever others say.
    fn own_longest_ms(&self) -> u64 {
        match self.is_sole_voter() {
            true => self.own_promise_ms(),
            false => LONGEST_PROMISE_MS,
        }
    }

    /// A follower answered this leader in its term.
    pub(super) fn take_answer(&mut self, from: u64, m: &Message, head: &Head) {
        let Ok(stamp) = <[u8; 8]>::try_from(&m.context[..]) else {
            return;
        };
        let silent = || {
            let election = self.options.ms(self.options.election_ticks);
            election
                .min(SILENT_PROMISE_MS)
                .saturating_sub(self.options.tick_ms)
        };
        let promise_ms = head.promise_ms.map_or_else(silent, u64::from);
        let answer = Answered {
            term: m.term,
            stamp: u64::from_be_bytes(stamp),
            promise_ms,
        };
        // Answers may overtake each other.
        let newer = |old: &Answered| (old.term, old.stamp) >= (answer.term, answer.stamp);
        if !self.promise.answers.get(&from).is_some_and(newer) {
            self.promise.answers.insert(from, answer);
        }
    }

    /// Called before raft sees a message.
    pub(super) fn weigh(&mut self, from: u64, m: &Message, head: &Head) {
        if m.get_msg_type() == MessageType::MsgRequestVoteResponse && head.early && !m.reject {
            let silent = self.options.ms(self.options.silent_promise());
            let left = head.promise_ms.map_or(silent, u64::from);
            self.promise.broken = match self.promise.broken {
                (term, _) if term < m.term => (m.term, left),
                (term, known) if term == m.term => (term, known.max(left)),
                newer => newer,
            };
        }
        if let Some((term, leader, heard)) = &mut self.promise.handed {
            if (*term, *leader) == (m.term, from) && !std::mem::replace(heard, true) {
                self.promise.wait = 0;
            }
        }
    }

    /// A leader was heard that reads promises, or one of an earlier version.
    fn promises(&mut self, reads: bool) {
        let ticks = match reads {
            true => self.options.promise(),
            false => self.options.promise().max(self.options.silent_promise()),
        };
        self.promise.left = self.promise.left.max(ticks);
    }

    /// Called after it has, or after anything else that may decide an election. `before` is the
    /// term until then.
    pub(super) fn weighed(&mut self, heard: Option<Heard>, before: u64) {
        let raft = &self.node.raft;
        if let Some(Heard {
            from,
            kind,
            term,
            reads,
        }) = heard
        {
            let leads = matches!(
                kind,
                MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
            );
            let stands = kind == MessageType::MsgTimeoutNow && term == before;
            if stands && raft.term == before + 1 {
                self.promise.handed = Some((raft.term, from, false));
            }
            if leads && (raft.leader_id, raft.term) == (from, term) {
                self.promises(reads);
                self.patience.heard(term);
            }
        }
        let term = self.term();
        if self.is_leader() && self.promise.won != term {
            self.promise.won = term;
            let all = self.elected_by_all == Some(term) || self.is_sole_voter();
            let gone = matches!(self.promise.handed, Some((t, _, true)) if t == term);
            let others = match self.promise.broken {
                (t, left) if t == term => self.options.ticks(left),
                _ => 0,
            };
            let early = self.promise.left.max(others);
            // The first tick may come at once, and the next half a tick after it.
            self.promise.wait = match early > 0 && !all && !gone {
                true => early + 2,
                false => 0,
            };
        }
    }
}

/// A message that was heard.
pub(super) struct Heard {
    pub from: u64,
    pub kind: MessageType,
    pub term: u64,
    /// It says something of promises.
    pub reads: bool,
}
