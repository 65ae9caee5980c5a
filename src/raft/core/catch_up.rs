//! Snapshots for followers that are far behind, in parts and no faster than allowed.

use super::*;
use crate::raft::transfer::{Answer, Receiving, Sending};

/// The bytes of snapshots a leader may send.
pub(super) struct Budget {
    /// What a tick adds; 0 for no limit.
    per_tick: u64,
    /// May be overdrawn by a part.
    left: i64,
}

impl Budget {
    pub fn new(per_tick: u64) -> Self {
        Self { per_tick, left: 0 }
    }

    fn has_some(&self) -> bool {
        self.per_tick == 0 || self.left > 0
    }

    fn spend(&mut self, bytes: usize) {
        if self.per_tick > 0 {
            self.left -= bytes as i64;
        }
    }

    /// What was not used is not saved up.
    fn tick(&mut self) {
        let more = i64::try_from(self.per_tick).unwrap_or(i64::MAX);
        self.left = self.left.saturating_add(more).min(more);
    }
}

impl RaftCore {
    /// A tick for what is under way to followers.
    pub(super) fn tick_catch_up(&mut self) {
        self.budget.tick();
        if !self.is_leader() {
            self.sending.clear();
            return self.unanswered.clear();
        }
        self.drop_finished();
        // Before the ticks of the transfers: after one none of them has just moved.
        self.repeat_snapshots();
        let patience = self.options.election_ticks;
        for (node, sending) in &mut self.sending {
            let waits = self.node.raft.prs().get(*node);
            if waits.is_some_and(|p| p.state == ProgressState::Snapshot) {
                sending.tick(patience);
            }
        }
    }

    /// What nobody waits for any more, or what would lead to an entry that is gone too.
    fn drop_finished(&mut self) {
        let first = self.node.store().first();
        let prs = self.node.raft.prs();
        let mut overtaken = Vec::new();
        self.sending.retain(|node, sending| {
            let index = sending.id().index;
            if index + 1 != first {
                overtaken.push(*node);
            }
            index + 1 == first && prs.get(*node).is_some_and(|p| p.matched < index)
        });
        for node in overtaken {
            self.node.report_snapshot(node, SnapshotStatus::Failure);
        }
    }

    /// A follower may have stopped waiting for its snapshot, or vanished.
    fn repeat_snapshots(&mut self) {
        let waiting: Vec<u64> = self
            .node
            .raft
            .prs()
            .iter()
            .filter(|(_, p)| p.state == ProgressState::Snapshot)
            .map(|(node, _)| *node)
            .collect();
        self.unanswered.retain(|node, _| waiting.contains(node));
        for node in waiting {
            let moves = self.sending.get(&node).is_some_and(|s| s.idle() == 0);
            let ticks = self.unanswered.entry(node).or_default();
            // Nobody can answer parts that may not go yet.
            let counts = usize::from(self.budget.has_some());
            *ticks = if moves { 0 } else { *ticks + counts };
            if *ticks > SNAPSHOT_TIMEOUTS * self.options.election_ticks {
                *ticks = 0;
                self.node.report_snapshot(node, SnapshotStatus::Failure);
            }
        }
    }

    /// Takes snapshots out of what raft sends: they go in parts. One that is on its way already
    /// goes on, so that what the follower holds is of use.
    pub(super) fn keep_snapshots(&mut self, messages: Vec<Message>) -> Vec<Message> {
        let mut out = Vec::with_capacity(messages.len());
        for m in messages {
            if m.get_msg_type() != MessageType::MsgSnapshot {
                out.push(m);
                continue;
            }
            let meta = m.get_snapshot().get_metadata();
            let (to, index, term) = (m.to, meta.index, m.term);
            match self.sending.get_mut(&to) {
                Some(known) if (known.id().index, known.term()) == (index, term) => known.ask(),
                _ => {
                    self.sending.insert(to, Sending::new(m));
                }
            }
        }
        out
    }

    /// Parts that may go now.
    pub(super) fn send_parts(&mut self, out: &mut RaftOutput) {
        let size = self.options.snapshot_part.max(1);
        let mut parts = Vec::new();
        let prs = self.node.raft.prs();
        for (node, sending) in &mut self.sending {
            let waits = prs.get(*node).map(|p| p.state);
            while waits == Some(ProgressState::Snapshot) && self.budget.has_some() {
                let Some(part) = sending.part(size) else {
                    break;
                };
                self.budget.spend(part.get_snapshot().get_data().len());
                parts.push(part);
            }
        }
        let parts = self.marked(parts);
        self.send(&parts, out);
    }

    /// A follower says what it holds of a snapshot.
    pub(super) fn hear_answer(&mut self, from: u64, m: &Message) {
        if !self.is_leader() || m.term != self.term() {
            return;
        }
        if let (Some(sending), Some(answer)) = (self.sending.get_mut(&from), Answer::of(m)) {
            sending.answered(&answer);
        }
    }

    /// Takes in a part of a snapshot. `Some` is the message raft is to see: with the whole of it,
    /// or where raft needs none of it.
    pub(super) fn take_part(&mut self, mut m: Message) -> Result<Option<Message>, MessageError> {
        // The one before is not on disk yet: it comes again.
        if self.installing.is_some() || m.term < self.term() {
            return Err(MessageError::Outdated(m.from));
        }
        if m.get_snapshot().get_metadata().index <= self.committed() {
            return Ok(Some(m));
        }
        let trusting = self.options.has(Defect::TrustsParts);
        let taken = Receiving::take(&mut self.receiving, &m, trusting);
        let received = taken.map_err(MessageError::Impossible)?;
        self.staged.extend(received.stage);
        let answer = self.marked(vec![received.answer.to_message(&m)]);
        self.released.extend(answer);
        Ok(received.whole.map(|whole| {
            m.mut_snapshot().set_data(whole);
            m
        }))
    }

    /// A follower that answers and gets on would need a snapshot, or another one, if the log began
    /// behind `last`.
    pub fn feeds_below(&self, last: u64) -> bool {
        let limit = SNAPSHOT_TIMEOUTS * self.options.election_ticks;
        let fed = |(node, p): (&u64, &raft::Progress)| {
            let moves = match p.state {
                ProgressState::Snapshot => self
                    .unanswered
                    .get(node)
                    .is_some_and(|ticks| *ticks < limit),
                _ => p.matched < last,
            };
            *node != self.options.node && moves && self.has_answered(*node)
        };
        self.is_leader() && self.node.raft.prs().iter().any(fed)
    }

    /// Bytes held of a snapshot that comes in, of how many.
    pub fn receiving(&self) -> Option<(u64, u64)> {
        self.receiving.as_ref().map(Receiving::progress)
    }
}
