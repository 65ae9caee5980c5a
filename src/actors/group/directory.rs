//! Which groups are awake on this node for one shard, and what they publish for readers.

use super::actor::{GroupActor, Mail};
use super::joined::{bytes_of, Joined};
use super::offsets::Key;
use super::producers::Producers;
use super::types::*;
use crate::actors::link::{ClientLink, ConnId};
use crate::actors::shard::handle::{GroupState, ProposalResult};
use crate::actors::shard::ShardHandle;
use crate::model::command::MetaOp;
use crate::model::outcome::Refusal;
use crate::model::quota::{QuotaExceeded, QuotaKind};
use crate::model::GroupId;
use actix::Addr;
use actix_rt::ArbiterHandle;
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// What a proposal calls when it is applied or refused.
pub type Done = Box<dyn FnOnce(ProposalResult) + Send>;
/// A read of a group's state.
pub type StateFuture = Pin<Box<dyn Future<Output = Result<GroupState, Refusal>> + Send>>;
/// A monotonic clock, ms: how long ago something was is all that groups ask.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What groups need of their shard.
pub trait GroupStore: Send + Sync + 'static {
    /// The id the group has now.
    fn group_id(&self, name: &str) -> Option<GroupId>;
    /// `notifyConsumerIdsChangedEnable` of the group; `true` when there is none.
    fn notices_enabled(&self, name: &str) -> bool;
    /// Counts the times at which this node began to serve the shard.
    fn epoch(&self) -> u64;
    /// Proposes a command that was decided in this [epoch](Self::epoch); refused in another.
    fn propose(&self, epoch: u64, op: MetaOp, done: Done);
    /// Whether there is room for offsets and locks of groups in further queues, by what is applied: what
    /// other groups have under way, no more than connections may have pending, may come on top.
    fn room_for_offsets(&self) -> Result<(), QuotaExceeded> {
        Ok(())
    }
    /// So many queues were left out because there was not.
    fn left_out(&self, _queues: u64) {}
    /// Reads offsets and locks as applied so far.
    fn load(&self, group: GroupId) -> StateFuture;
}

impl GroupStore for ShardHandle {
    fn group_id(&self, name: &str) -> Option<GroupId> {
        self.meta().group(name).map(|g| GroupId(g.id))
    }
    fn notices_enabled(&self, name: &str) -> bool {
        self.meta()
            .group(name)
            .is_none_or(|g| g.notify_consumer_ids_changed_enable)
    }
    fn epoch(&self) -> u64 {
        self.status().epoch()
    }
    fn propose(&self, epoch: u64, op: MetaOp, done: Done) {
        self.propose_in(epoch, op, done);
    }
    fn room_for_offsets(&self) -> Result<(), QuotaExceeded> {
        let status = self.status();
        status.room(QuotaKind::Offsets, 1)?;
        status.room(QuotaKind::StateBytes, 1)
    }
    fn left_out(&self, queues: u64) {
        for _ in 0..queues {
            self.status().quota_refused(QuotaKind::Offsets);
        }
    }
    fn load(&self, group: GroupId) -> StateFuture {
        let shard = self.clone();
        Box::pin(async move { shard.group_state(group).await })
    }
}

/// What one group publishes, and its mail counters.
#[derive(Default)]
pub(super) struct Cell {
    members: ArcSwap<GroupMembers>,
    resets: RwLock<BTreeMap<Key, u64>>,
    has_resets: AtomicBool,
    /// Mail sent; grows only under the directory's read lock.
    sent: AtomicU64,
    /// Mail handled.
    pub(super) handled: AtomicU64,
}

impl Cell {
    pub(super) fn publish_members(&self, members: GroupMembers) {
        self.members.store(Arc::new(members));
    }

    pub(super) fn publish_resets(&self, resets: BTreeMap<Key, u64>) {
        let mut published = self.resets.write();
        self.has_resets.store(!resets.is_empty(), Ordering::Release);
        *published = resets;
    }

    pub(super) fn members(&self) -> Arc<GroupMembers> {
        self.members.load_full()
    }

    pub(super) fn subscription(&self, topic: &str) -> Option<Arc<Subscription>> {
        self.members.load().subscriptions.get(topic).cloned()
    }

    /// Ends a reset for readers at once; the actor hears of it by mail.
    pub(super) fn end_reset(&self, key: Key) {
        self.resets.write().remove(&key);
    }

    /// The pending reset of a queue.
    pub(super) fn reset_of(&self, key: Key) -> Option<u64> {
        if !self.has_resets.load(Ordering::Acquire) {
            return None;
        }
        self.resets.read().get(&key).copied()
    }
}

struct Entry {
    addr: Addr<GroupActor>,
    cell: Arc<Cell>,
}

/// What became of mail to a group that may be asleep.
pub(super) enum Sent {
    Yes,
    /// Nobody took it.
    Asleep(Mail),
    Refused(Refusal),
}

/// Everything the handles and actors of one shard's groups share.
pub(super) struct Shared {
    pub(super) store: Arc<dyn GroupStore>,
    pub(super) link: Arc<dyn ClientLink>,
    pub(super) arbiter: ArbiterHandle,
    pub(super) limits: GroupLimits,
    pub(super) scan_every: Duration,
    clock: Clock,
    awake: RwLock<FxHashMap<Arc<str>, Entry>>,
    joined: Mutex<Joined>,
    pub(super) producers: Mutex<Producers>,
}

