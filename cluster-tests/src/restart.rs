//! A node begins again with what its disk holds.

use crate::defects::Planted;
use crate::node::Node;
use crate::schedule::Event;
use crate::seen::Seen;
use crate::sim::Sim;
use crate::view::{self, View};
use troupemq::actors::shard::core::{Patience, Quotas, ShardCore, ShardInput, ShardOptions};
use troupemq::actors::shard::machine::MachineOptions;
use troupemq::actors::shard::recover::{recover, RecoverError, Recovery};
use troupemq::actors::timer::core::TimerCore;
use troupemq::model::QueueKey;
use troupemq::raft::members::Members;
use troupemq::raft::{Defect, RaftOptions};
use troupemq::storage::keys::index::IndexRow;
use troupemq::storage::{keys, StateBatch, StateOp, StateStore};

/// Events until a crash that is to come before much is on disk.
pub(crate) const SOON: u64 = 80;

impl Sim {
    fn options(&self) -> ShardOptions {
        let defect = match self.defect {
            Some(Planted::Core(defect)) => Some(defect),
            _ => None,
        };
        ShardOptions {
            shard: crate::SHARD,
            max_entry_bytes: self.unequal(self.plan.max_entry_bytes as u64) as usize,
            max_open_writes: self.unequal(self.plan.max_open_writes as u64) as usize,
            // What the checkers go by is the strictest.
            retention_ms: self.unequal(self.plan.retention_ms as u64) as i64,
            retention_bytes: self.unequal(self.plan.retention_bytes),
            patience: Patience {
                flush: [0, 3, 20][(self.seed % 3) as usize],
                replicas: [0, 20, 5][(self.seed % 3) as usize],
            },
            digest_every: 16,
            quotas: Quotas::default(),
            defect,
        }
    }

    /// A size or limit as this node's settings say.
    fn unequal(&self, value: u64) -> u64 {
        match (self.plan.unequal, self.here()) {
            (true, here @ 1..) => value.saturating_mul(here as u64 + 1),
            _ => value,
        }
    }

    /// The voters in the configuration that the node here is started with: who has data knows better.
    fn configured(&mut self) -> Vec<u64> {
        let mut voters: Vec<u64> = (1..=self.first_members() as u64).collect();
        let preferred = self.seed % voters.len() as u64;
        voters.rotate_left(preferred as usize);
        if !self.plan.misconfigured || self.forgot || !self.rng.chance(1, 3) {
            return voters;
        }
        self.counters.wrong_configurations += 1;
        let me = self.here() as u64 + 1;
        let other = 1 + self.rng.below(self.nodes() as u64);
        match self.rng.below(3) {
            0 => vec![me],
            1 => vec![me, other],
            _ => [voters, vec![other]].concat(),
        }
    }

    pub(crate) fn recover(&mut self) -> Result<(ShardCore, Recovery), RecoverError> {
        let options = self.options();
        let machine = MachineOptions {
            segment_bytes: self.unequal(self.plan.segment_bytes),
        };
        let voters = self.configured();
        let forgets = self.defect == Some(Planted::MembersNotKept);
        if forgets {
            self.forget_members();
        }
        let rhythm = self.rhythm();
        let raft = RaftOptions {
            quiet: true,
            no_peers: self.group.is_none() || forgets,
            life: self.life + 1,
            recovering: self.hurt && self.defect != Some(Planted::RecoveringVotes),
            forgotten: self.forgot,
            owed: self.owed,
            store: self.store_number,
            snapshot_part: self.plan.net.snapshot_part.max(1),
            snapshot_per_tick: self.plan.net.snapshot_pace,
            defect: match self.defect {
                Some(Planted::Raft(defect)) => Some(defect),
                Some(Planted::PartsUnchecked) => Some(Defect::TrustsParts),
                _ => None,
            },
            tick_ms: rhythm.tick_ms,
            election_ticks: rhythm.election_ticks,
            promise_ticks: rhythm.promise_ticks,
            ..RaftOptions::group(self.here() as u64 + 1, voters, self.seed)
        };
        recover(&mut *self.store, options, machine, raft)
    }

