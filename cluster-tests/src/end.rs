//! The end of a life: is everything done, and what is in the stores?

use crate::node::Node;
use crate::seen::{Answer, End, Seen};
use crate::sim::Sim;
use crate::view;
use troupemq::storage::LogStore as _;

impl Sim {
    /// Judges what is left.
    pub fn end(&mut self) {
        if self.group.is_some() {
            return self.end_group();
        }
        let Some(node) = &self.node else {
            return self.fail("I19", "the node is down at the end".into());
        };
        if node.shard.serving().is_none() {
            return self.fail("I19", "the node does not serve at the end".into());
        }
        if !node.is_quiet() || self.disk.has_work() {
            return self.fail("I19", "work is left over at the end".into());
        }
        let now_ms = self.clock_ms();
        let late = node
            .shard
            .machine()
            .timers()
            .find(|(t, _)| t.due_ms < now_ms - 5_000);
        let before = node.shard.machine().digest();
        if let Some((timer, _)) = late {
            return self.fail("I13", format!("{timer:?} still waits at {now_ms}"));
        }
        if let Some(what) = self.unanswered_at_the_end() {
            return self.fail("I19", what);
        }
        self.judge_stores();
        self.replay_gives(before);
        self.refuse_later_version();
    }

    /// A request that nobody answered.
    fn unanswered_at_the_end(&mut self) -> Option<String> {
        let forwarded = self.open_at_doors();
        if forwarded > 0 {
            return Some(format!(
                "{forwarded} forwarded requests were never answered"
            ));
        }
        if let Some((request, asked)) = self.people.owed.iter().next() {
            let what = format!("request {request} of a member was never answered: {asked:?}");
            return Some(what);
        }
        if let Some((slot, node)) = self.clients.owed.iter().next() {
            return Some(format!("request {slot} to node {node} was never answered"));
        }
        if self.probe_is_done() {
            return None;
        }
        Some(format!(
            "no message is stored at the end:{}",
            self.replicas()
        ))
    }

    /// All members have what is committed, and no message is due.
    pub(crate) fn is_at_rest(&mut self) -> bool {
        let Some((front, here)) = self.group.as_ref().map(|g| (g.front(), g.here)) else {
            return true;
        };
        let rests = (0..self.nodes()).all(|place| {
            self.enter(place);
            let now_ms = self.clock_ms();
            let rests = |node: &Node| {
                let machine = node.shard.machine();
                let due = machine.timers().any(|(timer, _)| timer.due_ms <= now_ms);
                machine.applied.0 == front && node.is_quiet() && !due
            };
            let rests = self.node.as_deref().is_some_and(rests) && !self.disk.has_work();
            !self.is_member() || rests
        });
        self.enter(here);
        rests
    }

    /// How far others are, as each leader knows, and what is in its log.
    fn what_leaders_know(&mut self) -> String {
        let mut out = String::new();
        for place in 0..self.nodes() {
            self.enter(place);
            let bounds = self.store.bounds(crate::SHARD).ok();
            let Some(node) = &self.node else { continue };
            let progress = node.shard.raft().progress();
            if !progress.is_empty() {
                let (members, refused) =
                    (node.shard.raft().members(), node.shard.refused_messages());
                out += &format!(
                    "node {place}, {bounds:?}, knows {progress:?} {members:?} {refused:?}"
                );
            }
        }
        out
    }

    /// As [`Sim::end`], for several nodes: one serves, and all hold the same.
    fn end_group(&mut self) {
        let Some(front) = self.group.as_ref().map(|g| g.front()) else {
            return;
        };
        let digest = self.group.as_ref().map(|g| g.oracle.digest());
        if let Some(what) = self.unanswered_at_the_end() {
            return self.fail("I19", what);
        }
        let nodes = (0..self.nodes()).filter(|node| {
            self.enter(*node);
            self.is_member()
        });
        let nodes: Vec<usize> = nodes.collect();
        self.see(Seen::Members { nodes });
        let mut serving = Vec::new();
        for place in 0..self.nodes() {
            self.enter(place);
            if !self.is_member() {
                self.counters.strangers += 1;
                continue;
            }
            let Some(node) = &self.node else {
                return self.fail("I19", format!("node {place} is down at the end"));
            };
            let machine = node.shard.machine();
            if machine.applied.0 != front {
                let at = machine.applied.0;
                let leads = self.what_leaders_know();
                let what = format!("node {place} is at {at} of {front}: {leads}");
                return self.fail("I19", what);
            }
            if Some(machine.digest()) != digest {
                let own = machine.describe();
                let other = self.group.as_ref().map(|g| g.oracle.describe());
                return self.fail(
                    "I3",
                    format!("node {place} holds {own}, the log says {other:?}"),
                );
            }
            let members = self.group.as_ref().map(|g| &g.oracle.members);
            if members != Some(&machine.members) {
                let found = format!("{:?}, the log says {members:?}", machine.members);
                return self.fail("I16", format!("node {place} has the members {found}"));
            }
            if machine.members != *node.shard.raft().members() {
                return self.fail("I16", format!("node {place} goes by other members"));
            }
            if !node.is_quiet() {
                return self.fail("I19", format!("work is left over on node {place}"));
            }
            let now_ms = self.clock_ms();
            let late = machine.timers().find(|(t, _)| t.due_ms < now_ms - 5_000);
            if let Some((timer, _)) = late {
                return self.fail("I13", format!("{timer:?} still waits at {now_ms}"));
            }
            if node.shard.serving().is_some() {
                serving.push(place);
            }
        }
        if serving.len() != 1 {
            return self.fail("I19", format!("nodes {serving:?} serve at the end"));
        }
        for place in 0..self.nodes() {
            self.enter(place);
            if !self.is_member() {
                continue;
            }
            self.judge_stores();
            if let Some(digest) = digest.filter(|_| self.failure.is_none()) {
                self.replay_gives(digest);
            }
            self.refuse_later_version();
        }
    }

    /// Reads everything from the stores, as a reader does without any cache.
    fn judge_stores(&mut self) {
        let mut end = End {
            state: self.state(),
            content: Vec::new(),
            now_ms: self.clock_ms(),
        };
        for (key, min, max) in end.state.queues.clone() {
            let mut records = Vec::new();
            let mut next = min;
            while next < max {
                let mut found = Vec::new();
                if let Err(what) = view::from_rows(&self.store, key, next, &mut found) {
                    return self.fail("I1", what.to_string());
                }
                self.see(Seen::Read {
                    key,
                    offset: next,
                    current: true,
                    answer: Answer::Records(found.clone()),
                });
                let Some((offset, _, _)) = found.last() else {
                    return self.fail("I1", format!("{key:?} holds nothing at {next}"));
                };
                next = offset + 1;
                records.extend(found.iter().map(|(offset, uid, _)| (*offset, *uid)));
            }
            end.content.push((key, records));
        }
        for checker in &mut self.checkers {
            if let Err(what) = checker.end(&end) {
                let id = checker.id();
                return self.fail(id, what);
            }
        }
    }

    /// A replay of the log from the last flush gives the very state that was there.
    fn replay_gives(&mut self, before: u64) {
        self.store.kill(&mut self.rng);
        let applied = self
            .node
            .take()
            .map(|node| node.shard.machine().applied.0)
            .unwrap_or(0);
        match self.recover() {
            Ok((shard, _)) => {
                // The commit index rides along with the next write, so the last entries may wait.
                if shard.machine().applied.0 == applied && shard.machine().digest() != before {
                    self.fail("I3", "a replay gives another state".into());
                }
            }
            Err(error) => self.fail("recovery", error.to_string()),
        }
    }
}
