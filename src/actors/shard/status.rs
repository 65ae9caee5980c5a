//! Figures of a shard that anybody may read at any time.

use super::core::Comparison;
use super::core::Quotas;
use super::machine::Holdings;
use crate::actors::effect::Truncated;
use crate::model::quota::{QuotaExceeded, QuotaKind};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;

/// Who leads, as far as this replica knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lead {
    pub term: u64,
    /// Node that leads; 0 when unknown.
    pub leader: u64,
    /// This replica leads and accepts writes.
    pub serving: bool,
}

/// What this replica lost since the process started (reliability §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Starts after which entries were, or may have been, missing: 0 or 1.
    pub unclean_recoveries: u64,
    /// Where the log ended then, and the last index known to have been there.
    pub unclean_kept: u64,
    pub unclean_last_lost: Option<u64>,
    /// Entries and messages answered for by their leader alone, and replaced by another leader's.
    pub acked_truncated_entries: u64,
    pub acked_truncated_messages: u64,
    /// The last such log index.
    pub acked_truncated_last: u64,
}

/// Time since the machine started, in which it or this process was stopped too; ns.
pub fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    (now.tv_sec as u64).saturating_mul(1_000_000_000) + now.tv_nsec as u64
}

/// Digests of the state that are kept to be told.
const DIGESTS: usize = 64;
/// Within this time after a reset of offsets each consumer pulls, ns.
const RESET_NS: u64 = 60_000_000_000;

/// Called on the shard's thread before it begins or ceases to serve.
type Hook = Box<dyn Fn() + Send + Sync>;

/// Written by the shard's thread, read by metrics and health pages.
#[derive(Default)]
pub struct ShardStatus {
    term: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    serving: AtomicBool,
    served: AtomicU64,
    epoch: AtomicU64,
    disk_full: AtomicBool,
    failed: Mutex<Option<String>>,
    elections: AtomicU64,
    /// [`boot_ns`] until which no other replica leads; 0 when that is not known.
    lease_until: AtomicU64,
    /// The members do not name this replica.
    outside: AtomicBool,
    transfers: AtomicU64,
    recovering: AtomicBool,
    last: AtomicU64,
    /// Newest digests of the state, and what the comparison with others gave.
    digests: Mutex<VecDeque<(u64, u64)>>,
    compared: Mutex<Comparison>,
    differences: AtomicU64,
    lone: AtomicBool,
    owed: AtomicU64,
    losses: Mutex<Losses>,
    readers: Mutex<Vec<u64>>,
    snapshots: AtomicU64,
    received: AtomicU64,
    to_receive: AtomicU64,
    lead: watch::Sender<Lead>,
    /// [`boot_ns`] since which no leader is known, after one was; else 0.
    leaderless: AtomicU64,
    /// Groups and topics whose offsets were reset, and when ([`boot_ns`]).
    resets: Mutex<BTreeMap<(u32, u32), u64>>,
    hook: Mutex<Option<Hook>>,
    quotas: [Quota; QuotaKind::ALL.len()],
}

/// How much of a quota is used; see [`QuotaKind`].
#[derive(Debug)]
struct Quota {
    used: AtomicU64,
    limit: AtomicU64,
    refusals: AtomicU64,
}

impl Default for Quota {
    /// No limit.
    fn default() -> Self {
        Self {
            used: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            refusals: AtomicU64::new(0),
        }
    }
}

