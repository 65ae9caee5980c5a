//! What the shell of a shard makes visible to others.

use super::actor::{ShardActor, ShardDeps};
use super::core::{Comparison, ShardCore};
use super::handle::QueueBounds;
use super::machine::Machine;
use super::views::Segment;
use crate::actors::effect::Publish;
use crate::actors::queue::actor::QueueMail;
use crate::actors::queue::core::QueueInput;
use crate::model::outcome::Refusal;
use crate::model::TopicId;
use crate::storage::points::{pass, FailPoint};
use crate::storage::writer::Job;
use std::collections::BTreeSet;
use std::sync::Arc;

impl ShardActor {
    /// Publishes what a shard restored by `recover` holds, before it starts.
    pub fn publish_restored(core: &ShardCore, deps: &ShardDeps) {
        let machine = core.machine();
        for topic in machine.topics() {
            deps.meta.put_topic(topic.clone());
        }
        for group in machine.groups() {
            deps.meta.put_group(group.clone());
        }
        if !machine.is_filling() {
            restore_queues(machine, deps);
        }
        deps.status.set_quotas(core.quotas());
        deps.status.set_holdings(machine.holdings());
        deps.views.set_applied(machine.applied.0);
        deps.views.stored(machine.applied.0);
    }

    /// A snapshot replaced the state: nothing of the old one is shown any more.
    fn installed(&mut self) {
        let machine = self.core.machine();
        tracing::info!(
            shard = self.deps.shard.0,
            behind = machine.applied.0,
            "a snapshot of the leader is installed"
        );
        let topics: Vec<_> = self.deps.meta.topics();
        for topic in topics.iter().filter(|t| !machine.has_topic(t.id)) {
            self.deps.meta.delete_topic(&topic.name);
        }
        let held: BTreeSet<&str> = machine.groups().map(|g| g.name.as_str()).collect();
        let groups = self
            .deps
            .meta
            .groups()
            .into_iter()
            .map(|g| (&*g.name).into());
        let kept = self
            .deps
            .meta
            .kept_groups()
            .into_iter()
            .map(|(name, _)| name);
        let known: Vec<Arc<str>> = groups.chain(kept).collect();
        for name in known.iter().filter(|name| !held.contains(&***name)) {
            self.deps.meta.delete_group(name);
        }
        self.deps.views.clear();
        for topic in machine.topics() {
            self.deps.meta.put_topic(topic.clone());
        }
        for group in machine.groups() {
            self.deps.meta.put_group(group.clone());
        }
        self.start_timer();
    }

    fn compared(&mut self, now: Comparison) {
        let shard = self.deps.shard.0;
        let (index, others) = (now.index, &now.others);
        match (now.outvoted, others.is_empty()) {
            (true, _) => tracing::error!(
                event = "state_differs",
                shard,
                index,
                ?others,
                "this replica's state is not that of the majority: it does not lead, and should be \
                 filled anew (stop it, move its data away, start it)"
            ),
            (false, false) => tracing::error!(
                event = "state_differs",
                shard,
                index,
                ?others,
                "replicas have applied the same log and hold different states"
            ),
            (false, true) => tracing::warn!(shard, index, "all replicas hold the same state again"),
        }
        self.deps.status.set_compared(now);
    }

