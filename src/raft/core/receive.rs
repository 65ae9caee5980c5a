//! Messages of other replicas, and what is checked before raft sees them.

use super::*;

impl RaftCore {
    /// Takes in a message of the replica on node `from`.
    pub fn step(&mut self, from: u64, bytes: &Bytes) -> Result<(), MessageError> {
        let (head, m) = message::decode(bytes)?;
        message::check(self.options.node, from, &m)?;
        self.check_sender(from, m.get_msg_type(), head.all)?;
        self.check_life(from, &head)?;
        // Written for an earlier life of this replica: what it rests on may be gone.
        if head.receiver_life != 0
            && head.receiver_life != self.options.life
            && m.get_msg_type() == MessageType::MsgTimeoutNow
        {
            return Err(MessageError::Outdated(self.options.node));
        }
        let kind = m.get_msg_type();
        let mut m = match kind {
            MessageType::MsgSnapStatus => {
                self.hear_answer(from, &m);
                return Ok(());
            }
            MessageType::MsgSnapshot => match self.take_part(m)? {
                Some(whole) => whole,
                None => return Ok(()),
            },
            _ => m,
        };
        self.check_state(&mut m)?;
        let stands = self.may_campaign() && !self.recovering && self.deaf == 0;
        if !stands && kind == MessageType::MsgTimeoutNow {
            return Ok(());
        }
        if self.recovering && message::asks_vote(kind) && !head.all {
            return Ok(());
        }
        // In a vote's request it is the last index of the candidate's log.
        if message::asks_vote(kind) && self.owed().is_some_and(|owed| m.index < owed) {
            return Ok(());
        }
        // A request that was under way for long. The replica's store may be another since, and what the
        // one before promised after it is not known here.
        let of_old = head.receiver_life != self.options.life;
        if kind == MessageType::MsgRequestVote && head.all && of_old {
            return Ok(());
        }
        if self.keeps_a_promise(&m, head.all) {
            return Ok(());
        }
        if head.forgotten && !self.hear_stranger(&m, &head) {
            return Ok(());
        }
        if message::asks_vote(kind) {
            self.answer_all = head.all;
            if head.all {
                self.hear_call(&m);
            }
        }
        let confirms = self.recovering
            && kind == MessageType::MsgAppend
            && (head.receiver_life == self.options.life
                || self.options.has(Defect::AnyLifeConfirms)); // (planted)
        let confirmed = confirms.then_some((m.commit, m.term));
        let term = m.term;
        if self.is_leader() && term == self.term() && message::answers_leader(kind) {
            self.answered.insert(from, (term, self.clock));
            if kind == MessageType::MsgHeartbeatResponse {
                self.take_answer(from, &m, &head);
            }
        }
        let before = self.term();
        self.weigh(from, &m, &head);
        if self.needs_all && message::answers_vote(kind) && !m.reject {
            if head.all {
                self.vote(from, m);
            }
        } else {
            let _ = self.node.step(m);
        }
        let heard = Heard {
            from,
            kind,
            term,
            reads: head.promise_ms.is_some(),
        };
        self.weighed(Some(heard), before);
        self.check_elected(&head, from, kind, term);
        if let Some((commit, term)) = confirmed.filter(|(_, term)| *term == self.term()) {
            // It sent this after it heard of this life, and has committed in its own term.
            self.confirmed = self.confirmed.max(Some((term, commit)));
        }
        self.fix_election_timeout();
        Ok(())
    }

    pub(super) fn check_sender(
        &self,
        from: u64,
        kind: MessageType,
        all: bool,
    ) -> Result<(), MessageError> {
        let known = self.node.raft.prs().get(from).is_some();
        // A member added by an entry not applied here may lead already, also one that was removed
        // before: what it says as a leader rests on a majority. Its wish to become one must not
        // disturb, but where every vote is needed: it may be in again, by entries not known here, and
        // who knows that it is out has the longer log and refuses.
        let removed = self.members.removed.contains(&from);
        let newcomer =
            message::opens_a_talk(kind) && (all || !(removed && message::asks_vote(kind)));
        if known || newcomer {
            Ok(())
        } else {
            Err(MessageError::Stranger(from))
        }
    }

