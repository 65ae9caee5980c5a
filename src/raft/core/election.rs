//! Standing for election, votes, and the end of recovering.

use super::*;

impl RaftCore {
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
        self.weighed(None, 0);
        self.fix_election_timeout();
    }

    /// raft looks through what is committed and not applied before it stands: while a snapshot is
    /// being installed that begins before the log does. A single voter wins at once, which raft
    /// allows only with its whole log on disk, and which must not be where it may have been joined
    /// by others.
    pub(super) fn may_campaign(&self) -> bool {
        let sole_and_ready = self.open_writes.is_empty() && !self.lone;
        !self.barred
            && self.installing.is_none()
            && self.owed().is_none()
            && (!self.is_sole_voter() || sole_and_ready)
    }

    /// What this replica had synced and lost, up to this index, was acknowledged perhaps. A majority that
    /// did not lose it elects a leader without this replica's vote; a group that needs this vote would begin
    /// again with less, and waits for an operator's word.
    pub fn owed(&self) -> Option<u64> {
        let last = self.node.raft.raft_log.last_index();
        let owes = self.lost && self.options.owed > last;
        owes.then_some(self.options.owed)
    }

    /// This replica must not lead (`barred`), or may again. It follows and votes as before: its log
    /// is as good as any other.
    pub fn bar(&mut self, barred: bool) {
        self.barred = barred;
        // Nor may it win an election that it stands in.
        if barred && self.node.raft.state != StateRole::Follower {
            let term = self.term();
            self.node.raft.become_follower(term, 0);
        }
    }

    /// A sole voter that waits for a leader, or for word: see the module text.
    pub fn is_lone(&self) -> bool {
        self.lone
    }

    /// Word that the group has no other replica: an operator's, or that of all other nodes. A lone
    /// replica begins with what it has. Nothing happens to any other, nor to one that lost what it
    /// had synced ([`RaftCore::owed`]): there is less than there was, which is for a rescue.
    pub fn form(&mut self) {
        if self.lone && self.owed().is_none() {
            (self.lone, self.recovering, self.forgotten) = (false, false, false);
            self.lost = false;
            self.campaign();
        }
    }

    /// No other replica has a vote.
    pub fn is_sole_voter(&self) -> bool {
        self.members.is_sole_voter(self.options.node)
    }

    /// One tick of the shard's clock.
    pub fn tick(&mut self) {
        let counts = !std::mem::take(&mut self.unheard);
        self.clock += u64::from(counts);
        self.deaf = self.deaf.saturating_sub(1);
        self.promise.tick();
        self.age = (self.age + 1).min(self.options.mute_ticks());
        if counts {
            self.patience.tick(self.options.tick_ms);
        } else if self.is_leader() {
            // Signs of life go out as ever.
            let elapsed = &mut self.node.raft.election_elapsed;
            *elapsed = elapsed.saturating_sub(1);
        }
        if self.is_leader() || (counts && self.may_campaign()) {
            let raft = &self.node.raft;
            let idle = raft.state != StateRole::Leader && raft.promotable();
            if idle && raft.election_elapsed + 1 >= self.timeout {
                self.begins_election();
            }
            self.node.tick();
            self.weighed(None, 0);
            self.answer_the_call();
        } else if counts {
            // Who does not stand votes all the same, and no longer keeps to a leader that is silent.
            let elapsed = &mut self.node.raft.election_elapsed;
            *elapsed = (*elapsed).max((*elapsed + 1).min(self.options.election_ticks));
        }
        self.mend_members();
        self.tick_catch_up();
        if self.leader() != 0 {
            self.met_leader = true;
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

    /// Nothing that others said can have reached this replica since the last tick, whatever they
    /// said: the next tick is no time of silence.
    pub fn unheard(&mut self) {
        self.unheard = true;
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

    /// This replica was not ticked for an election timeout or longer. A transfer of leadership
    /// that was offered to it meanwhile has been given up, and to take it up would topple a
    /// leader that works.
    pub fn slept(&mut self) {
        self.deaf = DEAF_TICKS;
    }

    /// See the module text.
    pub fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// Told at start that it recovers: somebody keeps that mark until it has.
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// An operator's word that this replica is to vote with what it has.
    pub fn end_recovering(&mut self) {
        self.lost = false;
        self.recovering = false;
        self.forgotten = false;
    }

    /// A leader makes learners of members that lost their store, and gives them back their vote.
    fn mend_members(&mut self) {
        if !self.is_leader() {
            self.strangers.clear();
            return;
        }
        let busy = self.node.raft.has_pending_conf() || self.members.is_joint();
        if busy || self.is_transferring() || !self.has_room() {
            return;
        }
        let members = &self.members;
        self.strangers.retain(|node, store| {
            members.nodes().contains(node) && members.admitted.get(node) != Some(store)
        });
        if let Some((node, store)) = self.strangers.pop_first() {
            tracing::info!(
                node,
                store,
                "a member comes with a new store: it learns before it votes"
            );
            let change = members::admission(node, store);
            let _ = self.node.propose_conf_change(Vec::new(), change);
            return;
        }
        let committed = self.committed();
        let prs = self.node.raft.prs();
        let whole = |node: &&u64| {
            let store = self.lives.get(*node).map(|(store, _)| store);
            let caught_up = |p: &raft::Progress| p.matched + CAUGHT_UP >= committed;
            self.has_answered(**node)
                && store == self.members.admitted.get(*node)
                && !self.still_forgotten.contains(*node)
                && prs.get(**node).is_some_and(caught_up)
        };
        if let Some(node) = self.members.returning.iter().find(whole).copied() {
            tracing::info!(node, "a member that lost its store has its vote back");
            let change = members::to_raft(&[Change::AddVoter(node)]);
            let _ = self.node.propose_conf_change(Vec::new(), change);
        }
    }

    /// All were asked for their votes by a log that ends before the one here: see [`RaftCore::answer_the_call`].
    pub(super) fn hear_call(&mut self, m: &Message) {
        let log = &self.node.raft.raft_log;
        let ours = (log.last_term(), log.last_index());
        if (m.log_term, m.index) < ours {
            match self.node.raft.promotable() {
                true => self.waited_for = true,
                false => self.called = true,
            }
        }
    }

    /// raft lets only those stand that have a vote by what they have applied. Where every vote is needed, the newest
    /// log may be here, and the change that gives this replica its vote in that log, not applied: all wait for this
    /// replica then. With the votes of all by both counts, whoever has the newest log may lead.
    fn answer_the_call(&mut self) {
        let waits = self.node.raft.election_elapsed >= self.timeout;
        if !self.called || !waits || self.is_leader() {
            return;
        }
        let me = self.options.node;
        let known = self.node.raft.prs().get(me).is_some();
        let votes = self.all_voters().is_some_and(|all| all.contains(&me));
        if known && votes && !self.node.raft.promotable() {
            self.node.raft.election_elapsed = 0;
            self.campaign();
        }
        self.called = false;
    }

    /// Hands the votes to raft once every other voter has given one.
    pub(super) fn vote(&mut self, from: u64, m: Message) {
        let asked = (self.node.raft.state, m.term);
        // The answer to the question before the election may come late, and is no vote in it.
        let answers = match asked.0 {
            StateRole::PreCandidate => MessageType::MsgRequestPreVoteResponse,
            _ => MessageType::MsgRequestVoteResponse,
        };
        if m.get_msg_type() != answers {
            return;
        }
        if self.asked != asked {
            self.asked = asked;
            self.votes.clear();
        }
        self.votes.insert(from, m);
        let voted = |v: &u64| *v == self.options.node || self.votes.contains_key(v);
        let all = self.all_voters();
        if all.is_some_and(|all| all.iter().all(voted)) {
            for (_, m) in std::mem::take(&mut self.votes) {
                let _ = self.node.step(m);
            }
            if self.is_leader() {
                self.elected_by_all = Some(self.term());
                // Not who only learned: that one is none the wiser for this leader, and has to be admitted.
                let members = &self.members;
                let voted = self.lives.iter().filter(|(n, _)| members.has_vote(**n));
                self.electors = voted.map(|(n, (store, _))| (*n, *store)).collect();
            }
        }
    }

    /// Whoever has a vote as far as this replica has applied.
    fn voters(&self) -> BTreeSet<u64> {
        let members = &self.members;
        let all = members.voters.iter().chain(&members.voters_outgoing);
        all.copied().collect()
    }

    /// These, and whoever has a vote by a change of members that this replica holds and has not applied. The
    /// others may have gone on with that change. A voter that has forgotten everything votes for anybody, and machines
    /// that stopped may have lost what followed the change: only those that the change lets in know better.
    /// `None`: not known now.
    fn all_voters(&self) -> Option<BTreeSet<u64>> {
        let mut members = self.members.clone();
        let mut all = self.voters();
        let log = &self.node.raft.raft_log;
        let (first, last) = (log.applied + 1, log.last_index());
        if first > last {
            return Some(all);
        }
        let context = GetEntriesContext::empty(false);
        for entry in log.slice(first, last + 1, None, context).ok()? {
            if entry.get_entry_type() != EntryType::EntryNormal {
                members = members::replay(&members, &from_raft(&entry)).ok()?;
                all.extend(members.voters.iter().chain(&members.voters_outgoing));
            }
        }
        Some(all)
    }

    /// raft asks the voters that it goes by. Where every vote is needed the others are asked too.
    pub(super) fn to_all_voters(&self, mut messages: Vec<Message>) -> Vec<Message> {
        if !self.needs_all {
            return messages;
        }
        let asks = |m: &&Message| message::asks_vote(m.get_msg_type());
        let Some(question) = messages.iter().find(asks) else {
            return messages;
        };
        let mut others = self.all_voters().unwrap_or_default();
        others.remove(&self.options.node);
        for m in messages.iter().filter(asks) {
            others.remove(&m.to);
        }
        let copies: Vec<Message> = others
            .into_iter()
            .map(|to| Message {
                to,
                ..question.clone()
            })
            .collect();
        messages.extend(copies);
        messages
    }

    /// Ends recovering once the log holds what a leader confirmed.
    pub(super) fn check_recovered(&mut self) {
        if !self.recovering {
            return;
        }
        let leads = self.is_leader();
        let admitted = self.members.admitted.get(&self.options.node);
        if leads || (self.options.store != 0 && admitted == Some(&self.options.store)) {
            self.forgotten = false;
            self.lone = false;
        }
        let log = &self.node.raft.raft_log;
        let holds = self.confirmed.is_some_and(|(term, commit)| {
            term == self.node.raft.term && log.persisted >= commit && log.match_term(commit, term)
        });
        if leads || (holds && !self.forgotten) {
            self.recovering = false;
            self.lost = false;
            self.confirmed = None;
        }
    }

    /// A leader may rest on what this replica told it before it was restarted. One who hands
    /// leadership over rests on nothing, and where all must vote the leader is asked too.
    pub(super) fn keeps_a_promise(&self, m: &Message, all: bool) -> bool {
        message::asks_vote(m.get_msg_type())
            && !all
            && m.context[..] != *raft::CAMPAIGN_TRANSFER
            && self.options.life != 0
            && !self.options.has(Defect::ForgetsPromise) // (planted)
            && self.age < self.options.mute_ticks()
    }

    /// How the election that begins now is counted.
    pub(super) fn begins_election(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        // A majority may be recovering: then only all together can go on.
        let seen = self
            .members
            .voters
            .iter()
            .any(|v| self.still_forgotten.contains(v));
        let even = self.attempts.is_multiple_of(2);
        // Who asked all in vain waits for this replica, and can give its vote in no other election.
        let every_other = match std::mem::take(&mut self.waited_for) {
            true => !even,
            false => (seen || self.attempts > 3) && even,
        };
        self.needs_all = self.recovering || every_other;
        self.needs_all |= std::mem::take(&mut self.called);
        self.votes.clear();
    }

    /// raft draws election timeouts from a thread-local source; replace them by a function of the
    /// seed, so that a run can be replayed. Between one and two election timeouts, or longer where
    /// leaders were late (see [`patience`]); where all have just started, the preferred leader is
    /// first: it leads from the beginning when it is there.
    pub(super) fn fix_election_timeout(&mut self) {
        let (term, state) = (self.node.raft.term, self.node.raft.state);
        if (self.drawn.0, self.drawn.1) != (term, state) {
            self.drawn = (term, state, self.drawn.2.wrapping_add(1));
        }
        let span = self.options.election_ticks as u64;
        let mut x = self.options.seed ^ (self.options.node << 32) ^ term ^ (self.drawn.2 << 48);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let quarter = (span / 4).max(1);
        let wait = match self.options.voters.first() {
            _ if self.met_leader => x % span,
            Some(first) if *first == self.options.node => x % quarter,
            _ => 2 * quarter + x % span.saturating_sub(2 * quarter).max(1),
        };
        self.timeout = self.patience.ticks(span as usize) + wait as usize;
        self.node.raft.set_randomized_election_timeout(self.timeout);
    }
}