    pub(super) fn publish(&mut self, publish: Publish) {
        match publish {
            Publish::Role(role) => {
                tracing::info!(shard = self.deps.shard.0, ?role, "raft role");
            }
            Publish::Serving(term) => {
                let (shard, serves) = (self.deps.shard.0, term.is_some());
                tracing::info!(shard, serves, "this replica serves clients, or not any more");
                // Groups remember what the last leader knew; those made from now on are of this time.
                self.deps.status.set_epoch(self.core.epoch());
                self.deps.status.changing();
                self.deps.status.set_serving(term.is_some());
                if term.is_none() {
                    self.leaving.clear();
                    for (key, addr) in self.queues.drain() {
                        self.deps.directory.remove(key);
                        addr.do_send(QueueMail(QueueInput::Closed(Refusal::NotLeader)));
                    }
                }
            }
            Publish::Confirmed { stamp, lease_ms } => {
                let lease = lease_ms.saturating_mul(1_000_000);
                self.deps.status.set_lease(stamp.saturating_add(lease));
            }
            Publish::Recovered => {
                tracing::info!(
                    shard = self.deps.shard.0,
                    "the replica holds all entries again"
                );
                // Without it the next start would recover once more.
                let shard = self.deps.shard;
                let _ = self.deps.writer.submit(Job::Regained { shard });
            }
            Publish::Installed => {
                self.deps.status.snapshot_installed();
                self.installed();
            }
            Publish::Filled(queues) => {
                for (key, min, max) in queues {
                    self.deps.views.restore(key, QueueBounds { min, max });
                }
            }
            Publish::Digest { index, digest } => self.deps.status.digest(index, digest),
            Publish::Compared(now) => self.compared(now),
            Publish::BadEntry { index } => {
                self.deps.reads.damage().found(index);
                let shard = self.deps.shard.0;
                tracing::error!(
                    event = "bad_entry",
                    shard,
                    index,
                    "a stored entry is corrupt"
                );
            }
            Publish::LostEntry { index } => {
                self.deps.reads.damage().lose(index);
                let shard = self.deps.shard.0;
                tracing::error!(
                    event = "lost_entry",
                    shard,
                    index,
                    "no replica has a good copy of a corrupt entry: its messages are lost, reads go on behind it"
                );
            }
            Publish::Mended { index } => {
                self.deps.reads.damage().mended(index);
                let shard = self.deps.shard.0;
                tracing::warn!(
                    event = "mended_entry",
                    shard,
                    index,
                    "another replica gave a good copy of a corrupt entry"
                );
            }
            Publish::OtherLog { first, last } => tracing::error!(
                event = "other_log",
                shard = self.deps.shard.0,
                first,
                last,
                "this replica only learns, and holds entries that the group has lost: they are dropped, \
                 and it is filled anew after its next start"
            ),
            Publish::AckedTruncated(lost) => {
                self.deps.status.acked_truncated(&lost);
                tracing::error!(
                    event = "acked_truncated",
                    shard = self.deps.shard.0,
                    first = lost.first,
                    last = lost.last,
                    entries = lost.entries,
                    messages = lost.messages,
                    queues = ?lost.queues,
                    "entries that their leader had answered for alone are lost to another leader"
                );
            }
            Publish::Topic(topic) => self.deps.meta.put_topic(topic),
            Publish::TopicDeleted { name, id } => {
                self.deps.meta.delete_topic(&name);
                self.deps.views.remove_topic(TopicId(id));
                let gone: Vec<_> = self
                    .queues
                    .keys()
                    .filter(|k| k.topic.0 == id)
                    .copied()
                    .collect();
                for key in gone {
                    self.deps.directory.remove(key);
                    self.leaving.remove(&key);
                    if let Some(addr) = self.queues.remove(&key) {
                        addr.do_send(QueueMail(QueueInput::Closed(Refusal::NotFound("topic"))));
                    }
                }
            }
            Publish::Group(group) => self.deps.meta.put_group(group),
            Publish::GroupDeleted { name, .. } => self.deps.meta.delete_group(&name),
            Publish::Appended {
                index,
                at_ms,
                block,
                data,
            } => {
                let from = block.records_at as usize;
                let records = data.slice(from..from + block.records_len as usize);
                let segment = Segment {
                    base: block.base,
                    index,
                    store_ts: at_ms,
                    metas: block.metas.into(),
                    records,
                };
                pass(FailPoint::Publish);
                self.deps.views.append(block.key, segment);
            }
            Publish::Stored { index } => self.deps.views.stored(index),
            Publish::Offsets {
                group,
                offsets,
                reset: true,
            } => {
                let topics = offsets.iter().map(|o| o.topic);
                self.deps.status.offsets_reset(group.0, topics);
            }
            // Group actors learn of their own proposals by their answers.
            Publish::Offsets { .. } | Publish::Locks { .. } => {}
            Publish::Trimmed { key, min } => self.deps.views.trimmed(key, min),
            Publish::Fatal(why) => {
                tracing::error!(shard = self.deps.shard.0, %why, "the shard stopped");
                self.deps.status.set_failed(why);
            }
        }
    }
}

/// Publishes the bounds of all queues.
fn restore_queues(machine: &Machine, deps: &ShardDeps) {
    for (key, meta) in machine.queues() {
        let bounds = QueueBounds {
            min: meta.min,
            max: meta.next,
        };
        deps.views.restore(key, bounds);
    }
}