    /// A replica that has forgotten speaks. Returns whether raft may hear what it says: as long as
    /// its answers would count for a majority it may not.
    fn hear_stranger(&mut self, m: &Message, head: &Head) -> bool {
        let (from, kind) = (m.from, m.get_msg_type());
        // A question before an election, and a yes to it, name a term that nobody is in yet.
        let asks = kind == MessageType::MsgRequestPreVote
            || kind == MessageType::MsgRequestPreVoteResponse && !m.reject;
        let later = m.term > self.term() && !asks;
        let admitted = self.members.admitted.get(&from) == Some(&head.store);
        // It has voted for this leader with all others, and is about to hear of it; in a later term it
        // will not.
        let elector = self.elected_by_all == Some(self.term())
            && !later
            && self.electors.get(&from) == Some(&head.store);
        if self.is_leader() && !admitted && !elector {
            self.strangers.insert(from, head.store);
        }
        let elects = message::asks_vote(kind) || message::answers_vote(kind);
        match kind {
            MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse => {
                let counts = self.options.has(Defect::CountsForgotten); // (planted)
                admitted || !self.members.has_vote(from) || counts
            }
            _ => !elects || head.all,
        }
    }

    /// A leader that all have voted for, this replica among them, knows of every promise.
    fn check_elected(&mut self, head: &Head, from: u64, kind: MessageType, term: u64) {
        let raft = &self.node.raft;
        let leads = matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat);
        if self.forgotten && head.all && leads && (raft.term, raft.vote) == (term, from) {
            self.forgotten = false;
        }
    }

    pub(super) fn check_life(&mut self, from: u64, head: &Head) -> Result<(), MessageError> {
        if self.lives.len() > 1024 && !self.lives.contains_key(&from) {
            return Err(MessageError::Stranger(from));
        }
        let now = (head.store, head.sender_life);
        let known = self.lives.entry(from).or_insert(now);
        let admitted = self.members.admitted.get(&from) == Some(&head.store);
        let older = match known.0 == head.store {
            true => head.sender_life < known.1,
            // Stores are numbered by the time they were made.
            false => head.store < known.0 && !head.forgotten && !admitted,
        };
        if older {
            return Err(MessageError::Outdated(from));
        }
        match head.forgotten {
            true => self.still_forgotten.insert(from),
            false => self.still_forgotten.remove(&from),
        };
        if now != *known {
            *known = now;
            let last = self.node.raft.raft_log.last_index();
            let leads = self.is_leader() && !self.options.has(Defect::KeepsMatch); // (planted)
            if let Some(progress) = self.node.raft.mut_prs().get_mut(from).filter(|_| leads) {
                progress.matched = 0;
                progress.become_probe();
                progress.next_idx = last + 1;
            }
        }
        Ok(())
    }

    /// The term of a committed entry, which the leader has of term `theirs`. Terms that are not at hand are taken for
    /// the leader's, unless they cannot be: none is later than those behind it.
    fn own_term(&self, index: u64, theirs: u64) -> u64 {
        let window = self.node.store();
        let there = index + 1 >= window.first();
        match self.node.raft.raft_log.term(index) {
            Ok(own) if there => own,
            _ => theirs.min(window.term_before()),
        }
    }

    /// What raft would take for granted, and panic.
    pub(super) fn check_state(&self, m: &mut Message) -> Result<(), MessageError> {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        match m.get_msg_type() {
            // The leader may count on entries that a machine crash took.
            MessageType::MsgAppend if m.term >= raft.term && m.index <= self.committed() => {
                // raft would answer that it holds the leader's log up to there.
                let entries = m.get_entries().iter().map(|e| (e.index, e.term));
                let theirs = std::iter::once((m.index, m.log_term)).chain(entries);
                for (index, theirs) in theirs.take_while(|(i, _)| *i <= self.committed()) {
                    let own = self.own_term(index, theirs);
                    if own != theirs {
                        return Err(MessageError::OtherLog { index, own, theirs });
                    }
                }
            }
            MessageType::MsgHeartbeat => m.commit = m.commit.min(last),
            MessageType::MsgAppendResponse
                if raft.state == StateRole::Leader
                    && m.term == raft.term
                    && !m.reject
                    && m.index > last =>
            {
                return Err(MessageError::Impossible("an answer beyond the log's end"));
            }
            MessageType::MsgSnapshot => {
                let meta = m.get_snapshot().get_metadata();
                if meta.index <= self.committed() {
                    // raft says only how far this replica is.
                    return match self.node.raft.raft_log.match_term(meta.index, meta.term) {
                        false if meta.index == self.committed() => {
                            Err(MessageError::Impossible("a snapshot of another log"))
                        }
                        _ => Ok(()),
                    };
                }
                snapshot::check(m, self.options.has(Defect::TrustsParts))?;
                let members = m.get_snapshot().get_metadata().get_conf_state();
                // Who goes by a change that is under way has a vote until then, and all may wait for it.
                let own = [
                    members.get_voters(),
                    members.get_learners(),
                    members.get_voters_outgoing(),
                ];
                if !own.iter().any(|ids| ids.contains(&self.options.node)) {
                    return Err(MessageError::Impossible("a snapshot for others"));
                }
                // The one before is not on disk yet: it comes again.
                if self.installing.is_some() {
                    return Err(MessageError::Outdated(m.from));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
