//! From raft's output to effects, and the world's answers to them.

use super::*;

impl RaftCore {
    /// The write with this number, and every one before it, is on disk as it asked to be.
    pub fn persisted(&mut self, number: u64) {
        while self.open_writes.front().is_some_and(|(n, _)| *n <= number) {
            self.open_writes.pop_front();
        }
        self.node.on_persist_ready(number);
        if let Some((_, index)) = self.installing.take_if(|(n, _)| *n <= number) {
            // All it stands for counts as applied.
            self.node.advance_apply_to(index);
        }
        while self.held.front().is_some_and(|(n, _)| *n <= number) {
            if let Some((_, messages)) = self.held.pop_front() {
                self.released.extend(messages);
            }
        }
    }

    /// Everything up to `index` was applied; the window may forget it.
    pub fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        self.node.mut_store().forget(index);
    }

    /// An entry of kind 1 or 2 is applied: raft goes by the new members from here on. Comes
    /// before [`RaftCore::applied`] of its index.
    pub fn apply_members(&mut self, entry: &LogEntry) -> Result<Members, String> {
        let change = members::from_entry(entry)?;
        if let Some(change) = change {
            let conf = self.node.apply_conf_change(&change);
            let conf = conf.map_err(|e| e.to_string())?;
            self.members = self.members.next(&conf, &change);
            let keep = keep_bytes(&self.members, self.options.node);
            self.node.mut_store().keep(keep);
            // Who is new would find itself no member in it, pass over it, and be sent nothing more.
            self.node.mut_store().forget_offer();
            if self.is_leader() && !self.members.has_vote(self.options.node) {
                // raft would go on leading a group it has no part in.
                let term = self.term();
                self.node.raft.become_follower(term, 0);
            }
        }
        Ok(self.members.clone())
    }

    /// First index of the log.
    pub fn first_index(&self) -> u64 {
        self.node.store().first()
    }

    /// The log was trimmed: it begins at `first` now.
    pub fn trimmed(&mut self, first: u64, term: u64) {
        self.node.mut_store().trimmed(first, term);
    }

    /// The answer to a [`Fetch`] from `from`. Empty when there is none now, or the log begins
    /// later meanwhile: raft asks again with the follower's next heartbeat.
    pub fn fetched(&mut self, from: u64, entries: &[LogEntry]) {
        let waiting = self.node.mut_store().put_fetched(from, entries);
        if entries.is_empty() {
            return;
        }
        for context in waiting {
            self.node.on_entries_fetched(context);
        }
        self.node.mut_store().drop_fetched();
    }

    /// Collects what must be done now.
    pub fn ready(&mut self, out: &mut RaftOutput) {
        let released = std::mem::take(&mut self.released);
        self.send(&released, out);
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            let number = ready.number();
            for state in ready.take_read_states() {
                let stamp = <[u8; 8]>::try_from(&state.request_ctx[..]);
                if let Ok(stamp) = stamp.map(u64::from_be_bytes) {
                    let lease = self.lease_ms(stamp);
                    out.confirmed = out.confirmed.max(Some((stamp, lease)));
                }
            }
            let now = self.keep_snapshots(ready.take_messages());
            let now = self.marked(self.to_all_voters(now));
            let held = self.marked(self.to_all_voters(ready.take_persisted_messages()));
            let entries = ready.take_entries();
            let snapshot = self.take_snapshot(&ready, out);
            out.replaced.extend(self.node.mut_store().append(&entries));
            out.committed
                .extend(ready.take_committed_entries().iter().map(from_raft));
            let changed = ready.hs().map(|hs| HardState {
                term: hs.term,
                vote: hs.vote,
                commit: hs.commit,
            });
            let new_term = changed.is_some_and(|hs| {
                (hs.term, hs.vote) != (self.last_hard_state.term, self.last_hard_state.vote)
            });
            let must_sync = snapshot.is_some() || new_term;
            if let Some(hs) = changed {
                self.last_hard_state = hs;
            }
            self.node.advance_append_async(ready);
            // A commit index alone rides along with the next write.
            if !entries.is_empty() || must_sync {
                self.open_writes.push_back((number, new_term));
                self.installing = match &snapshot {
                    Some(snapshot) => Some((number, snapshot.index)),
                    None => self.installing,
                };
                out.persist.push(PersistWork {
                    number,
                    entries: entries.iter().map(from_raft).collect(),
                    hard_state: Some(self.last_hard_state),
                    must_sync,
                    snapshot,
                });
            } else if self.open_writes.is_empty() {
                self.node.on_persist_ready(number);
            }
            let early = self.options.has(Defect::SpeaksEarly) && self.is_leader(); // (planted)
            let held: Vec<Outgoing> = match self.writes_term() && !early {
                // (planted)
                true if self.options.has(Defect::AnswersEarly) => {
                    let all = now.into_iter().chain(held);
                    let (held, now): (Vec<_>, Vec<_>) = all.partition(|o| !o.hears_leader());
                    self.send(&now, out);
                    held
                }
                // Whatever it is: a sole voter leads before its term is on disk.
                true => now.into_iter().chain(held).collect(),
                false => {
                    self.send(&now, out);
                    let held = held.into_iter();
                    let (held, now): (Vec<_>, Vec<_>) = held.partition(|o| !o.hears_leader());
                    self.send(&now, out);
                    held
                }
            };
            match self.open_writes.back() {
                _ if held.is_empty() => {}
                Some((write, _)) => self.held.push_back((*write, held)),
                None => self.send(&held, out),
            }
        }
        if !self.writes_term() {
            self.send_parts(out);
        }
        out.fetch.extend(self.node.store().new_fetches());
        out.staged.append(&mut self.staged);
        let role = self.current_role();
        if self.role != Some(role) {
            if !matches!(role, Role::Leader { .. }) {
                self.node.mut_store().forget_asked();
            }
            self.role = Some(role);
            out.role = Some(role);
        }
        self.check_recovered();
        self.fix_election_timeout();
    }

    /// A term or vote is not on disk yet: what is said rests on it.
    fn writes_term(&self) -> bool {
        self.open_writes.iter().any(|(_, term)| *term)
    }

    /// The snapshot in a ready: the log begins behind it from here on.
    fn take_snapshot(&mut self, ready: &raft::Ready, out: &mut RaftOutput) -> Option<Snapshot> {
        let meta = ready.snapshot().get_metadata();
        let (index, term) = (meta.index, meta.term);
        if index == 0 {
            return None;
        }
        let data = Bytes::copy_from_slice(ready.snapshot().get_data());
        // It was checked when it came.
        let (members, base) = snapshot::decode(data, self.options.has(Defect::TrustsParts)).ok()?;
        let applied = self.node.raft.raft_log.applied;
        let gone = self.node.mut_store().restore(index, term, applied);
        out.replaced.extend(gone);
        self.members = members.clone();
        let keep = keep_bytes(&self.members, self.options.node);
        self.node.mut_store().keep(keep);
        Some(Snapshot {
            index,
            term,
            members,
            base,
        })
    }

    /// A follower needs what was trimmed: the answer is [`RaftCore::offer_snapshot`].
    pub fn wants_snapshot(&self) -> bool {
        self.is_leader() && self.node.store().wants_snapshot()
    }

    /// A state, for a follower that asked: as of an index that is not below that of the last entry
    /// trimmed, with the members of then.
    pub fn offer_snapshot(&mut self, members: &Members, base: &[u8]) {
        let data = snapshot::encode(members, base);
        let conf = members.to_raft();
        self.node.mut_store().offer_snapshot(data, conf);
    }

    pub(super) fn marked(&self, messages: Vec<Message>) -> Vec<Outgoing> {
        let mark = |m: Message| {
            let all = match m.get_msg_type() {
                kind if message::asks_vote(kind) => self.needs_all,
                kind if message::answers_vote(kind) => self.answer_all,
                MessageType::MsgAppend | MessageType::MsgHeartbeat => {
                    self.elected_by_all == Some(self.node.raft.term)
                }
                _ => false,
            };
            let vote = m.get_msg_type() == MessageType::MsgRequestVoteResponse;
            Outgoing {
                all,
                forgotten: self.forgotten,
                early: vote && !m.reject && self.promise.stands(),
                promise_ms: self.said_with(m.get_msg_type()),
                message: m,
            }
        };
        messages.into_iter().map(mark).collect()
    }

    pub(super) fn send(&self, messages: &[Outgoing], out: &mut RaftOutput) {
        for outgoing in messages {
            let m = &outgoing.message;
            let head = Head {
                store: self.options.store,
                sender_life: self.options.life,
                receiver_life: self.lives.get(&m.to).map_or(0, |(_, life)| *life),
                all: outgoing.all,
                forgotten: outgoing.forgotten,
                early: outgoing.early,
                promise_ms: outgoing.promise_ms,
            };
            // Only a message beyond 2 GiB does not encode; entries are bounded far below.
            if let Some(bytes) = message::encode(m, head) {
                out.messages.push((m.to, bytes));
            }
        }
    }

    pub(super) fn current_role(&self) -> Role {
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
}
