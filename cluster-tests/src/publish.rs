//! What the shard publishes: into the view, and before the checkers.

use crate::defects::Planted;
use crate::schedule::Event;
use crate::seen::{Seen, State};
use crate::sim::Sim;
use crate::view;
use troupemq::actors::effect::Publish;
use troupemq::model::outcome::Refusal;
use troupemq::model::{Position, QueueKey, TopicId};
use troupemq::raft::Role;

impl Sim {
    /// The shard made something visible.
    pub fn publish(&mut self, publish: Publish) {
        match publish {
            Publish::Role(Role::Leader { term }) => self.leads(term),
            Publish::Recovered => {
                self.counters.recovered += 1;
                self.hurt = false;
                self.forgot = false;
                self.owed = 0;
            }
            Publish::Installed => {
                let policy = self.plan.timer_policy;
                let Some(node) = &mut self.node else { return };
                node.restart_timer(policy);
                self.entries_shown = node.shard.machine().applied.0;
                self.view.install();
                self.leader_stops_as_filled();
            }
            Publish::Filled(queues) => {
                let Some(node) = &self.node else { return };
                let shown: Vec<_> = queues.iter().map(|(key, _, max)| (*key, *max)).collect();
                self.view.filled(node.shard.machine(), queues);
                self.see_filled(&shown);
            }
            Publish::BadEntry { .. } => {}
            Publish::Mended { index } => self.view.mended(index),
            Publish::LostEntry { index } => {
                self.view.lose(index);
                self.entry_lost(index);
            }
            Publish::OtherLog { first, last } => self.gives_up_log(first, last),
            Publish::AckedTruncated(lost) => {
                self.counters.acked_truncated += lost.entries;
                self.see(Seen::Truncated {
                    first: lost.first,
                    last: lost.last,
                    messages: lost.messages,
                });
            }
            Publish::Role(_) | Publish::Locks { .. } => {}
            Publish::Confirmed { stamp, lease_ms } => self.lease(stamp, lease_ms),
            Publish::Serving(term) => {
                self.groups_change();
                self.view.serving = term;
                if let (Some(_), Some(group)) = (term, &mut self.group) {
                    group.hint = group.here;
                    self.counters.leaderships += 1;
                }
                match term {
                    Some(_) => {
                        self.serving();
                        self.see_claims(false);
                        self.no_needless_leader();
                    }
                    None => self.close_queues(|_| true, Refusal::NotLeader),
                }
            }
            Publish::Topic(topic) => {
                let (id, name) = (topic.id, topic.name.clone());
                if self.group.is_none() {
                    self.see(Seen::Topic { id, name });
                }
                self.view.put_topic(topic);
            }
            Publish::TopicDeleted { name, id } => {
                self.view.delete_topic(&name, id);
                if self.group.is_none() {
                    self.counters.topics_deleted += 1;
                    self.see(Seen::TopicDeleted { id });
                }
                self.close_queues(|key| key.topic.0 == id, Refusal::NotFound("topic"));
            }
            Publish::Group(group) => {
                self.view.groups.insert(group.name.clone(), group.id);
            }
            Publish::GroupDeleted { name, .. } => {
                self.view.groups.remove(&name);
            }
            Publish::Appended {
                index,
                at_ms,
                block,
                data,
            } => {
                match view::block_records(index, &block, &data) {
                    // Told by the oracle.
                    Ok(_) if self.group.is_some() => {}
                    Ok(records) => {
                        for (offset, uid, at) in records {
                            self.visible(block.key, offset, uid, at, at_ms);
                        }
                    }
                    Err(what) => self.fail("I5", what),
                }
                if self.defect == Some(Planted::ReplyOfAnotherTerm) && self.group.is_none() {
                    self.answer_ghost(
                        block.key,
                        block.base,
                        Position {
                            index,
                            ordinal: block.first_ordinal,
                        },
                    );
                }
                let now_us = self.schedule.now_us();
                self.view.appended(now_us, (index, at_ms), block, &data);
            }
            Publish::Stored { index } => {
                // The shell may keep more of the tail in memory.
                let keep = self.rng.below(20);
                self.view.stored(index.saturating_sub(keep));
            }
            Publish::Offsets { group, offsets, .. } => {
                for o in offsets {
                    let key = QueueKey {
                        topic: TopicId(o.topic),
                        queue: o.queue,
                    };
                    self.view.offsets.insert((group.0, key), o.offset);
                    if self.group.is_some() {
                        continue;
                    }
                    self.counters.offsets_moved += 1;
                    // While the end of the log is applied again, offsets are older than once seen.
                    if self.view.serving.is_some() {
                        self.see(Seen::Offset {
                            group: group.0,
                            key,
                            offset: o.offset,
                        });
                    }
                }
            }
            Publish::Trimmed { key, min } => {
                self.view.trimmed(key, min);
                if self.group.is_none() {
                    self.counters.queue_trims += 1;
                    self.see(Seen::Trimmed { key, min });
                }
            }
            Publish::Digest { index, digest } => self.tell_digest(index, digest),
            // Until it is filled anew one that only learns has what the group has lost.
            Publish::Compared(found) if self.has_lost() => self.note_barred(found.outvoted),
            Publish::Compared(found) if self.compared(found.outvoted) => {}
            Publish::Compared(found) => {
                self.fail("I3", format!("replicas hold different states: {found:?}"));
            }
            Publish::Fatal(why) => {
                self.counters.fatal += 1;
                if !self.fault_planted {
                    return self.fail("fatal", why);
                }
                // What a failed sync covered may be gone as after a power loss.
                let (life, power) = (self.life, self.sync_failed);
                let after = self.rng.below(500_000);
                let node = self.here();
                self.schedule
                    .after(after, Event::Crash { node, life, power });
            }
        }
    }

