//! From what waits to an entry of the log.

use super::*;

/// With so many bytes of a delayed message and what goes before it an entry still has room for any command.
const LONGEST: usize = MAX_ENTRY_BYTES - (4 << 20);

impl ShardCore {
    /// Builds entries while writes may be opened.
    pub(super) fn flush(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        while self.wants_flush() {
            let before = self.appends.len()
                + self.schedules.len()
                + self.proposals.len()
                + self.orphans.len();
            self.propose_one(now_ms, out);
            let after = self.appends.len()
                + self.schedules.len()
                + self.proposals.len()
                + self.orphans.len();
            if after == before || self.failed.is_some() {
                break;
            }
        }
    }

    pub(super) fn propose_one(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let index = self.raft.next_index();
        let term = self.raft.term();
        let at_ms = now_ms.max(self.machine.last_at_ms).max(self.last_stamp_ms);
        self.last_stamp_ms = at_ms;
        let mut entry = EntryBuilder::new(index, at_ms, 256);
        let mut flight = InFlight {
            index,
            term,
            epoch: self.epoch,
            blocks: vec![],
            schedules: vec![],
            proposals: vec![],
            early_done: false,
            since: self.ticks,
            late: false,
        };
        let mut sync = self.take_appends(&mut entry, &mut flight, out);
        if self.failed.is_some() {
            // Half an entry must not reach the log.
            return;
        }
        // Appends may fill each entry for long: one delayed message and one command have their turn all the same.
        while let Some(s) = self.schedules.front() {
            let longest = match flight.schedules.is_empty() {
                true => LONGEST,
                false => self.options.max_entry_bytes,
            };
            let full = entry.len() + s.record.len() > longest && !entry.is_empty();
            if !entry.has_room(1) || full {
                break;
            }
            let Some(s) = self.schedules.pop_front() else {
                break;
            };
            let rule = ack::rule(s.policy);
            sync |= rule.sync;
            let position = entry.schedule(s.due_ms, s.target, s.tag, &s.record);
            flight.schedules.push((s.token, position, rule.stage));
        }
        while flight.proposals.is_empty() || entry.len() < self.options.max_entry_bytes {
            let Some((id, mut op)) = self.proposals.pop_front() else {
                break;
            };
            if let MetaOp::Locks(change) = &mut op {
                change.at_ms = at_ms;
            }
            // Metadata is synced in every class (reliability §1 rule 1).
            sync = true;
            entry.meta(&MetaCommand::from(op));
            flight.proposals.push(id);
        }
        for timer in self.orphans.drain(..) {
            // No message's class speaks for it, and where all classes are synced a machine's stop
            // must not take an entry that was committed.
            sync = true;
            entry.fired(timer);
        }
        if entry.is_empty() {
            return;
        }
        if sync {
            entry.sync();
        }
        let early = |(_, _, stage): &(Token, Position, Stage)| *stage == Stage::Appended;
        if flight.blocks.iter().any(|b| b.early) || flight.schedules.iter().any(early) {
            entry.early();
        }
        match self.raft.propose(entry.finish()) {
            Ok(at) if at == index => {
                if self.options.defect == Some(Defect::AckBeforeWrite) {
                    // (planted)
                    Self::answer(&mut flight, Stage::Committed, out);
                }
                if self.options.defect == Some(Defect::MetaWhenProposed) {
                    // (planted)
                    for id in flight.proposals.drain(..) {
                        let result = Ok(index);
                        out.push(Effect::Proposal { id, result });
                    }
                }
                self.in_flight.push_back(flight);
                self.drive(out);
            }
            // Nothing else is to blame, and the offsets given out behind it go with the epoch.
            Err(why @ Refusal::Invalid(_)) => {
                self.abandon(flight, why, out);
                self.stop_serving(out);
            }
            // Raft refuses only when it does not lead, or holds too much uncommitted: the offsets
            // given out cannot be kept, so the queues start over.
            Ok(_) | Err(_) => {
                self.stop_serving(out);
                self.abandon(flight, Refusal::NotLeader, out);
            }
        }
    }

    /// Moves waiting appends into the entry, one block per queue. Returns whether one wants a sync.
    pub(super) fn take_appends(
        &mut self,
        entry: &mut EntryBuilder,
        flight: &mut InFlight,
        out: &mut Vec<Effect>,
    ) -> bool {
        // A queue's proposals of one wake, and further pieces of their records.
        let mut merged: Vec<(AppendProposal, Vec<Vec<u8>>)> = Vec::new();
        let mut at: BTreeMap<QueueKey, usize> = BTreeMap::new();
        let (mut bytes, mut records) = (0, 0);
        while let Some(next) = self.appends.front() {
            let full = bytes > 0 && bytes + next.records.len() > self.options.max_entry_bytes;
            // A delayed message takes a place, too.
            let kept = usize::from(records > 0 && !self.schedules.is_empty());
            if full || !entry.has_room(records + next.metas.len() + kept) {
                break;
            }
            let Some(next) = self.appends.pop_front() else {
                break;
            };
            bytes += next.records.len();
            records += next.metas.len();
            match at.get(&next.key) {
                Some(i) => {
                    let (block, more) = &mut merged[*i];
                    block.metas.extend(next.metas);
                    block.sync |= next.sync;
                    block.early |= next.early;
                    block.fired.extend(next.fired);
                    more.push(next.records);
                }
                None => {
                    at.insert(next.key, merged.len());
                    merged.push((next, Vec::new()));
                }
            }
        }
        entry.reserve(bytes, records, merged.len());
        let mut sync = false;
        for (mut p, mut more) in merged {
            more.insert(0, std::mem::take(&mut p.records));
            match entry.append_parts(p.key, p.base, &p.metas, &more) {
                Ok(first) => flight.blocks.push(Block {
                    key: p.key,
                    base: p.base,
                    first,
                    tags: p.metas.iter().map(|m| m.tag).collect(),
                    early: p.early,
                }),
                // The gateway encodes whole records only; anything else is a defect here.
                Err(error) => return self.fail(error.to_string(), out) && sync,
            }
            sync |= p.sync;
            for timer in p.fired {
                entry.fired(timer);
            }
        }
        sync
    }
}