impl Shared {
    pub(super) fn new(
        store: Arc<dyn GroupStore>,
        link: Arc<dyn ClientLink>,
        arbiter: ArbiterHandle,
        limits: GroupLimits,
        clock: Clock,
        scan_every: Duration,
    ) -> Self {
        Self {
            store,
            link,
            arbiter,
            limits,
            scan_every,
            clock,
            awake: RwLock::default(),
            joined: Mutex::default(),
            producers: Mutex::default(),
        }
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// What an awake group publishes.
    pub(super) fn cell(&self, group: &str) -> Option<Arc<Cell>> {
        self.awake.read().get(group).map(|e| e.cell.clone())
    }

    /// Looks at every awake group, in no particular order.
    pub(super) fn for_each(&self, mut look: impl FnMut(&str, &Cell)) {
        for (name, entry) in self.awake.read().iter() {
            look(name, &entry.cell);
        }
    }

    /// Groups that are awake.
    pub(super) fn awake(&self) -> usize {
        self.awake.read().len()
    }

    /// Sends to a group only if it is awake; gives the mail back otherwise.
    pub(super) fn send_awake(&self, group: &str, mail: Mail) -> Sent {
        let awake = self.awake.read();
        let Some(entry) = awake.get(group).filter(|e| e.addr.connected()) else {
            return Sent::Asleep(mail);
        };
        let waiting = entry
            .cell
            .sent
            .load(Ordering::Relaxed)
            .saturating_sub(entry.cell.handled.load(Ordering::Relaxed));
        // Leaving and deleting are never refused: they make things smaller.
        let must = matches!(
            mail,
            Mail::ConnClosed { .. }
                | Mail::Deleted
                | Mail::Unregister { .. }
                | Mail::ResetDone { .. }
        );
        if waiting >= self.limits.mailbox && !must {
            return Sent::Refused(Refusal::Busy);
        }
        entry.cell.sent.fetch_add(1, Ordering::Relaxed);
        entry.addr.do_send(mail);
        Sent::Yes
    }

    /// Sends to a group and wakes it first when it sleeps (or its actor died).
    pub(super) fn send(self: &Arc<Self>, group: &str, mail: Mail) -> Result<(), Refusal> {
        let mut mail = mail;
        loop {
            match self.send_awake(group, mail) {
                Sent::Yes => return Ok(()),
                Sent::Refused(refusal) => return Err(refusal),
                Sent::Asleep(back) => mail = back,
            }
            self.wake(group)?;
        }
    }

    fn wake(self: &Arc<Self>, group: &str) -> Result<(), Refusal> {
        let mut awake = self.awake.write();
        match awake.get(group) {
            Some(entry) if entry.addr.connected() => return Ok(()),
            Some(_) => tracing::error!(
                group,
                "a group's actor died; it starts again without its members"
            ),
            None if awake.len() >= self.limits.groups => return Err(Refusal::Busy),
            None => {}
        }
        let name: Arc<str> = group.into();
        let cell = Arc::new(Cell::default());
        let addr = GroupActor::launch(name.clone(), cell.clone(), self.clone());
        if !addr.connected() {
            return Err(Refusal::Unavailable("the group's thread stopped"));
        }
        awake.insert(name, Entry { addr, cell });
        Ok(())
    }

    /// Forgets every group, member and producer: this node begins or ceases to serve the shard.
    pub(super) fn reset(&self) {
        let gone = std::mem::take(&mut *self.awake.write());
        for entry in gone.into_values() {
            entry.addr.do_send(Mail::Closed);
        }
        *self.joined.lock() = Joined::default();
        *self.producers.lock() = Producers::default();
    }

    /// Takes a group off the directory unless mail is on its way to it.
    pub(super) fn remove_if_no_mail(&self, group: &str, cell: &Arc<Cell>) -> bool {
        let mut awake = self.awake.write();
        if cell.sent.load(Ordering::Relaxed) != cell.handled.load(Ordering::Acquire) {
            return false;
        }
        // Another actor may have taken the name when this one was thought dead.
        if awake.get(group).is_some_and(|e| Arc::ptr_eq(&e.cell, cell)) {
            awake.remove(group);
        }
        true
    }

    /// See [`Joined::may_join`].
    pub(super) fn may_join(&self, group: &str, conn: ConnId, ahead: usize) -> Result<(), Refusal> {
        let joined = self.joined.lock();
        joined.may_join(group, conn, ahead, &self.limits)
    }

    /// Notes that a connection belongs to a group, within the limits.
    pub(super) fn remember_conn(&self, group: &str, beat: &MemberHeartbeat) -> Result<(), Refusal> {
        let bytes = beat.subscriptions.iter().map(bytes_of).sum();
        let bytes = (!beat.without_sub).then_some(bytes);
        let mut joined = self.joined.lock();
        joined.join(group, beat.conn, bytes, &self.limits)
    }

    /// Forgets that connections belong to a group.
    pub(super) fn forget_conns(&self, group: &str, gone: &[ConnId]) {
        if !gone.is_empty() {
            self.joined.lock().leave(group, gone);
        }
    }

    /// Takes out the groups of a closed connection.
    pub(super) fn take_conn(&self, conn: ConnId) -> Vec<Arc<str>> {
        self.joined.lock().take(conn)
    }
}