impl ShardStatus {
    pub(crate) fn set(&self, term: u64, committed: u64, applied: u64) {
        self.term.store(term, Ordering::Relaxed);
        self.committed.store(committed, Ordering::Relaxed);
        self.applied.store(applied, Ordering::Relaxed);
    }
    pub(crate) fn set_lead(&self, term: u64, leader: u64) {
        let serving = self.serving();
        let now = Lead {
            term,
            leader,
            serving,
        };
        if *self.lead.borrow() == now {
            return;
        }
        self.lead.send_if_modified(|lead| {
            if lead.leader != leader && leader != 0 {
                self.elections.fetch_add(1, Ordering::Relaxed);
            }
            let since = match (lead.leader, leader) {
                (_, 1..) => 0,
                (0, 0) => self.leaderless.load(Ordering::Relaxed),
                (1.., 0) => boot_ns(),
            };
            self.leaderless.store(since, Ordering::Relaxed);
            *lead = now;
            true
        });
    }
    /// For how long no leader has been known, after one was known; zero while one is known.
    pub fn leaderless_for(&self) -> std::time::Duration {
        let since = self.leaderless.load(Ordering::Relaxed);
        let ns = boot_ns().saturating_sub(since);
        std::time::Duration::from_nanos(if since == 0 { 0 } else { ns })
    }
    pub(crate) fn changing(&self) {
        if let Some(hook) = &*self.hook.lock() {
            hook();
        }
    }
    /// Calls `hook` on the shard's thread before each begin and end of serving. It must not block.
    pub fn before_change(&self, hook: Hook) {
        *self.hook.lock() = Some(hook);
    }
    /// Tells every change of term, leader and serving, and when what this replica answers from memory
    /// is current again (see [`Self::current`]).
    pub fn lead(&self) -> watch::Receiver<Lead> {
        self.lead.subscribe()
    }
    pub(crate) fn unclean_recovery(&self, kept: u64, last_lost: Option<u64>) {
        let mut losses = self.losses.lock();
        losses.unclean_recoveries += 1;
        (losses.unclean_kept, losses.unclean_last_lost) = (kept, last_lost);
    }
    pub(crate) fn acked_truncated(&self, lost: &Truncated) {
        let mut losses = self.losses.lock();
        losses.acked_truncated_entries += lost.entries;
        losses.acked_truncated_messages += lost.messages;
        losses.acked_truncated_last = lost.last;
    }
    pub(crate) fn offsets_reset(&self, group: u32, topics: impl Iterator<Item = u32>) {
        let now = boot_ns();
        let mut resets = self.resets.lock();
        resets.retain(|_, at| now.saturating_sub(*at) < RESET_NS);
        resets.extend(topics.map(|topic| ((group, topic), now)));
    }
    /// Offsets of the group were reset a moment ago: only the leader knows where it reads on.
    pub fn was_reset(&self, group: u32, topic: u32) -> bool {
        let at = self.resets.lock().get(&(group, topic)).copied();
        at.is_some_and(|at| boot_ns().saturating_sub(at) < RESET_NS)
    }
    pub(crate) fn set_quotas(&self, quotas: &Quotas) {
        for (kind, limit) in [
            (QuotaKind::Topics, quotas.topics),
            (QuotaKind::AutoTopics, quotas.auto_topics),
            (QuotaKind::Groups, quotas.groups),
            (QuotaKind::AutoGroups, quotas.auto_groups),
            (QuotaKind::Delayed, quotas.delayed),
            (QuotaKind::Offsets, quotas.offsets),
            (QuotaKind::StateBytes, quotas.state_bytes),
        ] {
            self.quotas[kind as usize]
                .limit
                .store(limit, Ordering::Relaxed);
        }
    }
    pub(crate) fn set_holdings(&self, now: Holdings) {
        for (kind, used) in [
            (QuotaKind::Topics, now.topics),
            (QuotaKind::AutoTopics, now.topics),
            (QuotaKind::Groups, now.groups),
            (QuotaKind::AutoGroups, now.groups),
            (QuotaKind::Delayed, now.timers),
            (QuotaKind::Offsets, now.offsets),
            (QuotaKind::StateBytes, now.bytes),
        ] {
            self.quotas[kind as usize]
                .used
                .store(used, Ordering::Relaxed);
        }
    }
    /// Whether a quota leaves room for `more`, by what is applied.
    pub fn room(&self, kind: QuotaKind, more: u64) -> Result<(), QuotaExceeded> {
        let (used, limit) = self.quota(kind);
        kind.check(used, more, limit)
    }
    /// What is used of a quota of the shard, and the limit; not known for those of connections.
    pub fn quota(&self, kind: QuotaKind) -> (u64, u64) {
        let quota = &self.quotas[kind as usize];
        let [used, limit] = [&quota.used, &quota.limit].map(|n| n.load(Ordering::Relaxed));
        (used, limit)
    }
    /// A request was refused because of a quota.
    pub fn quota_refused(&self, kind: QuotaKind) {
        self.quotas[kind as usize]
            .refusals
            .fetch_add(1, Ordering::Relaxed);
    }
    /// Requests refused because of a quota since the start.
    pub fn quota_refusals(&self, kind: QuotaKind) -> u64 {
        self.quotas[kind as usize].refusals.load(Ordering::Relaxed)
    }
    pub(crate) fn set_recovering(&self, recovering: bool) {
        self.recovering.store(recovering, Ordering::Relaxed);
    }
    pub(crate) fn digest(&self, index: u64, digest: u64) {
        let mut digests = self.digests.lock();
        if digests.len() >= DIGESTS {
            digests.pop_front();
        }
        digests.push_back((index, digest));
    }
    /// Digests of the state: the newest log indices and digests behind `index`, ascending.
    pub fn digests(&self, index: u64) -> Vec<(u64, u64)> {
        let digests = self.digests.lock();
        digests
            .iter()
            .filter(|(i, _)| *i > index)
            .copied()
            .collect()
    }
    pub(crate) fn set_compared(&self, compared: Comparison) {
        if !compared.others.is_empty() {
            self.differences.fetch_add(1, Ordering::Relaxed);
        }
        *self.compared.lock() = compared;
    }
    /// What the last comparison of states gave.
    pub fn compared(&self) -> Comparison {
        self.compared.lock().clone()
    }
    /// Comparisons that newly found another state, since the start.
    pub fn differences(&self) -> u64 {
        self.differences.load(Ordering::Relaxed)
    }
    pub(crate) fn set_log(&self, last: u64, lone: bool) {
        self.last.store(last, Ordering::Relaxed);
        self.lone.store(lone, Ordering::Relaxed);
    }
    /// Last index of the log; 0 for a replica that never had anything.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
    /// The only voter as far as is known here, which waits for word that it is.
    pub fn lone(&self) -> bool {
        self.lone.load(Ordering::Relaxed)
    }
    pub(crate) fn set_owed(&self, owed: Option<u64>) {
        self.owed.store(owed.unwrap_or(0), Ordering::Relaxed);
    }
    /// This replica lost what it had synced up to this index, and helps nobody to lead with less; 0: not so.
    pub fn owed(&self) -> u64 {
        self.owed.load(Ordering::Relaxed)
    }
    pub(crate) fn snapshot_installed(&self) {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn set_receiving(&self, progress: Option<(u64, u64)>) {
        let (have, len) = progress.unwrap_or_default();
        self.received.store(have, Ordering::Relaxed);
        self.to_receive.store(len, Ordering::Relaxed);
    }
    /// Snapshots installed since the start.
    pub fn snapshots(&self) -> u64 {
        self.snapshots.load(Ordering::Relaxed)
    }
    /// Bytes held of a snapshot that comes in, of how many; 0 for none.
    pub fn receiving(&self) -> (u64, u64) {
        let have = self.received.load(Ordering::Relaxed);
        (have, self.to_receive.load(Ordering::Relaxed))
    }
    /// What this replica lost since the process started.
    pub fn losses(&self) -> Losses {
        *self.losses.lock()
    }
    /// It does not vote: entries or promises of it may be lost.
    pub fn recovering(&self) -> bool {
        self.recovering.load(Ordering::Relaxed)
    }
    /// Leaders seen since the start.
    pub fn elections(&self) -> u64 {
        self.elections.load(Ordering::Relaxed)
    }
    /// This replica serves and no other can lead yet, also if this process or its machine was
    /// stopped meanwhile: what it answers from memory is current.
    pub fn current(&self) -> bool {
        self.serving() && boot_ns() < self.lease_until.load(Ordering::Acquire)
    }
    /// This replica serves, and for so long no majority has confirmed that it still leads; zero when one has,
    /// and for a lead that is being handed over.
    pub fn unconfirmed_for(&self) -> std::time::Duration {
        let until = self.lease_until.load(Ordering::Acquire);
        match self.serving() && until > 0 {
            true => std::time::Duration::from_nanos(boot_ns().saturating_sub(until)),
            false => std::time::Duration::ZERO,
        }
    }
    /// This replica is a member of its group.
    pub fn is_member(&self) -> bool {
        !self.outside.load(Ordering::Relaxed)
    }
    /// Times this replica was asked to hand leadership over while it led.
    pub fn transfers(&self) -> u64 {
        self.transfers.load(Ordering::Relaxed)
    }
    /// Whoever waits until it is sure again that this replica leads is told by [`Self::lead`].
    pub(crate) fn set_lease(&self, until_ns: u64) {
        let before = self.lease_until.swap(until_ns, Ordering::AcqRel);
        let now = boot_ns();
        if before <= now && now < until_ns {
            self.lead.send_modify(|_| ());
        }
    }
    pub(crate) fn set_member(&self, member: bool) {
        self.outside.store(!member, Ordering::Relaxed);
    }
    /// Other nodes whose replica is active and holds nearly all that is committed; known to the
    /// leader only.
    pub fn readers(&self) -> Vec<u64> {
        self.readers.lock().clone()
    }
    pub(crate) fn set_readers(&self, nodes: impl Iterator<Item = u64>) {
        let mut readers = self.readers.lock();
        readers.clear();
        readers.extend(nodes);
    }
    pub(crate) fn transferring(&self) {
        self.set_lease(0);
        self.transfers.fetch_add(1, Ordering::Relaxed);
    }
    /// How often it began to serve: what was given to its cores in an earlier time is lost to them.
    pub fn times_served(&self) -> u64 {
        self.served.load(Ordering::Acquire)
    }
    pub(crate) fn set_serving(&self, serving: bool) {
        if serving && !self.serving() {
            self.served.fetch_add(1, Ordering::Release);
        }
        self.serving.store(serving, Ordering::Release);
    }
    /// Counts the times at which this replica began to serve, the one included that is about to
    /// begin while [hooks](Self::before_change) are called.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }
    pub(crate) fn set_failed(&self, why: String) {
        self.serving.store(false, Ordering::Release);
        *self.failed.lock() = Some(why);
    }
    /// Set by the node's disk watch: producers are refused while it is on; reads, offsets and
    /// retention go on.
    pub fn set_disk_full(&self, full: bool) -> bool {
        self.disk_full.swap(full, Ordering::AcqRel) != full
    }
    /// Producers are refused because the disk is nearly full.
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Acquire)
    }
    /// Raft term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }
    /// Raft commit index.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }
    /// Last applied log index.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }
    /// This replica leads and accepts writes.
    pub fn serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }
    /// Why the shard stopped for good.
    pub fn failed(&self) -> Option<String> {
        self.failed.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_remembered_for_its_group_and_topic() {
        let status = ShardStatus::default();
        status.offsets_reset(1, [7, 7, 8].into_iter());
        assert!(status.was_reset(1, 7) && status.was_reset(1, 8));
        assert!(!status.was_reset(2, 7) && !status.was_reset(1, 9));
        status.resets.lock().insert((1, 7), 0);
        assert!(boot_ns() < RESET_NS || !status.was_reset(1, 7));
    }

    #[test]
    fn a_replica_is_leaderless_from_the_loss_of_its_leader_on() {
        let status = ShardStatus::default();
        status.set_lead(1, 0);
        assert!(status.leaderless_for().is_zero(), "it has just begun");
        status.set_lead(1, 2);
        assert!(status.leaderless_for().is_zero());
        status.set_lead(1, 0);
        let first = status.leaderless_for();
        status.set_lead(2, 0);
        let next = status.leaderless_for();
        assert!(!first.is_zero() && next > first, "{first:?} {next:?}");
        status.set_lead(3, 1);
        assert!(status.leaderless_for().is_zero());
    }

    #[test]
    fn answers_are_current_only_while_the_lease_holds() {
        let status = ShardStatus::default();
        status.set_serving(true);
        assert!(!status.current(), "nobody confirmed it yet");
        let mut told = status.lead();
        let mut told = || {
            let news = told.has_changed().unwrap();
            told.mark_unchanged();
            news
        };
        status.set_lease(boot_ns() + 60_000_000_000);
        assert!(status.current() && told());
        status.set_lease(boot_ns() + 61_000_000_000);
        assert!(status.current() && !told(), "it was sure before");
        status.set_serving(false);
        assert!(!status.current());
        status.set_serving(true);
        status.transferring();
        assert!(!status.current() && status.transfers() == 1);
        assert!(status.unconfirmed_for().is_zero(), "it is handed over");
        status.set_lease(boot_ns().saturating_sub(1_000_000_000));
        assert!(!status.current());
        assert!(status.unconfirmed_for().as_secs() >= 1);
        status.set_lease(boot_ns() + 60_000_000_000);
        assert!(status.unconfirmed_for().is_zero());
        status.set_serving(false);
        status.set_lease(1);
        assert!(status.unconfirmed_for().is_zero(), "it does not lead");
    }
}
