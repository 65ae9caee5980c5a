//! Quotas on what clients make the shard keep. The leader decides before it proposes, by what is
//! applied and what is under way: what is in the log is applied whatever any node's settings are, or
//! replicas with other settings would hold other states.

use super::*;
use crate::model::quota::{QuotaExceeded, QuotaKind};
use crate::routing::names::special_group;

/// Limits of one shard. Nothing that exists is ever refused by them.
#[derive(Debug, Clone)]
pub struct Quotas {
    /// Topics; retry and dead-letter topics of groups that exist do not count.
    pub topics: u64,
    /// Topics up to which sends create one. What is left of `topics` is for operators.
    pub auto_topics: u64,
    /// Groups.
    pub groups: u64,
    /// Groups up to which consumers create one.
    pub auto_groups: u64,
    /// Delayed messages of producers. Messages on their way to be retried may be as many again.
    pub delayed: u64,
    /// Offsets and locks of groups; see [`crate::actors::group::Groups`].
    pub offsets: u64,
    /// Estimated memory, bytes.
    pub state_bytes: u64,
    /// Topics of the broker itself.
    pub own_topics: BTreeSet<String>,
}

impl Default for Quotas {
    /// No limits.
    fn default() -> Self {
        Self {
            topics: u64::MAX,
            auto_topics: u64::MAX,
            groups: u64::MAX,
            auto_groups: u64::MAX,
            delayed: u64::MAX,
            offsets: u64::MAX,
            state_bytes: u64::MAX,
            own_topics: BTreeSet::new(),
        }
    }
}

/// What was proposed while this replica serves, and is not applied yet. It ends with the serving: a
/// leader serves again only when all of its log is applied.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    topics: BTreeSet<String>,
    groups: BTreeSet<String>,
    delayed: u64,
}

impl UnderWay {
    /// An event was applied.
    pub fn applied(&mut self, event: &Event) {
        match event {
            Event::Topic(topic) => {
                self.topics.remove(&topic.name);
            }
            Event::Group(group) => {
                self.groups.remove(&group.name);
            }
            Event::TimerAdded { .. } => self.delayed = self.delayed.saturating_sub(1),
            _ => {}
        }
    }
}

impl ShardCore {
    /// Its limits.
    pub fn quotas(&self) -> &Quotas {
        &self.options.quotas
    }

    /// Takes a command in, unless it creates something beyond a quota.
    pub(super) fn take_command(&mut self, id: u64, op: MetaOp, out: &mut Vec<Effect>) {
        if let Err(why) = self.admit(&op) {
            let result = Err(why.into());
            return out.push(Effect::Proposal { id, result });
        }
        let op = self.options.defect.map_or(op.clone(), |d| d.spoil(op));
        self.proposals.push_back((id, op));
    }

    /// Takes a delayed message in, unless too many wait.
    pub(super) fn take_delayed(&mut self, delayed: Schedule, out: &mut Vec<Effect>) {
        match self.admit_delayed(delayed.again) {
            Ok(()) => self.schedules.push_back(delayed),
            Err(why) => self.refuse(ShardInput::Schedule(delayed), &why.into(), out),
        }
    }

    fn admit(&mut self, op: &MetaOp) -> Result<(), QuotaExceeded> {
        match op {
            MetaOp::PutTopic(topic) => self.admit_topic(&topic.name, false),
            MetaOp::EnsureTopic(topic) => self.admit_topic(&topic.name, true),
            MetaOp::PutGroup(group) => self.admit_group(&group.name, false),
            MetaOp::EnsureGroup(group) => self.admit_group(&group.name, true),
            _ => Ok(()),
        }
    }

    fn knows_group(&self, name: &str) -> bool {
        self.machine.has_group_named(name) || self.under_way.groups.contains(name)
    }

    fn admit_topic(&mut self, name: &str, auto: bool) -> Result<(), QuotaExceeded> {
        if self.machine.has_topic_named(name) || self.under_way.topics.contains(name) {
            return Ok(());
        }
        let quotas = &self.options.quotas;
        let (now, more) = (self.machine.holdings(), self.under_way.topics.len() as u64);
        let free = match special_group(name) {
            // Messages would be stuck without it, and groups are counted themselves.
            Some(group) => self.knows_group(group),
            None => quotas.own_topics.contains(name),
        };
        if !free && special_group(name).is_some() {
            let used = now.special_topics + more;
            if auto {
                let limit = quotas.auto_groups.saturating_mul(2);
                QuotaKind::AutoTopics.check(used, 1, limit)?;
            }
            QuotaKind::Topics.check(used, 1, quotas.groups.saturating_mul(2))?;
        } else if !free {
            if auto {
                QuotaKind::AutoTopics.check(now.topics + more, 1, quotas.auto_topics)?;
            }
            QuotaKind::Topics.check(now.topics + more, 1, quotas.topics)?;
        }
        if !free {
            QuotaKind::StateBytes.check(now.bytes, 1, quotas.state_bytes)?;
        }
        self.under_way.topics.insert(name.to_owned());
        Ok(())
    }

    fn admit_group(&mut self, name: &str, auto: bool) -> Result<(), QuotaExceeded> {
        if self.knows_group(name) {
            return Ok(());
        }
        let quotas = &self.options.quotas;
        let now = self.machine.holdings();
        // A group brings up to two topics, which stay when it is deleted.
        let used = now.groups.max(now.special_topics.div_ceil(2));
        let used = used + self.under_way.groups.len() as u64;
        if auto {
            QuotaKind::AutoGroups.check(used, 1, quotas.auto_groups)?;
        }
        QuotaKind::Groups.check(used, 1, quotas.groups)?;
        QuotaKind::StateBytes.check(now.bytes, 1, quotas.state_bytes)?;
        self.under_way.groups.insert(name.to_owned());
        Ok(())
    }

    fn admit_delayed(&mut self, again: bool) -> Result<(), QuotaExceeded> {
        let quotas = &self.options.quotas;
        let now = self.machine.holdings();
        let (used, limit) = (now.timers + self.under_way.delayed, quotas.delayed);
        if again {
            // Room of its own, or messages that failed could not leave their consumers.
            let exceeded = QuotaKind::Delayed.check(used, 1, limit.saturating_mul(2));
            exceeded.map_err(|_| QuotaExceeded {
                kind: QuotaKind::Delayed,
                limit,
            })?;
        } else {
            QuotaKind::Delayed.check(used, 1, limit)?;
            QuotaKind::StateBytes.check(now.bytes, 1, quotas.state_bytes)?;
        }
        self.under_way.delayed += 1;
        Ok(())
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
