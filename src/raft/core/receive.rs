//! Messages of other replicas, and what is checked before raft sees them.

use super::*;

impl RaftCore {
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

    pub(super) fn check_sender(&self, from: u64, kind: MessageType) -> Result<(), MessageError> {
        let known = self.node.raft.prs().get(from).is_some();
        // A member added by an entry not applied here may lead already, also one that was removed
        // before: what it says as a leader rests on a majority. Its wish to become one must not
        // disturb.
        let removed = self.members.removed.contains(&from);
        let newcomer = message::opens_a_talk(kind) && !(removed && message::asks_vote(kind));
        if known || newcomer {
            Ok(())
        } else {
            Err(MessageError::Stranger(from))
        }
    }

    pub(super) fn check_life(&mut self, from: u64, life: u64) -> Result<(), MessageError> {
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
    pub(super) fn check_state(&self, m: &mut Message) -> Result<(), MessageError> {
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
}