    /// (planted) Members are not kept before they first change.
    fn forget_members(&mut self) {
        let key = keys::members::key(crate::SHARD);
        let first: Vec<u64> = (1..=self.first_members() as u64).collect();
        let found = StateStore::get(&*self.store, &key).ok().flatten();
        let found = found.and_then(|row| keys::members::decode(&row).ok());
        if found == Some(Members::of(first)) {
            let ops = vec![StateOp::Delete { key }];
            let _ = StateStore::write(&mut *self.store, &StateBatch { ops });
        }
    }

    pub(crate) fn restart(&mut self) {
        let faulty = self.fault_at_start();
        let (shard, recovery) = match self.recover() {
            Ok(found) => found,
            Err(RecoverError::Store(_)) if faulty => {
                self.counters.failed_recoveries += 1;
                self.life += 1;
                self.store.kill(&mut self.rng);
                let (node, life) = (self.here(), self.life);
                let after = self.starts_again_in();
                return self.schedule.after(after, Event::Restart { node, life });
            }
            Err(error) => return self.fail("recovery", error.to_string()),
        };
        self.tell_loss();
        // Not used up by the recovery: it will hit the first write.
        self.fault_planted = faulty;
        self.counters.replays += u64::from(recovery.replayed > 0);
        let staged = shard.raft().receiving().is_some_and(|(have, _)| have > 0);
        self.counters.snapshots_resumed += u64::from(staged);
        *self.view = match shard.machine().is_filling() {
            true => View::new(self.seed),
            false => View::restored(self.seed, shard.machine()),
        };
        self.view.filling = shard.machine().is_filling();
        let applied = shard.machine().applied.0;
        if self.group.is_none() {
            self.show_replayed(&shard);
        }
        let timer = TimerCore::new(shard.machine().timers(), self.plan.timer_policy);
        let clock = self.new_clock();
        self.node = Some(Box::new(Node::new(shard, timer, clock)));
        self.recovered(applied);
        self.see_beginnings();
        if self.plan.crash_every > 0 && self.settling.is_none() {
            self.crash_in = Some(self.rng.between(1, 2 * self.plan.crash_every));
            if self.plan.net.sole && self.here() == 0 && self.rng.chance(1, 2) {
                self.crash_in = Some(self.rng.between(10, SOON));
            }
        }
        let mut out = Vec::new();
        let mut lone = false;
        if let Some(node) = &mut self.node {
            node.shard.start(&mut out);
            lone = node.shard.raft().is_lone();
        }
        self.carry_out(out);
        let first =
            self.plan.extra.resizes > 0 && self.group.as_ref().is_some_and(|g| g.front() == 0);
        if lone && (self.plan.net.sole || first) {
            // The operator's word: no other node of such a group has a vote.
            self.post_shard(ShardInput::Form);
        }
        self.stop_soon();
    }

    /// Records and minimums that the recovery applied without telling anybody.
    fn show_replayed(&mut self, shard: &ShardCore) {
        self.see_changes_to(shard.machine().applied.0);
        let queues: Vec<_> = shard.machine().queues().collect();
        for (key, meta) in queues {
            let mut next = self.shown.get(&key).map_or(0, Vec::len) as u64;
            while next < meta.next && self.failure.is_none() {
                let mut records = Vec::new();
                match view::from_rows(&self.store, key, next, &mut records) {
                    Ok(()) if records.is_empty() => {
                        return self.fail("I5", format!("{key:?} has no {next}"))
                    }
                    Ok(()) => {}
                    Err(what) => return self.fail("I1", format!("after a restart: {what}")),
                }
                for (offset, uid, at) in records {
                    let store_ts = self.store_ts(key, offset);
                    self.visible(key, offset, uid, at, store_ts);
                    next = offset + 1;
                }
            }
            if meta.min > 0 {
                self.see(Seen::Trimmed { key, min: meta.min });
            }
        }
    }

    fn store_ts(&self, key: QueueKey, offset: u64) -> i64 {
        let from = keys::index::key(crate::SHARD, key, 0);
        let to = keys::index::key(crate::SHARD, key, offset + 1);
        let row = StateStore::last(&*self.store, &from, &to).ok().flatten();
        row.and_then(|(_, value)| IndexRow::decode(&value).ok())
            .map_or(0, |row| row.store_ts)
    }
}
