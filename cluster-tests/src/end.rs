//! The end of a life: is everything done, and what is in the stores?

use crate::seen::{Answer, End, Seen};
use crate::sim::Sim;
use crate::view;

impl Sim {
    /// Judges what is left.
    pub fn end(&mut self) {
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
        if let Some((slot, waiting)) = self.clients.waiting.iter().next() {
            let what = format!("request {slot} was never answered: {waiting:?}");
            return self.fail("I19", what);
        }
        self.judge_stores();
        self.replay_gives(before);
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
                    return self.fail("I1", what);
                }
                self.see(Seen::Read {
                    key,
                    offset: next,
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