    pub fn answer_ghost(&mut self, key: QueueKey, base: u64, at: Position) {
        let Some(i) = self.clients.ghosts.iter().position(|(k, _)| *k == key) else {
            return;
        };
        let (_, uids) = self.clients.ghosts.remove(i);
        for (n, uid) in (0u64..).zip(uids) {
            let at = Position {
                ordinal: at.ordinal + n as u32,
                ..at
            };
            self.see(Seen::Acked {
                uid,
                at,
                offset: Some(base + n),
            });
        }
    }

    /// Consumers can see a record.
    pub fn visible(&mut self, key: QueueKey, offset: u64, uid: u64, at: Position, store_ts: i64) {
        self.clients.committed.insert(uid);
        let shown = self.shown.entry(key).or_default();
        if offset >= shown.len() as u64 {
            shown.push(at.index);
            self.counters.visible += 1;
            self.probe.last = self.schedule.now_us();
        }
        self.see_clock();
        self.see(Seen::Visible {
            key,
            offset,
            uid,
            at,
            store_ts,
        });
    }

    /// What the machine holds now.
    pub fn state(&self) -> State {
        let Some(node) = &self.node else {
            return State::default();
        };
        let machine = node.shard.machine();
        let ahead = u64::from(self.defect == Some(Planted::MaxAhead));
        let queues = machine
            .queues()
            .map(|(k, m)| (k, m.min, m.next + ahead))
            .collect();
        let topics: Vec<u32> = machine.topics().map(|t| t.id).collect();
        let mut offsets = Vec::new();
        for group in machine.groups() {
            for ((topic, queue), offset) in machine.offsets_of(group.id) {
                offsets.push((
                    group.id,
                    QueueKey {
                        topic: TopicId(topic),
                        queue,
                    },
                    offset,
                ));
            }
        }
        State {
            queues,
            offsets,
            topics,
        }
    }

    fn serving(&mut self) {
        if self.view.filling {
            return self.fail("I16", "a node serves, and shows none of its queues".into());
        }
        let state = self.state();
        self.view.offsets = state
            .offsets
            .iter()
            .map(|(g, k, o)| ((*g, *k), *o))
            .collect();
        // One that leads no more, but has not heard of it, may be behind.
        if self.is_current() {
            self.see(Seen::Serving(state));
        }
    }
}
